"""One cell of the grid: the measurements of a model on a data set under a protocol."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from realfake_hf.crosseval.datasets import LEAK_FREE, NO_NEAR_DUPLICATE, EvalDataset
from realfake_hf.crosseval.models import Model
from realfake_hf.estimate import Estimate
from realfake_hf.metrics import calibration
from realfake_hf.metrics.intervals import percentile_interval, share
from realfake_hf.metrics.operating_point import Band, OperatingPoint
from realfake_hf.metrics.report import Report, estimate_roc_auc, make_report
from realfake_hf.metrics.significance import Gap, holm, rate_gap
from realfake_hf.sampling import Flags

CHANCE: Final = 0.5  # ROC AUC of a random score
PREVALENCE: Final = 0.01  # share of fakes for which the false discovery rate is reported
CALIBRATION: Final = ("ece", "nll", "brier")
UNKNOWN: Final = "unknown"
PEOPLE: Final = frozenset({
    "baby", "boy", "bride", "child", "children", "crowd", "face", "faces", "girl", "groom", "human", "kid", "man",
    "men", "people", "person", "persons", "player", "portrait", "selfie", "woman", "women",
})  # fmt: skip

Promise = Literal["kept", "missed", "broken"]


@dataclass(frozen=True)
class GroupGap:
    """A group of images compared with the rest of the cell: accuracy inside minus outside, and ROC AUC.

    `p_holm` is the p-value of the gap, corrected for the number of groups of this kind (Holm, 1979). The ROC AUC is
    that within a content, or of the images of a generator against all REAL images.
    """

    gap: Gap
    p_holm: float
    roc_auc: Estimate


@dataclass(frozen=True)
class Confidence:
    """Calibration and selective prediction of a model on a data set."""

    temperature: float | None  # temperature fitted on validation; if None, `after` and `bins_after` are None as well
    before: dict[str, Estimate]  # ECE, log loss and Brier score of the probabilities before temperature scaling
    after: dict[str, Estimate] | None  # the same of the calibrated probabilities, from the report of the cell
    bins: tuple[calibration.Bin, ...]  # of the probabilities before temperature scaling
    bins_after: tuple[calibration.Bin, ...] | None
    histogram: calibration.Histogram
    risk_coverage: calibration.RiskCoverage
    band: Band | None  # probabilities between which the model is unsure; None if the model has no band
    decided: Estimate  # share of images outside the band; 1 without a band
    wrong: Estimate  # share of wrong verdicts among the decided images

    @property
    def promise(self) -> Promise | None:
        """Whether the band keeps its promised error rate; None without a band or without decided images.

        The promise is kept if the error rate is at most the promised one, broken if the whole interval lies above it,
        and missed otherwise.
        """
        if self.band is None or self.wrong.value is None or self.wrong.low is None:
            return None
        if self.wrong.value <= self.band.promised:
            return "kept"
        return "broken" if self.wrong.low > self.band.promised else "missed"


@dataclass(frozen=True)
class FalseAlarms:
    """The share of the real images of one content, or of `UNKNOWN` content, that are called FAKE."""

    content: str
    shows_people: bool
    called_fake: Estimate


@dataclass(frozen=True)
class Cell:
    """The measurements of a model on a data set under a protocol."""

    model: str
    dataset: str
    split: str  # split, with the suffix `LEAK_FREE` or `NO_NEAR_DUPLICATE` if only these images were measured
    protocol: str
    point: OperatingPoint
    report: Report  # of the calibrated probabilities
    majority: float  # accuracy of always predicting the more frequent label, in [0.5, 1]
    oracle_threshold: float | None  # best threshold on these very images, an upper bound; None with one label only
    oracle_accuracy: float | None
    contents: dict[str, GroupGap]  # each known content compared with all other images
    # the images of each generator compared with the other FAKE images; empty with one generator
    generators: dict[str, GroupGap]
    shared: Gap | None  # contents that CIFAKE contains compared with those it lacks; None if only one kind occurs
    confidence: Confidence
    harm: tuple[FalseAlarms, ...]  # REAL images called FAKE, by content

    @property
    def place(self) -> tuple[str, str, str]:
        """Data set, split and protocol."""
        return self.dataset, self.split, self.protocol

    @property
    def is_whole_split(self) -> bool:
        """Whether all images of the split were measured, not only a part of them."""
        return not self.split.endswith((LEAK_FREE, NO_NEAR_DUPLICATE))

    @property
    def above_chance(self) -> str:
        """Whether the ROC AUC is above 0.5: yes, no, below, or undefined with one label."""
        auc = self.report.roc_auc
        if auc.low is None or auc.high is None:
            return "undefined"
        if auc.high < CHANCE:
            return "below"
        return "yes" if auc.low > CHANCE else "no"

    @property
    def false_alarm_rate(self) -> Estimate:
        """Share of the REAL images that are called FAKE."""
        return share(self.report.false_positives, self.report.n_real)

    @property
    def false_discovery_rate(self) -> Estimate:
        """Share of real images among those called FAKE if a share of `PREVALENCE` of all images were fake."""
        if not self.report.n_real or not self.report.n_fake:
            return Estimate(None)
        fake_called_fake = share(self.report.true_positives, self.report.n_fake)
        return false_discovery_rate(self.false_alarm_rate, fake_called_fake, prevalence=PREVALENCE)


def measure_cell(
    model: Model,
    dataset: EvalDataset,
    p_fake: NDArray[np.floating],
    *,
    protocol: str,
    samples: int,
    seed: int,
    split: str,
) -> Cell:
    """Measure the scores of a model on a data set, or on another one of its `parts`, under a protocol.

    `p_fake` is (n,) in [0, 1], calibrated; `samples` and `seed` belong to the bootstrap.
    """
    rows = np.flatnonzero(dataset.parts[split])
    is_fake, scores = dataset.is_fake[rows], np.asarray(p_fake, dtype=np.float64)[rows]
    content, generator = ([values[row] for row in rows] for values in (dataset.content, dataset.generator))
    shared = dataset.is_shared
    point, draws = model.point, {"samples": samples, "seed": seed}
    report = make_report(
        is_fake, scores, content=content, threshold=point.threshold, bootstrap_samples=samples, seed=seed
    )
    oracle = calibration.best_threshold(is_fake, scores) if report.n_real and report.n_fake else None
    return Cell(
        model=model.name,
        dataset=dataset.name,
        split=split,
        protocol=protocol,
        point=point,
        report=report,
        majority=max(report.n_real, report.n_fake) / report.n,
        oracle_threshold=oracle,
        oracle_accuracy=None if oracle is None else float(((scores > oracle) == is_fake).mean()),
        contents=_group_gaps(content, is_fake, scores, point.threshold, among=np.ones_like(is_fake), **draws),
        generators=_group_gaps(generator, is_fake, scores, point.threshold, among=is_fake, **draws),
        shared=_shared_gap([shared[row] for row in rows], is_fake, scores > point.threshold, **draws),
        confidence=_measure_confidence(is_fake, scores, point, report, **draws),
        harm=false_alarms_by_content(is_fake, scores > point.threshold, content),
    )


def _measure_confidence(
    is_fake: Flags, p_fake: NDArray[np.float64], point: OperatingPoint, report: Report, *, samples: int, seed: int
) -> Confidence:
    """Measure calibration and selective prediction of calibrated scores, given their report."""
    temperature, unscaled, before = point.temperature, p_fake, report
    if temperature is not None:
        unscaled = calibration.scale(p_fake, 1 / temperature)
        before = make_report(is_fake, unscaled, bootstrap_samples=samples, seed=seed)
    is_wrong = (p_fake > point.threshold) != is_fake
    band = point.band or Band(point.threshold, point.threshold, promised=1)
    is_decided = (p_fake <= band.low) | (p_fake >= band.high)
    return Confidence(
        temperature=temperature,
        before={name: getattr(before, name) for name in CALIBRATION},
        after=None if temperature is None else {name: getattr(report, name) for name in CALIBRATION},
        bins=calibration.reliability(is_fake, unscaled),
        bins_after=None if temperature is None else calibration.reliability(is_fake, p_fake),
        histogram=calibration.confidence_histogram(is_fake, p_fake, threshold=point.threshold),
        risk_coverage=calibration.risk_coverage(is_fake, p_fake, threshold=point.threshold),
        band=point.band,
        decided=share(int(is_decided.sum()), len(is_fake)),
        wrong=share(int(is_wrong[is_decided].sum()), int(is_decided.sum())),
    )


def _group_gaps(
    groups: Sequence[str | None],
    is_fake: Flags,
    p_fake: NDArray[np.float64],
    threshold: float,
    *,
    among: Flags,
    **draws: int,
) -> dict[str, GroupGap]:
    """Compare each group with the other images, restricted to `among`; omit a group without other images."""
    names = sorted({name for name, included in zip(groups, among, strict=True) if name and included})
    inside = {name: np.array([name == group for group in groups]) for name in names}
    is_right = (p_fake > threshold) == is_fake
    gaps = {name: rate_gap(is_right[among], inside[name][among], is_fake[among], **draws) for name in names}
    gaps = {name: gap for name, gap in gaps.items() if gap.value is not None}
    adjusted = holm([gap.p_value for gap in gaps.values()])
    chosen = {name: inside[name] | ~among for name in gaps}
    return {
        name: GroupGap(gap, p, estimate_roc_auc(is_fake[chosen[name]], p_fake[chosen[name]], **draws))
        for (name, gap), p in zip(gaps.items(), adjusted, strict=True)
    }


def _shared_gap(
    is_shared: Sequence[bool | None], is_fake: Flags, called_fake: Flags, *, samples: int, seed: int
) -> Gap | None:
    known = np.array([flag is not None for flag in is_shared])
    inside = np.array(is_shared, dtype=np.bool_)[known]
    gap = rate_gap((called_fake == is_fake)[known], inside, is_fake[known], samples=samples, seed=seed)
    return None if gap.value is None else gap


def shows_people(content: str) -> bool:
    """Return whether the name of a content contains a word for people.

    >>> [shows_people(name) for name in ("person", "portrait_of_a_woman", "frog", "mango")]
    [True, True, False, False]
    """
    return bool(PEOPLE & set(re.split(r"[\W_]+", content.lower())))


def false_alarms_by_content(
    is_fake: Flags, called_fake: Flags, content: Sequence[str | None]
) -> tuple[FalseAlarms, ...]:
    """Count false alarms by content; all arguments are (n,), and unknown contents are None.

    Contents that show people come first, then those with the highest lower end of the interval, so that a content of
    three images does not lead the list by chance.
    """
    names = np.array([name or UNKNOWN for name in content])
    is_real = ~np.asarray(is_fake, dtype=np.bool_)
    rows = []
    for name in np.unique(names[is_real]).tolist():
        chosen = is_real & (names == name)
        rows.append(FalseAlarms(name, shows_people(name), share(int(called_fake[chosen].sum()), int(chosen.sum()))))
    return tuple(sorted(rows, key=lambda row: (not row.shows_people, -(row.called_fake.low or 0), row.content)))


def false_discovery_rate(
    real_called_fake: Estimate, fake_called_fake: Estimate, *, prevalence: float, seed: int = 0
) -> Estimate:
    """Estimate the share of real images among those called FAKE, by Bayes' rule; undefined if none was called FAKE.

    Both rates need k and n; the prevalence, in (0, 1), is the share of fakes among all images. For the interval, both
    rates are drawn from their posteriors under Jeffreys' prior, Beta(k + 1/2, n - k + 1/2).
    """
    rates = (real_called_fake, fake_called_fake)
    if not any(rate.k for rate in rates):
        return Estimate(None)
    generator = np.random.default_rng(seed)
    drawn = [generator.beta((rate.k or 0) + 0.5, (rate.n or 0) - (rate.k or 0) + 0.5, 20_000) for rate in rates]
    real, fake = (np.append(draws, rate.value or 0.0) for draws, rate in zip(drawn, rates, strict=True))
    false, true = (1 - prevalence) * real, prevalence * fake
    shares = np.asarray(false / (false + true), dtype=np.float64)
    return Estimate(float(shares[-1]), *percentile_interval(shares[:-1]))
