"""One cell of the grid: a model on a data set under a protocol, measured."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from realfake_hf.crosseval.confidence import Confidence, measure_confidence
from realfake_hf.crosseval.datasets import TestSet
from realfake_hf.crosseval.false_alarms import Harm, harms
from realfake_hf.crosseval.models import Entrant
from realfake_hf.data.sampling import Flags
from realfake_hf.estimate import Estimate, to_plain
from realfake_hf.metrics.calibration import best_threshold
from realfake_hf.metrics.operating_point import OperatingPoint
from realfake_hf.metrics.report import Report, estimate_roc_auc, make_report
from realfake_hf.metrics.significance import Gap, holm, rate_gap

LEAK_FREE = "leak-free"  # added to the name of a split


@dataclass(frozen=True)
class GroupGap:
    """A group of pictures against the rest of the cell.

    Attributes:
        gap: how much more often verdicts are right inside it.
        p_holm: the p-value of the gap, corrected for the number of groups of the kind (Holm, 1979).
        roc_auc: of a content, within it; of a generator, its pictures against all REAL ones. Undefined with one label.
    """

    gap: Gap
    p_holm: float
    roc_auc: Estimate

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read back what `Cell.to_dict` wrote."""
        return cls(Gap.from_dict(data["gap"]), data["p_holm"], Estimate(**data["roc_auc"]))


@dataclass(frozen=True)
class Cell:
    """A model on a data set under a protocol.

    Attributes:
        model: what the model is called.
        dataset: what the data set is called.
        split: its split.
        protocol: what was done to each picture before the model's processor.
        point: the threshold that the model goes out with; the report is at this one.
        report: n, statistics and contents.
        majority: accuracy of always naming the more frequent label of the cell, in [0.5, 1].
        oracle_threshold: the threshold that is best on these very pictures; None with one label only. A footnote,
            and no result: nobody has it beforehand.
        oracle_accuracy: accuracy at it.
        contents: each known content against all other pictures.
        generators: each generator's pictures against the other FAKE pictures, where there are several.
        shared: contents of CIFAKE against contents that it lacks; None where only one kind is there.
        confidence: how far the probabilities can be trusted, and what became of the promise of the unsure band.
        harm: REAL pictures called FAKE by content, people first.
    """

    model: str
    dataset: str
    split: str
    protocol: str
    point: OperatingPoint
    report: Report
    majority: float
    oracle_threshold: float | None
    oracle_accuracy: float | None
    contents: dict[str, GroupGap]
    generators: dict[str, GroupGap]
    shared: Gap | None
    confidence: Confidence
    harm: tuple[Harm, ...]

    @property
    def place(self) -> tuple[str, str, str]:
        """Where in the grid it stands, whatever the model."""
        return self.dataset, self.split, self.protocol

    def to_dict(self) -> dict[str, Any]:
        """The cell as plain numbers, strings and dictionaries: None, and never NaN, for what is undefined."""
        return to_plain(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read back what `to_dict` wrote."""
        groups = {
            kind: {name: GroupGap.from_dict(row) for name, row in data[kind].items()}
            for kind in ("contents", "generators")
        }
        parts = {
            "point": OperatingPoint.from_dict(data["point"]),
            "report": Report.from_dict(data["report"]),
            "shared": data["shared"] and Gap.from_dict(data["shared"]),
            "confidence": Confidence.from_dict(data["confidence"]),
            "harm": tuple(Harm.from_dict(row) for row in data["harm"]),
        }
        return cls(**{**data, **groups, **parts})


def measure_cell(
    entrant: Entrant,
    one: TestSet,
    p_fake: NDArray[np.floating],
    *,
    protocol: str,
    samples: int,
    seed: int,
    where: Flags | None = None,
) -> Cell:
    """Measure the scores of a model on a data set.

    Args:
        entrant: the model.
        one: the data set.
        p_fake: (n,) what the model says of its pictures, in [0, 1].
        protocol: what was done to them.
        samples: bootstrap replicates behind each interval.
        seed: of the bootstrap.
        where: (n,) which pictures are meant, those that are leak-free; None means all.
    """
    chosen = np.arange(len(one.is_fake)) if where is None else np.flatnonzero(where)
    is_fake, scores = one.is_fake[chosen], np.asarray(p_fake, dtype=np.float64)[chosen]
    content, is_shared = [one.content[row] for row in chosen], one.is_shared
    generator = [one.generator[row] for row in chosen]
    threshold = entrant.point.threshold
    report = make_report(is_fake, scores, content=content, threshold=threshold, bootstrap_samples=samples, seed=seed)
    verdicts = _Verdicts((scores > threshold) == is_fake, is_fake, scores, samples, seed)
    oracle = best_threshold(is_fake, scores) if report.n_real and report.n_fake else None
    return Cell(
        model=entrant.name,
        dataset=one.name,
        split=one.split if where is None else f"{one.split} {LEAK_FREE}",
        protocol=protocol,
        point=entrant.point,
        report=report,
        majority=max(report.n_real, report.n_fake) / report.n,
        oracle_threshold=oracle,
        oracle_accuracy=None if oracle is None else float(((scores > oracle) == is_fake).mean()),
        contents=verdicts.by_group(content, among=np.ones(len(chosen), dtype=np.bool_)),
        generators=verdicts.by_group(generator, among=is_fake),
        shared=verdicts.shared([is_shared[row] for row in chosen]),
        confidence=measure_confidence(is_fake, scores, entrant.point, report, samples=samples, seed=seed),
        harm=harms(is_fake, scores > threshold, content),
    )


@dataclass(frozen=True, eq=False)
class _Verdicts:
    is_right: Flags
    is_fake: Flags
    p_fake: NDArray[np.float64]
    samples: int
    seed: int

    def by_group(self, group: Sequence[str | None], *, among: Flags) -> dict[str, GroupGap]:
        """Each group against the rest, where there is a rest."""
        names = sorted({name for name, known in zip(group, among, strict=True) if name and known})
        inside = {name: np.array([name == other for other in group]) for name in names}
        gaps = {name: self._gap(inside[name], among) for name in names}
        compared = [name for name in names if gaps[name].value is not None]
        adjusted = holm([gaps[name].p_value for name in compared])
        return {
            name: GroupGap(gaps[name], p, self._roc_auc(inside[name] | ~among))
            for name, p in zip(compared, adjusted, strict=True)
        }

    def shared(self, is_shared: Sequence[bool | None]) -> Gap | None:
        known = np.array([one is not None for one in is_shared])
        inside = np.array([bool(one) for one in is_shared])
        gap = self._gap(inside, known)
        return None if gap.value is None else gap

    def _roc_auc(self, chosen: Flags) -> Estimate:
        return estimate_roc_auc(self.is_fake[chosen], self.p_fake[chosen], samples=self.samples, seed=self.seed)

    def _gap(self, inside: Flags, among: Flags) -> Gap:
        return rate_gap(self.is_right[among], inside[among], self.is_fake[among], samples=self.samples, seed=self.seed)
