"""Can a probability be taken at its word? Temperature scaling, reliability, and when a detector should keep silent."""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, logit
from scipy.stats import beta
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator

from realfake_hf.metrics.intervals import ECE_BINS
from realfake_hf.metrics.operating_point import Band, OperatingPoint
from realfake_hf.metrics.threshold import best_threshold

CHOSEN: Final = "most accurate on the validation split of the training"
PROMISED: Final = 0.01  # share of wrong verdicts among decided ones
CONFIDENCE_BINS: Final = 10  # of [0.5, 1]

_LEAST_P: Final = float(np.finfo(np.float32).eps) / 2  # a float32 probability says no more
_LEAST_DECIDED: Final = 0.1  # share of the validation pictures that a band must decide
_FORGIVEN: Final = 2  # wrong verdicts that the widest band may have
_STEPS: Final = 91  # bands tried
_RISK: Final = 0.05  # that the promise does not hold on pictures like those of validation
_CURVE: Final = 101  # points of a risk-coverage curve

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Bin:
    """Pictures whose `p_fake` lies in [low, high), the last bin being closed.

    Attributes:
        low: lower end.
        high: upper end.
        n: pictures in it.
        mean_p_fake: what the detector says; None where the bin is empty.
        share_fake: how many are FAKE, in [0, 1]; None where the bin is empty.
    """

    low: float
    high: float
    n: int
    mean_p_fake: float | None
    share_fake: float | None


@dataclass(frozen=True)
class Histogram:
    """How sure verdicts were, right ones and wrong ones apart.

    Attributes:
        edges: (k + 1,) of the bins of the probability of the label that was given, from 0.5 to 1; lower ones, which
            another threshold than one half makes possible, are in the first bin.
        right: (k,) right verdicts.
        wrong: (k,) wrong ones.
    """

    edges: tuple[float, ...]
    right: tuple[int, ...]
    wrong: tuple[int, ...]


@dataclass(frozen=True)
class RiskCoverage:
    """What is gained by deciding the surest pictures only (El-Yaniv & Wiener, 2010, JMLR 11:1605-1641).

    Attributes:
        coverage: share of the pictures decided, rising to 1.
        risk: share of wrong verdicts among them.
        area: mean risk over all coverages, in [0, 1].
    """

    coverage: tuple[float, ...]
    risk: tuple[float, ...]
    area: float


class _Known(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn is not typed
    """A classifier whose inputs are its own log-odds."""

    def fit(self, x: Floats, y: NDArray[np.bool_]) -> "_Known":  # noqa: ARG002 - scikit-learn's signature
        """Learn nothing but that there are two classes."""
        self.classes_ = np.array([False, True])
        return self

    def decision_function(self, x: Floats) -> Floats:
        """Give half of the log-odds, which scikit-learn spreads over both classes."""
        return x[:, 0] / 2

    def predict(self, x: Floats) -> NDArray[np.bool_]:
        """Give the likelier class."""
        return x[:, 0] > 0


def fit_temperature(is_fake: ArrayLike, p_fake: ArrayLike) -> float:
    """Fit the temperature by which log-odds are divided to be calibrated (Guo et al., 2017), with scikit-learn.

    Args:
        is_fake: (n,) bool, of validation images, both labels among them.
        p_fake: (n,) in [0, 1].

    Returns:
        Above 1 where the detector is surer than it is right.

    Raises:
        ValueError: there is one label only.
    """
    truth = np.asarray(is_fake, dtype=np.bool_)
    if truth.all() or not truth.any():
        raise ValueError(
            f"wanted real and fake validation pictures to fit a temperature on; found {int((~truth).sum())} and "
            f"{int(truth.sum())}."
        )
    odds = log_odds(p_fake)[:, None]
    every = np.arange(len(truth))  # nothing is learnt from the pictures but the temperature: no folds
    known = FrozenEstimator(_Known().fit(odds, truth))
    scaled = CalibratedClassifierCV(known, method="temperature", cv=[(every, every)], ensemble=False).fit(odds, truth)
    return 1 / float(logit(scaled.predict_proba(np.ones((1, 1)))[0, 1]))


def log_odds(p_fake: ArrayLike) -> Floats:
    """Give log(p / (1 - p)), with 0 and 1 taken for the nearest numbers that 32-bit floats hold beside 1."""
    return np.asarray(logit(np.clip(np.asarray(p_fake, dtype=np.float64), _LEAST_P, 1 - _LEAST_P)), dtype=np.float64)


def scale(p_fake: ArrayLike, temperature: float) -> Floats:
    """Divide the log-odds of probabilities by a temperature: (n,) in [0, 1]."""
    return np.asarray(expit(log_odds(p_fake) / temperature), dtype=np.float64)


def reliability(is_fake: ArrayLike, p_fake: ArrayLike) -> tuple[Bin, ...]:
    """Hold what a detector says against what is, in the equal bins of `make_report`'s calibration error."""
    truth, scores = np.asarray(is_fake, dtype=np.bool_), np.asarray(p_fake, dtype=np.float64)
    place = np.minimum((scores * ECE_BINS).astype(np.intp), ECE_BINS - 1)
    n, said, fakes = (np.bincount(place, weights, ECE_BINS) for weights in (None, scores, truth))
    return tuple(
        Bin(number / ECE_BINS, (number + 1) / ECE_BINS, int(count), *_shares(count, said[number], fakes[number]))
        for number, count in enumerate(n)
    )


def confidence_histogram(is_fake: ArrayLike, p_fake: ArrayLike, *, threshold: float) -> Histogram:
    """Count right and wrong verdicts by the probability of the label that they gave."""
    truth, scores = np.asarray(is_fake, dtype=np.bool_), np.asarray(p_fake, dtype=np.float64)
    called_fake = scores > threshold
    given = np.clip(np.where(called_fake, scores, 1 - scores), 0.5, 1)
    edges = np.linspace(0.5, 1, CONFIDENCE_BINS + 1)
    is_right = called_fake == truth
    right, wrong = (np.histogram(given[kind], edges)[0].tolist() for kind in (is_right, ~is_right))
    return Histogram(tuple(edges.tolist()), tuple(right), tuple(wrong))


def risk_coverage(is_fake: ArrayLike, p_fake: ArrayLike, *, threshold: float) -> RiskCoverage:
    """Decide the surest pictures first, whose log-odds lie farthest from the threshold's; ties enter together."""
    distance, is_wrong = _distances(is_fake, p_fake, threshold)
    order = np.argsort(-distance, kind="stable")
    decided = np.arange(1, len(order) + 1)
    wrong = is_wrong[order].cumsum()
    last = np.flatnonzero(np.diff(distance[order], append=-1.0))  # of each group of ties
    group = np.searchsorted(last, np.arange(len(order)))
    risk = (wrong[last] / decided[last])[group]
    shown = np.unique(np.linspace(0, len(last) - 1, min(_CURVE, len(last))).round().astype(np.intp))
    coverage = decided[last[shown]] / len(order)
    return RiskCoverage(tuple(coverage.tolist()), tuple(risk[last[shown]].tolist()), float(risk.mean()))


def choose_band(is_fake: ArrayLike, p_fake: ArrayLike, *, threshold: float, promised: float = PROMISED) -> Band | None:
    """Choose between which probabilities a detector says *unsure*, so that few of its other verdicts are wrong.

    The band lies around the threshold, as far to both sides in log-odds. Bands are tried from the widest to none at
    all. The widest decides a tenth of the pictures, or more if so few could not keep the promise with two of them
    wrong. Each band is tested against
    the promise with the exact binomial upper bound at 95 %, and the last one before the first that fails is taken.
    As the order of the tests is fixed beforehand, their number needs no correction (Angelopoulos et al., 2025, *Learn
    then test*, Annals of Applied Statistics 19:1641-1662): with 95 % certainty the promise holds on
    pictures of the same kind. It says nothing about pictures of another kind.

    Args:
        is_fake: (n,) bool, of validation images.
        p_fake: (n,) in [0, 1].
        threshold: called FAKE above it.
        promised: share of wrong verdicts among decided ones that must not be exceeded, in (0, 1).

    Returns:
        None where not even the widest band keeps the promise, or the pictures are too few to tell.

    Raises:
        ValueError: `promised` is outside (0, 1).
    """
    if not 0 < promised < 1:
        raise ValueError(f"wanted a promised error rate in (0, 1); found {promised}.")
    distance, is_wrong = _distances(is_fake, p_fake, threshold)
    narrowest = None
    for coverage in np.linspace(_least_coverage(len(distance), promised), 1, _STEPS):
        width = float(np.quantile(distance, 1 - coverage, method="lower")) if coverage < 1 else 0.0
        decided = distance >= width
        if _upper(int(is_wrong[decided].sum()), int(decided.sum())) > promised:
            break
        narrowest = width
    if narrowest is None:
        return None
    low, high = (float(end) for end in expit(log_odds(threshold) + np.array([-narrowest, narrowest])))
    return Band(low, high, promised) if narrowest else Band(threshold, threshold, promised)


def choose_operating_point(
    is_fake: ArrayLike, p_fake: ArrayLike, *, sha256: str | None = None, promised: float = PROMISED
) -> OperatingPoint:
    """Freeze what a model goes out with: threshold, temperature and band, all chosen on validation.

    Args:
        is_fake: (n,) bool, of the validation split of its training.
        p_fake: (n,) in [0, 1].
        sha256: the fingerprint of the split.
        promised: share of wrong verdicts among decided ones.
    """
    threshold = best_threshold(is_fake, p_fake)
    return OperatingPoint(
        threshold=threshold,
        chosen=CHOSEN,
        n=len(np.asarray(is_fake)),
        sha256=sha256,
        temperature=fit_temperature(is_fake, p_fake),
        band=choose_band(is_fake, p_fake, threshold=threshold, promised=promised),
    )


def _distances(is_fake: ArrayLike, p_fake: ArrayLike, threshold: float) -> tuple[Floats, NDArray[np.bool_]]:
    """How far each picture is from the threshold, in log-odds, and whether it is on the wrong side: (n,) each."""
    truth, scores = np.asarray(is_fake, dtype=np.bool_), np.asarray(p_fake, dtype=np.float64)
    return np.abs(log_odds(scores) - log_odds(threshold)), (scores > threshold) != truth


def _least_coverage(n: int, promised: float) -> float:
    """What the widest band decides; 1 where the pictures are too few for any."""
    enough = next((few for few in range(1, n) if _upper(min(few, _FORGIVEN), few) <= promised), n)
    return max(_LEAST_DECIDED, enough / n)


def _upper(wrong: int, n: int) -> float:
    return 1.0 if wrong == n else float(beta.ppf(1 - _RISK, wrong + 1, n - wrong))


def _shares(count: Any, said: Any, fakes: Any) -> tuple[float | None, float | None]:  # noqa: ANN401 - NumPy scalars
    return (float(said / count), float(fakes / count)) if count else (None, None)
