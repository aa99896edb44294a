"""What the figures of a study share: estimates with their intervals, panels in a row, one legend below all."""

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from realfake_hf.estimate import Estimate
from realfake_hf.figures.style import COLORS, INK, Floats

REFERENCES: Final = ((INK, ":"), (INK, "--"), (INK, "-."))
Look = tuple[str, str]  # colour and line style


def ends(estimate: Estimate) -> tuple[float, float]:
    """Return the interval of an estimate, its value twice where there is none, or NaN where it is undefined."""
    value = np.nan if estimate.value is None else estimate.value
    return (value if estimate.low is None else estimate.low, value if estimate.high is None else estimate.high)


def known(estimates: Sequence[Estimate | None]) -> list[Estimate]:
    """Leave out what is undefined."""
    return [one for one in estimates if one is not None and one.value is not None]


def spread(estimates: Sequence[Estimate | None]) -> tuple[Floats, Floats]:
    """Give values (n,) and the distances to the ends of their intervals (2, n), as error bars want them; NaN if None.

    An interval of percentiles need not hold its value; an end on the wrong side then has the distance 0.
    """
    values = np.array([np.nan if one is None or one.value is None else one.value for one in estimates])
    edges = np.array([(np.nan, np.nan) if one is None else ends(one) for one in estimates]).reshape(-1, 2)
    return values, np.clip(np.stack([values - edges[:, 0], edges[:, 1] - values]), 0, None)


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
