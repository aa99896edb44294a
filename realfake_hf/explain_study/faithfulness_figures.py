"""Do maps say what a model goes by? Curves of deletion and insertion, gaps to a random order, cascades of weights."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from realfake_hf.estimate import Estimate
from realfake_hf.figures.estimates import Look, legend_below, line_looks, spread
from realfake_hf.figures.style import BLUE, INK, VERMILLION, WIDTH, style_axes

PALE: Final = "#999999"  # of what cannot be told from 0
SIDES: Final = {1: ("better than a random order", BLUE), 0: ("cannot be told apart", PALE), -1: ("worse", VERMILLION)}


@dataclass(frozen=True)
class CurvePanel:
    """The curves of a model.

    Attributes:
        model: its name.
        deletion: by method or reference, the mean probability, in [0, 1], after each step; evenly spaced from nothing
            hidden to all hidden.
        insertion: likewise, from all hidden to nothing hidden.
    """

    model: str
    deletion: Mapping[str, Sequence[float]]
    insertion: Mapping[str, Sequence[float]]


@dataclass(frozen=True)
class GapRow:
    """How far a method's areas lie from those of a random order, as paired differences.

    Attributes:
        model: rows of a model follow each other.
        method: the map's.
        deletion: its deletion area less that of a random order; below 0 is better. None where undefined.
        insertion: likewise; above 0 is better.
    """

    model: str
    method: str
    deletion: Estimate | None
    insertion: Estimate | None


@dataclass(frozen=True)
class CascadePanel:
    """What is left of a model's maps as its weights are randomised, from the classifier downward.

    Attributes:
        model: its name.
        stages: what was randomised, in order; each stage holds those before it.
        methods: by name, the agreement with the trained model's map after each stage, in [-1, 1].
    """

    model: str
    stages: Sequence[str]
    methods: Mapping[str, Sequence[Estimate | None]]


def faithfulness_curves(panels: Sequence[CurvePanel], *, methods: Sequence[str], references: Sequence[str]) -> Figure:
    """Draw the curves of deletion above those of insertion, a column a model.

    Args:
        panels: one a model.
        methods: in the order that gives them their colours.
        references: of the curves, those that are no method's, such as a random order.
    """
    _check_some(panels, "models")
    looks = line_looks(methods, references)
    figure = Figure(figsize=(WIDTH, 6.4), layout="constrained")
    grid = figure.subplots(2, len(panels), sharex=True, sharey=True, squeeze=False)
    for column, panel in zip(grid.T, panels, strict=True):
        column[0].set_title(panel.model, parse_math=False)
        for axes, curves in zip(column, (panel.deletion, panel.insertion), strict=True):
            _draw_curves(axes, curves, looks)
    for axes, words in zip(grid[:, 0], ("deletion", "insertion"), strict=True):
        axes.set_ylabel(f"{words}\nprobability of the label")
    for axes in grid[1]:
        axes.set_xlabel("share of the cells hidden or shown")
    legend_below(figure, grid.ravel().tolist(), columns=3, order=[*methods, *references])
    return figure


def gap_bars(rows: Sequence[GapRow]) -> Figure:
    """Draw how far each method's areas lie from those of a random order, blue where it is better beyond doubt.

    Args:
        rows: one a model and method.
    """
    _check_some(rows, "rows")
    figure = Figure(figsize=(WIDTH, 1.7 + 0.34 * len(rows)), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    _draw_gaps(left, [row.deletion for row in rows], better=-1)
    _draw_gaps(right, [row.insertion for row in rows], better=1)
    left.set_yticks(range(len(rows)), [f"{row.model} {row.method}" for row in rows], parse_math=False)
    left.set(title="deletion: lower is better", xlabel="area less that of a random order")
    right.set(title="insertion: higher is better", xlabel="area less that of a random order")
    left.invert_yaxis()
    changes = [index for index in range(1, len(rows)) if rows[index].model != rows[index - 1].model]
    for axes in (left, right):
        for index in changes:
            axes.axhline(index - 0.5, color=INK, linewidth=0.8)
    legend_below(figure, [left, right], columns=3, order=[words for words, _ in SIDES.values()])
    return figure


def cascade(panels: Sequence[CascadePanel], *, methods: Sequence[str]) -> Figure:
    """Draw how like the trained model's maps those of ever more random models are, after each stage.

    Args:
        panels: one a model.
        methods: in the order that gives them their colours.
    """
    _check_some(panels, "models")
    looks = line_looks(methods)
    figure = Figure(figsize=(WIDTH, 4.9), layout="constrained")
    row = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, panel in zip(row, panels, strict=True):
        style_axes(axes)
        axes.axhline(0, color=INK, linewidth=0.8)
        for position, (method, estimates) in enumerate(panel.methods.items()):
            values, distances = spread([Estimate(1.0), *estimates])
            places = np.arange(len(values)) + 0.06 * (position - (len(panel.methods) - 1) / 2)  # bars side by side
            axes.errorbar(
                places, values, yerr=distances, color=looks[method][0], label=method, marker="o", markersize=4
            )
        stages = ["trained", *panel.stages]
        axes.set_xticks(range(len(stages)), stages, rotation=35, ha="right", rotation_mode="anchor", parse_math=False)
        axes.set_title(panel.model, parse_math=False)
        axes.set_xlabel("random from the head down to")
    row[0].set_ylabel("Spearman correlation with\nthe trained model's map")
    legend_below(figure, row.tolist(), columns=3, order=methods)
    return figure


def _check_some(rows: Sequence[object], what: str) -> None:
    if not rows:
        raise ValueError(f"wanted one or more {what} to draw; found none. Leave the figure out.")


def _draw_curves(axes: Axes, curves: Mapping[str, Sequence[float]], looks: Mapping[str, Look]) -> None:
    style_axes(axes)
    axes.set_ylim(0, 1.02)
    for name, values in curves.items():
        color, style = looks[name]
        axes.plot(np.linspace(0, 1, len(values)), values, color=color, linestyle=style, linewidth=1.8, label=name)


def _draw_gaps(axes: Axes, estimates: Sequence[Estimate | None], *, better: int) -> None:
    style_axes(axes)
    axes.grid(visible=False, axis="y")
    axes.axvline(0, color=INK, linewidth=1)
    values, distances = spread(estimates)
    for side, (words, color) in SIDES.items():
        chosen = [i for i, one in enumerate(estimates) if one is not None and better * one.side == side]
        if chosen:
            axes.barh(chosen, values[chosen], height=0.62, color=color, label=words)
    axes.errorbar(values, range(len(values)), xerr=distances, fmt="none", ecolor=INK, elinewidth=1.4)
