"""Calibration and abstention: temperature scaling, reliability, risk and coverage, and the choice of thresholds.

All functions take `is_fake`, (n,) bool, the true labels, and `p_fake`, (n,) in [0, 1], the probability of FAKE.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize_scalar
from scipy.special import expit, logit
from scipy.stats import beta

from realfake_hf.metrics.intervals import ECE_BINS, Flags, Floats
from realfake_hf.metrics.operating_point import Band, OperatingPoint
from realfake_hf.metrics.significance import format_p, mcnemar

PROMISED: Final = 0.01  # highest error rate among decided images
FOLDS: Final = 5  # of the cross-fitted threshold
SIGNIFICANT: Final = 0.05  # p-value below which a threshold other than one half is used

_LEAST_P: Final = float(np.finfo(np.float32).eps) / 2  # the resolution of a float32 probability near 1
_TEMPERATURES: Final = (0.001, 1000.0)  # least and greatest
_LEAST_COVERAGE: Final = 0.1  # share of the validation images that the widest band decides
_ALLOWED_ERRORS: Final = 2  # the widest band decides enough images to allow this number of errors
_BANDS: Final = 91  # number of candidate bands
_RISK: Final = 0.05  # one minus the confidence of the upper bound
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
    """Return the threshold, in [0, 1], that is most accurate on these very images, which is optimistic.

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


def choose_threshold(is_fake: ArrayLike, p_fake: ArrayLike) -> tuple[float, str]:
    """Return one half, or the most accurate threshold if it is significantly better, and how it was chosen in words.

    The most accurate threshold fits noise on the images that it is chosen on, so the gain is measured by
    cross-fitting: each of five folds, stratified by label, is judged at the best threshold of the other four. The
    verdicts of all folds are compared with those at one half by McNemar's exact test.
    """
    truth, scores = _as_arrays(is_fake, p_fake)
    fold = _folds(truth)
    called_fake = np.zeros_like(truth)
    for number in range(FOLDS):
        inside = fold == number
        called_fake[inside] = scores[inside] > best_threshold(truth[~inside], scores[~inside])
    test = mcnemar(called_fake == truth, (scores > 1 / 2) == truth)
    found = (
        f"a cross-fitted threshold changes the accuracy by {100 * test.difference:+.2f} points on {test.n:,} "
        f"validation images, {format_p(test.p_value)}"
    )
    if test.difference > 0 and test.p_value < SIGNIFICANT:
        return best_threshold(truth, scores), f"most accurate on validation instead of one half: {found}"
    return 0.5, f"one half: {found}"


def _folds(is_fake: Flags) -> NDArray[np.intp]:
    """Assign images to folds, stratified by label, in a shuffled order that is always the same: (n,)."""
    generator, fold = np.random.default_rng(0), np.empty(len(is_fake), dtype=np.intp)
    for rows in (np.flatnonzero(~is_fake), np.flatnonzero(is_fake)):
        fold[generator.permutation(rows)] = np.arange(len(rows)) % FOLDS
    return fold


def fit_temperature(is_fake: ArrayLike, p_fake: ArrayLike) -> float:
    """Fit the temperature on real and fake validation images (Guo et al., 2017), in [0.001, 1000].

    Log-odds are divided by the temperature; it is above 1 if the detector is overconfident. The labels are smoothed as
    by Platt (1999): FAKE is (n + 1) / (n + 2) for n fake images, and REAL is 1 / (n + 2) for n real ones. Otherwise
    the likelihood would have no maximum if all images were predicted correctly, and all probabilities would become 0
    or 1.
    """
    truth, scores = _as_arrays(is_fake, p_fake)
    n_fake, n_real = int(truth.sum()), int((~truth).sum())
    if not n_fake or not n_real:
        raise ValueError(
            f"expected real and fake validation images to fit a temperature; found {n_real} real and {n_fake} fake."
        )
    target, odds = np.where(truth, (n_fake + 1) / (n_fake + 2), 1 / (n_real + 2)), log_odds(scores)

    def loss(log_temperature: float) -> float:
        scaled = odds / np.exp(log_temperature)
        return float((np.logaddexp(0, scaled) - target * scaled).mean())

    found = minimize_scalar(loss, bounds=np.log(_TEMPERATURES), options={"xatol": 1e-9})
    return float(np.exp(found.x))


def log_odds(p_fake: ArrayLike) -> Floats:
    """Return log(p / (1 - p)), with p clipped to the resolution of 32-bit floats."""
    return np.asarray(logit(np.clip(np.asarray(p_fake, dtype=np.float64), _LEAST_P, 1 - _LEAST_P)), dtype=np.float64)


def scale(p_fake: ArrayLike, temperature: float) -> Floats:
    """Return probabilities, (n,) in [0, 1], whose log-odds are divided by the temperature; 1 / T undoes T."""
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
    is needed (Angelopoulos et al., 2025, *Learn then test*, Annals of Applied Statistics 19:1641-1662).

    If model and threshold were fixed beforehand, the promise would hold with 95% confidence on images of the same
    kind. `train.py` chooses the epoch on the same images, and `choose_operating_point` the threshold, unless it is one
    half, so the confidence is lower by an unknown amount. The temperature does not matter: it scales all distances
    alike. On images of another kind nothing is promised.

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
    """Choose temperature, threshold and abstention band on a validation split, whose fingerprint is `sha256`.

    `p_fake` are the probabilities before temperature scaling; threshold and band are on the scale after it.
    """
    temperature = fit_temperature(is_fake, p_fake)
    scaled = scale(p_fake, temperature)
    threshold, chosen = choose_threshold(is_fake, scaled)
    return OperatingPoint(
        threshold=threshold,
        chosen=chosen,
        n=len(scaled),
        sha256=sha256,
        temperature=temperature,
        band=choose_band(is_fake, scaled, threshold=threshold, promised=promised),
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
