"""Do two maps of the same picture point at the same evidence? Overlap, correlation, structure, distance; and chance.

Rules that hold for all: maps are brought to one grid by averaging whole cells; a picture of which one map is empty
(constant) has no agreement, NaN, and is counted; cells that tie for the last places of the top share them.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.stats import hypergeom, rankdata

Maps = NDArray[np.floating]
Values = NDArray[np.float64]

SSIM_WINDOW: Final = 3  # cells; 7, as is usual for photographs, would leave two windows a side on a grid of 8
_C1, _C2 = 0.01**2, 0.03**2  # Wang et al. (2004), for values in [0, 1]


def to_grid(maps: Maps, grid: tuple[int, int]) -> Values:
    """Bring maps to a common grid: cells are averaged where there are more, repeated where there are fewer.

    Args:
        maps: (n, height, width).
        grid: height and width.

    Returns:
        (n, *grid).
    """
    if maps.shape[1:] == grid:
        return maps.astype(np.float64)
    size = (grid[1], grid[0])
    resized = [Image.fromarray(one.astype(np.float32)).resize(size, Image.Resampling.BOX) for one in maps]
    return np.stack([np.asarray(one, dtype=np.float64) for one in resized])


def is_empty(maps: Maps) -> NDArray[np.bool_]:
    """Say of each map, (n,), whether it is constant: it points nowhere."""
    flat = maps.reshape(len(maps), -1)
    return np.asarray(flat.max(axis=1) == flat.min(axis=1))


def top_iou(a: Maps, b: Maps, *, share: float) -> Values:
    """Intersection over union of the highest cells of two maps: (n,) in [0, 1].

    Args:
        a: (n, height, width).
        b: of the same shape.
        share: of the cells that count as high; at least one cell does.
    """
    first, second = (_top(maps, share) for maps in (a, b))
    return np.asarray(np.minimum(first, second).sum(axis=1) / np.maximum(first, second).sum(axis=1))


def spearman(a: Maps, b: Maps) -> Values:
    """Rank correlation of the cells: (n,) in [-1, 1], tied cells with their mean rank."""
    ranks = [rankdata(maps.reshape(len(maps), -1), axis=1) for maps in (a, b)]
    return pearson(*ranks)


def pearson(a: Maps, b: Maps) -> Values:
    """Linear correlation of the cells: (n,) in [-1, 1]."""
    x, y = (_centred(maps) for maps in (a, b))
    with np.errstate(invalid="ignore"):  # 0 / 0 of an empty map
        return np.asarray((x * y).sum(axis=1) / np.sqrt((x**2).sum(axis=1) * (y**2).sum(axis=1)))


def ssim(a: Maps, b: Maps) -> Values:
    """Structural similarity (Wang et al., 2004) of maps in [0, 1]: (n,) in [-1, 1], mean over windows of 3 cells."""
    x, y = (_windows(maps) for maps in (a, b))  # (n, windows, cells)
    mean_x, mean_y = x.mean(axis=-1), y.mean(axis=-1)
    covariance = (x * y).mean(axis=-1) - mean_x * mean_y
    variances = x.var(axis=-1) + y.var(axis=-1)
    light = (2 * mean_x * mean_y + _C1) / (mean_x**2 + mean_y**2 + _C1)
    return np.asarray((light * (2 * covariance + _C2) / (variances + _C2)).mean(axis=-1))


def centre_distance(a: Maps, b: Maps) -> Values:
    """Distance of the centres of mass as a share of the map's diagonal: (n,) in [0, 1]; maps are not negative."""
    first, second = (_centre(maps) for maps in (a, b))
    diagonal = np.hypot(*(side - 1 for side in a.shape[1:]))
    return np.asarray(np.hypot(*(first - second).T) / diagonal)


MEASURES: Final[Mapping[str, Callable[[Maps, Maps], Values]]] = {
    "iou_top_10": partial(top_iou, share=0.1),
    "iou_top_20": partial(top_iou, share=0.2),
    "spearman": spearman,
    "pearson": pearson,
    "ssim": ssim,
    "centre_distance": centre_distance,
}


def agreement(a: Maps, b: Maps) -> dict[str, Values]:
    """Measure the agreement of each pair of maps in every way.

    Args:
        a: (n, height, width) in [0, 1], on the same grid as b.
        b: (n, height, width) in [0, 1].

    Returns:
        (n,) for each name in `MEASURES`; NaN where one of the two maps is empty.

    Raises:
        ValueError: the maps are not on one grid, or outside [0, 1].
    """
    if a.shape != b.shape or a.ndim != 3 or not _in_unit(a) or not _in_unit(b):  # noqa: PLR2004
        raise ValueError(
            f"wanted maps in [0, 1] of the same pictures on one grid, (n, height, width); found {a.shape} and "
            f"{b.shape}. Use the maps of explanations, and to_grid."
        )
    void = is_empty(a) | is_empty(b)
    return {name: np.where(void, np.nan, measure(a, b)) for name, measure in MEASURES.items()}


def chance_iou(cells: int, *, share: float) -> float:
    """What `top_iou` is on average for maps that know nothing of each other and have no ties.

    With k of N cells high in each, the overlap is hypergeometric. For large N it comes to k / (2N - k).

    >>> round(chance_iou(10_000, share=0.1), 3)
    0.053
    """
    high = _count(cells, share)
    overlaps = np.arange(high + 1)
    return float(np.sum(hypergeom(cells, high, high).pmf(overlaps) * overlaps / (2 * high - overlaps)))


def centre_gaussian(grid: tuple[int, int], *, sigma: float = 0.25) -> Values:
    """A map that looks at the middle of every picture: (height, width) in (0, 1].

    Args:
        grid: height and width.
        sigma: of the bell, as a share of the sides.
    """
    rows, columns = (((np.arange(side) + 0.5) / side - 0.5) / sigma for side in grid)
    return np.asarray(np.exp(-0.5 * (rows[:, None] ** 2 + columns[None, :] ** 2)))


def shuffled(n: int, *, seed: int) -> NDArray[np.intp]:
    """Pair every picture with another one: (n,) positions, of which none is its own.

    Raises:
        ValueError: there is no other picture.
    """
    if n < 2:  # noqa: PLR2004
        raise ValueError(f"wanted two pictures or more to pair one with another; found {n}.")
    order = np.random.default_rng(seed).permutation(n)
    partner = np.empty(n, dtype=np.intp)
    partner[order] = np.roll(order, 1)
    return partner


def _top(maps: Maps, share: float) -> Values:
    """Membership of each cell in the top, (n, cells) in [0, 1]: cells that tie for the last places share them."""
    flat = maps.reshape(len(maps), -1)
    places = _count(flat.shape[1], share)
    last = np.partition(flat, -places, axis=1)[:, -places, None]
    above, level = flat > last, flat == last
    left = places - above.sum(axis=1, keepdims=True)
    return np.asarray(above + level * (left / level.sum(axis=1, keepdims=True)))


def _count(cells: int, share: float) -> int:
    return max(1, round(share * cells))


def _centred(maps: Maps) -> Values:
    flat = maps.reshape(len(maps), -1).astype(np.float64)
    return np.asarray(flat - flat.mean(axis=1, keepdims=True))


def _windows(maps: Maps) -> Values:
    views = np.lib.stride_tricks.sliding_window_view(maps.astype(np.float64), (SSIM_WINDOW,) * 2, axis=(1, 2))
    return views.reshape(len(maps), -1, SSIM_WINDOW**2)


def _centre(maps: Maps) -> Values:
    mass = maps.sum(axis=(1, 2), keepdims=True)
    with np.errstate(invalid="ignore"):  # 0 / 0 of an empty map
        weights = maps / mass
    rows, columns = (np.arange(side) for side in maps.shape[1:])
    return np.stack([(weights.sum(axis=2) * rows).sum(axis=1), (weights.sum(axis=1) * columns).sum(axis=1)], axis=1)


def _in_unit(maps: Maps) -> bool:
    return bool(((maps >= 0) & (maps <= 1)).all())
