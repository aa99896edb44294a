"""Where a pretrained checkpoint lies: in a folder here, or on the Hub."""

import os
from pathlib import Path
from typing import Final

WEIGHTS: Final = "weights"  # the folder, here or below REALFAKE_SHARED, where downloaded checkpoints may lie


def find_checkpoint(name: str) -> str:
    """Give the folder of a checkpoint where one lies here, or else the name itself, for the Hub.

    >>> find_checkpoint("user/no-such-model")
    'user/no-such-model'
    """
    if Path(name).expanduser().is_dir():
        return str(Path(name).expanduser())
    roots = [Path(), *([Path(shared)] if (shared := os.environ.get("REALFAKE_SHARED")) else [])]
    places = [root / WEIGHTS / name.rpartition("/")[2] for root in roots]
    return next((str(place) for place in places if (place / "config.json").is_file()), name)
