"""Measure the predictions of a trained model on the validation and test split."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from realfake_hf.metrics.report import make_report
from realfake_hf.run_folder import Outcome
from realfake_hf.sampling import Flags


@dataclass(frozen=True, eq=False)
class Predictions:
    """Labels, contents and scores of the n images of a split."""

    is_fake: Flags
    content: list[str | None]
    p_fake: NDArray[np.floating]  # (n,) calibrated probabilities
    p_before: NDArray[np.floating]  # (n,) probabilities before temperature scaling

    def select(self, rows: NDArray[np.intp]) -> "Predictions":
        """Return the predictions of some images."""
        content = [self.content[row] for row in rows]
        return Predictions(self.is_fake[rows], content, self.p_fake[rows], self.p_before[rows])


def make_outcome(
    validation: Predictions,
    test: Predictions,
    parts: Mapping[str, Flags | None],
    *,
    best_epoch: int,
    bootstrap_samples: int,
    seed: int,
) -> Outcome:
    """Measure both splits, and the parts of the test split by their names in an `Outcome`, each a mask (n_test,).

    A part whose mask is None is not measured.
    """
    draws: dict[str, Any] = {"bootstrap_samples": bootstrap_samples, "seed": seed}
    measured = {"validation": validation, "test": test}
    measured |= {name: test.select(np.flatnonzero(mask)) for name, mask in parts.items() if mask is not None}
    reports = {
        name: make_report(part.is_fake, part.p_fake, content=part.content, **draws) for name, part in measured.items()
    }
    ece_before = {name: make_report(part.is_fake, part.p_before, **draws).ece for name, part in measured.items()}
    return Outcome(best_epoch, **reports, ece_before=ece_before)
