"""Figures that compare trainings, drawn from the content of their results files."""

from collections.abc import Mapping, Sequence
from itertools import product
from statistics import mean
from typing import Any, Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from realfake_hf.estimate import Estimate
from realfake_hf.experiments.search.plan import EXTRACTORS, HEADS, PAPER_ACCURACY, TOP
from realfake_hf.experiments.search.table import by_topology
from realfake_hf.experiments.trainings import format_spread
from realfake_hf.figures import style

PANELS: Final = {  # names of rows and columns by stage of the search
    EXTRACTORS: {"num_conv_layers": "convolutions", "num_filters": "filters"},
    HEADS: {"num_dense_layers": "dense layers", "dense_units": "units"},
}
TRANSFER: Final = {"balanced_accuracy": "balanced accuracy", "roc_auc": "ROC AUC"}

Results = Mapping[str, Any]
Place = tuple[Any, Any]  # row and column


def accuracy_against_time(results: Results, *, paper_accuracy: float | None = None) -> Figure:
    """Draw the test accuracy of compared models, with its 95% interval, against their training time.

    The time is in hours, and multiplied by the number of cores if all models were trained on processors. The accuracy
    reported by the paper, in [0, 1], is a dashed line.
    """
    figure = Figure(figsize=(style.WIDTH, 4.2), layout="constrained")
    axes = figure.subplots()
    style.style_axes(axes)
    models = results["models"]
    machines = [model["training"]["machine"] for model in models.values()]
    on_cores = all(machine["device"] == "cpu" for machine in machines)
    hours = [
        model["training"]["seconds"] / 3600 * (machine["cores"] if on_cores else 1)
        for model, machine in zip(models.values(), machines, strict=True)
    ]
    for index, (name, model) in enumerate(models.items()):
        accuracy = Estimate.from_dict(model["test"]["accuracy"])
        values, distances = style.error_bars([accuracy])
        label = f"{name}, {accuracy.value:.2%}"
        look = {**style.look(index), "linestyle": "", "markersize": 8}
        axes.errorbar([hours[index]], 100 * values, 100 * distances, label=label, **look)
    _draw_paper(axes, paper_accuracy)
    low, high = min(hours) / 2, 2 * max(hours)
    axes.set_xscale("log")
    unit = "core hours" if on_cores else "hours"
    axes.set(xlim=(low, high), xlabel=f"training time, {unit}", ylabel="test accuracy, %")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high / low < 1000 else (1,)))  # noqa: PLR2004
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    n = next(iter(models.values()))["test"]["n"]
    axes.set_title(f"n = {n:,} test images, bars: 95% intervals")
    style.legend_below(figure, [axes], columns=3)
    return figure


def topologies(results: Results) -> Figure:
    """Draw test accuracy by filters and convolutions, by units and layers, and against the number of parameters."""
    groups = {stage: group for stage in (EXTRACTORS, HEADS, TOP) if (group := by_topology(results, stage))}
    accuracy = {
        stage: {topology: 100 * mean(row["test"]["accuracy"] for row in rows) for topology, rows in group}
        for stage, group in groups.items()
    }
    known = [value for values in accuracy.values() for value in values.values()]
    figure = Figure(figsize=(style.WIDTH, 7.0), layout="constrained")
    parts: Any = figure.subfigures(2, 1, height_ratios=[1, 1.5])
    above, below = parts
    panels = {stage: names for stage, names in PANELS.items() if stage in groups}
    widths = [len({getattr(shape, [*names][1]) for shape in accuracy[stage]}) for stage, names in panels.items()]
    axes_row = above.subplots(1, len(panels), squeeze=False, width_ratios=widths)[0]
    for axes, (stage, (row, column)) in zip(axes_row, panels.items(), strict=True):
        cells = {(getattr(shape, row), getattr(shape, column)): value for shape, value in accuracy[stage].items()}
        rows, columns = (sorted({place[axis] for place in cells}) for axis in (0, 1))
        values = {place: cells.get(place, np.nan) for place in product(rows, columns)}
        texts = {place: f"{value:.1f}" for place, value in cells.items()}  # others were not trained
        _draw_matrix(axes, values, texts, low=min(known), high=max(known))
        axes.set(title=stage, xlabel=PANELS[stage][column], ylabel=PANELS[stage][row])
    points = {
        stage: [(rows[0]["parameters"], accuracy[stage][topology]) for topology, rows in group]
        for stage, group in groups.items()
    }
    _draw_parameters(below.subplots(), points)
    return figure


def transfer_matrices(results: Results) -> Figure:
    """Draw one matrix per measure and model: mean and deviation over seeds by training data (rows) and test data."""
    models = results["plan"]["models"]
    figure = Figure(figsize=(style.WIDTH, 0.6 + 2.6 * len(TRANSFER)), layout="constrained")
    panels = figure.subplots(len(TRANSFER), len(models), squeeze=False)
    for axes, (measure, model) in zip(panels.flat, product(TRANSFER, models), strict=True):
        cells = {
            (cell["trained_on"], cell["tested_on"]): cell[measure]
            for cell in results["cells"]
            if cell["model"] == model
        }
        texts = {place: format_spread(value, ".3f").replace(" ", "\n", 1) for place, value in cells.items()}
        _draw_matrix(axes, {place: value["mean"] for place, value in cells.items()}, texts, low=0.5, high=1)  # chance
        axes.set(title=f"{model}: {TRANSFER[measure]}", xlabel="tested on", ylabel="trained on")
    return figure


def _draw_paper(axes: Axes, accuracy: float | None) -> None:
    if accuracy is not None:
        label = f"the paper, {accuracy:.2%}"
        axes.axhline(100 * accuracy, color=style.INK, linestyle="--", linewidth=1, label=label)


def _draw_parameters(axes: Axes, points: Mapping[str, Sequence[tuple[int, float]]]) -> None:
    """Draw accuracy in per cent against the number of parameters, and a line of the best for their size."""
    for index, (group, pairs) in enumerate(points.items()):
        parameters, percent = zip(*pairs, strict=True)
        axes.scatter(parameters, percent, s=28, label=group, zorder=3, **style.look(index))
    every = sorted((pair for pairs in points.values() for pair in pairs), key=lambda pair: (pair[0], -pair[1]))
    front = [pair for i, pair in enumerate(every) if all(pair[1] > smaller[1] for smaller in every[:i])]
    axes.step(*zip(*front, strict=True), where="post", color=style.INK, linewidth=1, label="best for its size")
    _draw_paper(axes, PAPER_ACCURACY)
    limits = style.percent_range(np.array([100 * PAPER_ACCURACY, *(value for _, value in every)]))
    axes.set(xscale="log", xlabel="parameters", ylabel="test accuracy, %", ylim=limits)
    style.style_axes(axes)
    axes.legend(frameon=False, fontsize=9, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=len(points) + 2)


def _draw_matrix(
    axes: Axes, cells: Mapping[Place, float], texts: Mapping[Place, str], *, low: float, high: float
) -> None:
    """Draw values by row and column as colours with text; NaN leaves a cell empty."""
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
