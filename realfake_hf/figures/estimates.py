"""What the figures of a study share: estimates with their intervals, panels in a row, one legend below all."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from realfake_hf.figures.style import COLORS, INK, Floats

REFERENCES: Final = ((INK, ":"), (INK, "--"), (INK, "-."))
Look = tuple[str, str]  # colour and line style


@dataclass(frozen=True)
class Estimate:
    """A number and its 95 % interval.

    Attributes:
        value: in the units of the figure.
        low: lower end of the interval; None where there is none.
        high: upper end; None where there is none.
    """

    value: float
    low: float | None = None
    high: float | None = None

    @property
    def ends(self) -> tuple[float, float]:
        """The interval, or the value twice where there is none."""
        return (
            self.value if self.low is None else self.low,
            self.value if self.high is None else self.high,
        )

    @property
    def side(self) -> int:
        """1 where all of the interval lies above 0, -1 where all of it lies below, else 0; 0 without an interval."""
        if self.low is None or self.high is None:
            return 0
        return int(self.low > 0) - int(self.high < 0)


def known(estimates: Sequence[Estimate | None]) -> list[Estimate]:
    """Leave out what is undefined."""
    return [one for one in estimates if one is not None]


def spread(estimates: Sequence[Estimate | None]) -> tuple[Floats, Floats]:
    """Give values (n,) and the distances to the ends of their intervals (2, n), as error bars want them; NaN if None.

    An interval of percentiles need not hold its value; an end on the wrong side then has the distance 0.
    """
    values = np.array([np.nan if one is None else one.value for one in estimates])
    ends = np.array([(np.nan, np.nan) if one is None else one.ends for one in estimates]).reshape(-1, 2)
    return values, np.clip(np.stack([values - ends[:, 0], ends[:, 1] - values]), 0, None)


def line_looks(methods: Sequence[str], references: Sequence[str] = ()) -> Mapping[str, Look]:
    """Give each method its colour, and each reference, such as a random order, a dark line of its own kind."""
    looks = {method: (COLORS[index % len(COLORS)], "-") for index, method in enumerate(methods)}
    return looks | dict(zip(references, REFERENCES, strict=False))


def legend_below(figure: Figure, axes: Sequence[Axes], *, columns: int, order: Sequence[str] = ()) -> None:
    """Name once, below all panels, what is drawn in any of them: what `order` names first, then the rest."""
    handles: dict[str, Artist] = {}
    for panel in axes:
        for handle, label in zip(*panel.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    names = sorted(handles, key=lambda name: order.index(name) if name in order else len(order))
    figure.legend(
        [handles[name] for name in names], names, loc="outside lower center", ncols=columns, frameon=False, fontsize=10
    )
