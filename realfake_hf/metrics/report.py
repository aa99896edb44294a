"""From `is_fake` and `p_fake` to a report: every statistic with its n and its interval."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from realfake_hf.estimate import Estimate, to_plain
from realfake_hf.metrics.intervals import RATES, STATISTICS, bootstrap, confusion, make_sample

_UNDEFINED: Final = Estimate(None)


@dataclass(frozen=True)
class ContentReport:
    """How the images of one content (frog, ship, ...) were told apart; `accuracy_real` is that of its REAL images."""

    n: int
    n_real: int
    n_fake: int
    accuracy: Estimate
    accuracy_real: Estimate
    accuracy_fake: Estimate


@dataclass(frozen=True)
class Report:
    """How well REAL and FAKE were told apart. FAKE is positive: a false positive is a REAL image called FAKE.

    Attributes:
        n: images; `n_real` and `n_fake` of them are REAL and FAKE.
        threshold: an image is called FAKE when its `p_fake` is greater.
        true_negatives: REAL images called REAL.
        false_positives: REAL images called FAKE.
        false_negatives: FAKE images called REAL.
        true_positives: FAKE images called FAKE.
        accuracy_real: share of the REAL images called REAL (specificity).
        accuracy_fake: share of the FAKE images called FAKE; `recall` is its other name.
        balanced_accuracy: mean of `accuracy_real` and `accuracy_fake`.
        f1: 2 TP / (2 TP + FP + FN).
        roc_auc: chance that a FAKE image scores above a REAL one, ties counting half.
        average_precision: step-wise area under precision and recall, tied scores entering together.
        ece: expected calibration error of the positive class; `make_report` defines it.
        brier: mean squared difference between `p_fake` and the truth.
        by_content: sorted by name; empty where the content is unknown.
        bootstrap_samples: replicates behind each interval; 0 for no intervals.
        seed: of the bootstrap.
        tpr_at_5_fpr: share of the FAKE images called FAKE by the threshold that calls most of them so, with at most
            5 % of the REAL ones; chosen on these very images, so that it ranks detectors and promises nothing.
        tpr_at_1_fpr: the same at 1 %.
        nll: mean negative logarithm of the probability of the truth, in nats; that of 0 is taken for 2.2e-16. The
            last three are undefined in reports of versions that did not know them.
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
        """The statistics without their intervals, by name; undefined ones are left out."""
        values = {name: getattr(self, name).value for name in STATISTICS}
        return {name: value for name, value in values.items() if value is not None}

    def to_dict(self) -> dict[str, Any]:
        """The report as plain numbers, strings and dictionaries: None, and never NaN, for what is undefined."""
        return to_plain(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read back what `to_dict` wrote."""
        by_content = {name: ContentReport(**_with_estimates(row, RATES)) for name, row in data["by_content"].items()}
        return cls(**{**_with_estimates(data, STATISTICS), "by_content": by_content})

    def to_markdown(self) -> str:
        """Render a table of the statistics, each with the images it is counted over, and a table of the contents."""
        counted_over = {
            "accuracy_real": self.n_real,
            "accuracy_fake": self.n_fake,
            "recall": self.n_fake,
            "tpr_at_5_fpr": self.n_fake,
            "tpr_at_1_fpr": self.n_fake,
            "precision": self.true_positives + self.false_positives,
        }
        rows = [f"| {name} | {counted_over.get(name, self.n):,} | {getattr(self, name)} |" for name in STATISTICS]
        return "\n".join(
            ["| statistic | n | value |", "|---|--:|--:|", *rows, *self._content_table(), "", self._note()]
        )

    def _content_table(self) -> list[str]:
        if not self.by_content:
            return []
        rows = [
            f"| {name} | {row.n:,} | {row.accuracy} | {row.accuracy_real} | {row.accuracy_fake} |"
            for name, row in self.by_content.items()
        ]
        return ["", "| content | n | accuracy | on REAL | on FAKE |", "|---|--:|--:|--:|--:|", *rows]

    def _note(self) -> str:
        note = f"{self.n_real:,} REAL and {self.n_fake:,} FAKE images, called FAKE above {self.threshold:g}."
        if not self.bootstrap_samples:
            return note
        return f"{note} In brackets: 95 % interval, {self.bootstrap_samples:,} bootstrap samples, seed {self.seed}."


def make_report(
    is_fake: ArrayLike,
    p_fake: ArrayLike,
    *,
    content: Sequence[str | None] | None = None,
    threshold: float = 0.5,
    bootstrap_samples: int = 1000,
    seed: int = 0,
) -> Report:
    """Measure how well `p_fake` tells FAKE from REAL.

    An image is called FAKE when `p_fake > threshold`. At 0.5 that is the argmax of a two-class softmax, where a
    tie goes to the first class, REAL.

    Intervals are percentiles of the bootstrap (Efron & Tibshirani, 1993, ch. 13): images are drawn with replacement,
    so the share of FAKE varies too. Replicates in which a statistic is undefined are dropped from its interval.

    The expected calibration error is the binary one (Naeini et al., 2015): over 15 equal-width bins of `p_fake` in
    [0, 1], the last one closed, the mean of |mean p_fake - share of FAKE|, weighted by the images in each bin. Guo
    et al. (2017) bin the confidence of the predicted class instead, which means nothing once the threshold moves.
    The error is biased upward in small samples (Kumar et al., 2019) and more so in their replicates; these are
    shifted until their mean is the value, so that its interval shows the spread, not the bias.

    Args:
        is_fake: (n,) bool, the truth.
        p_fake: (n,) float in [0, 1], the probability of FAKE.
        content: (n,) what each image shows; an image of content None counts in no row of `by_content`.
        threshold: in [0, 1].
        bootstrap_samples: replicates; 0 for no intervals.
        seed: of the bootstrap: same seed, same intervals.

    Raises:
        ValueError: no images; lengths that differ; `is_fake` not boolean; `p_fake` or the threshold outside [0, 1].

    >>> report = make_report([False, False, True, True], [0.1, 0.6, 0.7, 0.9], bootstrap_samples=0)
    >>> print(report.accuracy, report.roc_auc, report.false_positives)
    0.750 1.000 1
    """
    truth, scores = np.asarray(is_fake), np.asarray(p_fake, dtype=np.float64)
    _check(truth, scores, content, threshold=threshold)
    names, codes = _encode([None] * len(truth) if content is None else content)
    sample = make_sample(truth, scores, content=codes, contents=len(names), threshold=threshold)
    counts = confusion(sample, np.ones(len(truth)))
    total = counts.sum(axis=0)
    table = bootstrap(sample, samples=bootstrap_samples, seed=seed)
    rates = table[len(STATISTICS) :].reshape(len(names), len(RATES), 3)
    return Report(
        **_sizes(total),
        **_confusion_counts(total),
        **_estimates(STATISTICS, table[: len(STATISTICS)]),
        threshold=float(threshold),
        by_content={
            name: ContentReport(**_sizes(row), **_estimates(RATES, part))
            for name, row, part in zip(names, counts[:-1], rates, strict=True)
        },
        bootstrap_samples=bootstrap_samples,
        seed=seed,
    )


def _check(
    is_fake: NDArray[Any], p_fake: NDArray[np.float64], content: Sequence[str | None] | None, *, threshold: float
) -> None:
    shown = is_fake.shape if content is None else (len(content),)
    if is_fake.ndim != 1 or not is_fake.shape == p_fake.shape == shown:
        found = f"is_fake {is_fake.shape}, p_fake {p_fake.shape}" + ("" if content is None else f", content {shown}")
        raise ValueError(
            f"wanted one entry an image, (n,), in each argument; found {found}. Pass the same images to all."
        )
    if not len(is_fake):
        raise ValueError("wanted at least one image to measure; found none. Check the source, split and limit.")
    if is_fake.dtype != np.bool_:
        raise ValueError(f"wanted is_fake as booleans; found {is_fake.dtype}. Compare first: labels == FAKE.")
    outside = np.flatnonzero(~((p_fake >= 0) & (p_fake <= 1)))  # NaN is outside too
    if outside.size:
        raise ValueError(
            f"wanted p_fake in [0, 1]; found {outside.size:,} of {p_fake.size:,} outside, the first is "
            f"{p_fake[outside[0]]} at index {outside[0]}. Pass the softmax of the logits; NaN means a diverged model."
        )
    if not 0 <= threshold <= 1:
        raise ValueError(
            f"wanted a threshold in [0, 1]; found {threshold}. It is compared with p_fake, a probability."
        )


def _encode(content: Sequence[str | None]) -> tuple[list[str], list[int]]:
    """The names that occur, sorted, and each image's index into them; one past the last for None."""
    names = sorted({name for name in content if name is not None})
    code = {name: index for index, name in enumerate([*names, None])}
    return names, [code[name] for name in content]


def _sizes(counts: NDArray[np.float64]) -> dict[str, Any]:
    real, fake = int(counts[:2].sum()), int(counts[2:].sum())
    return {"n": real + fake, "n_real": real, "n_fake": fake}


def _confusion_counts(counts: NDArray[np.float64]) -> dict[str, Any]:
    names = ("true_negatives", "false_positives", "false_negatives", "true_positives")
    return {name: int(count) for name, count in zip(names, counts, strict=True)}


def _estimates(names: Sequence[str], table: NDArray[np.float64]) -> dict[str, Any]:
    """Name the rows (value, low, high) of a table, and say None for NaN."""
    rows = [[None if np.isnan(number) else float(number) for number in row] for row in table]
    return {name: Estimate(value, low, high) for name, (value, low, high) in zip(names, rows, strict=True)}


def _with_estimates(data: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    return {**data, **{name: Estimate.from_dict(data[name]) for name in names if name in data}}
