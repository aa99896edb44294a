"""Draw samples that are balanced over groups."""

from collections import Counter, defaultdict
from collections.abc import Collection, Hashable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Flags = NDArray[np.bool_]

BALANCED: Final = ("label", "group")  # what an epoch can be balanced over


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


def balanced_weights(by: Collection[str], is_fake: Flags, groups: Sequence[str | None]) -> NDArray[np.float64]:
    """Return the probability of each image in a draw that is balanced over some of `BALANCED`: (n,).

    With `group`, an image weighs one over the root of the size of its group; an image without one is a group of its
    own. With `label`, both labels, which must occur, weigh the same in total.
    """
    sizes = Counter(groups) if "group" in by else {}
    weights = np.array([sizes.get(group, 1) if group else 1 for group in groups], dtype=np.float64) ** -0.5
    for side in (is_fake, ~is_fake) if "label" in by else ():
        weights[side] /= weights[side].sum()
    weights /= weights.sum()
    return weights


@dataclass(frozen=True, eq=False)
class WeightedRows:
    """The rows of an epoch, drawn with replacement; they depend on weights, seed and epoch alone.

    All processes draw the same rows, of which each trains on its own batches. A resumed epoch draws them again. The
    weights are (n,) probabilities; `images.epoch`, which a callback of the `Trainer` sets, is the epoch.
    """

    weights: NDArray[np.float64]
    images: Any
    seed: int

    def __len__(self) -> int:
        return len(self.weights)

    def __iter__(self) -> Iterator[int]:
        generator = np.random.default_rng([self.seed, self.images.epoch])
        return iter(generator.choice(len(self), size=len(self), p=self.weights).tolist())
