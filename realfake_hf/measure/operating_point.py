"""The threshold that a model goes out with: frozen on the validation split of its training, carried in its folder."""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Self

OPERATING_POINT: Final = "operating_point.json"


@dataclass(frozen=True)
class OperatingPoint:
    """Above which `p_fake` a picture is called FAKE, and where that comes from.

    Attributes:
        threshold: in [0, 1].
        chosen: how it was chosen, in a sentence.
        n: validation pictures that it was chosen on; 0 where it was not chosen at all.
        sha256: the fingerprint of that validation split, as in the passport of the training; None where unknown.

    Raises:
        ValueError: the threshold is outside [0, 1].

    >>> print(OperatingPoint(0.5, "by default"), OperatingPoint(0.375, "on validation", n=5000), sep="; ")
    0.5, by default; 0.375, on validation (n = 5,000)
    """

    threshold: float
    chosen: str
    n: int = 0
    sha256: str | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.threshold <= 1:
            raise ValueError(f"wanted a threshold in [0, 1]; found {self.threshold}. Choose it on validation anew.")

    def __str__(self) -> str:
        found = f"{self.threshold:.4g}, {self.chosen}"
        return f"{found} (n = {self.n:,})" if self.n else found

    def to_dict(self) -> dict[str, Any]:
        """The operating point as plain numbers and strings."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read back what `to_dict` wrote."""
        return cls(**data)


DEFAULT: Final = OperatingPoint(0.5, "one half by default: no threshold was chosen on validation")


def load_operating_point(folder: str | os.PathLike[str]) -> OperatingPoint:
    """Read the operating point of a model's folder; `DEFAULT` where it carries none, as a Hub id does not.

    Raises:
        ValueError: the file is there and says something else.
    """
    file = Path(folder).expanduser() / OPERATING_POINT
    if not file.is_file():
        return DEFAULT
    try:
        return OperatingPoint.from_dict(json.loads(file.read_text(encoding="utf-8")))
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"wanted the operating point of a model in {file}; found something else ({error}). Write it anew with "
            "python -m realfake_hf.publish.operating_point."
        ) from error
