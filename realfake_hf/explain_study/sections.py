"""The parts of the explanation study's page: what each figure shows, and how it is to be read."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

from realfake_hf.explain_study import page_figures as figures
from realfake_hf.explain_study import tables
from realfake_hf.explain_study.claim import claim_sentences
from realfake_hf.explain_study.names import (
    MEASURE_NAMES,
    Study,
    fill_name,
    hidden_rows,
    key_pairs,
    listed,
    method_name,
    model_name,
    pair_name,
    plain,
    twin_notes,
)
from realfake_hf.pages.page import PageFigure, Section

CONTROLS_READING: Final = (
    "Each block is a pair of maps; further right is more alike. A pair means something only beside its controls. "
    "Chance is what two maps that know nothing of each other share. Pairs on different pictures share what the maps "
    "do everywhere, such as leaning to the middle; only what goes beyond them is about the picture. Random weights "
    "show what the architectures share without having learnt anything. The spot in the centre is a map that never "
    "looked at a picture. The ceiling is a map beside that of its twin, the same model from another training seed: "
    "no pair of different models can be expected to agree more than a model agrees with itself."
)
MATRIX_READING: Final = (
    "Every number is the mean over pictures for one pair of maps, the row's and the column's; brighter is more "
    "alike. Dark lines set models apart: within them, only the method differs; across them, the model does as well."
)
RANKS_READING: Final = (
    "As above, for the whole ranking of the cells: 1 is the same ranking, 0 is chance, and below 0 what one map ranks "
    "high the other ranks low."
)
ALIKE: Final = (
    "As the same figure above. Where the two differ, what was said there may be about the fill, or the measure."
)
CURVES_READING: Final = (
    "A map is not proof of what a model goes by; this is a test of it. Above, cells are hidden, those that the map "
    "ranks first before the others: a faithful map makes the curve fall early. Below, the picture starts hidden and "
    "cells are shown in the same order: a faithful map makes it rise early. A random order and a spot in the centre "
    "(the centre prior) know nothing of the model: a map that does no better says nothing that they do not."
)
GAPS_READING: Final = (
    "Bars are differences between the area under a method's curve and that of a random order on the same pictures; "
    "dark lines are 95 % intervals. Grey means that the interval holds 0: no difference can be told."
)
CASCADE_READING: Final = (
    "The weights become random, from the classifier downward (Adebayo et al., 2018). A map that shows what was "
    "learnt must change; one that stays near 1 shows the picture or the architecture instead. Rollout and last "
    "attention do not read the classifier, so that they cannot change at the first stage: that is how they are "
    "built, and why they cannot tell which label they speak for."
)
PLANTED_READING: Final = (
    "A quadrant of a picture of the other class is pasted in, so that the place of the evidence is known. A hit is "
    "a map whose highest cell lies in that quadrant; one in four is chance. Pasting a quadrant of a real picture "
    "into a real one is the control: nothing fake draws hits there, only the seam and what does not belong."
)
HIDDEN_READING: Final = (
    "This asks the model itself instead of a map. Centre and rim have equal areas. If the evidence lay in the "
    "background, hiding the rim would cost more than hiding the centre. Hiding can also push all verdicts to one "
    "label, which accuracy punishes and AUC does not: read both."
)


def sections(study: Study) -> list[Section]:
    """Give the parts that the study has, in the order of the page."""
    return [_agreement(study), *(part(study) for name, part in _PARTS.items() if name in study)]


def _agreement(study: Study) -> Section:
    n = study["data"]["sample"]["n"]
    shown = [
        PageFigure(
            partial(figures.controls_figure, study),
            _controls_alt(study),
            f"The pairs that matter beside their controls: {MEASURE_NAMES['iou_top_20']}, n = {n:,} pictures.",
            " ".join([CONTROLS_READING, *twin_notes(study)]),
        )
    ]
    shown += [
        PageFigure(
            partial(figures.matrix_figure, study, measure),
            _matrix_alt(study, measure),
            f"Every pair of maps: {MEASURE_NAMES[measure]}, means over n = {n:,} pictures; intervals in the table.",
            reading,
        )
        for measure, reading in (("iou_top_20", MATRIX_READING), ("spearman", RANKS_READING))
    ]
    lead = (
        f"All maps are brought to one grid of {study['grid'][0]} x {study['grid'][1]} cells. IoU of the top 20 % is "
        "the share of cells in both maps' highest fifths among the cells in either; Spearman compares the whole "
        "ranking. A picture on which a map is empty has no agreement, and is counted."
    )
    return Section("agreement", "Do the maps agree?", [lead], shown, tables.agreement_tables(study))


def _controls_alt(study: Study) -> str:
    parts = []
    for pair in key_pairs(study):
        found = pair["measures"]["iou_top_20"]
        values = [plain(found[name]["value"]) for name in ("same_picture", "shuffled") if name in found]
        parts.append(f"{pair_name(study, pair)} {' against '.join(values)} on different pictures")
    return f"Dots with intervals for each pair of maps beside its controls. {'; '.join(parts)}."


def _matrix_alt(study: Study, measure: str) -> str:
    values = {
        pair_name(study, pair): pair["measures"][measure]["same_picture"]["value"]
        for pair in study["agreement"]["pairs"]
    }
    values = {name: value for name, value in values.items() if value is not None}
    words = [f"{which} {name}, {plain(values[name])}" for which, name in _extremes(values)]
    return f"A matrix of {MEASURE_NAMES[measure]} for every pair of maps; {listed(words)}."


def _extremes(values: Mapping[str, float]) -> list[tuple[str, str]]:
    return [("highest for", max(values, key=values.__getitem__)), ("lowest for", min(values, key=values.__getitem__))]


def _faithfulness(study: Study) -> Section:
    found, shown = study["faithfulness"], []
    for fill in found["fills"]:
        by = f"hidden by {fill_name(fill)}"
        caption = f"n = {found['n']:,} pictures, {found['steps']} steps, {by}"
        shown += [
            PageFigure(
                partial(figures.curves_figure, study, fill),
                f"Curves of deletion and insertion for each model, {by}. {_curves_alt(study, fill)}",
                f"Deletion and insertion: {caption}. Areas with intervals are in the table.",
                CURVES_READING if fill == found["fills"][0] else ALIKE,
            ),
            PageFigure(
                partial(figures.gaps_figure, study, fill),
                f"Bars of the differences to a random order, {by}; the table below has their numbers.",
                f"Areas less those of a random order, with 95 % intervals: {caption}.",
                GAPS_READING if fill == found["fills"][0] else ALIKE,
            ),
        ]
    fills = listed([fill_name(fill) for fill in found["fills"]])
    lead = (
        "The score is the probability of the label that the model gave to the whole picture. Hidden cells are filled "
        f"by {fills}: a finding that holds for one fill alone may be about the fill."
    )
    return Section("faithfulness", "Are the maps faithful?", [lead], shown, tables.faithfulness_tables(study))


def _curves_alt(study: Study, fill: str) -> str:
    parts = []
    for model, fills in study["faithfulness"]["models"].items():
        areas = {name: row["deletion"]["value"] for name, row in fills[fill].items()}
        areas = {name: value for name, value in areas.items() if value is not None}
        if areas:
            least = min(areas, key=areas.__getitem__)
            parts.append(
                f"{model_name(model)}: the lowest deletion area has {method_name(least)}, {plain(areas[least])}"
            )
    return f"{'; '.join(parts)}."


def _sanity(study: Study) -> Section:
    found = study["sanity"]
    ends = [
        f"{model_name(model)} {method_name(name)} {plain(stages[-1]['value'])}"
        for model, rows in found["models"].items()
        for name, stages in rows["methods"].items()
    ]
    shown = PageFigure(
        partial(figures.cascade_figure, study),
        f"Correlation with the trained model's map after each stage; at the end {', '.join(ends)}.",
        f"Maps as weights are randomised: n = {found['n']:,} pictures, bars are 95 % intervals.",
        CASCADE_READING,
    )
    lead = "A sanity check: a map that looks the same for an untrained model cannot show what training found."
    return Section("sanity", "Do the maps depend on what was learnt?", [lead], [shown], tables.sanity_tables(study))


def _planted(study: Study) -> Section:
    hits = [
        f"{model_name(model)}, {planting}: {method_name(name)} {plain(row['hits']['value'], percent=True)}"
        for model, plantings in study["planted"]["models"].items()
        for planting, found in plantings.items()
        for name, row in found["methods"].items()
    ]
    shown = PageFigure(
        partial(figures.planted_figure, study),
        f"Bars of pointing-game hits against chance. {'; '.join(hits)}.",
        "Hits, with 95 % intervals; n below each group.",
        PLANTED_READING,
    )
    aware = [method_name(name) for name in study["planted"].get("class_methods", [])]
    lead = "Evidence is planted where we know it. "
    lead += (
        f"Only {listed(aware)} know which label they explain; the other methods give one map for both."
        if aware
        else ""
    )
    return Section("planted", "Do the maps find planted evidence?", [lead], [shown], tables.planted_tables(study))


def _causal(study: Study) -> Section:
    found = study["causal"]
    shown = [
        PageFigure(
            partial(figures.hidden_figure, study, measure),
            f"{words} over the hidden area, with the centre and with the rim hidden. {_hidden_alt(study, measure)}",
            f"{words} with centre or rim hidden: n = {found['n']:,} pictures, bars are 95 % intervals.",
            reading,
        )
        for measure, words, reading in (("accuracy", "Accuracy", HIDDEN_READING), ("roc_auc", "ROC AUC", ALIKE))
    ]
    lead = " ".join(
        [
            "The claim: the entity does not hold the useful information; imperfections in the background do.",
            *claim_sentences(found),
        ]
    )
    return Section("causal", "Is the evidence in the background?", [lead], shown, tables.causal_tables(study))


def _hidden_alt(study: Study, measure: str) -> str:
    parts = [
        f"{model_name(model)}, {row['region']}, {100 * row['area']:g} %, {row['fill']}: {plain(row[measure]['value'])}"
        for model, found in study["causal"]["models"].items()
        for row in hidden_rows(found)
    ]
    return f"{'; '.join(parts)}."


_PARTS: Final[Mapping[str, Callable[[Study], Section]]] = {
    "faithfulness": _faithfulness,
    "sanity": _sanity,
    "planted": _planted,
    "causal": _causal,
}
