"""The section on faithfulness: deletion and insertion, fine-tuned fidelity, and how each test ranks the methods."""

from functools import partial
from typing import Final

import numpy as np
from matplotlib.figure import Figure

from realfake_hf.attribution.methods import method_name
from realfake_hf.explain_study import figures
from realfake_hf.explain_study.cells import NO_BETTER, NUMBER, PERCENT, SIGNED, cell, sign, tested_cells
from realfake_hf.explain_study.figures import MATRIX_COLORS, gaps_to_random, page_figure, write_cells
from realfake_hf.explain_study.names import FILL_NAMES, Results, estimate, map_name, model_name
from realfake_hf.explain_study.tables import faithfulness_tables
from realfake_hf.figures import style
from realfake_hf.pages.page import PageFigure, Section
from realfake_hf.tables import Table

RANK: Final = ".3g"
TEXT: Final = (
    "The score is the probability of the label that the model gave to the intact image. A method that does no better "
    "than the centre prior may owe its score to the place of the objects."
)
CURVES: Final = (
    "Cells are hidden (top) or shown (bottom) in the order of a map. A faithful map makes the deletion curve fall "
    "early and the insertion curve rise early. Random order and the centre prior know nothing of the model."
)
GAPS: Final = (
    "Bars are differences to random order on the same images, with 95% intervals. Grey bars are not significant after "
    "correction for all of these comparisons. A result that holds for one fill only may be an artefact of the fill."
)
FIDELITY: Final = (
    "The images are scored by a copy of the model that was fine-tuned on images with hidden cells, to which these are "
    "nothing new (Zheng et al., 2025). Without a part of the highest cells of a faithful map, the probability drops "
    "far (Fid+); without a part of the others, it hardly drops (Fid-)."
)
TAU: Final = (
    "Kendall's tau is 1 if two tests rank the methods alike, 0 if the rankings are unrelated, and -1 if they are "
    "reversed. Low values mean that the answer to the question which method is faithful depends on the test."
)


def faithfulness_section(results: Results) -> Section:
    """Return the section on faithfulness; without a fine-tuned copy of a model, it has no fidelity."""
    part = results["faithfulness"]
    shown = [figure for fill in part["fills"] for figure in _fill_figures(results, fill)]
    if part.get("fidelity"):
        caption = f"Drops minus those of random order, with 95% intervals: n = {part['n']:,} images."
        shown.append(page_figure(partial(fidelity_gaps, results), caption, FIDELITY))
    if part.get("rankings"):
        caption = f"Agreement of the tests on the ranking of the methods: n = {part['n']:,} images, less empty maps."
        shown.append(page_figure(partial(tau_matrices, results), caption, TAU))
    tables = [*faithfulness_tables(results), *fidelity_tables(results), *ranking_tables(results)]
    return Section("faithfulness", "Are the maps faithful?", [TEXT], shown, tables)


def fidelity_tables(results: Results) -> list[Table]:
    """Return the mean drops of fine-tuned copies, one table for each model that has one."""
    columns = {
        "plus": NUMBER, "plus_less_random": SIGNED, "minus": NUMBER, "minus_less_random": SIGNED,
        "difference": SIGNED, "difference_less_random": SIGNED,
    }  # fmt: skip
    header = (
        "order", "Fid+", "minus random", "Fid-", "minus random", "Fid+ less Fid-", "minus random", "p (Holm)",
        "better than random", "against the centre prior",
    )  # fmt: skip
    return [
        Table(
            f"{model_name(model)}: mean drops of the probability in a copy that was fine-tuned with at most "
            f"{tested['share']:.0%} of the cells hidden, and gives the same label to "
            f"{cell(tested['same_label'], PERCENT)} of the intact images. Differences are paired; p-values and flags "
            "are those of Fid+ less Fid-.",
            header,
            [
                [
                    map_name(model, name),
                    *(cell(order.get(column), spec) for column, spec in columns.items()),
                    *_flags(order),
                ]
                for name, order in tested["orders"].items()
            ],
        )
        for model, tested in results["faithfulness"].get("fidelity", {}).items()
    ]


def ranking_tables(results: Results) -> list[Table]:
    """Return the rank of each method under each test, one table per model; folded, the correlation of all tests."""
    rankings = results["faithfulness"].get("rankings", {})
    tables = []
    for model, ranking in rankings.items():
        ranks = ranking["ranks"]
        caption = (
            f"{model_name(model)}: rank of each method under each test, 1 is the most faithful, on the "
            f"{ranking['mean_tau']['n']:,} images for which all of them have a map. Kendall's tau of two tests is "
            f"{cell(ranking['mean_tau'], SIGNED)} on average."
        )
        methods = next(iter(ranks.values()))
        rows = [[method_name(name), *(cell(by_name[name], RANK) for by_name in ranks.values())] for name in methods]
        tables.append(Table(caption, ("method", *ranks), rows))
    taus = [
        [model_name(model), pair["a"], pair["b"], cell(pair["tau"], SIGNED)]
        for model, ranking in rankings.items()
        for pair in ranking["pairs"]
    ]
    header = ("model", "test", "other test", "Kendall's tau")
    tables.append(Table("Agreement of every two tests on the ranking.", header, taus, align="lllr", folded=True))
    return [table for table in tables if table.rows]


def fidelity_gaps(results: Results) -> Figure:
    """Draw the mean drops of each order minus those of random order, coloured by sign if significant."""
    orders = {model: tested["orders"] for model, tested in results["faithfulness"]["fidelity"].items()}
    tests = {"plus": ("Fid+: higher is better", 1), "minus": ("Fid-: lower is better", -1)}
    return gaps_to_random(orders, tests, label="drop minus that of random order")


def tau_matrices(results: Results) -> Figure:
    """Draw Kendall's tau of every two tests as a lower triangle of numbers, one panel per model."""
    rankings = results["faithfulness"]["rankings"]
    n_tests = [len(ranking["ranks"]) for ranking in rankings.values()]
    figure = Figure(figsize=(style.WIDTH, sum(1.7 + 0.42 * n for n in n_tests)), layout="constrained")
    panels = figure.subplots(len(rankings), 1, squeeze=False, height_ratios=n_tests)[:, 0]
    for axes, (model, ranking) in zip(panels, rankings.items(), strict=True):
        tests = list(ranking["ranks"])
        values = np.full((len(tests), len(tests)), np.nan)
        for pair in ranking["pairs"]:
            tau = estimate(pair["tau"])
            values[tests.index(pair["b"]), tests.index(pair["a"])] = np.nan if tau is None else tau.value
        image = axes.imshow(values, cmap=MATRIX_COLORS, vmin=-1, vmax=1, aspect="auto")
        write_cells(axes, values, middle=0)
        axes.set_yticks(range(1, len(tests)), tests[1:], parse_math=False)
        axes.set_xticks(range(len(tests) - 1), tests[:-1], rotation=35, ha="right", rotation_mode="anchor")
        axes.set(frame_on=False, xlim=(-0.5, len(tests) - 1.5), ylim=(len(tests) - 0.5, 0.5))
        axes.set_title(model_name(model), parse_math=False)
        axes.tick_params(length=0, labelsize=10)
    bar = figure.colorbar(image, ax=panels.tolist(), shrink=0.6, aspect=30, label="Kendall's tau")
    bar.outline.set_visible(False)
    return figure


def _fill_figures(results: Results, fill: str) -> list[PageFigure]:
    part = results["faithfulness"]
    n = f"n = {part['n']:,} images, {part['steps']} steps, hidden by {FILL_NAMES[fill]}"
    gaps = f"Areas minus those of random order, with 95% intervals: {n}."
    return [
        page_figure(partial(figures.faithfulness_curves, results, fill), f"Deletion and insertion: {n}.", CURVES),
        page_figure(partial(figures.faithfulness_gaps, results, fill), gaps, GAPS),
    ]


def _flags(order: Results) -> list[str]:
    """Return the corrected p-value of an order's difference to random order, and whether it beats both references."""
    random, centre = (order.get(f"difference_less_{baseline}") for baseline in ("random", "centre"))
    beats_centre = {"positive": "better"}.get(sign(centre), NO_BETTER) if centre else ""
    if not random:
        return ["", "", ""]
    return [tested_cells(random, SIGNED)[1], "yes" if sign(random) == "positive" else "no", beats_centre]
