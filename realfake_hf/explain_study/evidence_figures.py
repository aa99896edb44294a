"""Evidence whose place is known: planted quadrants, and the centre or the rim hidden."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from realfake_hf.estimate import Estimate
from realfake_hf.figures.estimates import legend_below, line_looks, spread
from realfake_hf.figures.style import BLUE, INK, VERMILLION, WIDTH, style_axes


@dataclass(frozen=True)
class PlantedPanel:
    """How often a model's maps point at what was planted.

    Attributes:
        model: its name.
        hits: by planting, then by method: the share of pictures in which the map's highest cell lies in the planted
            quadrant, in [0, 1]; None where undefined.
        n: pictures of each planting.
    """

    model: str
    hits: Mapping[str, Mapping[str, Estimate | None]]
    n: Mapping[str, int]


@dataclass(frozen=True)
class HiddenPanel:
    """What a model is worth with its pictures' centre or rim hidden.

    Attributes:
        model: panels of a model stand in one column.
        fill: what takes the place of hidden pixels; panels of a fill stand in one row.
        areas: hidden shares of the picture, in (0, 1), rising.
        centre: with the centre hidden, one an area, in [0, 1].
        rim: with the rim hidden.
        whole: with nothing hidden.
    """

    model: str
    fill: str
    areas: Sequence[float]
    centre: Sequence[Estimate | None]
    rim: Sequence[Estimate | None]
    whole: Estimate | None


def planted_bars(panels: Sequence[PlantedPanel], *, methods: Sequence[str], chance: float) -> Figure:
    """Draw pointing-game hits (Zhang et al., 2018, IJCV) with their intervals, a row of panels a model.

    Args:
        panels: one a model.
        methods: in the order that gives them their colours.
        chance: hits of a map that knows nothing.
    """
    if not panels:
        raise ValueError("wanted one or more models to draw; found none. Leave the figure out.")
    looks = line_looks(methods)
    figure = Figure(figsize=(WIDTH, 0.8 + 2.5 * len(panels)), layout="constrained")
    column = figure.subplots(len(panels), 1, sharey=True, squeeze=False)[:, 0]
    for axes, panel in zip(column, panels, strict=True):
        style_axes(axes)
        axes.grid(visible=False, axis="x")
        shown = [method for method in methods if any(method in hits for hits in panel.hits.values())]
        for position, method in enumerate(shown):
            values, distances = spread([hits.get(method) for hits in panel.hits.values()])
            places = np.arange(len(values)) + (position - (len(shown) - 1) / 2) * 0.8 / len(shown)
            axes.bar(places, values, width=0.72 / len(shown), color=looks[method][0], label=method)
            axes.errorbar(places, values, yerr=distances, fmt="none", ecolor=INK, elinewidth=1.4)
        axes.axhline(chance, color=INK, linestyle="--", linewidth=1.2, label="chance")
        axes.set_xticks(range(len(panel.hits)), [f"{name}, n = {panel.n[name]:,}" for name in panel.hits])
        axes.set(ylim=(0, 1), ylabel=f"{panel.model}\nhits")
    legend_below(figure, column.tolist(), columns=4, order=methods)
    return figure


def centre_and_rim(panels: Sequence[HiddenPanel], *, measure: str) -> Figure:
    """Draw what is left of a measure with centre or rim hidden, over the hidden area: a column a model, a row a fill.

    Args:
        panels: one a model and fill.
        measure: its name; values in [0, 1], one half is chance.
    """
    models = list(dict.fromkeys(panel.model for panel in panels))
    fills = list(dict.fromkeys(panel.fill for panel in panels))
    if len(panels) != len(models) * len(fills) or not panels:
        raise ValueError(
            f"wanted one panel for each model and fill; found {[(one.model, one.fill) for one in panels]}. Pass all."
        )
    figure = Figure(figsize=(WIDTH, 1.2 + 2.4 * len(fills)), layout="constrained")
    grid = figure.subplots(len(fills), len(models), sharex=True, sharey=True, squeeze=False)
    for panel in panels:
        axes = grid[fills.index(panel.fill), models.index(panel.model)]
        _draw_hidden(axes, panel)
        axes.set_title(f"{panel.model}, hidden by {panel.fill}", parse_math=False)
    for axes in grid[:, 0]:
        axes.set_ylabel(measure)
    for axes in grid[-1]:
        axes.set_xlabel("hidden area, % of the picture")
    legend_below(figure, grid.ravel().tolist(), columns=4, order=["centre hidden", "rim hidden"])
    return figure


def _draw_hidden(axes: Axes, panel: HiddenPanel) -> None:
    style_axes(axes)
    places = 100 * np.asarray(panel.areas)
    looks = (("centre hidden", panel.centre, VERMILLION, "o"), ("rim hidden", panel.rim, BLUE, "s"))
    for words, estimates, color, marker in looks:
        values, distances = spread(estimates)
        axes.errorbar(places, values, yerr=distances, color=color, marker=marker, label=words, capsize=2)
    if panel.whole is not None and panel.whole.value is not None:
        axes.axhline(panel.whole.value, color=INK, linewidth=1.2, label="nothing hidden")
    axes.axhline(0.5, color=INK, linestyle="--", linewidth=1, label="chance")
    axes.set_xticks(places, [f"{place:g}" for place in places])
