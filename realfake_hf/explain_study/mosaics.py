"""The Grid Pointing Game on large images: mosaics of crops, and rectangles of AI-generated images in photographs.

Images are cropped, not resized, at multiples of 8 pixels, so that the blocks of JPEG files stay whole and on one grid.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any, Final

import numpy as np
from datasets import Dataset
from datasets import Image as ImageFeature
from numpy.typing import NDArray
from PIL import Image as PillowImage
from tqdm.auto import tqdm

from realfake_hf.detector import Detector
from realfake_hf.explain_study.agreement import centre_gaussian
from realfake_hf.explain_study.grid_game import GAMES, PRIOR, draw_grids, summarize
from realfake_hf.explain_study.maps import Maps, Plain, Values, pixels_of_cells
from realfake_hf.explain_study.pointing_game import (
    QUADRANTS,
    Flags,
    Found,
    Rows,
    draw_quadrants,
    draw_rows,
    give_donors,
    inside,
    locate,
)
from realfake_hf.labels import FAKE, LabelName
from realfake_hf.sampling import draw_evenly

BLOCK: Final = 8  # pixels of a block of JPEG
CANDIDATES: Final = 10  # scored images per mosaic, from which those with a correct verdict are drawn
SPLICED: Final = "fake spliced into real"
CHANCE: Final = "chance"
CONTROL: Final = "control"

Image = NDArray[np.uint8]  # (height, width, 3)
Mask = NDArray[np.bool_]  # (height, width)
Picture = tuple[Image, Mask]  # a composed image, and the region of the label that is explained


@dataclass(frozen=True, eq=False)
class Played:
    """The measures of `locate` in composed images, and what the detector says of these."""

    methods: dict[str, Found]
    references: dict[str, Found]  # of the centre prior (`PRIOR`), and of a uniform map (`CHANCE`)
    p_fake: Values  # (n,)


def draw_candidates(rows: Dataset, *, side: int, n: int, seed: int) -> tuple[Dataset, int]:
    """Draw images of at least `side` / 2 pixels in both directions, of contents with both labels, balanced by label.

    Return at most `CANDIDATES` times n of the rows, and the number of rows that fit.
    """
    encoded = rows.cast_column("image", ImageFeature(decode=False))["image"]
    sizes = np.array([PillowImage.open(BytesIO(each["bytes"])).size for each in encoded]).reshape(-1, 2)
    is_fake, content = np.asarray(rows["label"][:]) == FAKE, np.array(contents(rows))
    shared = np.intersect1d(content[is_fake], content[~is_fake])
    fitting = np.flatnonzero((sizes.min(axis=1) >= side // 2) & np.isin(content, shared))
    drawn = draw_evenly(is_fake[fitting], content[fitting].tolist(), CANDIDATES * n, seed=seed)
    return rows.select(fitting[drawn]), len(fitting)


def contents(rows: Dataset) -> list[str]:
    """Return what each image shows, (n,); unknown contents count as one."""
    return [name or "unknown" for name in rows["content"][:]]


def measure_mosaics(
    detector: Detector, rows: Dataset, methods: Sequence[str], *, side: int, n: int, samples: int, seed: int
) -> Plain:
    """Play the Grid Pointing Game with mosaics and splices of large images, by several methods of one detector.

    At most n mosaics of `side` pixels for each label, and n splices, are composed of rows of at least half that size.
    The measures are over pixels. Splices are compared with the centre prior, with `CHANCE`, a uniform map, and with a
    `CONTROL`, the same rectangle of another photograph in the same host: a map may find the seam.

    Returns:
        `right`, the number of rows with a correct verdict, and the `games`, see `grid_game.summarize`. P-values are
        not corrected yet.
    """
    is_fake = np.asarray(rows["label"][:]) == FAKE
    content = contents(rows)
    p_fake = detector.probabilities(tqdm(rows["image"], desc="scores", unit="image", disable=None))
    is_right = (p_fake > 0.5) == is_fake  # noqa: PLR2004 - one half
    draws = {
        name: draw_grids(is_fake, is_right, content, target=target, model="the model", n=n, seed=seed)
        for name, target in GAMES.items()
    }
    spliced = draw_splices(is_fake, is_right, content, n=n, seed=seed)
    settings: Any = {"samples": samples, "seed": seed}
    games = {}
    for name, target in GAMES.items():
        pictures = mosaics(rows, draws[name], side=side, seed=seed)
        played = play(detector, pictures, methods, target=target, title=name)
        baselines = {PRIOR: dict.fromkeys(methods, played.references[PRIOR])}
        games[name] = summarize(played.methods, baselines, played.p_fake, target=target, **settings)
    games[SPLICED] = _play_splices(detector, rows, spliced, methods, side=side, **settings)
    return {"right": int(is_right.sum()), "games": games}


def draw_splices(is_fake: Flags, is_right: Flags, content: Sequence[str], *, n: int, seed: int) -> Rows:
    """Draw at most n photographs, an AI-generated donor for each and another photograph: (3, splices).

    All have a correct verdict, and share their content.
    """
    return draw_rows(is_right & ~is_fake, is_right & is_fake, content, give_donors, n=n, seed=seed)


def mosaics(rows: Dataset, drawn: Rows, *, side: int, seed: int) -> Iterator[Picture]:
    """Yield a mosaic for each column of drawn rows, (4, mosaics), the first of which is in the marked quadrant."""
    quadrants = draw_quadrants(drawn.shape[1], seed=seed)
    for members, quadrant in zip(drawn.T, quadrants, strict=True):
        places = (np.arange(QUADRANTS) - quadrant) % QUADRANTS
        yield compose([_read(rows, row) for row in members[places]], side), inside(quadrant[None], (side, side))[0]


def compose(images: Sequence[Image], side: int) -> Image:
    """Compose four images, quadrant by quadrant, to (side, side, 3): each gives the corner where its quadrant lies."""
    half = side // 2
    parts = []
    for image, place in zip(images, np.ndindex(2, 2), strict=True):
        top, left = (
            at * ((length - half) // BLOCK * BLOCK) for at, length in zip(place, image.shape[:2], strict=True)
        )
        parts.append(image[top : top + half, left : left + half])
    return np.concatenate([np.concatenate(parts[:2], axis=1), np.concatenate(parts[2:], axis=1)])


def splices(rows: Dataset, hosts: Rows, donors: Rows, *, side: int, seed: int) -> Iterator[Picture]:
    """Yield each host with a rectangle of its donor, which depends on the seed and the hosts alone, not on donors."""
    generator = np.random.default_rng(seed)
    for host, donor in zip(hosts, donors, strict=True):
        yield splice(_read(rows, host), _read(rows, donor), side=side, generator=generator)


def splice(host: Image, donor: Image, *, side: int, generator: np.random.Generator) -> Picture:
    """Paste a rectangle of a donor into the largest square of its host of at most `side` pixels.

    Each side of the rectangle is a quarter to a half of the square's. It is taken from the same place of the donor, or
    the nearest one. Both images have at least `side` / 2 pixels in each direction.
    """
    blocks = min(side, *host.shape[:2]) // BLOCK
    sides = generator.integers(blocks // 4, blocks // 2 + 1, size=2)
    corner = BLOCK * generator.integers(0, blocks - sides + 1)
    (height, width), (top, left) = BLOCK * sides, corner
    pasted = host[: BLOCK * blocks, : BLOCK * blocks].copy()
    y, x = np.minimum(corner, (np.array(donor.shape[:2]) - BLOCK * sides) // BLOCK * BLOCK)
    mask = np.zeros(pasted.shape[:2], dtype=np.bool_)
    mask[top : top + height, left : left + width] = True
    pasted[mask] = donor[y : y + height, x : x + width].reshape(-1, 3)
    return pasted, mask


def play(
    detector: Detector, pictures: Iterable[Picture], methods: Sequence[str], *, target: LabelName, title: str
) -> Played:
    """Explain a label in composed images by several methods, and locate the regions of the label."""
    located: dict[str, list[Found]] = {name: [] for name in (*methods, PRIOR, CHANCE)}
    p_fake = []
    for image, mask in tqdm(pictures, desc=title, unit="image", disable=None):
        for method in methods:
            [explanation] = detector.explain(image, method=method, target=target)
            located[method].append(locate_pixels(explanation.map, mask))
        p_fake.append(explanation.verdict.p_fake)
        located[PRIOR].append(locate_pixels(centre_gaussian((mask.shape[0], mask.shape[1])), mask))
        area = np.array([mask.mean()])
        located[CHANCE].append({"hits": area, "mass": area, "roc_auc": np.array([0.5])})
    found = {name: _join(each) for name, each in located.items()}
    references = {name: found.pop(name) for name in (PRIOR, CHANCE)}
    return Played(found, references, np.array(p_fake))


def locate_pixels(heat: Maps, mask: Mask) -> Found:
    """Locate a region of pixels by one map, (grid_h, grid_w), over the whole image; see `locate`."""
    within, whole = (pixels_of_cells(each, heat.shape)[None] for each in (mask, np.ones_like(mask)))
    return locate(heat[None], within, whole)


def _play_splices(
    detector: Detector, rows: Dataset, drawn: Rows, methods: Sequence[str], *, side: int, samples: int, seed: int
) -> Plain:
    hosts, donors, others = drawn
    spliced, control = (
        play(detector, splices(rows, hosts, given, side=side, seed=seed), methods, target="FAKE", title=title)
        for given, title in ((donors, SPLICED), (others, f"{SPLICED}: {CONTROL}"))
    )
    baselines = {name: dict.fromkeys(methods, values) for name, values in spliced.references.items()}
    baselines[CONTROL] = control.methods
    return summarize(spliced.methods, baselines, spliced.p_fake, target="FAKE", samples=samples, seed=seed)


def _join(parts: Sequence[Found]) -> Found:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _read(rows: Dataset, row: np.intp) -> Image:
    return np.asarray(rows[int(row)]["image"])
