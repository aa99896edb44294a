"""Calibration and abstention: temperature scaling, reliability, risk and coverage, and the choice of thresholds.

All functions take `is_fake`, (n,) bool, the true labels, and `p_fake`, (n,) in [0, 1], the probability of FAKE.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import expit, logit
from scipy.stats import beta

from realfake_hf.metrics.intervals import ECE_BINS, Flags, Floats
from realfake_hf.metrics.operating_point import Band, OperatingPoint

PROMISED: Final = 0.01  # highest error rate among decided images

_LEAST_P: Final = float(np.finfo(np.float32).eps) / 2  # the resolution of a float32 probability near 1
_LEAST_TEMPERATURE: Final = 0.001
_LEAST_COVERAGE: Final = 0.1  # share of the validation images that the widest band decides
_ALLOWED_ERRORS: Final = 2  # the widest band decides enough images to allow this number of errors
_BANDS: Final = 91  # number of candidate bands
_RISK: Final = 0.05  # probability that the promise fails on images of the same kind
_CURVE_POINTS: Final = 101


@dataclass(frozen=True)
class Bin:
    """Images whose `p_fake` is in [low, high), or [low, high] for the last bin.

    The mean prediction and the share of FAKE images, in [0, 1], are None if the bin is empty.
    """

    low: float
    high: float
    n: int
    mean_p_fake: float | None
    share_fake: float | None


@dataclass(frozen=True)
class Histogram:
    """Right and wrong predictions by confidence."""

    # (k + 1,) bin edges of the probability of the predicted label, from 0.5 to 1. The first bin also counts lower
    # probabilities, which occur with thresholds other than 0.5
    edges: tuple[float, ...]
    right: tuple[int, ...]  # (k,) right predictions
    wrong: tuple[int, ...]  # (k,) wrong predictions


@dataclass(frozen=True)
class RiskCoverage:
    """Error rate when only the most confident predictions are accepted (El-Yaniv & Wiener, 2010, JMLR 11:1605-1641).

    The coverage is the share of decided images, increasing to 1; the risk is the error rate among them, at each
    coverage; the area is the mean risk over all coverages, in [0, 1].
    """

    coverage: tuple[float, ...]
    risk: tuple[float, ...]
    area: float


def best_threshold(is_fake: ArrayLike, p_fake: ArrayLike) -> float:
    """Return the most accurate threshold, in [0, 1], to be chosen on validation images, never on test images.

    Candidates are the midpoints between neighbouring scores, 0 and 1. Ties go to the threshold nearest to 0.5.

    >>> best_threshold([False, False, True, True], [0.25, 0.5, 0.75, 1.0])
    0.625
    """
    truth, scores = _as_arrays(is_fake, p_fake)
    values = np.unique(scores)
    candidates = np.concatenate([[0.0], (values[1:] + values[:-1]) / 2, [1.0]])
    true_real = np.searchsorted(np.sort(scores[~truth]), candidates, side="right")
    true_fake = truth.sum() - np.searchsorted(np.sort(scores[truth]), candidates, side="right")
    right = true_real + true_fake
    best = candidates[right == right.max()]
    return float(best[np.argmin(np.abs(best - 0.5))])


def fit_temperature(is_fake: ArrayLike, p_fake: ArrayLike) -> float:
    """Fit the temperature on real and fake validation images (Guo et al., 2017), with scikit-learn.

    Log-odds are divided by the temperature; it is above 1 if the detector is overconfident, and at least 0.001, also
    if every image is predicted correctly, when the likelihood has no maximum.
    """
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.frozen import FrozenEstimator
    from sklearn.linear_model import LogisticRegression

    truth, scores = _as_arrays(is_fake, p_fake)
    if truth.all() or not truth.any():
        raise ValueError(
            f"expected real and fake validation images to fit a temperature; found {(~truth).sum()} real and "
            f"{truth.sum()} fake."
        )
    identity = LogisticRegression()  # fitted by hand: half of the log-odds, which scikit-learn applies to both classes
    identity.classes_, identity.coef_, identity.intercept_ = np.array([False, True]), np.array([[0.5]]), np.zeros(1)
    rows = np.arange(len(truth))  # no folds, since only the temperature is fitted
    scaled = CalibratedClassifierCV(
        FrozenEstimator(identity), method="temperature", cv=[(rows, rows)], ensemble=False
    ).fit(log_odds(scores)[:, None], truth)
    return max(_LEAST_TEMPERATURE, 1 / float(logit(scaled.predict_proba(np.ones((1, 1)))[0, 1])))


def log_odds(p_fake: ArrayLike) -> Floats:
    """Return log(p / (1 - p)), with p clipped to the resolution of 32-bit floats."""
    return np.asarray(logit(np.clip(np.asarray(p_fake, dtype=np.float64), _LEAST_P, 1 - _LEAST_P)), dtype=np.float64)


def scale(p_fake: ArrayLike, temperature: float) -> Floats:
    """Return probabilities, (n,) in [0, 1], whose log-odds are divided by the temperature."""
    return np.asarray(expit(log_odds(p_fake) / temperature), dtype=np.float64)


def reliability(is_fake: ArrayLike, p_fake: ArrayLike) -> tuple[Bin, ...]:
    """Compare predicted and observed shares of FAKE in the bins of `make_report`'s calibration error."""
    truth, scores = _as_arrays(is_fake, p_fake)
    index = np.minimum((scores * ECE_BINS).astype(np.intp), ECE_BINS - 1)
    columns = [np.bincount(index, weights, ECE_BINS).tolist() for weights in (None, scores, truth)]
    return tuple(
        Bin(i / ECE_BINS, (i + 1) / ECE_BINS, int(n), p_sum / n if n else None, n_fake / n if n else None)
        for i, (n, p_sum, n_fake) in enumerate(zip(*columns, strict=True))
    )


def confidence_histogram(is_fake: ArrayLike, p_fake: ArrayLike, *, threshold: float) -> Histogram:
    """Count right and wrong predictions by the probability of the predicted label."""
    truth, scores = _as_arrays(is_fake, p_fake)
    called_fake = scores > threshold
    confidence = np.clip(np.where(called_fake, scores, 1 - scores), 0.5, 1)
    edges = np.linspace(0.5, 1, 11)
    is_right = called_fake == truth
    right, wrong = (np.histogram(confidence[mask], edges)[0].tolist() for mask in (is_right, ~is_right))
    return Histogram(tuple(edges.tolist()), tuple(right), tuple(wrong))


def risk_coverage(is_fake: ArrayLike, p_fake: ArrayLike, *, threshold: float) -> RiskCoverage:
    """Compute error rates when images are decided in order of their distance to the threshold in log-odds.

    Images at the same distance are decided together.
    """
    distance, is_wrong = _distances(is_fake, p_fake, threshold)
    order = np.argsort(-distance, kind="stable")
    decided = np.arange(1, len(order) + 1)
    errors = is_wrong[order].cumsum()
    last = np.flatnonzero(np.diff(distance[order], append=-1.0))  # last position of each group of ties
    group = np.searchsorted(last, np.arange(len(order)))
    risk = (errors[last] / decided[last])[group]
    points = np.unique(np.linspace(0, len(last) - 1, min(_CURVE_POINTS, len(last))).round().astype(np.intp))
    coverage = decided[last[points]] / len(order)
    return RiskCoverage(tuple(coverage.tolist()), tuple(risk[last[points]].tolist()), float(risk.mean()))


def choose_band(is_fake: ArrayLike, p_fake: ArrayLike, *, threshold: float, promised: float = PROMISED) -> Band | None:
    """Choose the band of probabilities in which a detector abstains, so that few of its other verdicts are wrong.

    The band extends equally far to both sides of the threshold, in log-odds. Candidates are tested from the widest to
    the empty band. The widest decides a tenth of the images, or more if a tenth could not keep the promise with two
    errors. Each candidate is tested against the promise with the exact binomial upper bound at 95%, and the last one
    before the first failure is chosen. The order of the tests is fixed beforehand, so no correction for their number
    is needed (Angelopoulos et al., 2025, *Learn then test*, Annals of Applied Statistics 19:1641-1662): with 95%
    confidence the promise holds on images of the same kind, but not on images of another kind.

    Returns:
        The band; None if even the widest does not keep the promise, or if there are too few images.

    Raises:
        ValueError: `promised`, the highest error rate among decided images, is outside (0, 1).
    """
    if not 0 < promised < 1:
        raise ValueError(f"expected a promised error rate in (0, 1); found {promised}.")
    distance, is_wrong = _distances(is_fake, p_fake, threshold)
    half_width, n = None, len(distance)
    enough = next((k for k in range(1, n) if _upper_bound(min(k, _ALLOWED_ERRORS), k) <= promised), n)
    for coverage in np.linspace(max(_LEAST_COVERAGE, enough / n), 1, _BANDS):
        width = float(np.quantile(distance, 1 - coverage, method="lower")) if coverage < 1 else 0.0
        decided = distance >= width
        if _upper_bound(int(is_wrong[decided].sum()), int(decided.sum())) > promised:
            break
        half_width = width
    if half_width is None:
        return None
    low, high = (float(end) for end in expit(log_odds(threshold) + np.array([-half_width, half_width])))
    return Band(low, high, promised) if half_width else Band(threshold, threshold, promised)


def choose_operating_point(
    is_fake: ArrayLike, p_fake: ArrayLike, *, sha256: str | None = None, promised: float = PROMISED
) -> OperatingPoint:
    """Choose threshold, temperature and abstention band on a validation split, whose fingerprint is `sha256`."""
    threshold = best_threshold(is_fake, p_fake)
    return OperatingPoint(
        threshold=threshold,
        chosen="most accurate on the validation split of the training",
        n=len(np.asarray(is_fake)),
        sha256=sha256,
        temperature=fit_temperature(is_fake, p_fake),
        band=choose_band(is_fake, p_fake, threshold=threshold, promised=promised),
    )


def _as_arrays(is_fake: ArrayLike, p_fake: ArrayLike) -> tuple[Flags, Floats]:
    return np.asarray(is_fake, dtype=np.bool_), np.asarray(p_fake, dtype=np.float64)


def _distances(is_fake: ArrayLike, p_fake: ArrayLike, threshold: float) -> tuple[Floats, Flags]:
    """Return the distance of each image to the threshold, in log-odds, and whether it is misclassified: (n,) each."""
    truth, scores = _as_arrays(is_fake, p_fake)
    return np.abs(log_odds(scores) - log_odds(threshold)), (scores > threshold) != truth


def _upper_bound(wrong: int, n: int) -> float:
    """Return the exact one-sided upper confidence bound of an error rate."""
    return 1.0 if wrong == n else float(beta.ppf(1 - _RISK, wrong + 1, n - wrong))
