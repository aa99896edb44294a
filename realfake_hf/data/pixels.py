"""Decode once, feed batches: pictures as a memory-mapped uint8 array, fetched a batch at a time.

The geometry (size, resampling, crop) is that of the model's saved image processor, so that with its numbers
(`model_input`) a model sees the same values in training as in `pipeline("image-classification")`.
"""

import hashlib
import io
import json
import logging
import os
from collections.abc import Mapping, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from datasets import Dataset, config
from filelock import FileLock
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
from realfake_hf.data.decoding import decode_image
from realfake_hf.parallel import map_in_processes
from realfake_hf.store import damaged_files, write_checksums

logger = logging.getLogger(__name__)

Pixels = NDArray[np.uint8]

_CACHE_VERSION: Final = 2  # raise it when the same pictures and processor would give other pixels


def cached_pixels(
    images: Dataset, processor: BaseImageProcessor, *, cache_dir: str | os.PathLike[str] | None = None
) -> Pixels:
    """Give all pictures as the processor sizes them, decoded on the first call and memory-mapped from then on.

    Pictures that all have one size, smaller than the processor's, are kept as they are: `ModelInput` enlarges them a
    batch at a time. Several processes may call this at once: one decodes, the others wait for it.

    Args:
        images: from `load_images`.
        processor: an image processor with a fixed output size.
        cache_dir: where the array is kept; by default a folder of the `datasets` cache.

    Returns:
        (n, height, width, 3) uint8 [0, 255], read-only, in the order of the rows.

    Raises:
        ValueError: the processor's output size follows that of the picture.
    """
    folder = Path(cache_dir) if cache_dir else Path(config.HF_DATASETS_CACHE) / "realfake-pixels"
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{_fingerprint(images, processor)}.npy"
    with FileLock(f"{file}.lock"):
        note = file.with_suffix(".json")
        if file.exists() and damaged_files(note):
            logger.warning("%s is not as its checksum says: the pictures are decoded again", file)
            file.unlink()
        if not file.exists():
            note.unlink(missing_ok=True)
            _decode_all(images, processor, file)
            write_checksums([file], note)
    return np.load(file, mmap_mode="r")  # type: ignore[no-any-return]


def resize_images(pictures: Sequence[Image.Image], processor: BaseImageProcessor) -> Pixels:
    """Bring RGB pictures to the processor's size: (n, height, width, 3) uint8 [0, 255].

    The processor does it, without its rescaling and normalisation. Pictures that already have the size of a processor
    that only resizes are taken as they are; where it resizes by Pillow alone, Pillow is asked directly, which spares
    four copies of each picture.
    """
    size = resize_target(processor)
    if size is not None and all(picture.size == size for picture in pictures):
        return np.stack([np.asarray(picture) for picture in pictures])
    if size is not None and getattr(type(processor), "resize", None) is PilBackend.resize:
        resample = resampling_of(processor)
        return np.stack([np.asarray(picture.resize(size, resample)) for picture in pictures])
    output = processor(list(pictures), do_rescale=False, do_normalize=False, return_tensors="np")
    return np.asarray(output["pixel_values"]).round().astype(np.uint8).transpose(0, 2, 3, 1)


def resize_image(picture: Image.Image, processor: BaseImageProcessor) -> Image.Image:
    """Give what a model sees of an RGB picture, so that a large one need not be kept; the verdict is the same.

    Where the processor does more than resize, that is the picture itself.
    """
    if resize_target(processor) is None:
        return picture
    return Image.fromarray(resize_images([picture], processor)[0])


class PixelDataset(torch_data.Dataset[dict[str, Tensor]]):
    """Pictures and labels, fetched as whole batches: pass `collate_fn=identity_collate` to the loader.

    Args:
        pixels: (n, height, width, 3) uint8, from `cached_pixels`.
        labels: (n,) 0 = REAL, 1 = FAKE.
        augment: what is done to the pictures of a batch, drawn anew for each epoch; nothing by default.
    """

    def __init__(self, pixels: Pixels, labels: Sequence[int], *, augment: Augmentation | None = None) -> None:
        self.pixels, self.augment, self.epoch = pixels, augment, 0
        self.labels = torch.as_tensor(np.asarray(labels), dtype=torch.long)

    def set_epoch(self, epoch: int) -> None:
        """Draw the augmentation of an epoch; a callback of the `Trainer` calls this."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {name: values[0] for name, values in self.__getitems__([index]).items()}

    def __getitems__(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """Fetch `pixel_values` (batch, height, width, 3) uint8, which `ModelInput` converts, and `labels` (batch,)."""
        rows = np.asarray(indices)
        pixels = self.pixels[rows]
        if self.augment:
            pixels = self.augment(pixels, rows, epoch=self.epoch)
        return {"pixel_values": torch.from_numpy(pixels), "labels": self.labels[torch.from_numpy(rows)]}


def identity_collate(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Pass a batch through: `PixelDataset` fetches whole batches, so there is nothing to collate."""
    return batch


def _decode_all(images: Dataset, processor: BaseImageProcessor, file: Path) -> None:
    encoded = images.select_columns(["image"]).with_format("arrow")
    size = _output_shape(processor)
    if own := _smaller_size(encoded, processor):
        size, decode = (own[1], own[0], 3), partial(_decode_as_is, encoded)
    else:
        decode = partial(_decode, encoded, processor)
    part = file.with_suffix(".part")
    pixels = open_memmap(part, mode="w+", dtype=np.uint8, shape=(len(images), *size))
    _take_room(part)
    for rows, decoded in map_in_processes(decode, range(len(images)), description="decoding"):
        pixels[rows.start : rows.stop] = decoded
    pixels.flush()
    part.replace(file)


def _take_room(file: Path) -> None:
    """Have the disk give all of a file's room now: a full one would end the process where a mapped page is written."""
    if hasattr(os, "posix_fallocate"):
        with file.open("r+b") as opened:
            os.posix_fallocate(opened.fileno(), 0, file.stat().st_size)


def _smaller_size(encoded: Dataset, processor: BaseImageProcessor) -> tuple[int, int] | None:
    """The (width, height) that all pictures share, if it is smaller than the processor's and can be enlarged later."""
    size = resize_target(processor)
    if size is None:
        return None
    [first] = _sizes(encoded, range(1))
    if first == size or first[0] > size[0] or first[1] > size[1]:
        return None
    found = map_in_processes(partial(_sizes, encoded), range(len(encoded)), description="measuring")
    return first if all(sizes == {first} for _, sizes in found) else None


def _sizes(encoded: Dataset, rows: Sequence[int]) -> set[tuple[int, int]]:
    return {Image.open(io.BytesIO(data)).size for data in _bytes(encoded, rows)}


def _output_shape(processor: BaseImageProcessor) -> tuple[int, ...]:
    shapes = {resize_images([Image.new("RGB", size)], processor).shape[1:] for size in ((64, 64), (96, 64))}
    if len(shapes) > 1:
        raise ValueError(
            f"wanted an image processor with one output size; found sizes {sorted(shapes)} for pictures of 64x64 and "
            "96x64 pixels. Give it a size with height and width, or a centre crop."
        )
    return shapes.pop()


def _decode(encoded: Dataset, processor: BaseImageProcessor, rows: Sequence[int]) -> Pixels:
    return resize_images([decode_image(data) for data in _bytes(encoded, rows)], processor)


def _decode_as_is(encoded: Dataset, rows: Sequence[int]) -> Pixels:
    return np.stack([np.asarray(decode_image(data)) for data in _bytes(encoded, rows)])


def _bytes(encoded: Dataset, rows: Sequence[int]) -> list[bytes]:
    return encoded[list(rows)]["image"].combine_chunks().field("bytes").to_pylist()  # type: ignore[no-any-return]


def _fingerprint(images: Dataset, processor: BaseImageProcessor) -> str:
    digest = hashlib.sha256(f"{_CACHE_VERSION} {len(images)}".encode())
    digest.update(geometry(processor).encode())
    digest.update("".join(images["sha256"][:]).encode())
    return digest.hexdigest()[:24]


def geometry(processor: BaseImageProcessor) -> str:
    """Say as JSON which settings of a processor decide where pixels go, not what numbers they become."""
    numbers: Mapping[str, Any] = processor.to_dict()
    ignored = ("do_rescale", "do_normalize", "rescale_factor", "image_mean", "image_std")
    chosen = {name: value for name, value in numbers.items() if name not in ignored}
    return json.dumps(chosen, sort_keys=True, default=str)


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
        self.size = resize_target(processor)
        self.normalize = Normalize(processor)
        self._filter = resampling_of(processor)

    def __call__(self, pixels: Tensor) -> Tensor:
        """Turn (batch, height, width, 3) uint8 into (batch, 3, *the processor's size) float32."""
        if self.size in (None, (pixels.shape[2], pixels.shape[1])):
            return self.normalize(pixels)
        return self.normalize(resize_batch(pixels, self.size, resample=self._filter))

    def attach(self, model: nn.Module) -> RemovableHandle:
        """Let a model take stored pixels, uint8, as its `pixel_values`, until the handle is removed."""

        def convert(_: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:  # noqa: ANN401
            values = kwargs["pixel_values"]
            return args, {**kwargs, "pixel_values": self(values) if values.dtype == torch.uint8 else values}

        return model.register_forward_pre_hook(convert, with_kwargs=True)


def resize_target(processor: BaseImageProcessor) -> tuple[int, int] | None:
    """The (width, height) that a processor only resizes to, or None where it also crops or pads."""
    if not _says(processor, "do_resize") or _says(processor, "do_center_crop") or _says(processor, "do_pad"):
        return None
    size = dict(_says(processor, "size") or {})
    return (size["width"], size["height"]) if size.get("width") and size.get("height") else None


def resampling_of(processor: BaseImageProcessor) -> Resampling:
    """Pillow's filter that a processor resizes with."""
    return Resampling(getattr(processor, "resample", Resampling.BILINEAR))


def _says(processor: BaseImageProcessor, name: str) -> Any:  # noqa: ANN401
    """One of a processor's settings, or None; its `to_dict` copies all of them first."""
    return getattr(processor, name, None)


def resize_batch(pixels: Tensor, size: tuple[int, int], *, resample: Resampling) -> Tensor:
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
