"""The HTML report of a grid with its figures: transfer, reliability, risk and coverage, robustness to corruptions."""

import textwrap
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import cycle, groupby
from pathlib import Path
from typing import Any, Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import PercentFormatter
from numpy.typing import NDArray

from realfake_hf.crosseval.cell import Cell, Confidence
from realfake_hf.crosseval.errors import find_sheets
from realfake_hf.crosseval.grid import Grid
from realfake_hf.crosseval.robustness import Robustness
from realfake_hf.crosseval.tables import findings, settings_tables, summary, tables_by_section, warnings
from realfake_hf.data.corruptions import CORRUPTIONS
from realfake_hf.estimate import Estimate
from realfake_hf.figures import style
from realfake_hf.metrics.calibration import Bin
from realfake_hf.pages.page import PageFigure, Section, write_page
from realfake_hf.tables import Table

PROTOCOLS: Final = {
    "native": "Native: images go to the model's own processor unchanged.",
    "matched": "Matched: images are first resized to 32 x 32 pixels and compressed as JPEG of quality 75, like all "
    "images of CIFAKE, so that data sets differ in content and generator but not in resolution or codec.",
    "crop": "Crop: the largest centre square is cut out first, so that no processor changes the aspect ratio.",
}
SECTIONS: Final = {  # title and text by anchor; the text of the results explains the protocols
    "results": ("All models on all data sets", ""),
    "confidence": ("Confidence", "Are the probabilities calibrated, and are the unsure verdicts the wrong ones?"),
    "groups": ("Contents and generators", "Do unseen contents or generators explain the errors?"),
    "false_alarms": ("False alarms", "Which real images are called FAKE?"),
    "robustness": ("Robustness", "How do models perform on compressed, blurred or cropped images?"),
    "files": (
        "Shortcuts and near-duplicates",
        "What can a detector learn without looking at images, and which images may it know from training?",
    ),
}
SHEETS: Final = (
    "The most confident errors, with attribution maps and nearest training images in the model's embedding."
)
METHODS: Final = """\
FAKE is the positive class. Each model is evaluated at the threshold stored with it, which was chosen on the validation
split of its training data, and probabilities are those after temperature scaling, unless stated otherwise; nothing was
tuned on the images reported here.

Brackets contain 95% intervals: bootstrap percentiles over images, and exact Clopper-Pearson intervals for rates.
p-values are corrected for the number of tests in their table by Holm's method. Protocols are compared on the same
images: both scores of an image are drawn together in a paired bootstrap; a change is one with a corrected p of at most
0.05.

ECE is the expected calibration error over 15 equal-width bins of the probability of FAKE. Temperature and unsure band
were fitted on validation images; the promise is the error rate outside the band that the upper bound of an exact test
at 95% on validation images does not exceed. The same images chose the epoch and perhaps the threshold, so the
confidence in the promise is below 95%.

The trivial baseline is a logistic regression on colours and power spectra of images resized to 32 x 32 pixels.
Leak-free rows exclude images that also occur, pixel for pixel, in another split of the same source. Rows without
near-duplicates exclude images whose perceptual hash is within 4 of 64 bits of that of a training image.
"""
CITATIONS: Final = """\
The realfake developers, realfake: telling real photographs from AI-generated images, version 0.1.0.

J. J. Bird and A. Lotfi (2024), CIFAKE: Image Classification and Explainable Identification of AI-Generated Synthetic
Images, IEEE Access 12:15642-15650, doi 10.1109/ACCESS.2024.3356122. Data sets have their own authors and licences.
"""
MIN_IN_BIN: Final = 10  # images below which a reliability bin is not drawn

_PANEL_HEIGHT: Final = 2.6  # inches; panels of the confidence figures
_LINES: Final = ("-", "--", ":", "-.")
_SINGLE_STEPS: Final = ("crop", "mirror", "upside down")  # kinds with few steps, which share a panel
_ROBUSTNESS_ROWS: Final = {  # y-axis limits by label
    "ROC AUC": (0.38, 1.02),
    "REAL called FAKE": (-0.03, 1.03),
    "FAKE called REAL": (-0.03, 1.03),
}


def draw_all(grid: Grid) -> Iterator[tuple[str, Figure]]:
    """Yield the confidence and robustness figures of a grid with their file names."""
    whole = [cell for cell in grid.cells if cell.is_whole_split]
    for protocol in dict.fromkeys(cell.protocol for cell in whole):
        cells = [cell for cell in whole if cell.protocol == protocol]
        yield f"reliability-{protocol}.png", draw_reliability(cells)
        yield f"risk_coverage-{protocol}.png", draw_risk_coverage(cells)
    for dataset, measured in groupby(grid.robustness, lambda robustness: robustness.dataset):
        yield f"robustness-{dataset}.png", draw_robustness(list(measured))


def draw_transfer(cells: Iterable[Cell]) -> Figure:
    """Draw balanced accuracy and ROC AUC of each model, with intervals, one row per data set and protocol.

    The cells are of whole splits, in the order of a grid.
    """
    rows = [list(row) for _, row in groupby(cells, lambda cell: (cell.dataset, cell.protocol))]
    models = list(dict.fromkeys(cell.model for row in rows for cell in row))
    height = 1.6 + 0.34 * len(rows) * max(1.0, len(models) / 3)
    figure = Figure(figsize=(style.WIDTH, height), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True, sharex=True)
    left.set_title("balanced accuracy\nat the model's own threshold", fontsize=11)
    right.set_title("ROC AUC\nindependent of the threshold", fontsize=11)
    for axes, statistic in ((left, "balanced_accuracy"), (right, "roc_auc")):
        style.style_axes(axes)
        axes.grid(visible=False, axis="y")
        axes.axvline(0.5, color=style.INK, linestyle=":", linewidth=1.2, label="chance")
        for index, model in enumerate(models):
            by_row = [{cell.model: getattr(cell.report, statistic) for cell in row}.get(model) for row in rows]
            values, arms = style.error_bars(by_row)
            places = np.arange(len(rows)) + 0.22 * (index - (len(models) - 1) / 2)
            axes.errorbar(values, places, xerr=arms, label=model, linestyle="", markersize=5, **style.look(index))
        for index in range(1, len(rows)):
            if rows[index][0].dataset != rows[index - 1][0].dataset:
                axes.axhline(index - 0.5, color=style.INK, linewidth=0.8)
    left.set_yticks(range(len(rows)), [f"{row[0].dataset}, {row[0].protocol}" for row in rows], parse_math=False)
    left.invert_yaxis()
    style.legend_below(figure, [left, right], columns=len(models) + 1, order=models)
    return figure


def draw_reliability(cells: Iterable[Cell]) -> Figure:
    """Draw reliability diagrams above histograms of confidence, one row per data set, one column per model.

    The cells are of whole splits under one protocol, in the order of a grid.
    """
    rows = [list(row) for _, row in groupby(cells, lambda cell: cell.dataset)]
    figure = Figure(figsize=(style.WIDTH, 1.2 + 1.6 * _PANEL_HEIGHT * len(rows)), layout="constrained")
    heights = ([1, 0.5, 0.08] * len(rows))[:-1]
    grid = figure.add_gridspec(len(heights), len(rows[0]), height_ratios=heights)
    for number, row in enumerate(rows):
        for column, cell in enumerate(row):
            above, below = (figure.add_subplot(grid[3 * number + part, column]) for part in (0, 1))
            _draw_bins(above, cell.confidence, title=f"{cell.dataset}, {cell.model}")
            _draw_histogram(below, cell.confidence)
            if column == 0:
                above.set_ylabel("share of FAKE")
                below.set_ylabel("verdicts")
    style.legend_below(figure, figure.axes, columns=3)
    return figure


def _draw_bins(axes: Axes, confidence: Confidence, *, title: str) -> None:
    style.style_axes(axes)
    axes.plot([0, 1], [0, 1], color=style.INK, linestyle=":", linewidth=1, label="perfectly calibrated")
    axes.plot(*_curve(confidence.bins), color=style.BLUE, marker="o", markersize=4, label="before temperature scaling")
    if confidence.bins_after:
        points = _curve(confidence.bins_after)
        axes.plot(
            *points, color=style.VERMILLION, linestyle="--", marker="s", markersize=4, label="temperature-scaled"
        )
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xlabel="probability of FAKE")
    title = textwrap.fill(title, width=24, break_long_words=False, break_on_hyphens=False)
    axes.set_title(title, parse_math=False, fontsize=10)


def _curve(bins: Sequence[Bin]) -> NDArray[np.float64]:
    large = [(interval.mean_p_fake, interval.share_fake) for interval in bins if interval.n >= MIN_IN_BIN]
    return np.array(large, dtype=np.float64).reshape(-1, 2).T


def _draw_histogram(axes: Axes, confidence: Confidence) -> None:
    style.style_axes(axes)
    histogram = confidence.histogram
    edges = np.asarray(histogram.edges)
    left, width = edges[:-1], np.diff(edges)
    look: dict[str, Any] = {"align": "edge", "edgecolor": "white"}
    axes.bar(left, histogram.right, width, color="#BBBBBB", label="correct verdicts", **look)
    axes.bar(left, histogram.wrong, width, histogram.right, color=style.VERMILLION, label="wrong verdicts", **look)
    axes.set(xlim=(0.5, 1), xlabel="confidence of the verdict")


def draw_risk_coverage(cells: Iterable[Cell]) -> Figure:
    """Draw the error rate of each model on its most confident images against their share, one panel per data set.

    The cells are of whole splits under one protocol, in the order of a grid.
    """
    panels = [list(panel) for _, panel in groupby(cells, lambda cell: cell.dataset)]
    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(style.WIDTH, 0.8 + _PANEL_HEIGHT * rows), layout=ConstrainedLayoutEngine(h_pad=0.08))
    grid = figure.subplots(rows, columns, squeeze=False).ravel().tolist()
    for axes in grid[len(panels) :]:
        axes.remove()
    for axes, panel in zip(grid, panels, strict=False):
        style.style_axes(axes)
        axes.set_title(f"{panel[0].dataset}, n = {panel[0].report.n:,}", parse_math=False, fontsize=10)
        for cell, color, line in zip(panel, cycle(style.COLORS), cycle(_LINES), strict=False):
            curve = cell.confidence.risk_coverage
            axes.plot(curve.coverage, curve.risk, label=cell.model, color=color, linestyle=line)
        axes.set(xlim=(0, 1), xlabel="share decided, most confident first", ylabel="error rate among them")
        axes.set_ylim(bottom=0)
        axes.xaxis.set_major_formatter(PercentFormatter(1))
        axes.yaxis.set_major_formatter(PercentFormatter(1))
    style.legend_below(figure, grid[: len(panels)], columns=4)
    return figure


def draw_robustness(measured: Sequence[Robustness]) -> Figure:
    """Draw ROC AUC and both error rates of each model on one data set against the strength of each corruption."""
    kinds_by_title = {kind: (kind,) for kind in CORRUPTIONS if kind not in _SINGLE_STEPS}
    panels = {**kinds_by_title, "crop and flip": _SINGLE_STEPS}
    figure = Figure(figsize=(11, 7), layout="constrained")
    grid = figure.subplots(len(_ROBUSTNESS_ROWS), len(panels), sharex="col", sharey="row", squeeze=False)
    for (title, kinds), column in zip(panels.items(), grid.T, strict=True):
        unit = CORRUPTIONS[title].unit if title in CORRUPTIONS else ""
        column[0].set_title(title)
        column[0].axhline(0.5, color=style.INK, linestyle=":", linewidth=1)
        column[-1].set_xlabel(unit)
        for index, robustness in enumerate(measured):
            steps = [robustness.clean, *(step for kind in kinds for step in robustness.of_kind(kind))]
            curves = (
                [step.roc_auc for step in steps],
                [_error_rate(step.accuracy_real) for step in steps],
                [_error_rate(step.accuracy_fake) for step in steps],
            )
            for axes, estimates in zip(column, curves, strict=True):
                values, arms = style.error_bars(estimates)
                look = {"linestyle": "-" if unit else "", "linewidth": 1.5, "elinewidth": 1, "markersize": 4}
                axes.errorbar(
                    np.arange(len(steps)), values, yerr=arms, label=robustness.model, **look, **style.look(index)
                )
            labels = ["none", *(step.name if len(kinds) > 1 else f"{step.strength:g}" for step in steps[1:])]
        for axes in column:
            style.style_axes(axes)
            axes.set_xticks(range(len(labels)), labels, fontsize=8, rotation=45, ha="right", rotation_mode="anchor")
    for axes, (label, limits) in zip(grid[:, 0], _ROBUSTNESS_ROWS.items(), strict=True):
        axes.set(ylabel=label, ylim=limits)
    n = measured[0].n_real + measured[0].n_fake
    figure.suptitle(f"n = {n:,} images at each step; bars: 95% intervals; dotted: chance", fontsize=11)
    style.legend_below(figure, grid.ravel().tolist(), columns=4)
    return figure


def _error_rate(accuracy: Estimate) -> Estimate:
    if accuracy.value is None or accuracy.low is None or accuracy.high is None:
        return Estimate(None)
    return Estimate(1 - accuracy.value, 1 - accuracy.high, 1 - accuracy.low)


def write_report(grid: Grid, file: Path, *, folder: Path | None = None, shown: Collection[str] | None = None) -> Path:
    """Write the report as an HTML page, creating its folder, and return its path.

    Error sheets are shown from the output folder of the grid, if given, and only those of the data sets `shown`, since
    images may be under copyright; None shows all.
    """
    sheets = {} if folder is None else find_sheets(grid.errors, folder, shown)
    return write_page(
        file,
        title="Cross-evaluation of detectors",
        subtitle="Do detectors of generated images work on data they were not trained on? "
        f"{len(grid.facts['models'])} models on {len(grid.facts['data'])} data sets.",
        warnings=warnings(grid),
        opening=_transfer_figure(grid),
        findings=findings(grid),
        sections=[
            *_sections(grid),
            *([Section("errors", "Errors", [SHEETS], files=sheets)] if sheets else []),
            Section("methods", "Methods", METHODS.split("\n\n")),
            Section("cite", "How to cite", CITATIONS.split("\n\n")),
            Section("settings", "Settings and environment", tables=_folded(settings_tables(grid))),
        ],
    )


def _sections(grid: Grid) -> list[Section]:
    """Return the sections for which the grid has figures or tables; tables are folded, except for the main results."""
    tables = {anchor: _folded(group) for anchor, group in tables_by_section(grid).items()}
    tables["results"] = [summary(grid), *tables["results"]]
    drawn = {
        "confidence": _confidence_figures(grid),
        "robustness": list(_robustness_figures(grid)),
    }
    protocols = [PROTOCOLS[name] for name in dict.fromkeys(cell.protocol for cell in grid.cells)]
    return [
        Section(anchor, title, [text] if text else protocols, drawn.get(anchor, []), tables[anchor])
        for anchor, (title, text) in SECTIONS.items()
        if drawn.get(anchor) or tables[anchor]
    ]


def _folded(tables: Iterable[Table]) -> list[Table]:
    return [replace(table, folded=True) for table in tables]


def _transfer_figure(grid: Grid) -> PageFigure:
    sizes = "; ".join(f"{name}: n = {facts['n']:,}" for name, facts in grid.facts["data"].items())
    return PageFigure(
        draw=partial(draw_transfer, [cell for cell in grid.cells if cell.is_whole_split]),
        alt="Balanced accuracy and ROC AUC of each model on each data set under each protocol, as in the table.",
        caption=f"Models on data sets, with 95% bootstrap intervals ({sizes}).",
        reading="Left, the accuracy that a user gets at the model's own threshold. Right, whether fake images score "
        "higher than real ones, which no choice of threshold changes. Points on the dotted line are at chance level.",
    )


def _confidence_figures(grid: Grid) -> list[PageFigure]:
    cells = [cell for cell in grid.cells if cell.is_whole_split and cell.protocol == grid.cells[0].protocol]
    sizes = "; ".join({cell.dataset: f"{cell.dataset}: n = {cell.report.n:,}" for cell in cells}.values())
    return [
        PageFigure(
            draw=partial(draw_reliability, cells),
            alt="Reliability diagrams and histograms of confidence, one row per data set, one column per model.",
            caption=f"Predicted probability against the share of fakes ({sizes}), in bins of at least "
            f"{MIN_IN_BIN} images.",
            reading="On the dotted line, seven of ten images with probability 0.7 are fake; below it, the model "
            "overestimates the probability of FAKE. Wrong verdicts at the right end of the histograms are confident.",
        ),
        PageFigure(
            draw=partial(draw_risk_coverage, cells),
            alt="Error rate against the share of images decided, one panel per data set.",
            caption=f"Error rate if only the most confident verdicts are given ({sizes}).",
            reading="From right to left, fewer images are decided. A curve that falls to 0 belongs to a model whose "
            "confident verdicts are right; a flat curve, to a model whose confidence says nothing about its errors.",
        ),
    ]


def _robustness_figures(grid: Grid) -> Iterator[PageFigure]:
    for dataset, group in groupby(grid.robustness, lambda robustness: robustness.dataset):
        measured = list(group)
        n = measured[0].n_real + measured[0].n_fake
        yield PageFigure(
            draw=partial(draw_robustness, measured),
            alt=f"ROC AUC and error rates on {dataset} against the strength of each corruption, as in the table.",
            caption=f"Robustness to corruptions on {dataset} (n = {n:,} at each step), with 95% intervals.",
            reading="Corruptions grow stronger from left to right. Top, whether fake images still score higher than "
            "real ones; below, the two error rates at the model's own threshold.",
        )
