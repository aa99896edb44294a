"""What the figures of a causal test say about the paper's claim, in plain sentences."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

Figures = Mapping[str, Any]

_MEASURES: Final = {"accuracy": "accuracy_difference", "ROC AUC": "roc_auc_difference"}
_AGAINST, _FOR, _UNDECIDED = "against the claim", "for the claim", "neither for nor against the claim"
_BOTH_WAYS: Final = "both for and against the claim"
_HALF: Final = 0.5


def verdict_on_claim(name: str, found: Figures) -> str:
    """Say what hiding middle and rim tells of the claim that the background, and not the entity, holds the evidence.

    The rules, for one model. Each pair of an area and a fill speaks by the 95 % interval of the difference, middle
    hidden less rim hidden: against the claim where all of it is below 0, since the middle then matters more; for it
    where all of it is above 0; neither where it covers 0 or there is none. A measure speaks as its pairs do, leaving
    out those that say neither; where some speak for and some against, both ways. The last sentence says whether
    accuracy and ROC AUC agree. Figures are those of the area nearest to one half, where middle and rim are each
    other's rest, and of its first fill.

    Args:
        name: what the model is called.
        found: the model's part of `Causal.to_dict()["subjects"]`.
    """
    hiding: Sequence[Figures] = found["hiding"]
    shown = min(hiding, key=lambda one: abs(one["area"] - _HALF))
    return " ".join([_figures(name, found["untouched"], shown), _tally(hiding), _agreement(hiding)])


def _figures(name: str, untouched: Figures, shown: Figures) -> str:
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
    more = f"{sign * scale * difference['value']:.{digits}f}{unit}"
    ends = [sign * scale * difference[end] for end in ("low", "high") if difference[end] is not None]
    interval = f" ({min(ends):.{digits}f} to {max(ends):.{digits}f})" if ends else ""
    return f"hiding the {dearer} costs {more} more{interval}, which speaks {_speaks(difference)}"


def _tally(hiding: Sequence[Figures]) -> str:
    counts = []
    for measure, key in _MEASURES.items():
        said = Counter(_speaks(one[key]) for one in hiding)
        counts.append(f"{measure} speaks against it in {said[_AGAINST]} and for it in {said[_FOR]}")
    return f"Of {len(hiding)} pairs of an area and a fill, {', '.join(counts)}."


def _agreement(hiding: Sequence[Figures]) -> str:
    accuracy, auc = (_together([_speaks(one[key]) for one in hiding]) for key in _MEASURES.values())
    if accuracy == auc:
        return f"Both speak {accuracy} that the entity holds no useful information."
    return (
        f"They disagree: accuracy speaks {accuracy} that the entity holds no useful information; ROC AUC, which does "
        f"not mind verdicts that are all pushed one way, speaks {auc}."
    )


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
