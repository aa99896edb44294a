"""What a model goes out with: threshold, temperature and band, frozen on validation and carried in its folder."""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Self

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, HFValidationError, RepositoryNotFoundError

from realfake_hf.labels import Verdict

OPERATING_POINT: Final = "operating_point.json"


@dataclass(frozen=True)
class Band:
    """Between which probabilities a detector is unsure.

    Attributes:
        low: in [0, 1]; at or below it a verdict is decided.
        high: in [low, 1]; at or above it a verdict is decided. Equal to `low`, nothing is unsure.
        promised: share of wrong verdicts among decided ones that pictures like those of validation do not exceed.

    Raises:
        ValueError: the ends are not in order, or outside [0, 1].

    >>> print(Band(0.25, 0.75, promised=0.02))
    unsure between 0.25 and 0.75, for at most 2 % wrong among the rest
    """

    low: float
    high: float
    promised: float

    def __post_init__(self) -> None:
        if not 0 <= self.low <= self.high <= 1:
            raise ValueError(f"wanted a band with 0 <= low <= high <= 1; found {self.low} and {self.high}.")

    def __str__(self) -> str:
        if self.low == self.high:
            return "never unsure"
        promise = f"for at most {100 * self.promised:g} % wrong among the rest"
        return f"unsure between {self.low:.4g} and {self.high:.4g}, {promise}"

    def decides(self, p_fake: float) -> bool:
        """Whether a probability lies outside the band."""
        return p_fake <= self.low or p_fake >= self.high


@dataclass(frozen=True)
class OperatingPoint:
    """Above which `p_fake` a picture is called FAKE, and where that comes from.

    Attributes:
        threshold: in [0, 1].
        chosen: how it was chosen, in a sentence.
        n: validation pictures that it was chosen on; 0 where it was not chosen at all.
        sha256: the fingerprint of that validation split, as in the passport of the training; None where unknown.
        temperature: what log-odds are divided by to be calibrated; None where none was fitted.
        band: between which probabilities the model is unsure; None where none was chosen, or none keeps the promise.

    Raises:
        ValueError: the threshold is outside [0, 1].

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
            raise ValueError(f"wanted a threshold in [0, 1]; found {self.threshold}. Choose it on validation anew.")

    def __str__(self) -> str:
        found = f"{self.threshold:.4g}, {self.chosen}"
        return f"{found} (n = {self.n:,})" if self.n else found

    def judge(self, p_fake: float) -> Verdict:
        """Call FAKE what is above the threshold, and say whether that is sure."""
        return Verdict.of(
            p_fake, threshold=self.threshold, is_sure=None if self.band is None else self.band.decides(p_fake)
        )

    def to_dict(self) -> dict[str, Any]:
        """The operating point as plain numbers and strings."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read back what `to_dict` wrote."""
        band = data.get("band")
        return cls(**{**data, "band": band and Band(**band)})


DEFAULT: Final = OperatingPoint(0.5, "one half by default: no threshold was chosen on validation")


def load_operating_point(place: str | os.PathLike[str], *, revision: str = "main") -> OperatingPoint:
    """Read the operating point of a model's folder or Hub repository; `DEFAULT` where there is none.

    Args:
        place: a folder, or a Hub id.
        revision: the branch, tag or commit on the Hub.

    Raises:
        ValueError: the file is there and says something else.
    """
    file = find_beside(place, OPERATING_POINT, revision=revision)
    if file is None:
        return DEFAULT
    try:
        return OperatingPoint.from_dict(json.loads(file.read_text(encoding="utf-8")))
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"wanted the operating point of a model in {file}; found something else ({error}). Write it anew with "
            "python -m realfake_hf.training.operating_point."
        ) from error


def find_beside(place: str | os.PathLike[str], name: str, *, revision: str = "main") -> Path | None:
    """Find a file that may lie beside a model's weights, in a folder or on the Hub; None where it does not."""
    folder = Path(place).expanduser()
    if folder.is_dir():
        file = folder / name
        return file if file.is_file() else None
    try:
        return Path(hf_hub_download(os.fspath(place), name, revision=revision))
    except (EntryNotFoundError, RepositoryNotFoundError, HFValidationError):  # not there, or offline and not cached
        return None
