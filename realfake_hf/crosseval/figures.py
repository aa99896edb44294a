"""How models fare on data sets that they were not trained on: one point with its interval a model and protocol."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from realfake_hf.estimate import Estimate
from realfake_hf.figures.comparison import MARKERS
from realfake_hf.figures.estimates import legend_below, spread
from realfake_hf.figures.style import COLORS, INK, WIDTH, style_axes

ROW_HEIGHT: Final = 0.34  # inches
TITLES: Final = ("balanced accuracy\nat the model's own threshold", "ROC AUC\nwhatever the threshold")


@dataclass(frozen=True)
class TransferRow:
    """A data set under a protocol.

    Attributes:
        title: which; rows of a data set follow each other.
        group: the data set; a line sets groups apart.
        balanced_accuracy: by model, in [0, 1]; None where undefined.
        roc_auc: likewise.
    """

    title: str
    group: str
    balanced_accuracy: dict[str, Estimate | None]
    roc_auc: dict[str, Estimate | None]


def transfer_dots(rows: Sequence[TransferRow]) -> Figure:
    """Draw balanced accuracy and ROC AUC, with 95 % intervals, of each model on each data set under each protocol.

    Args:
        rows: one a data set and protocol.
    """
    if not rows:
        raise ValueError("wanted one or more rows to draw; found none.")
    models = list(dict.fromkeys(name for row in rows for name in row.balanced_accuracy))
    figure = Figure(figsize=(WIDTH, 1.6 + ROW_HEIGHT * len(rows) * max(1.0, len(models) / 3)), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True, sharex=True)
    for axes, title, column in zip((left, right), TITLES, ("balanced_accuracy", "roc_auc"), strict=True):
        _draw(axes, [getattr(row, column) for row in rows], models)
        axes.set_title(title, fontsize=11)
    left.set_yticks(range(len(rows)), [row.title for row in rows], parse_math=False)
    left.invert_yaxis()
    for index in range(1, len(rows)):
        if rows[index].group != rows[index - 1].group:
            for axes in (left, right):
                axes.axhline(index - 0.5, color=INK, linewidth=0.8)
    legend_below(figure, [left, right], columns=len(models) + 1, order=models)
    return figure


def _draw(axes: Axes, rows: Sequence[dict[str, Estimate | None]], models: Sequence[str]) -> None:
    style_axes(axes)
    axes.grid(visible=False, axis="y")
    axes.axvline(0.5, color=INK, linestyle=":", linewidth=1.2, label="chance")
    for index, model in enumerate(models):
        values, arms = spread([row.get(model) for row in rows])
        places = np.arange(len(rows)) + 0.22 * (index - (len(models) - 1) / 2)
        color, marker = COLORS[index % len(COLORS)], MARKERS[index % len(MARKERS)]
        axes.errorbar(values, places, xerr=arms, label=model, color=color, marker=marker, linestyle="", markersize=5)
