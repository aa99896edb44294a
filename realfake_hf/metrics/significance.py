"""Significance tests: classifiers or scorings of the same images, and one classifier on two groups of images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import binomtest, hypergeom, norm

from realfake_hf.estimate import Estimate, to_plain
from realfake_hf.metrics.intervals import Flags, Floats, bootstrap_estimate, bootstrap_p, percentile_interval
from realfake_hf.metrics.report import draw_by_label, roc_auc

_SMALLEST_P: Final = 1e-4  # smaller p-values are printed as "p < 0.0001"
_BATCH: Final = 50  # bootstrap replicates whose weights are in memory at once
_TIE: Final = 1 + 1e-7  # relative tolerance for equal probabilities, as in R's fisher.test


@dataclass(frozen=True)
class McNemar:
    """Comparison of two classifiers, a and b, on the same images."""

    n: int  # images, the sum of the next four counts
    both_right: int
    only_a: int  # images on which a is right and b is wrong
    only_b: int  # images on which b is right and a is wrong
    both_wrong: int
    p_value: float  # two-sided p-value of equal accuracies
    difference: float  # accuracy of a minus accuracy of b, in [-1, 1]
    difference_low: float  # lower end of its 95% interval
    difference_high: float  # upper end of its 95% interval

    def to_words(self, *, a: str, b: str) -> str:
        """Summarize the comparison in one clause; a and b are the names of the classifiers.

        >>> print(mcnemar([True, True, True, False], [True, False, False, False]).to_words(a="one", b="two"))
        only one is right on 2 of 4 images, only two on 0: one minus two +50.00 points (-13.55 to +78.91), p = 0.5
        """
        low, high = 100 * self.difference_low, 100 * self.difference_high
        return (
            f"only {a} is right on {self.only_a:,} of {self.n:,} images, only {b} on {self.only_b:,}: {a} minus {b} "
            f"{100 * self.difference:+.2f} points ({low:+.2f} to {high:+.2f}), {format_p(self.p_value)}"
        )


def format_p(p_value: float) -> str:
    """Format a p-value in words.

    >>> format_p(0.0123), format_p(1e-9)
    ('p = 0.012', 'p < 0.0001')
    """
    return f"p = {p_value:.2g}" if p_value >= _SMALLEST_P else f"p < {_SMALLEST_P:.4f}"


def mcnemar(right_a: ArrayLike, right_b: ArrayLike) -> McNemar:
    """Test whether two classifiers are equally accurate on the same images.

    Only images on which exactly one classifier is right carry evidence. If both are equally accurate, either is right
    on such an image with probability one half, so the p-value is that of the exact binomial test (McNemar, 1947,
    *Psychometrika* 12:153-157). It is 1 if there is no such image.

    The interval of the difference in accuracy is method 10 of Newcombe (1998), *Improved confidence intervals for the
    difference between binomial proportions based on paired data*, Statistics in Medicine 17:2635-2650. It is not
    derived from the test, and the two can disagree in close cases.

    Args:
        right_a: (n,) bool, whether a is right on each image.
        right_b: (n,) bool, the same for b, with the images in the same order.

    Raises:
        ValueError: there are no images, lengths differ, or the values are not booleans.
    """
    a, b = np.asarray(right_a), np.asarray(right_b)
    if a.ndim != 1 or not a.size or a.shape != b.shape or a.dtype != np.bool_ or b.dtype != np.bool_:
        raise ValueError(
            "expected two (n,) arrays of booleans for the same images, n > 0; found "
            f"{a.shape} of {a.dtype} and {b.shape} of {b.dtype}. Pass (p_fake > threshold) == is_fake."
        )
    both_right, only_a, only_b = (int(mask.sum()) for mask in (a & b, a & ~b, ~a & b))
    cells = (both_right, only_a, only_b, len(a) - both_right - only_a - only_b)
    discordant = only_a + only_b
    p_value = float(binomtest(only_a, discordant).pvalue) if discordant else 1.0
    return McNemar(len(a), *cells, p_value, (only_a - only_b) / len(a), *_newcombe(*cells))


def _newcombe(both_right: int, only_a: int, only_b: int, both_wrong: int) -> tuple[float, float]:
    """Combine the Wilson intervals of both accuracies, given the correlation of right predictions."""
    n = both_right + only_a + only_b + both_wrong
    right_a, right_b = both_right + only_a, both_right + only_b
    (below_a, above_a), (below_b, above_b) = _wilson_distances(right_a, n), _wilson_distances(right_b, n)
    product = right_a * (n - right_a) * right_b * (n - right_b)
    covariance = both_right * both_wrong - only_a * only_b
    corrected = covariance if covariance < 0 else max(covariance - n / 2, 0.0)
    correlation = corrected / sqrt(product) if product else 0.0
    difference = (only_a - only_b) / n
    return (
        difference - sqrt(below_a**2 - 2 * correlation * below_a * above_b + above_b**2),
        difference + sqrt(above_a**2 - 2 * correlation * above_a * below_b + below_b**2),
    )


def _wilson_distances(right: int, n: int) -> tuple[float, float]:
    """Return the distances from an accuracy to the lower and upper end of its Wilson score interval."""
    interval = binomtest(right, n).proportion_ci(method="wilson")
    return right / n - float(interval.low), float(interval.high) - right / n


@dataclass(frozen=True)
class PairedDifference:
    """A statistic of two scorings of the same images, and the second minus the first with its 95% interval."""

    first: float
    second: float
    difference: Estimate
    p_value: float  # two-sided p-value of no difference


def paired_bootstrap(
    is_fake: Flags, first: Floats, second: Floats, *, threshold: float, samples: int, seed: int
) -> dict[str, PairedDifference]:
    """Compare two scorings of the same images, (n,) in [0, 1] each: `roc_auc`, `recall` and `false_positive_rate`.

    Both are measured on the same replicates, which draw images with replacement within each label; the p-value is that
    of `bootstrap_p`. Statistics without images of the labels that they need are left out.
    """
    scorings = (first, second)
    called = [scores > threshold for scores in scorings]
    rates = {"recall": is_fake, "false_positive_rate": ~is_fake}
    rates = {name: among for name, among in rates.items() if among.any()}

    def measure(weights: Floats) -> dict[str, list[Floats]]:
        found = {"roc_auc": [roc_auc(is_fake, scores, weights) for scores in scorings]} if len(rates) > 1 else {}
        for name, among in rates.items():
            found[name] = [weights[:, among] @ flags[among] / among.sum() for flags in called]
        return found

    generator = np.random.default_rng(seed)
    sizes = [min(_BATCH, samples - start) for start in range(0, samples, _BATCH)]
    drawn = [measure(draw_by_label(is_fake, size, generator)) for size in sizes]
    return {
        name: _paired_difference(a, b, np.concatenate([batch[name][1] - batch[name][0] for batch in drawn]))
        for name, (a, b) in measure(np.ones((1, len(is_fake)))).items()
    }


def _paired_difference(first: Floats, second: Floats, replicates: Floats) -> PairedDifference:
    difference = bootstrap_estimate(float(second[0] - first[0]), replicates)
    return PairedDifference(float(first[0]), float(second[0]), difference, bootstrap_p(replicates))


@dataclass(frozen=True)
class Gap:
    """Difference between the accuracy on a group of images and on the rest.

    Rates are means over the labels that occur on both sides, with equal weight, so that the composition of the group
    does not matter. If there is no such label, rates and difference are None.
    """

    n: int  # images in the group with those labels
    n_rest: int  # images in the rest with those labels
    rate: float | None  # accuracy in the group, in [0, 1]
    rate_rest: float | None  # accuracy in the rest
    value: float | None  # `rate` - `rate_rest`, in [-1, 1]
    low: float | None  # lower end of its 95% bootstrap interval; None without a bootstrap
    high: float | None  # upper end
    p_value: float  # exact p-value of equal accuracies; 1 if no label occurs on both sides

    def __str__(self) -> str:
        if self.value is None:
            return "undefined"
        if self.low is None or self.high is None:
            return f"{100 * self.value:+.1f} points"
        return f"{100 * self.value:+.1f} points ({100 * self.low:+.1f} to {100 * self.high:+.1f})"


def rate_gap(is_right: Flags, inside: Flags, is_fake: Flags, *, samples: int = 1000, seed: int = 0) -> Gap:
    """Compare the accuracy on a group of images with the accuracy on the rest; all arguments are (n,) masks.

    The bootstrap draws images with replacement within each side and label. The number of right predictions in such a
    draw is binomial, and is sampled directly. Without samples, there is no interval.

    >>> right = np.array([True, True, False, True, False, False])
    >>> inside = np.array([True, True, True, False, False, False])
    >>> print(rate_gap(right, inside, np.zeros(6, dtype=bool), samples=0))
    +33.3 points
    """
    groups = np.array([[(is_fake == label) & side for side in (inside, ~inside)] for label in (False, True)])
    total = groups.sum(axis=2)  # (labels, 2): group, rest
    has_both = total.min(axis=1) > 0
    total, right = total[has_both], (groups[has_both] & is_right).sum(axis=2)
    if not len(total):
        return Gap(0, 0, None, None, None, None, None, 1.0)
    rates = right / total
    rate, rate_rest = rates.mean(axis=0).tolist()
    drawn = np.random.default_rng(seed).binomial(total, rates, size=(samples, *total.shape)) / total
    low, high = percentile_interval(np.subtract(*drawn.mean(axis=1).T))
    n, n_rest = total.sum(axis=0).tolist()
    return Gap(n, n_rest, rate, rate_rest, rate - rate_rest, low, high, _fisher(right, total))


def _fisher(right: NDArray[np.int64], total: NDArray[np.int64]) -> float:
    """Run Fisher's exact test on several 2 x 2 tables, two-sided (Gart, 1970, Biometrika 57:471-475).

    Given the margins, the number of right predictions in the group is hypergeometric for each label. The test
    statistic is the sum over the labels; outcomes that are at most as likely as the observed one count as extreme.
    """
    probabilities, lowest = np.ones(1), 0
    for (hits, hits_rest), (n, n_rest) in zip(right.tolist(), total.tolist(), strict=True):
        support = np.arange(max(0, hits + hits_rest - n_rest), min(n, hits + hits_rest) + 1)
        probabilities = np.convolve(probabilities, hypergeom(n + n_rest, hits + hits_rest, n).pmf(support))
        lowest += int(support[0])
    observed = probabilities[int(right[:, 0].sum()) - lowest]
    return min(1.0, float(probabilities[probabilities <= observed * _TIE].sum()))


def compare_auc(
    is_fake: Flags, scores: Mapping[str, Floats], groups: Sequence[Any], *, samples: int = 1000
) -> dict[str, Any]:
    """Estimate the ROC AUC of scores (n,) by name, and of the first less each of the others, on the same draws.

    Whole groups, (n,), are drawn with replacement. The result is plain JSON: the numbers of images and groups;
    `roc_auc` by name, where "a less b" is a difference; and `p_values` of the differences by the name of the other,
    which are those of a normal distribution with the standard deviation of the draws.
    """
    names, group = np.unique(np.asarray(groups), return_inverse=True)
    shares = np.full(len(names), 1 / len(names))
    draws = np.random.default_rng(0).multinomial(len(names), shares, size=samples)
    weights = np.concatenate([np.ones((1, len(group))), draws[:, group].astype(np.float64)])
    values = {name: roc_auc(is_fake, p_fake, weights) for name, p_fake in scores.items()}
    first, *others = values
    gaps = {name: values[first] - values[name] for name in others}
    values |= {f"{first} less {name}": gap for name, gap in gaps.items()}
    rows = {name: to_plain(bootstrap_estimate(float(each[0]), each[1:])) for name, each in values.items()}
    p_values = {name: float(2 * norm.sf(abs(gap[0]) / max(gap[1:].std(), 1e-9))) for name, gap in gaps.items()}
    n = {"n": len(group), "n_fake": int(is_fake.sum()), "n_groups": len(names)}
    return {**n, "roc_auc": rows, "p_values": p_values}


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p-values for multiple tests (Holm, 1979, *Scandinavian Journal of Statistics* 6:65-70), keeping order.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    order = np.argsort(p_values, kind="stable")
    steps = np.asarray(p_values, dtype=np.float64)[order] * np.arange(len(p_values), 0, -1)
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return adjusted.tolist()


def correct_together(tests: Sequence[dict[str, float]]) -> None:
    """Adjust the p-values of all dictionaries together, in place; see `holm`.

    >>> tests = [{"a": 0.01, "b": 0.04}, {"a": 0.03}]
    >>> correct_together(tests); tests
    [{'a': 0.03, 'b': 0.06}, {'a': 0.06}]
    """
    adjusted = iter(holm([p_value for p_values in tests for p_value in p_values.values()]))
    for p_values in tests:
        p_values.update({name: next(adjusted) for name in p_values})


def correct_differences(differences: Sequence[dict[str, Any]]) -> None:
    """Add `p_holm` to differences in plain JSON, which are one family, in place; see `holm`.

    Undefined differences stay as they are and do not count.
    """
    tested = [difference for difference in differences if difference.get("p_value") is not None]
    for difference, p_holm in zip(tested, holm([each["p_value"] for each in tested]), strict=True):
        difference["p_holm"] = p_holm
