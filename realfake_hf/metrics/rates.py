"""How often something happened, with the exact interval of so many trials."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from scipy.stats import binomtest


@dataclass(frozen=True)
class Rate:
    """k of n, and the exact 95 % interval of the share (Clopper & Pearson, 1934, *Biometrika* 26:404-413).

    Attributes:
        k: how often it happened.
        n: how often it could have.
        value: k / n, in [0, 1]; None where n is 0.
        low: lower end of the interval; None where n is 0.
        high: upper end.

    >>> print(Rate.of(3, 60), Rate.of(0, 0), sep="; ")
    0.050 (0.010 to 0.139); undefined
    """

    k: int
    n: int
    value: float | None
    low: float | None
    high: float | None

    @classmethod
    def of(cls, k: int, n: int) -> Self:
        """Count k of n."""
        if not n:
            return cls(k, n, None, None, None)
        interval = binomtest(k, n).proportion_ci(method="exact")
        return cls(k, n, k / n, float(interval.low), float(interval.high))

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read back what `dataclasses.asdict` made of it."""
        return cls(**data)

    def __str__(self) -> str:
        if self.value is None:
            return "undefined"
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})"
