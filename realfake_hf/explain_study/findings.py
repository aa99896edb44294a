"""One sentence for each part of a study, from the content of its results file."""

from collections.abc import Callable, Mapping
from typing import Final

from realfake_hf.explain_study.cells import (
    NO_BETTER,
    SIGNED,
    above,
    against_centre,
    better_than_random,
    cell,
    costs_more,
    listed,
    sign,
)
from realfake_hf.explain_study.grid_game_section import find_grids
from realfake_hf.explain_study.names import (
    MEASURE,
    MEASURE_NAMES,
    Results,
    agreement_of,
    main_pair,
    map_name,
    model_name,
    pair_name,
)
from realfake_hf.explain_study.patching_section import find_patching
from realfake_hf.explain_study.sinks_section import find_sinks


def findings(results: Results) -> list[str]:
    """Return one sentence for each part of a study."""
    return [find(results) for part, find in _FINDINGS.items() if part in results]


def _find_agreement(results: Results) -> str:
    pair = main_pair(agreement_of(results)["pairs"])
    means, gap = pair["measures"][MEASURE], pair["right_less_wrong"][MEASURE]
    return (
        f"{pair_name(pair)}: {MEASURE_NAMES[MEASURE]} is {cell(means['same_picture'])} on the same image, "
        f"{cell(means['shuffled'])} on other images of its label and content; the difference, "
        f"{cell(means['above_shuffled'], SIGNED)}, is {sign(means['above_shuffled'])}. The same-image value where "
        f"both models are right less that elsewhere, {cell(gap, SIGNED)}, is {sign(gap)}."
    )


def _find_faithfulness(results: Results) -> str:
    part = results["faithfulness"]
    rows = [
        (map_name(model, name), [orders[name] for orders in fills.values()])
        for model, fills in part["models"].items()
        for name in next(iter(fills.values()))
    ]
    better = [name for name, orders in rows if all(better_than_random(order) == "both" for order in orders)]
    finding = f"Better than random order in deletion and insertion with every fill: {listed(better)}."
    if "rankings" not in part:  # measured by an earlier version
        return finding
    beaten = [name for name, orders in rows if all(against_centre(order) == NO_BETTER for order in orders)]
    taus = [f"{model_name(model)} {cell(each['mean_tau'], SIGNED)}" for model, each in part["rankings"].items()]
    return (
        f"{finding} No better than the centre prior in either with any fill: {listed(beaten)}. Mean Kendall's tau "
        f"between the rankings of the methods by two tests: {listed(taus)}."
    )


def _find_sanity(results: Results) -> str:
    stable = [
        map_name(model, method)
        for model, cascade in results["sanity"]["models"].items()
        for method, means in cascade["methods"].items()
        if above(means[-1], 0.5) == "yes"
    ]
    return f"Still correlated above 0.5 with the original maps when all weights are random: {listed(stable)}."


def _find_planted(results: Results) -> str:
    credited = [
        map_name(model, method)
        for model, plantings in results["planted"]["models"].items()
        for method, row in plantings["fake in real"]["methods"].items()
        if sign(row["difference"]["hits"]) == "positive"
    ]
    return f"Locate a fake quadrant in a real image more often than a real one: {listed(credited)}."


def _find_occlusion(results: Results) -> str:
    rows = [row for tested in results["causal"]["models"].values() for row in tested["hiding"]]
    sentences = []
    for other in ("rim", "corner"):
        costs = [costs_more(row["centre_less"][other]["roc_auc"], other) for row in rows]
        sentences.append(
            f"Of {len(rows)} comparisons at equal area, hiding the centre costs more ROC AUC than hiding the {other} "
            f"in {costs.count('centre')}, less in {costs.count(other)}."
        )
    return " ".join(sentences)


def _find_entity(results: Results) -> str:
    rows = [row for tested in results["entity"]["models"].values() for row in tested["fills"].values()]
    costs, alone = (
        [sign(row["differences"][name]["roc_auc"]) for row in rows]
        for name in ("entity less background", "entity alone less fill")
    )
    return (
        f"Of {len(rows)} comparisons, hiding the entity costs more ROC AUC than hiding as much background in "
        f"{costs.count('negative')}, less in {costs.count('positive')}; the entity alone tells more than the fill in "
        f"{alone.count('positive')}."
    )


_FINDINGS: Final[Mapping[str, Callable[[Results], str]]] = {
    "agreement": _find_agreement,
    "faithfulness": _find_faithfulness,
    "sanity": _find_sanity,
    "planted": _find_planted,
    "grids": find_grids,
    "causal": _find_occlusion,
    "entity": _find_entity,
    "patching": find_patching,
    "sinks": find_sinks,
}
