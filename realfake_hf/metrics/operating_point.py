"""The operating point shipped with a model: threshold, temperature and abstention band, chosen on validation."""

import math
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from realfake_hf.estimate import from_plain
from realfake_hf.labels import Reason, Verdict
from realfake_hf.network import offline_if_unreachable
from realfake_hf.store import read_object

if TYPE_CHECKING:
    from realfake_hf.metrics.image_quality import ImageQuality

OPERATING_POINT: Final = "operating_point.json"

_LEAST_P: Final = 2.0**-24  # the resolution of a float32 probability near 1


@dataclass(frozen=True)
class Band:
    """The band of probabilities in which a detector abstains: its verdict is `unsure`.

    Attributes:
        low: highest probability below the band that is decided, in [0, 1].
        high: lowest probability above the band that is decided, in [low, 1]; if equal to `low`, nothing is unsure.
        promised: the error rate among decided images that an exact test on the validation images does not exceed, see
            `choose_band`.

    Raises:
        ValueError: the ends are not in order or outside [0, 1].

    >>> print(Band(0.25, 0.75, promised=0.02))
    unsure between 0.25 and 0.75, for at most 2% wrong among the rest
    """

    low: float
    high: float
    promised: float

    def __post_init__(self) -> None:
        if not 0 <= self.low <= self.high <= 1:
            raise ValueError(f"expected a band with 0 <= low <= high <= 1; found {self.low} and {self.high}.")

    def __str__(self) -> str:
        if self.low == self.high:
            return "never unsure"
        promise = f"for at most {100 * self.promised:g}% wrong among the rest"
        return f"unsure between {self.low:.4g} and {self.high:.4g}, {promise}"

    def decides(self, p_fake: float, *, margin: float = 0.0) -> bool:
        """Return whether a probability is outside the band, which is wider by a margin in log-odds on both sides."""
        if not margin:
            return p_fake <= self.low or p_fake >= self.high
        return shift(p_fake, margin) <= self.low or shift(p_fake, -margin) >= self.high


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What makes a verdict unsure whatever the score; by default nothing does.

    Attributes:
        short_side: least short side of an image in pixels.
        jpeg: least estimated JPEG quality, see `ImageQuality`.
        blockiness: greatest blockiness; None means any.
        detail: least detail, in [0, 1].
        widening: the band is wider on both sides by this multiple of the standard deviation of the log-odds of the
            views of an image.
        far: whether images far from the training images are unsure.

    Raises:
        ValueError: a number is negative or not finite.
    """

    short_side: int = 0
    jpeg: float = 0.0
    blockiness: float | None = None
    detail: float = 0.0
    widening: float = 0.0
    far: bool = False

    def __post_init__(self) -> None:
        numbers = (self.short_side, self.jpeg, self.blockiness or 0, self.detail, self.widening)
        if not all(0 <= number < math.inf for number in numbers):
            raise ValueError(f"expected limits of at least 0; found {self}.")

    @property
    def need_quality(self) -> bool:
        """Whether the quality of an image matters."""
        return bool(self.short_side or self.jpeg or self.detail or self.blockiness is not None)

    def reasons(self, quality: "ImageQuality | None", *, is_far: bool | None) -> list[Reason]:
        """Return what is beyond the limits; an unknown quality or distance is not."""
        found: dict[Reason, bool] = {}
        if quality is not None:
            found["size"] = quality.short_side < self.short_side
            is_blocky = self.blockiness is not None and quality.blockiness > self.blockiness
            found["compression"] = quality.jpeg < self.jpeg or is_blocky
            found["upscaling"] = quality.detail < self.detail
        found["far"] = self.far and is_far is True
        return [reason for reason, is_beyond in found.items() if is_beyond]


def shift(p_fake: float, log_odds: float) -> float:
    """Return a probability whose log-odds are greater by a number; 0 and 1 count as the nearest 32-bit numbers.

    >>> round(shift(0.5, math.log(3)), 6)
    0.75
    """
    return _probability(_log_odds(p_fake) + log_odds)


def _log_odds(p_fake: float) -> float:
    p = min(max(p_fake, _LEAST_P), 1 - _LEAST_P)
    return math.log(p / (1 - p))


def _probability(log_odds: float) -> float:
    return 0.5 + 0.5 * math.tanh(log_odds / 2)


@dataclass(frozen=True)
class OperatingPoint:
    """How the logits of a model become probabilities, and these verdicts.

    Attributes:
        threshold: in [0, 1]; images with a greater `p_fake` are called FAKE.
        chosen: how the threshold was chosen.
        n: number of validation images; 0 for a default.
        sha256: fingerprint of the validation split, as in the training's `run.json`; None if unknown.
        temperature: divisor of the log-odds that calibrates `p_fake`; `Detector` applies it. None if not fitted.
        band: abstention band; None if not chosen, or if no band keeps the promise.
        limits: what else makes a verdict unsure; None for nothing.
        calibrated: whether threshold and band are on the scale of the calibrated `p_fake`, after the temperature.

    Raises:
        ValueError: the threshold is outside [0, 1], or the temperature is not positive.

    >>> print(OperatingPoint(0.5, "by default"), OperatingPoint(0.375, "on validation", n=5000), sep="; ")
    0.5, by default; 0.375, on validation (n = 5,000)
    """

    threshold: float
    chosen: str
    n: int = 0
    sha256: str | None = None
    temperature: float | None = None
    band: Band | None = None
    limits: Limits | None = None
    calibrated: bool = True

    def __post_init__(self) -> None:
        if not 0 <= self.threshold <= 1:
            raise ValueError(f"expected a threshold in [0, 1]; found {self.threshold}. Choose it again on validation.")
        if self.temperature is not None and not 0 < self.temperature < math.inf:
            raise ValueError(f"expected a temperature above 0; found {self.temperature}. Fit it again on validation.")

    def __str__(self) -> str:
        text = f"{self.threshold:.4g}, {self.chosen}"
        return f"{text} (n = {self.n:,})" if self.n else text

    def on_calibrated_scale(self) -> "OperatingPoint":
        """Return the point with threshold and band on the scale of the calibrated `p_fake`; verdicts are the same."""
        if self.calibrated or self.temperature in (None, 1):
            return replace(self, calibrated=True)

        def scaled(p_fake: float) -> float:
            return p_fake if p_fake in (0, 1) else _probability(_log_odds(p_fake) / (self.temperature or 1))

        band = self.band and replace(self.band, low=scaled(self.band.low), high=scaled(self.band.high))
        return replace(self, threshold=scaled(self.threshold), band=band, calibrated=True)

    def judge(
        self,
        p_fake: float,
        *,
        quality: "ImageQuality | None" = None,
        spread: float = 0.0,
        is_far: bool | None = None,
    ) -> Verdict:
        """Return the verdict for an image: its label, whether it is sure, and why not.

        Args:
            p_fake: calibrated probability that it is AI-generated.
            quality: its quality; None if unknown.
            spread: standard deviation of the log-odds of its views.
            is_far: whether it is far from the training images; None if unknown.
        """
        limits, reasons = self.limits or Limits(), list[Reason]()
        if self.band and not self.band.decides(p_fake):
            reasons.append("score")
        elif self.band and not self.band.decides(p_fake, margin=limits.widening * spread):
            reasons.append("views")
        reasons += limits.reasons(quality, is_far=is_far)
        is_judged = self.band is not None or self.limits is not None
        return Verdict.of(
            p_fake, threshold=self.threshold, is_far=is_far, reasons=tuple(reasons) if is_judged else None
        )


DEFAULT: Final = OperatingPoint(0.5, "one half by default: no threshold was chosen on validation")


def load_operating_point(place: str | os.PathLike[str], *, revision: str = "main") -> OperatingPoint:
    """Load the operating point from a model's folder or Hub repository; return `DEFAULT` if it has none.

    Threshold and band in files of version 0.1, which lack `calibrated`, are those before the temperature; they are
    converted.

    Raises:
        OSError: the file cannot be read.
        ValueError: the file does not contain an operating point.
    """
    file = find_beside(place, OPERATING_POINT, revision=revision)
    if file is None:
        return DEFAULT
    content = read_object(file)
    try:
        return from_plain(OperatingPoint, {"calibrated": False, **content}).on_calibrated_scale()
    except ValueError as error:
        raise ValueError(
            f"expected an operating point in {file}; found something else ({error}). Write it again with "
            "python -m realfake_hf.training.posthoc --operating_point."
        ) from error


def find_beside(place: str | os.PathLike[str], name: str, *, revision: str = "main") -> Path | None:
    """Return the path of an optional file in a model's folder or Hub repository; None if there is no such file."""
    folder = Path(place).expanduser()
    if folder.is_dir():
        file = folder / name
        return file if os.path.lexists(file) else None  # a broken link is an error, not an absent file
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HFValidationError, RepositoryNotFoundError

    try:
        with offline_if_unreachable():
            return Path(hf_hub_download(os.fspath(place), name, revision=revision))
    except (EntryNotFoundError, RepositoryNotFoundError, HFValidationError):  # missing, or offline and not cached
        return None
