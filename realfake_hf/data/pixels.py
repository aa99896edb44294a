"""Decode images once into a memory-mapped array, fetch batches, and preprocess them on the model's device.

Images have the geometry (size, resampling, crop) of the model's saved image processor, and `ModelInput` applies its
numbers, so that a model receives the same values in training as from `pipeline("image-classification")`.
"""

import hashlib
import io
import json
import os
from collections.abc import Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from numpy.lib.format import open_memmap
from numpy.typing import NDArray
from PIL import Image
from PIL.Image import Resampling
from torch import Tensor, nn
from torch.utils import data as torch_data
from torch.utils.hooks import RemovableHandle
from transformers import BaseImageProcessor
from transformers.image_processing_backends import PilBackend

from realfake_hf.data.augment import Augmentation
from realfake_hf.data.decoding import MAX_PIXELS, UnreadableImageError, decode_image
from realfake_hf.parallel import map_in_processes
from realfake_hf.store import cached_file

if TYPE_CHECKING:
    from datasets import Dataset

Pixels = NDArray[np.uint8]

MAX_RESIZED: Final = MAX_PIXELS // 4  # pixels of an image between resizing and cropping
_CACHE_VERSION: Final = 2  # increase it when the pixels of unchanged images and processor change
_TRIALS: Final = ((64, 48), (45, 77), (643, 421))  # width and height: wide, tall, and larger than most models need
_ONE: Final = 2**22  # Pillow's fixed-point representation of 1 for 8-bit images


def cached_pixels(
    images: "Dataset", processor: BaseImageProcessor, *, cache_dir: str | os.PathLike[str] | None = None
) -> Pixels:
    """Return all images in the geometry of the processor; decode them on the first call, then memory-map them.

    If all images have one size that is smaller than the processor's, they are stored at that size, and `ModelInput`
    upscales each batch. Processes may call this concurrently: one decodes and the others wait. The default cache is a
    folder of the `datasets` cache.

    Returns:
        (n, height, width, 3) uint8 [0, 255], read-only, in row order.

    Raises:
        ValueError: the processor has no fixed output size, or does more than resize, crop, rescale and normalize.
    """
    from datasets import config

    folder = Path(cache_dir) if cache_dir else Path(config.HF_DATASETS_CACHE) / "realfake-pixels"
    file = folder / f"{_fingerprint(images, processor)}.npy"
    decode = partial(_decode_all, images, processor)
    pixels: Pixels = np.load(cached_file(file, decode, making="decoding the images"), mmap_mode="r")
    return pixels


def resize_images(images: Sequence[Image.Image], processor: BaseImageProcessor) -> Pixels:
    """Apply the geometry of a processor to RGB images, without its rescaling and normalization.

    The result is (n, height, width, 3) uint8 [0, 255]. If the processor only resizes, with Pillow, then Pillow is
    called directly, which saves four copies of each image. For `UnreadableImageError`, see `check_elongation`.
    """
    for image in images:
        check_elongation(image, processor)
    size = resize_target(processor)
    if size is not None and all(image.size == size for image in images):
        return np.stack([np.asarray(image) for image in images])
    if size is not None and pillow_geometry(processor):
        return np.stack([np.asarray(image.resize(size, _resampling(processor))) for image in images])
    output = processor(list(images), do_rescale=False, do_normalize=False, return_tensors="np")
    return np.asarray(output["pixel_values"]).round().astype(np.uint8).transpose(0, 2, 3, 1)


def resize_image(image: Image.Image, processor: BaseImageProcessor) -> Image.Image:
    """Resize an RGB image to the processor's size, to save memory; return it unchanged if the processor also crops."""
    check_elongation(image, processor)
    if resize_target(processor) is None:
        return image
    return Image.fromarray(resize_images([image], processor)[0])


def check_elongation(image: Image.Image, processor: BaseImageProcessor) -> None:
    """Raise `UnreadableImageError` for an image that a processor would enlarge beyond `MAX_RESIZED` to crop it."""
    size = dict(getattr(processor, "size", None) or {})
    if not size.get("shortest_edge") or size.get("longest_edge"):
        return
    width, height = (side * size["shortest_edge"] // min(image.size) for side in image.size)
    if width * height > MAX_RESIZED:
        raise UnreadableImageError(
            f"the image is too elongated: the model's image processor would resize {image.width}x{image.height} to "
            f"{width}x{height} pixels, of which {MAX_RESIZED:,} are accepted. Crop the image"
        )


def resize_target(processor: BaseImageProcessor) -> tuple[int, int] | None:
    """Return the fixed (width, height) that a processor resizes to, or None if it also crops, pads or reorders."""
    others = ("do_center_crop", "do_pad", "do_flip_channel_order")
    if not getattr(processor, "do_resize", None) or any(getattr(processor, name, None) for name in others):
        return None
    size = dict(getattr(processor, "size", None) or {})
    return (size["width"], size["height"]) if size.get("width") and size.get("height") else None


def pillow_geometry(processor: BaseImageProcessor) -> tuple[int, int, int] | None:
    """Return (width, height, filter) for `Image.resize`, or None if a processor does more, or does not use Pillow."""
    size = resize_target(processor)
    is_pillow = getattr(type(processor), "resize", None) is PilBackend.resize
    return (*size, int(_resampling(processor))) if size and is_pillow else None


def _resampling(processor: BaseImageProcessor) -> Resampling:
    return Resampling(getattr(processor, "resample", Resampling.BILINEAR))


def geometry(processor: BaseImageProcessor) -> str:
    """Return, as JSON, the settings of a processor that decide where pixels go, but not their values."""
    values = ("do_rescale", "do_normalize", "rescale_factor", "image_mean", "image_std")
    settings = {name: value for name, value in processor.to_dict().items() if name not in values}
    return json.dumps(settings, sort_keys=True, default=str)


class BatchDataset(torch_data.Dataset[dict[str, Tensor]]):
    """Inputs and labels that are fetched as whole batches: pass `collate_fn=identity_collate` to the loader.

    The labels (n,) are 0 for REAL and 1 for FAKE.
    """

    def __init__(self, labels: Sequence[int]) -> None:
        self.labels, self.epoch = torch.as_tensor(np.asarray(labels), dtype=torch.long), 0

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, on which random changes depend; a callback of the `Trainer` calls this."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {name: values[0] for name, values in self.__getitems__([index]).items()}

    def __getitems__(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """Fetch a batch: the inputs by name, and `labels` (batch,)."""
        raise NotImplementedError


class PixelDataset(BatchDataset):
    """Images and labels; the pixels are (n, height, width, 3) uint8, from `cached_pixels`."""

    def __init__(self, pixels: Pixels, labels: Sequence[int], *, augment: Augmentation | None = None) -> None:
        super().__init__(labels)
        self.pixels, self.augment = pixels, augment

    def __getitems__(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """Fetch `pixel_values` (batch, height, width, 3) uint8, which `ModelInput` converts, and `labels` (batch,)."""
        rows = np.asarray(indices)
        pixels = self.pixels[rows]
        if self.augment:
            pixels = self.augment(pixels, rows, epoch=self.epoch)
        return {"pixel_values": torch.from_numpy(pixels), "labels": self.labels[torch.from_numpy(rows)]}


def identity_collate(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return a batch of a `BatchDataset` unchanged."""
    return batch


class Normalize:
    """Rescale and normalize batches on their device like a processor.

    Both together are an affine function of each channel, which is measured on a black and a white image, so that it
    does not depend on the names of the processor's settings.
    """

    def __init__(self, processor: BaseImageProcessor) -> None:
        black, white = (_channel_values(processor, level) for level in (0, 255))
        self._scale = ((white - black) / 255).to(torch.float32).view(-1, 1, 1)
        self._shift = -black.to(torch.float32).view(-1, 1, 1)
        self.grey_level = float(self._scale.abs().max())  # largest change of a value per grey level of a pixel

    def __call__(self, pixels: Tensor) -> Tensor:
        """Convert (batch, height, width, 3) uint8 to (batch, 3, height, width) float32, channels last in memory."""
        values = pixels.permute(0, 3, 1, 2).to(torch.float32)
        return values.mul_(self._scale.to(values.device)).sub_(self._shift.to(values.device))


class ModelInput:
    """Convert stored pixels to the `pixel_values` of a model's processor with tensor operations.

    Pixels smaller than the processor's size are upscaled on the device with the processor's own filter, so that small
    images are stored and transferred at their native size.
    """

    def __init__(self, processor: BaseImageProcessor) -> None:
        self.size = resize_target(processor)
        self.normalize = Normalize(processor)
        self._filter = _resampling(processor)

    def __call__(self, pixels: Tensor) -> Tensor:
        """Convert (batch, height, width, 3) uint8 to (batch, 3, height, width) float32 of the processor's size."""
        if self.size in (None, (pixels.shape[2], pixels.shape[1])):
            return self.normalize(pixels)
        return self.normalize(resize_batch(pixels, self.size, resample=self._filter))

    def attach(self, model: nn.Module) -> RemovableHandle:
        """Make a model accept stored uint8 pixels as `pixel_values`, until the handle is removed."""

        def convert(_: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:  # noqa: ANN401
            values = kwargs["pixel_values"]
            return args, {**kwargs, "pixel_values": self(values) if values.dtype == torch.uint8 else values}

        return model.register_forward_pre_hook(convert, with_kwargs=True)


def resize_batch(pixels: Tensor, size: tuple[int, int], *, resample: Resampling) -> Tensor:
    """Resize a batch on its device to exactly the values of Pillow, which rounds after each of its two passes.

    Pillow's weights are integer multiples of 2**-22, so float64 sums are exact; MPS has no float64. The size is
    (width, height); the result (batch, height, width, 3) has integer values in [0, 255], as floats.
    """
    dtype = torch.float32 if pixels.device.type == "mps" else torch.float64
    values = pixels.permute(0, 3, 1, 2).to(dtype)  # (batch, 3, height, width)
    horizontal, vertical = (
        _weights(old, new, resample).to(values) for old, new in zip(values.shape[:1:-1], size, strict=True)
    )
    return _round(vertical @ _round(values @ horizontal.T)).permute(0, 2, 3, 1)


def _round(sums: Tensor) -> Tensor:
    return sums.add_(_ONE / 2).div_(_ONE).floor_().clamp_(0, 255)


@lru_cache(maxsize=64)
def _weights(old: int, new: int, resample: Resampling) -> Tensor:
    """Return Pillow's resampling weights along one axis, (new, old), scaled by 2**22."""
    impulses = Image.fromarray(_ONE * np.eye(old, dtype=np.int32))  # mode I, which Pillow computes in float64
    return torch.from_numpy(np.asarray(impulses.resize((new, old), resample)).T.astype(np.float64))


def is_reproducible(processor: BaseImageProcessor) -> bool:
    """Return whether `resize_images` and `Normalize` reproduce a processor up to a grey level, on random images.

    They do not for a processor that cuts several views of an image.
    """
    if processed(Image.new("RGB", _TRIALS[0]), processor).ndim != 4:  # noqa: PLR2004
        return False
    normalize, random = Normalize(processor), np.random.default_rng(0)
    for width, height in _TRIALS:
        image = Image.fromarray(random.integers(256, size=(height, width, 3), dtype=np.uint8))
        expected = processed(image, processor)
        try:
            values = normalize(torch.from_numpy(resize_images([image], processor)))
        except TypeError:  # that of timm has no step to leave out
            return False
        if values.shape != expected.shape or float((values - expected).abs().max()) > normalize.grey_level:
            return False
    return True


def processed(image: Image.Image, processor: BaseImageProcessor) -> Tensor:
    """Return the `pixel_values` of an RGB image, as the processor makes them.

    They are (1, channels, height, width), or (1, views, channels, height, width); a processor that returns something
    else is a `ValueError`.
    """
    output = processor(image, return_tensors="pt")
    values = output.get("pixel_values")
    if not isinstance(values, Tensor) or values.ndim not in (4, 5):
        shapes = ", ".join(f"{name} {tuple(each.shape)}" for name, each in output.items())
        raise ValueError(
            "expected an image processor that returns pixel_values (batch, channels, height, width); found "
            f"{type(processor).__name__}, which returns {shapes}. Use a model with such a processor."
        )
    return values


def _channel_values(processor: BaseImageProcessor, level: int) -> Tensor:
    """Return the value that a processor gives each channel of a uniform grey image, away from any padding."""
    values = processed(Image.new("RGB", (64, 64), (level,) * 3), processor)
    return values[0, :, values.shape[2] // 2, values.shape[3] // 2].double()


def _decode_all(images: "Dataset", processor: BaseImageProcessor, file: Path) -> None:
    encoded = images.select_columns(["image"]).with_format("arrow")
    shape = _output_shape(processor)
    native = _smaller_size(encoded, processor)
    if native:
        shape = (native[1], native[0], 3)
    pixels = open_memmap(file, mode="w+", dtype=np.uint8, shape=(len(images), *shape))
    if hasattr(os, "posix_fallocate"):  # writing a memory-mapped page to a full disk would kill the process
        with file.open("r+b") as stream:
            os.posix_fallocate(stream.fileno(), 0, file.stat().st_size)
    decode = partial(_decode, encoded, None if native else processor)
    for rows, decoded in map_in_processes(decode, range(len(images)), description="decoding"):
        pixels[rows.start : rows.stop] = decoded
    pixels.flush()


def _smaller_size(encoded: "Dataset", processor: BaseImageProcessor) -> tuple[int, int] | None:
    """Return the (width, height) of all images if they share one below the processor's size, else None."""
    size = resize_target(processor)
    [first] = _sizes(encoded, range(1))
    if size is None or first == size or first[0] > size[0] or first[1] > size[1]:
        return None
    chunks = map_in_processes(partial(_sizes, encoded), range(len(encoded)), description="measuring")
    return first if all(sizes == {first} for _, sizes in chunks) else None


def _sizes(encoded: "Dataset", rows: Sequence[int]) -> set[tuple[int, int]]:
    return {Image.open(io.BytesIO(data)).size for data in _bytes(encoded, rows)}


def output_shapes(processor: BaseImageProcessor) -> set[tuple[int, ...]]:
    """Return the shapes (height, width, 3) of two images of different shape: one shape if the processor fixes it."""
    images = (Image.new("RGB", size) for size in ((64, 64), (96, 64)))
    return {(*processed(image, processor).shape[-2:], 3) for image in images}


def _output_shape(processor: BaseImageProcessor) -> tuple[int, ...]:
    shapes = output_shapes(processor)
    if len(shapes) > 1:
        raise ValueError(
            f"expected an image processor with a fixed output size; found {sorted(shapes)} for images of 64x64 and "
            "96x64 pixels. Set its size to a height and width, or enable its center crop."
        )
    if not is_reproducible(processor):
        raise ValueError(
            "expected an image processor that only resizes, crops, rescales and normalizes; found "
            f"{type(processor).__name__}, which does more. Use a model with such a processor."
        )
    return shapes.pop()


def _decode(encoded: "Dataset", processor: BaseImageProcessor | None, rows: Sequence[int]) -> Pixels:
    images = [decode_image(data) for data in _bytes(encoded, rows)]
    return resize_images(images, processor) if processor else np.stack([np.asarray(image) for image in images])


def _bytes(encoded: "Dataset", rows: Sequence[int]) -> list[bytes]:
    return encoded[list(rows)]["image"].combine_chunks().field("bytes").to_pylist()  # type: ignore[no-any-return]


def _fingerprint(images: "Dataset", processor: BaseImageProcessor) -> str:
    words = [f"{_CACHE_VERSION} {len(images)}", geometry(processor), *images["sha256"][:]]
    return hashlib.sha256("".join(words).encode()).hexdigest()[:24]
