"""What the causal test says about the paper's claim, in sentences made from its numbers.

The claim has two parts, which are judged apart: that the background matters more than the entity, and that the entity
holds no useful information. The middle of the pictures stands for the entity, the rim for the background.
"""

from collections.abc import Sequence
from typing import Final, Literal

from realfake_hf.explain_study.names import Number, Study, fill_name, model_name, plain, side, with_interval

Says = Literal["rim", "middle", "both", "neither"]

HALF: Final = 0.5
CONCLUSIONS: Final[dict[Says, str]] = {
    "rim": "the background matters more, as the paper has it",
    "middle": "the middle matters more, against the paper",
    "both": "which of the two matters more depends on area and fill",
    "neither": "neither can be told to matter more",
}


def claim_sentences(causal: Study) -> list[str]:
    """Say of each model what hiding middle and rim tells of the claim.

    Each pair of an area and a fill speaks by the 95 % interval of the difference, middle hidden less rim hidden: for
    the rim where all of it is above 0, for the middle where all of it is below, else for neither. Figures are shown of
    the area nearest to one half, where middle and rim are each other's rest, and of its first fill. The middle holds
    information where the smallest middle alone has, with every fill, a ROC AUC whose interval lies above that of the
    fill with everything hidden; the figures shown are those of the fill with the least between the two.

    Args:
        causal: the part of that name of a study.
    """
    return [_about(name, found) for name, found in causal["models"].items()]


def _about(name: str, found: Study) -> str:
    hiding: Sequence[Study] = found["hiding"]
    return " ".join([_half(name, found), _tally(hiding), _middle_alone(hiding, found["all_hidden"])])


def _half(name: str, found: Study) -> str:
    shown = min(found["hiding"], key=lambda one: abs(one["area"] - HALF))
    middle, rim, whole = (
        plain(one["accuracy"]["value"], percent=True) for one in (shown["centre"], shown["rim"], found["untouched"])
    )
    points = with_interval(shown["accuracy_difference"], percent=True, signed=True).replace(" %", " points")
    return (
        f"With the middle {100 * shown['area']:.0f} % of each picture hidden by {fill_name(shown['fill'])}, the "
        f"{model_name(name)} is right on {middle}, with as much of the rim hidden on {rim}, and on {whole} of whole "
        f"pictures: {points}."
    )


def _tally(hiding: Sequence[Study]) -> str:
    accuracy, auc = ([side(one[f"{measure}_difference"]) for one in hiding] for measure in ("accuracy", "roc_auc"))
    return (
        f"Of {len(hiding)} pairs of an area and a fill, hiding the rim surely costs more accuracy in "
        f"{accuracy.count(1)} and hiding the middle in {accuracy.count(-1)}, more ROC AUC in {auc.count(1)} and "
        f"{auc.count(-1)}: {_conclusion(_together(accuracy), _together(auc))}."
    )


def _together(sides: Sequence[int]) -> Says:
    if 1 in sides:
        return "both" if -1 in sides else "rim"
    return "middle" if -1 in sides else "neither"


def _conclusion(accuracy: Says, auc: Says) -> str:
    if accuracy == auc:
        return CONCLUSIONS[accuracy]
    if auc == "neither":
        return f"by accuracy alone, {CONCLUSIONS[accuracy]}"
    if accuracy == "neither":
        return f"by ROC AUC alone, {CONCLUSIONS[auc]}"
    return "the two measures disagree"


def _middle_alone(hiding: Sequence[Study], all_hidden: Study) -> str:
    """Judge the middle that is left where most of the rim is hidden, beside the fill alone."""
    most = max(one["area"] for one in hiding)
    alone = [(one["rim"]["roc_auc"], all_hidden[one["fill"]]["roc_auc"]) for one in hiding if one["area"] == most]
    middle, fill = min(alone, key=lambda pair: pair[0]["value"] - pair[1]["value"])
    judged = (
        "so the middle does hold useful information, against the paper"
        if all(_above(*pair) for pair in alone)
        else "so the middle cannot be told to hold more than the fill lets through"
    )
    return (
        f"The middle {100 * (1 - most):.0f} % alone has a ROC AUC of {with_interval(middle)}, the fill alone one of "
        f"{with_interval(fill)}, {judged}."
    )


def _above(one: Number, other: Number) -> bool:
    return one["low"] is not None and other["high"] is not None and one["low"] > other["high"]
