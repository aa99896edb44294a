"""A search for a network's shape: accuracy by its parts, and against its parameters."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from realfake_hf.figures.style import COLORS, INK, WIDTH, percent_range, style_axes

_MARKERS: Final = "os^D"


@dataclass(frozen=True)
class GridPanel:
    """Accuracy by two parts of a shape.

    Attributes:
        title: above it.
        names: of what changes across and down.
        columns: values across.
        rows: values down.
        values: (rows, columns) accuracies in [0, 1]; None where there is none.
    """

    title: str
    names: tuple[str, str]
    columns: Sequence[int]
    rows: Sequence[int]
    values: Sequence[Sequence[float | None]]


@dataclass(frozen=True)
class ParameterPoint:
    """A shape, what it costs and what it reaches.

    Attributes:
        parameters: how many.
        accuracy: in [0, 1].
        group: which colour it has.
    """

    parameters: int
    accuracy: float
    group: str


def topologies(panels: Sequence[GridPanel], points: Sequence[ParameterPoint], *, paper: float | None = None) -> Figure:
    """Draw the panels side by side, and below them accuracy against parameters with the front of the best.

    Args:
        panels: one or two.
        points: all shapes.
        paper: an accuracy in [0, 1] to compare with, a dashed line.
    """
    if not panels or not points:
        raise ValueError("wanted panels and points to draw; found none.")
    figure = Figure(figsize=(WIDTH, 7.0), layout="constrained")
    parts: Any = figure.subfigures(2, 1, height_ratios=[1, 1.5])
    above, below = parts
    known = np.array([value for panel in panels for row in panel.values for value in row if value is not None])
    low, high = 100 * known.min(), 100 * known.max()
    places = above.subplots(1, len(panels), squeeze=False, width_ratios=[len(panel.columns) for panel in panels])
    for axes, panel in zip(places[0], panels, strict=True):
        _draw_panel(axes, panel, low=low, high=high)
    _draw_points(below.subplots(), points, paper)
    return figure


def _draw_panel(axes: Axes, panel: GridPanel, *, low: float, high: float) -> None:
    values = np.array([[np.nan if one is None else 100 * one for one in row] for row in panel.values])
    axes.imshow(values, cmap="viridis", vmin=low, vmax=max(high, low + 1e-9), aspect="auto")
    axes.set_title(panel.title, fontsize=11)
    axes.set_xticks(range(len(panel.columns)), [str(one) for one in panel.columns])
    axes.set_yticks(range(len(panel.rows)), [str(one) for one in panel.rows])
    axes.set(xlabel=panel.names[0], ylabel=panel.names[1])
    for (row, column), value in np.ndenumerate(values):
        if np.isnan(value):
            continue
        color = "white" if value < low + 0.6 * (high - low) else "black"
        axes.text(column, row, f"{value:.1f}", ha="center", va="center", color=color, fontsize=9)


def _draw_points(axes: Axes, points: Sequence[ParameterPoint], paper: float | None) -> None:
    groups = list(dict.fromkeys(point.group for point in points))
    for number, group in enumerate(groups):
        own = [point for point in points if point.group == group]
        axes.scatter(
            [point.parameters for point in own], [100 * point.accuracy for point in own], s=28, label=group,
            color=COLORS[number], marker=_MARKERS[number % len(_MARKERS)], zorder=3,
        )  # fmt: skip
    front = _front(points)
    axes.step(
        [point.parameters for point in front], [100 * point.accuracy for point in front], where="post", color=INK,
        linewidth=1, label="best for its size",
    )  # fmt: skip
    shown = [100 * point.accuracy for point in points]
    if paper is not None:
        axes.axhline(100 * paper, color=INK, linestyle="--", linewidth=1, label=f"paper, {100 * paper:.2f} %")
        shown.append(100 * paper)
    axes.set(xscale="log", xlabel="parameters", ylabel="accuracy on test, %", ylim=percent_range(np.array(shown)))
    style_axes(axes)
    axes.legend(frameon=False, fontsize=9, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=len(groups) + 2)


def _front(points: Sequence[ParameterPoint]) -> list[ParameterPoint]:
    """The points that no smaller one reaches, by size."""
    best: list[ParameterPoint] = []
    for point in sorted(points, key=lambda one: (one.parameters, -one.accuracy)):
        if not best or point.accuracy > best[-1].accuracy:
            best.append(point)
    return best
