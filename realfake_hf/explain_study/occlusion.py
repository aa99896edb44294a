"""Where is the evidence, causally: models asked with the middle of each picture hidden, or as much of its rim.

Bird and Lotfi (2024, *CIFAKE*, IEEE Access, abstract) read from Grad-CAM that "the actual entity itself does not hold
useful information for classification", and small imperfections of the background do. CIFAKE shows the entity in the
middle. Were that true, hiding the rim would cost more than hiding the middle, and the middle alone would be worth no
more than what fills the hidden part, which lets the picture's colours through. The middle stands for the entity on
average and not in each picture; and no model was trained on pictures with hidden parts, so that only the difference
of two that are alike in area and fill counts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from realfake_hf.estimate import Estimate, to_plain
from realfake_hf.explain_study.fills import FILLS, Fill, fill_in, filled
from realfake_hf.explain_study.regions import centre_mask, mass_share, rim_mask
from realfake_hf.explain_study.sample import Sample
from realfake_hf.explain_study.subjects import Subject
from realfake_hf.metrics.intervals import Resampling
from realfake_hf.metrics.report import roc_auc

AREAS: Final = (0.25, 0.5, 0.75)
MAP_AREAS: Final = (0.25, 0.5)
PICTURE: Final = (32, 32)  # CIFAKE's height and width in pixels

Scores = NDArray[np.floating]


@dataclass(frozen=True)
class Performance:
    """How well REAL and FAKE are told apart, called FAKE above one half; all of it as in the whole split.

    Attributes:
        accuracy: share of right verdicts.
        accuracy_real: share of the REAL pictures called REAL.
        accuracy_fake: share of the FAKE pictures called FAKE.
        called_fake: share called FAKE. Hiding can push all verdicts one way, which costs accuracy and no AUC.
        roc_auc: chance that a FAKE picture scores above a REAL one.
    """

    accuracy: Estimate
    accuracy_real: Estimate
    accuracy_fake: Estimate
    called_fake: Estimate
    roc_auc: Estimate


@dataclass(frozen=True)
class Hiding:
    """What hiding the middle does, and what hiding an equal area of the rim does, on the same pictures.

    Attributes:
        area: share of each picture that is hidden.
        fill: what takes its place.
        centre: with the middle hidden.
        rim: with the rim hidden.
        accuracy_difference: accuracy with the middle hidden minus that with the rim hidden, paired; below 0 the
            middle matters more.
        roc_auc_difference: the same of the ROC AUC.
        by_content: `accuracy_difference` for each content.
    """

    area: float
    fill: Fill
    centre: Performance
    rim: Performance
    accuracy_difference: Estimate
    roc_auc_difference: Estimate
    by_content: Mapping[str, Estimate]


@dataclass(frozen=True)
class HiddenEvidence:
    """One model on untouched pictures, and with parts of them hidden.

    Attributes:
        untouched: on the pictures as they are.
        all_hidden: by the fill, with nothing but it left: what the fill itself lets through.
        hiding: one entry for each area and fill.
    """

    untouched: Performance
    all_hidden: Mapping[str, Performance]
    hiding: tuple[Hiding, ...]


@dataclass(frozen=True)
class Causal:
    """The test of where the evidence is.

    Attributes:
        n: pictures.
        areas: shares of each picture that were hidden.
        fills: what took their place.
        models: by the model's name.
    """

    n: int
    areas: tuple[float, ...]
    fills: tuple[Fill, ...]
    models: Mapping[str, HiddenEvidence]

    def to_dict(self) -> dict[str, Any]:
        """Give plain numbers and dictionaries: None, and never NaN, for what is undefined."""
        return to_plain(self)


@dataclass(frozen=True)
class MassShare:
    """How much of a method's maps lies in the middle and in the rim.

    Attributes:
        area: share of the picture that each of the two is; a map that looks everywhere alike has as much in it.
        centre: mean share of a map's mass in the middle; empty maps have none.
        rim: mean share of a map's mass in the rim.
    """

    area: float
    centre: Estimate
    rim: Estimate

    def to_dict(self) -> dict[str, Any]:
        """Give plain numbers and dictionaries: None, and never NaN, for what is undefined."""
        return to_plain(self)


def measure_causal(
    subjects: Sequence[Subject],
    sample: Sample,
    *,
    samples: int = 1000,
    seed: int = 0,
) -> Causal:
    """Ask models about pictures of which the middle is hidden, or as much of the rim, or all, or nothing.

    With each share of `AREAS`, and each of `FILLS` in its place.

    Args:
        subjects: the models.
        sample: the pictures; every model is asked about each of them 15 times.
        samples: replicates of the bootstrap; the same ones for everything.
        seed: of the bootstrap.
    """
    measuring = _Measuring(sample, sample.resampling(samples=samples, seed=seed))
    found = {
        subject.name: HiddenEvidence(
            untouched=measuring.performance(subject.probabilities(sample.pictures)),
            all_hidden={fill: measuring.all_hidden(subject, fill) for fill in FILLS},
            hiding=tuple(measuring.hiding(subject, area, fill) for area in AREAS for fill in FILLS),
        )
        for subject in subjects
    }
    return Causal(len(sample), AREAS, FILLS, found)


def map_shares(
    maps_by_name: Mapping[str, NDArray[np.floating]], resampling: Resampling, *, shape: tuple[int, int] = PICTURE
) -> dict[str, list[dict[str, Any]]]:
    """Measure how much of each method's maps lies in the middle and in the rim.

    Args:
        maps_by_name: (n, grid_h, grid_w) maps of the same pictures, not negative, by any name.
        resampling: of these pictures.
        shape: height and width of the pictures.

    Returns:
        By the maps' name, `MassShare.to_dict()` of each area.
    """

    def share(maps: NDArray[np.floating], area: float) -> MassShare:
        centre, rim = (resampling.mean(mass_share(maps, make(shape, area))) for make in (centre_mask, rim_mask))
        return MassShare(area, centre, rim)

    return {name: [share(maps, area).to_dict() for area in MAP_AREAS] for name, maps in maps_by_name.items()}


@dataclass(frozen=True)
class _Measuring:
    """A sample and its bootstrap, by which scores become figures."""

    sample: Sample
    resampling: Resampling

    def hiding(self, subject: Subject, area: float, fill: Fill) -> Hiding:
        pictures = self.sample.pictures
        masks = (make(pictures.shape[1:3], area) for make in (centre_mask, rim_mask))
        centre, rim = (subject.probabilities(fill_in(pictures, mask, fill=fill)) for mask in masks)
        gain = self._right(centre) * 1.0 - self._right(rim)
        content = np.array(self.sample.content)
        return Hiding(
            area=area,
            fill=fill,
            centre=self.performance(centre),
            rim=self.performance(rim),
            accuracy_difference=self.resampling.mean(gain),
            roc_auc_difference=self.resampling.statistic(
                lambda weights: self._auc(centre, weights) - self._auc(rim, weights)
            ),
            by_content={
                name: self.resampling.mean(gain, where=content == name) for name in sorted(set(content.tolist()))
            },
        )

    def all_hidden(self, subject: Subject, fill: Fill) -> Performance:
        return self.performance(subject.probabilities(filled(self.sample.pictures, fill=fill)))

    def performance(self, p_fake: Scores) -> Performance:
        right, mean = self._right(p_fake), self.resampling.mean
        return Performance(
            accuracy=mean(right),
            accuracy_real=mean(right, where=~self.sample.is_fake),
            accuracy_fake=mean(right, where=self.sample.is_fake),
            called_fake=mean(right == self.sample.is_fake),
            roc_auc=self.resampling.statistic(partial(self._auc, p_fake)),
        )

    def _right(self, p_fake: Scores) -> NDArray[np.bool_]:
        return np.asarray((p_fake > 0.5) == self.sample.is_fake)  # noqa: PLR2004 - one half

    def _auc(self, p_fake: Scores, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        return roc_auc(self.sample.is_fake, p_fake, weights)
