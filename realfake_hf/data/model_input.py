"""From stored pixels to what a model takes: an image processor's size and numbers, a batch at a time on its device."""

from functools import lru_cache
from typing import Any, Final

import numpy as np
import torch
from PIL import Image
from PIL.Image import Resampling
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import BaseImageProcessor

_ONE: Final = 2**22  # Pillow's fixed-point 1 for 8-bit pictures


class Normalize:
    """A processor's numbers, applied to a batch on its device.

    Args:
        processor: gives the rescaling factor, mean and standard deviation.
    """

    def __init__(self, processor: BaseImageProcessor) -> None:
        numbers = processor.to_dict()
        channels = len(numbers["image_mean"]) if numbers.get("do_normalize") else 1
        factor = numbers["rescale_factor"] if numbers.get("do_rescale") else 1.0
        mean = torch.tensor(numbers["image_mean"] if numbers.get("do_normalize") else [0.0] * channels)
        deviation = torch.tensor(numbers["image_std"] if numbers.get("do_normalize") else [1.0] * channels)
        self._scale = (factor / deviation).view(-1, 1, 1)
        self._shift = (mean / deviation).view(-1, 1, 1)

    def __call__(self, pixels: Tensor) -> Tensor:
        """Turn (batch, height, width, 3) uint8 into (batch, 3, height, width) float32, channels last in memory."""
        values = pixels.permute(0, 3, 1, 2).to(torch.float32)
        return values.mul_(self._scale.to(values.device)).sub_(self._shift.to(values.device))


class ModelInput:
    """What a processor makes of pictures, as tensor arithmetic: stored pixels in, `pixel_values` out.

    Pixels that do not have the processor's size get it here, with the processor's own filter, so that small pictures
    are stored small, travel to the device as bytes, and grow there.

    Args:
        processor: the image processor saved with the model.
    """

    def __init__(self, processor: BaseImageProcessor) -> None:
        self.size = plain_size(processor)
        self.normalize = Normalize(processor)
        self._filter = filter_of(processor)

    def __call__(self, pixels: Tensor) -> Tensor:
        """Turn (batch, height, width, 3) uint8 into (batch, 3, *the processor's size) float32."""
        if self.size in (None, (pixels.shape[2], pixels.shape[1])):
            return self.normalize(pixels)
        return self.normalize(resized(pixels, self.size, resample=self._filter))

    def attach(self, model: nn.Module) -> RemovableHandle:
        """Let a model take stored pixels, uint8, as its `pixel_values`, until the handle is removed."""

        def convert(_: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:  # noqa: ANN401
            values = kwargs["pixel_values"]
            return args, {**kwargs, "pixel_values": self(values) if values.dtype == torch.uint8 else values}

        return model.register_forward_pre_hook(convert, with_kwargs=True)


def plain_size(processor: BaseImageProcessor) -> tuple[int, int] | None:
    """The (width, height) that a processor only resizes to, or None where it also crops or pads."""
    if not _says(processor, "do_resize") or _says(processor, "do_center_crop") or _says(processor, "do_pad"):
        return None
    size = dict(_says(processor, "size") or {})
    return (size["width"], size["height"]) if size.get("width") and size.get("height") else None


def filter_of(processor: BaseImageProcessor) -> Resampling:
    """Pillow's filter that a processor resizes with."""
    return Resampling(getattr(processor, "resample", Resampling.BILINEAR))


def _says(processor: BaseImageProcessor, name: str) -> Any:  # noqa: ANN401
    """One of a processor's settings, or None; its `to_dict` copies all of them first."""
    return getattr(processor, name, None)


def resized(pixels: Tensor, size: tuple[int, int], *, resample: Resampling) -> Tensor:
    """Resize a batch as Pillow does a picture, on the batch's device: rows first, whole grey levels after each pass.

    Pillow's weights are whole multiples of 2**-22, so that sums are exact, but on devices without float64.

    Args:
        pixels: (batch, height, width, 3) uint8 [0, 255].
        size: (width, height).
        resample: Pillow's filter.

    Returns:
        (batch, *size, 3) of whole numbers in [0, 255].
    """
    exact = torch.float32 if pixels.device.type == "mps" else torch.float64
    values = pixels.permute(0, 3, 1, 2).to(exact)  # (batch, 3, height, width)
    across, down = (
        _weights(old, new, resample).to(values) for old, new in zip(values.shape[:1:-1], size, strict=True)
    )
    return _whole(down @ _whole(values @ across.T)).permute(0, 2, 3, 1)


def _whole(sums: Tensor) -> Tensor:
    return sums.add_(_ONE / 2).div_(_ONE).floor_().clamp_(0, 255)


@lru_cache(maxsize=64)
def _weights(old: int, new: int, resample: Resampling) -> Tensor:
    """What each of `new` pixels takes of each of `old`: (new, old), with 2**22 for 1, read off Pillow itself."""
    impulses = Image.fromarray(_ONE * np.eye(old, dtype=np.int32))  # mode I, which Pillow computes in float64
    return torch.from_numpy(np.asarray(impulses.resize((new, old), resample)).T.astype(np.float64))
