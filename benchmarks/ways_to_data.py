"""Ways from an archive or folder to pictures that a training loop can index, each run in a process of its own.

`python -m benchmarks.ways_to_data WAY SOURCE` prints what it took as one line of JSON. The clock starts after the
imports. Both ways end with the same things: training, validation and test rows, and all their pictures as uint8 arrays
(n, height, width, 3).
"""

import json
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Final

import numpy as np
from datasets import DatasetDict, load_dataset
from numpy.typing import NDArray
from transformers import BaseImageProcessor, ViTImageProcessorPil

from realfake_hf.data.loading import load_images
from realfake_hf.data.pixels import cached_pixels
from realfake_hf.data.splits import add_missing_splits

VALIDATION_SHARE: Final = 0.05
PIXELS: Final = 32  # height and width that the CNN takes

Rows = Callable[[str], DatasetDict]
Decode = Callable[[DatasetDict], dict[str, NDArray[np.uint8]]]


@dataclass(frozen=True)
class Taken:
    """What one process took.

    Attributes:
        rows_s: seconds until the rows of all splits could be read.
        pixels_s: seconds until their pictures lay in arrays, those of the rows included.
        peak_memory_gib: largest resident memory of the process, mapped files included.
        worker_memory_gib: the same of its largest worker; 0 where it had none.
        n: pictures of each split.
    """

    rows_s: float
    pixels_s: float
    peak_memory_gib: float
    worker_memory_gib: float
    n: dict[str, int]


def realfake(processor: BaseImageProcessor) -> tuple[Rows, Decode]:
    """Give the project's way: `load_images`, `add_missing_splits`, `cached_pixels`."""

    def rows(source: str) -> DatasetDict:
        return add_missing_splits(load_images(source), validation_share=VALIDATION_SHARE)

    def decode(images: DatasetDict) -> dict[str, NDArray[np.uint8]]:
        return {split: cached_pixels(part, processor) for split, part in images.items()}

    return rows, decode


def imagefolder(processor: BaseImageProcessor) -> tuple[Rows, Decode]:
    """Give the way of the `datasets` documentation: `load_dataset("imagefolder")`, `train_test_split`, decode.

    Pictures are brought to the size of the processor where they have another, as the project's way does.
    """
    numbers = processor.to_dict()
    size = (numbers["size"]["width"], numbers["size"]["height"])

    def rows(source: str) -> DatasetDict:
        images = load_dataset("imagefolder", data_dir=source)
        if "validation" not in images:
            cut = images["train"].train_test_split(VALIDATION_SHARE, seed=0)
            images = DatasetDict({**images, "train": cut["train"], "validation": cut["test"]})
        return images

    def decode(images: DatasetDict) -> dict[str, NDArray[np.uint8]]:
        return {
            split: np.stack([np.asarray(picture.convert("RGB").resize(size)) for picture in part["image"]])
            for split, part in images.items()
        }

    return rows, decode


WAYS: Final = {"realfake": realfake, "imagefolder": imagefolder}


def take(way: str, source: str) -> Taken:
    """Go one way to the end in this process."""
    rows, decode = WAYS[way](ViTImageProcessorPil(size={"height": PIXELS, "width": PIXELS}))
    began = time.perf_counter()
    images = rows(source)
    had_rows = time.perf_counter()
    pixels = decode(images)
    done = time.perf_counter()
    own, workers = (_peak_gib(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    n = {split: len(array) for split, array in sorted(pixels.items())}
    return Taken(had_rows - began, done - began, own, workers, n)


def gib(maxrss: int) -> float:
    """Turn the `ru_maxrss` of this system into GiB."""
    return maxrss * (1 if sys.platform == "darwin" else 1024) / 1024**3  # bytes on macOS, KiB elsewhere


def _peak_gib(who: int) -> float:
    return gib(resource.getrusage(who).ru_maxrss)


if __name__ == "__main__":
    print(json.dumps(asdict(take(*sys.argv[1:]))))
