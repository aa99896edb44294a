"""Can a model's confidence be trusted on a data set? Before and after scaling, and is its promise kept?"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, Self

import numpy as np
from numpy.typing import NDArray

from realfake_hf.estimate import Estimate
from realfake_hf.metrics.calibration import (
    Bin,
    Histogram,
    RiskCoverage,
    confidence_histogram,
    reliability,
    risk_coverage,
    scale,
)
from realfake_hf.metrics.intervals import share
from realfake_hf.metrics.operating_point import Band, OperatingPoint
from realfake_hf.metrics.report import Report, make_report

CALIBRATION: Final = ("ece", "nll", "brier")

Kept = Literal["kept", "missed", "broken"]


@dataclass(frozen=True)
class Confidence:
    """A model's confidence on a data set.

    Attributes:
        temperature: fitted on validation; None where the model carries none.
        before: calibration error, log loss and Brier score of the probabilities as they are.
        after: the same once log-odds are divided by the temperature; None without one.
        bins: said against found, before scaling.
        bins_after: the same after scaling; None without a temperature.
        histogram: of the verdicts' confidence, before scaling.
        risk_coverage: what is gained by deciding the surest pictures only.
        band: where the model is unsure; None where it carries no band.
        decided: pictures outside the band; all of them without one.
        wrong: wrong verdicts among the decided pictures.
    """

    temperature: float | None
    before: dict[str, Estimate]
    after: dict[str, Estimate] | None
    bins: tuple[Bin, ...]
    bins_after: tuple[Bin, ...] | None
    histogram: Histogram
    risk_coverage: RiskCoverage
    band: Band | None
    decided: Estimate
    wrong: Estimate

    @property
    def promise(self) -> Kept | None:
        """What became of the band's promise.

        It is kept where the share of wrong verdicts among decided ones is at most what was promised, broken where
        even the lower end of its interval is above, and missed in between; None without a band or decided pictures.
        """
        if self.band is None or self.wrong.value is None or self.wrong.low is None:
            return None
        if self.wrong.value <= self.band.promised:
            return "kept"
        return "broken" if self.wrong.low > self.band.promised else "missed"

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read back what `dataclasses.asdict` made of it."""
        return cls(
            temperature=data["temperature"],
            before=_estimates(data["before"]),
            after=data["after"] and _estimates(data["after"]),
            bins=_bins(data["bins"]),
            bins_after=data["bins_after"] and _bins(data["bins_after"]),
            histogram=Histogram(**{name: tuple(values) for name, values in data["histogram"].items()}),
            risk_coverage=RiskCoverage(
                coverage=tuple(data["risk_coverage"]["coverage"]),
                risk=tuple(data["risk_coverage"]["risk"]),
                area=data["risk_coverage"]["area"],
            ),
            band=data["band"] and Band(**data["band"]),
            decided=Estimate.from_dict(data["decided"]),
            wrong=Estimate.from_dict(data["wrong"]),
        )


def measure_confidence(
    is_fake: NDArray[np.bool_],
    p_fake: NDArray[np.float64],
    point: OperatingPoint,
    report: Report,
    *,
    samples: int,
    seed: int,
) -> Confidence:
    """Measure how far the probabilities of a model can be trusted.

    Args:
        is_fake: (n,) the truth.
        p_fake: (n,) in [0, 1].
        point: the model's, chosen on validation.
        report: of the same pictures, before scaling.
        samples: bootstrap replicates behind each interval.
        seed: of the bootstrap.
    """
    scaled = None if point.temperature is None else scale(p_fake, point.temperature)
    after = None if scaled is None else make_report(is_fake, scaled, bootstrap_samples=samples, seed=seed)
    called_fake = p_fake > point.threshold
    band = point.band or Band(point.threshold, point.threshold, promised=1)
    is_decided = (p_fake <= band.low) | (p_fake >= band.high)
    return Confidence(
        temperature=point.temperature,
        before=_calibration(report),
        after=None if after is None else _calibration(after),
        bins=reliability(is_fake, p_fake),
        bins_after=None if scaled is None else reliability(is_fake, scaled),
        histogram=confidence_histogram(is_fake, p_fake, threshold=point.threshold),
        risk_coverage=risk_coverage(is_fake, p_fake, threshold=point.threshold),
        band=point.band,
        decided=share(int(is_decided.sum()), len(is_fake)),
        wrong=share(int((called_fake != is_fake)[is_decided].sum()), int(is_decided.sum())),
    )


def _calibration(report: Report) -> dict[str, Estimate]:
    return {name: getattr(report, name) for name in CALIBRATION}


def _estimates(data: Mapping[str, Any]) -> dict[str, Estimate]:
    return {name: Estimate(**one) for name, one in data.items()}


def _bins(rows: Any) -> tuple[Bin, ...]:  # noqa: ANN401 - JSON
    return tuple(Bin(**row) for row in rows)
