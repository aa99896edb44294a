"""Colour an image with a map: a legible image, sharp cells, and colours that are safe for colour-blind readers."""

from itertools import product
from typing import Final

import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray

COLOR_MAP: Final = "inferno"  # perceptually uniform, with increasing lightness
MIN_SIDE: Final = 256  # pixels of the longer side of an overlay
OUTLINED: Final = 0.5  # value, relative to the highest of the map, from which cells are enclosed by a line
_GAMMA: Final = 0.75  # exponent of the opacity; less than 1 shows values in the middle of the range
_SHADE: Final = 0.5  # opacity at full strength of the grey that takes contrast from the image
_SHADE_GREY: Final = 64  # that grey, in [0, 255]
_BAND: Final = 64  # rows of pixels that are blended at a time, to save memory

Image = NDArray[np.uint8]


def overlay(image: Image, heat: NDArray[np.floating], *, strength: float = 0.6) -> Image:
    """Colour an image, (height, width, 3) uint8 [0, 255], with a map, (grid_h, grid_w) in [0, 1] or NaN.

    The image is shown in grey with less contrast, so that colour encodes only the map and its highest cells are
    bright, also on a white image. The opacity of a cell grows with its value, so the image stays visible; lines
    enclose the cells of at least `OUTLINED`. Cells keep their edges, because smoothing would suggest a finer map.
    Cells that are NaN are the plain grey image. The strength, in [0, 1], is the opacity of the highest value; at 0
    the result is the grey image, without lines. The result is uint8, of the size of `enlarge(image)`.

    Raises:
        ValueError: the shape, type or range of the image, map or strength is invalid.
    """
    known = heat[~np.isnan(heat)]
    fits = heat.ndim == 2 and known.size and ((known >= 0) & (known <= 1)).all()  # noqa: PLR2004
    if not fits or not 0 <= strength <= 1:
        raise ValueError(
            "expected a map (grid_h, grid_w) with values in [0, 1] and a strength in [0, 1]; found a map of shape "
            f"{heat.shape} and the strength {strength}. Use the map of an Explanation, which is scaled."
        )
    large = enlarge(image)
    rows, columns = (np.arange(side) * n // side for side, n in zip(large.shape[:2], heat.shape, strict=True))
    colors = 255 * mpl.colormaps[COLOR_MAP](heat)[..., :3].astype(np.float32)  # (grid_h, grid_w, 3) in [0, 255]
    opacity = strength * np.nan_to_num(heat).astype(np.float32) ** _GAMMA
    shade = np.where(np.isnan(heat), 0, np.float32(strength * _SHADE))
    kept = (1 - shade) * (1 - opacity)  # share of the image in each cell
    added = (shade * (1 - opacity) * _SHADE_GREY)[..., None] + opacity[..., None] * colors
    mixed = np.empty_like(large)
    for start in range(0, len(large), _BAND):
        band, cells = slice(start, start + _BAND), np.ix_(rows[start : start + _BAND], columns)
        grey = large[band] @ np.array([0.299, 0.587, 0.114], dtype=np.float32)  # ITU-R BT.601
        mixed[band] = np.rint((grey * kept[cells])[..., None] + added[cells])
    if strength:
        _outline(mixed, (np.nan_to_num(heat) >= OUTLINED)[rows][:, columns])
    return mixed


def _outline(pixels: Image, region: NDArray[np.bool_]) -> None:
    """Enclose a region, (height, width), with a white line inside and a black one outside, in place."""
    height, width = region.shape
    line = max(1, max(height, width) // 300)
    padded = np.pad(region, line)
    least, most = region.copy(), region.copy()
    for down, right in product((0, line, 2 * line), repeat=2):
        shifted = padded[down : down + height, right : right + width]
        least &= shifted
        most |= shifted
    pixels[most & ~region] = 0
    pixels[region & ~least] = 255


def enlarge(image: Image) -> Image:
    """Enlarge an image, (height, width, 3) uint8, by an integer factor, to at least 256 pixels on its longer side.

    >>> enlarge(np.zeros((32, 24, 3), dtype=np.uint8)).shape
    (256, 192, 3)
    """
    if image.dtype != np.uint8 or image.shape[2:] != (3,) or not image.size:
        raise ValueError(
            f"expected an image (height, width, 3) of uint8; found {image.shape} of {image.dtype}. Use "
            "np.asarray(image.convert('RGB'))."
        )
    factor = -(-MIN_SIDE // max(image.shape[:2]))
    return image.repeat(factor, axis=0).repeat(factor, axis=1)
