"""Deletion and insertion (Petsiuk et al., 2018, *RISE*, BMVC): does the prediction depend on what a map highlights?

Cells of a grid are hidden, or shown in a filled image, in the order of a map. No fill is neutral, so a curve is only
meaningful beside another one with the same fill: that of a random order, or of a map that always highlights the
centre. Fidelity (`fidelity.py`) asks the same of a model that was fine-tuned on hidden cells.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from tqdm.auto import tqdm

from realfake_hf.estimate import to_plain
from realfake_hf.explain_study.fidelity import DRAWS, SPARSITIES, Hardened, measure_fidelity
from realfake_hf.explain_study.maps import GRID, Images, Plain, Sample, StudyModel, Values
from realfake_hf.explain_study.names import RANDOM_ORDER
from realfake_hf.explain_study.rankings import compare_tests
from realfake_hf.explain_study.trials import (
    FILLS,
    RANDOM_ORDERS,
    Fill,
    Orders,
    Trial,
    correct_summaries,
    is_undefined,
    maps_to_test,
    order_of,
    seeds_of,
    summarize,
)
from realfake_hf.metrics.intervals import Resampling

STEPS: Final = 8  # in which all cells are hidden, or shown


@dataclass(frozen=True, eq=False)
class Curves:
    """The probability of the original prediction while cells are hidden or shown, the highest first."""

    shares: Values  # (steps + 1,) share of the cells that are hidden, or shown, from 0 to 1
    deletion: Values  # (n, steps + 1) in [0, 1], from the intact image to the hidden one. Low curves are faithful
    insertion: Values  # (n, steps + 1) in [0, 1], from the hidden image to the intact one. High curves are faithful

    @property
    def areas(self) -> dict[str, Values]:
        """The area under each `deletion` and `insertion` curve by the trapezoid rule: (n,) in [0, 1]."""
        curves = {"deletion": self.deletion, "insertion": self.insertion}
        return {test: np.asarray(np.trapezoid(curve, self.shares, axis=1)) for test, curve in curves.items()}


def measure_faithfulness(
    models: Sequence[StudyModel],
    sample: Sample,
    *,
    hardened: Sequence[Hardened] = (),
    samples: int = 1000,
    seed: int = 0,
) -> Plain:
    """Hide and show the cells of images in the order of each map, in random order, and from the centre outwards.

    Each model is tested on its own predictions. The seed is that of ties, random orders, the noise of a fill, the
    cells that fidelity removes, and the bootstrap. The result is plain JSON: the settings; for each of the `models`,
    by fill and by order (a method, `RANDOM_ORDER` or `CENTRE_PRIOR`), the mean areas and curves; by model the
    `rankings` of its methods, see `compare_tests`, and if it has a `hardened` copy of its name, their `fidelity`, see
    `measure_fidelity`. The p-values of all differences of areas to random order are one family, those to the centre
    prior another; those of fidelity are two others.
    """
    resampling = sample.resampling(samples=samples, seed=seed)
    copies = {copy.model.name: copy for copy in hardened}
    measured: Plain = {
        "n": len(sample), "grid": GRID, "steps": STEPS, "random_orders": RANDOM_ORDERS, "fills": FILLS,
        "sparsities": SPARSITIES, "draws": DRAWS, "models": {}, "fidelity": {}, "rankings": {},
    }  # fmt: skip
    for model in models:
        maps = maps_to_test(model, sample.images)
        traced = _trace_all(model, sample.images, maps, seed=seed)
        measured["models"][model.name] = {fill: _summarize(curves, resampling) for fill, curves in traced.items()}
        tests = _scores(traced)
        if copy := copies.get(model.name):
            found, scores = measure_fidelity(model, copy, sample.images, maps, resampling, seed=seed)
            measured["fidelity"][model.name] = found
            tests |= scores
        of_methods = {test: {name: scores[name] for name in model.methods} for test, scores in tests.items()}
        measured["rankings"][model.name] = compare_tests(of_methods, resampling)
    measured = to_plain(measured)
    by_fill = [by_name for fills in measured["models"].values() for by_name in fills.values()]
    correct_summaries([order for by_name in by_fill for order in by_name.values()])
    correct_summaries([order for tested in measured["fidelity"].values() for order in tested["orders"].values()])
    return measured


def trace(trial: Trial, orders: Orders, *, grid: tuple[int, int], steps: int) -> Curves:
    """Hide and show the cells of each image in its order, in steps as equal in size as possible.

    The orders, (n, cells), are indices of a grid (height, width) in row-major order; the first cell is hidden first.
    """
    cells = grid[0] * grid[1]
    counts = np.rint(np.linspace(0, cells, steps + 1)).astype(np.intp)  # hidden cells at each point of a curve
    places = np.argsort(orders, axis=1).reshape(-1, *grid)  # of each cell in the order of its image
    deletion = [trial.score_hidden(places < count) for count in counts[1:-1]]
    insertion = [trial.score_hidden(places >= count) for count in counts[1:-1]]
    return Curves(
        shares=counts / cells,
        deletion=np.stack([trial.intact, *deletion, trial.hidden], axis=1),
        insertion=np.stack([trial.hidden, *insertion, trial.intact], axis=1),
    )


def _trace_all(
    model: StudyModel, images: Images, maps: Mapping[str, Values], *, seed: int
) -> dict[Fill, dict[str, Curves]]:
    """Trace the order of every map with every fill: by fill, then by the name of the order."""
    trials = [Trial(images, score=model.probabilities, fill=fill, seed=seed) for fill in FILLS]
    traced: dict[Fill, dict[str, Curves]] = {fill: {} for fill in FILLS}
    for name in tqdm(maps, desc=f"{model.name}: deletion and insertion", unit="order", disable=None):
        for trial in trials:
            several = [_trace_maps(trial, maps[name], seed=each) for each in seeds_of(name, seed)]
            traced[trial.fill][name] = _average_random(several) if name == RANDOM_ORDER else several[0]
    return traced


def _trace_maps(trial: Trial, maps: Values, *, seed: int) -> Curves:
    """Trace the orders of maps, (n, *GRID); the curves of images with an empty map (NaN) are NaN."""
    curves = trace(trial, order_of(maps, seed=seed), grid=GRID, steps=STEPS)
    undefined = is_undefined(maps)[:, None]
    deletion, insertion = (np.where(undefined, np.nan, curve) for curve in (curves.deletion, curves.insertion))
    return replace(curves, deletion=deletion, insertion=insertion)


def _average_random(traced: Sequence[Curves]) -> Curves:
    """Average the curves of random orders: insertion in one is deletion in its reverse, which is as random."""
    deletion = np.mean([(curves.deletion + curves.insertion[:, ::-1]) / 2 for curves in traced], axis=0)
    return Curves(traced[0].shares, deletion=deletion, insertion=deletion[:, ::-1])


def _summarize(by_name: Mapping[str, Curves], resampling: Resampling) -> dict[str, Plain]:
    """Average the areas, with their differences to the references, and the curves of each order."""
    means = summarize({name: curves.areas for name, curves in by_name.items()}, resampling)
    return {
        name: means[name]
        | {
            f"{test}_curve": [resampling.mean(values).value for values in curve.T]
            for test, curve in (("deletion", curves.deletion), ("insertion", curves.insertion))
        }
        for name, curves in by_name.items()
    }


def _scores(traced: Mapping[Fill, Mapping[str, Curves]]) -> dict[str, dict[str, Values]]:
    """Return the area of each image, (n,) by test and by order, with the sign by which more is more faithful."""
    signs = {"deletion": -1, "insertion": 1}
    return {
        f"{test}, {fill}": {name: sign * curves.areas[test] for name, curves in by_name.items()}
        for test, sign in signs.items()
        for fill, by_name in traced.items()
    }
