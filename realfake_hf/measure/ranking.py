"""ROC AUC of one set of scores under many weightings at once, as a bootstrap needs it."""

import numpy as np
from numpy.typing import NDArray

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
