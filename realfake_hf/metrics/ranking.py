"""ROC AUC of one set of scores under many weightings at once, as a bootstrap needs it."""

import numpy as np
from numpy.typing import NDArray

from realfake_hf.estimate import Estimate

_PERCENTILES = (2.5, 97.5)
_AT_ONCE = 50  # replicates whose weights lie in memory together

Floats = NDArray[np.float64]


def roc_auc(is_fake: NDArray[np.bool_], p_fake: NDArray[np.floating], weights: Floats) -> Floats:
    """Give the chance that a FAKE picture scores above a REAL one, ties counting half, under each weighting.

    Args:
        is_fake: (n,) the truth.
        p_fake: (n,) the scores.
        weights: (weightings, n) not negative: how often each picture counts.

    Returns:
        (weightings,) in [0, 1]; NaN where nothing FAKE or nothing REAL counts.
    """
    order = np.argsort(p_fake, kind="stable")
    begins = np.flatnonzero(np.diff(p_fake[order], prepend=-np.inf))  # of each distinct score
    by_score = [np.add.reduceat((weights * chosen)[:, order], begins, axis=1) for chosen in (is_fake, ~is_fake)]
    fake, real = by_score
    lower = np.cumsum(real, axis=1) - real / 2  # REAL below a score, those that tie with it counting half
    with np.errstate(invalid="ignore"):  # 0 / 0 where one of the two is missing
        return np.asarray((fake * lower).sum(axis=1) / (fake.sum(axis=1) * real.sum(axis=1)))


def estimate_roc_auc(is_fake: NDArray[np.bool_], p_fake: NDArray[np.floating], *, samples: int, seed: int) -> Estimate:
    """Give the ROC AUC with its 95 % bootstrap interval, pictures drawn with replacement within each label.

    Args:
        is_fake: (n,) the truth.
        p_fake: (n,) the scores.
        samples: replicates; 0 for no interval.
        seed: of the draws.

    Returns:
        An estimate without a value where there is one label only.
    """
    if is_fake.all() or not is_fake.any():
        return Estimate(None)
    value = float(roc_auc(is_fake, p_fake, np.ones((1, len(is_fake))))[0])
    generator = np.random.default_rng(seed)
    drawn = [
        roc_auc(is_fake, p_fake, _weights(is_fake, min(_AT_ONCE, samples - done), generator))
        for done in range(0, samples, _AT_ONCE)
    ]
    low, high = np.percentile(np.concatenate(drawn), _PERCENTILES).tolist() if drawn else (None, None)
    return Estimate(value, low, high)


def _weights(is_fake: NDArray[np.bool_], samples: int, generator: np.random.Generator) -> Floats:
    """How often each picture is drawn when each label is drawn as often as it occurs: (samples, n)."""
    weights = np.empty((samples, len(is_fake)))
    for label in (is_fake, ~is_fake):
        n = int(label.sum())
        drawn = generator.integers(n, size=(samples, n)) + n * np.arange(samples)[:, None]
        weights[:, label] = np.bincount(drawn.ravel(), minlength=samples * n).reshape(samples, n)
    return weights
