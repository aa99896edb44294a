"""Does the verdict hang on what a map calls important? Deletion and insertion for each model and method."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from tqdm.auto import tqdm

from realfake_hf.explain.agreement import centre_gaussian
from realfake_hf.explain.faithfulness import Curves, Trial, begin, order_of, step_cells, trace
from realfake_hf.explain.fills import FILLS, Fill
from realfake_hf.measure.resampling import Mean, Resampling
from realfake_hf.study.grid import GRID, maps_on_grid
from realfake_hf.study.sample import Sample
from realfake_hf.study.subjects import Subject

RANDOM_ORDER: Final = "random_order"
CENTRE_PRIOR: Final = "centre_prior"

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Faithfulness:
    """What one order of the cells makes of the verdict, with one fill.

    Attributes:
        deletion: mean area under the deletion curve; low is faithful.
        insertion: mean area under the insertion curve; high is faithful.
        deletion_gain: deletion less that of the same picture in random order, below 0 where the map knows something;
            None for random order itself.
        insertion_gain: insertion less that in random order, above 0 where the map knows something.
        deletion_curve: (steps + 1) mean probability of the first verdict, from whole to hidden.
        insertion_curve: (steps + 1) the same, from hidden to whole.
    """

    deletion: Mean
    insertion: Mean
    deletion_gain: Mean | None
    insertion_gain: Mean | None
    deletion_curve: tuple[float | None, ...]
    insertion_curve: tuple[float | None, ...]


@dataclass(frozen=True)
class FaithfulnessStudy:
    """Deletion and insertion of each model, by order and fill.

    Attributes:
        n: pictures.
        grid: cells that are hidden, as height and width.
        shares: (steps + 1) of the cells hidden, or shown, at each point of the curves.
        random_orders: how many were drawn for each picture; each counts forward and backward.
        seed: of all draws.
        found: by the model's name, then by the order's (a method, `random_order`, `centre_prior`), then by the fill.
    """

    n: int
    grid: tuple[int, int]
    shares: tuple[float, ...]
    random_orders: int
    seed: int
    found: Mapping[str, Mapping[str, Mapping[str, Faithfulness]]]

    def to_dict(self) -> dict[str, Any]:
        """Give plain values."""
        return asdict(self)


def measure_faithfulness(
    subjects: Sequence[Subject],
    sample: Sample,
    *,
    n: int,
    samples: int = 1000,
    seed: int = 0,
    steps: int = 8,
    grid: tuple[int, int] = GRID,
    random_orders: int = 2,
) -> FaithfulnessStudy:
    """Hide and show the cells of pictures in the order of each map, in random order, and from the centre outward.

    Args:
        subjects: the models; each is asked about the verdict that it gave itself.
        sample: where the pictures come from.
        n: of them, at most.
        samples: bootstrap replicates.
        seed: of ties, random orders and the bootstrap.
        steps: in which the cells are hidden.
        grid: cells, as height and width.
        random_orders: how many are drawn for each picture; each is read forward and backward.

    Raises:
        ValueError: no steps, more of them than cells, or no random order to compare with.
    """
    if random_orders < 1:
        raise ValueError(f"wanted one random order or more, to compare with; found {random_orders}.")
    counts = step_cells(grid, steps=steps)  # refuses before the first picture is explained
    drawn = sample.take(n)
    resampling = drawn.resampling(samples=samples, seed=seed)
    traced = {
        subject.name: _trace_all(
            subject, drawn.pictures, grid=grid, steps=steps, random_orders=random_orders, seed=seed
        )
        for subject in subjects
    }
    return FaithfulnessStudy(
        n=len(drawn),
        grid=grid,
        shares=tuple((counts / counts[-1]).tolist()),
        random_orders=random_orders,
        seed=seed,
        found={
            subject: {
                name: {fill: _summed(one, curves[RANDOM_ORDER][fill], resampling) for fill, one in by_fill.items()}
                for name, by_fill in curves.items()
            }
            for subject, curves in traced.items()
        },
    )


def _trace_all(
    subject: Subject, pictures: NDArray[np.uint8], *, grid: tuple[int, int], steps: int, random_orders: int, seed: int
) -> dict[str, dict[Fill, Curves]]:
    """Trace every order with every fill: by the order's name, then by the fill."""
    trials = [begin(pictures, score=subject.probabilities, fill=fill) for fill in FILLS]
    seeds = range(seed, seed + random_orders)
    names = (RANDOM_ORDER, CENTRE_PRIOR, *subject.methods)
    found: dict[str, dict[Fill, Curves]] = {}
    for name in tqdm(names, desc=f"{subject.name}: deletion and insertion", unit="order", disable=None):
        if name == RANDOM_ORDER:
            found[name] = {trial.fill: _at_random(trial, grid=grid, steps=steps, seeds=seeds) for trial in trials}
            continue
        maps = _maps(subject, pictures, name, grid=grid)
        found[name] = {trial.fill: _along(trial, maps, steps=steps, seed=seed) for trial in trials}
    return found


def _maps(subject: Subject, pictures: NDArray[np.uint8], name: str, *, grid: tuple[int, int]) -> Values:
    if name == CENTRE_PRIOR:
        return np.repeat(centre_gaussian(grid)[None], len(pictures), axis=0)
    return maps_on_grid(subject, pictures, name, grid=grid)


def _along(trial: Trial, maps: Values, *, steps: int, seed: int) -> Curves:
    """Trace the orders of maps, (n, *grid); the curves of a picture whose map is empty, NaN, are NaN."""
    curves = trace(trial, order_of(maps, seed=seed), grid=maps.shape[1:], steps=steps)
    void = np.isnan(maps[:, :1, 0])
    return replace(
        curves, deletion=np.where(void, np.nan, curves.deletion), insertion=np.where(void, np.nan, curves.insertion)
    )


def _at_random(trial: Trial, *, grid: tuple[int, int], steps: int, seeds: Iterable[int]) -> Curves:
    """Average the curves of random orders: insertion in one is deletion in its reverse, which is as random."""
    constant = np.zeros((len(trial.pictures), *grid))
    traced = [_along(trial, constant, steps=steps, seed=seed) for seed in seeds]
    deletion = np.mean([(one.deletion + one.insertion[:, ::-1]) / 2 for one in traced], axis=0)
    return Curves(traced[0].shares, deletion=deletion, insertion=deletion[:, ::-1])


def _summed(curves: Curves, chance: Curves, resampling: Resampling) -> Faithfulness:
    paired = curves is not chance
    return Faithfulness(
        deletion=resampling.mean(curves.deletion_auc),
        insertion=resampling.mean(curves.insertion_auc),
        deletion_gain=resampling.mean(curves.deletion_auc - chance.deletion_auc) if paired else None,
        insertion_gain=resampling.mean(curves.insertion_auc - chance.insertion_auc) if paired else None,
        deletion_curve=tuple(resampling.mean(step).value for step in curves.deletion.T),
        insertion_curve=tuple(resampling.mean(step).value for step in curves.insertion.T),
    )
