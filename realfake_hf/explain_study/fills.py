"""What takes the place of hidden pixels: the picture's own blur, or its own mean colour."""

from collections.abc import Callable, Mapping
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

Fill = Literal["blur", "mean"]

FILLS: Final = ("blur", "mean")
BLUR: Final = 1 / 8  # sigma as a share of the sides: 4 of 32 pixels, one cell of a grid of 8, so that no detail stays


def fill_in(pictures: NDArray[np.uint8], hidden: NDArray[np.bool_], *, fill: Fill) -> NDArray[np.uint8]:
    """Replace the hidden pixels of each picture by something that it would not be recognised from.

    Neither fill brings in a colour that the picture does not have, as black would; a blur leaves no edge of high
    contrast where it ends, and a flat colour leaves no structure at all. What holds for both is not due to the fill.

    Args:
        pictures: (n, height, width, 3) uint8 [0, 255].
        hidden: (n, height, width), or (height, width) for all pictures alike.
        fill: "blur" for the whole picture blurred by a Gaussian, mirrored at its borders; "mean" for the mean colour
            of the whole picture.

    Returns:
        (n, height, width, 3) uint8; what is not hidden is unchanged.

    Raises:
        ValueError: an unknown fill, or a mask of another size than the pictures.
    """
    if fill not in _FILLED:
        raise ValueError(f"wanted a fill of {', '.join(FILLS)}; found {fill!r}.")
    if hidden.shape not in (pictures.shape[:3], pictures.shape[1:3]):
        raise ValueError(
            f"wanted a mask {pictures.shape[1:3]} for all pictures, or {pictures.shape[:3]} with one for each; found "
            f"{hidden.shape}. Give one flag a pixel."
        )
    return np.where(hidden[..., None], filled(pictures, fill=fill), pictures)


def filled(pictures: NDArray[np.uint8], *, fill: Fill) -> NDArray[np.uint8]:
    """Give what `fill_in` takes the hidden pixels from, (n, height, width, 3) uint8: pictures with all hidden."""
    return np.rint(_FILLED[fill](pictures.astype(np.float32))).astype(np.uint8)


def _blurred(pictures: NDArray[np.float32]) -> NDArray[np.float32]:
    height, width = pictures.shape[1:3]
    blurred: NDArray[np.float32] = gaussian_filter(pictures, sigma=(0, BLUR * height, BLUR * width, 0), mode="reflect")
    return blurred


def _mean_colour(pictures: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.broadcast_to(pictures.mean(axis=(1, 2), keepdims=True), pictures.shape)


_FILLED: Final[Mapping[Fill, Callable[[NDArray[np.float32]], NDArray[np.float32]]]] = {
    "blur": _blurred,
    "mean": _mean_colour,
}
