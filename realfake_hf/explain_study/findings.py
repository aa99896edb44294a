"""What the explanation study says, in sentences made from its numbers, true whichever way they fall.

"More" and "less" are said where the whole 95 % interval of a paired difference lies on that side of 0, or that of a
mean on that side of chance; otherwise that the two cannot be told apart.
"""

from typing import Final

from realfake_hf.explain_study.claim import claim_sentences
from realfake_hf.explain_study.names import (
    REFERENCES,
    Number,
    Study,
    fill_name,
    is_across,
    key_pairs,
    listed,
    map_name,
    method_name,
    method_of,
    model_name,
    pair_name,
    plain,
    side,
    with_interval,
)

MEASURE: Final = "iou_top_20"
HALF: Final = 0.5


def findings(study: Study) -> list[str]:
    """Say in sentences what a study found, the parts that it has.

    Args:
        study: what `results/explanation_study.json` holds.
    """
    pair = main_pair(study)
    said = [_agreement(study, pair), *_above_shuffled(pair), *_centre(study, pair), *_yardstick(study, pair)]
    said += _right_or_wrong(pair)
    said += _faithfulness(study) if "faithfulness" in study else []
    said += _sanity(study) if "sanity" in study else []
    said += _planted(study) if "planted" in study else []
    return said + (claim_sentences(study["causal"]) if "causal" in study else [])


def headline(study: Study) -> str:
    """Say in a few points what comes first: agreement, faithfulness, and what hiding the evidence says."""
    pair = main_pair(study)
    points = [" ".join([_agreement(study, pair), *_above_shuffled(pair), *_centre(study, pair)])]
    points += _right_or_wrong(pair)
    points += [" ".join(_faithfulness(study))] if "faithfulness" in study else []
    points += claim_sentences(study["causal"]) if "causal" in study else []
    return "\n".join(f"- {point}" for point in points)


def main_pair(study: Study) -> Number:
    """Choose the pair that the claim is about first: two models' maps, the second one's relevance if there is one."""
    pairs = key_pairs(study)
    across = [pair for pair in pairs if is_across(study, pair)]
    wanted = [pair for pair in across if "relevance" in (method_of(study, pair["a"]), method_of(study, pair["b"]))]
    return (wanted or across or pairs)[0]


def _agreement(study: Study, pair: Number) -> str:
    sample, found = study["data"]["sample"], pair["measures"][MEASURE]
    ceilings = [study["agreement"]["ceiling"].get(pair[end], {}).get(MEASURE) for end in "ab"]
    twins = [
        f"{map_name(study, pair[end])} {plain(ceiling['value'])}"
        for end, ceiling in zip("ab", ceilings, strict=True)
        if ceiling and ceiling["value"] is not None
    ]
    ceiling = f"; a map and that of the same model from another training seed: {listed(twins)}" if twins else ""
    others = [
        f"{words} {plain(found[name]['value'])}"
        for name, words in (("shuffled", "different pictures"), ("random_weights", "random weights"))
        if name in found
    ]
    of = f"{sample['n']:,} {study['data']['split']} pictures, weighted to stand for all {sample['of']:,}"
    chance = f"chance {plain(study['agreement']['chance'][MEASURE])}"
    return (
        f"On {of}, the highest fifths of the {pair_name(study, pair)} maps overlap by "
        f"{with_interval(found['same_picture'])} (intersection over union; {'; '.join([chance, *others])}{ceiling})."
    )


def _above_shuffled(pair: Number) -> list[str]:
    gap = pair["measures"][MEASURE]["above_shuffled"]
    if gap["value"] is None:
        return []
    words = {
        1: "That is more than maps of different pictures share",
        -1: "That is less than maps of different pictures share",
        0: "That cannot be told from what maps of different pictures share",
    }[side(gap)]
    return [f"{words}: the difference is {with_interval(gap, signed=True)}."]


def _centre(study: Study, pair: Number) -> list[str]:
    own = pair["measures"][MEASURE]["same_picture"]["value"]
    spots = {end: study["agreement"]["centre"].get(pair[end], {}).get(MEASURE) for end in "ab"}
    values = {
        end: spot["value"] for end, spot in spots.items() if spot and spot["value"] is not None and own is not None
    }
    closer = [
        f"the {map_name(study, pair[end])} map ({plain(value)})" for end, value in values.items() if value >= own
    ]
    if not values:
        return []
    if closer:
        return [f"A plain spot in the centre of every picture overlaps at least as much with {listed(closer)}."]
    most = max(values.values())
    return [f"A plain spot in the centre of every picture overlaps less with either map, by {plain(most)} at most."]


def _yardstick(study: Study, pair: Number) -> list[str]:
    """Hold two models against two methods on one of them."""
    own = pair["measures"][MEASURE]["same_picture"]
    said = []
    for other in key_pairs(study):
        found = other["measures"][MEASURE]["same_picture"]
        if is_across(study, other) or not is_across(study, pair) or None in (found["value"], own["value"]):
            continue
        if found["low"] is None or own["low"] is None:
            continue
        apart = found["low"] > own["high"] or found["high"] < own["low"]
        more = "more" if found["value"] > own["value"] else "less"
        words = f"{more} than the two models' maps" if apart else "with an interval that meets that of the two models"
        said.append(f"{pair_name(study, other)} by {with_interval(found)}, {words}")
    return [f"Two methods on one model overlap, for comparison: {'; '.join(said)}."] if said else []


def _right_or_wrong(pair: Number) -> list[str]:
    gap = pair.get("right_less_wrong", {}).get(MEASURE)
    if gap is None or gap["value"] is None:
        return []
    words = {
        1: "The maps agree more on pictures that both models judge rightly than on others",
        -1: "The maps agree less on pictures that both models judge rightly than on others",
        0: "Whether both models are right makes no difference to the agreement that can be told from 0",
    }[side(gap)]
    return [f"{words}: {with_interval(gap, signed=True)}."]


def _faithfulness(study: Study) -> list[str]:
    found = study["faithfulness"]
    return [
        _faithful_one(model_name(model), fill, methods)
        for model, fills in found["models"].items()
        for fill, methods in list(fills.items())[:1]
    ]


def _faithful_one(model: str, fill: str, methods: Study) -> str:
    """Sort a model's methods by in how many of the two tests they beat a random order."""
    wins: dict[int, list[str]] = {2: [], 1: [], 0: []}
    for method, row in methods.items():
        if "deletion_less_random" in row:
            beaten = (side(row["deletion_less_random"]) < 0) + (side(row["insertion_less_random"]) > 0)
            wins[beaten].append(f"the {method}" if method in REFERENCES else method_name(method))
    counts = {2: "in both deletion and insertion", 1: "in one of the two", 0: "in neither of the two"}
    parts = [f"{counts[count]}: {listed(names)}" for count, names in wins.items() if names]
    return f"{model}, cells hidden by {fill_name(fill)}: better than a random order {'; '.join(parts)}."


def _sanity(study: Study) -> list[str]:
    said = []
    for model, rows in study["sanity"]["models"].items():
        last = {method_name(name): stages[-1]["value"] for name, stages in rows["methods"].items() if stages}
        kept = [f"{name} ({plain(value)})" for name, value in last.items() if value is not None and value > HALF]
        lost = [f"{name} ({plain(value)})" for name, value in last.items() if value is not None and value <= HALF]
        parts = [f"still correlate above one half with the trained ones for {listed(kept)}"] if kept else []
        parts += [f"no longer correlate above one half for {listed(lost)}"] if lost else []
        if parts:
            said.append(f"With all weights of the {model_name(model)} random, its maps {' and '.join(parts)}.")
    return said


def _planted(study: Study) -> list[str]:
    said = []
    for model, plantings in study["planted"]["models"].items():
        for planting, control in (("fake in real", "real in real"), ("real in fake", None)):
            if planting in plantings:
                said += _planted_one(study, model, planting, control if control in plantings else None)
    return said


def _planted_one(study: Study, model: str, planting: str, control: str | None) -> list[str]:
    plantings, chance = study["planted"]["models"][model], study["planted"]["chance"]
    hits = {name: row["hits"] for name, row in plantings[planting]["methods"].items()}
    hits = {name: mean for name, mean in hits.items() if mean["value"] is not None}
    if not hits:
        return []
    found = [name for name, mean in hits.items() if side(mean, of=chance) > 0]
    best = max(hits, key=lambda name: hits[name]["value"])
    words = (
        f"maps point into the planted quadrant more often than chance ({plain(chance, percent=True)}) by "
        f"{listed([method_name(name) for name in found])}"
        if found
        else f"no method points into the planted quadrant more often than chance ({plain(chance, percent=True)})"
    )
    beside = plantings[control]["methods"].get(best, {}).get("hits") if control else None
    seam = f", beside {with_interval(beside, percent=True)} for a quadrant of another real picture" if beside else ""
    most = f"the most hits has {method_name(best)}, {with_interval(hits[best], percent=True)}{seam}"
    return [f"{model_name(model)}, {planting}: {words}; {most}."]
