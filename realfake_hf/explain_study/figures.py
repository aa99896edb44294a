"""Figures of the explanation study, drawn from the content of its results file."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import combinations, groupby, pairwise
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from realfake_hf.attribution.methods import method_name
from realfake_hf.estimate import Difference, Estimate
from realfake_hf.explain_study.names import (
    FILL_NAMES,
    MEASURE,
    MEASURE_NAMES,
    RANDOM_ORDER,
    REFERENCES,
    Results,
    agreement_of,
    estimate,
    is_across,
    key_pairs,
    map_name,
    method_names,
    model_name,
    pair_name,
)
from realfake_hf.figures import style
from realfake_hf.pages.page import PageFigure

MATRIX_COLORS: Final = "cividis"  # made for colour-blind readers: Nuñez, Anderton & Renslow (2018), PLOS ONE
PALE: Final = "#999999"  # for differences that are not significant
SIDES: Final = {
    1: ("better than random order", style.BLUE),
    0: ("no clear difference", PALE),
    -1: ("worse", style.VERMILLION),
}
REGIONS: Final = {"centre": (style.VERMILLION, "o"), "rim": (style.BLUE, "s"), "corner": (style.COLORS[2], "^")}
GROUP_NAMES: Final = {True: "maps of two models", False: "two methods on one model"}
ROW: Final = 0.55  # height of a pair with its controls, in inches
CONTROLS: Final = (  # key in the results, label, colour, marker, offset in the row
    ("same_picture", "the pair, same image", style.BLUE, "o", 0.3),
    ("ceiling", "each map and its twin from another training seed", style.COLORS[2], "^", 0.15),
    ("shuffled", "the pair, other images of the same kind", style.VERMILLION, "D", 0.0),
    ("random_weights", "the pair, random weights", style.COLORS[3], "v", -0.15),
    ("centre", "each map and a spot in the centre", style.COLORS[4], "s", -0.3),
)


def agreement_and_controls(results: Results) -> Figure:
    """Draw the agreement of the key pairs beside their controls: the main figure of the study."""
    agreement = agreement_of(results)
    pairs = key_pairs(agreement["pairs"])
    groups = [(GROUP_NAMES[across], list(members)) for across, members in groupby(pairs, key=is_across)]
    figure = Figure(figsize=(style.WIDTH, ROW * (len(pairs) + 0.7 * len(groups)) + 1.5), layout="constrained")
    axes = figure.subplots()
    style.style_axes(axes)
    axes.grid(visible=False, axis="y")
    names = [(group, [pair_name(pair, "\n") for pair in members]) for group, members in groups]
    places = _place_rows(axes, names)
    for kind, label, color, marker, offset in CONTROLS:
        marks = [
            (place + offset, mark)
            for place, pair in zip(places, pairs, strict=True)
            for mark in _marks(agreement, pair, kind)
        ]
        if marks:
            values, distances = style.error_bars([mark for _, mark in marks])
            axes.errorbar(
                values, [place for place, _ in marks], xerr=distances, fmt=marker, color=color, label=label,
                markersize=8 if kind == "same_picture" else 6, elinewidth=1.8, clip_on=False, zorder=3,
            )  # fmt: skip
    chance = agreement["chance"][MEASURE]
    axes.axvline(chance, color=style.INK, linestyle="--", linewidth=1.2, zorder=1, label="chance")
    n = results["data"]["sample"]["n"]
    axes.set(xlabel=MEASURE_NAMES[MEASURE], title=f"n = {n:,} test images, bars: 95% intervals")
    axes.margins(x=0.04)
    style.legend_below(figure, [axes], columns=2, order=[label for _, label, *_ in CONTROLS])
    return figure


def agreement_matrix(results: Results, measure: str) -> Figure:
    """Draw the agreement of every pair of maps as a lower triangle of numbers, by a measure in `chance`."""
    agreement = agreement_of(results)
    keys, values = list(agreement["maps"]), _agreement_values(agreement, measure)
    chance = agreement["chance"][measure]
    figure = Figure(figsize=(style.WIDTH, 1.9 + 0.55 * len(keys)), layout="constrained")
    axes = figure.subplots()
    low = float(np.nanmin(values, initial=0.0))
    high = float(np.nanmax(values, initial=max(chance, 1e-3)))
    image = axes.imshow(values, cmap=MATRIX_COLORS, vmin=low, vmax=high, aspect="auto")
    write_cells(axes, values, middle=(low + high) / 2)
    labels = [map_name(*key.split()) for key in keys]
    axes.set_yticks(range(1, len(keys)), labels[1:], parse_math=False)
    axes.set_xticks(range(len(keys) - 1), labels[:-1], rotation=35, ha="right", rotation_mode="anchor")
    axes.set(frame_on=False, xlim=(-0.5, len(keys) - 1.5), ylim=(len(keys) - 0.5, 0.5))
    axes.tick_params(length=0, labelsize=10)
    _separate_models(axes, [made["model"] for made in agreement["maps"].values()])
    bar = figure.colorbar(image, ax=axes, shrink=0.8, aspect=30, label=MEASURE_NAMES[measure])
    bar.outline.set_visible(False)
    bar.ax.axhline(chance, color=style.VERMILLION, linewidth=2.5)
    place = (-0.2, chance)
    bar.ax.annotate("chance", place, ha="right", va="center", xycoords=("axes fraction", "data"), size=10)
    return figure


def faithfulness_curves(results: Results, fill: str) -> Figure:
    """Draw the deletion curves above the insertion curves, one column per model."""
    models = results["faithfulness"]["models"]
    methods = method_names(results)
    styles = style.line_styles(methods, REFERENCES)
    figure = Figure(figsize=(style.WIDTH, 6.4), layout="constrained")
    grid = figure.subplots(2, len(models), sharex=True, sharey=True, squeeze=False)
    for column, (model, fills) in zip(grid.T, models.items(), strict=True):
        column[0].set_title(model_name(model), parse_math=False)
        for axes, test in zip(column, ("deletion", "insertion"), strict=True):
            _draw_curves(axes, {name: order[f"{test}_curve"] for name, order in fills[fill].items()}, styles)
            axes.set(xlabel="share of the cells hidden or shown", ylabel=f"{test}\nprobability of the label")
            axes.label_outer()
    style.legend_below(figure, grid.ravel().tolist(), columns=3, order=[*methods, *REFERENCES])
    return figure


def faithfulness_gaps(results: Results, fill: str) -> Figure:
    """Draw each method's areas minus those of random order, coloured by sign if significant."""
    orders = {model: fills[fill] for model, fills in results["faithfulness"]["models"].items()}
    return gaps_to_random(
        orders,
        {"deletion": ("deletion: lower is better", -1), "insertion": ("insertion: higher is better", 1)},
        label="area minus that of random order",
    )


def gaps_to_random(
    models: Mapping[str, Mapping[str, Results]], tests: Mapping[str, tuple[str, int]], *, label: str
) -> Figure:
    """Draw the differences of orders, by model and name, to random order: one panel per test.

    Each test has its title, and the sign of a better difference.
    """
    names = [(model, name) for model, orders in models.items() for name in orders if name != RANDOM_ORDER]
    figure = Figure(figsize=(style.WIDTH, 1.7 + 0.34 * len(names)), layout="constrained")
    panels = figure.subplots(1, len(tests), sharey=True)
    for axes, (test, (title, better)) in zip(panels, tests.items(), strict=True):
        rows = [models[model][name][f"{test}_less_random"] for model, name in names]
        _draw_gaps(axes, [Difference.from_dict(row) for row in rows], better=better)
        axes.set(title=title, xlabel=label)
        for index, (before, after) in enumerate(pairwise(names)):
            if before[0] != after[0]:
                axes.axhline(index + 0.5, color=style.INK, linewidth=0.8)
    panels[0].set_yticks(range(len(names)), [map_name(*name) for name in names], parse_math=False)
    panels[0].invert_yaxis()
    style.legend_below(figure, panels.tolist(), columns=3, order=[name for name, _ in SIDES.values()])
    return figure


def weight_randomization(results: Results) -> Figure:
    """Draw the similarity to the trained model's maps after each stage of the randomisation, one panel per model."""
    models = results["sanity"]["models"]
    methods = method_names(results)
    styles = style.line_styles(methods)
    figure = Figure(figsize=(style.WIDTH, 4.9), layout="constrained")
    panels = figure.subplots(1, len(models), sharey=True, squeeze=False)[0]
    for axes, (model, cascade) in zip(panels, models.items(), strict=True):
        style.style_axes(axes)
        axes.axhline(0, color=style.INK, linewidth=0.8)
        for position, (method, means) in enumerate(cascade["methods"].items()):
            values, distances = style.error_bars([Estimate(1.0), *map(estimate, means)])
            places = np.arange(len(values)) + 0.06 * (position - (len(cascade["methods"]) - 1) / 2)  # side by side
            name = method_name(method)
            look = dict(zip(("color", "linestyle"), styles[name], strict=True))
            axes.errorbar(places, values, yerr=distances, label=name, marker="o", markersize=4, **look)
        stages = ["trained", *cascade["stages"]]
        axes.set_xticks(range(len(stages)), stages, rotation=35, ha="right", rotation_mode="anchor", parse_math=False)
        axes.set_title(model_name(model), parse_math=False)
        axes.set_xlabel("random from the head down to")
    panels[0].set_ylabel("Spearman correlation with\nthe trained model's map")
    style.legend_below(figure, panels.tolist(), columns=3, order=methods)
    return figure


def planted_hits(results: Results) -> Figure:
    """Draw the hits of the pointing game (Zhang et al., 2018, IJCV) and those of the control, one panel per model."""
    planted = results["planted"]
    methods = method_names(results)
    figure = Figure(figsize=(style.WIDTH, 0.8 + 2.5 * len(planted["models"])), layout="constrained")
    panels = figure.subplots(len(planted["models"]), 1, sharey=True, squeeze=False)[:, 0]
    for axes, (model, plantings) in zip(panels, planted["models"].items(), strict=True):
        style.style_axes(axes)
        axes.grid(visible=False, axis="x")
        _draw_hits(axes, list(plantings.values()), style.line_styles(methods))
        axes.axhline(planted["chance"], color=style.INK, linestyle="--", linewidth=1.2, label="chance")
        labels = [f"{name}, n = {planting['n']:,}" for name, planting in plantings.items()]
        axes.set_xticks(range(len(labels)), labels)
        axes.set(ylim=(0, 1), ylabel=f"{model_name(model)}\nhits")
    style.legend_below(figure, panels.tolist(), columns=4, order=methods)
    return figure


def hidden_regions(results: Results, measure: str) -> Figure:
    """Draw a measure, `accuracy` or `roc_auc`, over the area of the hidden region: columns models, rows fills."""
    causal = results["causal"]
    models, fills = causal["models"], causal["fills"]
    figure = Figure(figsize=(style.WIDTH, 1.2 + 2.4 * len(fills)), layout="constrained")
    grid = figure.subplots(len(fills), len(models), sharex=True, sharey=True, squeeze=False)
    for row, fill in zip(grid, fills, strict=True):
        for axes, (model, tested) in zip(row, models.items(), strict=True):
            _draw_occlusion(axes, [hiding for hiding in tested["hiding"] if hiding["fill"] == fill], measure)
            axes.axhline(tested["untouched"][measure]["value"], color=style.INK, linewidth=1.2, label="nothing hidden")
            axes.axhline(0.5, color=style.INK, linestyle="--", linewidth=1, label="chance")
            axes.set_title(f"{model_name(model)}, hidden by {FILL_NAMES[fill]}", parse_math=False)
            axes.set(xlabel="hidden area, % of the image", ylabel={"roc_auc": "ROC AUC"}.get(measure, measure))
            axes.label_outer()
    order = [f"{region} hidden" for region in REGIONS]
    style.legend_below(figure, grid.ravel().tolist(), columns=5, order=order)
    return figure


def hidden_entity(results: Results) -> Figure:
    """Draw the ROC AUC with entity or background hidden, one panel per model and one colour per fill."""
    entity = results["entity"]
    models = entity["models"]
    figure = Figure(figsize=(style.WIDTH, 3.6), layout="constrained")
    panels = figure.subplots(1, len(models), sharex=True, sharey=True, squeeze=False)[0]
    for axes, (model, tested) in zip(panels, models.items(), strict=True):
        style.style_axes(axes)
        axes.grid(visible=False, axis="y")
        for index, (fill, row) in enumerate(tested["fills"].items()):
            means = [tested["untouched"], *row["hidden"].values()]
            values, distances = style.error_bars([estimate(each["roc_auc"]) for each in means])
            places = np.arange(len(means)) + 0.2 * (index - (len(tested["fills"]) - 1) / 2)
            axes.errorbar(
                values, places, xerr=distances, fmt="os"[index % 2], color=style.COLORS[index],
                label=f"hidden by {FILL_NAMES[fill]}",
            )  # fmt: skip
            axes.set_yticks(range(len(means)), ["nothing", *row["hidden"]])
        axes.axvline(0.5, color=style.INK, linestyle="--", linewidth=1, label="chance")
        axes.set_title(model_name(model), parse_math=False)
        axes.set_xlabel("ROC AUC")
    panels[0].invert_yaxis()
    panels[0].set_ylabel("hidden")
    style.legend_below(figure, panels.tolist(), columns=3)
    return figure


def page_figure(draw: Callable[[], Figure], caption: str, reading: str) -> PageFigure:
    """Return a figure for the page, whose numbers are in the tables of its section."""
    return PageFigure(draw, f"{caption} The tables of this section contain the numbers.", caption, reading)


def _marks(agreement: Results, pair: Results, kind: str) -> list[Estimate]:
    """Return the defined estimates of a pair's agreement, or of one of its controls."""
    if kind in ("centre", "ceiling"):
        means = [agreement[kind].get(pair[side], {}).get(MEASURE) for side in "ab"]
    else:
        means = [pair["measures"][MEASURE].get(kind)]
    return [mark for mean in means if (mark := estimate(mean))]


def _place_rows(axes: Axes, groups: Sequence[tuple[str, Sequence[str]]]) -> list[float]:
    """Write the names of groups and rows from the top, and return the height of each row."""
    places: list[float] = []
    height = 0.0
    for group, rows in groups:
        axes.annotate(
            group, (0, height), (-4, 0), xycoords=axes.get_yaxis_transform(), textcoords="offset points",
            weight="bold", color=style.INK, size=10, ha="right", va="center", annotation_clip=False, parse_math=False,
        )  # fmt: skip
        places += [height - 0.75 - index for index in range(len(rows))]
        height = places[-1] - 0.9
    axes.set_yticks(places, [name for _, rows in groups for name in rows], parse_math=False)
    axes.tick_params(axis="y", length=0, labelsize=10)
    axes.set_ylim(places[-1] - 0.6, 0.3)
    for upper, lower in pairwise(places):
        if upper - lower == 1:
            axes.axhline((upper + lower) / 2, color="#E5E5E5", linewidth=0.8, zorder=0)
    return places


def _agreement_values(agreement: Results, measure: str) -> NDArray[np.float64]:
    """Return the agreement of every pair below the diagonal: (maps, maps), NaN elsewhere and where undefined."""
    keys = list(agreement["maps"])
    values = np.full((len(keys), len(keys)), np.nan)
    for pair in agreement["pairs"]:
        row, column = sorted((keys.index(pair["a"]), keys.index(pair["b"])), reverse=True)
        value = pair["measures"][measure]["same_picture"]["value"]
        values[row, column] = np.nan if value is None else value
    return values


def write_cells(axes: Axes, values: NDArray[np.float64], *, middle: float) -> None:
    """Write the values below the diagonal of a matrix on its image, whose colours are dark below a middle value."""
    for column, row in combinations(range(len(values)), 2):
        value = values[row, column]
        text = "none" if np.isnan(value) else f"{value:.2f}".replace("-", "\N{MINUS SIGN}")
        color = style.INK if np.isnan(value) else "white" if value < middle else "black"
        gid = None if np.isnan(value) else style.FIXED
        axes.text(column, row, text, ha="center", va="center", color=color, size=11, gid=gid)


def _separate_models(axes: Axes, models: Sequence[str]) -> None:
    starts = [index for index in range(1, len(models)) if models[index] != models[index - 1]]
    for start in starts:
        axes.plot([-0.5, start - 0.5], [start - 0.5] * 2, color=style.INK, linewidth=2.5, solid_capstyle="butt")
        axes.plot(
            [start - 0.5] * 2, [start - 0.5, len(models) - 0.5], color=style.INK, linewidth=2.5, solid_capstyle="butt"
        )


def _draw_curves(axes: Axes, curves: Mapping[str, Sequence[float]], styles: Mapping[str, style.LineStyle]) -> None:
    style.style_axes(axes)
    axes.set_ylim(0, 1.02)
    for order, values in curves.items():
        name = method_name(order)
        color, line = styles[name]
        places = np.linspace(0, 1, len(values))
        axes.plot(places, np.array(values, dtype=np.float64), color=color, linestyle=line, linewidth=1.8, label=name)


def _draw_gaps(axes: Axes, gaps: Sequence[Difference], *, better: int) -> None:
    style.style_axes(axes)
    axes.grid(visible=False, axis="y")
    axes.axvline(0, color=style.INK, linewidth=1)
    values, distances = style.error_bars(gaps)
    for side, (label, color) in SIDES.items():
        chosen = [index for index, gap in enumerate(gaps) if gap.value is not None and better * gap.side == side]
        if chosen:
            axes.barh(chosen, values[chosen], height=0.62, color=color, label=label)
    axes.errorbar(values, range(len(values)), xerr=distances, fmt="none", ecolor=style.INK, elinewidth=1.4)


def _draw_hits(axes: Axes, plantings: Sequence[Results], styles: Mapping[str, style.LineStyle]) -> None:
    methods = plantings[0]["methods"]
    for position, method in enumerate(methods):
        rows = [planting["methods"][method] for planting in plantings]
        values, distances = style.error_bars([estimate(row["planted"]["hits"]) for row in rows])
        control, spreads = style.error_bars([estimate(row["control"]["hits"]) for row in rows])
        places = np.arange(len(values)) + (position - (len(methods) - 1) / 2) * 0.8 / len(methods)
        name, shift = method_name(method), 0.18 / len(methods)
        axes.bar(places, values, width=0.72 / len(methods), color=styles[name][0], label=name)
        axes.errorbar(places - shift, values, yerr=distances, fmt="none", ecolor=style.INK, elinewidth=1.4)
        axes.errorbar(
            places + shift, control, yerr=spreads, fmt="D", color=style.INK, markerfacecolor="white", markersize=5,
            elinewidth=1.0, label=None if position else "control",
        )  # fmt: skip


def _draw_occlusion(axes: Axes, rows: Iterable[Results], measure: str) -> None:
    style.style_axes(axes)
    by_area = {100 * row["area"]: row for row in rows}
    for region, (color, marker) in REGIONS.items():
        values, distances = style.error_bars([estimate(row["hidden"][region][measure]) for row in by_area.values()])
        label = f"{region} hidden"
        axes.errorbar(list(by_area), values, yerr=distances, color=color, marker=marker, label=label, capsize=2)
    axes.set_xticks(list(by_area), [f"{area:g}" for area in by_area])
