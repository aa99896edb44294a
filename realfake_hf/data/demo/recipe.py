"""Where the windows of the demo data lie: photographs cut into regions, windows drawn in them and dealt to labels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Final

import numpy as np
from PIL import Image as Pillow
from tqdm.auto import tqdm

Box = tuple[int, int, int, int]  # left, top, right, bottom in photograph pixels; right and bottom exclusive

IMAGE_SIDE: Final = 32  # pixels, as in CIFAR-10 and CIFAKE
WINDOW_SIDES: Final = (36, 72)  # pixels, smallest and largest; the largest fits into the smallest region
GRID: Final = (4, 5)  # rows, columns
SPLITS: Final = ("train",) * 14 + ("validation",) * 2 + ("test",) * 4  # one for each of the grid's 20 regions
MAX_OVERLAP: Final = 0.45  # intersection over union of two windows
MIN_DETAIL: Final = 3.0  # grey levels between neighbours; below it a crop is plain sky, and a fake of it is as plain
DRAWS_PER_WINDOW: Final = 100  # then the region is full


@dataclass(frozen=True)
class Region:
    """One cell of a photograph's grid; all of its windows are in one split."""

    photograph: str
    box: Box
    split: str

    def __str__(self) -> str:
        return f"{self.photograph}:{','.join(map(str, self.box))}"


@dataclass(frozen=True)
class Window:
    """A square of a region, in photograph pixels."""

    region: Region
    box: Box


def cut_regions(photograph: str, size: tuple[int, int], random: np.random.Generator) -> list[Region]:
    """Cut a photograph into a grid and deal its cells to the splits.

    Args:
        photograph: its name.
        size: (width, height) in pixels.
        random: deals the cells.

    Returns:
        Disjoint regions that cover the photograph.
    """
    rows, columns = GRID
    lefts = [round(size[0] * column / columns) for column in range(columns + 1)]
    tops = [round(size[1] * row / rows) for row in range(rows + 1)]
    boxes = [(lefts[x], tops[y], lefts[x + 1], tops[y + 1]) for y, x in product(range(rows), range(columns))]
    splits = [SPLITS[index] for index in random.permutation(len(SPLITS))]
    return [Region(photograph, box, split) for box, split in zip(boxes, splits, strict=True)]


def overlap(one: Box, other: Box) -> float:
    """Intersection over union of two boxes, in [0, 1].

    >>> overlap((0, 0, 2, 2), (1, 0, 3, 2))
    0.3333333333333333
    """
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    shared = max(width, 0) * max(height, 0)
    return shared / (area(one) + area(other) - shared)


def area(box: Box) -> int:
    """Square pixels."""
    return (box[2] - box[0]) * (box[3] - box[1])


def crop(photograph: Pillow.Image, box: Box) -> Pillow.Image:
    """Cut a window out and bring it to 32x32; the filter sees no pixel outside of the window."""
    return photograph.crop(box).resize((IMAGE_SIDE, IMAGE_SIDE), Pillow.Resampling.BICUBIC)


def draw_box(region: Box, random: np.random.Generator) -> Box:
    """A square inside the region; small ones as often as large ones on a logarithmic scale."""
    left, top, right, bottom = region
    side = round(np.exp(random.uniform(*np.log(WINDOW_SIDES))))
    x = int(random.integers(left, right - side, endpoint=True))
    y = int(random.integers(top, bottom - side, endpoint=True))
    return x, y, x + side, y + side


def detail(picture: Pillow.Image) -> float:
    """Mean absolute difference of neighbouring pixels, in grey levels [0, 255].

    >>> detail(Pillow.new("RGB", (32, 32), "navy"))
    0.0
    """
    grey = np.asarray(picture.convert("L"), dtype=np.float64)
    return float(np.abs(np.diff(grey, axis=0)).mean() + np.abs(np.diff(grey, axis=1)).mean()) / 2


def draw_windows(
    region: Region, photograph: Pillow.Image, *, wanted: int, random: np.random.Generator
) -> list[Window]:
    """Draw windows that overlap little and are not plain.

    Args:
        region: where the windows lie.
        photograph: the picture that the region belongs to.
        wanted: the most to return.
        random: draws the places and sizes.

    Returns:
        An even number of windows, so that half can become fake.
    """
    boxes: list[Box] = []
    for _ in range(wanted * DRAWS_PER_WINDOW):
        if len(boxes) == wanted:
            break
        box = draw_box(region.box, random)
        if any(overlap(box, other) > MAX_OVERLAP for other in boxes) or detail(crop(photograph, box)) < MIN_DETAIL:
            continue
        boxes.append(box)
    return [Window(region, box) for box in boxes[: len(boxes) // 2 * 2]]


def choose_fakes(windows: Sequence[Window], random: np.random.Generator) -> list[bool]:
    """Toss for each pair of windows of a region that are alike in size which of the two becomes fake.

    Args:
        windows: an even number of windows of one region.
        random: tosses the coin.

    Returns:
        For each window whether it becomes fake; window sizes are distributed alike in both labels.
    """
    is_fake = [False] * len(windows)
    by_size = sorted(range(len(windows)), key=lambda index: area(windows[index].box))
    for pair in zip(by_size[::2], by_size[1::2], strict=True):
        is_fake[pair[random.integers(2)]] = True
    return is_fake


def draw_all_windows(
    regions: Sequence[Region], photographs: Mapping[str, Pillow.Image], *, num_images: int, random: np.random.Generator
) -> tuple[list[Window], list[bool]]:
    """Draw the windows of all regions, as many in each as its area asks for, and choose which become fake.

    Returns:
        The windows, and for each whether it becomes fake.
    """
    total = sum(area(region.box) for region in regions)
    windows: list[Window] = []
    is_fake: list[bool] = []
    for region in tqdm(regions, desc="windows", unit="region"):
        wanted = 2 * round(num_images * area(region.box) / total / 2)
        drawn = draw_windows(region, photographs[region.photograph], wanted=wanted, random=random)
        windows += drawn
        is_fake += choose_fakes(drawn, random)
    return windows, is_fake
