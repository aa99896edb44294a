"""Two classifiers on the same images: how often is only one of them right, and could that be chance?"""

from dataclasses import asdict, dataclass
from math import sqrt
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import binomtest

_SMALLEST_P: Final = 1e-4  # printed; below it only that it is smaller


@dataclass(frozen=True)
class McNemar:
    """How two classifiers, a and b, differ on the same images.

    Attributes:
        n: images.
        both_right: images on which both are right.
        only_a: images on which a is right and b is wrong.
        only_b: images on which b is right and a is wrong.
        both_wrong: images on which both are wrong.
        p_value: chance that `only_a` and `only_b` differ at least as much, were a and b equally good; two-sided.
        difference: accuracy of a minus that of b, in [-1, 1].
        difference_low: lower end of its 95 % interval.
        difference_high: upper end of its 95 % interval.
    """

    n: int
    both_right: int
    only_a: int
    only_b: int
    both_wrong: int
    p_value: float
    difference: float
    difference_low: float
    difference_high: float

    def to_dict(self) -> dict[str, Any]:
        """The comparison as plain numbers."""
        return asdict(self)

    def to_words(self, *, a: str, b: str) -> str:
        """Say it in half a sentence; a and b are what the classifiers are called.

        >>> print(mcnemar([True, True, True, False], [True, False, False, False]).to_words(a="one", b="two"))
        only one is right on 2 of 4 images, only two on 0: one minus two +50.00 points (-13.55 to +78.91), p = 0.5
        """
        low, high = 100 * self.difference_low, 100 * self.difference_high
        p = f"p = {self.p_value:.2g}" if self.p_value >= _SMALLEST_P else f"p < {_SMALLEST_P:.4f}"
        return (
            f"only {a} is right on {self.only_a:,} of {self.n:,} images, only {b} on {self.only_b:,}: {a} minus {b} "
            f"{100 * self.difference:+.2f} points ({low:+.2f} to {high:+.2f}), {p}"
        )

    def to_markdown(self, *, a: str = "a", b: str = "b") -> str:
        """Render the table of right and wrong, and what it says; a and b are what the classifiers are called."""
        head = [f"| n = {self.n:,} | {b} right | {b} wrong |", "|---|--:|--:|"]
        rows = [
            f"| {a} right | {self.both_right:,} | {self.only_a:,} |",
            f"| {a} wrong | {self.only_b:,} | {self.both_wrong:,} |",
        ]
        note = "McNemar's exact test, and the difference in accuracy with its 95 % interval: "
        return "\n".join([*head, *rows, "", f"{note}{self.to_words(a=a, b=b)}."])


def mcnemar(right_a: ArrayLike, right_b: ArrayLike) -> McNemar:
    """Test whether two classifiers are equally accurate, from where each is right on the same images.

    Only images on which one of them is wrong can tell them apart. Were they equally good, each such image would speak
    for either with chance one half, so the p-value is that of the exact binomial test (McNemar, 1947, *Psychometrika*
    12:153-157). It is 1 where there is no such image.

    The interval of the difference in accuracy is method 10 of Newcombe (1998), *Improved confidence intervals for the
    difference between binomial proportions based on paired data*, Statistics in Medicine 17:2635-2650. It does not
    come from the test, and the two can disagree where the case is close.

    Args:
        right_a: (n,) bool, whether a is right on each image.
        right_b: (n,) bool, the same of b, the images in the same order.

    Raises:
        ValueError: no images, lengths that differ, or something else than booleans.
    """
    a, b = np.asarray(right_a), np.asarray(right_b)
    _check(a, b)
    both_right, only_a, only_b = (int(cell.sum()) for cell in (a & b, a & ~b, ~a & b))
    cells = (both_right, only_a, only_b, len(a) - both_right - only_a - only_b)
    discordant = only_a + only_b
    p_value = float(binomtest(only_a, discordant).pvalue) if discordant else 1.0
    return McNemar(len(a), *cells, p_value, (only_a - only_b) / len(a), *_newcombe(*cells))


def _check(a: NDArray[Any], b: NDArray[Any]) -> None:
    if a.ndim != 1 or not a.size or a.shape != b.shape or a.dtype != np.bool_ or b.dtype != np.bool_:
        raise ValueError(
            "wanted two (n,) arrays of booleans about the same images, n above 0; found "
            f"{a.shape} of {a.dtype} and {b.shape} of {b.dtype}. Compare first: (p_fake > 0.5) == is_fake."
        )


def _newcombe(both_right: int, only_a: int, only_b: int, both_wrong: int) -> tuple[float, float]:
    """Join Wilson's intervals of the two accuracies, by the correlation of being right."""
    n = both_right + only_a + only_b + both_wrong
    right_a, right_b = both_right + only_a, both_right + only_b
    (below_a, above_a), (below_b, above_b) = _wilson_arms(right_a, n), _wilson_arms(right_b, n)
    spread = right_a * (n - right_a) * right_b * (n - right_b)
    covariance = both_right * both_wrong - only_a * only_b
    corrected = covariance if covariance < 0 else max(covariance - n / 2, 0.0)
    correlation = corrected / sqrt(spread) if spread else 0.0
    difference = (only_a - only_b) / n
    return (
        difference - sqrt(below_a**2 - 2 * correlation * below_a * above_b + above_b**2),
        difference + sqrt(above_a**2 - 2 * correlation * above_a * below_b + below_b**2),
    )


def _wilson_arms(right: int, n: int) -> tuple[float, float]:
    """How far the Wilson score interval of an accuracy reaches below and above it."""
    interval = binomtest(right, n).proportion_ci(method="wilson")
    return right / n - float(interval.low), float(interval.high) - right / n
