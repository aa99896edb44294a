"""What figures share: colours, sizes, axes, ranges in per cent, labels that keep apart, how a PNG is written."""

from pathlib import Path
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

BLUE: Final = "#0072B2"
VERMILLION: Final = "#D55E00"
INK: Final = "#333333"
COLORS: Final = (BLUE, VERMILLION, "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")  # yellow fades on white
WIDTH: Final = 8.0  # inches: 1,200 pixels as saved
LABEL_HEIGHT: Final = 0.18  # inches from one line-end label to the next
Floats = NDArray[np.float64]


def save_figure(figure: Figure, path: Path) -> Path:
    """Write a PNG at 150 dpi, making its folder, and return the path; the same figure gives the same bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="png", dpi=150, metadata={"Software": None})
    return path


def unit_interval(values: ArrayLike) -> Floats:
    """Give the values as an array, or raise ValueError where one lies outside [0, 1]."""
    array = np.asarray(values, dtype=np.float64)
    if not ((array >= 0) & (array <= 1)).all():  # NaN fails too
        raise ValueError(
            f"wanted accuracies or probabilities in [0, 1]; found {array.min():g} to {array.max():g}. "
            "Divide percentages by 100; turn logits into probabilities."
        )
    return array


def style_axes(axes: Axes) -> None:
    """Leave the left and lower spine, and a light grid behind what is drawn."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#E5E5E5", linewidth=0.8)
    axes.set_axisbelow(True)


def percent_range(percent: Floats) -> tuple[float, float]:
    """Give the limits of an axis on which all the values, in per cent, have a little room; they stay in [0, 100]."""
    room = max(0.06 * float(np.ptp(percent)), 0.25)
    return max(float(percent.min()) - room, 0.0), min(float(percent.max()) + room, 100.0)


def push_apart(places: Floats, *, gap: float) -> Floats:
    """Move sorted points of [0, 1] at least `gap` apart, in the same order, the largest move as small as can be."""
    steps = gap * np.arange(len(places))
    loose = places - steps  # the wish is now "not decreasing": the isotonic fit of least largest error is
    fitted = (np.maximum.accumulate(loose) + np.minimum.accumulate(loose[::-1])[::-1]) / 2
    return np.asarray(np.clip(fitted, 0, max(0.0, 1 - steps[-1])) + steps)
