"""From stored pixels to what a model takes: an image processor's size and numbers, a batch at a time on its device."""

from collections.abc import Mapping
from typing import Any, Final

import torch
from PIL.Image import Resampling
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.hooks import RemovableHandle
from transformers import BaseImageProcessor

_MODES: Final = {int(Resampling.BILINEAR): "bilinear", int(Resampling.BICUBIC): "bicubic"}  # torch has these, too


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

    Pixels that are smaller than the processor's size are enlarged, so that small pictures are stored small, travel to
    the device as bytes, and grow there. The result is within one grey level of the processor's own.

    Args:
        processor: the image processor saved with the model.
    """

    def __init__(self, processor: BaseImageProcessor) -> None:
        self.size, self.mode = plain_size(processor), resize_mode(processor)
        self.normalize = Normalize(processor)

    def __call__(self, pixels: Tensor) -> Tensor:
        """Turn (batch, height, width, 3) uint8 into (batch, 3, *the processor's size) float32."""
        width_height = (pixels.shape[2], pixels.shape[1])
        if self.size in (None, width_height) or self.mode is None:
            return self.normalize(pixels)
        return self.normalize(_enlarged(pixels, self.size, mode=self.mode))

    def attach(self, model: nn.Module) -> RemovableHandle:
        """Let a model take stored pixels, uint8, as its `pixel_values`, until the handle is removed."""

        def convert(_: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:  # noqa: ANN401
            values = kwargs["pixel_values"]
            return args, {**kwargs, "pixel_values": self(values) if values.dtype == torch.uint8 else values}

        return model.register_forward_pre_hook(convert, with_kwargs=True)


def plain_size(processor: BaseImageProcessor) -> tuple[int, int] | None:
    """The (width, height) that a processor only resizes to, or None where it also crops or pads."""
    numbers: Mapping[str, Any] = processor.to_dict()
    size = numbers.get("size") or {}
    if numbers.get("do_center_crop") or numbers.get("do_pad") or not {"height", "width"} <= set(size):
        return None
    return (size["width"], size["height"]) if numbers.get("do_resize") else None


def resize_mode(processor: BaseImageProcessor) -> str | None:
    """What torch calls the filter with which a processor resizes, or None where torch has none like it."""
    numbers: Mapping[str, Any] = processor.to_dict()
    return _MODES.get(numbers.get("resample", -1))


def _enlarged(pixels: Tensor, size: tuple[int, int], *, mode: str) -> Tensor:
    """Resize as Pillow does: first the rows, then the columns, with whole grey levels after each.

    `antialias` asks torch for Pillow's bicubic (a = -0.5); its own has a = -0.75.
    """
    values = pixels.permute(0, 3, 1, 2).to(torch.float32)
    for shape in ((values.shape[2], size[0]), (size[1], size[0])):
        values = functional.interpolate(values, shape, mode=mode, antialias=True).round_().clamp_(0, 255)
    return values.permute(0, 2, 3, 1)
