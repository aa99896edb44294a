"""Planted evidence: do maps find a quadrant of one image that was pasted into another?

Host and donor show the same kind of content, and the model classifies both correctly. The control plants a quadrant of
another image of the host's own label in the same place of the same host: a map that finds it reacts to the seam, not
to the origin of the quadrant.
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
from realfake_hf.metrics.significance import correct_differences
from realfake_hf.sampling import take_evenly

QUADRANTS: Final = 4  # numbered row by row from the upper left

Flags = NDArray[np.bool_]
Rows = NDArray[np.intp]


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


def _draw_hosts(sample: Sample, kind: Kind, *, model: str, n: int, seed: int) -> Rows:
    """Draw hosts, balanced by content, and two donors of the same content for each: (3, hosts).

    The first has the donor's label, the second, for the control, that of the host. Few donors are used repeatedly.
    """
    order = np.random.default_rng(seed).permutation(len(sample))
    order = order[sample.is_right[model][order]]
    is_host, is_donor = (sample.is_fake == (label == "FAKE") for label in (kind.host, kind.donor))
    drawn = [
        _give_donors(order[(where & is_host)[order]], order[(where & is_donor)[order]])
        for where in sample.by_content.values()
    ]
    rows = np.concatenate(drawn, axis=1)
    if not rows.size:
        raise ValueError(
            f"expected two {kind.host} images and a {kind.donor} one of the same content that {model} classifies "
            "correctly; found none. Draw a larger sample."
        )
    return rows[:, take_evenly([sample.content[row] for row in rows[0]], n)]


def _give_donors(hosts: Rows, donors: Rows) -> Rows:
    """Give each host a donor, and the next host as that of the control: (3, hosts), none if there are too few."""
    if not len(donors) or len(hosts) < 2:  # noqa: PLR2004 - no image is its own donor
        return np.empty((3, 0), dtype=np.intp)
    return np.stack([hosts, np.resize(donors, len(hosts)), np.roll(hosts, 1)])


def _measure_kind(
    model: StudyModel, images: NDArray[np.uint8], rows: Rows, kind: Kind, *, samples: int, seed: int
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
    """Measure how well maps find the quadrant in `planted` and in `control` images, and the paired `difference`.

    `mass` is the share of a map's sum in the quadrant; the lowest cell of a map counts as 0.
    """
    found = {
        name: {"hits": pointing_game(heat, where), "mass": mass_inside(heat, where)} for name, heat in maps.items()
    }
    planted, control = found["planted"], found["control"]
    means = {name: {key: resampling.mean(each) for key, each in values.items()} for name, values in found.items()}
    return means | {"difference": {key: resampling.change(planted[key] - control[key]) for key in planted}}
