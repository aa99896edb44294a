"""Evidence of which the place is known: a quadrant of one picture pasted into another, and maps that find it."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from realfake_hf.explain_study.map_agreement import is_empty

QUADRANTS: Final = 4  # numbered row by row from the upper left

Flags = NDArray[np.bool_]
Values = NDArray[np.float64]


def draw_quadrants(n: int, *, seed: int) -> NDArray[np.intp]:
    """Draw a quadrant for each picture, (n,), all four as often as can be: a map that always looks at one has 1/4."""
    return np.random.default_rng(seed).permutation(np.arange(n) % QUADRANTS)


def inside(quadrants: NDArray[np.integer], size: tuple[int, int]) -> Flags:
    """Mark each picture's quadrant: (n, height, width) of the given size, in pixels or cells.

    >>> inside(np.array([1]), (2, 4)).astype(int).tolist()
    [[[0, 0, 1, 1], [0, 0, 0, 0]]]
    """
    lower, right = np.arange(size[0]) >= size[0] / 2, np.arange(size[1]) >= size[1] / 2
    rows = lower == (quadrants >= 2)[:, None]  # noqa: PLR2004 - the lower two
    columns = right == (quadrants % 2 == 1)[:, None]
    return np.asarray(rows[:, :, None] & columns[:, None, :])


def plant(hosts: NDArray[np.uint8], donors: NDArray[np.uint8], where: Flags) -> NDArray[np.uint8]:
    """Paste a part of each donor into its host, at the same place: (n, height, width, 3) uint8."""
    return np.where(where[..., None], donors, hosts)


def pointing_game(maps: NDArray[np.floating], where: Flags) -> Values:
    """Say whether the highest cell lies in the marked part (Zhang et al., 2018, *Excitation Backprop*, IJCV).

    Args:
        maps: (n, height, width).
        where: of the same shape.

    Returns:
        (n,) in [0, 1]: of the cells that tie for the highest, the share inside; NaN where a map is empty or NaN.
    """
    highest = maps == maps.max(axis=(1, 2), keepdims=True)
    with np.errstate(invalid="ignore"):  # 0 / 0 where nothing compares with NaN
        hits = (highest & where).sum(axis=(1, 2)) / highest.sum(axis=(1, 2))
    return np.where(is_empty(maps), np.nan, hits)


def mass_inside(maps: NDArray[np.floating], where: Flags) -> Values:
    """Give the share of each map's sum that lies in the marked part: (n,) in [0, 1] for maps that are not negative.

    NaN where a map is empty or NaN.
    """
    flat = maps.astype(np.float64)
    with np.errstate(invalid="ignore"):
        shares = np.where(where, flat, 0.0).sum(axis=(1, 2)) / flat.sum(axis=(1, 2))
    return np.where(is_empty(maps) | np.isnan(flat[:, 0, 0]), np.nan, shares)
