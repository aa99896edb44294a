"""Measure how well `p_fake` separates FAKE from REAL images: statistics with intervals, in total and by content."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from realfake_hf.estimate import Estimate, from_plain, to_plain
from realfake_hf.metrics.intervals import (
    RATES,
    STATISTICS,
    Flags,
    Floats,
    ScoredImages,
    bootstrap,
    bootstrap_estimate,
    confusion,
)

_UNDEFINED: Final = Estimate(None)
_BATCH: Final = 50  # replicates of the ROC AUC whose weights are in memory at once


@dataclass(frozen=True)
class ContentReport:
    """Rates of the images of one content, such as frog or ship."""

    n: int
    n_real: int
    n_fake: int
    accuracy: Estimate
    accuracy_real: Estimate
    accuracy_fake: Estimate


@dataclass(frozen=True)
class Report:
    """Measurements of one detector on one set of images. FAKE is the positive class.

    Attributes:
        threshold: images with a greater `p_fake` are called FAKE.
        accuracy_real: share of the REAL images called REAL (specificity).
        accuracy_fake: share of the FAKE images called FAKE (sensitivity, `recall`).
        roc_auc: probability that a FAKE image scores above a REAL one, ties counting half.
        average_precision: step-wise area under the precision-recall curve.
        ece: expected calibration error of the positive class; see `make_report`.
        by_content: reports by name, sorted; empty if no content is known.
        bootstrap_samples: replicates of each interval; 0 for no intervals.
        seed: random seed of the bootstrap.
        tpr_at_5_fpr: highest true positive rate of a threshold with a false positive rate of at most 5%. The
            threshold is chosen on the measured images, so the value compares detectors but predicts nothing. This and
            the following are undefined in reports of older versions.
        tpr_at_1_fpr: the same at 1%.
        nll: mean negative log-likelihood of the labels, in nats; a probability of 0 counts as 2.2e-16.
    """

    n: int
    n_real: int
    n_fake: int
    threshold: float
    true_negatives: int
    false_positives: int
    false_negatives: int
    true_positives: int
    accuracy: Estimate
    accuracy_real: Estimate
    accuracy_fake: Estimate
    balanced_accuracy: Estimate
    precision: Estimate
    recall: Estimate
    f1: Estimate
    roc_auc: Estimate
    average_precision: Estimate
    ece: Estimate
    brier: Estimate
    by_content: dict[str, ContentReport]
    bootstrap_samples: int
    seed: int
    tpr_at_5_fpr: Estimate = _UNDEFINED
    tpr_at_1_fpr: Estimate = _UNDEFINED
    nll: Estimate = _UNDEFINED

    def point_values(self) -> dict[str, float]:
        """Return the values without intervals, by name, leaving out undefined ones."""
        values = {name: getattr(self, name).value for name in STATISTICS}
        return {name: value for name, value in values.items() if value is not None}

    def to_dict(self) -> dict[str, Any]:
        """Return plain numbers, strings and dictionaries; undefined values are None, never NaN."""
        return to_plain(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Restore the result of `to_dict`."""
        return from_plain(cls, data)


def make_report(
    is_fake: ArrayLike,
    p_fake: ArrayLike,
    *,
    content: Sequence[str | None] | None = None,
    groups: Sequence[str] | None = None,
    threshold: float = 0.5,
    bootstrap_samples: int = 1000,
    seed: int = 0,
) -> Report:
    """Measure how well `p_fake` separates FAKE from REAL images.

    An image is called FAKE if `p_fake > threshold`. At 0.5 this equals the argmax of a two-class softmax, where ties
    go to the first class, REAL.

    Intervals are bootstrap percentiles (Efron & Tibshirani, 1993, ch. 13): images are drawn with replacement, so the
    share of FAKE images varies as well. Replicates in which a statistic is undefined are dropped.

    The expected calibration error is the binary one (Naeini et al., 2015): with 15 equal-width bins of `p_fake` in
    [0, 1], the mean of |mean p_fake - share of FAKE| over the bins, weighted by their number of images. Guo et al.
    (2017) bin the confidence of the predicted class instead, which is not meaningful for thresholds other than 0.5.
    The error is biased upward in small samples (Kumar et al., 2019), and more so in their replicates. The replicates
    are shifted so that their mean equals the value: the interval shows the spread, not the bias.

    Args:
        is_fake: (n,) bool, true labels.
        p_fake: (n,) float in [0, 1], the probability of FAKE.
        content: (n,) what each image shows; `by_content` does not include images of content None.
        groups: (n,) who made or owns each image: whole groups are drawn, because their images resemble each other.
        threshold: in [0, 1].
        bootstrap_samples: number of replicates; 0 for no intervals.
        seed: random seed of the bootstrap.

    Raises:
        ValueError: there are no images, lengths differ, `is_fake` is not boolean, or `p_fake` or the threshold is
            outside [0, 1].

    >>> report = make_report([False, False, True, True], [0.1, 0.6, 0.7, 0.9], bootstrap_samples=0)
    >>> print(report.accuracy, report.roc_auc, report.false_positives)
    0.750 1.000 1
    """
    truth, scores = np.asarray(is_fake), np.asarray(p_fake, dtype=np.float64)
    _check(truth, scores, content, threshold=threshold)
    names = sorted({name for name in content or () if name is not None})
    code = {name: index for index, name in enumerate([*names, None])}
    codes = [code[name] for name in content or [None] * len(truth)]
    images = ScoredImages(truth, scores, content=codes, contents=len(names), threshold=threshold)
    counts = confusion(images, np.ones(len(truth))).astype(int)
    total = counts.sum(axis=0)
    true_negatives, false_positives, false_negatives, true_positives = total.tolist()
    number = None if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    estimates = iter(bootstrap(images, samples=bootstrap_samples, seed=seed, groups=number))
    return Report(
        **_sizes(total),
        true_negatives=true_negatives,
        false_positives=false_positives,
        false_negatives=false_negatives,
        true_positives=true_positives,
        **{name: next(estimates) for name in STATISTICS},  # type: ignore[arg-type]
        threshold=float(threshold),
        by_content={
            name: ContentReport(**_sizes(row), **{rate: next(estimates) for rate in RATES})  # type: ignore[arg-type]
            for name, row in zip(names, counts[:-1], strict=True)
        },
        bootstrap_samples=bootstrap_samples,
        seed=seed,
    )


def estimate_roc_auc(is_fake: Flags, p_fake: NDArray[np.floating], *, samples: int, seed: int) -> Estimate:
    """Estimate the ROC AUC of scores (n,), with a bootstrap that draws images with replacement within each label.

    Without samples, the estimate has no interval. It is undefined if all images have the same label.
    """
    if is_fake.all() or not is_fake.any():
        return Estimate(None)
    value = float(roc_auc(is_fake, p_fake, np.ones((1, len(is_fake))))[0])
    generator = np.random.default_rng(seed)
    sizes = [min(_BATCH, samples - start) for start in range(0, samples, _BATCH)]
    replicates = [roc_auc(is_fake, p_fake, draw_by_label(is_fake, size, generator)) for size in sizes]
    return bootstrap_estimate(value, np.concatenate([np.empty(0), *replicates]))


def roc_auc(is_fake: Flags, p_fake: NDArray[np.floating], weights: Floats) -> Floats:
    """Compute the ROC AUC of scores (n,) under many weightings of the images, (weightings, n), not negative.

    The result is (weightings,) in [0, 1]; NaN where the weights of one label sum to 0.
    """
    order = np.argsort(p_fake[~is_fake])
    fake, real = weights[:, is_fake], weights[:, ~is_fake][:, order]
    below = np.pad(np.cumsum(real, axis=1), ((0, 0), (1, 0)))  # sums of the weights of the lowest REAL images
    ends = (np.searchsorted(p_fake[~is_fake][order], p_fake[is_fake], side) for side in ("left", "right"))
    lower = sum(below[:, end] for end in ends) / 2  # REAL images below each FAKE one, ties counting half
    with np.errstate(invalid="ignore"):  # 0 / 0 without FAKE or without REAL images
        return np.asarray((fake * lower).sum(axis=1) / (fake.sum(axis=1) * real.sum(axis=1)))


def draw_by_label(is_fake: Flags, samples: int, generator: np.random.Generator) -> Floats:
    """Return how often each image is drawn if each label is drawn as often as it occurs: (samples, n)."""
    weights = np.empty((samples, len(is_fake)))
    for mask in (is_fake, ~is_fake):
        n = int(mask.sum())
        drawn = generator.integers(n, size=(samples, n)) + n * np.arange(samples)[:, None]
        weights[:, mask] = np.bincount(drawn.ravel(), minlength=samples * n).reshape(samples, n)
    return weights


def _check(
    is_fake: NDArray[Any], p_fake: NDArray[np.float64], content: Sequence[str | None] | None, *, threshold: float
) -> None:
    content_shape = is_fake.shape if content is None else (len(content),)
    if is_fake.ndim != 1 or not is_fake.shape == p_fake.shape == content_shape:
        shapes = f"is_fake {is_fake.shape}, p_fake {p_fake.shape}"
        shapes += "" if content is None else f", content {content_shape}"
        raise ValueError(f"expected one entry per image, (n,), in each argument; found {shapes}.")
    if not len(is_fake):
        raise ValueError("expected at least one image to measure; found none. Check the source, split and limit.")
    if is_fake.dtype != np.bool_:
        raise ValueError(f"expected is_fake as booleans; found {is_fake.dtype}. Pass labels == FAKE.")
    outside = np.flatnonzero(~((p_fake >= 0) & (p_fake <= 1)))  # also finds NaN
    if outside.size:
        raise ValueError(
            f"expected p_fake in [0, 1]; found {outside.size:,} of {p_fake.size:,} values outside, the first is "
            f"{p_fake[outside[0]]} at index {outside[0]}. Apply a softmax to the logits; NaN means a diverged model."
        )
    if not 0 <= threshold <= 1:
        raise ValueError(f"expected a threshold in [0, 1], to compare with p_fake; found {threshold}.")


def _sizes(counts: NDArray[np.int64]) -> dict[str, Any]:
    real, fake = int(counts[:2].sum()), int(counts[2:].sum())
    return {"n": real + fake, "n_real": real, "n_fake": fake}
