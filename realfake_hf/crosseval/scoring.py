"""Ask all models about the pictures of a data set, each decoded once, shared out among processes."""

from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np
from accelerate import PartialState
from accelerate.utils import gather_object
from numpy.typing import NDArray
from PIL import Image
from tqdm.auto import tqdm

from realfake_hf.crosseval.entrants import Entrant
from realfake_hf.crosseval.testsets import TestSet
from realfake_hf.data.pictures import to_rgb
from realfake_hf.data.protocols import PROTOCOLS

_BLOCK: Final = 64  # pictures; whichever process takes a block, it goes through a model in the same batches
_MOST_PIXELS: Final = 2**25  # of a batch, in memory at once


def score_all(entrants: Sequence[Entrant], one: TestSet, protocol: str) -> dict[str, NDArray[np.floating]]:
    """Score the pictures of a data set with several models: (n,) `p_fake` in [0, 1] each, by name.

    Under `accelerate launch` each process takes every so-manieth block, and all of them get all scores.
    """
    state = PartialState()
    starts = range(0, len(one.rows), _BLOCK)[state.process_index :: state.num_processes]
    hidden = None if state.is_main_process else True
    bar = tqdm(starts, desc=f"{one.name} {one.split} {protocol}", unit="block", disable=hidden)
    mine = [(start, _score_block(entrants, one, start, protocol)) for start in bar]
    blocks = dict(gather_object(mine))
    return {
        entrant.name: np.concatenate([blocks[start][entrant.name] for start in sorted(blocks)]) for entrant in entrants
    }


def _score_block(entrants: Sequence[Entrant], one: TestSet, start: int, protocol: str) -> dict[str, NDArray[Any]]:
    rows = range(start, min(start + _BLOCK, len(one.rows)))
    pictures = (PROTOCOLS[protocol](to_rgb(one.rows[row]["image"])) for row in rows)
    found = [{entrant.name: entrant.score(batch) for entrant in entrants} for batch in _batches(pictures)]
    return {entrant.name: np.concatenate([part[entrant.name] for part in found]) for entrant in entrants}


def _batches(pictures: Iterator[Image.Image]) -> Iterator[list[Image.Image]]:
    batch: list[Image.Image] = []
    pixels = 0
    for picture in pictures:
        batch.append(picture)
        pixels += picture.width * picture.height
        if pixels >= _MOST_PIXELS:
            yield batch
            batch, pixels = [], 0
    if batch:
        yield batch
