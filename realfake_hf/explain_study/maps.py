"""The maps of a study: every method that fits a model, on the same pictures, on one common grid."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm.auto import tqdm

from realfake_hf.explain_study.map_agreement import is_empty, to_grid
from realfake_hf.explain_study.subjects import Subject, heats

CHUNK = 128  # pictures between two steps of the progress bar


@dataclass(frozen=True, eq=False)
class MapSet:
    """What one method shows of one model on every picture.

    Attributes:
        model: its name.
        method: its name in `METHODS`.
        options: of the method.
        layer: that was read, for methods that read one.
        heat: (n, grid_h, grid_w) float32 in [0, 1], on the method's own grid.
    """

    model: str
    method: str
    options: dict[str, Any]
    layer: str | None
    heat: NDArray[np.float32]

    @property
    def name(self) -> str:
        """Model and method."""
        return f"{self.model} {self.method}"

    def on_grid(self, grid: tuple[int, int]) -> NDArray[np.float64]:
        """Bring the maps to a common grid: (n, *grid)."""
        return to_grid(self.heat, grid)

    def to_dict(self) -> dict[str, Any]:
        """Say how the maps were made, on which grid, and how many are empty."""
        return {
            "model": self.model,
            "method": self.method,
            "options": {
                name: list(value) if isinstance(value, tuple) else value for name, value in self.options.items()
            },
            "layer": self.layer,
            "native_grid": list(self.heat.shape[1:]),
            "empty": int(is_empty(self.heat).sum()),
        }


def make_maps(subject: Subject, method: str, pictures: NDArray[np.uint8], *, note: str = "") -> MapSet:
    """Explain all pictures by one method, with a progress bar.

    Args:
        subject: the model.
        method: one that fits it.
        pictures: (n, height, width, 3) uint8 [0, 255].
        note: what the progress bar says beside model and method.
    """
    bar = tqdm(total=len(pictures), desc=f"{subject.name}{note}: {method}", unit="image", disable=None)
    found = []
    with bar:
        for start in range(0, len(pictures), CHUNK):
            found += subject.explain(pictures[start : start + CHUNK], method)
            bar.update(len(found) - bar.n)
    return MapSet(subject.name, method, found[0].options, found[0].layer, heats(found))
