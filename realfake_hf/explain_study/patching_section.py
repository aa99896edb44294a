"""The section of activation patching: its tables, figure and finding, from the content of the results file."""

from functools import partial
from itertools import pairwise
from typing import Final

from matplotlib.figure import Figure

from realfake_hf.explain_study.cells import NUMBER, PERCENT, SIGNED, cell, count, listed, sign, tested_cells
from realfake_hf.explain_study.names import (
    CENTRE_PRIOR,
    MEASURE,
    MEASURE_NAMES,
    Results,
    estimate,
    map_name,
    model_name,
)
from realfake_hf.figures import style
from realfake_hf.pages.page import PageFigure, Section
from realfake_hf.tables import Table

TEXT: Final = (
    "Each image has a twin: an image of the other label with the same content, drawn at random; the model classifies "
    "both correctly. The activations of one cell after one layer are replaced by those of the twin, and the rest of "
    "the model computes on. The effect of the cell is the change of the log-odds towards the twin's label. The layer "
    "is the block at half depth of a transformer with attention between all tokens, else that of Grad-CAM."
)
READING: Final = (
    "A map that shows what the model uses agrees with the effects on its own image more than with those on another "
    "image of the same label and content, and more than the centre prior does, which knows nothing of the model."
)
FLAGS: Final = {"positive": "yes", "negative": "worse", "unclear": "no"}


def patching_section(results: Results) -> Section:
    """Return the section of the report page."""
    caption = (
        f"Agreement of maps with the effects of patching: n = {results['patching']['n']:,} images, 95% intervals."
    )
    alt = f"{caption} The tables of this section contain the numbers."
    figure = PageFigure(partial(agreement_with_effects, results), alt, caption, READING)
    tables = [_agreement_table(results["patching"]), _effects_table(results["patching"])]
    return Section("patching", "Do the maps highlight the cells that decide?", [TEXT], [figure], tables)


def find_patching(results: Results) -> str:
    """Return the finding: maps that agree with the effects more than the centre prior does."""
    better = [
        map_name(model, name)
        for model, tested in results["patching"]["models"].items()
        for name, by_measure in tested["maps"].items()
        if name != CENTRE_PRIOR and sign(by_measure[MEASURE]["less_centre"]) == "positive"
    ]
    return f"Closer to the effects of patching than the centre prior, by {MEASURE_NAMES[MEASURE]}: {listed(better)}."


def agreement_with_effects(results: Results) -> Figure:
    """Draw the agreement of each map with the effects on the same image and on others, one panel per measure."""
    part = results["patching"]
    rows = [(model, name, row) for model, tested in part["models"].items() for name, row in tested["maps"].items()]
    figure = Figure(figsize=(style.WIDTH, 1.7 + 0.36 * len(rows)), layout="constrained")
    panels = figure.subplots(1, len(part["measures"]), sharey=True)
    marks = (("same", "same image", style.BLUE, "o"), ("other", "other images of its kind", style.VERMILLION, "D"))
    for axes, measure in zip(panels, part["measures"], strict=True):
        style.style_axes(axes)
        axes.grid(visible=False, axis="y")
        for offset, (kind, label, color, marker) in zip((-0.14, 0.14), marks, strict=True):
            values, distances = style.error_bars([estimate(row[measure][kind]) for *_, row in rows])
            places = [index + offset for index in range(len(rows))]
            axes.errorbar(values, places, xerr=distances, fmt=marker, color=color, label=label, markersize=5)
        for index, (before, after) in enumerate(pairwise(rows)):
            if before[0] != after[0]:
                axes.axhline(index + 0.5, color=style.INK, linewidth=0.8)
        axes.set_xlabel(MEASURE_NAMES[measure])
    panels[0].set_yticks(range(len(rows)), [map_name(*row[:2]) for row in rows], parse_math=False)
    panels[0].invert_yaxis()
    style.legend_below(figure, panels.tolist(), columns=2)
    return figure


def _agreement_table(part: Results) -> Table:
    rows = [
        [
            map_name(model, name),
            MEASURE_NAMES[measure],
            cell(row["same"]),
            cell(row["other"]),
            *tested_cells(row["less_other"], SIGNED),
            *(("", "") if name == CENTRE_PRIOR else tested_cells(row["less_centre"], SIGNED)),
            "" if name == CENTRE_PRIOR else FLAGS[sign(row["less_centre"])],
            count(row["same"]),
        ]
        for model, tested in part["models"].items()
        for name, by_measure in tested["maps"].items()
        for measure, row in by_measure.items()
    ]
    header = (
        "map", "measure", "same image", "other images", "difference", "p (Holm)", "less centre prior", "p (Holm)",
        "better than the centre", "n",
    )  # fmt: skip
    caption = (
        "Agreement of maps of the predicted label with the effects of patching on the same image, and on other images "
        "of its label and content; differences are paired."
    )
    return Table(caption, header, rows, align="llr")


def _effects_table(part: Results) -> Table:
    rows = [
        [
            model_name(model),
            tested["layer"],
            " x ".join(map(str, tested["native_grid"])),
            *(cell(tested[name], NUMBER) for name in ("total", "cells", "special")),
            cell(tested["top_share"], PERCENT),
            f"{tested['n']:,} of {part['n']:,}",
        ]
        for model, tested in part["models"].items()
    ]
    header = (
        "model", "layer", "cells", "twin less image", "all cells, one at a time", "special tokens",
        f"in the top {part['top']:.0%} of cells", "images with a twin",
    )  # fmt: skip
    caption = (
        "Mean effects on the log-odds towards the twin's label: of the whole twin, of the cells one at a time, "
        "summed, and of all special tokens together; and the share of positive effects in the most effective cells."
    )
    return Table(caption, header, rows, align="lllr")
