"""From the numbers of the explanation study to its figures."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import product

import numpy as np
from matplotlib.figure import Figure

from realfake_hf.estimate import Estimate
from realfake_hf.explain_study.evidence_figures import HiddenPanel, PlantedPanel, centre_and_rim, planted_bars
from realfake_hf.explain_study.faithfulness_figures import (
    CascadePanel,
    CurvePanel,
    GapRow,
    cascade,
    faithfulness_curves,
    gap_bars,
)
from realfake_hf.explain_study.figures import ControlRow, agreement_against_controls, agreement_matrix
from realfake_hf.explain_study.names import (
    MEASURE_NAMES,
    REFERENCES,
    Number,
    Study,
    fill_name,
    hidden_rows,
    is_across,
    key_pairs,
    method_name,
    method_of,
    method_order,
    model_name,
    model_of,
    pair_name,
)


def controls_figure(study: Study, measure: str = "iou_top_20") -> Figure:
    """Draw the pairs that the claim is about beside their controls: the study's main figure."""
    found = study["agreement"]
    rows = [_control_row(study, pair, measure) for pair in key_pairs(study)]
    return agreement_against_controls(
        rows, measure=MEASURE_NAMES[measure], n=study["data"]["sample"]["n"], chance=found["chance"].get(measure)
    )


def _control_row(study: Study, pair: Number, measure: str) -> ControlRow:
    found, agreement = pair["measures"][measure], study["agreement"]
    beside = {
        name: tuple(_estimate(agreement[name].get(pair[end], {}).get(measure)) for end in "ab")
        for name in ("centre", "ceiling")
    }
    return ControlRow(
        name=pair_name(study, pair, "\n"),
        group="maps of two models" if is_across(study, pair) else "two methods on one model",
        agreement=_estimate(found["same_picture"]),
        shuffled=_estimate(found.get("shuffled")),
        random_weights=_estimate(found.get("random_weights")),
        centre=beside["centre"],
        ceiling=beside["ceiling"],
    )


def matrix_figure(study: Study, measure: str) -> Figure:
    """Draw the agreement of every pair of maps."""
    keys = list(study["agreement"]["maps"])
    names = [(model_name(model_of(study, key)), method_name(method_of(study, key))) for key in keys]
    values = np.full((len(keys), len(keys)), np.nan)
    for pair in study["agreement"]["pairs"]:
        places = [keys.index(pair[end]) for end in "ab"]
        value = pair["measures"][measure]["same_picture"]["value"]
        for row, column in (places, places[::-1]):
            values[row, column] = np.nan if value is None else value
    chance = study["agreement"]["chance"].get(measure)
    return agreement_matrix(names, values, measure=MEASURE_NAMES[measure], chance=chance)


def curves_figure(study: Study, fill: str) -> Figure:
    """Draw the curves of deletion and insertion with one fill."""
    models = study["faithfulness"]["models"]
    panels = [
        CurvePanel(model_name(model), *(_curves(fills[fill], f"{test}_curve") for test in ("deletion", "insertion")))
        for model, fills in models.items()
    ]
    return faithfulness_curves(panels, methods=method_order(study), references=REFERENCES)


def _curves(rows: Mapping[str, Number], name: str) -> dict[str, Sequence[float]]:
    return {method if method in REFERENCES else method_name(method): row[name] for method, row in rows.items()}


def gaps_figure(study: Study, fill: str) -> Figure:
    """Draw how far each method's areas lie from those of a random order with one fill."""
    return gap_bars(
        [
            GapRow(
                model_name(model),
                method if method in REFERENCES else method_name(method),
                deletion=_estimate(row["deletion_less_random"]),
                insertion=_estimate(row["insertion_less_random"]),
            )
            for model, fills in study["faithfulness"]["models"].items()
            for method, row in fills[fill].items()
            if "deletion_less_random" in row
        ]
    )


def cascade_figure(study: Study) -> Figure:
    """Draw what is left of the maps as weights are randomised."""
    panels = [
        CascadePanel(
            model_name(model),
            rows["stages"],
            {method_name(method): _estimates(stages) for method, stages in rows["methods"].items()},
        )
        for model, rows in study["sanity"]["models"].items()
    ]
    return cascade(panels, methods=method_order(study))


def planted_figure(study: Study) -> Figure:
    """Draw how often maps point at what was planted."""
    panels = [
        PlantedPanel(
            model_name(model),
            {
                planting: {method_name(name): _estimate(row["hits"]) for name, row in found["methods"].items()}
                for planting, found in plantings.items()
            },
            {planting: found["n"] for planting, found in plantings.items()},
        )
        for model, plantings in study["planted"]["models"].items()
    ]
    return planted_bars(panels, methods=method_order(study), chance=study["planted"]["chance"])


def hidden_figure(study: Study, measure: str) -> Figure:
    """Draw what is left of a measure, `accuracy` or `roc_auc`, with centre or rim hidden."""
    causal = study["causal"]
    panels = [
        _hidden_panel(causal["models"][model], model, fill, causal["areas"], measure)
        for fill, model in product(causal["fills"], causal["models"])
    ]
    return centre_and_rim(panels, measure={"roc_auc": "ROC AUC"}.get(measure, measure))


def _hidden_panel(found: Study, model: str, fill: str, areas: Sequence[float], measure: str) -> HiddenPanel:
    rows = {(row["region"], row["area"]): row[measure] for row in hidden_rows(found) if row["fill"] == fill}
    centre, rim = (_estimates(rows.get((region, area)) for area in areas) for region in ("centre", "rim"))
    return HiddenPanel(
        model_name(model), fill_name(fill), areas, centre, rim, whole=_estimate(found["untouched"].get(measure))
    )


def _estimate(mean: Number | None) -> Estimate | None:
    """Take a mean over into a figure; None where it has no value or is not there."""
    if mean is None or mean["value"] is None:
        return None
    return Estimate(mean["value"], mean["low"], mean["high"])


def _estimates(means: Iterable[Number | None]) -> list[Estimate | None]:
    return [_estimate(mean) for mean in means]
