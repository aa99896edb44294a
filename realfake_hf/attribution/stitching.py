"""Stitch the maps of several views of an image into one map of the whole image."""

import math
from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor

from realfake_hf.attribution.layout import Grid

MAX_WINDOWS: Final = 24
MAX_CELLS: Final = 128  # of the longer side of a stitched map

Box = tuple[float, float, float, float]  # left, top, right, bottom, in pixels of the image


def tile(width: int, height: int, size: int) -> list[tuple[float, float]]:
    """Return the positions of windows that tile an image, between its edges (0, 0) and (1, 1).

    Windows are squares of `size` pixels, or of the shorter side. At most 24 are placed, with equal gaps if they do not
    cover the image.
    """
    side = min(size, width, height)
    columns, rows = (min(MAX_WINDOWS, math.ceil(length / side)) for length in (width, height))
    while columns * rows > MAX_WINDOWS:
        if width / columns < height / rows:
            columns -= 1
        else:
            rows -= 1
    xs, ys = ([index / (n - 1) for index in range(n)] if n > 1 else [0.5] for n in (columns, rows))
    return [(x, y) for y in ys for x in xs]


def stitched_grid(size: tuple[int, int], boxes: Sequence[Box], grid: Grid) -> Grid:
    """Return height and width in cells of the map of an image: its cells are as fine as those of its finest view.

    Args:
        size: width and height of the image in pixels.
        boxes: of the views.
        grid: of the map of a view.
    """
    sides = ((right - left) / grid[1] for left, _, right, _ in boxes)
    cell = max(min(sides), max(size) / MAX_CELLS)
    return math.ceil(size[1] / cell), math.ceil(size[0] / cell)


def stitch(maps: Tensor, boxes: Sequence[Box], *, size: tuple[int, int], grid: Grid) -> Tensor:
    """Average the maps of views over the cells of the image, weighted by area.

    Args:
        maps: (views, view_h, view_w).
        boxes: where each view lies.
        size: width and height of the image in pixels.
        grid: height and width in cells of the result.

    Returns:
        (grid_h, grid_w) float32; NaN in cells that no view covers.
    """
    total = torch.zeros(grid, dtype=torch.float64)
    covered = torch.zeros(grid, dtype=torch.float64)
    for heat, (left, top, right, bottom) in zip(maps.double().cpu(), boxes, strict=True):
        rows = _overlaps(_edges(0, size[1], grid[0]), _edges(top, bottom, heat.shape[0]))
        columns = _overlaps(_edges(0, size[0], grid[1]), _edges(left, right, heat.shape[1]))
        total += rows @ heat @ columns.T
        covered += torch.outer(rows.sum(1), columns.sum(1))
    return (total / covered).float()


def combine(kinds: Sequence[Tensor]) -> Tensor:
    """Average the stitched maps of several kinds of views, (grid_h, grid_w) each.

    Where no view of a kind lies, the mean of its map counts, so that the borders of views do not show. Cells that no
    view at all covers are NaN.
    """
    stacked = torch.stack(list(kinds))
    unknown = stacked.isnan()
    filled = torch.where(unknown, stacked.nanmean(dim=(1, 2), keepdim=True), stacked)
    return filled.mean(0).masked_fill(unknown.all(0), torch.nan)


def _edges(low: float, high: float, cells: int) -> Tensor:
    return torch.linspace(low, high, cells + 1, dtype=torch.float64)


def _overlaps(first: Tensor, second: Tensor) -> Tensor:
    """Return the length that each cell of one axis shares with each cell of another, from their edges."""
    low = torch.maximum(first[:-1, None], second[None, :-1])
    high = torch.minimum(first[1:, None], second[None, 1:])
    return (high - low).clamp_min(0)
