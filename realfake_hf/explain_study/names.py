"""What the explanation study's numbers and maps are called in prose, tables and figures."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from realfake_hf.attribution.methods import method_name as method_name

MODEL_NAMES: Final = {"cnn": "CNN", "vit": "ViT"}
MEASURE_NAMES: Final = {
    "iou_top_10": "IoU, top 10 %",
    "iou_top_20": "IoU, top 20 %",
    "spearman": "Spearman",
    "pearson": "Pearson",
    "ssim": "SSIM",
    "centre_distance": "distance of centres",
}
FILL_NAMES: Final = {"blur": "a blur", "mean": "the mean colour"}
REFERENCES: Final = ("random order", "centre prior")
WITHIN: Final = ({"grad_cam", "relevance"}, {"grad_cam", "integrated_gradients"})

Study = Mapping[str, Any]
Number = Mapping[str, Any]  # a Mean's value, low, high, n, undefined


def model_name(model: str) -> str:
    """Give a model's name as prose has it."""
    return MODEL_NAMES.get(model, model)


def fill_name(fill: str) -> str:
    """Give the name of what takes the place of hidden pixels."""
    return FILL_NAMES.get(fill, fill)


def map_name(study: Study, key: str) -> str:
    """Give the name of a map by its key in the study."""
    return f"{model_name(model_of(study, key))} {method_name(method_of(study, key))}"


def model_of(study: Study, key: str) -> str:
    """Give the model of a map by its key in the study."""
    return str(study["agreement"]["maps"][key]["model"])


def method_of(study: Study, key: str) -> str:
    """Give the method of a map by its key in the study."""
    return str(study["agreement"]["maps"][key]["method"])


def method_order(study: Study) -> list[str]:
    """Name all methods, in the order that gives them their colours in every figure."""
    return list(dict.fromkeys(method_name(name) for model in study["models"].values() for name in model["methods"]))


def twin_notes(study: Study) -> list[str]:
    """Say which twins learnt less or more than the models that they are held against."""
    notes = []
    for name, one in study["models"].items():
        own, twin = one["training"], (one["twin"] or {}).get("training")
        if own and twin and _learnt(own) != _learnt(twin):
            notes.append(
                f"The {model_name(name)}'s twin learnt from {_learnt(twin)} in place of {_learnt(own)}, so that its "
                "ceiling may be lower than that of an equal."
            )
    return notes


def _learnt(training: Number) -> str:
    return f"{training['n']:,} pictures, {training['epochs']:g} times each"


def key_pairs(study: Study) -> list[Number]:
    """Choose the pairs that the claim is about.

    Those are maps of two models, one of them by Grad-CAM, and as their yardstick two methods on one model: Grad-CAM
    with relevance or integrated gradients.
    """
    pairs: Sequence[Number] = study["agreement"]["pairs"]
    across = [pair for pair in pairs if is_across(study, pair) and "grad_cam" in _methods(study, pair)]
    within = [pair for pair in pairs if not is_across(study, pair) and _methods(study, pair) in WITHIN]
    return across + within or list(pairs)


def is_across(study: Study, pair: Number) -> bool:
    """Say whether the two maps of a pair are those of different models."""
    return model_of(study, pair["a"]) != model_of(study, pair["b"])


def _methods(study: Study, pair: Number) -> set[str]:
    return {method_of(study, pair["a"]), method_of(study, pair["b"])}


def pair_name(study: Study, pair: Number, between: str = " and ") -> str:
    """Give the names of a pair's two maps."""
    return between.join(map_name(study, pair[side]) for side in "ab")


def hidden_rows(found: Study) -> list[dict[str, Any]]:
    """List what one model of the causal test made of each area, fill and hidden region, a row each."""
    return [
        {"area": one["area"], "fill": one["fill"], "region": region, **one[region]}
        for one in found["hiding"]
        for region in ("centre", "rim")
    ]


def side(mean: Number, of: float = 0.0) -> int:
    """Say on which side of a number a mean's interval lies: 1 above, -1 below, 0 where it holds it or is missing."""
    if mean["low"] is None or mean["high"] is None:
        return 0
    return int(mean["low"] > of) - int(mean["high"] < of)


def plain(value: float | None, *, percent: bool = False, signed: bool = False) -> str:
    """Write a number with three decimals, or in per cent with one.

    >>> plain(0.1234), plain(0.1234, percent=True), plain(0.02, signed=True), plain(None)
    ('0.123', '12.3 %', '+0.020', 'undefined')
    """
    if value is None:
        return "undefined"
    scaled, decimals = (100 * value, 1) if percent else (value, 3)
    text = f"{scaled:+.{decimals}f}" if signed else f"{scaled:.{decimals}f}"
    if not float(text):
        text = text.lstrip("+-")
    return text.replace("-", "\N{MINUS SIGN}") + (" %" if percent else "")


def with_interval(mean: Number | None, *, percent: bool = False, signed: bool = False) -> str:
    """Write a mean and its 95 % interval.

    >>> with_interval({"value": 0.5, "low": 0.4, "high": 0.6})
    '0.500 (0.400 to 0.600)'
    """
    if mean is None:
        return ""
    value = plain(mean["value"], percent=percent, signed=signed)
    if mean["value"] is None or mean["low"] is None or mean["high"] is None:
        return value
    ends = (plain(mean[end], percent=percent, signed=signed).removesuffix(" %") for end in ("low", "high"))
    return f"{value} ({' to '.join(ends)})"


def counted(mean: Number) -> str:
    """Write how many pictures a mean is taken over, and how many have no value."""
    undefined = f", {mean['undefined']:,} undefined" if mean.get("undefined") else ""
    return f"{mean['n']:,}{undefined}"


def listed(words: Sequence[str]) -> str:
    """Join words as prose does.

    >>> listed(["a", "b", "c"])
    'a, b and c'
    """
    *most, last = words
    return f"{', '.join(most)} and {last}" if most else last
