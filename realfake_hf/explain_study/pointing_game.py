"""Pointing games: how well maps mark a region, and planted evidence: a quadrant of one image, pasted into another.

Host and donor show the same kind of content, and the model classifies both correctly. The control plants a quadrant of
another image of the host's own label in the same place of the same host: a map that finds it reacts to the seam, not
to the origin of the quadrant.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from tqdm.auto import tqdm

from realfake_hf.attribution.methods import CLASS_METHODS
from realfake_hf.estimate import Estimate, to_plain
from realfake_hf.explain_study.maps import (
    GRID,
    Images,
    Maps,
    Sample,
    StudyModel,
    Values,
    maps_on_grid,
    mass_inside,
)
from realfake_hf.labels import LabelName
from realfake_hf.metrics.intervals import Resampling
from realfake_hf.metrics.report import roc_auc
from realfake_hf.metrics.significance import correct_differences
from realfake_hf.sampling import take_evenly

QUADRANTS: Final = 4  # numbered row by row from the upper left

Flags = NDArray[np.bool_]
Rows = NDArray[np.intp]
Found = dict[str, Values]  # measures of `locate`, (n,) each


@dataclass(frozen=True)
class Kind:
    """The label of the hosts, and the label of the donors, whose evidence is explained."""

    host: LabelName
    donor: LabelName


KINDS: Final[Mapping[str, Kind]] = {
    "fake in real": Kind(host="REAL", donor="FAKE"),
    "real in fake": Kind(host="FAKE", donor="REAL"),
}


def measure_planted(
    models: Sequence[StudyModel], sample: Sample, *, n: int, samples: int = 1000, seed: int = 0
) -> dict[str, Any]:
    """Plant quadrants in images, and measure where each method locates the evidence.

    At most n hosts for each kind of planting, balanced by content, and their donors are drawn from the sample. Its
    weights are not used: each planted image counts once, because it is not an image of the split that the weights
    represent. The seed is that of the pairs, the quadrants and the bootstrap. The result is plain JSON: the hits of an
    uninformative map (`chance`), the `class_methods`, whose maps depend on the label, and for each of the `models` and
    each of `KINDS` the number of hosts, `p_fake_moved`, which is `p_fake` of the image with the quadrant minus that of
    its host, and the `methods`, see `_localize`. The p-values of the differences to controls are corrected together.
    """
    draws = {
        (model.name, name): _draw_hosts(sample, kind, model=model.name, n=n, seed=seed)
        for model in models
        for name, kind in KINDS.items()
    }
    results = {}
    for model in models:
        progress = tqdm(KINDS.items(), desc=f"{model.name}: planted", unit="kind", disable=None)
        results[model.name] = {
            name: _measure_kind(model, sample.images, draws[model.name, name], kind, samples=samples, seed=seed)
            for name, kind in progress
        }
    settings = {"chance": 1 / QUADRANTS, "grid": GRID, "class_methods": sorted(CLASS_METHODS)}
    measured = to_plain(settings | {"models": results})
    rows = [
        row for kinds in measured["models"].values() for kind in kinds.values() for row in kind["methods"].values()
    ]
    correct_differences([row["difference"][measure] for row in rows for measure in row["difference"]])
    return measured


def draw_quadrants(n: int, *, seed: int) -> Rows:
    """Draw a quadrant for each image, (n,), all four equally often: a map that always highlights one hits 1/4."""
    return np.random.default_rng(seed).permutation(np.arange(n) % QUADRANTS)


def inside(quadrants: NDArray[np.integer], size: tuple[int, int]) -> Flags:
    """Mark the quadrant of each image: (n, height, width) of the given size, in pixels or cells.

    >>> inside(np.array([1]), (2, 4)).astype(int).tolist()
    [[[0, 0, 1, 1], [0, 0, 0, 0]]]
    """
    lower, right = np.arange(size[0]) >= size[0] / 2, np.arange(size[1]) >= size[1] / 2
    rows = lower == (quadrants >= 2)[:, None]  # noqa: PLR2004 - the lower two
    columns = right == (quadrants % 2 == 1)[:, None]
    return np.asarray(rows[:, :, None] & columns[:, None, :])


def plant(hosts: Images, donors: Images, where: Flags) -> Images:
    """Paste a part of each donor into its host, at the same place: (n, height, width, 3) uint8."""
    return np.where(where[..., None], donors, hosts)


def locate(maps: Maps, inside: NDArray[Any], whole: NDArray[Any] | float = 1.0) -> Found:
    """Measure how well each map marks a region of its image: `hits`, `mass` and `roc_auc`, NaN for empty or NaN maps.

    `mass` is the share of the map's sum in the region, the localisation of the Grid Pointing Game (Böhle et al., 2021,
    *Convolutional Dynamic Alignment Networks*, CVPR). The sum of a map depends on what counts as 0: in explanations,
    the lowest cell does. `hits` and `roc_auc` do not depend on it; see `pointing_game` and `region_auc`.

    Args:
        maps: (n, height, width), not negative.
        inside: number of pixels of the region in each cell, or flags: (n, height, width).
        whole: number of pixels of the image in each cell: (n, height, width), or one number for all.
    """
    return {
        "hits": pointing_game(maps, inside, whole),
        "mass": mass_inside(maps, inside, whole),
        "roc_auc": region_auc(maps, inside, whole),
    }


def pointing_game(maps: Maps, inside: NDArray[Any], whole: NDArray[Any] | float = 1.0) -> Values:
    """Test whether the highest cell lies in the region (Zhang et al., 2018, *Excitation Backprop*, IJCV).

    The result is (n,): 0 or 1, or the share of its pixels inside if the cell lies on the border of the region, or if
    several cells tie for the highest. For the arguments, see `locate`.
    """
    highest = maps == maps.max(axis=(1, 2), keepdims=True)
    return mass_inside(highest.astype(np.float64), inside, whole)


def region_auc(maps: Maps, inside: NDArray[Any], whole: NDArray[Any] | float = 1.0) -> Values:
    """Compute the ROC AUC of the pixels of each image, those of the region against the others: (n,) in [0, 1].

    It is the probability that the map is higher at a pixel of the region than at another one, ties counting half; 1/2
    for a map that knows nothing. For the arguments, see `locate`.
    """
    cells = maps[0].size
    is_inside = np.arange(2 * cells) < cells  # a cell on the border of the region counts on both sides
    flat = maps.reshape(len(maps), cells)
    within, total = (np.broadcast_to(each, maps.shape).reshape(len(maps), cells) for each in (inside, whole))
    weights = np.concatenate([within, total - within], axis=1)
    aucs = [roc_auc(is_inside, np.tile(heat, 2), pixels[None])[0] for heat, pixels in zip(flat, weights, strict=True)]
    return np.where(flat.max(axis=1) > flat.min(axis=1), aucs, np.nan)


def draw_rows(
    is_first: Flags,
    is_other: Flags,
    content: Sequence[str],
    combine: Callable[[Rows, Rows], Rows],
    *,
    n: int,
    seed: int,
) -> Rows:
    """Draw at most n combinations of images of the same content, balanced by content: (members, combinations).

    Args:
        is_first: (images,) images that may be the first member.
        is_other: (images,) images that may be another member.
        content: (images,).
        combine: returns the combinations of one content, given the rows of both kinds of images in random order.
        n: combinations.
        seed: of the order.
    """
    order = np.random.default_rng(seed).permutation(len(content))
    names = np.array(content)[order]
    kinds = is_first[order], is_other[order]
    drawn = [combine(*(order[kind & (names == name)] for kind in kinds)) for name in sorted(set(content))]
    rows = np.concatenate(drawn, axis=1)
    return rows[:, take_evenly([content[row] for row in rows[0]], n)]


def give_donors(hosts: Rows, donors: Rows) -> Rows:
    """Give each host a donor, and the next host as that of the control: (3, hosts), none if there are too few.

    Few donors are used repeatedly.
    """
    if not len(donors) or len(hosts) < 2:  # noqa: PLR2004 - no image is its own donor
        return np.empty((3, 0), dtype=np.intp)
    return np.stack([hosts, np.resize(donors, len(hosts)), np.roll(hosts, 1)])


def _draw_hosts(sample: Sample, kind: Kind, *, model: str, n: int, seed: int) -> Rows:
    """Draw hosts, balanced by content, with the donors of `give_donors`: (3, hosts)."""
    is_right = sample.is_right[model]
    is_host, is_donor = (is_right & (sample.is_fake == (label == "FAKE")) for label in (kind.host, kind.donor))
    rows = draw_rows(is_host, is_donor, sample.content, give_donors, n=n, seed=seed)
    if not rows.size:
        raise ValueError(
            f"expected two {kind.host} images and a {kind.donor} one of the same content that {model} classifies "
            "correctly; found none. Draw a larger sample."
        )
    return rows


def _measure_kind(
    model: StudyModel, images: Images, rows: Rows, kind: Kind, *, samples: int, seed: int
) -> dict[str, Any]:
    hosts, donors, controls = (images[each] for each in rows)
    quadrants = draw_quadrants(len(hosts), seed=seed)
    pixels, cells = inside(quadrants, (hosts.shape[1], hosts.shape[2])), inside(quadrants, GRID)
    pasted = {"planted": plant(hosts, donors, pixels), "control": plant(hosts, controls, pixels)}
    resampling = Resampling(np.ones(len(hosts)), samples=samples, seed=seed)
    before = model.probabilities(hosts)
    moved = {name: model.probabilities(given) - before for name, given in pasted.items()}
    methods = {}
    for method in model.methods:
        maps = {name: maps_on_grid(model, given, method, target=kind.donor) for name, given in pasted.items()}
        methods[method] = _localize(maps, where=cells, resampling=resampling)
    return {
        "n": len(hosts),
        "target": kind.donor,
        "p_fake_moved": {name: resampling.change(values) for name, values in moved.items()},
        "methods": methods,
    }


def _localize(maps: Mapping[str, Values], *, where: Flags, resampling: Resampling) -> dict[str, dict[str, Estimate]]:
    """Locate the quadrant in `planted` and in `control` images, see `locate`, and test the paired `difference`."""
    found = {name: locate(heat, where) for name, heat in maps.items()}
    planted, control = found["planted"], found["control"]
    means = {name: {key: resampling.mean(each) for key, each in values.items()} for name, values in found.items()}
    return means | {"difference": {key: resampling.change(planted[key] - control[key]) for key in planted}}
