"""Tables of the explanation study, with flags, from the content of its results file."""

from collections.abc import Iterable, Mapping
from typing import Final

from realfake_hf.attribution.methods import method_name
from realfake_hf.environment import main_versions
from realfake_hf.explain_study.cells import (
    NUMBER,
    PERCENT,
    POINTS,
    SIGNED,
    above,
    against_centre,
    better_than_random,
    cell,
    costs_more,
    count,
    listed,
    sign,
    tested_cells,
)
from realfake_hf.explain_study.names import (
    FILL_NAMES,
    MEASURE,
    MEASURE_NAMES,
    TARGET_NAMES,
    Results,
    agreement_of,
    estimate,
    key_pairs,
    main_pair,
    map_name,
    model_name,
    pair_name,
)
from realfake_hf.tables import Table, plain_text

PERFORMANCE: Final = {
    "accuracy": "accuracy", "roc_auc": "ROC AUC", "accuracy_real": "accuracy on real",
    "accuracy_fake": "accuracy on fake", "called_fake": "predicted fake",
}  # fmt: skip


def agreement_tables(results: Results) -> list[Table]:
    """Return the key pairs with their controls and by correctness; folded, every pair, group and kind of map."""
    open_tables = [_controls_table(results), _correctness_table(results), _targets_table(results)]
    return [*open_tables, _pairs_table(results), *_group_tables(results), _maps_table(results)]


def faithfulness_tables(results: Results) -> list[Table]:
    """Return the areas under the curves, one table per fill; studies of older versions have no centre prior."""
    header = ("order", "deletion", "minus random", "insertion", "minus random", "better than random in")
    columns = {
        "deletion": NUMBER, "deletion_less_random": SIGNED, "insertion": NUMBER, "insertion_less_random": SIGNED,
    }  # fmt: skip
    part = results["faithfulness"]
    orders = {
        fill: [(model, name, order) for model, fills in part["models"].items() for name, order in fills[fill].items()]
        for fill in part["fills"]
    }
    flags = (
        {"against the centre prior": against_centre}
        if any("deletion_less_centre" in row[2] for rows in orders.values() for row in rows)
        else {}
    )
    return [
        Table(
            f"Areas under the curves, hidden by {FILL_NAMES[fill]}; differences are paired.",
            (*header, *flags),
            [
                [
                    map_name(model, name),
                    *(cell(order.get(column), spec) for column, spec in columns.items()),
                    better_than_random(order),
                    *(flag(order) for flag in flags.values()),
                ]
                for model, name, order in rows
            ],
        )
        for fill, rows in orders.items()
    ]


def sanity_tables(results: Results) -> list[Table]:
    """Return the correlation after each stage of the randomisation, one table per model."""
    return [
        Table(
            f"{model_name(model)}: Spearman correlation with the trained model's map after each stage.",
            ("method", *cascade["stages"], "above 0.5 at the end"),
            [
                [method_name(method), *map(cell, means), above(means[-1], 0.5)]
                for method, means in cascade["methods"].items()
            ],
        )
        for model, cascade in results["sanity"]["models"].items()
    ]


def planted_tables(results: Results) -> list[Table]:
    """Return the effect of planting on the models, and how well the maps locate it."""
    tables = [make(results["planted"]) for make in (_planted_table, _hits_table, _auc_table)]
    return [table for table in tables if table.rows]


def occlusion_tables(results: Results) -> list[Table]:
    """Return what hiding centre, rim and corner costs; folded, every measure and the mass of the maps."""
    part = results["causal"]
    return [*_difference_tables(part), _occlusion_performance_table(part), _shares_table(part)]


def entity_tables(results: Results) -> list[Table]:
    """Return what hiding the entity costs, and the mass of the maps in it; folded, every measure."""
    part = results["entity"]
    maps = [
        [map_name(*key.split()), cell(row["mass"], PERCENT), *tested_cells(row["mass_less_area"], POINTS)]
        for key, row in part["maps"].items()
    ]
    caption = "Share of each map's mass in the entity, and that less the share of the area."
    masses = Table(caption, ("map", "in the entity", "less the area", "p (Holm)"), maps)
    return [_entity_differences_table(part), masses, _entity_performance_table(part)]


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


def _controls_table(results: Results) -> Table:
    agreement, rows = agreement_of(results), []
    for pair in key_pairs(agreement["pairs"]):
        means = pair["measures"][MEASURE]
        centre = [estimate(agreement["centre"].get(pair[side], {}).get(MEASURE)) for side in "ab"]
        same = estimate(means["same_picture"])
        beats_centre = same and all(spot is None or same.value > spot.value for spot in centre)  # type: ignore[operator]
        rows.append(
            [
                pair_name(pair),
                cell(means["same_picture"]),
                above(means["same_picture"], agreement["chance"][MEASURE]),
                cell(means["shuffled"]),
                *tested_cells(means["above_shuffled"], SIGNED),
                cell(means["random_weights"]),
                "" if same is None else "yes" if beats_centre else "no",
                count(means["same_picture"]),
            ]
        )
    caption = (
        f"{MEASURE_NAMES[MEASURE]} of the key pairs, for {_target(results)}; chance is "
        f"{agreement['chance'][MEASURE]:.3f}. Other images are of the same label and content."
    )
    header = (
        "pair", "same image", "above chance", "other images", "difference", "p (Holm)", "random weights",
        "above a centre spot", "n",
    )  # fmt: skip
    return Table(caption, header, rows)


def _correctness_table(results: Results) -> Table:
    rows = []
    for pair in key_pairs(agreement_of(results)["pairs"]):
        right, wrong, gap = (pair[name][MEASURE] for name in ("all_right", "some_wrong", "right_less_wrong"))
        n = f"{count(right)} / {count(wrong)}"
        rows.append([pair_name(pair), cell(right), cell(wrong), *tested_cells(gap, SIGNED), n])
    caption = (
        f"{MEASURE_NAMES[MEASURE]} on images that both models classify correctly, and on the others, for "
        f"{_target(results)}."
    )
    return Table(caption, ("pair", "both correct", "one or both wrong", "difference", "p (Holm)", "n"), rows)


def _targets_table(results: Results) -> Table:
    """Return both differences of the main pair for every target."""
    rows = []
    for target, measured in results["agreement"]["by_target"].items():
        pair = main_pair(measured["pairs"])
        means, gap = pair["measures"][MEASURE], pair["right_less_wrong"][MEASURE]
        gain = tested_cells(means["above_shuffled"], SIGNED)
        rows.append([TARGET_NAMES[target], cell(means["same_picture"]), *gain, *tested_cells(gap, SIGNED)])
    header = (
        "label explained", "same image", "less other images", "p (Holm)", "both correct less others", "p (Holm)",
    )  # fmt: skip
    name = pair_name(main_pair(agreement_of(results)["pairs"]))
    note = "Maps of each model's verdict are about opposite labels where one model is wrong."
    return Table(f"{name}: {MEASURE_NAMES[MEASURE]} by the label that both maps explain. {note}", header, rows)


def _target(results: Results) -> str:
    return f"maps of {TARGET_NAMES[next(iter(results['agreement']['by_target']))]}"


def _pairs_table(results: Results) -> Table:
    agreement = agreement_of(results)
    chance = agreement["chance"]
    rows = [["chance", *(f"{chance[name]:.3f}" if name in chance else "" for name in MEASURE_NAMES)]]
    rows += [
        [pair_name(pair), *(cell(pair["measures"][name]["same_picture"]) for name in MEASURE_NAMES)]
        for pair in agreement["pairs"]
    ]
    caption = "Every pair of maps by every measure. Distances of centres are shares of the image: lower is closer."
    return Table(caption, ("pair", *MEASURE_NAMES.values()), rows, folded=True)


def _group_tables(results: Results) -> list[Table]:
    tables = []
    for part, words in (("by_label", "label"), ("by_content", "content")):
        pairs = [pair for pair in key_pairs(agreement_of(results)["pairs"]) if pair[part]]
        names = list(dict.fromkeys(name for pair in pairs for name in pair[part]))
        rows = [[pair_name(pair), *(cell(pair[part][name][MEASURE]) for name in names)] for pair in pairs]
        tables.append(Table(f"{MEASURE_NAMES[MEASURE]} by {words}.", ("pair", *names), rows, folded=True))
    return [table for table in tables if table.rows]


def _maps_table(results: Results) -> Table:
    agreement = agreement_of(results)
    rows = [
        [
            map_name(*key.split()),
            made["layer"] or "",
            " x ".join(map(str, made["native_grid"])),
            plain_text(made["options"]),
            f"{made['empty']:,}",
            *(cell(agreement[reference].get(key, {}).get(MEASURE)) for reference in ("centre", "ceiling")),
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
            cells = (cell(moved["planted"], SIGNED), sign(moved["planted"]), cell(moved["control"], SIGNED))
            rows.append([model_name(model), name, *cells, n])
    caption = "Effect of planting on p(fake). A map cannot be blamed where the model itself did not react."
    header = ("model", "planting", "change of p(fake)", "sign", "change in the control", "n")
    return Table(caption, header, rows, align="llr")


def _hits_table(part: Results) -> Table:
    rows = [
        [
            map_name(model, method),
            name,
            "yes" if method in part["class_methods"] else "no",
            cell(row["planted"]["hits"], PERCENT),
            above(row["planted"]["hits"], part["chance"]),
            cell(row["control"]["hits"], PERCENT),
            *tested_cells(row["difference"]["hits"], POINTS),
            *(cell(row[kind]["mass"], PERCENT) for kind in ("planted", "control")),
            *tested_cells(row["difference"]["mass"], POINTS),
        ]
        for model, plantings in part["models"].items()
        for name, planting in plantings.items()
        for method, row in planting["methods"].items()
    ]
    header = (
        "map", "planting", "depends on the label", "hits", "above chance", "hits in the control", "difference",
        "p (Holm)", "mass in the quadrant", "in the control", "difference", "p (Holm)",
    )  # fmt: skip
    caption = (
        "Hits, and the share of the map's mass in the quadrant. The control plants one of another image "
        "of the host's label in the same place; differences are paired, in points."
    )
    return Table(caption, header, rows, align="llr")


def _auc_table(part: Results) -> Table:
    rows = [
        [
            map_name(model, method),
            name,
            *(cell(row[kind]["roc_auc"]) for kind in ("planted", "control")),
            *tested_cells(row["difference"]["roc_auc"], SIGNED),
        ]
        for model, plantings in part["models"].items()
        for name, planting in plantings.items()
        for method, row in planting["methods"].items()
        if "roc_auc" in row["planted"]
    ]
    header = ("map", "planting", "ROC AUC", "in the control", "difference", "p (Holm)")
    caption = "ROC AUC of the cells of the quadrant against the others, the mean over images; 0.5 is chance."
    return Table(caption, header, rows, align="llr")


def _difference_tables(part: Results) -> list[Table]:
    differences, alone, contents = [], [], []
    for model, tested in part["models"].items():
        for row in tested["hiding"]:
            names = [model_name(model), row["fill"], f"{row['area']:.0%}"]
            for other, gap in row["centre_less"].items():
                cells = (*tested_cells(gap["accuracy"], POINTS), *tested_cells(gap["roc_auc"], SIGNED))
                differences.append([*names, other, *cells, costs_more(gap["roc_auc"], other)])
            by_content = row["centre_less"]["rim"]["by_content"]
            centre, fill = row["hidden"]["rim"]["roc_auc"], tested["all_hidden"][row["fill"]]["roc_auc"]
            alone.append([*names, cell(centre), cell(fill), above(centre, fill["high"])])
            contents.append([*names, *(cell(mean, POINTS) for mean in by_content.values())])
    header = ("model", "fill", "area")
    return [
        Table(
            "Centre hidden minus rim or corner hidden, paired (accuracy in points); below 0, the centre matters more.",
            (*header, "compared with", "accuracy", "p (Holm)", "ROC AUC", "p (Holm)", "costs more"),
            differences,
            align="llllr",
        ),
        Table(
            "ROC AUC of the centre alone (the rim hidden), and of the fill alone (everything hidden).",
            (*header, "centre alone", "fill alone", "centre above fill"),
            alone,
            align="lllr",
        ),
        Table(
            "Accuracy with the centre hidden minus accuracy with the rim hidden, in points, by content.",
            (*header, *by_content),
            contents,
            align="lllr",
            folded=True,
        ),
    ]


def _occlusion_performance_table(part: Results) -> Table:
    cases = {}
    for model, tested in part["models"].items():
        hiding = [
            (f"{region}, {row['area']:.0%}, {row['fill']}", means)
            for row in tested["hiding"]
            for region, means in row["hidden"].items()
        ]
        everything = [(f"everything, {fill}", means) for fill, means in tested["all_hidden"].items()]
        cases[model] = [("nothing", tested["untouched"]), *hiding, *everything]
    return _performance_table(cases)


def _performance_table(cases: Mapping[str, Iterable[tuple[str, Results]]]) -> Table:
    """Return every measure by what is hidden, given by model: the name of the part, and the measures."""
    rows = [
        [model_name(model), hidden, *(cell(means[name]) for name in PERFORMANCE)]
        for model, named in cases.items()
        for hidden, means in named
    ]
    header = ("model", "hidden", *PERFORMANCE.values())
    return Table("Every measure with every part hidden.", header, rows, align="llr", folded=True)


def _entity_differences_table(part: Results) -> Table:
    rows = [
        [
            model_name(model),
            fill,
            name,
            *tested_cells(test["accuracy"], POINTS),
            *tested_cells(test["roc_auc"], SIGNED),
        ]
        for model, tested in part["models"].items()
        for fill, row in tested["fills"].items()
        for name, test in row["differences"].items()
    ]
    caption = (
        "Scores with one part hidden less those with another part hidden, paired: "
        f"n = {part['n']:,} images, whose entities cover {cell(part['area'], PERCENT)}."
    )
    header = ("model", "fill", "difference", "accuracy", "p (Holm)", "ROC AUC", "p (Holm)")
    return Table(caption, header, rows, align="lllr")


def _entity_performance_table(part: Results) -> Table:
    cases = {}
    for model, tested in part["models"].items():
        hiding = [
            (f"{region}, {fill}", means)
            for fill, row in tested["fills"].items()
            for region, means in row["hidden"].items()
        ]
        cases[model] = [("nothing", tested["untouched"]), *hiding]
    return _performance_table(cases)


def _shares_table(part: Results) -> Table:
    rows = [
        [map_name(*key.split()), f"{row['area']:.0%}", cell(row["centre"], PERCENT), cell(row["rim"], PERCENT)]
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
        listed(map(method_name, model["methods"])),
        plain_text(own),
        plain_text(twin),
        "" if alike is None else "yes" if alike else "no",
    ]
