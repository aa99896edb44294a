"""Statistics with 95% intervals: bootstrap percentiles, and exact intervals for rates.

The statistics of a report are functions of image weights. A weight is the number of times that an image counts: 1 for
the value itself, the number of draws in a bootstrap replicate. The same lines compute the value and every replicate.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from realfake_hf.estimate import Difference, Estimate

ECE_BINS: Final = 15  # Guo et al. (2017), On Calibration of Modern Neural Networks
RATES: Final = ("accuracy", "accuracy_real", "accuracy_fake")
STATISTICS: Final = (
    *RATES, "balanced_accuracy", "precision", "recall", "f1", "roc_auc", "average_precision", "ece", "brier",
    "tpr_at_5_fpr", "tpr_at_1_fpr", "nll",
)  # fmt: skip
FPR_LIMITS: Final = (0.05, 0.01)  # highest false positive rates of `tpr_at_5_fpr` and `tpr_at_1_fpr`

_CELLS: Final = 4  # entries of a confusion matrix, in the order 2 * is_fake + called_fake: TN, FP, FN, TP
_LEAST_P: Final = float(np.finfo(np.float64).eps)  # replaces a probability of 0 in a logarithm

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
_Codes = NDArray[np.intp]


def share(k: int, n: int) -> Estimate:
    """Return k / n with its exact 95% interval (Clopper & Pearson, 1934, *Biometrika* 26:404-413).

    >>> print(share(3, 60), share(0, 0), sep="; ")
    0.050 (0.010 to 0.139); undefined
    """
    if not n:
        return Estimate(None, n=n, k=k)
    interval = binomtest(k, n).proportion_ci(method="exact")
    return Estimate(k / n, float(interval.low), float(interval.high), n=n, k=k)


def percentile_interval(replicates: Floats) -> tuple[float, float] | tuple[None, None]:
    """Return the 95% percentile interval of bootstrap replicates (Efron & Tibshirani, 1993, ch. 13).

    Replicates in which the statistic is undefined, NaN, are dropped. If no replicate remains, both ends are None.
    """
    defined = replicates[~np.isnan(replicates)]
    if not defined.size:
        return None, None
    low, high = np.percentile(defined, (2.5, 97.5)).tolist()
    return low, high


def bootstrap_estimate(value: float, replicates: Floats, /, **counts: int) -> Estimate:
    """Combine a value, NaN if undefined, with its bootstrap replicates (samples,), none for no interval.

    The counts are `n` and `undefined` of the estimate.
    """
    if np.isnan(value):
        return Estimate(None, **counts)
    return Estimate(float(value), *percentile_interval(replicates), **counts)


def bootstrap_p(replicates: Floats) -> float:
    """Return the two-sided p-value of no difference, given bootstrap replicates of the difference, (samples,).

    It is twice the share of replicates on the smaller side of 0, those at 0 counting on both (Davison & Hinkley, 1997,
    *Bootstrap Methods and their Application*, section 4.2), and at least 2 / (samples + 1). NaN is left out.
    """
    defined = replicates[~np.isnan(replicates)]
    extreme = min((defined <= 0).sum(), (defined >= 0).sum())
    return min(1.0, 2 * (float(extreme) + 1) / (len(defined) + 1))


def bootstrap_difference(value: float, replicates: Floats, /, **counts: int) -> Difference:
    """Combine a difference, NaN if undefined, with its replicates; see `bootstrap_estimate` and `bootstrap_p`."""
    estimate = bootstrap_estimate(value, replicates, **counts)
    p_value = None if estimate.low is None else bootstrap_p(replicates)
    return Difference(**estimate.to_dict(), p_value=p_value)


class Resampling:
    """Bootstrap draws of a stratified sample, made once, so that all statistics share the same replicates.

    The weight of an image, (n,), is the number of images of its stratum, (n,) codes, in the population per image of it
    in the sample, so that a weighted mean estimates the mean of the population. A replicate draws as many images of
    each stratum, with replacement, as the sample contains. Without samples, there are no intervals.
    """

    def __init__(
        self, weight: Floats, *, stratum: NDArray[np.integer[Any]] | None = None, samples: int = 1000, seed: int = 0
    ) -> None:
        self._weight = np.asarray(weight, dtype=np.float64)
        self._drawn = np.zeros((samples, len(weight)))  # weight times the number of draws of each image
        generator = np.random.default_rng(seed)
        codes = np.zeros(len(weight)) if stratum is None else stratum
        for code in np.unique(codes):
            members = np.flatnonzero(codes == code)
            shares = np.full(len(members), 1 / len(members))
            self._drawn[:, members] = generator.multinomial(len(members), shares, size=samples)
        self._drawn *= self._weight
        self._totals = self._drawn.sum(axis=1)

    def mean(self, values: NDArray[Any], *, where: Flags | None = None) -> Estimate:
        """Return the weighted mean of values (n,) over the images `where` (n,), by default all.

        NaN values are left out and counted as undefined.
        """
        chosen = np.ones(len(values), dtype=np.bool_) if where is None else where
        defined = chosen & ~np.isnan(values)
        return bootstrap_estimate(*self._means(values, defined), **_counts(chosen, defined))

    def change(self, values: NDArray[Any], *, where: Flags | None = None) -> Difference:
        """Test the weighted mean of paired differences (n,), such as a new score less the old one; see `mean`."""
        chosen = np.ones(len(values), dtype=np.bool_) if where is None else where
        defined = chosen & ~np.isnan(values)
        return bootstrap_difference(*self._means(values, defined), **_counts(chosen, defined))

    def difference(self, values: NDArray[Any], *, of: Flags, less: Flags) -> Difference:
        """Test the mean of the images `of` minus the mean of the images `less`, (n,) masks that do not overlap."""
        known = ~np.isnan(values)
        mean, replicates = self._means(values, of & known)
        other_mean, other_replicates = self._means(values, less & known)
        counts = _counts(of | less, (of | less) & known)
        return bootstrap_difference(mean - other_mean, replicates - other_replicates, **counts)

    def statistic(self, of: Callable[[Floats], Floats]) -> Estimate:
        """Estimate a statistic that maps weights (weightings, n) to values (weightings,), NaN where undefined."""
        return bootstrap_estimate(*self._statistic(of), n=len(self._weight), undefined=0)

    def statistic_change(self, of: Callable[[Floats], Floats]) -> Difference:
        """Test a statistic that is a difference; see `statistic`."""
        return bootstrap_difference(*self._statistic(of), n=len(self._weight), undefined=0)

    def _statistic(self, of: Callable[[Floats], Floats]) -> tuple[float, Floats]:
        return float(of(self._weight[None])[0]), of(self._drawn)

    def _means(self, values: NDArray[Any], defined: Flags) -> tuple[float, Floats]:
        plain = np.where(defined, values, 0.0).astype(np.float64)
        totals = self._totals if defined.all() else self._drawn @ defined.astype(np.float64)
        with np.errstate(invalid="ignore"):  # 0 / 0 where nothing is defined
            value = np.divide(self._weight @ plain, self._weight @ defined)
            replicates = np.divide(self._drawn @ plain, totals)
        return float(value), replicates


def _counts(chosen: Flags, defined: Flags) -> dict[str, int]:
    return {"n": int(defined.sum()), "undefined": int(chosen.sum() - defined.sum())}


class ScoredImages:
    """Labels and scores as codes that `bootstrap` counts.

    The contents, (n,), are codes below the number of known `contents`, which itself means unknown. Images with a score
    above the threshold are called FAKE.

    Attributes:
        cell: (n,) 4 * content + 2 * is_fake + called_fake.
        rank: (n,) 2 * (rank of the score among the `ranks` distinct scores, lowest first) + is_fake.
        ece_bin: (n,) index of the bin of [0, 1] that contains the score.
        error: (n,) score - is_fake, in [-1, 1].
        loss: (n,) negative log-likelihood of the true label, in nats.
    """

    def __init__(
        self, is_fake: Flags, p_fake: Floats, *, content: Sequence[int], contents: int, threshold: float
    ) -> None:
        distinct, rank = np.unique(p_fake, return_inverse=True)
        self.contents, self.ranks = contents, len(distinct)
        self.cell: _Codes = _CELLS * np.asarray(content, dtype=np.intp) + 2 * is_fake + (p_fake > threshold)
        self.rank: _Codes = 2 * rank + is_fake
        self.ece_bin: _Codes = np.minimum((p_fake * ECE_BINS).astype(np.intp), ECE_BINS - 1)  # the last bin is closed
        self.error: Floats = p_fake - is_fake
        self.loss: Floats = -np.log(np.clip(np.where(is_fake, p_fake, 1 - p_fake), _LEAST_P, 1))


def bootstrap(
    images: ScoredImages, *, samples: int, seed: int, groups: NDArray[np.intp] | None = None
) -> list[Estimate]:
    """Compute `STATISTICS` of all images, then `RATES` of each known content, with intervals.

    Images are drawn with replacement, regardless of their label; with `groups`, (n,) codes from 0, whole groups are
    (Davison & Hinkley, 1997, *Bootstrap Methods and their Application*, section 3.8). The replicates of the
    calibration error are shifted; see `make_report`.
    """
    n = len(images.cell)
    values = _statistics(images, np.ones(n))
    generator = np.random.default_rng(seed)
    replicates = np.empty((samples, len(values)))
    units = np.arange(n) if groups is None else groups
    n_units = int(units.max()) + 1
    for replicate in replicates:
        drawn = np.bincount(generator.integers(n_units, size=n_units), minlength=n_units)
        replicate[:] = _statistics(images, drawn[units].astype(np.float64))
    if samples:
        ece = replicates[:, STATISTICS.index("ece")]  # a view
        np.maximum(ece + (values[STATISTICS.index("ece")] - ece.mean()), 0, out=ece)
    return [bootstrap_estimate(value, column) for value, column in zip(values, replicates.T, strict=True)]


def confusion(images: ScoredImages, weights: Floats) -> Floats:
    """Count TN, FP, FN and TP: (contents + 1, 4), the last row for images of unknown content."""
    rows = images.contents + 1
    return _tally(images.cell, weights, rows * _CELLS).reshape(rows, _CELLS)


def _statistics(images: ScoredImages, weights: Floats) -> Floats:
    """Compute all statistics, NaN where undefined: (14 + 3 * contents,)."""
    counts = confusion(images, weights)
    total = counts.sum(axis=0)
    _, false_positives, false_negatives, true_positives = total
    accuracy, real, fake = _rates(total)
    precision, f1 = _divide(
        np.array([true_positives, 2 * true_positives]),
        np.array([true_positives + false_positives, 2 * true_positives + false_positives + false_negatives]),
    )
    roc_auc, average_precision, *sensitivities = _ranking(images, weights)
    ece, brier, nll = _calibration(images, weights)
    overall = (accuracy, real, fake, (real + fake) / 2, precision, fake, f1)  # recall equals accuracy_fake
    by_score = (roc_auc, average_precision, ece, brier, *sensitivities, nll)
    return np.concatenate([overall, by_score, _rates(counts[:-1]).ravel()])


def _tally(codes: _Codes, weights: Floats, size: int) -> Floats:
    """Sum the weights of each code below `size`."""
    return np.bincount(codes, weights, size).astype(np.float64, copy=False)  # NumPy's type stubs expect integers


def _divide(sums: Floats, counts: Floats) -> Floats:
    """Divide, with NaN where the count is 0."""
    shares = np.full(counts.shape, np.nan)
    np.divide(sums, counts, out=shares, where=counts > 0)
    return shares


def _rates(counts: Floats) -> Floats:
    """Convert confusion counts (..., 4) to `RATES` (..., 3)."""
    real, fake = counts[..., :2].sum(axis=-1), counts[..., 2:].sum(axis=-1)
    true_real, true_fake = counts[..., 0], counts[..., 3]
    sums = np.stack([true_real + true_fake, true_real, true_fake], axis=-1)
    return _divide(sums, np.stack([real + fake, real, fake], axis=-1))


def _ranking(images: ScoredImages, weights: Floats) -> tuple[float, float, float, float]:
    """Compute ROC AUC, average precision and TPR at both `FPR_LIMITS`; ties are handled as in scikit-learn."""
    by_rank = _tally(images.rank, weights, 2 * images.ranks).reshape(-1, 2)[::-1]  # highest score first
    real, fake = by_rank.T
    called = by_rank.cumsum(axis=0)  # images with at least this score
    all_real, all_fake = called[-1]
    if not all_fake:
        return np.nan, np.nan, np.nan, np.nan
    # Weights are integers: a sum below 1 is 0, and its term adds nothing.
    average_precision = fake @ (called[:, 1] / np.maximum(called.sum(axis=1), 1)) / all_fake
    if not all_real:
        return np.nan, average_precision, np.nan, np.nan
    roc_auc = fake @ (all_real - called[:, 0] + real / 2) / (all_real * all_fake)
    return roc_auc, average_precision, *(_sensitivity(called, limit) for limit in FPR_LIMITS)


def _sensitivity(called: Floats, limit: float) -> float:
    """Return the highest TPR of a threshold whose FPR is at most `limit`, without interpolation."""
    all_real, all_fake = called[-1]
    allowed = np.searchsorted(called[:, 0] / all_real, limit, side="right")  # number of thresholds that qualify
    return float(called[allowed - 1, 1] / all_fake) if allowed else 0.0


def _calibration(images: ScoredImages, weights: Floats) -> tuple[float, float, float]:
    """Compute expected calibration error, Brier score and log loss.

    In each bin, |sum of errors| is the size of the bin times its gap. `sum` is faster here than a vector product,
    which would wait for the threads of a linear algebra library.
    """
    n = weights.sum()
    errors = weights * images.error
    gaps = _tally(images.ece_bin, errors, ECE_BINS)
    return np.abs(gaps).sum() / n, (errors * images.error).sum() / n, (weights * images.loss).sum() / n
