"""The operating point shipped with a model: threshold, temperature and abstention band, chosen on validation."""

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, HFValidationError, RepositoryNotFoundError

from realfake_hf.estimate import from_plain
from realfake_hf.labels import Verdict
from realfake_hf.store import read_object

OPERATING_POINT: Final = "operating_point.json"


@dataclass(frozen=True)
class Band:
    """The band of probabilities in which a detector abstains: its verdict is `unsure`.

    Attributes:
        low: highest probability below the band that is decided, in [0, 1].
        high: lowest probability above the band that is decided, in [low, 1]; if equal to `low`, nothing is unsure.
        promised: the highest error rate among decided images of the same kind as the validation images.

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

    def decides(self, p_fake: float) -> bool:
        """Return whether a probability is outside the band."""
        return p_fake <= self.low or p_fake >= self.high


@dataclass(frozen=True)
class OperatingPoint:
    """How the probabilities of a model become verdicts.

    Attributes:
        threshold: in [0, 1]; images with a greater `p_fake` are called FAKE.
        chosen: how the threshold was chosen.
        n: number of validation images; 0 for a default.
        sha256: fingerprint of the validation split, as in the training's `run.json`; None if unknown.
        temperature: divisor that calibrates log-odds; None if not fitted.
        band: abstention band; None if not chosen, or if no band keeps the promise.

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

    def __post_init__(self) -> None:
        if not 0 <= self.threshold <= 1:
            raise ValueError(f"expected a threshold in [0, 1]; found {self.threshold}. Choose it again on validation.")
        if self.temperature is not None and not 0 < self.temperature < math.inf:
            raise ValueError(f"expected a temperature above 0; found {self.temperature}. Fit it again on validation.")

    def __str__(self) -> str:
        text = f"{self.threshold:.4g}, {self.chosen}"
        return f"{text} (n = {self.n:,})" if self.n else text

    def judge(self, p_fake: float) -> Verdict:
        """Return the verdict for a probability: its label, and whether it is outside the band."""
        is_sure = None if self.band is None else self.band.decides(p_fake)
        return Verdict.of(p_fake, threshold=self.threshold, is_sure=is_sure)


DEFAULT: Final = OperatingPoint(0.5, "one half by default: no threshold was chosen on validation")


def load_operating_point(place: str | os.PathLike[str], *, revision: str = "main") -> OperatingPoint:
    """Load the operating point from a model's folder or Hub repository; return `DEFAULT` if it has none.

    Raises:
        OSError: the file cannot be read.
        ValueError: the file does not contain an operating point.
    """
    file = find_beside(place, OPERATING_POINT, revision=revision)
    if file is None:
        return DEFAULT
    content = read_object(file)
    try:
        return from_plain(OperatingPoint, content)
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
    try:
        return Path(hf_hub_download(os.fspath(place), name, revision=revision))
    except (EntryNotFoundError, RepositoryNotFoundError, HFValidationError):  # missing, or offline and not cached
        return None
