"""Deletion and insertion (Petsiuk et al., 2018, *RISE*, BMVC): does the verdict depend on what a map highlights?

Cells of a grid are hidden, or shown in a filled image, in the order of a map. No fill is neutral, so a curve is only
meaningful beside another one with the same fill: that of a random order, or of a map that always highlights the
centre.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from tqdm.auto import tqdm

from realfake_hf.estimate import Estimate, to_plain
from realfake_hf.explain_study.agreement import centre_gaussian
from realfake_hf.explain_study.maps import GRID, StudyModel, Values, maps_on_grid
from realfake_hf.explain_study.occlusion import FILLS, Fill, fill_in, filled
from realfake_hf.explain_study.sample import Sample
from realfake_hf.metrics.intervals import Resampling

RANDOM_ORDER: Final = "random order"
CENTRE_PRIOR: Final = "centre prior"

Images = NDArray[np.uint8]
Orders = NDArray[np.intp]
Score = Callable[[Images], NDArray[np.floating]]


@dataclass(frozen=True, eq=False)
class Trial:
    """Images scored intact and with everything hidden: the two ends of the curves of every order.

    Attributes:
        images: (n, height, width, 3) uint8 [0, 255].
        fill: what replaces hidden pixels.
        score: returns `p_fake` of images, (n,) in [0, 1].
        called_fake: (n,) the verdict on the intact image, whose probability the curves follow.
        intact: (n,) the probability of this verdict with nothing hidden.
        hidden: (n,) the same with everything hidden.
    """

    images: Images
    fill: Fill
    score: Score
    called_fake: NDArray[np.bool_]
    intact: Values
    hidden: Values


@dataclass(frozen=True, eq=False)
class Curves:
    """The probability of the original verdict while cells are hidden or shown, the highest first.

    Attributes:
        shares: (steps + 1,) of the cells that are hidden, or shown, from 0 to 1.
        deletion: (n, steps + 1) in [0, 1], from the intact image to the hidden one. Low curves are faithful.
        insertion: (n, steps + 1) in [0, 1], from the hidden image to the intact one. High curves are faithful.
    """

    shares: Values
    deletion: Values
    insertion: Values

    @property
    def deletion_auc(self) -> Values:
        """Area under each deletion curve by the trapezoid rule: (n,) in [0, 1]."""
        return np.asarray(np.trapezoid(self.deletion, self.shares, axis=1))

    @property
    def insertion_auc(self) -> Values:
        """Area under each insertion curve by the trapezoid rule: (n,) in [0, 1]."""
        return np.asarray(np.trapezoid(self.insertion, self.shares, axis=1))


@dataclass(frozen=True)
class Faithfulness:
    """Deletion and insertion in the order of one map, with one fill.

    Attributes:
        deletion: mean area under the deletion curve; low is faithful.
        insertion: mean area under the insertion curve; high is faithful.
        deletion_less_random: deletion minus that of the same image in random order, below 0 for an informative map;
            None for random order itself.
        insertion_less_random: insertion minus that in random order, above 0 for an informative map.
        deletion_curve: (steps + 1) mean probability of the original verdict, from intact to hidden.
        insertion_curve: (steps + 1) the same, from hidden to intact.
    """

    deletion: Estimate
    insertion: Estimate
    deletion_less_random: Estimate | None
    insertion_less_random: Estimate | None
    deletion_curve: tuple[float | None, ...]
    insertion_curve: tuple[float | None, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values; random order lacks the two differences."""
        return {name: value for name, value in to_plain(self).items() if value is not None}


@dataclass(frozen=True)
class FaithfulnessStudy:
    """Deletion and insertion of each model, by fill and order.

    Attributes:
        n: images.
        steps: in which all cells are hidden, or shown.
        random_orders: number per image; each counts forward and backward.
        models: by the model's name, then by fill, then by order: a method, `RANDOM_ORDER` or `CENTRE_PRIOR`.
    """

    n: int
    steps: int
    random_orders: int
    models: Mapping[str, Mapping[Fill, Mapping[str, Faithfulness]]]

    def to_dict(self) -> dict[str, Any]:
        """Return plain numbers and dictionaries."""
        return {
            "n": self.n,
            "grid": list(GRID),
            "steps": self.steps,
            "random_orders": self.random_orders,
            "fills": list(FILLS),
            "models": {
                model: {
                    fill: {name: order.to_dict() for name, order in by_name.items()} for fill, by_name in fills.items()
                }
                for model, fills in self.models.items()
            },
        }


def measure_faithfulness(
    models: Sequence[StudyModel],
    sample: Sample,
    *,
    n: int,
    samples: int = 1000,
    seed: int = 0,
    steps: int = 8,
    random_orders: int = 2,
) -> FaithfulnessStudy:
    """Hide and show the cells of images in the order of each map, in random order, and from the centre outwards.

    Args:
        models: each is scored on its own verdicts.
        sample: the source of the images.
        n: maximum number of images.
        samples: bootstrap replicates.
        seed: of ties, random orders and the bootstrap.
        steps: in which the cells are hidden.
        random_orders: number per image; each is read forward and backward.

    Raises:
        ValueError: no steps, more steps than cells, or no random order.
    """
    if random_orders < 1:
        raise ValueError(f"expected at least one random order, as the reference; found {random_orders}.")
    step_cells(GRID, steps=steps)  # fails before the first image is explained
    drawn = sample.take(n)
    resampling = drawn.resampling(samples=samples, seed=seed)
    results: dict[str, dict[Fill, dict[str, Faithfulness]]] = {}
    for model in models:
        traced = _trace_all(model, drawn.images, steps=steps, random_orders=random_orders, seed=seed)
        results[model.name] = {
            fill: {name: _summarize(curves, by_name[RANDOM_ORDER], resampling) for name, curves in by_name.items()}
            for fill, by_name in traced.items()
        }
    return FaithfulnessStudy(n=len(drawn), steps=steps, random_orders=random_orders, models=results)


def begin(images: Images, *, score: Score, fill: Fill) -> Trial:
    """Score images intact and with everything hidden, once for all orders."""
    p_fake = np.asarray(score(images), dtype=np.float64)
    p_hidden = np.asarray(score(filled(images, fill=fill)), dtype=np.float64)
    called_fake = p_fake > 0.5  # noqa: PLR2004 - one half
    intact, hidden = (_of_verdict(p, called_fake) for p in (p_fake, p_hidden))
    return Trial(images, fill, score, called_fake, intact, hidden)


def trace(trial: Trial, orders: Orders, *, grid: tuple[int, int], steps: int) -> Curves:
    """Hide and show the cells of each image in its order.

    Args:
        trial: the images.
        orders: (n, cells) cell indices of each image in row-major order; the first is hidden first.
        grid: cells, as height and width.
        steps: in which all cells are hidden; of sizes as equal as possible.

    Raises:
        ValueError: no steps, or more steps than cells.
    """
    counts = step_cells(grid, steps=steps)
    places = np.argsort(orders, axis=1).reshape(-1, *grid)  # of each cell in the order of its image
    deletion = [_score_hidden(trial, places < count) for count in counts[1:-1]]
    insertion = [_score_hidden(trial, places >= count) for count in counts[1:-1]]
    return Curves(
        shares=counts / counts[-1],
        deletion=np.stack([trial.intact, *deletion, trial.hidden], axis=1),
        insertion=np.stack([trial.hidden, *insertion, trial.intact], axis=1),
    )


def order_of(maps: NDArray[np.floating], *, seed: int) -> Orders:
    """Order the cells of maps, (n, height, width), the highest first: (n, cells). Ties are broken at random."""
    flat = maps.reshape(len(maps), -1)
    ties = np.random.default_rng(seed).random(flat.shape)
    return np.lexsort((ties, -flat), axis=1)


def step_cells(grid: tuple[int, int], *, steps: int) -> NDArray[np.intp]:
    """Return the number of hidden, or shown, cells at each point of a curve: (steps + 1,) from none to all.

    Raises:
        ValueError: no steps, or more steps than cells.
    """
    cells = grid[0] * grid[1]
    if not 1 <= steps <= cells:
        raise ValueError(f"expected between 1 and {cells} steps, of one cell or more each; found {steps}.")
    return np.rint(np.linspace(0, cells, steps + 1)).astype(np.intp)


def _trace_all(
    model: StudyModel, images: Images, *, steps: int, random_orders: int, seed: int
) -> dict[Fill, dict[str, Curves]]:
    """Trace every order with every fill: by fill, then by the name of the order."""
    trials = [begin(images, score=model.probabilities, fill=fill) for fill in FILLS]
    seeds = range(seed, seed + random_orders)
    traced: dict[Fill, dict[str, Curves]] = {
        trial.fill: {RANDOM_ORDER: _trace_random(trial, steps=steps, seeds=seeds)} for trial in trials
    }
    names = (CENTRE_PRIOR, *model.methods)
    for name in tqdm(names, desc=f"{model.name}: deletion and insertion", unit="order", disable=None):
        maps = _maps(model, images, name)
        for trial in trials:
            traced[trial.fill][name] = _trace_maps(trial, maps, steps=steps, seed=seed)
    return traced


def _maps(model: StudyModel, images: Images, name: str) -> Values:
    if name == CENTRE_PRIOR:
        return np.repeat(centre_gaussian()[None], len(images), axis=0)
    return maps_on_grid(model, images, name)


def _trace_maps(trial: Trial, maps: Values, *, steps: int, seed: int) -> Curves:
    """Trace the orders of maps, (n, *GRID); the curves of images with an empty map (NaN) are NaN."""
    curves = trace(trial, order_of(maps, seed=seed), grid=GRID, steps=steps)
    undefined = np.isnan(maps[:, :1, 0])
    deletion, insertion = (np.where(undefined, np.nan, curve) for curve in (curves.deletion, curves.insertion))
    return replace(curves, deletion=deletion, insertion=insertion)


def _trace_random(trial: Trial, *, steps: int, seeds: Iterable[int]) -> Curves:
    """Average the curves of random orders: insertion in one is deletion in its reverse, which is as random."""
    constant = np.zeros((len(trial.images), *GRID))
    traced = [_trace_maps(trial, constant, steps=steps, seed=seed) for seed in seeds]
    deletion = np.mean([(curves.deletion + curves.insertion[:, ::-1]) / 2 for curves in traced], axis=0)
    return Curves(traced[0].shares, deletion=deletion, insertion=deletion[:, ::-1])


def _summarize(curves: Curves, random: Curves, resampling: Resampling) -> Faithfulness:
    paired = curves is not random
    return Faithfulness(
        deletion=resampling.mean(curves.deletion_auc),
        insertion=resampling.mean(curves.insertion_auc),
        deletion_less_random=resampling.mean(curves.deletion_auc - random.deletion_auc) if paired else None,
        insertion_less_random=resampling.mean(curves.insertion_auc - random.insertion_auc) if paired else None,
        deletion_curve=tuple(resampling.mean(step).value for step in curves.deletion.T),
        insertion_curve=tuple(resampling.mean(step).value for step in curves.insertion.T),
    )


def _score_hidden(trial: Trial, cells: NDArray[np.bool_]) -> Values:
    """Score the images with some cells hidden, (n, *grid): (n,) the probability of the original verdict."""
    hidden = _to_pixels(cells, trial.images.shape[1:3])
    p_fake = np.asarray(trial.score(fill_in(trial.images, hidden, fill=trial.fill)), dtype=np.float64)
    return _of_verdict(p_fake, trial.called_fake)


def _to_pixels(cells: NDArray[np.bool_], size: tuple[int, ...]) -> NDArray[np.bool_]:
    rows, columns = (np.arange(side) * count // side for side, count in zip(size, cells.shape[1:], strict=True))
    return cells[:, rows[:, None], columns]


def _of_verdict(p_fake: Values, called_fake: NDArray[np.bool_]) -> Values:
    return np.where(called_fake, p_fake, 1 - p_fake)
