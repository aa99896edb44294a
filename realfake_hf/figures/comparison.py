"""Figures that compare models: accuracy against training time, network topologies, and transfer between data sets."""

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from realfake_hf.estimate import Estimate
from realfake_hf.figures import style

Cells = Mapping[tuple[Any, Any], float]  # values by row and column


def accuracy_against_time(
    models: Mapping[str, tuple[float, Estimate]], *, n: int, paper_accuracy: float | None = None
) -> Figure:
    """Draw the test accuracy of models, with its 95% interval, against their training time.

    Args:
        models: seconds of training, above 0, and accuracy in [0, 1], by name.
        n: number of test images.
        paper_accuracy: accuracy in [0, 1] to draw as a dashed line.
    """
    figure = Figure(figsize=(style.WIDTH, 4.2), layout="constrained")
    axes = figure.subplots()
    style.style_axes(axes)
    for (name, (seconds, accuracy)), marker, color in zip(
        models.items(), cycle(style.MARKERS), cycle(style.COLORS), strict=False
    ):
        values, distances = style.error_bars([accuracy])
        label = f"{name}, {accuracy.value:.2%}"
        axes.errorbar([seconds], 100 * values, 100 * distances, fmt=marker, color=color, markersize=8, label=label)
    if paper_accuracy is not None:
        label = f"the paper, {paper_accuracy:.2%}"
        axes.axhline(100 * paper_accuracy, color=style.INK, linestyle="--", linewidth=1, label=label)
    times = [seconds for seconds, _ in models.values()]
    low, high = min(times) / 2, 2 * max(times)
    axes.set_xscale("log")
    axes.set(xlim=(low, high), xlabel="training time, seconds", ylabel="test accuracy, %")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high / low < 1000 else (1,)))  # noqa: PLR2004
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_title(f"n = {n:,} test images, bars: 95% intervals")
    style.legend_below(figure, [axes], columns=3)
    return figure


def topologies(
    panels: Mapping[tuple[str, str, str], Mapping[tuple[int, int], float | None]],
    points: Mapping[str, Sequence[tuple[int, float]]],
    *,
    paper_accuracy: float | None = None,
) -> Figure:
    """Draw accuracy by the parts of a network, and below it accuracy against the number of parameters.

    Args:
        panels: one or two panels by title and names of rows and columns. A panel contains accuracies in [0, 1] by row
            and column, row by row, and None for networks that were not trained.
        points: number of parameters and accuracy of each network, by group.
        paper_accuracy: accuracy in [0, 1] to draw as a dashed line.
    """
    figure = Figure(figsize=(style.WIDTH, 7.0), layout="constrained")
    parts: Any = figure.subfigures(2, 1, height_ratios=[1, 1.5])
    above, below = parts
    known = [100 * value for cells in panels.values() for value in cells.values() if value is not None]
    widths = [len({column for _, column in cells}) for cells in panels.values()]
    axes_row = above.subplots(1, len(panels), squeeze=False, width_ratios=widths)[0]
    for axes, ((title, rows, columns), cells) in zip(axes_row, panels.items(), strict=True):
        percent = {place: np.nan if value is None else 100 * value for place, value in cells.items()}
        texts = {place: "" if np.isnan(value) else f"{value:.1f}" for place, value in percent.items()}
        _draw_matrix(axes, percent, texts, low=min(known), high=max(known))
        axes.set(title=title, xlabel=columns, ylabel=rows)
    _draw_parameters(below.subplots(), points, paper_accuracy)
    return figure


def _draw_parameters(axes: Axes, points: Mapping[str, Sequence[tuple[int, float]]], paper: float | None) -> None:
    for (group, pairs), marker, color in zip(points.items(), cycle(style.MARKERS), cycle(style.COLORS), strict=False):
        parameters, accuracy = np.array(pairs).T
        axes.scatter(parameters, 100 * accuracy, s=28, label=group, color=color, marker=marker, zorder=3)
    front = _pareto_front([pair for pairs in points.values() for pair in pairs])
    parameters, accuracy = np.array(front).T
    axes.step(parameters, 100 * accuracy, where="post", color=style.INK, linewidth=1, label="best for its size")
    percent = [100 * accuracy for pairs in points.values() for _, accuracy in pairs]
    if paper is not None:
        axes.axhline(100 * paper, color=style.INK, linestyle="--", linewidth=1, label=f"paper, {100 * paper:.2f}%")
        percent.append(100 * paper)
    axes.set(xscale="log", xlabel="parameters", ylabel="test accuracy, %", ylim=style.percent_range(np.array(percent)))
    style.style_axes(axes)
    axes.legend(frameon=False, fontsize=9, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=len(points) + 2)


def _pareto_front(points: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
    """Return the points more accurate than all smaller ones, by size."""
    front: list[tuple[int, float]] = []
    for parameters, accuracy in sorted(points, key=lambda point: (point[0], -point[1])):
        if not front or accuracy > front[-1][1]:
            front.append((parameters, accuracy))
    return front


def transfer_matrices(grid: Sequence[Mapping[str, Mapping[tuple[str, str], tuple[float, float | None]]]]) -> Figure:
    """Draw one matrix per model and measure: rows are the training data, columns the test data.

    The grid has rows of matrices by title. A matrix contains the mean over seeds, in [0, 1], and its standard
    deviation, None for a single seed, by training and test data.
    """
    figure = Figure(figsize=(style.WIDTH, 0.6 + 2.6 * len(grid)), layout="constrained")
    panels = figure.subplots(len(grid), len(grid[0]), squeeze=False)
    for axes, (title, cells) in zip(panels.flat, [item for row in grid for item in row.items()], strict=True):
        texts = {
            place: f"{mean:.3f}" if deviation is None else f"{mean:.3f}\n± {deviation:.3f}"
            for place, (mean, deviation) in cells.items()
        }
        _draw_matrix(axes, {place: mean for place, (mean, _) in cells.items()}, texts, low=0.5, high=1)  # from chance
        axes.set(title=title, xlabel="tested on", ylabel="trained on")
    return figure


def _draw_matrix(axes: Axes, cells: Cells, texts: Mapping[tuple[Any, Any], str], *, low: float, high: float) -> None:
    """Draw values as colours with text; NaN leaves a cell empty."""
    rows, columns = (list(dict.fromkeys(keys)) for keys in zip(*cells, strict=True))
    values = np.array([[cells[row, column] for column in columns] for row in rows])
    axes.imshow(values, cmap="viridis", vmin=low, vmax=max(high, low + 1e-9), aspect="auto")
    axes.set_xticks(range(len(columns)), [str(column) for column in columns])
    axes.set_yticks(range(len(rows)), [str(row) for row in rows])
    axes.title.set_fontsize(11)
    for (row, column), text in texts.items():
        color = "white" if cells[row, column] < low + 0.6 * (high - low) else "black"
        x, y = columns.index(column), rows.index(row)
        axes.text(x, y, text, ha="center", va="center", color=color, fontsize=10, gid=style.FIXED)
