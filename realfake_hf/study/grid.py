"""The maps of a subject's methods on one grid, so that they can be laid over each other and over its pictures."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from realfake_hf.explain.agreement import is_empty, to_grid
from realfake_hf.explain.maps import Target
from realfake_hf.study.subjects import Subject, heats

GRID: Final = (8, 8)  # the ViT's own; those of the CNN are finer


def maps_on_grid(
    subject: Subject,
    pictures: NDArray[np.uint8],
    method: str,
    *,
    target: Target = "predicted",
    grid: tuple[int, int] = GRID,
) -> NDArray[np.float64]:
    """Explain pictures, (n, height, width, 3) uint8: (n, *grid) in [0, 1], all NaN where a map is empty."""
    explanations = subject.explain(pictures, method, target=target)
    maps = to_grid(heats(explanations), grid)
    empty = is_empty(maps) | np.array([explanation.is_empty for explanation in explanations])
    return np.where(empty[:, None, None], np.nan, maps)
