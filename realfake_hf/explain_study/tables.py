"""Tables of the explanation study with flags, and one finding per part, from the content of its results file."""

from collections.abc import Callable, Iterable, Mapping
from typing import Final

from realfake_hf.attribution.methods import method_name
from realfake_hf.environment import main_versions
from realfake_hf.estimate import Estimate
from realfake_hf.explain_study.names import (
    FILL_NAMES,
    MEASURE,
    MEASURE_NAMES,
    Results,
    estimate,
    key_pairs,
    main_pair,
    map_name,
    model_name,
    pair_name,
)
from realfake_hf.tables import Table, plain_text

NUMBER: Final = "z.3f"  # without negative zeros
SIGNED: Final = "+z.3f"
PERCENT: Final = ".1%"
POINTS: Final = "+z.1%"


def findings(results: Results) -> list[str]:
    """Return one sentence for each part of a study."""
    return [find(results) for part, find in _FINDINGS.items() if part in results]


def agreement_tables(results: Results) -> list[Table]:
    """Return the key pairs with their controls and by correctness; folded, every pair, group and kind of map."""
    open_tables = [_controls_table(results), _correctness_table(results)]
    return [*open_tables, _pairs_table(results), *_group_tables(results), _maps_table(results)]


def faithfulness_tables(results: Results) -> list[Table]:
    """Return the areas under the curves, one table per fill."""
    header = ("order", "deletion", "minus random", "insertion", "minus random", "better than random in")
    columns = {
        "deletion": NUMBER, "deletion_less_random": SIGNED, "insertion": NUMBER, "insertion_less_random": SIGNED,
    }  # fmt: skip
    return [
        Table(
            f"Areas under the curves, hidden by {FILL_NAMES[fill]}; differences are paired.",
            header,
            [
                [
                    map_name(model, name),
                    *(_cell(order.get(column), spec) for column, spec in columns.items()),
                    _better_than_random(order),
                ]
                for model, fills in results["faithfulness"]["models"].items()
                for name, order in fills[fill].items()
            ],
        )
        for fill in results["faithfulness"]["fills"]
    ]


def sanity_tables(results: Results) -> list[Table]:
    """Return the correlation after each stage of the randomisation, one table per model."""
    return [
        Table(
            f"{model_name(model)}: Spearman correlation with the trained model's map after each stage.",
            ("method", *cascade["stages"], "above 0.5 at the end"),
            [
                [method_name(method), *map(_cell, means), _above(means[-1], 0.5)]
                for method, means in cascade["methods"].items()
            ],
        )
        for model, cascade in results["sanity"]["models"].items()
    ]


def planted_tables(results: Results) -> list[Table]:
    """Return the effect of planting on the models, and how well the maps locate it."""
    return [_planted_table(results["planted"]), _hits_table(results["planted"])]


def occlusion_tables(results: Results) -> list[Table]:
    """Return what hiding centre and rim costs; folded, every measure and the mass of the maps."""
    part = results["causal"]
    return [*_difference_tables(part), _performance_table(part), _shares_table(part)]


def environment_tables(results: Results) -> list[Table]:
    """Return the models, data, settings and machine."""
    data = {**results["data"], **results["data"]["sample"]}
    data.pop("sample")
    models = [_model_row(name, model) for name, model in results["models"].items()]
    machine = {name: results.get(name) for name in ("commit", "python", "seconds", "versions", "machine")}
    machine["versions"] = main_versions(results["versions"])
    header = ("model", "place", "accuracy on this split", "methods", "training", "twin", "twin trained alike")
    facts = {"Images.": data, "Settings.": results["settings"], "Code and machine.": machine}
    return [
        Table("Models.", header, models, align="l", wrap=True),
        *(
            Table(title, ("name", "value"), [(name, plain_text(value)) for name, value in values.items()], wrap=True)
            for title, values in facts.items()
        ),
    ]


def _find_agreement(results: Results) -> str:
    pair = main_pair(results)
    means = pair["measures"][MEASURE]
    return (
        f"{pair_name(pair)}: {MEASURE_NAMES[MEASURE]} is {_cell(means['same_picture'])} on the same image, "
        f"{_cell(means['shuffled'])} on different images; the difference, {_cell(means['above_shuffled'], SIGNED)}, "
        f"is {_sign(means['above_shuffled'])}."
    )


def _find_faithfulness(results: Results) -> str:
    better = [
        map_name(model, name)
        for model, fills in results["faithfulness"]["models"].items()
        for name in next(iter(fills.values()))
        if all(_better_than_random(orders[name]) == "both" for orders in fills.values())
    ]
    return f"Better than random order in deletion and insertion with every fill: {_listed(better)}."


def _find_sanity(results: Results) -> str:
    stable = [
        map_name(model, method)
        for model, cascade in results["sanity"]["models"].items()
        for method, means in cascade["methods"].items()
        if _above(means[-1], 0.5) == "yes"
    ]
    return f"Still correlated above 0.5 with the original maps when all weights are random: {_listed(stable)}."


def _find_planted(results: Results) -> str:
    chance = results["planted"]["chance"]
    above = [
        map_name(model, method)
        for model, plantings in results["planted"]["models"].items()
        for method, row in plantings["fake in real"]["methods"].items()
        if _above(row["hits"], chance) == "yes"
    ]
    return f"Locate a fake quadrant in a real image more often than chance: {_listed(above)}."


def _find_occlusion(results: Results) -> str:
    rows = [row for tested in results["causal"]["models"].values() for row in tested["hiding"]]
    costs = [_costs_more(row["roc_auc_difference"]) for row in rows]
    return (
        f"Of {len(rows)} comparisons at equal area, hiding the centre costs more ROC AUC in {costs.count('centre')}, "
        f"hiding the rim in {costs.count('rim')}."
    )


_FINDINGS: Final[Mapping[str, Callable[[Results], str]]] = {
    "agreement": _find_agreement,
    "faithfulness": _find_faithfulness,
    "sanity": _find_sanity,
    "planted": _find_planted,
    "causal": _find_occlusion,
}


def _controls_table(results: Results) -> Table:
    agreement, rows = results["agreement"], []
    for pair in key_pairs(results):
        means = pair["measures"][MEASURE]
        centre = [estimate(agreement["centre"].get(pair[side], {}).get(MEASURE)) for side in "ab"]
        same = estimate(means["same_picture"])
        beats_centre = same and all(spot is None or same.value > spot.value for spot in centre)  # type: ignore[operator]
        rows.append(
            [
                pair_name(pair),
                _cell(means["same_picture"]),
                _above(means["same_picture"], agreement["chance"][MEASURE]),
                _cell(means["shuffled"]),
                _cell(means["above_shuffled"], SIGNED),
                _sign(means["above_shuffled"]),
                _cell(means["random_weights"]),
                "" if same is None else "yes" if beats_centre else "no",
                _count(means["same_picture"]),
            ]
        )
    caption = f"{MEASURE_NAMES[MEASURE]} of the key pairs; chance is {agreement['chance'][MEASURE]:.3f}."
    header = (
        "pair", "same image", "above chance", "different images", "difference", "sign", "random weights",
        "above a centre spot", "n",
    )  # fmt: skip
    return Table(caption, header, rows)


def _correctness_table(results: Results) -> Table:
    rows = []
    for pair in key_pairs(results):
        right, wrong, gap = (pair[name][MEASURE] for name in ("all_right", "some_wrong", "right_less_wrong"))
        n = f"{_count(right)} / {_count(wrong)}"
        rows.append([pair_name(pair), _cell(right), _cell(wrong), _cell(gap, SIGNED), _sign(gap), n])
    caption = f"{MEASURE_NAMES[MEASURE]} on images that both models classify correctly, and on the others."
    return Table(caption, ("pair", "both correct", "one or both wrong", "difference", "sign", "n"), rows)


def _pairs_table(results: Results) -> Table:
    chance = results["agreement"]["chance"]
    rows = [["chance", *(f"{chance[name]:.3f}" if name in chance else "" for name in MEASURE_NAMES)]]
    rows += [
        [pair_name(pair), *(_cell(pair["measures"][name]["same_picture"]) for name in MEASURE_NAMES)]
        for pair in results["agreement"]["pairs"]
    ]
    caption = "Every pair of maps by every measure. Distances of centres are shares of the image: lower is closer."
    return Table(caption, ("pair", *MEASURE_NAMES.values()), rows, folded=True)


def _group_tables(results: Results) -> list[Table]:
    tables = []
    for part, words in (("by_label", "label"), ("by_content", "content")):
        pairs = [pair for pair in key_pairs(results) if pair[part]]
        names = list(dict.fromkeys(name for pair in pairs for name in pair[part]))
        rows = [[pair_name(pair), *(_cell(pair[part][name][MEASURE]) for name in names)] for pair in pairs]
        tables.append(Table(f"{MEASURE_NAMES[MEASURE]} by {words}.", ("pair", *names), rows, folded=True))
    return [table for table in tables if table.rows]


def _maps_table(results: Results) -> Table:
    agreement = results["agreement"]
    rows = [
        [
            map_name(*key.split()),
            made["layer"] or "",
            " x ".join(map(str, made["native_grid"])),
            plain_text(made["options"]),
            f"{made['empty']:,}",
            *(_cell(agreement[reference].get(key, {}).get(MEASURE)) for reference in ("centre", "ceiling")),
        ]
        for key, made in agreement["maps"].items()
    ]
    header = ("map", "layer", "native grid", "options", "empty maps", "with a centre spot", "with its twin")
    caption = f"The maps, and their {MEASURE_NAMES[MEASURE]} with two references."
    return Table(caption, header, rows, folded=True)


def _planted_table(part: Results) -> Table:
    rows = []
    for model, plantings in part["models"].items():
        for name, planting in plantings.items():
            moved, n = planting["p_fake_moved"], f"{planting['n']:,}"
            rows.append([model_name(model), name, _cell(moved, SIGNED), _sign(moved), n])
    caption = "Effect of planting on p(fake). A map cannot be blamed where the model itself did not react."
    return Table(caption, ("model", "planting", "change of p(fake)", "sign", "n"), rows, align="llr")


def _hits_table(part: Results) -> Table:
    rows = [
        [
            map_name(model, method),
            name,
            "yes" if method in part["class_methods"] else "no",
            _cell(row["hits"], PERCENT),
            _above(row["hits"], part["chance"]),
            *(_cell(row[column], PERCENT) for column in ("mass", "mass_before")),
            _cell(row["mass_gain"], POINTS),
        ]
        for model, plantings in part["models"].items()
        for name, planting in plantings.items()
        for method, row in planting["methods"].items()
    ]
    header = (
        "map", "planting", "depends on the label", "hits", "above chance", "mass in the quadrant", "without planting",
        "gain",
    )  # fmt: skip
    caption = "Hits, and the share of the map's mass in the planted quadrant; the gain is in points."
    return Table(caption, header, rows, align="llr")


def _difference_tables(part: Results) -> list[Table]:
    differences, alone, contents = [], [], []
    for model, tested in part["models"].items():
        for row in tested["hiding"]:
            names = [model_name(model), row["fill"], f"{row['area']:.0%}"]
            accuracy, auc = row["accuracy_difference"], row["roc_auc_difference"]
            centre, fill = row["rim"]["roc_auc"], tested["all_hidden"][row["fill"]]["roc_auc"]
            differences.append(
                [*names, _cell(accuracy, POINTS), _costs_more(accuracy), _cell(auc, SIGNED), _costs_more(auc)]
            )
            alone.append([*names, _cell(centre), _cell(fill), _above(centre, fill["high"])])
            contents.append([*names, *(_cell(mean, POINTS) for mean in row["by_content"].values())])
    header = ("model", "fill", "area")
    return [
        Table(
            "Centre hidden minus rim hidden, paired (accuracy in points); below 0, the centre matters more.",
            (*header, "accuracy", "costs more", "ROC AUC", "costs more"),
            differences,
            align="lllr",
        ),
        Table(
            "ROC AUC of the centre alone (the rim hidden), and of the fill alone (everything hidden).",
            (*header, "centre alone", "fill alone", "centre above fill"),
            alone,
            align="lllr",
        ),
        Table(
            "Accuracy with the centre hidden minus accuracy with the rim hidden, in points, by content.",
            (*header, *row["by_content"]),
            contents,
            align="lllr",
            folded=True,
        ),
    ]


def _performance_table(part: Results) -> Table:
    measures = ("accuracy", "roc_auc", "accuracy_real", "accuracy_fake", "called_fake")
    rows = []
    for model, tested in part["models"].items():
        cases = [("nothing", tested["untouched"])]
        cases += [
            (f"{region}, {row['area']:.0%}, {row['fill']}", row[region])
            for row in tested["hiding"]
            for region in ("centre", "rim")
        ]
        cases += [(f"everything, {fill}", row) for fill, row in tested["all_hidden"].items()]
        rows += [[model_name(model), hidden, *(_cell(row[name]) for name in measures)] for hidden, row in cases]
    header = ("model", "hidden", "accuracy", "ROC AUC", "accuracy on real", "accuracy on fake", "predicted fake")
    return Table("Every measure with every part hidden.", header, rows, align="llr", folded=True)


def _shares_table(part: Results) -> Table:
    rows = [
        [map_name(*key.split()), f"{row['area']:.0%}", _cell(row["centre"], PERCENT), _cell(row["rim"], PERCENT)]
        for key, areas in part["map_shares"].items()
        for row in areas
    ]
    caption = "Share of each map's mass in centre and rim; a uniform map has the area's own share in both."
    return Table(caption, ("map", "area", "in the centre", "in the rim"), rows, folded=True)


def _model_row(name: str, model: Results) -> list[str]:
    own, twin = model["training"], (model["twin"] or {}).get("training")
    alike = all(own[key] == twin[key] for key in ("n", "epochs")) if own and twin else None
    return [
        model_name(name),
        str(model["place"]),
        f"{model['accuracy']:.1%}",
        _listed(map(method_name, model["methods"])),
        plain_text(own),
        plain_text(twin),
        "" if alike is None else "yes" if alike else "no",
    ]


def _cell(mean: Results | None, spec: str = NUMBER) -> str:
    return Estimate.from_dict(mean).format(spec) if mean else ""


def _count(mean: Results) -> str:
    return f"{mean['n']:,}, {mean['undefined']:,} undefined" if mean.get("undefined") else f"{mean['n']:,}"


def _sign(difference: Results, below: str = "negative", above: str = "positive") -> str:
    """Name the sign of a difference, if its interval excludes 0."""
    return {-1: below, 0: "unclear", 1: above}[Estimate.from_dict(difference).side]


def _above(mean: Results, reference: float | None) -> str:
    """Flag an estimate whose whole interval lies above a number."""
    if mean["low"] is None or reference is None:
        return ""
    return "yes" if mean["low"] > reference else "no"


def _costs_more(centre_minus_rim: Results) -> str:
    """Name the region whose hiding costs more."""
    return _sign(centre_minus_rim, "centre", "rim")


def _better_than_random(order: Results) -> str:
    if "deletion_less_random" not in order:
        return ""
    deletion = Estimate.from_dict(order["deletion_less_random"]).side < 0
    insertion = Estimate.from_dict(order["insertion_less_random"]).side > 0
    if deletion and insertion:
        return "both"
    return "deletion" if deletion else "insertion" if insertion else "neither"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"
