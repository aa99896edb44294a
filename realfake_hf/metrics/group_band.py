"""Choose threshold, temperature and band so that their promise holds for sources of images that are new to a model.

All functions take the scores of images that were judged out of fold: (n,) arrays of `is_fake`, bool, the true labels,
`p_fake`, in [0, 1], `groups`, who made or owns an image, and `folds`, of which each group lies in one. Images beyond
the limits of a model are left out beforehand. No other images have a part in the choice.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit
from scipy.stats import binom

from realfake_hf.estimate import Estimate
from realfake_hf.labels import Verdict
from realfake_hf.metrics.calibration import log_odds
from realfake_hf.metrics.intervals import Flags, Floats, share
from realfake_hf.metrics.operating_point import Band, Limits, OperatingPoint
from realfake_hf.sampling import BALANCED, balanced_weights

ERROR: Final = 0.10  # highest share of wrong verdicts among those that are sure
FALSE_ALARMS: Final = 0.03  # highest share of real images that are surely called FAKE

_KEPT: Final = 0.8  # share of new groups for which the promise holds
_CONFIDENCE: Final = 0.95
_LEAST_GROUPS: Final = 14  # with fewer, even the worst group shows nothing about four of five with this confidence
_LEAST_COVERAGE: Final = 0.1  # share of the images that a band decides
_PRIOR: Final = 2.0  # images at the common rate that are added to each group, for groups of few images
_CANDIDATES: Final = 100  # for each end of the band

Counts = NDArray[np.float64]  # (groups, candidates)


@dataclass(frozen=True)
class GroupOutcome:
    """How the verdicts of an operating point turn out."""

    decided: Estimate  # share of sure verdicts among all images
    wrong: Estimate  # share of wrong verdicts among the sure ones
    false_alarms: Estimate  # share of the real images that are surely called FAKE
    # upper bound of the share of wrong verdicts in four of five new groups, or the mean share of all groups if that is
    # higher; see `choose_for_groups`
    worst_wrong: float
    worst_false_alarms: float  # the same for false alarms
    groups: int  # number of groups


@dataclass(frozen=True)
class _Scores:
    """Scores with what the choice needs."""

    is_fake: Flags  # (n,) the true labels
    p_fake: Floats  # (n,) probabilities
    real_side: Floats  # (n,) probabilities that must be at most the lower end of the band for a sure REAL
    fake_side: Floats  # (n,) probabilities that must be at least the upper end of the band for a sure FAKE
    group: NDArray[np.intp]  # (n,) indices from 0
    weights: Floats  # (n,) one over the root of the group's size, the same in total for both labels

    def select(self, images: Flags) -> "_Scores":
        """Return the scores of some images, whose groups keep their numbers."""
        values = (getattr(self, each.name)[images] for each in fields(self))
        return _Scores(*values)

    def count(self, images: Flags, column: NDArray[np.intp], n_columns: int) -> Counts:
        """Count images by group and column: (groups, columns)."""
        n_groups = int(self.group.max()) + 1
        place = self.group[images] * n_columns + column[images]
        return np.bincount(place, minlength=n_groups * n_columns).reshape(n_groups, n_columns).astype(np.float64)


def choose_for_groups(
    is_fake: ArrayLike,
    p_fake: ArrayLike,
    groups: ArrayLike,
    folds: ArrayLike,
    *,
    variants: ArrayLike | None = None,
    spread: ArrayLike | None = None,
    limits: Limits | None = None,
    error: float = ERROR,
    false_alarms: float = FALSE_ALARMS,
    sha256: str | None = None,
) -> OperatingPoint:
    """Choose the operating point whose promise holds up to the worst fifth of the groups.

    Threshold and temperature are those of a logistic regression on the log-odds (Platt, 1999), in which an image
    weighs one over the root of its group's size, and both labels weigh the same. The ends of the band, on each side of
    the threshold, decide as many images as possible, by these weights, of all pairs of ends that keep the promise in
    each variant: in four of five groups the share of wrong verdicts among the sure ones is at most `error`, and the
    share of real images surely called FAKE at most `false_alarms`, and so are the means over all groups. All groups
    count the same, however large. To the images of each group two are added at the rate of all groups, so that one
    error in a group of three is not a third, and a group without sure verdicts has the common rate. The rank of the
    group that counts is that of a nonparametric tolerance limit (Wilks, 1941, Annals of Mathematical Statistics
    12:91-96): if groups are exchangeable, a given band that passes keeps its promise in four of five new groups with
    95% confidence. The choice among many bands costs a part of it: 90% of the choices of `tests/test_group_band.py`
    keep theirs. Threshold and band are on the scale of `p_fake` as given, before the temperature.

    Args:
        is_fake: see the module.
        p_fake: see the module.
        groups: see the module.
        folds: see the module.
        variants: (n,) variant of each image, such as its compression; None means that all are of one.
        spread: (n,) standard deviation of the log-odds of the views, for `limits.widening`; None means none.
        limits: recorded in the operating point, whose band is chosen with their widening.
        error: highest share of wrong verdicts among the sure ones.
        false_alarms: highest share of real images that are surely called FAKE.
        sha256: fingerprint of the images.

    Raises:
        ValueError: a label is missing, a group lies in several folds, there are fewer than 14 groups or two folds,
            fake images have no higher scores, or less than a tenth of the images can be decided.
    """
    scores = _prepare(is_fake, p_fake, groups, folds, spread=spread, limits=limits)
    threshold, temperature = fit_threshold(is_fake, p_fake, groups)
    kinds = np.zeros(len(scores.p_fake)) if variants is None else np.asarray(variants)
    parts = [scores.select(kinds == kind) for kind in np.unique(kinds)]
    low, high = _choose_ends(parts, threshold, error=error, false_alarms=false_alarms)
    n_groups = int(scores.group.max()) + 1
    return OperatingPoint(
        threshold=threshold,
        chosen=f"one half by logistic regression on out-of-fold scores of {n_groups} groups",
        n=len(scores.p_fake),
        sha256=sha256,
        temperature=temperature,
        band=Band(low, high, error),
        limits=limits,
        calibrated=False,
    )


def fit_threshold(is_fake: ArrayLike, p_fake: ArrayLike, groups: ArrayLike) -> tuple[float, float]:
    """Return threshold and temperature by logistic regression on the log-odds; see `choose_for_groups`.

    Raises:
        ValueError: fake images have no higher scores.
    """
    from sklearn.linear_model import LogisticRegression

    truth, p = np.asarray(is_fake, np.bool_), np.asarray(p_fake, np.float64)
    odds = log_odds(p)
    scale = float(odds.std()) or 1.0
    fitted = LogisticRegression().fit(odds[:, None] / scale, truth, sample_weight=_weights(truth, groups))
    slope, intercept = float(fitted.coef_[0, 0]) / scale, float(fitted.intercept_[0])
    if slope <= 0:
        raise ValueError(f"expected higher scores of fake images; found a slope of {slope:.3g}. Train again.")
    return float(expit(-intercept / slope)), 1 / slope


def outcome(
    point: OperatingPoint,
    is_fake: ArrayLike,
    p_fake: ArrayLike,
    groups: ArrayLike,
    *,
    spread: ArrayLike | None = None,
    is_far: ArrayLike | None = None,
) -> GroupOutcome:
    """Measure the verdicts of an operating point on images, some of which may be far; see the module."""
    rows = zip(
        *np.broadcast_arrays(p_fake, 0.0 if spread is None else spread, is_far is not None and is_far), strict=True
    )
    verdicts = [point.judge(float(p), spread=float(own), is_far=bool(far)) for p, own, far in rows]
    return count_verdicts(verdicts, is_fake, groups)


def count_verdicts(verdicts: Sequence[Verdict], is_fake: ArrayLike, groups: ArrayLike) -> GroupOutcome:
    """Count the verdicts on images; see the module."""
    truth, group = np.asarray(is_fake, np.bool_), np.unique(np.asarray(groups), return_inverse=True)[1]
    is_sure = np.array([verdict.is_sure is not False for verdict in verdicts])
    called_fake = np.array([verdict.label == "FAKE" for verdict in verdicts])
    wrong, alarm = is_sure & (called_fake != truth), is_sure & called_fake & ~truth
    sums = [np.bincount(group, flags).astype(np.float64)[:, None] for flags in (wrong, is_sure, alarm, ~truth)]
    size = np.bincount(group).astype(np.float64)
    return GroupOutcome(
        decided=share(int(is_sure.sum()), len(truth)),
        wrong=share(int(wrong.sum()), int(is_sure.sum())),
        false_alarms=share(int(alarm.sum()), int((~truth).sum())),
        worst_wrong=float(_worst_share(sums[0], sums[1], size)[0]),
        worst_false_alarms=float(_worst_share(sums[2], sums[3], sums[3][:, 0])[0]),
        groups=len(sums[0]),
    )


def _prepare(
    is_fake: ArrayLike, p_fake: ArrayLike, groups: ArrayLike, folds: ArrayLike, *, spread: ArrayLike | None,
    limits: Limits | None,
) -> _Scores:  # fmt: skip
    truth, p = np.asarray(is_fake, np.bool_), np.asarray(p_fake, np.float64)
    names, group = np.unique(np.asarray(groups), return_inverse=True)
    pairs = np.unique(np.stack([group, np.unique(np.asarray(folds), return_inverse=True)[1]]), axis=1)
    several = names[np.flatnonzero(np.bincount(pairs[0]) > 1)]
    if len(several):
        raise ValueError(f"expected each group in one fold; found {several[0]} in several. Judge it out of fold.")
    if len(names) < _LEAST_GROUPS or len(np.unique(pairs[1])) < 2 or truth.all() or not truth.any():  # noqa: PLR2004
        raise ValueError(
            f"expected real and fake images of at least {_LEAST_GROUPS} groups in two folds; found {(~truth).sum()} "
            f"real and {truth.sum()} fake images of {len(names)} groups."
        )
    sides = (p, p)
    if limits and spread is not None:
        margin = limits.widening * np.asarray(spread, np.float64)
        sides = (expit(log_odds(p) + margin), expit(log_odds(p) - margin))
    return _Scores(truth, p, *sides, group, _weights(truth, groups))


def _weights(truth: Flags, groups: ArrayLike) -> Floats:
    """Return weights balanced over labels and groups, of mean 1."""
    names = [str(name) for name in np.asarray(groups)]
    return balanced_weights(BALANCED, truth, names) * len(truth)


def _choose_ends(
    parts: Sequence[_Scores], threshold: float, *, error: float, false_alarms: float
) -> tuple[float, float]:
    """Return the lower and the upper end of the band that decides most of all parts and keeps the promise in each."""
    real_side = np.concatenate([part.real_side for part in parts])
    fake_side = np.concatenate([part.fake_side for part in parts])
    lows = np.unique([0.0, *_between(real_side[real_side <= threshold]), threshold])
    highs = np.unique([threshold, *_between(fake_side[fake_side >= threshold]), 1.0])
    coverage, is_kept = np.zeros((len(lows), len(highs))), np.ones((len(lows), len(highs)), dtype=np.bool_)
    for part in parts:
        decided, kept = _judge_ends(part, lows, highs, threshold, error=error, false_alarms=false_alarms)
        coverage += decided
        is_kept &= kept
    coverage[~is_kept] = 0
    if coverage.max() < _LEAST_COVERAGE * len(real_side):
        raise ValueError(
            f"expected scores by which a tenth of the images can be decided with at most {error:.0%} wrong and "
            f"{false_alarms:.0%} false alarms in the worst groups; found none. Train the model on more sources."
        )
    best = np.unravel_index(int(coverage.argmax()), coverage.shape)
    return float(lows[best[0]]), float(highs[best[1]])


def _judge_ends(
    scores: _Scores, lows: Floats, highs: Floats, threshold: float, *, error: float, false_alarms: float
) -> tuple[Floats, Flags]:
    """Return the weight of the decided images for each pair of ends, and whether it keeps the promise."""
    first = np.searchsorted(lows, scores.real_side)  # the lowest end at which an image is a sure REAL
    last = np.searchsorted(highs, scores.fake_side, side="right") - 1  # the highest end at which it is a sure FAKE
    real, fake = first < len(lows), (last >= 0) & (scores.p_fake > threshold)
    truth = scores.is_fake
    called_real, missed = (scores.count(each, first, len(lows)).cumsum(1) for each in (real, real & truth))
    called_fake, alarms = (
        scores.count(each, last, len(highs))[:, ::-1].cumsum(1)[:, ::-1] for each in (fake, fake & ~truth)
    )
    size, n_real = (
        np.bincount(each, minlength=len(alarms)).astype(np.float64) for each in (scores.group, scores.group[~truth])
    )
    allowed = _worst_share(alarms, np.broadcast_to(n_real[:, None], alarms.shape), n_real) <= false_alarms
    decided = (
        np.bincount(first[real], scores.weights[real], len(lows)).cumsum()[:, None]
        + (np.bincount(last[fake], scores.weights[fake], len(highs))[::-1].cumsum()[::-1])
    )
    rows = ((missed[:, [row]] + alarms, called_real[:, [row]] + called_fake) for row in range(len(lows)))
    return decided, np.stack([allowed & (_worst_share(*row, size) <= error) for row in rows])


def _between(values: Floats) -> Floats:
    """Return at most `_CANDIDATES` numbers between neighbouring values."""
    distinct = np.unique(values)
    middles: Floats = (distinct[1:] + distinct[:-1]) / 2
    return middles[np.unique(np.linspace(0, len(middles) - 1, min(_CANDIDATES, len(middles))).astype(np.intp))]


def _worst_share(part: Floats, whole: Floats, size: Floats) -> Floats:
    """Return the greater of the share that four of five groups do not pass and the mean share: (candidates,).

    Groups of size 0 do not count; size is (groups,).
    """
    part, whole = part[size > 0], whole[size > 0]
    if not len(whole):
        return np.zeros(whole.shape[1])
    roots = np.sqrt(np.maximum(whole, 1))
    rate = (part / roots).sum(axis=0) / np.maximum((whole / roots).sum(axis=0), 1e-12)
    shares = (part + _PRIOR * rate) / (whole + _PRIOR)
    rank = min(len(shares) - 1, int(binom.ppf(_CONFIDENCE, len(shares), _KEPT)))
    found: Floats = np.maximum(np.partition(shares, rank, axis=0)[rank], shares.mean(axis=0))
    return found
