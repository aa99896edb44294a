"""Does the verdict hang on what a map calls important? Deletion and insertion for each model and method."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from tqdm.auto import tqdm

from realfake_hf.estimate import Estimate, to_plain
from realfake_hf.explain_study.agreement import GRID
from realfake_hf.explain_study.fills import FILLS, Fill
from realfake_hf.explain_study.grid import maps_on_grid
from realfake_hf.explain_study.hiding import Curves, Trial, begin, order_of, step_cells, trace
from realfake_hf.explain_study.map_agreement import centre_gaussian
from realfake_hf.explain_study.sample import Sample
from realfake_hf.explain_study.subjects import Subject
from realfake_hf.metrics.intervals import Resampling

RANDOM_ORDER: Final = "random order"
CENTRE_PRIOR: Final = "centre prior"

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Faithfulness:
    """What one order of the cells makes of the verdict, with one fill.

    Attributes:
        deletion: mean area under the deletion curve; low is faithful.
        insertion: mean area under the insertion curve; high is faithful.
        deletion_less_random: deletion less that of the same picture in random order, below 0 where the map knows
            something; None for random order itself.
        insertion_less_random: insertion less that in random order, above 0 where the map knows something.
        deletion_curve: (steps + 1) mean probability of the first verdict, from whole to hidden.
        insertion_curve: (steps + 1) the same, from hidden to whole.
    """

    deletion: Estimate
    insertion: Estimate
    deletion_less_random: Estimate | None
    insertion_less_random: Estimate | None
    deletion_curve: tuple[float | None, ...]
    insertion_curve: tuple[float | None, ...]

    def to_dict(self) -> dict[str, Any]:
        """Give plain values; random order has none of the two differences."""
        plain = {name: value for name, value in to_plain(self).items() if value is not None}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in plain.items()}


@dataclass(frozen=True)
class FaithfulnessStudy:
    """Deletion and insertion of each model, by order and fill.

    Attributes:
        n: pictures.
        steps: in which all cells are hidden, or shown.
        random_orders: how many were drawn for each picture; each counts forward and backward.
        models: by the model's name, then by the fill, then by the order's name: a method, "random order" or "centre
            prior".
    """

    n: int
    steps: int
    random_orders: int
    models: Mapping[str, Mapping[Fill, Mapping[str, Faithfulness]]]

    def to_dict(self) -> dict[str, Any]:
        """Give plain numbers and dictionaries."""
        return {
            "n": self.n,
            "grid": list(GRID),
            "steps": self.steps,
            "random_orders": self.random_orders,
            "fills": list(FILLS),
            "models": {
                model: {fill: {name: one.to_dict() for name, one in found.items()} for fill, found in fills.items()}
                for model, fills in self.models.items()
            },
        }


def measure_faithfulness(
    subjects: Sequence[Subject],
    sample: Sample,
    *,
    n: int,
    samples: int = 1000,
    seed: int = 0,
    steps: int = 8,
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
        random_orders: how many are drawn for each picture; each is read forward and backward.

    Raises:
        ValueError: no steps, more of them than cells, or no random order to compare with.
    """
    if random_orders < 1:
        raise ValueError(f"wanted one random order or more, to compare with; found {random_orders}.")
    step_cells(GRID, steps=steps)  # refuses before the first picture is explained
    drawn = sample.take(n)
    resampling = drawn.resampling(samples=samples, seed=seed)
    models: dict[str, dict[Fill, dict[str, Faithfulness]]] = {}
    for subject in subjects:
        traced = _trace_all(subject, drawn.pictures, steps=steps, random_orders=random_orders, seed=seed)
        models[subject.name] = {
            fill: {name: _summed(one, curves[RANDOM_ORDER], resampling) for name, one in curves.items()}
            for fill, curves in traced.items()
        }
    return FaithfulnessStudy(n=len(drawn), steps=steps, random_orders=random_orders, models=models)


def _trace_all(
    subject: Subject, pictures: NDArray[np.uint8], *, steps: int, random_orders: int, seed: int
) -> dict[Fill, dict[str, Curves]]:
    """Trace every order with every fill: by the fill, then by the order's name."""
    trials = [begin(pictures, score=subject.probabilities, fill=fill) for fill in FILLS]
    seeds = range(seed, seed + random_orders)
    found: dict[Fill, dict[str, Curves]] = {
        trial.fill: {RANDOM_ORDER: _at_random(trial, steps=steps, seeds=seeds)} for trial in trials
    }
    names = (CENTRE_PRIOR, *subject.methods)
    for name in tqdm(names, desc=f"{subject.name}: deletion and insertion", unit="order", disable=None):
        maps = _maps(subject, pictures, name)
        for trial in trials:
            found[trial.fill][name] = _along(trial, maps, steps=steps, seed=seed)
    return found


def _maps(subject: Subject, pictures: NDArray[np.uint8], name: str) -> Values:
    if name == CENTRE_PRIOR:
        return np.repeat(centre_gaussian(GRID)[None], len(pictures), axis=0)
    return maps_on_grid(subject, pictures, name)


def _along(trial: Trial, maps: Values, *, steps: int, seed: int) -> Curves:
    """Trace the orders of maps, (n, *GRID); the curves of a picture whose map is empty, NaN, are NaN."""
    curves = trace(trial, order_of(maps, seed=seed), grid=GRID, steps=steps)
    void = np.isnan(maps[:, :1, 0])
    return replace(
        curves, deletion=np.where(void, np.nan, curves.deletion), insertion=np.where(void, np.nan, curves.insertion)
    )


def _at_random(trial: Trial, *, steps: int, seeds: Iterable[int]) -> Curves:
    """Average the curves of random orders: insertion in one is deletion in its reverse, which is as random."""
    constant = np.zeros((len(trial.pictures), *GRID))
    traced = [_along(trial, constant, steps=steps, seed=seed) for seed in seeds]
    deletion = np.mean([(one.deletion + one.insertion[:, ::-1]) / 2 for one in traced], axis=0)
    return Curves(traced[0].shares, deletion=deletion, insertion=deletion[:, ::-1])


def _summed(curves: Curves, chance: Curves, resampling: Resampling) -> Faithfulness:
    paired = curves is not chance
    return Faithfulness(
        deletion=resampling.mean(curves.deletion_auc),
        insertion=resampling.mean(curves.insertion_auc),
        deletion_less_random=resampling.mean(curves.deletion_auc - chance.deletion_auc) if paired else None,
        insertion_less_random=resampling.mean(curves.insertion_auc - chance.insertion_auc) if paired else None,
        deletion_curve=tuple(resampling.mean(step).value for step in curves.deletion.T),
        insertion_curve=tuple(resampling.mean(step).value for step in curves.insertion.T),
    )
