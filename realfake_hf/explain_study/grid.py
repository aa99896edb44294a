"""The maps of a subject's methods on one grid, so that they can be laid over each other and over its pictures."""

import numpy as np
from numpy.typing import NDArray

from realfake_hf.attribution.methods import Target
from realfake_hf.explain_study.agreement import GRID
from realfake_hf.explain_study.map_agreement import is_empty, to_grid
from realfake_hf.explain_study.subjects import Subject, heats


def maps_on_grid(
    subject: Subject, pictures: NDArray[np.uint8], method: str, *, target: Target = "predicted"
) -> NDArray[np.float64]:
    """Explain pictures, (n, height, width, 3) uint8: (n, *GRID) in [0, 1], all NaN where a map is empty."""
    maps = to_grid(heats(subject.explain(pictures, method, target=target)), GRID)
    return np.where(is_empty(maps)[:, None, None], np.nan, maps)
