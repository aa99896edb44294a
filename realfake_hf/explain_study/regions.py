"""The middle of a picture and its rim, of exactly equal area, and how much of a map lies in either."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from realfake_hf.explain_study.map_agreement import Maps, Values, is_empty

Mask = NDArray[np.bool_]

_MAP_AXES: Final = 3  # n, height, width


def centre_mask(shape: tuple[int, int], share: float) -> Mask:
    """Choose the pixels nearest to the middle of a picture.

    Pixels are ordered by their Chebyshev distance from the middle, relative to the picture's sides, so that regions
    are frames of the picture; pixels of one frame by their Euclidean distance, so that corners come last; then in
    pairs that lie opposite each other, so that the middle stays the centre of mass where the count is even.

    Args:
        shape: height and width of the picture in pixels.
        share: of the picture's area, in [0, 1]; rounded to whole pixels.

    Returns:
        (height, width), True for the first `round(share * height * width)` pixels of that order.

    Raises:
        ValueError: a share outside [0, 1].

    >>> centre_mask((4, 4), 0.25).astype(int)
    array([[0, 0, 0, 0],
           [0, 1, 1, 0],
           [0, 1, 1, 0],
           [0, 0, 0, 0]])
    """
    places = _places(shape)
    return places < _count(shape, share)


def rim_mask(shape: tuple[int, int], share: float) -> Mask:
    """Choose as many pixels as `centre_mask`, the last of the same order; arguments and errors are those of it."""
    places = _places(shape)
    return places >= places.size - _count(shape, share)


def mass_share(maps: Maps, mask: Mask) -> Values:
    """Measure how much of each map lies inside a region of the picture.

    A cell covers the pixels that it is drawn over, with sharp edges: pixel row i shows cell row
    i * grid_h // height. A map that looks everywhere alike would have the mask's share of the area.

    Args:
        maps: (n, grid_h, grid_w), not negative, not finer than the mask.
        mask: (height, width) of the pixels that are meant.

    Returns:
        (n,) in [0, 1]; NaN for a map that is empty (constant).

    Raises:
        ValueError: other maps.
    """
    if maps.ndim != _MAP_AXES or (np.array(maps.shape[1:]) > mask.shape).any() or not (maps >= 0).all():
        raise ValueError(
            f"wanted maps (n, grid_h, grid_w) of 0 or more, no finer than the {mask.shape} pixels of the region; "
            f"found {maps.shape} from {np.min(maps, initial=np.inf):g}. Use the maps of explanations."
        )
    inside, whole = _pixels_of_cells(mask, maps.shape[1:]), _pixels_of_cells(np.ones_like(mask), maps.shape[1:])
    heat = maps.astype(np.float64)
    with np.errstate(invalid="ignore"):  # 0 / 0 of an empty map
        shares = (heat * inside).sum(axis=(1, 2)) / (heat * whole).sum(axis=(1, 2))
    return np.where(is_empty(maps), np.nan, shares)


def _places(shape: tuple[int, int]) -> NDArray[np.intp]:
    """Number the pixels from the middle outwards, in whole numbers, so that ties are ties."""
    height, width = shape
    down = (2 * np.arange(height) - (height - 1))[:, None] * width + np.zeros(width, dtype=np.intp)
    right = (2 * np.arange(width) - (width - 1))[None, :] * height + np.zeros((height, 1), dtype=np.intp)
    frame = np.maximum(np.abs(down), np.abs(right))
    keys = (right, down, down * right > 0, np.abs(down), down**2 + right**2, frame)  # the last one counts first
    places = np.empty(height * width, dtype=np.intp)
    places[np.lexsort([key.ravel() for key in keys])] = np.arange(height * width)
    return places.reshape(shape)


def _count(shape: tuple[int, int], share: float) -> int:
    if not 0 <= share <= 1:
        raise ValueError(f"wanted a share of the picture in [0, 1]; found {share}. Half of it is 0.5.")
    return round(share * shape[0] * shape[1])


def _pixels_of_cells(mask: Mask, grid: tuple[int, ...]) -> Values:
    """Count the chosen pixels that each cell is drawn over: of the grid's shape."""
    rows, columns = (np.arange(side) * cells // side for side, cells in zip(mask.shape, grid, strict=True))
    counts = np.zeros(grid)
    np.add.at(counts, np.ix_(rows, columns), mask)
    return counts
