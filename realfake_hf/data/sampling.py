"""Draw samples that are balanced over groups."""

from collections import defaultdict
from collections.abc import Hashable, Sequence
from itertools import count

import numpy as np
from numpy.typing import NDArray

Flags = NDArray[np.bool_]


def round_robin(groups: Sequence[Hashable]) -> list[int]:
    """Order positions in rounds: the first item of each group, then the second of each, and so on.

    >>> round_robin("aaab")
    [0, 3, 1, 2]
    """
    counters: defaultdict[Hashable, count[int]] = defaultdict(count)
    rounds = [next(counters[group]) for group in groups]
    return sorted(range(len(rounds)), key=rounds.__getitem__)


def take_evenly(groups: Sequence[Hashable], n: int) -> list[int]:
    """Take at most n positions, balanced over groups, and return them in ascending order.

    >>> take_evenly("aaaaab", 4)
    [0, 1, 2, 5]
    """
    return sorted(round_robin(groups)[:n])


def draw_evenly(is_fake: Flags, content: Sequence[str | None], n: int, *, seed: int) -> NDArray[np.intp]:
    """Draw n rows at random, balanced over labels and, within a label, over contents, of which None is one.

    Returns:
        (n,) row numbers in ascending order.
    """
    order = np.random.default_rng(seed).permutation(len(is_fake))
    strata = [(bool(is_fake[row]), content[row]) for row in order]
    order = order[round_robin(strata)]
    return np.sort(order[take_evenly(is_fake[order].tolist(), n)])
