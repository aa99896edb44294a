"""What the tests of faithfulness share: orders of cells, images scored with cells hidden, and references."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray
from tqdm.auto import tqdm

from realfake_hf.estimate import Estimate
from realfake_hf.explain_study.agreement import centre_gaussian
from realfake_hf.explain_study.imputation import impute
from realfake_hf.explain_study.maps import GRID, Images, StudyModel, Values, maps_on_grid
from realfake_hf.explain_study.names import CENTRE_PRIOR, RANDOM_ORDER
from realfake_hf.explain_study.occlusion import filled
from realfake_hf.metrics.intervals import Resampling
from realfake_hf.metrics.significance import correct_differences

Fill = Literal["blur", "mean", "linear"]
Flags = NDArray[np.bool_]
Orders = NDArray[np.intp]
Score = Callable[[Images], NDArray[np.floating]]

FILLS: Final[tuple[Fill, ...]] = ("blur", "mean", "linear")
BASELINES: Final = {"random": RANDOM_ORDER, "centre": CENTRE_PRIOR}  # subtracted from the scores of other orders
RANDOM_ORDERS: Final = 2  # per image


class Trial:
    """Images scored intact and with everything hidden, once: the two ends of the curves of every order.

    Args:
        images: (n, height, width, 3) uint8 [0, 255].
        score: function that returns `p_fake` of images, (n,) in [0, 1].
        fill: replacement of hidden pixels; "linear" is noisy linear imputation, see `impute`.
        called_fake: (n,) predictions whose probability is measured; by default those of `score` on the intact images.
        seed: seed of the noise of "linear".
    """

    def __init__(
        self, images: Images, *, score: Score, fill: Fill, called_fake: Flags | None = None, seed: int = 0
    ) -> None:
        self.images, self.fill, self._score = images, fill, score
        self._hide = _filler(images, fill, seed=seed)
        p_fake = np.asarray(score(images), dtype=np.float64)
        self.called_fake = p_fake > 0.5 if called_fake is None else called_fake  # noqa: PLR2004 - one half
        self.intact = self._of_prediction(p_fake)  # (n,) with nothing hidden
        self.hidden = self.score_hidden(np.ones((len(images), 1, 1), dtype=np.bool_))  # (n,) with everything hidden

    def score_hidden(self, cells: Flags) -> Values:
        """Return the probability of the predictions with some cells hidden, (n, *grid): (n,)."""
        sides = zip(self.images.shape[1:3], cells.shape[1:], strict=True)
        rows, columns = (np.arange(side) * count // side for side, count in sides)
        return self._of_prediction(self._score(self._hide(cells[:, rows[:, None], columns])))

    def _of_prediction(self, p_fake: NDArray[np.floating]) -> Values:
        values = np.asarray(p_fake, dtype=np.float64)
        return np.where(self.called_fake, values, 1 - values)


def _filler(images: Images, fill: Fill, *, seed: int) -> Callable[[Flags], Images]:
    """Return a function that replaces the given pixels of the images, (n, height, width)."""
    if fill == "linear":
        return partial(impute, images, seed=seed)
    constant = filled(images, fill=fill)
    return lambda hidden: np.where(hidden[..., None], constant, images)


def order_of(maps: NDArray[np.floating], *, seed: int) -> Orders:
    """Order the cells of maps, (n, height, width), the highest first: (n, cells). Ties are broken at random."""
    flat = maps.reshape(len(maps), -1)
    ties = np.random.default_rng(seed).random(flat.shape)
    return np.lexsort((ties, -flat), axis=1)


def maps_to_test(model: StudyModel, images: Images) -> dict[str, Values]:
    """Return the maps whose orders are tested, (n, *GRID) by name; empty maps are NaN, random order is constant."""
    names = tqdm(model.methods, desc=f"{model.name}: maps", unit="method", disable=None)
    shape = (len(images), *GRID)
    references = {RANDOM_ORDER: np.zeros(shape), CENTRE_PRIOR: np.broadcast_to(centre_gaussian(), shape)}
    return {**references, **{name: maps_on_grid(model, images, name) for name in names}}


def seeds_of(name: str, seed: int) -> range:
    """Return the seeds whose orders represent a map: several for random order."""
    return range(seed, seed + (RANDOM_ORDERS if name == RANDOM_ORDER else 1))


def is_undefined(maps: Values) -> Flags:
    """Return for each map, (n,), whether it is empty (NaN) and thus has no order."""
    return np.isnan(maps[:, 0, 0])


def summarize(scores: Mapping[str, Mapping[str, Values]], resampling: Resampling) -> dict[str, dict[str, Estimate]]:
    """Average scores, (n,) by order and by test, and their differences to `BASELINES`, which are paired by image.

    The difference of the test `deletion` to random order is `deletion_less_random`; random order has no differences,
    and the centre prior none to itself.
    """
    rows = {}
    for name, by_test in scores.items():
        row = {test: resampling.mean(values) for test, values in by_test.items()}
        for short, baseline in BASELINES.items():
            if name not in (RANDOM_ORDER, baseline):
                changes = {test: values - scores[baseline][test] for test, values in by_test.items()}
                row |= {f"{test}_less_{short}": resampling.change(change) for test, change in changes.items()}
        rows[name] = row
    return rows


def correct_summaries(rows: Sequence[Mapping[str, Any]]) -> None:
    """Add `p_holm` to the differences of summaries in plain JSON, in place: one family for each of `BASELINES`."""
    for short in BASELINES:
        correct_differences([gap for row in rows for name, gap in row.items() if name.endswith(f"_less_{short}")])
