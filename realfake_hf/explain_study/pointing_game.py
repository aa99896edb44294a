"""Planted evidence: do maps find a quadrant of one image that was pasted into another?

Host and donor show the same kind of content, and the model classifies both correctly. A real quadrant in a real image
is the control: a map that finds it reacts to the seam, not to the origin of the quadrant.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from tqdm.auto import tqdm

from realfake_hf.attribution.methods import CLASS_METHODS
from realfake_hf.estimate import Estimate, to_plain
from realfake_hf.explain_study.maps import GRID, Sample, StudyModel, Values, is_empty, maps_on_grid, mass_inside
from realfake_hf.labels import LabelName
from realfake_hf.metrics.intervals import Resampling
from realfake_hf.sampling import take_evenly

QUADRANTS: Final = 4  # numbered row by row from the upper left

Flags = NDArray[np.bool_]
Rows = NDArray[np.intp]


@dataclass(frozen=True)
class Kind:
    """Labels of host and donor, and the label whose evidence is explained."""

    host: LabelName
    donor: LabelName
    target: LabelName


KINDS: Final[Mapping[str, Kind]] = {
    "fake in real": Kind(host="REAL", donor="FAKE", target="FAKE"),
    "real in fake": Kind(host="FAKE", donor="REAL", target="REAL"),
    "real in real": Kind(host="REAL", donor="REAL", target="FAKE"),
}


def measure_planted(
    models: Sequence[StudyModel], sample: Sample, *, n: int, samples: int = 1000, seed: int = 0
) -> dict[str, Any]:
    """Plant quadrants in images, and measure where each method locates the evidence.

    At most n hosts for each kind of planting, balanced by content, and their donors are drawn from the sample. Its
    weights are not used: each planted image counts once, because it is not an image of the split that the weights
    represent. The seed is that of the pairs, the quadrants and the bootstrap. The result is plain JSON: the hits of an
    uninformative map (`chance`), the `class_methods`, whose maps depend on the label, and for each of the `models` and
    each of `KINDS` the number of planted images, the label that is explained (`target`), `p_fake` of the planted image
    minus that of its host, and the `methods`, see `_localize`.
    """
    pairs = {
        (model.name, name): _draw_pairs(sample, kind, model=model.name, n=n, seed=seed)
        for model in models
        for name, kind in KINDS.items()
    }
    results = {}
    for model in models:
        progress = tqdm(KINDS.items(), desc=f"{model.name}: planted", unit="kind", disable=None)
        results[model.name] = {
            name: _measure_kind(model, sample.images, pairs[model.name, name], kind, samples=samples, seed=seed)
            for name, kind in progress
        }
    settings = {"chance": 1 / QUADRANTS, "grid": GRID, "class_methods": sorted(CLASS_METHODS)}
    return to_plain(settings | {"models": results})


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


def plant(hosts: NDArray[np.uint8], donors: NDArray[np.uint8], where: Flags) -> NDArray[np.uint8]:
    """Paste a part of each donor into its host, at the same place: (n, height, width, 3) uint8."""
    return np.where(where[..., None], donors, hosts)


def pointing_game(maps: NDArray[np.floating], where: Flags) -> Values:
    """Test whether the highest cell lies in the marked region (Zhang et al., 2018, *Excitation Backprop*, IJCV).

    Both are (n, height, width). The result is (n,): 0 or 1, or the share inside if several cells tie for the highest;
    NaN for empty or NaN maps.
    """
    highest = maps == maps.max(axis=(1, 2), keepdims=True)
    with np.errstate(invalid="ignore"):  # 0 / 0 where nothing compares with NaN
        hits = (highest & where).sum(axis=(1, 2)) / highest.sum(axis=(1, 2))
    return np.where(is_empty(maps), np.nan, hits)


def _draw_pairs(sample: Sample, kind: Kind, *, model: str, n: int, seed: int) -> tuple[Rows, Rows]:
    """Draw hosts, balanced by content, and a donor of the same content for each; few donors are used repeatedly."""
    order = np.random.default_rng(seed).permutation(len(sample))
    order = order[sample.is_right[model][order]]
    is_host, is_donor = (sample.is_fake == (label == "FAKE") for label in (kind.host, kind.donor))
    pairs = [
        _pair_up(order[(where & is_host)[order]], order[(where & is_donor)[order]])
        for where in sample.by_content.values()
    ]
    hosts, donors = np.concatenate(pairs, axis=1)
    if not len(hosts):
        raise ValueError(
            f"expected a {kind.host} and a {kind.donor} image of the same content that {model} classifies correctly; "
            "found none. Draw a larger sample."
        )
    chosen = np.asarray(take_evenly([sample.content[row] for row in hosts], n))
    return hosts[chosen], donors[chosen]


def _pair_up(hosts: Rows, donors: Rows) -> Rows:
    """Give each host the next donor, (2, pairs): no image is its own donor."""
    if not len(donors):
        return np.empty((2, 0), dtype=np.intp)
    pairs = np.stack([hosts, np.resize(np.roll(donors, 1), len(hosts))])
    return pairs[:, pairs[0] != pairs[1]]


def _measure_kind(
    model: StudyModel, images: NDArray[np.uint8], pairs: tuple[Rows, Rows], kind: Kind, *, samples: int, seed: int
) -> dict[str, Any]:
    hosts, donors = (images[rows] for rows in pairs)
    quadrants = draw_quadrants(len(hosts), seed=seed)
    planted = plant(hosts, donors, inside(quadrants, (hosts.shape[1], hosts.shape[2])))
    resampling = Resampling(np.ones(len(hosts)), samples=samples, seed=seed)
    return {
        "n": len(hosts),
        "target": kind.target,
        "p_fake_moved": resampling.mean(model.probabilities(planted) - model.probabilities(hosts)),
        "methods": {
            method: _localize(
                maps_on_grid(model, planted, method, target=kind.target),
                before=maps_on_grid(model, hosts, method, target=kind.target),
                where=inside(quadrants, GRID),
                resampling=resampling,
            )
            for method in model.methods
        },
    }


def _localize(maps: Values, *, before: Values, where: Flags, resampling: Resampling) -> dict[str, Estimate]:
    """Measure how well maps find the quadrant, compared with the maps `before` it was planted.

    `mass` is the share of a map's sum in the quadrant; the lowest cell of a map counts as 0.
    """
    mass, mass_before = mass_inside(maps, where), mass_inside(before, where)
    return {
        "hits": resampling.mean(pointing_game(maps, where)),
        "mass": resampling.mean(mass),
        "mass_before": resampling.mean(mass_before),
        "mass_gain": resampling.mean(mass - mass_before),
    }
