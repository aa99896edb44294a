"""Does the verdict hang on what a map calls important? Deletion and insertion for each model and method."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from tqdm.auto import tqdm

from realfake_hf.explain.agreement import centre_gaussian
from realfake_hf.explain.faithfulness import Curves, Orders, Trial, begin, order_of, step_cells, trace
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
        random_orders: how many the random order's values are a mean of.
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
    random_orders: int = 3,
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
        random_orders: how many are drawn for each picture.

    Raises:
        ValueError: no steps, or more than cells.
    """
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
    names = (RANDOM_ORDER, CENTRE_PRIOR, *subject.methods)
    found: dict[str, dict[Fill, Curves]] = {}
    for name in tqdm(names, desc=f"{subject.name}: deletion and insertion", unit="order", disable=None):
        maps = _maps(subject, pictures, name, grid=grid)
        draws = random_orders if name == RANDOM_ORDER else 1
        orders = [order_of(maps, seed=seed + draw) for draw in range(draws)]
        found[name] = {trial.fill: _mean_curves(trial, orders, maps=maps, steps=steps) for trial in trials}
    return found


def _maps(subject: Subject, pictures: NDArray[np.uint8], name: str, *, grid: tuple[int, int]) -> Values:
    """Give the maps that an order follows, (n, *grid): constant for random order, NaN where a method's is empty."""
    if name == RANDOM_ORDER:
        return np.zeros((len(pictures), *grid))
    if name == CENTRE_PRIOR:
        return np.repeat(centre_gaussian(grid)[None], len(pictures), axis=0)
    return maps_on_grid(subject, pictures, name, grid=grid)


def _mean_curves(trial: Trial, orders: Sequence[Orders], *, maps: Values, steps: int) -> Curves:
    """Average the curves of several orders; those of a picture whose map is empty are NaN."""
    traced = [trace(trial, order, grid=maps.shape[1:], steps=steps) for order in orders]
    void = np.isnan(maps[:, :1, 0])
    deletion, insertion = (
        np.where(void, np.nan, np.mean(curves, axis=0))
        for curves in zip(*((one.deletion, one.insertion) for one in traced), strict=True)
    )
    return Curves(traced[0].shares, deletion, insertion)


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
