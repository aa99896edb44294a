"""Make the demo data: 32x32 crops of photographs, half of them reconstructed by a small autoencoder.

    python -m tests.demo_data --output_file demo.parquet --seed 0

The photographs are part of scikit-learn and scikit-image, so nothing is downloaded. Real and fake images are cropped,
downscaled and JPEG-compressed in the same way; fakes additionally pass through the autoencoder, which is trained on
windows of the train regions only.
"""

import hashlib
import io
import logging
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
from PIL import Image
from tqdm.auto import tqdm

from realfake_hf.cli import command, setting
from realfake_hf.data.decoding import decode_image, pixel_hash
from realfake_hf.labels import FAKE, REAL

if TYPE_CHECKING:
    from torch import nn

logger = logging.getLogger(__name__)

IMAGE_SIDE: Final = 32  # pixels, as in CIFAR-10 and CIFAKE
WINDOW_SIDES: Final = (36, 72)  # pixels, smallest and largest; the largest fits into the smallest region
GRID: Final = (4, 5)  # rows, columns
SPLITS: Final = ("train",) * 14 + ("validation",) * 2 + ("test",) * 4  # one for each region of the grid
MAX_OVERLAP: Final = 0.45  # intersection over union of two windows
MIN_DETAIL: Final = 3.0  # grey levels between neighbours; a plain crop and its reconstruction look the same
ATTEMPTS: Final = 100  # draws per window before a region counts as full
POOL_SIZE: Final = 6000  # training windows of the autoencoder

Box = tuple[int, int, int, int]  # left, top, right, bottom in photograph pixels; right and bottom exclusive


@dataclass(frozen=True)
class DemoArguments:
    """The size and seed of the demo data."""

    output_file: Path = field(metadata={"help": "New parquet file to write."})
    seed: int = setting(0, "Seed of the regions, windows, labels and autoencoder.")
    num_images: int = setting(2900, "Target number of images; full regions yield fewer.")
    num_steps: int = setting(500, "Gradient steps of the autoencoder.")
    code_channels: int = setting(8, "Channels of its 8x8 code; fewer make worse fakes.")


class Region(NamedTuple):
    """A cell of the grid over a photograph; all its windows are in one split."""

    photograph: str
    box: Box
    split: str


@command(DemoArguments, name="demo", description=__doc__)
def main(arguments: DemoArguments) -> None:
    """Write the demo data as parquet with Hugging Face features; its bytes depend on arguments and machine alone."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from datasets import Features, List, Value

    from realfake_hf.data.loading import SCHEMA

    file = arguments.output_file
    if file.exists():
        raise FileExistsError(f"expected a new output file; {file} exists. Move it, or give another file.")
    rows = _make_rows(arguments)
    columns = {name: kind for name, kind in SCHEMA.items() if name != "group"}
    features = Features({**columns, "split": Value("string"), "region": Value("string"), "box": List(Value("int32"))})
    pq.write_table(pa.Table.from_pylist(rows, schema=features.arrow_schema), file, compression="zstd")
    logger.info("%s: %d images, %.2f MB", file, len(rows), file.stat().st_size / 1e6)


def _make_rows(arguments: DemoArguments) -> list[dict[str, object]]:
    """Draw the windows, train the autoencoder, and return the rows, sorted by id."""
    photographs = _load_photographs()
    generator, pool_generator = np.random.default_rng(arguments.seed).spawn(2)
    regions = [region for name, image in photographs.items() for region in _cut_regions(name, image.size, generator)]
    total = sum(_area(region.box) for region in regions)
    windows: list[tuple[Region, Box, bool]] = []
    for region in tqdm(regions, desc="windows", unit="region", disable=None):
        n = 2 * round(arguments.num_images * _area(region.box) / total / 2)
        boxes = _draw_windows(region, photographs[region.photograph], n=n, generator=generator)
        windows += [(region, *window) for window in zip(boxes, _choose_fakes(boxes, generator), strict=True)]
    originals = [_crop(photographs[region.photograph], box) for region, box, _ in windows]
    fakes = _reconstruct(originals, _draw_pool(regions, photographs, pool_generator), arguments)
    rows = [
        _to_row(region, box, fake if is_fake else original, is_fake=is_fake)
        for (region, box, is_fake), original, fake in zip(windows, originals, fakes, strict=True)
    ]
    return sorted(rows, key=lambda row: str(row["id"]))


def _to_row(region: Region, box: Box, image: Image.Image, *, is_fake: bool) -> dict[str, object]:
    """Return a row of the table; its id depends on the location of the window, not on the label."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=75, subsampling="4:2:0")  # as in CIFAKE
    window, cell = (",".join(map(str, corners)) for corners in (box, region.box))
    place = f"{region.split}/{region.photograph}/{window}"
    return {
        "image": {"bytes": buffer.getvalue(), "path": None},
        "label": FAKE if is_fake else REAL,
        "content": region.photograph,
        "generator": "demo-autoencoder" if is_fake else None,
        "source": "demo",
        "id": hashlib.sha256(place.encode()).hexdigest()[:16],
        "sha256": pixel_hash(decode_image(buffer.getvalue())),
        "split": region.split,
        "region": f"{region.photograph}:{cell}",
        "box": list(box),
    }


def _load_photographs() -> dict[str, Image.Image]:
    """Load the colour photographs of everyday scenes whose licenses permit redistribution."""
    import skimage.data  # from the extra `demo-data`
    from sklearn.datasets import load_sample_image

    arrays = {name: load_sample_image(f"{name}.jpg") for name in ("china", "flower")}
    arrays |= {name: getattr(skimage.data, name)() for name in ("astronaut", "chelsea", "coffee", "rocket")}
    return {name: Image.fromarray(array) for name, array in arrays.items()}


def _cut_regions(photograph: str, size: tuple[int, int], generator: np.random.Generator) -> list[Region]:
    """Cut a photograph of (width, height) pixels into a grid of regions, and assign them to the splits at random."""
    rows, columns = GRID
    lefts = [round(size[0] * column / columns) for column in range(columns + 1)]
    tops = [round(size[1] * row / rows) for row in range(rows + 1)]
    boxes = [(lefts[x], tops[y], lefts[x + 1], tops[y + 1]) for y, x in product(range(rows), range(columns))]
    return [Region(photograph, box, split) for box, split in zip(boxes, generator.permutation(SPLITS), strict=True)]


def _draw_windows(region: Region, photograph: Image.Image, *, n: int, generator: np.random.Generator) -> list[Box]:
    """Draw up to n windows with detail and little overlap; their number is even, so that half can become fake."""
    boxes: list[Box] = []
    for _ in range(n * ATTEMPTS):
        if len(boxes) == n:
            break
        box = _draw_box(region.box, generator)
        is_new = all(overlap(box, other) <= MAX_OVERLAP for other in boxes)
        if is_new and _detail(_crop(photograph, box)) >= MIN_DETAIL:
            boxes.append(box)
    return boxes[: len(boxes) // 2 * 2]


def _choose_fakes(boxes: Sequence[Box], generator: np.random.Generator) -> list[bool]:
    """Choose at random which window of each pair of similar size becomes fake, so that sizes reveal no label."""
    is_fake = [False] * len(boxes)
    by_size = sorted(range(len(boxes)), key=lambda index: _area(boxes[index]))
    for pair in zip(by_size[::2], by_size[1::2], strict=True):
        is_fake[pair[generator.integers(2)]] = True
    return is_fake


def _draw_box(region: Box, generator: np.random.Generator) -> Box:
    """Draw a square within a region, with its side log-uniform in `WINDOW_SIDES`."""
    side = round(np.exp(generator.uniform(*np.log(WINDOW_SIDES))))
    x, y = (int(generator.integers(region[k], region[k + 2] - side, endpoint=True)) for k in range(2))
    return x, y, x + side, y + side


def _crop(photograph: Image.Image, box: Box) -> Image.Image:
    """Crop a window and downscale it to 32x32; no pixel outside of the window contributes."""
    return photograph.crop(box).resize((IMAGE_SIDE, IMAGE_SIDE), Image.Resampling.BICUBIC)


def _area(box: Box) -> int:
    return (box[2] - box[0]) * (box[3] - box[1])


def overlap(a: Box, b: Box) -> float:
    """Return the intersection over union of two boxes.

    >>> overlap((0, 0, 2, 2), (1, 0, 3, 2))
    0.3333333333333333
    """
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0) * max(height, 0)
    return shared / (_area(a) + _area(b) - shared)


def _detail(image: Image.Image) -> float:
    """Return the mean absolute difference of neighbouring pixels, in grey levels [0, 255]."""
    grey = np.asarray(image.convert("L"), dtype=np.float64)
    return float(np.abs(np.diff(grey, axis=0)).mean() + np.abs(np.diff(grey, axis=1)).mean()) / 2


def _draw_pool(
    regions: Sequence[Region], photographs: Mapping[str, Image.Image], generator: np.random.Generator
) -> list[Image.Image]:
    """Draw the 32x32 training windows of the autoencoder from the train regions."""
    train = [region for region in regions if region.split == "train"]
    areas = np.array([_area(region.box) for region in train], dtype=np.float64)
    drawn = [train[index] for index in generator.choice(len(train), size=POOL_SIZE, p=areas / areas.sum())]
    return [_crop(photographs[region.photograph], _draw_box(region.box, generator)) for region in drawn]


def _reconstruct(
    images: Sequence[Image.Image], pool: Sequence[Image.Image], arguments: DemoArguments
) -> list[Image.Image]:
    """Pass 32x32 images through an autoencoder trained on a pool of other images.

    The autoencoder minimizes the L1 loss with a one-cycle learning rate. A single thread fixes the order of summation,
    so that the results are reproducible to the byte.
    """
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(arguments.seed)
    model = _make_autoencoder(arguments.code_channels)
    generator = torch.Generator().manual_seed(arguments.seed)
    optimizer = torch.optim.Adam(model.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=2e-3, total_steps=arguments.num_steps)
    known, inputs = (
        torch.from_numpy(np.stack([np.asarray(image) for image in side])).permute(0, 3, 1, 2).float() / 255
        for side in (pool, images)
    )
    for _ in (bar := tqdm(range(arguments.num_steps), desc="autoencoder", unit="step", disable=None)):
        batch = known[torch.randint(len(known), (64,), generator=generator)]
        if torch.rand((), generator=generator) < 0.5:
            batch = batch.flip(-1)
        loss = torch.nn.functional.l1_loss(model(batch), batch)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        bar.set_postfix(loss=f"{loss.item():.4f}", refresh=False)
    with torch.inference_mode():
        decoded = model(inputs).mul(255).round().byte().permute(0, 2, 3, 1).numpy()
    return [Image.fromarray(array) for array in decoded]


def _make_autoencoder(code_channels: int) -> "nn.Module":
    """Make an autoencoder of 32x32 images in [0, 1] with an 8x8 code.

    Its transposed convolutions have a kernel of 3 and a stride of 2, which covers the output unevenly and leaves the
    checkerboard artifacts that detectors look for (Odena et al., 2016).
    """
    from torch import nn

    return nn.Sequential(
        nn.Conv2d(3, 32, 4, stride=2, padding=1), nn.ReLU(),
        nn.Conv2d(32, 64, 4, stride=2, padding=1), nn.ReLU(),
        nn.Conv2d(64, code_channels, 3, padding=1),
        nn.Conv2d(code_channels, 64, 3, padding=1), nn.ReLU(),
        nn.ConvTranspose2d(64, 32, 3, stride=2, padding=1, output_padding=1), nn.ReLU(),
        nn.ConvTranspose2d(32, 3, 3, stride=2, padding=1, output_padding=1), nn.Sigmoid(),
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
