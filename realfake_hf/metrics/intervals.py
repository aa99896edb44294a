"""Statistics of two-class scores as functions of image weights, so that a bootstrap replicate is one more call.

A weight says how often an image counts: 1 for the value itself, the number of draws in a replicate. Whatever the
weights, every statistic is summed, counted and divided once, by the same lines.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

ECE_BINS: Final = 15  # Guo et al. (2017), On Calibration of Modern Neural Networks
RATES: Final = ("accuracy", "accuracy_real", "accuracy_fake")
STATISTICS: Final = (
    *RATES, "balanced_accuracy", "precision", "recall", "f1", "roc_auc", "average_precision", "ece", "brier",
    "tpr_at_5_fpr", "tpr_at_1_fpr", "nll",
)  # fmt: skip
FPR_LIMITS: Final = (0.05, 0.01)  # of `tpr_at_5_fpr` and `tpr_at_1_fpr`

_CELLS: Final = 4  # of a confusion table, in the order 2 * is_fake + called_fake: TN, FP, FN, TP
_PERCENTILES: Final = (2.5, 97.5)
_LEAST_P: Final = float(np.finfo(np.float64).eps)  # what a probability of 0 is taken for in a logarithm

_Floats = NDArray[np.float64]
_Codes = NDArray[np.intp]


@dataclass(frozen=True)
class Sample:
    """What the weights are spread over: one entry an image, (n,), in any order.

    Attributes:
        cell: 4 * content + 2 * is_fake + called_fake; unknown content comes last.
        rank: 2 * (rank of its score among the distinct scores, lowest first) + is_fake; tied scores share a rank.
        ece_bin: which bin of [0, 1] its score falls into.
        error: score - is_fake, in [-1, 1].
        loss: -log of the probability of the truth.
        contents: how many contents are known.
        ranks: how many scores are distinct.
    """

    cell: _Codes
    rank: _Codes
    ece_bin: _Codes
    error: _Floats
    loss: _Floats
    contents: int
    ranks: int


def make_sample(
    is_fake: NDArray[np.bool_], p_fake: _Floats, *, content: Sequence[int], contents: int, threshold: float
) -> Sample:
    """Work out everything that no replicate changes.

    Args:
        is_fake: (n,) the truth.
        p_fake: (n,) in [0, 1].
        content: (n,) in 0..contents; `contents` itself stands for unknown.
        contents: how many contents are known.
        threshold: called FAKE above it.
    """
    distinct, rank = np.unique(p_fake, return_inverse=True)
    return Sample(
        cell=_CELLS * np.asarray(content, dtype=np.intp) + 2 * is_fake + (p_fake > threshold),
        rank=2 * rank + is_fake,
        ece_bin=np.minimum((p_fake * ECE_BINS).astype(np.intp), ECE_BINS - 1),  # the last bin is closed
        error=p_fake - is_fake,
        loss=-np.log(np.clip(np.where(is_fake, p_fake, 1 - p_fake), _LEAST_P, 1)),
        contents=contents,
        ranks=len(distinct),
    )


def confusion(sample: Sample, weights: _Floats) -> _Floats:
    """Count TN, FP, FN and TP: (contents + 1, 4), the last row for the images of unknown content."""
    rows = sample.contents + 1
    return _tally(sample.cell, weights, rows * _CELLS).reshape(rows, _CELLS)


def statistics(sample: Sample, weights: _Floats) -> _Floats:
    """Compute every statistic, NaN where it is undefined.

    Returns:
        (14 + 3 * contents,): `STATISTICS` of all images, then `RATES` of each known content.
    """
    counts = confusion(sample, weights)
    total = counts.sum(axis=0)
    _, false_positives, false_negatives, true_positives = total
    accuracy, accuracy_real, accuracy_fake = _rates(total)
    precision, f1 = _divide(
        np.array([true_positives, 2 * true_positives]),
        np.array([true_positives + false_positives, 2 * true_positives + false_positives + false_negatives]),
    )
    balanced = (accuracy_real + accuracy_fake) / 2
    roc_auc, average_precision, *sensitive = _ranking(sample, weights)
    ece, brier, nll = _calibration(sample, weights)
    threshold_free = (roc_auc, average_precision, ece, brier, *sensitive, nll)
    overall = (accuracy, accuracy_real, accuracy_fake, balanced, precision, accuracy_fake, f1, *threshold_free)
    return np.concatenate([overall, _rates(counts[:-1]).ravel()])


def bootstrap(sample: Sample, *, samples: int, seed: int) -> _Floats:
    """Compute every statistic and its 95 % interval: (statistics, 3), as value, low, high; NaN for none.

    The interval is that of the percentiles (Efron & Tibshirani, 1993, ch. 13). Replicates in which a statistic is
    undefined are dropped. Those of the calibration error are shifted: see `make_report`.
    """
    values = statistics(sample, np.ones(len(sample.cell)))
    if not samples:
        return np.column_stack([values, np.full((len(values), 2), np.nan)])
    replicates = np.array([statistics(sample, weights) for weights in _draws(len(sample.cell), samples, seed)])
    ece = STATISTICS.index("ece")
    shift = values[ece] - replicates[:, ece].mean()
    replicates[:, ece] = np.maximum(replicates[:, ece] + shift, 0)
    return np.column_stack([values, [_interval(column) for column in replicates.T]])


def _draws(n: int, samples: int, seed: int) -> Iterator[_Floats]:
    """How often each of n images is drawn when n are, with replacement: multinomial weights, (n,) a replicate."""
    generator = np.random.default_rng(seed)
    for _ in range(samples):
        yield np.bincount(generator.integers(n, size=n), minlength=n).astype(np.float64)


def _interval(replicates: _Floats) -> _Floats:
    defined = replicates[~np.isnan(replicates)]
    return np.percentile(defined, _PERCENTILES) if defined.size else np.full(2, np.nan)


def _tally(codes: _Codes, weights: _Floats, size: int) -> _Floats:
    """Sum the weights of each code in 0..size - 1."""
    return np.bincount(codes, weights, size).astype(np.float64, copy=False)  # floats already; numpy's stubs say int


def _divide(sums: _Floats, counts: _Floats) -> _Floats:
    """Divide, with NaN where nothing was counted."""
    shares = np.full(counts.shape, np.nan)
    np.divide(sums, counts, out=shares, where=counts > 0)
    return shares


def _rates(counts: _Floats) -> _Floats:
    """Turn confusion counts (..., 4) into `RATES` (..., 3)."""
    real, fake = counts[..., :2].sum(axis=-1), counts[..., 2:].sum(axis=-1)
    true_real, true_fake = counts[..., 0], counts[..., 3]
    sums = np.stack([true_real + true_fake, true_real, true_fake], axis=-1)
    return _divide(sums, np.stack([real + fake, real, fake], axis=-1))


def _ranking(sample: Sample, weights: _Floats) -> tuple[float, float, float, float]:
    """ROC AUC, average precision and TPR at both `FPR_LIMITS`, tied scores entering together as in scikit-learn."""
    by_rank = _tally(sample.rank, weights, 2 * sample.ranks).reshape(-1, 2)[::-1]  # highest score first
    real, fake = by_rank.T
    called = by_rank.cumsum(axis=0)  # FAKE when everything down to this score is called FAKE
    all_real, all_fake = called[-1]
    if not all_fake:
        return np.nan, np.nan, np.nan, np.nan
    # Weights are whole numbers: where fewer than 1 image was called, none was and nothing is added.
    average_precision = fake @ (called[:, 1] / np.maximum(called.sum(axis=1), 1)) / all_fake
    if not all_real:
        return np.nan, average_precision, np.nan, np.nan
    roc_auc = fake @ (all_real - called[:, 0] + real / 2) / (all_real * all_fake)
    return roc_auc, average_precision, *(_sensitivity(called, limit) for limit in FPR_LIMITS)


def _sensitivity(called: _Floats, limit: float) -> float:
    """Most of the FAKE images that a threshold calls FAKE with at most `limit` of the REAL ones: no interpolation."""
    all_real, all_fake = called[-1]
    allowed = np.searchsorted(called[:, 0] / all_real, limit, side="right")  # down to which score
    return float(called[allowed - 1, 1] / all_fake) if allowed else 0.0


def _calibration(sample: Sample, weights: _Floats) -> tuple[float, float, float]:
    """Expected calibration error, Brier score and log loss; |sum of errors| of a bin is its size times its gap.

    Sums are NumPy's own: a product of vectors would wait for the threads of a linear algebra library.
    """
    n = weights.sum()
    errors = weights * sample.error
    gaps = _tally(sample.ece_bin, errors, ECE_BINS)
    return np.abs(gaps).sum() / n, (errors * sample.error).sum() / n, (weights * sample.loss).sum() / n
