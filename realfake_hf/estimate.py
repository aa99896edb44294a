"""A measured value with its 95% interval and its number of items, and a difference with its p-value."""

from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields, is_dataclass
from pathlib import Path
from types import NoneType
from typing import Any, Final, Self, TypeVar, get_args, get_origin, get_type_hints

LEVEL: Final = 0.05  # corrected p-values below it are significant

Kind = TypeVar("Kind")

_PLAIN: Any = {bool: bool, int: int, float: (int, float), str: str}  # types of JSON by type hint


@dataclass(frozen=True)
class Estimate:
    """A value and its 95% interval.

    Attributes:
        value: the estimate; None if undefined, such as the precision if no image is predicted FAKE.
        low: lower end of the interval; None without an interval or a value.
        high: upper end of the interval; None without an interval or a value.
        n: number of items; None if the surrounding report contains it.
        k: number of positive items if the value is k / n; else None.
        undefined: number of items without a value, not included in n; None if all items have values.

    >>> print(Estimate(0.952, 0.949, 0.955), Estimate(0.952), Estimate(None), sep="; ")
    0.952 (0.949 to 0.955); 0.952; undefined
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    n: int | None = None
    k: int | None = None
    undefined: int | None = None

    def __str__(self) -> str:
        return self.format(".3f")

    def format(self, spec: str) -> str:
        """Format the value and its interval, given the format specification of one number.

        >>> Estimate(0.0512, 0.0391, 0.0644).format("+.1%")
        '+5.1% (+3.9% to +6.4%)'
        """
        if self.value is None:
            return "undefined"
        if self.low is None or self.high is None:
            return f"{self.value:{spec}}"
        return f"{self.value:{spec}} ({self.low:{spec}} to {self.high:{spec}})"

    @property
    def side(self) -> int:
        """1 if the whole interval is above 0, -1 if it is below 0, else 0; 0 without an interval."""
        if self.low is None or self.high is None:
            return 0
        return int(self.low > 0) - int(self.high < 0)

    def is_above(self, other: Self) -> bool:
        """Whether the whole interval lies above that of another estimate; False without intervals."""
        return self.low is not None and other.high is not None and self.low > other.high

    def to_dict(self) -> dict[str, Any]:
        """Return plain numbers: always the value and its interval, and the counts that are not None."""
        always = ("value", "low", "high")
        return {name: entry for name, entry in asdict(self).items() if name in always or entry is not None}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Restore the result of `to_dict`; other keys are ignored.

        >>> Estimate.from_dict({"value": 0.5, "low": 0.4, "high": 0.6, "n": 20})
        Estimate(value=0.5, low=0.4, high=0.6, n=20, k=None, undefined=None)
        """
        return cls(**{name: data[name] for name in cls.__dataclass_fields__ if name in data})


@dataclass(frozen=True)
class Difference(Estimate):
    """An estimate that is tested against 0.

    Attributes:
        p_value: two-sided p-value; None without a value or an interval.
        p_holm: the p-value corrected for a family of comparisons (Holm, 1979); None if it belongs to none.
    """

    p_value: float | None = None
    p_holm: float | None = None

    @property
    def side(self) -> int:
        """1 if it is significantly positive, -1 if negative, else 0, by `p_holm`; without it, by the interval.

        >>> Difference(0.1, 0.02, 0.18, p_value=0.02, p_holm=0.2).side
        0
        """
        if self.p_holm is None or self.value is None:
            return super().side
        return int(self.p_holm < LEVEL) * (int(self.value > 0) - int(self.value < 0))


def to_plain(item: object) -> dict[str, Any]:
    """Convert a dataclass or mapping recursively to plain dictionaries, lists, text and numbers.

    >>> to_plain({"accuracy": Estimate(0.5)})
    {'accuracy': {'value': 0.5, 'low': None, 'high': None}}
    """
    plain: dict[str, Any] = _plain(item)
    return plain


def _plain(item: Any) -> Any:  # noqa: ANN401 - any tree of dataclasses
    if isinstance(item, Estimate):
        return item.to_dict()
    if is_dataclass(item) and not isinstance(item, type):
        return {field.name: _plain(getattr(item, field.name)) for field in fields(item)}
    if isinstance(item, Mapping):
        return {name: _plain(entry) for name, entry in item.items()}
    if isinstance(item, list | tuple):
        return [_plain(entry) for entry in item]
    return str(item) if isinstance(item, Path) else item


def from_plain(kind: type[Kind], data: Mapping[str, Any]) -> Kind:
    """Restore a dataclass and its nested dataclasses from the result of `to_plain`, by their type hints.

    Nested classes with a method `from_dict` are restored by it. Other keys are ignored.

    >>> from_plain(Estimate, {"value": 0.5, "low": 0.4, "high": 0.6})
    Estimate(value=0.5, low=0.4, high=0.6, n=None, k=None, undefined=None)
    """
    if not isinstance(data, Mapping):
        raise ValueError(f"expected the fields of {kind.__name__}; found {data!r:.40}")
    hints = get_type_hints(kind)
    own = fields(kind)  # type: ignore[arg-type]
    required = [field.name for field in own if field.default is MISSING and field.default_factory is MISSING]
    missing = [name for name in required if name not in data]
    if missing:
        raise ValueError(f"expected {', '.join(missing)} in a {kind.__name__}; found none")
    names = [field.name for field in own if field.name in data]
    return kind(**{name: _rebuild(hints[name], data[name], name) for name in names})


def _rebuild(hint: Any, data: Any, name: str) -> Any:  # noqa: ANN401 - any tree of dataclasses
    arguments = get_args(hint)
    if hint in _PLAIN and (not isinstance(data, _PLAIN[hint]) or (isinstance(data, bool) and hint is not bool)):
        raise ValueError(f"expected {name} of type {hint.__name__}; found {data!r:.40}")
    if data is None:
        return None
    if NoneType in arguments:
        return _rebuild(next(option for option in arguments if option is not NoneType), data, name)
    if get_origin(hint) is tuple:
        return tuple(_rebuild(arguments[0], item, name) for item in data)
    if get_origin(hint) is dict:
        return {key: _rebuild(arguments[1], entry, name) for key, entry in data.items()}
    if hasattr(hint, "from_dict"):
        return hint.from_dict(data)
    return from_plain(hint, data) if isinstance(hint, type) and is_dataclass(hint) else data
