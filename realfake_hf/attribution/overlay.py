"""Blend a map with its image: sharp pixels, sharp cells, and colours that are safe for colour-blind readers."""

from typing import Final

import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray

COLOR_MAP: Final = "inferno"  # perceptually uniform, with increasing lightness
MIN_SIDE: Final = 256  # pixels of the longer side of an overlay

Image = NDArray[np.uint8]


def overlay(image: Image, heat: NDArray[np.floating], *, strength: float = 0.6) -> Image:
    """Blend a map, (grid_h, grid_w) in [0, 1] or NaN, with its image, (height, width, 3) uint8 [0, 255].

    The image is shown in grey, so that colour encodes only the map. Cells keep their edges, because smoothing would
    suggest a finer map. Cells that are NaN stay grey. The strength, in [0, 1], is the weight of the colours. The
    result is uint8, of the size of `enlarge(image)`.

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
    height, width = large.shape[:2]
    rows = np.arange(height) * heat.shape[0] // height
    columns = np.arange(width) * heat.shape[1] // width
    colors = 255 * mpl.colormaps[COLOR_MAP](heat)[..., :3].astype(np.float32)  # (grid_h, grid_w, 3) in [0, 255]
    grey = large @ np.array([0.299, 0.587, 0.114], dtype=np.float32)  # ITU-R BT.601
    mixed = strength * colors[rows][:, columns]
    mixed += ((1 - strength) * grey)[..., None]
    unknown = np.isnan(heat)[rows][:, columns]
    mixed[unknown] = grey[unknown, None]
    return np.rint(mixed, out=mixed).astype(np.uint8)  # type: ignore[no-any-return]


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
