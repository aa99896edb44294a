"""What models withstand: how well they rank, and what they get wrong, as their pictures are changed more and more."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from realfake_hf.estimate import Estimate
from realfake_hf.figures.comparison import MARKERS
from realfake_hf.figures.estimates import legend_below, spread
from realfake_hf.figures.style import COLORS, INK, style_axes

ROWS: Final = ("ROC AUC", "REAL called FAKE", "FAKE called REAL")
LIMITS: Final = ((0.38, 1.02), (-0.03, 1.03), (-0.03, 1.03))
FIGURE_WIDTH: Final = 11.0  # inches; many small panels

Curves = Mapping[str, Sequence[Estimate | None]]  # by model, one a step


@dataclass(frozen=True)
class RobustnessPanel:
    """One kind of change.

    Attributes:
        title: what is done.
        unit: of the strengths; nothing where the steps are not strengths of one thing, and are not joined by a line.
        steps: labels of the strengths, after that of the unchanged pictures.
        roc_auc: by model, one a step, in [0, 1].
        real_called_fake: likewise, the share of REAL pictures.
        fake_called_real: likewise, the share of FAKE pictures.
    """

    title: str
    unit: str
    steps: Sequence[str]
    roc_auc: Curves
    real_called_fake: Curves
    fake_called_real: Curves


def robustness_curves(panels: Sequence[RobustnessPanel], *, n: int) -> Figure:
    """Draw a column a kind of change: ROC AUC above, the two rates of error below, each with 95 % intervals.

    Args:
        panels: one a kind.
        n: pictures behind each point.
    """
    if not panels:
        raise ValueError("wanted one or more kinds of change to draw; found none.")
    figure = Figure(figsize=(FIGURE_WIDTH, 7.0), layout="constrained")
    grid = figure.subplots(len(ROWS), len(panels), sharex="col", sharey="row", squeeze=False)
    for column, panel in zip(grid.T, panels, strict=True):
        column[0].set_title(panel.title)
        for axes, curves in zip(column, (panel.roc_auc, panel.real_called_fake, panel.fake_called_real), strict=True):
            _draw(axes, curves, panel.steps, line="-" if panel.unit else "")
        column[-1].set_xlabel(panel.unit)
    for axes, words in zip(grid[:, 0], ROWS, strict=True):
        axes.set_ylabel(words)
    for axes in grid[0]:
        axes.axhline(0.5, color=INK, linestyle=":", linewidth=1)
    for axes, limits in zip(grid[:, 0], LIMITS, strict=True):
        axes.set_ylim(limits)
    figure.suptitle(f"n = {n:,} pictures at each step; bars: 95 % intervals; dotted: chance", fontsize=11)
    legend_below(figure, grid.ravel().tolist(), columns=4)
    return figure


def _draw(axes: Axes, curves: Curves, steps: Sequence[str], *, line: str) -> None:
    style_axes(axes)
    places = np.arange(len(steps))
    for index, (model, points) in enumerate(curves.items()):
        values, arms = spread(points)
        color, marker = COLORS[index % len(COLORS)], MARKERS[index % len(MARKERS)]
        axes.errorbar(
            places,
            values,
            yerr=arms,
            label=model,
            color=color,
            marker=marker,
            linestyle=line,
            markersize=4,
            linewidth=1.5,
            elinewidth=1,
        )
    axes.set_xticks(places, steps, fontsize=8, rotation=45, ha="right", rotation_mode="anchor")
