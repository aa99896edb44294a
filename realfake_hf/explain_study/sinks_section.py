"""The section of outlier tokens: its tables, figure and finding, from the content of the results file."""

from functools import partial
from typing import Final

from matplotlib.figure import Figure

from realfake_hf.explain_study.cells import NUMBER, PERCENT, SIGNED, above, cell, listed, tested_cells
from realfake_hf.explain_study.names import MEASURE_NAMES, Results, estimate, map_name, model_name
from realfake_hf.figures import style
from realfake_hf.pages.page import PageFigure, Section
from realfake_hf.tables import Table

TEXT: Final = (
    "Large transformers store global information in a few patches of little content: their norms are large, and maps "
    "of attention show them (Darcet et al., 2024, who cut at a fixed norm for one model). Here a patch is an outlier "
    "if its norm is above {:g} times the median of the patches of its block and image."
)
READING: Final = (
    "Left: norms of tokens after each block, means over images; outliers lie above the dashed line. Right: mean "
    "attention that a token of each kind receives in each block, in multiples of uniform attention (dashed line)."
)
NORMS: Final = {
    "median": ("median patch", style.BLUE, "o"), "p99": ("99th percentile", style.COLORS[2], "s"),
    "largest": ("largest patch", style.COLORS[4], "^"), "special": ("special tokens", style.COLORS[3], "D"),
}  # fmt: skip
KINDS: Final = {
    "special": NORMS["special"],
    "outliers": ("outliers", style.VERMILLION, "v"),
    "rest": ("other patches", style.COLORS[5], "P"),
}


def sinks_section(results: Results) -> Section:
    """Return the section of the report page."""
    part, measured = results["sinks"], _measured(results["sinks"])
    text = [TEXT.format(part["cut"])]
    if skipped := [
        f"{model_name(name)} ({each['skipped']})" for name, each in part["models"].items() if "skipped" in each
    ]:
        text.append(f"Without attention between all tokens, and left out: {listed(skipped)}.")
    if not measured:
        return Section("sinks", "Are there outlier tokens?", text)
    caption = f"Norms of tokens and the attention on them: n = {part['n']:,} images, with 95% intervals."
    alt = f"{caption} The tables of this section contain the numbers."
    figure = PageFigure(partial(norms_and_attention, results), alt, caption, READING)
    tables = [_norms_table(part), _attention_table(part)]
    if any(each["maps"] for each in measured.values()):
        tables.append(_maps_table(part))
    else:
        text.append("No patch is an outlier in the second half of the blocks, so that no map is changed.")
    return Section("sinks", "Are there outlier tokens?", text, [figure], tables)


def find_sinks(results: Results) -> str:
    """Return the finding: the number of images with outlier tokens by model."""
    part = results["sinks"]
    found = [f"{model_name(name)} {each['late']:,} of {part['n']:,}" for name, each in _measured(part).items()]
    return (
        f"Images with a patch whose norm is above {part['cut']:g} times the median in the second half of the blocks: "
        f"{listed(found)}."
    )


def norms_and_attention(results: Results) -> Figure:
    """Draw the norms of tokens beside the attention that they receive over the blocks, one row per model."""
    part = results["sinks"]
    models = _measured(part)
    figure = Figure(figsize=(style.WIDTH, 1.2 + 2.6 * len(models)), layout="constrained")
    grid = figure.subplots(len(models), 2, squeeze=False)
    for (left, right), (model, tested) in zip(grid, models.items(), strict=True):
        blocks = tested["blocks"]
        for axes, looks, rows in ((left, NORMS, blocks), (right, KINDS, [block["attention"] for block in blocks])):
            style.style_axes(axes)
            for name, (label, color, marker) in looks.items():
                values, distances = style.error_bars([estimate(row[name]) for row in rows])
                places = range(1, len(rows) + 1)
                axes.errorbar(places, values, yerr=distances, color=color, marker=marker, markersize=4, label=label)
            axes.xaxis.get_major_locator().set_params(integer=True)
            axes.set_xlabel("block")
        cut = [part["cut"] * block["median"]["value"] for block in blocks]
        left.plot(range(1, len(cut) + 1), cut, color=style.INK, linestyle="--", linewidth=1.2, label="cut of outliers")
        left.set_ylabel(f"{model_name(model)}\nnorm", parse_math=False)
        right.axhline(1, color=style.INK, linestyle="--", linewidth=1.2)
        right.set_ylabel("attention")
    style.legend_below(figure, grid.ravel().tolist(), columns=4)
    return figure


def _measured(part: Results) -> dict[str, Results]:
    return {name: tested for name, tested in part["models"].items() if "skipped" not in tested}


def _blocks(part: Results) -> list[tuple[str, int, Results]]:
    """Return the name of the model, the number and the measures of each block."""
    return [
        (model_name(model), number, block)
        for model, tested in _measured(part).items()
        for number, block in enumerate(tested["blocks"], start=1)
    ]


def _norms_table(part: Results) -> Table:
    rows = [
        [
            model,
            number,
            *(cell(block[name]) for name in NORMS),
            f"{block['largest_ratio']:.2f}",
            cell(block["outliers"], PERCENT),
            "yes" if block["outliers"]["value"] > 0 else "no",
        ]
        for model, number, block in _blocks(part)
    ]
    names = (label for label, *_ in NORMS.values())
    header = ("model", "block", *names, "largest / median", "outliers among patches", "any outlier")
    caption = (
        "Norms of tokens after each block: means over images of the median, 99th percentile and largest patch of an "
        "image, and of special tokens; and the largest patch of all images in medians of its image."
    )
    return Table(caption, header, rows)


def _attention_table(part: Results) -> Table:
    rows = [
        [
            model,
            number,
            *(cell(block["attention"][kind], NUMBER) for kind in KINDS),
            above(block["attention"]["special"], 1),
            above(block["attention"]["outliers"], 1),
        ]
        for model, number, block in _blocks(part)
    ]
    names = (label for label, *_ in KINDS.values())
    header = ("model", "block", *names, "special tokens above 1", "outliers above 1")
    caption = (
        "Mean attention that a token receives in each block, over heads and queries, in multiples of uniform "
        "attention. Outliers are those after the same block; without any, their attention is undefined."
    )
    return Table(caption, header, rows)


def _maps_table(part: Results) -> Table:
    rows = [
        [
            map_name(model, method),
            *(cell(row[measure]) for measure in part["measures"]),
            *tested_cells(row["excess"], SIGNED),
            f"{row['excess']['n']:,}",
        ]
        for model, tested in _measured(part).items()
        for method, row in tested["maps"].items()
    ]
    names = (MEASURE_NAMES[measure] for measure in part["measures"])
    header = ("map", *names, "outliers less median", "p (Holm)", "n")
    caption = (
        "Agreement of maps with themselves without the outliers of the second half of the blocks, which get the "
        "median of the other cells; and the value of these cells less that median. Other images are left out."
    )
    return Table(caption, header, rows)
