"""Deletion and insertion (Petsiuk et al., 2018, *RISE*, BMVC): does the prediction depend on what a map highlights?

Cells of a grid are hidden, or shown in a filled image, in the order of a map. No fill is neutral, so a curve is only
meaningful beside another one with the same fill: that of a random order, or of a map that always highlights the
centre.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray
from tqdm.auto import tqdm

from realfake_hf.estimate import to_plain
from realfake_hf.explain_study.agreement import centre_gaussian
from realfake_hf.explain_study.maps import GRID, Images, Plain, Sample, StudyModel, Values, maps_on_grid
from realfake_hf.explain_study.names import CENTRE_PRIOR, RANDOM_ORDER
from realfake_hf.explain_study.occlusion import FILLS, Fill, fill_in, filled
from realfake_hf.metrics.intervals import Resampling
from realfake_hf.metrics.significance import correct_differences

STEPS: Final = 8  # in which all cells are hidden, or shown
DIFFERENCES: Final = ("deletion_less_random", "insertion_less_random")
RANDOM_ORDERS: Final = 2  # per image; each is read forward and backward

Orders = NDArray[np.intp]
Score = Callable[[Images], NDArray[np.floating]]


class Trial:
    """Images scored intact and with everything hidden, once: the two ends of the curves of every order.

    Args:
        images: (n, height, width, 3) uint8 [0, 255].
        score: function that returns `p_fake` of images, (n,) in [0, 1].
        fill: replacement of hidden pixels.
    """

    def __init__(self, images: Images, *, score: Score, fill: Fill) -> None:
        self.images, self.fill, self._score = images, fill, score
        p_fake = np.asarray(score(images), dtype=np.float64)
        self.called_fake = p_fake > 0.5  # noqa: PLR2004 - (n,) predictions; the curves follow their probability
        self.intact = np.where(self.called_fake, p_fake, 1 - p_fake)  # (n,) with nothing hidden
        self.hidden = self.probabilities(filled(images, fill=fill))  # (n,) with everything hidden

    def probabilities(self, images: Images) -> Values:
        """Return the probability of the predictions on the intact images in changed images: (n,)."""
        p_fake = np.asarray(self._score(images), dtype=np.float64)
        return np.where(self.called_fake, p_fake, 1 - p_fake)


@dataclass(frozen=True, eq=False)
class Curves:
    """The probability of the original prediction while cells are hidden or shown, the highest first."""

    shares: Values  # (steps + 1,) share of the cells that are hidden, or shown, from 0 to 1
    deletion: Values  # (n, steps + 1) in [0, 1], from the intact image to the hidden one. Low curves are faithful
    insertion: Values  # (n, steps + 1) in [0, 1], from the hidden image to the intact one. High curves are faithful

    @property
    def deletion_auc(self) -> Values:
        """Area under each deletion curve by the trapezoid rule: (n,) in [0, 1]."""
        return np.asarray(np.trapezoid(self.deletion, self.shares, axis=1))

    @property
    def insertion_auc(self) -> Values:
        """Area under each insertion curve by the trapezoid rule: (n,) in [0, 1]."""
        return np.asarray(np.trapezoid(self.insertion, self.shares, axis=1))


def measure_faithfulness(models: Sequence[StudyModel], sample: Sample, *, samples: int = 1000, seed: int = 0) -> Plain:
    """Hide and show the cells of images in the order of each map, in random order, and from the centre outwards.

    Each model is tested on its own predictions. The seed is that of ties, random orders and the bootstrap. The result
    is plain JSON: the settings, and for each of the `models`, by fill and by order (a method, `RANDOM_ORDER` or
    `CENTRE_PRIOR`), the mean areas and curves. The p-values of all differences to random order are corrected together.
    """
    resampling = sample.resampling(samples=samples, seed=seed)
    results = {}
    for model in models:
        traced = _trace_all(model, sample.images, seed=seed)
        results[model.name] = {
            fill: {name: _summarize(curves, by_name[RANDOM_ORDER], resampling) for name, curves in by_name.items()}
            for fill, by_name in traced.items()
        }
    settings = {"n": len(sample), "grid": GRID, "steps": STEPS, "random_orders": RANDOM_ORDERS, "fills": FILLS}
    measured = to_plain(settings | {"models": results})
    orders = [
        order for fills in measured["models"].values() for by_name in fills.values() for order in by_name.values()
    ]
    correct_differences([order[name] for order in orders for name in DIFFERENCES if name in order])
    return measured


def trace(trial: Trial, orders: Orders, *, grid: tuple[int, int], steps: int) -> Curves:
    """Hide and show the cells of each image in its order, in steps as equal in size as possible.

    The orders, (n, cells), are indices of a grid (height, width) in row-major order; the first cell is hidden first.
    """
    cells = grid[0] * grid[1]
    counts = np.rint(np.linspace(0, cells, steps + 1)).astype(np.intp)  # hidden cells at each point of a curve
    places = np.argsort(orders, axis=1).reshape(-1, *grid)  # of each cell in the order of its image
    deletion = [_score_hidden(trial, places < count) for count in counts[1:-1]]
    insertion = [_score_hidden(trial, places >= count) for count in counts[1:-1]]
    return Curves(
        shares=counts / cells,
        deletion=np.stack([trial.intact, *deletion, trial.hidden], axis=1),
        insertion=np.stack([trial.hidden, *insertion, trial.intact], axis=1),
    )


def order_of(maps: NDArray[np.floating], *, seed: int) -> Orders:
    """Order the cells of maps, (n, height, width), the highest first: (n, cells). Ties are broken at random."""
    flat = maps.reshape(len(maps), -1)
    ties = np.random.default_rng(seed).random(flat.shape)
    return np.lexsort((ties, -flat), axis=1)


def _trace_all(model: StudyModel, images: Images, *, seed: int) -> dict[Fill, dict[str, Curves]]:
    """Trace every order with every fill: by fill, then by the name of the order."""
    trials = [Trial(images, score=model.probabilities, fill=fill) for fill in FILLS]
    seeds = range(seed, seed + RANDOM_ORDERS)
    traced: dict[Fill, dict[str, Curves]] = {
        trial.fill: {RANDOM_ORDER: _trace_random(trial, seeds=seeds)} for trial in trials
    }
    names = (CENTRE_PRIOR, *model.methods)
    for name in tqdm(names, desc=f"{model.name}: deletion and insertion", unit="order", disable=None):
        prior = np.repeat(centre_gaussian()[None], len(images), axis=0)
        maps = prior if name == CENTRE_PRIOR else maps_on_grid(model, images, name)
        for trial in trials:
            traced[trial.fill][name] = _trace_maps(trial, maps, seed=seed)
    return traced


def _trace_maps(trial: Trial, maps: Values, *, seed: int) -> Curves:
    """Trace the orders of maps, (n, *GRID); the curves of images with an empty map (NaN) are NaN."""
    curves = trace(trial, order_of(maps, seed=seed), grid=GRID, steps=STEPS)
    undefined = np.isnan(maps[:, :1, 0])
    deletion, insertion = (np.where(undefined, np.nan, curve) for curve in (curves.deletion, curves.insertion))
    return replace(curves, deletion=deletion, insertion=insertion)


def _trace_random(trial: Trial, *, seeds: Iterable[int]) -> Curves:
    """Average the curves of random orders: insertion in one is deletion in its reverse, which is as random."""
    constant = np.zeros((len(trial.images), *GRID))
    traced = [_trace_maps(trial, constant, seed=seed) for seed in seeds]
    deletion = np.mean([(curves.deletion + curves.insertion[:, ::-1]) / 2 for curves in traced], axis=0)
    return Curves(traced[0].shares, deletion=deletion, insertion=deletion[:, ::-1])


def _summarize(curves: Curves, random: Curves, resampling: Resampling) -> Plain:
    """Average the areas and curves; differences to random order are paired by image, and absent for itself."""
    areas = {"deletion": curves.deletion_auc, "insertion": curves.insertion_auc}
    means = {name: resampling.mean(values) for name, values in areas.items()}
    if curves is not random:
        baselines = (random.deletion_auc, random.insertion_auc)
        for name, values, baseline in zip(DIFFERENCES, areas.values(), baselines, strict=True):
            means[name] = resampling.change(values - baseline)
    steps = {"deletion_curve": curves.deletion.T, "insertion_curve": curves.insertion.T}
    return means | {name: [resampling.mean(values).value for values in curve] for name, curve in steps.items()}


def _score_hidden(trial: Trial, cells: NDArray[np.bool_]) -> Values:
    """Score the images with some cells hidden, (n, *grid): (n,) probability of the original prediction."""
    sides = zip(trial.images.shape[1:3], cells.shape[1:], strict=True)
    rows, columns = (np.arange(side) * count // side for side, count in sides)
    return trial.probabilities(fill_in(trial.images, cells[:, rows[:, None], columns], fill=trial.fill))
