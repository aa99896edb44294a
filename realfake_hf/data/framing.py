"""What an image processor leaves of an image, measured on images whose colours are coordinates."""

from dataclasses import dataclass
from math import log2, sqrt
from typing import TYPE_CHECKING, Final

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from transformers import BaseImageProcessor

_PROBE: Final = 512  # pixels of the shorter side
_TOLERANCE: Final = 0.03  # of a share, for the width of the filter at the sides
_SAME: Final = 1.2  # two ratios, one of which is twice the other if the processor treats them differently

Size = tuple[int, int]


@dataclass(frozen=True)
class View:
    """The part of an image that a model sees."""

    part: Size  # (width, height) of the part in pixels of the image
    size: Size  # (width, height) of the part in pixels of the model's input
    share: float  # area of the part, of that of the image


@dataclass(frozen=True)
class Framing:
    """How a processor fits images into the model's input."""

    size: Size  # (width, height) in the input of a square image, in pixels
    seen: tuple[float, float]  # share of (width, height) of a square image that is not cropped
    crops: bool  # whether the sides that are longer than those of a square are cropped
    # exponent with which the area in the input grows with the aspect ratio of an image that keeps its shape; None if
    # all images get the same shape
    growth: float | None

    def view(self, size: Size) -> View:
        """Return what the model sees of an image of this (width, height)."""
        shorter = min(size)
        whole = (shorter, shorter) if self.crops else size
        part = (self.seen[0] * whole[0], self.seen[1] * whole[1])
        (width, height), aspect = self.size, max(size) / shorter
        if self.growth is not None:
            area, ratio = width * height * aspect**self.growth, part[0] / part[1]
            width, height = max(1, round(sqrt(area * ratio))), max(1, round(sqrt(area / ratio)))
        return View(
            part=(round(part[0]), round(part[1])),
            size=(width, height),
            share=part[0] * part[1] / (size[0] * size[1]),
        )


def measure_framing(processor: "BaseImageProcessor") -> Framing | None:
    """Measure a processor on a square image and on one of twice its width.

    None for a processor of several views, of which each leaves other parts and pixels of an image.
    """
    if np.ndim(processor(Image.new("RGB", (8, 8)), return_tensors="np")["pixel_values"]) == 5:  # noqa: PLR2004
        return None
    (width, height), seen = _measure(processor, (_PROBE, _PROBE))
    (wide, flat), (wide_seen, _) = _measure(processor, (2 * _PROBE, _PROBE))
    keeps = (wide / flat) / (width / height) > _SAME
    return Framing(
        size=(width, height),
        seen=seen,
        crops=seen[0] / wide_seen > _SAME,
        growth=round(log2(wide * flat / (width * height))) if keeps else None,
    )


def _measure(processor: "BaseImageProcessor", size: Size) -> tuple[Size, tuple[float, float]]:
    """Return the size in the input of an image of this size, and the share of its (width, height) that is there."""
    width, height = size
    across, down = (255 * (np.arange(side) + 0.5) / side for side in size)
    gray = (np.broadcast_to(shade, (height, width)) for shade in (np.zeros(1), np.full(1, 255), across, down[:, None]))
    images = [Image.fromarray(shades.round().astype(np.uint8)).convert("RGB") for shades in gray]
    black, white, *coordinates = (_input(processor, image) for image in images)
    filled = white != black  # padding has one value
    rows, columns = filled.any(axis=1), filled.any(axis=0)
    scale = np.where(filled, white - black, 1)
    x, y = (((level - black) / scale)[rows][:, columns] for level in coordinates)
    in_height, in_width = x.shape
    across_seen = (x[:, -1] - x[:, 0]).mean() * in_width / max(1, in_width - 1)  # from centre to centre of the pixels
    down_seen = (y[-1] - y[0]).mean() * in_height / max(1, in_height - 1)
    return (in_width, in_height), (_share(across_seen), _share(down_seen))


def _share(measured: float) -> float:
    return 1.0 if measured > 1 - _TOLERANCE else float(measured)


def _input(processor: "BaseImageProcessor", image: Image.Image) -> "NDArray[np.float64]":
    """Return the model's input as (height, width), the mean of its channels."""
    output = processor(image, return_tensors="np")
    values = np.asarray(output["pixel_values"], dtype=np.float64)[0]
    if "spatial_shapes" not in output:  # (channels, height, width)
        return np.asarray(values.mean(axis=0))
    rows, columns = (int(number) for number in output["spatial_shapes"][0])  # of patches, each of a row of the values
    side = round(sqrt(values.shape[1] / 3))
    patches = values[: rows * columns].reshape(rows, columns, side, side, 3).mean(axis=4)
    return np.asarray(patches.swapaxes(1, 2).reshape(rows * side, columns * side))
