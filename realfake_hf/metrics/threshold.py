"""Where to draw the line between REAL and FAKE: chosen on validation images, never on those that are reported."""

import numpy as np
from numpy.typing import ArrayLike


def best_threshold(is_fake: ArrayLike, p_fake: ArrayLike) -> float:
    """The threshold above which images are called FAKE that makes most of them right.

    Candidates lie half-way between neighbouring scores, and at 0 and 1. Of several equally good ones, the one nearest
    to one half is taken.

    Args:
        is_fake: (n,) bool, of validation images.
        p_fake: (n,) in [0, 1], the probability of FAKE.

    Returns:
        A threshold in [0, 1].

    >>> best_threshold([False, False, True, True], [0.25, 0.5, 0.75, 1.0])
    0.625
    """
    truth, scores = np.asarray(is_fake, dtype=np.bool_), np.asarray(p_fake, dtype=np.float64)
    values = np.unique(scores)
    cuts = np.concatenate([[0.0], (values[1:] + values[:-1]) / 2, [1.0]])
    real_right = np.searchsorted(np.sort(scores[~truth]), cuts, side="right")  # at most the cut
    fake_right = truth.sum() - np.searchsorted(np.sort(scores[truth]), cuts, side="right")
    right = real_right + fake_right
    best = cuts[right == right.max()]
    return float(best[np.argmin(np.abs(best - 0.5))])
