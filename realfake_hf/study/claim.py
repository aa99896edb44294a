"""What the figures of a causal test say about the paper's claim, in plain sentences."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

Figures = Mapping[str, Any]

_MEASURES: Final = {"accuracy": "accuracy_difference", "ROC AUC": "roc_auc_difference"}
_AGAINST, _FOR, _UNDECIDED = "against the claim", "for the claim", "neither for nor against the claim"
_BOTH_WAYS: Final = "both for and against the claim"
_HALF: Final = 0.5


def verdict_on_claim(found: Figures) -> dict[str, str]:
    """Say of each model what hiding middle and rim tells of the claim that the background is the evidence.

    The claim has two parts, which are judged apart.

    That the background matters more than the entity: each pair of an area and a fill speaks by the 95 % interval of
    the difference, middle hidden less rim hidden. Where all of it is below 0, the middle matters more, against the
    claim; where all of it is above 0, for it; neither where it covers 0 or there is none. A measure speaks as its
    pairs do, leaving out those that say neither; both ways where some speak for and some against. Accuracy and ROC
    AUC may disagree, and it is said. The figures are those of the area nearest to one half, where middle and rim are
    each other's rest, and of its first fill.

    That the entity holds no useful information: it fails where the smallest middle alone has, with every fill, a ROC
    AUC whose interval lies above that of the fill with everything hidden; else it is not refuted. The figures are
    those of the fill with the least between the two.

    Args:
        found: `Causal.to_dict()`.

    Returns:
        By the model's name, a few sentences.
    """
    return {name: _verdict(name, subject) for name, subject in found["models"].items()}


def _verdict(name: str, subject: Figures) -> str:
    hiding: Sequence[Figures] = subject["hiding"]
    shown = min(hiding, key=lambda one: abs(one["area"] - _HALF))
    said = [_half(name, subject["untouched"], shown), _tally(hiding), _agreement(hiding)]
    return " ".join([*said, _middle_alone(hiding, subject["all_hidden"])])


def _half(name: str, untouched: Figures, shown: Figures) -> str:
    accuracy, auc = (
        [performance[measure]["value"] for performance in (untouched, shown["centre"], shown["rim"])]
        for measure in ("accuracy", "roc_auc")
    )
    whole, centre, rim = (f"{100 * value:.1f} %" for value in accuracy)
    return (
        f"With {100 * shown['area']:.0f} % of each picture hidden ({shown['fill']}), {name} is right on {centre} "
        f"without the middle and on {rim} without the rim, of {whole} untouched: "
        f"{_cost(shown['accuracy_difference'], unit=' points', scale=100, digits=1)}; its ROC AUC is {auc[1]:.3f} and "
        f"{auc[2]:.3f}, of {auc[0]:.3f} untouched: {_cost(shown['roc_auc_difference'], unit='', scale=1, digits=3)}."
    )


def _cost(difference: Figures, *, unit: str, scale: float, digits: int) -> str:
    dearer, sign = ("rim", 1) if difference["value"] > 0 else ("middle", -1)
    more = f"{abs(scale * difference['value']):.{digits}f}{unit}"
    ends = sorted(sign * scale * difference[end] for end in ("low", "high") if difference[end] is not None)
    interval = f" ({' to '.join(f'{end:.{digits}f}' for end in ends)})" if ends else ""
    return f"hiding the {dearer} costs {more} more{interval}, which speaks {_speaks(difference)}"


def _tally(hiding: Sequence[Figures]) -> str:
    counts = []
    for measure, key in _MEASURES.items():
        said = Counter(_speaks(one[key]) for one in hiding)
        counts.append(f"{measure} speaks for it in {said[_FOR]} and against it in {said[_AGAINST]}")
    return f"Of {len(hiding)} pairs of an area and a fill, {', '.join(counts)}."


def _agreement(hiding: Sequence[Figures]) -> str:
    accuracy, auc = (_together([_speaks(one[key]) for one in hiding]) for key in _MEASURES.values())
    if accuracy == auc:
        return f"Both speak {accuracy} that the background matters more than the entity."
    return (
        f"They disagree: accuracy speaks {accuracy} that the background matters more than the entity; ROC AUC, which "
        f"does not mind verdicts that are all pushed one way, speaks {auc}."
    )


def _middle_alone(hiding: Sequence[Figures], all_hidden: Mapping[str, Figures]) -> str:
    """Judge the middle that is left where most of the rim is hidden, beside the fill alone."""
    most = max(one["area"] for one in hiding)
    alone = [(one["rim"]["roc_auc"], all_hidden[one["fill"]]["roc_auc"]) for one in hiding if one["area"] == most]
    middle, fill = min(alone, key=lambda pair: pair[0]["value"] - pair[1]["value"])
    refuted = all(_above(*pair) for pair in alone)
    return (
        f"That the entity holds no useful information is {'refuted' if refuted else 'not refuted'}: from the middle "
        f"{100 * (1 - most):.0f} % alone the ROC AUC is {_with_interval(middle)}, from the fill alone "
        f"{_with_interval(fill)}."
    )


def _above(one: Figures, other: Figures) -> bool:
    return one["low"] is not None and other["high"] is not None and one["low"] > other["high"]


def _with_interval(mean: Figures) -> str:
    interval = f" ({mean['low']:.3f} to {mean['high']:.3f})" if mean["low"] is not None else ""
    return f"{mean['value']:.3f}{interval}"


def _speaks(difference: Figures) -> str:
    low, high = difference["low"], difference["high"]
    if low is None or low <= 0 <= high:
        return _UNDECIDED
    return _AGAINST if high < 0 else _FOR


def _together(said: Sequence[str]) -> str:
    decided = set(said) - {_UNDECIDED}
    if len(decided) > 1:
        return _BOTH_WAYS
    return decided.pop() if decided else _UNDECIDED
