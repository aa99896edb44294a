"""Names of models, maps and measures in tables and figures, and the pairs of maps that the study is about."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from realfake_hf.attribution.methods import method_name
from realfake_hf.estimate import Estimate

TARGETS: Final = ("truth", "predicted", "FAKE", "REAL")  # labels that maps explain; the first is the main one
TARGET_NAMES: Final = {"truth": "the true label", "predicted": "each model's verdict", "FAKE": "FAKE", "REAL": "REAL"}
MODEL_NAMES: Final = {"cnn": "CNN", "vit": "ViT"}
MEASURE_NAMES: Final = {
    "iou_top_10": "IoU, top 10%",
    "iou_top_20": "IoU, top 20%",
    "spearman": "Spearman",
    "pearson": "Pearson",
    "ssim": "SSIM",
    "centre_distance": "distance of centres",
}
FILL_NAMES: Final = {"blur": "a blur", "mean": "the mean colour", "linear": "noisy linear imputation"}
RANDOM_ORDER: Final = "random order"
CENTRE_PRIOR: Final = "centre prior"
REFERENCES: Final = (RANDOM_ORDER, CENTRE_PRIOR)
MEASURE: Final = "iou_top_20"  # main measure of agreement, in the tables and figures with controls
WITHIN: Final = ({"grad_cam", "relevance"}, {"grad_cam", "integrated_gradients"})  # compared on one model

Results = Mapping[str, Any]  # the results file, or a part of it


def model_name(model: str) -> str:
    """Return the name of a model for text and figures."""
    return MODEL_NAMES.get(model, model)


def map_name(model: str, method: str) -> str:
    """Return the name of a kind of map for text and figures.

    >>> map_name("cnn", "grad_cam")
    'CNN Grad-CAM'
    """
    return f"{model_name(model)} {method_name(method)}"


def pair_name(pair: Results, separator: str = " and ") -> str:
    """Return the names of the two maps of a pair."""
    return separator.join(map_name(*pair[side].split()) for side in "ab")


def method_names(results: Results) -> list[str]:
    """Return the names of all methods, in the order that assigns their colours in every figure."""
    return list(dict.fromkeys(method_name(name) for model in results["models"].values() for name in model["methods"]))


def estimate(mean: Results | None) -> Estimate | None:
    """Read an estimate of the results; None if it is undefined or missing."""
    return None if mean is None or mean["value"] is None else Estimate.from_dict(mean)


def agreement_of(results: Results) -> Results:
    """Return the agreement of maps of the first target that was measured."""
    by_target: Mapping[str, Results] = results["agreement"]["by_target"]
    return next(iter(by_target.values()))


def key_pairs(pairs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the pairs that the study is about, or all pairs if there are none.

    Maps of two models, at least one of them by Grad-CAM; then, for comparison, Grad-CAM with relevance or integrated
    gradients on one model.
    """
    across = [pair for pair in pairs if is_across(pair) and "grad_cam" in _methods(pair)]
    within = [pair for pair in pairs if not is_across(pair) and _methods(pair) in WITHIN]
    return across + within or list(pairs)


def main_pair(pairs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the first of the key pairs: the maps of two models, with relevance if possible."""
    pairs = key_pairs(pairs)
    across = [pair for pair in pairs if is_across(pair)]
    relevance = [pair for pair in across if "relevance" in _methods(pair)]
    return (relevance or across or pairs)[0]


def is_across(pair: Results) -> bool:
    """Return whether the two maps of a pair belong to different models."""
    a, b = (pair[side].split()[0] for side in "ab")
    return bool(a != b)


def _methods(pair: Results) -> set[str]:
    return {pair[side].split()[1] for side in "ab"}
