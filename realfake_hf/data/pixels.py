"""Decode once, feed batches: pictures as a memory-mapped uint8 array, normalised a batch at a time.

The geometry (size, resampling, crop) and the numbers (rescaling, mean, deviation) are those of the model's saved image
processor, so that a model sees the same values in training as in `pipeline("image-classification")`.
"""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from datasets import Dataset, config
from filelock import FileLock
from numpy.lib.format import open_memmap
from numpy.typing import NDArray
from PIL import Image as PilImage
from torch import Tensor
from torch.utils import data as torch_data
from transformers import BaseImageProcessor

from realfake_hf.data.parallel import in_chunks
from realfake_hf.data.pictures import read_picture

Pixels = NDArray[np.uint8]

_CACHE_VERSION: Final = 1  # raise it when the same pictures and processor would give other pixels


def cached_pixels(
    images: Dataset, processor: BaseImageProcessor, *, cache_dir: str | os.PathLike[str] | None = None
) -> Pixels:
    """Give all pictures as the processor sizes them, decoded on the first call and memory-mapped from then on.

    Several processes may call this at once: one decodes, the others wait for it.

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
        if not file.exists():
            _decode_all(images, processor, file)
    return np.load(file, mmap_mode="r")  # type: ignore[no-any-return]


def sized(pictures: Sequence[PilImage.Image], processor: BaseImageProcessor) -> Pixels:
    """Bring RGB pictures to the processor's size: (n, height, width, 3) uint8 [0, 255].

    The processor does it, without its rescaling and normalisation. Pictures that already have the size of a processor
    that only resizes are taken as they are.
    """
    size = _plain_size(processor)
    if size is not None and all(picture.size == size for picture in pictures):
        return np.stack([np.asarray(picture) for picture in pictures])
    output = processor(list(pictures), do_rescale=False, do_normalize=False, return_tensors="np")
    return np.asarray(output["pixel_values"]).round().astype(np.uint8).transpose(0, 2, 3, 1)


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


class PixelDataset(torch_data.Dataset[dict[str, Tensor]]):
    """Pictures and labels, fetched as whole batches: pass `collate_fn=as_batch` to the loader.

    Args:
        pixels: (n, height, width, 3) uint8, from `cached_pixels`.
        labels: (n,) 0 = REAL, 1 = FAKE.
        normalize: the numbers of the model's processor.
        flip: mirror each picture left to right with probability one half, drawn anew for each epoch.
        seed: of the flips. They depend on seed, epoch and picture alone, not on batches, processes or interruptions.
    """

    def __init__(
        self, pixels: Pixels, labels: Sequence[int], *, normalize: Normalize, flip: bool = False, seed: int = 0
    ) -> None:
        self.pixels, self.normalize, self.flip, self.seed = pixels, normalize, flip, seed
        self.labels = torch.as_tensor(np.asarray(labels), dtype=torch.long)
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Draw the flips of an epoch; the `Trainer` calls this."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
        self._flipped = torch.randint(2, (len(self),), generator=generator, dtype=torch.bool) if self.flip else None

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {name: values[0] for name, values in self.__getitems__([index]).items()}

    def __getitems__(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """Fetch `pixel_values` (batch, 3, height, width) float32 and `labels` (batch,)."""
        rows = torch.as_tensor(indices)
        pixels = torch.from_numpy(self.pixels[rows.numpy()])  # (batch, height, width, 3)
        if self._flipped is not None:
            flipped = self._flipped[rows]
            pixels[flipped] = pixels[flipped].flip(2)
        return {"pixel_values": self.normalize(pixels), "labels": self.labels[rows]}


def as_batch(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Pass a batch through: `PixelDataset` fetches whole batches, so there is nothing to collate."""
    return batch


def _decode_all(images: Dataset, processor: BaseImageProcessor, file: Path) -> None:
    size = _output_shape(processor)
    part = file.with_suffix(".part")
    pixels = open_memmap(part, mode="w+", dtype=np.uint8, shape=(len(images), *size))
    encoded = images.select_columns(["image"]).with_format("arrow")
    decode = partial(_decode, encoded, processor)
    for rows, decoded in in_chunks(decode, range(len(images)), description="decoding"):
        pixels[rows.start : rows.stop] = decoded
    pixels.flush()
    part.replace(file)


def _output_shape(processor: BaseImageProcessor) -> tuple[int, ...]:
    shapes = {sized([PilImage.new("RGB", size)], processor).shape[1:] for size in ((64, 64), (96, 64))}
    if len(shapes) > 1:
        raise ValueError(
            f"wanted an image processor with one output size; found sizes {sorted(shapes)} for pictures of 64x64 and "
            "96x64 pixels. Give it a size with height and width, or a centre crop."
        )
    return shapes.pop()


def _decode(encoded: Dataset, processor: BaseImageProcessor, rows: Sequence[int]) -> Pixels:
    column = encoded[list(rows)]["image"].combine_chunks()
    return sized([read_picture(data.as_py()) for data in column.field("bytes")], processor)


def _fingerprint(images: Dataset, processor: BaseImageProcessor) -> str:
    digest = hashlib.sha256(f"{_CACHE_VERSION} {len(images)}".encode())
    digest.update(json.dumps(_geometry(processor), sort_keys=True, default=str).encode())
    digest.update("".join(images["sha256"][:]).encode())
    return digest.hexdigest()[:24]


def _geometry(processor: BaseImageProcessor) -> dict[str, Any]:
    """The settings that decide where pixels go, not what numbers they become."""
    numbers: Mapping[str, Any] = processor.to_dict()
    ignored = ("do_rescale", "do_normalize", "rescale_factor", "image_mean", "image_std")
    return {name: value for name, value in numbers.items() if name not in ignored}


def _plain_size(processor: BaseImageProcessor) -> tuple[int, int] | None:
    """The (width, height) that a processor only resizes to, or None where it also crops or pads."""
    numbers: Mapping[str, Any] = processor.to_dict()
    size = numbers.get("size") or {}
    if numbers.get("do_center_crop") or numbers.get("do_pad") or not {"height", "width"} <= set(size):
        return None
    return (size["width"], size["height"]) if numbers.get("do_resize") else None
