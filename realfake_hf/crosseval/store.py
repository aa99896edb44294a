"""What a grid has done so far, kept cell by cell, so that an interrupted one goes on."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from realfake_hf.store import write_json

CELLS: Final = "cells"

Plain = dict[str, Any]  # JSON


class CellStore:
    """A folder of finished cells, which is there from the first of them on.

    Args:
        folder: an empty one, or that of a grid.
        writes: whether this process is the one that writes.

    Raises:
        ValueError: the folder holds something else.
    """

    def __init__(self, folder: Path, *, writes: bool = True) -> None:
        self.folder = folder / CELLS
        self.writes = writes
        if folder.exists() and any(folder.iterdir()) and not self.folder.exists():
            raise ValueError(
                f"wanted an empty output folder, or that of a grid; found other files in {folder}. Name another with "
                "--output_dir."
            )

    def forget(self) -> None:
        """Delete every finished cell, as `--fresh` asks."""
        for file in [*self.folder.glob("*.npz"), *self.folder.glob("*.json")] if self.writes else []:
            file.unlink(missing_ok=True)

    def array(self, name: str, asked: Mapping[str, Any]) -> NDArray[np.float64] | None:
        """Give the array that is kept under a name, or None where there is none: `scores`."""
        return self.scores(name, asked)

    def keep_array(self, name: str, asked: Mapping[str, Any], values: NDArray[np.floating]) -> None:
        """Keep an array of any shape under a name; the file appears whole or not at all."""
        self.keep_scores(name, asked, values)

    def scores(self, name: str, asked: Mapping[str, Any]) -> NDArray[np.float64] | None:
        """Give the scores that are kept under a name, or None where there are none.

        Raises:
            ValueError: they were made with other settings than those now asked.
        """
        file = self.folder / f"{name}.npz"
        if not file.exists():
            return None
        with np.load(file, allow_pickle=False) as kept:
            self._refuse_changed(name, json.loads(str(kept["asked"])), asked)
            return np.asarray(kept["p_fake"], dtype=np.float64)

    def keep_scores(self, name: str, asked: Mapping[str, Any], p_fake: NDArray[np.floating]) -> None:
        """Keep (n,) scores under a name; the file appears whole or not at all."""
        if not self.writes:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        part = self.folder / f"{name}.npz.part"
        with part.open("wb") as stream:
            np.savez_compressed(stream, p_fake=p_fake, asked=np.array(json.dumps(asked)))
        part.replace(self.folder / f"{name}.npz")

    def cell(self, name: str, asked: Mapping[str, Any], make: Callable[[], Plain]) -> Plain:
        """Give a cell as plain JSON: the one that is kept, or a new one, which is kept then.

        Raises:
            ValueError: the one that is kept was made with other settings than those now asked.
        """
        file = self.folder / f"{name}.json"
        if file.exists():
            kept = json.loads(file.read_text(encoding="utf-8"))
            self._refuse_changed(name, kept["asked"], asked)
            return kept["cell"]  # type: ignore[no-any-return]
        made = make()
        if self.writes:
            write_json(file, {"asked": asked, "cell": made})
        return json.loads(json.dumps(made))  # type: ignore[no-any-return]

    def _refuse_changed(self, name: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
        changed = sorted(key for key in {*before, *now} if before.get(key) != now.get(key))
        if changed:
            raise ValueError(
                f"wanted the settings of the finished cell {name} in {self.folder} to go on with it; found other "
                f"values of {', '.join(changed)}. Give the same ones, another --output_dir, or --fresh."
            )
