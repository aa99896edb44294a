"""Tables, figure and finding of the Grid Pointing Game, from the content of a results file."""

from collections.abc import Mapping
from functools import partial
from typing import Final

import numpy as np
from matplotlib.figure import Figure

from realfake_hf.attribution.methods import method_name
from realfake_hf.explain_study.cells import NUMBER, PERCENT, POINTS, SIGNED, cell, listed, sign, tested_cells
from realfake_hf.explain_study.names import Results, estimate, map_name, model_name
from realfake_hf.figures import style
from realfake_hf.pages.page import PageFigure, Section
from realfake_hf.tables import Table

MEASURES: Final = {  # name, and formats of values and differences
    "mass": ("localisation", PERCENT, POINTS),
    "hits": ("hits", PERCENT, POINTS),
    "roc_auc": ("ROC AUC", NUMBER, SIGNED),
}
BASELINES: Final = {"prior": "the centre prior", "chance": "chance", "control": "the control"}
INTRODUCTION: Final = (
    "In the Grid Pointing Game (Böhle et al., 2021), one quadrant of a grid is of an image of the explained label, "
    "and three are of images of the other label. All show the same content, and the model classifies each of them "
    "correctly. Localisation is the share of the map's mass in the quadrant of the label, with the lowest cell of the "
    "map as 0. A map that marks whatever differs from the rest is credited as well; planted evidence has a control "
    "for that."
)
READING: Final = (
    "A map of the label has more than a quarter of its mass in the quadrant of the label. The centre prior, which "
    "knows nothing of image and model, has a quarter in each."
)


def grid_tables(models: Mapping[str, Results], class_methods: list[str]) -> list[Table]:
    """Return what the models say of the composed images, and the scores less those of each baseline."""
    rows = [
        [model_name(model), name, cell(game["p_target"]), f"{game['n']:,}"]
        for model, games in models.items()
        for name, game in games.items()
    ]
    caption = "Mean probability of the explained label. A map has little to show where the model does not see it."
    verdicts = Table(caption, ("model", "images", "p(label)", "n"), rows, align="llr")
    tables = [_scores_table(models, class_methods, baseline) for baseline in BASELINES]
    return [verdicts, *(table for table in tables if table.rows)]


def no_better(less: Results) -> str:
    """Flag scores that are not significantly above those of a baseline: in all measures, in none, or in which."""
    worse = [name for key, (name, *_) in MEASURES.items() if sign(less[key]) != "positive"]
    if len(worse) in (0, len(MEASURES)):
        return "yes" if worse else "no"
    return f"in {' and '.join(worse)}"


def grid_figure(part: Results) -> Figure:
    """Draw the localisation with 95% intervals, one panel per model and one colour per label."""
    models = part["models"]
    counts = [len(next(iter(games.values()))["methods"]) for games in models.values()]
    figure = Figure(figsize=(style.WIDTH, 1.4 + 0.45 * sum(counts) + 0.3 * len(counts)), layout="constrained")
    panels = figure.subplots(len(counts), 1, sharex=True, squeeze=False, height_ratios=counts)[:, 0]
    for axes, (model, games) in zip(panels, models.items(), strict=True):
        style.style_axes(axes)
        axes.grid(visible=False, axis="y")
        axes.axvline(part["chance"]["mass"], color=style.INK, linestyle="--", linewidth=1.2, label="chance")
        for number, (name, game) in enumerate(games.items()):
            methods = game["methods"]
            values, distances = style.error_bars([estimate(row["mass"]) for row in methods.values()])
            heights = np.arange(len(methods)) + 0.2 * (number - (len(games) - 1) / 2)
            axes.errorbar(values, heights, xerr=distances, linestyle="", label=name, **style.look(number))
            axes.set_yticks(range(len(methods)), map(method_name, methods), parse_math=False)
        axes.set_title(model_name(model), parse_math=False)
        axes.invert_yaxis()
    panels[-1].set_xlabel("share of the map's mass in the quadrant of the label")
    style.legend_below(figure, panels.tolist(), columns=3)
    return figure


def grid_section(results: Results) -> Section:
    """Return the section of the Grid Pointing Game."""
    part = results["grids"]
    n = max(game["n"] for games in part["models"].values() for game in games.values())
    caption = f"Localisation with 95% intervals: up to n = {n:,} grids for each model and label."
    alt = f"{caption} The tables of this section contain the numbers."
    shown = [PageFigure(partial(grid_figure, part), alt, caption, READING)]
    tables = grid_tables(part["models"], part["class_methods"])
    return Section("grids", "Do the maps find the image of their label?", [INTRODUCTION], shown, tables)


def find_grids(results: Results) -> str:
    """Name the maps that localise both labels better than the centre prior."""
    models = results["grids"]["models"]
    better = [
        map_name(model, method)
        for model, games in models.items()
        for method in next(iter(games.values()))["methods"]
        if all(sign(game["methods"][method]["less"]["prior"]["mass"]) == "positive" for game in games.values())
    ]
    return f"Find the image of either label in a grid of four better than the centre prior: {listed(better)}."


def _scores_table(models: Mapping[str, Results], class_methods: list[str], baseline: str) -> Table:
    rows = [
        [
            map_name(model, method),
            name,
            "yes" if method in class_methods else "no",
            *_score_cells(row, row["less"][baseline]),
        ]
        for model, games in models.items()
        for name, game in games.items()
        for method, row in game["methods"].items()
        if baseline in row["less"]
    ]
    words = BASELINES[baseline]
    columns = [column for name, *_ in MEASURES.values() for column in (name, f"less {words}", "p (Holm)")]
    header = ("map", "images", "depends on the label", *columns, f"no better than {words}")
    return Table(_CAPTIONS[baseline], header, rows, align="llr")


def _score_cells(row: Results, less: Results) -> list[str]:
    cells = []
    for key, (_, spec, signed) in MEASURES.items():
        cells += [cell(row[key], spec), *tested_cells(less[key], signed)]
    return [*cells, no_better(less)]


_CAPTIONS: Final = {
    "prior": "Localisation, the share of the map's mass in the region of the label; hits; and ROC AUC, the mean over "
    "images of that of the region's pixels against the others. Differences to a map that always highlights the centre "
    "are paired. In a grid, it scores chance: 25%, 25% and 0.5.",
    "chance": "The same less a uniform map, which scores the share of the area and a ROC AUC of 0.5.",
    "control": "The same less those of the control: the same rectangle of another photograph in the same host.",
}
