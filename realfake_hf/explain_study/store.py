"""What a study has done so far, kept part by part, so that an interrupted one goes on."""

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
from numpy.typing import NDArray

from realfake_hf.explain_study.maps import MapSet
from realfake_hf.store import begin_or_resume, write_json

ASKED: Final = "study.json"


class Store:
    """A folder of finished parts.

    Args:
        folder: an empty one, or that of the same study.
        asked: everything that the parts depend on.

    Raises:
        ValueError: the folder holds another study, or something else.
    """

    def __init__(self, folder: Path, asked: Mapping[str, Any]) -> None:
        self.folder = folder
        self.seconds: dict[str, float] = {}  # that each part took, also one that was kept
        begin_or_resume(folder / ASKED, asked, what="study")

    def part(self, name: str, make: Callable[[], Any]) -> Any:  # noqa: ANN401 - plain JSON
        """Give a part as plain JSON: the one that is kept, or a new one, which is kept then."""
        file = self.folder / f"{name}.json"
        if not file.exists():
            began = time.monotonic()
            found = make()
            write_json(file, {"seconds": time.monotonic() - began, "found": found})
        kept = json.loads(file.read_text())
        self.seconds[name] = kept["seconds"]
        return kept["found"]

    def array(self, name: str, make: Callable[[], NDArray[Any]]) -> NDArray[Any]:
        """Give an array: the one that is kept, or a new one."""
        return self._arrays(name, lambda: {"values": make()})["values"]

    def maps(self, name: str, make: Callable[[], MapSet]) -> MapSet:
        """Give maps: those that are kept, or new ones."""

        def arrays() -> dict[str, NDArray[Any]]:
            maps = make()
            made = {"model": maps.model, "method": maps.method, "options": maps.options, "layer": maps.layer}
            return {"heat": maps.heat, "made": np.array(json.dumps(made))}

        found = self._arrays(name, arrays)
        made = json.loads(str(found["made"]))
        options = {key: tuple(value) if isinstance(value, list) else value for key, value in made["options"].items()}
        return MapSet(made["model"], made["method"], options, made["layer"], found["heat"])

    def _arrays(self, name: str, make: Callable[[], dict[str, NDArray[Any]]]) -> dict[str, NDArray[Any]]:
        file = self.folder / f"{name}.npz"
        if not file.exists():
            part = file.with_name(f"{file.name}.part")
            with part.open("wb") as stream:
                np.savez_compressed(stream, **cast("dict[str, Any]", make()))
            part.replace(file)
        with np.load(file, allow_pickle=False) as kept:
            return {key: kept[key] for key in kept.files}
