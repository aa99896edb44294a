"""From the numbers of the explanation study to its tables."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from realfake_hf.explain_study.names import (
    MEASURE_NAMES,
    REFERENCES,
    Number,
    Study,
    counted,
    fill_name,
    hidden_rows,
    key_pairs,
    map_name,
    method_name,
    model_name,
    pair_name,
    plain,
    with_interval,
)
from realfake_hf.tables import Table


def agreement_tables(study: Study) -> list[Table]:
    """Give the key pairs with their controls, right against wrong, and, folded, every pair, group and map."""
    return [_controls(study), _right_or_wrong(study), _every_pair(study), *_groups(study), _maps(study)]


def _controls(study: Study, measure: str = "iou_top_20") -> Table:
    rows = []
    for pair in key_pairs(study):
        found = pair["measures"][measure]
        names = ("same_picture", "shuffled", "above_shuffled", "random_weights")
        cells = [with_interval(found.get(name), signed=name == "above_shuffled") for name in names]
        rows.append([pair_name(study, pair), *cells, counted(found["same_picture"])])
    head = ("pair", "same picture", "different pictures", "difference", "random weights", "n")
    return Table(f"{MEASURE_NAMES[measure]}, with 95 % intervals. The difference is paired.", head, rows)


def _right_or_wrong(study: Study, measure: str = "iou_top_20") -> Table:
    names = ("all_right", "some_wrong", "right_less_wrong")
    rows = []
    for pair in key_pairs(study):
        found = [pair.get(name, {}).get(measure) for name in names]
        counts = [counted(mean) if mean else "" for mean in found[:2]]
        cells = [with_interval(found[0]), with_interval(found[1]), with_interval(found[2], signed=True)]
        rows.append([pair_name(study, pair), *cells, " / ".join(counts)])
    head = ("pair", "both right", "one or both wrong", "difference", "n")
    return Table(f"{MEASURE_NAMES[measure]} where both models are right and where they are not.", head, rows)


def _every_pair(study: Study) -> Table:
    pairs = study["agreement"]["pairs"]
    rows = [
        [pair_name(study, pair), *(with_interval(pair["measures"][name]["same_picture"]) for name in MEASURE_NAMES)]
        for pair in pairs
    ]
    chance = study["agreement"]["chance"]
    rows.insert(0, ["chance", *(plain(chance[name]) if name in chance else "none" for name in MEASURE_NAMES)])
    caption = "Every pair of maps by every measure. Distances of centres are shares of the picture: lower is closer."
    return Table(caption, ("pair", *MEASURE_NAMES.values()), rows, folded=True)


def _groups(study: Study, measure: str = "iou_top_20") -> list[Table]:
    tables = []
    for part, words in (("by_label", "label"), ("by_content", "what is on the picture")):
        names = list(dict.fromkeys(name for pair in key_pairs(study) for name in pair.get(part, {})))
        rows = [
            [pair_name(study, pair), *(with_interval(pair.get(part, {}).get(name, {}).get(measure)) for name in names)]
            for pair in key_pairs(study)
        ]
        if names:
            tables.append(Table(f"{MEASURE_NAMES[measure]} by {words}.", ("pair", *names), rows, folded=True))
    return tables


def _maps(study: Study, measure: str = "iou_top_20") -> Table:
    found = study["agreement"]
    rows = [
        [
            map_name(study, key),
            one["layer"] or "none",
            " x ".join(map(str, one["native_grid"])),
            _settings(one["options"]),
            f"{one['empty']:,}",
            with_interval(found["centre"].get(key, {}).get(measure)),
            with_interval(found["ceiling"].get(key, {}).get(measure)) or "no twin",
        ]
        for key, one in found["maps"].items()
    ]
    head = ("map", "layer", "own grid", "options", "empty maps", "with a spot in the centre", "with its twin")
    return Table(f"The maps, and their {MEASURE_NAMES[measure]} with two references.", head, rows, folded=True)


def faithfulness_tables(study: Study) -> list[Table]:
    """Give the areas under the curves, a table a fill."""
    names = ("deletion", "deletion_less_random", "insertion", "insertion_less_random")
    tables = []
    for fill in study["faithfulness"]["fills"]:
        rows = [
            [_row_name(model, method), *(with_interval(row.get(name), signed="less" in name) for name in names)]
            for model, fills in study["faithfulness"]["models"].items()
            for method, row in fills[fill].items()
        ]
        head = ("order", "deletion", "less random order", "insertion", "less random order")
        tables.append(
            Table(
                f"Areas under the curves, hidden by {fill_name(fill)}; differences are paired.",
                head,
                rows,
                folded=True,
            )
        )
    return tables


def sanity_tables(study: Study) -> list[Table]:
    """Give the correlation after each stage, a table a model."""
    return [
        Table(
            f"{model_name(model)}: Spearman correlation with the trained model's map after each stage.",
            ("method", *found["stages"]),
            [[method_name(name), *map(with_interval, stages)] for name, stages in found["methods"].items()],
            folded=True,
        )
        for model, found in study["sanity"]["models"].items()
    ]


def planted_tables(study: Study) -> list[Table]:
    """Give hits and mass for each model, planting and method."""
    aware = study["planted"].get("class_methods", [])
    rows, moved = [], []
    for model, plantings in study["planted"]["models"].items():
        for planting, found in plantings.items():
            moved.append(
                [
                    f"{model_name(model)}, {planting}",
                    with_interval(found["p_fake_moved"], signed=True),
                    f"{found['n']:,}",
                ]
            )
            rows += [
                [
                    f"{_row_name(model, method)}, {planting}",
                    "yes" if method in aware else "no",
                    with_interval(row["hits"], percent=True),
                    with_interval(row["mass"], percent=True),
                    with_interval(row["mass_before"], percent=True),
                    _points(row["mass_gain"]),
                ]
                for method, row in found["methods"].items()
            ]
    head = ("map, planting", "knows the class", "hits", "mass in the quadrant", "without planting", "gain, points")
    caption = "How far planting moved p(fake): where the model did not notice, no map can be blamed."
    return [
        Table(caption, ("model, planting", "p(fake) moved", "n"), moved),
        Table("Hits, and the share of the map's mass in the planted quadrant.", head, rows, folded=True),
    ]


def causal_tables(study: Study) -> list[Table]:
    """Give accuracy and AUC with centre and rim hidden, differences by content, and the maps' own shares."""
    causal = study["causal"]
    head = ("model, fill, area, hidden", "accuracy", "ROC AUC", "accuracy on real", "accuracy on fake")
    names = ("accuracy", "roc_auc", "accuracy_real", "accuracy_fake")
    rows = []
    for model, found in causal["models"].items():
        rows.append([f"{model_name(model)}, nothing hidden", *_hidden_cells(found["untouched"], names)])
        rows += [
            [
                f"{model_name(model)}, {fill_name(row['fill'])}, {_area(row['area'])}, {row['region']}",
                *_hidden_cells(row, names),
            ]
            for row in hidden_rows(found)
        ]
        rows += [
            [f"{model_name(model)}, {fill_name(fill)}, everything", *_hidden_cells(row, names)]
            for fill, row in found["all_hidden"].items()
        ]
    tables = [_differences(causal), Table("Every measure with every part hidden.", head, rows, folded=True)]
    return tables + ([_shares(study)] if causal.get("map_shares") else [])


def _hidden_cells(row: Mapping[str, Any], names: Iterable[str]) -> list[str]:
    return [with_interval(row.get(name), percent=name != "roc_auc") for name in names]


def _differences(causal: Study) -> Table:
    lines = [(model, row) for model, found in causal["models"].items() for row in found["hiding"]]
    contents = list(dict.fromkeys(name for _, row in lines for name in row.get("by_content", {})))
    rows = [
        [
            f"{model_name(model)}, {fill_name(row['fill'])}, {_area(row['area'])}",
            _points(row["accuracy_difference"]),
            *(_points(row.get("by_content", {}).get(name)) for name in contents),
        ]
        for model, row in lines
    ]
    caption = (
        "Accuracy with the centre hidden less that with the rim hidden, in points: below 0, the centre matters more."
    )
    return Table(caption, ("model, fill, area", "all pictures", *contents), rows)


def _shares(study: Study) -> Table:
    rows = [
        [
            f"{map_name(study, key)}, {_area(row['area'])}",
            *(with_interval(row[part], percent=True) for part in ("centre", "rim")),
        ]
        for key, areas in study["causal"]["map_shares"].items()
        for row in areas
    ]
    caption = "Share of each map's mass in centre and rim; an even map has the area's own share in both."
    return Table(caption, ("map, area", "in the centre", "in the rim"), rows, folded=True)


def passport_tables(study: Study) -> list[Table]:
    """Give the data, the models, the settings and the machine."""
    sample = study["data"]["sample"]
    data = {name: _settings(value) for name, value in {**study["data"], **sample}.items() if name != "sample"}
    models = [
        [
            model_name(name),
            str(one["place"]),
            plain(one["accuracy"], percent=True),
            ", ".join(map(method_name, one["methods"])),
            _trained(one),
            f"{one['twin']['place']}, {_trained(one['twin'])}" if one["twin"] else "none",
        ]
        for name, one in study["models"].items()
    ]
    machine = {name: study.get(name) for name in ("commit", "python", "seconds", "versions", "machine")}
    return [
        Table(
            "Models.", ("model", "place", "accuracy on this split", "methods", "training", "twin"), models, wrap=True
        ),
        Table("Pictures.", ("what", "value"), list(data.items()), wrap=True),
        Table(
            "Settings.",
            ("what", "value"),
            [(name, _settings(value)) for name, value in study["settings"].items()],
            wrap=True,
        ),
        Table(
            "Code and machine.",
            ("what", "value"),
            [(name, _settings(value)) for name, value in machine.items()],
            wrap=True,
        ),
    ]


def _trained(one: Mapping[str, Any]) -> str:
    training = one["training"]
    if training is None:
        return "training unknown"
    accuracy = plain(training["accuracy"], percent=True)
    seed, n, epochs = training["seed"], training["n"], training["epochs"]
    return f"seed {seed}, {n:,} pictures, {epochs:g} times each; {accuracy} on its test"


def _row_name(model: str, method: str) -> str:
    return f"{model_name(model)} {method if method in REFERENCES else method_name(method)}"


def _points(mean: Number | None) -> str:
    """A difference of percentages."""
    return with_interval(mean, percent=True, signed=True).replace(" %", "")


def _area(area: float) -> str:
    return f"{100 * area:g} %"


def _settings(value: Any) -> str:  # noqa: ANN401 - any JSON
    if isinstance(value, Mapping):
        return ", ".join(f"{name}: {_settings(inner)}" for name, inner in value.items()) or "none"
    if isinstance(value, str):
        return value
    if isinstance(value, float):
        return f"{value:,.6g}"
    return json.dumps(value)
