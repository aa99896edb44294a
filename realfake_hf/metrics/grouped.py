"""Statistics of scored images with intervals over groups, such as the owners of collections.

Images of a group resemble each other, so that intervals over images would be too narrow (cluster bootstrap; Davison &
Hinkley, 1997, *Bootstrap Methods and their Application*, section 3.8).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from realfake_hf.estimate import Estimate
from realfake_hf.metrics.intervals import bootstrap_estimate

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

MIN_IMAGES: Final = 10  # of a generator or content that has a row of its own
_HALF: Final = 0.5


@dataclass(frozen=True, eq=False)
class GroupedScores:
    """Scored images and their groups.

    Attributes:
        is_fake: (n,) labels.
        p_fake: (n,) scores in [0, 1].
        groups: (n,) names of groups.
        threshold: images with a score of at least the threshold are called fake.
    """

    is_fake: Flags
    p_fake: Floats
    groups: Sequence[str]
    threshold: float = _HALF

    def report(self, *, samples: int = 1000, seed: int = 0) -> dict[str, Estimate]:
        """Estimate AUC, balanced accuracy and both accuracies, with 95% intervals from a bootstrap over groups.

        Args:
            samples: number of bootstrap samples.
            seed: seed of the bootstrap.
        """
        number, n_groups = self._numbered()
        draws = np.random.default_rng(seed).multinomial(n_groups, np.full(n_groups, 1 / n_groups), size=samples)
        weights = draws[:, number].astype(np.float64)  # (samples, n)
        counts = {"n": len(self.is_fake), "k": int(self.is_fake.sum())}
        statistics: dict[str, Callable[[Floats], float]] = {
            "roc_auc": self._auc,
            "balanced_accuracy": lambda weight: (self._right(weight, fake=True) + self._right(weight, fake=False)) / 2,
            "accuracy_real": lambda weight: self._right(weight, fake=False),
            "accuracy_fake": lambda weight: self._right(weight, fake=True),
        }
        every = np.ones(len(self.is_fake))
        return {
            name: bootstrap_estimate(statistic(every), np.array([statistic(weight) for weight in weights]), **counts)
            for name, statistic in statistics.items()
        }

    def _numbered(self) -> tuple[NDArray[np.intp], int]:
        names, number = np.unique(np.asarray(self.groups), return_inverse=True)
        return number, len(names)

    def _auc(self, weights: Floats) -> float:
        """Return the weighted AUC, with ties as one half; NaN if a label has no weight."""
        order = np.argsort(self.p_fake, kind="stable")
        _, rank = np.unique(self.p_fake[order], return_inverse=True)
        fake, real = (
            np.bincount(rank, weights=weights[order] * side[order]) for side in (self.is_fake, ~self.is_fake)
        )
        total = fake.sum() * real.sum()
        return float((fake * (np.cumsum(real) - real / 2)).sum() / total) if total else np.nan

    def _right(self, weights: Floats, *, fake: bool) -> float:
        side = weights * (self.is_fake if fake else ~self.is_fake)
        right = (self.p_fake >= self.threshold) == fake
        return float((side * right).sum() / side.sum()) if side.sum() else np.nan


def by_column(scores: GroupedScores, values: Sequence[str | None], **settings: Any) -> dict[str, dict[str, Estimate]]:  # noqa: ANN401
    """Report images by a column, most images first; values with fewer than `MIN_IMAGES` images are left out.

    Fakes of a generator are compared with all real images, as real images have no generator; likewise in a content
    with one label. The accuracy of the label that lacks is then that of all images.

    Args:
        scores: all images.
        values: (n,) value of each image in the column; None if unknown.
        settings: of `GroupedScores.report`.
    """
    column = np.array([value or "" for value in values])
    names, counts = np.unique(column[column != ""], return_counts=True)
    kept = [names[row] for row in np.argsort(-counts, kind="stable") if counts[row] >= MIN_IMAGES]
    reports = {}
    for name in kept:
        rows = column == name
        for side in (scores.is_fake, ~scores.is_fake):
            rows = rows if (rows & side).any() else rows | side
        groups = np.asarray(scores.groups)[rows].tolist()
        part = GroupedScores(scores.is_fake[rows], scores.p_fake[rows], groups, scores.threshold)
        reports[str(name)] = part.report(**settings)
    return reports
