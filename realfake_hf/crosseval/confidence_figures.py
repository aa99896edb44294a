"""Can confidence be trusted? Said against found, how sure verdicts were, and what silence on the unsure ones buys."""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import PercentFormatter

from realfake_hf.figures.estimates import legend_below
from realfake_hf.figures.style import BLUE, COLORS, INK, VERMILLION, WIDTH, style_axes

PANEL_HEIGHT: Final = 2.6  # inches
GAP: Final = 0.08  # between data sets, as a share of a panel's height
ROOM: Final = 0.08  # inches above and below a panel
TITLE_WIDTH: Final = 24  # characters that fit over a third of a figure
LINES: Final = ("-", "--", ":", "-.")


@dataclass(frozen=True)
class ReliabilityPanel:
    """A model on a data set.

    Attributes:
        title: which.
        said: mean probability of FAKE of each bin that is not empty.
        found: share of FAKE pictures in it.
        said_after: the same after temperature scaling; empty without.
        found_after: the same after temperature scaling.
        edges: (k + 1,) of the bins of confidence, from 0.5 to 1.
        right: (k,) right verdicts.
        wrong: (k,) wrong ones.
    """

    title: str
    said: Sequence[float]
    found: Sequence[float]
    said_after: Sequence[float]
    found_after: Sequence[float]
    edges: Sequence[float]
    right: Sequence[int]
    wrong: Sequence[int]


def reliability_diagrams(rows: Sequence[Sequence[ReliabilityPanel]]) -> Figure:
    """Draw for each model on each data set what it says against what is, and below it how sure its verdicts were.

    Args:
        rows: one a data set, each with a panel a model.
    """
    if not rows or not rows[0]:
        raise ValueError("wanted one or more panels to draw; found none.")
    figure = Figure(figsize=(WIDTH, 1.2 + 1.6 * PANEL_HEIGHT * len(rows)), layout="constrained")
    heights = [1, 0.5, GAP] * len(rows)
    grid = figure.add_gridspec(len(heights) - 1, len(rows[0]), height_ratios=heights[:-1])
    for number, row in enumerate(rows):
        for column, panel in enumerate(row):
            above, below = (figure.add_subplot(grid[3 * number + part, column]) for part in (0, 1))
            _draw_reliability(above, panel)
            _draw_histogram(below, panel)
            if column == 0:
                above.set_ylabel("share of FAKE")
                below.set_ylabel("verdicts")
    legend_below(figure, figure.axes, columns=5)
    return figure


def risk_coverage_curves(panels: Mapping[str, Mapping[str, tuple[Sequence[float], Sequence[float]]]]) -> Figure:
    """Draw the share of wrong verdicts when only the surest pictures are decided, a panel a data set.

    Args:
        panels: by data set and model, coverage and risk, (n,) each.
    """
    if not panels:
        raise ValueError("wanted one or more data sets to draw; found none.")
    columns = min(2, len(panels))
    height = -(-len(panels) // columns)
    figure = Figure(figsize=(WIDTH, 0.8 + PANEL_HEIGHT * height), layout=ConstrainedLayoutEngine(h_pad=ROOM))
    grid = figure.subplots(height, columns, squeeze=False).ravel()
    for axes in grid[len(panels) :]:
        axes.remove()
    for axes, (title, curves) in zip(grid, panels.items(), strict=False):
        style_axes(axes)
        axes.set_title(title, parse_math=False, fontsize=10)
        for (model, (coverage, risk)), color, line in zip(curves.items(), cycle(COLORS), cycle(LINES), strict=False):
            axes.plot(coverage, risk, label=model, color=color, linestyle=line)
        axes.set(xlim=(0, 1), xlabel="share decided, the surest first", ylabel="wrong among them")
        axes.set_ylim(bottom=0)
        axes.yaxis.set_major_formatter(PercentFormatter(1))
        axes.xaxis.set_major_formatter(PercentFormatter(1))
    legend_below(figure, grid[: len(panels)].tolist(), columns=4)
    return figure


def _draw_reliability(axes: Axes, panel: ReliabilityPanel) -> None:
    style_axes(axes)
    axes.plot([0, 1], [0, 1], color=INK, linestyle=":", linewidth=1, label="said = found")
    axes.plot(panel.said, panel.found, color=BLUE, marker="o", markersize=4, label="as it is")
    if panel.said_after:
        look = {"color": VERMILLION, "linestyle": "--", "marker": "s", "markersize": 4}
        axes.plot(panel.said_after, panel.found_after, label="scaled", **look)  # type: ignore[arg-type]
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xlabel="probability of FAKE")
    title = textwrap.fill(panel.title, TITLE_WIDTH, break_long_words=False, break_on_hyphens=False)
    axes.set_title(title, parse_math=False, fontsize=10)


def _draw_histogram(axes: Axes, panel: ReliabilityPanel) -> None:
    style_axes(axes)
    edges = np.asarray(panel.edges)
    width = np.diff(edges)
    axes.bar(edges[:-1], panel.right, width, align="edge", color="#BBBBBB", edgecolor="white", label="right verdicts")
    axes.bar(
        edges[:-1], panel.wrong, width, panel.right, align="edge", color=VERMILLION, edgecolor="white",
        label="wrong verdicts",
    )  # fmt: skip
    axes.set(xlim=(0.5, 1), xlabel="confidence of the verdict")
