"""Agreement of maps of the same image: overlap, correlation, structure and distance, with chance and controls.

Maps are first resampled to one grid. If one of two maps is empty (constant), their agreement is NaN and counted as
undefined. Cells that tie at the threshold of the highest cells count in part. Both maps of a pair explain the same
label, except with the target "predicted": there, each explains the verdict of its own model, and where the verdicts
differ, the maps are about opposite labels.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import combinations
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.stats import hypergeom, rankdata

from realfake_hf.estimate import Estimate, to_plain
from realfake_hf.explain_study.maps import GRID, Maps, MapSet, Plain, Sample, Values, is_empty, to_grid
from realfake_hf.explain_study.names import MEASURE, key_pairs
from realfake_hf.metrics.intervals import Resampling
from realfake_hf.metrics.significance import correct_differences
from realfake_hf.sampling import Flags

SSIM_WINDOW: Final = 3  # cells; the usual 7 would leave two windows per side on a grid of 8
CENTRE_SIGMA: Final = 0.25  # standard deviation of the Gaussian in the centre, as a share of the sides
SPLIT_MEASURES: Final = ("iou_top_20", "spearman")  # reported by label and by content
_C1, _C2 = 0.01**2, 0.03**2  # Wang et al. (2004), for values in [0, 1]


def top_iou(a: Maps, b: Maps, *, share: float) -> Values:
    """Compute the intersection over union of the highest `share` of the cells, at least one: (n,) in [0, 1]."""
    first, second = (_top(maps, share) for maps in (a, b))
    return np.asarray(np.minimum(first, second).sum(axis=1) / np.maximum(first, second).sum(axis=1))


def spearman(a: Maps, b: Maps) -> Values:
    """Compute the rank correlation of the cells: (n,) in [-1, 1]; ties get their mean rank."""
    ranks = [rankdata(maps.reshape(len(maps), -1), axis=1) for maps in (a, b)]
    return pearson(*ranks)


def pearson(a: Maps, b: Maps) -> Values:
    """Compute the linear correlation of the cells: (n,) in [-1, 1]."""
    x, y = (_centred(maps) for maps in (a, b))
    with np.errstate(invalid="ignore"):  # 0 / 0 for an empty map
        return np.asarray((x * y).sum(axis=1) / np.sqrt((x**2).sum(axis=1) * (y**2).sum(axis=1)))


def ssim(a: Maps, b: Maps) -> Values:
    """Compute the structural similarity (Wang et al., 2004) of maps in [0, 1]: (n,), mean over windows of 3 cells."""
    x, y = (_windows(maps) for maps in (a, b))  # (n, windows, cells)
    mean_x, mean_y = x.mean(axis=-1), y.mean(axis=-1)
    covariance = (x * y).mean(axis=-1) - mean_x * mean_y
    variances = x.var(axis=-1) + y.var(axis=-1)
    luminance = (2 * mean_x * mean_y + _C1) / (mean_x**2 + mean_y**2 + _C1)
    return np.asarray((luminance * (2 * covariance + _C2) / (variances + _C2)).mean(axis=-1))


def centre_distance(a: Maps, b: Maps) -> Values:
    """Compute the distance of the centres of mass as a share of the map's diagonal: (n,) in [0, 1]."""
    first, second = (_centre(maps) for maps in (a, b))
    diagonal = np.hypot(*(side - 1 for side in a.shape[1:]))
    return np.asarray(np.hypot(*(first - second).T) / diagonal)


MEASURES: Final[Mapping[str, Callable[[Maps, Maps], Values]]] = {
    "iou_top_10": partial(top_iou, share=0.1),
    "iou_top_20": partial(top_iou, share=0.2),
    "spearman": spearman,
    "pearson": pearson,
    "ssim": ssim,
    "centre_distance": centre_distance,
}


def agreement(a: Maps, b: Maps) -> dict[str, Values]:
    """Compute every measure of agreement between maps of the same images, (n, height, width) in [0, 1], on one grid.

    Returns:
        (n,) for each name in `MEASURES`; NaN where one of the two maps is empty.
    """
    undefined = is_empty(a) | is_empty(b)
    return {name: np.where(undefined, np.nan, measure(a, b)) for name, measure in MEASURES.items()}


def chance_iou(cells: int, *, share: float) -> float:
    """Compute the expected `top_iou` of independent maps without ties.

    With k of N cells high in each map, the overlap is hypergeometric; for large N the result approaches k / (2N - k).

    >>> round(chance_iou(10_000, share=0.1), 3)
    0.053
    """
    high = _count(cells, share)
    overlaps = np.arange(high + 1)
    return float(np.sum(hypergeom(cells, high, high).pmf(overlaps) * overlaps / (2 * high - overlaps)))


def centre_gaussian(grid: tuple[int, int] = GRID) -> Values:
    """Return a map that highlights the centre of the image whatever it shows, in (0, 1]: of the grid's shape."""
    rows, columns = (((np.arange(side) + 0.5) / side - 0.5) / CENTRE_SIGMA for side in grid)
    return np.asarray(np.exp(-0.5 * (rows[:, None] ** 2 + columns[None, :] ** 2)))


def draw_partners(sample: Sample, *, seed: int) -> NDArray[np.intp]:
    """Draw another image of the same label and content for each image, with probabilities by weight: (n,) positions.

    It is -1 for an image without another one of its kind.
    """
    generator = np.random.default_rng(seed)
    partner = np.full(len(sample), -1, dtype=np.intp)
    for of_label in (sample.is_fake, ~sample.is_fake):
        for of_content in sample.by_content.values():
            members = np.flatnonzero(of_label & of_content)
            for row in members if len(members) > 1 else ():
                others = members[members != row]
                weights = sample.weight[others]
                partner[row] = generator.choice(others, p=weights / weights.sum())
    return partner


def measure_agreement(
    trained: Sequence[MapSet],
    random: Sequence[MapSet],
    twins: Sequence[MapSet],
    sample: Sample,
    *,
    samples: int = 1000,
    seed: int = 0,
) -> Plain:
    """Compare every two kinds of map of the images of a sample, on the common grid.

    The models under study have one set of maps per method; so have models with random weights and twins, which have
    another training seed, and may be missing. Means are estimates for the whole split, see `Sample.weight`. The seed
    is that of the bootstrap and of the partners, see `draw_partners`. The result is plain JSON: how the `maps` were
    made; the agreement of independent maps by `chance`; `pairs`, see `_compare_pair`; and each kind of map against the
    `centre` of the image, and against its twin (`ceiling`).
    """
    resampling = sample.resampling(samples=samples, seed=seed)
    maps, untrained, other = ({maps.name: to_grid(maps.heat) for maps in sets} for sets in (trained, random, twins))
    partner = draw_partners(sample, seed=seed)
    centre = np.broadcast_to(centre_gaussian(), (len(sample), *GRID))
    overlaps = {f"iou_top_{percent}": chance_iou(GRID[0] * GRID[1], share=percent / 100) for percent in (10, 20)}
    pairs = []
    for a, b in combinations(trained, 2):
        first, second = maps[a.name], maps[b.name]
        shuffled = agreement(first, second[partner])
        agreements = {
            "same_picture": agreement(first, second),
            "shuffled": {name: np.where(partner < 0, np.nan, values) for name, values in shuffled.items()},
            "random_weights": agreement(untrained[a.name], untrained[b.name]),
        }
        pairs.append(_compare_pair(a, b, agreements, sample, resampling))
    return to_plain(
        {
            "maps": {maps.name: maps.to_dict() for maps in trained},
            "chance": {**overlaps, "spearman": 0.0, "pearson": 0.0},
            "pairs": pairs,
            "centre": {name: _means(agreement(heat, centre), resampling) for name, heat in maps.items()},
            "ceiling": {name: _means(agreement(maps[name], heat), resampling) for name, heat in other.items()},
        }
    )


def correct_agreement(by_target: Mapping[str, Plain]) -> None:
    """Add `p_holm` to both differences of each key pair with every target, by `MEASURE`, in place: one family."""
    pairs = [pair for measured in by_target.values() for pair in key_pairs(measured["pairs"])]
    differences = [(pair["measures"][MEASURE]["above_shuffled"], pair["right_less_wrong"][MEASURE]) for pair in pairs]
    correct_differences([difference for both in differences for difference in both])


def _compare_pair(
    a: MapSet, b: MapSet, agreements: Mapping[str, Mapping[str, Values]], sample: Sample, resampling: Resampling
) -> Plain:
    """Summarize the agreement of two kinds of map on the same image, the controls, and the agreement in groups.

    Maps of two models are also compared by label and by content.
    """
    same, shuffled = agreements["same_picture"], agreements["shuffled"]
    right = sample.is_right[a.model] & sample.is_right[b.model]
    by_kind = {kind: _means(values, resampling) for kind, values in agreements.items()}
    by_kind["above_shuffled"] = {name: resampling.change(same[name] - shuffled[name]) for name in same}
    split = {name: same[name] for name in SPLIT_MEASURES}
    labels, contents = {"REAL": ~sample.is_fake, "FAKE": sample.is_fake}, sample.by_content
    if a.model == b.model:
        labels, contents = {}, {}
    return {
        "a": a.name,
        "b": b.name,
        "measures": {name: {kind: means[name] for kind, means in by_kind.items()} for name in same},
        "all_right": _means(same, resampling, where=right),
        "some_wrong": _means(same, resampling, where=~right),
        "right_less_wrong": {
            name: resampling.difference(values, of=right, less=~right) for name, values in same.items()
        },
        "by_label": {name: _means(split, resampling, where=where) for name, where in labels.items()},
        "by_content": {name: _means(split, resampling, where=where) for name, where in contents.items()},
    }


def _means(values: Mapping[str, Values], resampling: Resampling, *, where: Flags | None = None) -> dict[str, Estimate]:
    return {name: resampling.mean(column, where=where) for name, column in values.items()}


def _top(maps: Maps, share: float) -> Values:
    """Return the membership of each cell in the highest cells: (n, cells) in [0, 1], a fraction for ties."""
    flat = maps.reshape(len(maps), -1)
    places = _count(flat.shape[1], share)
    last = np.partition(flat, -places, axis=1)[:, -places, None]
    above, level = flat > last, flat == last
    left = places - above.sum(axis=1, keepdims=True)
    return np.asarray(above + level * (left / level.sum(axis=1, keepdims=True)))


def _count(cells: int, share: float) -> int:
    return max(1, round(share * cells))


def _centred(maps: Maps) -> Values:
    flat = maps.reshape(len(maps), -1).astype(np.float64)
    return np.asarray(flat - flat.mean(axis=1, keepdims=True))


def _windows(maps: Maps) -> Values:
    views = np.lib.stride_tricks.sliding_window_view(maps.astype(np.float64), (SSIM_WINDOW,) * 2, axis=(1, 2))
    return views.reshape(len(maps), -1, SSIM_WINDOW**2)


def _centre(maps: Maps) -> Values:
    mass = maps.sum(axis=(1, 2), keepdims=True)
    with np.errstate(invalid="ignore"):  # 0 / 0 for an empty map
        weights = maps / mass
    rows, columns = (np.arange(side) for side in maps.shape[1:])
    return np.stack([(weights.sum(axis=2) * rows).sum(axis=1), (weights.sum(axis=1) * columns).sum(axis=1)], axis=1)
