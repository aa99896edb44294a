"""Is a detector right as often on one group of pictures as on the rest? The gap, its interval, an exact test."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray
from scipy.stats import hypergeom

from realfake_hf.estimate import to_plain

_PERCENTILES: Final = (2.5, 97.5)
_SAME: Final = 1 + 1e-7  # probabilities that differ by less are ties, as in R's fisher.test

Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Gap:
    """How much more often a detector is right inside a group of pictures than outside it.

    Rates are means over the labels that occur on both sides, each label counting the same, so that a group with more
    REAL pictures than the rest is not taken for an easy one.

    Attributes:
        n: pictures inside, of those labels.
        n_rest: pictures outside, of those labels.
        rate: share of right verdicts inside, in [0, 1]; None where no label occurs on both sides.
        rate_rest: the same outside.
        value: `rate` less `rate_rest`, in [-1, 1].
        low: lower end of its 95 % bootstrap interval; None without a bootstrap or a value.
        high: upper end.
        p_value: of the exact test that verdicts are right as often on both sides; 1 where no label occurs on both.
    """

    n: int
    n_rest: int
    rate: float | None
    rate_rest: float | None
    value: float | None
    low: float | None
    high: float | None
    p_value: float

    def __str__(self) -> str:
        if self.value is None:
            return "undefined"
        if self.low is None or self.high is None:
            return f"{100 * self.value:+.1f} points"
        return f"{100 * self.value:+.1f} points ({100 * self.low:+.1f} to {100 * self.high:+.1f})"

    def to_dict(self) -> dict[str, Any]:
        """The gap as plain numbers."""
        return to_plain(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read back what `to_dict` wrote."""
        return cls(**data)


def rate_gap(is_right: Flags, inside: Flags, is_fake: Flags, *, samples: int = 1000, seed: int = 0) -> Gap:
    """Compare how often verdicts are right inside a group and outside it, label by label.

    Pictures are drawn with replacement within each side and label; the number of right ones among them is then
    binomial, and is drawn as such. The interval is that of the percentiles (Efron & Tibshirani, 1993, ch. 13).

    Args:
        is_right: (n,) whether the verdict is right.
        inside: (n,) whether the picture belongs to the group.
        is_fake: (n,) its label.
        samples: replicates; 0 for no interval.
        seed: of the draws.

    >>> right = np.array([True, True, False, True, False, False])
    >>> inside = np.array([True, True, True, False, False, False])
    >>> print(rate_gap(right, inside, np.zeros(6, dtype=bool), samples=0))
    +33.3 points
    """
    right, total = _tables(is_right, inside, is_fake)
    if not len(total):
        return Gap(0, 0, None, None, None, None, None, 1.0)
    rates = right / total  # (labels, 2): inside, outside
    rate, rate_rest = rates.mean(axis=0)
    drawn = np.random.default_rng(seed).binomial(total, rates, size=(samples, *total.shape)) / total
    gaps = np.subtract(*drawn.mean(axis=1).T)
    low, high = np.percentile(gaps, _PERCENTILES).tolist() if samples else (None, None)
    n, n_rest = total.sum(axis=0).tolist()
    return Gap(n, n_rest, float(rate), float(rate_rest), float(rate - rate_rest), low, high, _exact(right, total))


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p-values for their number (Holm, 1979, *Scandinavian Journal of Statistics* 6:65-70), order kept.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    order = np.argsort(p_values, kind="stable")
    steps = np.asarray(p_values, dtype=np.float64)[order] * np.arange(len(p_values), 0, -1)
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return adjusted.tolist()


def _tables(is_right: Flags, inside: Flags, is_fake: Flags) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Right verdicts and pictures by label and side, (labels, 2), of the labels that occur on both sides."""
    total = np.array([[np.sum((is_fake == label) & side) for side in (inside, ~inside)] for label in (False, True)])
    right = np.array(
        [[np.sum(is_right & (is_fake == label) & side) for side in (inside, ~inside)] for label in (False, True)]
    )
    both = total.min(axis=1) > 0
    return right[both], total[both]


def _exact(right: NDArray[np.int64], total: NDArray[np.int64]) -> float:
    """Fisher's exact test over several 2 x 2 tables, two-sided, all margins held (Gart, 1970, Biometrika 57:471-475).

    Given the margins, the right verdicts inside of one label are hypergeometric; their sum over labels is what is
    tested. Everything that is at most as likely as what was found counts against equality.
    """
    chances, least = np.ones(1), 0
    for (hits, hits_rest), (n, n_rest) in zip(right.tolist(), total.tolist(), strict=True):
        drawn = np.arange(max(0, hits + hits_rest - n_rest), min(n, hits + hits_rest) + 1)
        chances = np.convolve(chances, hypergeom(n + n_rest, hits + hits_rest, n).pmf(drawn))
        least += int(drawn[0])
    found = chances[int(right[:, 0].sum()) - least]
    return min(1.0, float(chances[chances <= found * _SAME].sum()))
