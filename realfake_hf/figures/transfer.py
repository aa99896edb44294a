"""Trained here, tested there: a matrix a model and measure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from realfake_hf.figures.style import FIXED, WIDTH

CHANCE: Final = 0.5
DARK_BELOW: Final = 0.75  # where words on a colour are white


@dataclass(frozen=True)
class MatrixPanel:
    """A matrix.

    Attributes:
        title: model and measure.
        rows: what was trained on.
        columns: what was tested on.
        values: (rows, columns) means in [0, 1].
        spreads: (rows, columns) standard deviations over seeds; None where there is one seed.
    """

    title: str
    rows: Sequence[str]
    columns: Sequence[str]
    values: Sequence[Sequence[float]]
    spreads: Sequence[Sequence[float | None]]


def transfer_matrix(grid: Sequence[Sequence[MatrixPanel]]) -> Figure:
    """Draw matrices side by side, coloured from chance to 1, each cell with its number.

    Args:
        grid: rows of panels.
    """
    if not grid or not grid[0]:
        raise ValueError("wanted one or more matrices to draw; found none.")
    figure = Figure(figsize=(WIDTH, 0.6 + 2.6 * len(grid)), layout="constrained")
    places = figure.subplots(len(grid), len(grid[0]), squeeze=False)
    for axes, panel in zip(places.ravel(), [panel for row in grid for panel in row], strict=True):
        _draw(axes, panel)
    return figure


def _draw(axes: Axes, panel: MatrixPanel) -> None:
    axes.imshow(np.asarray(panel.values), cmap="viridis", vmin=CHANCE, vmax=1, aspect="auto")
    axes.set_title(panel.title, fontsize=11)
    axes.set_xticks(range(len(panel.columns)), panel.columns)
    axes.set_yticks(range(len(panel.rows)), panel.rows)
    axes.set(xlabel="tested on", ylabel="trained on")
    for row, (values, spreads) in enumerate(zip(panel.values, panel.spreads, strict=True)):
        for column, (value, spread) in enumerate(zip(values, spreads, strict=True)):
            words = f"{value:.3f}" if spread is None else f"{value:.3f}\n± {spread:.3f}"
            color = "white" if value < DARK_BELOW else "black"
            axes.text(column, row, words, ha="center", va="center", color=color, fontsize=10, gid=FIXED)
