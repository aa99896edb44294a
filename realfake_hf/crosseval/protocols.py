"""Two protocols compared in pairs: how the scores of a model on the same images change from native to matched."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from realfake_hf.crosseval.datasets import EvalDataset
from realfake_hf.crosseval.models import Model
from realfake_hf.crosseval.scoring import Scores, cell_name, cell_settings
from realfake_hf.estimate import Estimate, from_plain, to_plain
from realfake_hf.metrics.significance import holm, paired_bootstrap
from realfake_hf.sampling import Flags
from realfake_hf.store import Store

NATIVE: Final = "native"
MATCHED: Final = "matched"
STATISTICS: Final = {"roc_auc": "ROC AUC", "recall": "recall", "false_positive_rate": "false positive rate"}
SAMPLES: Final = 10_000  # bootstrap replicates, with which 249 comparisons can reach a corrected p below 0.05


@dataclass(frozen=True)
class ProtocolGap:
    """A statistic of a model, at its own threshold, on the same images under both protocols.

    `p_holm` is the p-value of the paired bootstrap, corrected for the number of these comparisons in the grid.
    """

    model: str
    dataset: str
    split: str  # as in a `Cell`
    statistic: str  # key of `STATISTICS`
    native: float
    matched: float
    difference: Estimate  # matched minus native
    p_value: float
    p_holm: float


def compare_protocols(
    models: Sequence[Model], dataset: EvalDataset, scores: Mapping[str, Scores], store: Store, *, seed: int
) -> Iterator[ProtocolGap]:
    """Compare native with matched for each model on each part of a data set, given the scores by protocol.

    Without both protocols, nothing is compared. `p_holm` is not corrected yet, see `correct`.
    """
    if not {NATIVE, MATCHED} <= scores.keys():
        return
    for split, where in dataset.parts.items():
        for model in models:
            native, matched = (scores[protocol][model.name] for protocol in (NATIVE, MATCHED))
            found = _load_or_compare(model, dataset, native, matched, store, split=split, where=where, seed=seed)
            for statistic, each in found.items():
                p = each["p_value"]
                change = {"native": each["first"], "matched": each["second"], "p_value": p, "p_holm": p}
                place = {"model": model.name, "dataset": dataset.name, "split": split, "statistic": statistic}
                yield from_plain(ProtocolGap, {**place, **change, "difference": each["difference"]})


def correct(gaps: Sequence[ProtocolGap]) -> tuple[ProtocolGap, ...]:
    """Correct the p-values for the number of comparisons (Holm, 1979)."""
    adjusted = holm([gap.p_value for gap in gaps])
    return tuple(replace(gap, p_holm=p) for gap, p in zip(gaps, adjusted, strict=True))


def _load_or_compare(
    model: Model,
    dataset: EvalDataset,
    native: NDArray[np.float64],
    matched: NDArray[np.float64],
    store: Store,
    *,
    split: str,
    where: Flags,
    seed: int,
) -> dict[str, Any]:
    settings: dict[str, Any] = {"threshold": model.point.threshold, "samples": SAMPLES, "seed": seed}

    def compare() -> dict[str, Any]:
        return to_plain(paired_bootstrap(dataset.is_fake[where], native[where], matched[where], **settings))

    name = cell_name(dataset, "protocols", model, split=split)
    found: dict[str, Any] = store.json(name, {**cell_settings(dataset, model, where), **settings}, compare)
    return found
