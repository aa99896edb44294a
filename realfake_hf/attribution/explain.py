"""Explain the predictions of a model: one `Explanation` per image, whatever the method."""

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from functools import partial
from typing import Any, Final, get_args

import torch
from torch import Tensor
from transformers import PreTrainedModel

from realfake_hf.attribution.attention import gradient_rollout, relevance
from realfake_hf.attribution.layout import attention_function, check_input, layout_of
from realfake_hf.attribution.legrad import legrad
from realfake_hf.attribution.libragrad import is_complete, libragrad
from realfake_hf.attribution.maps import (
    Maps,
    grad_cam,
    integrated_gradients,
    last_attention,
    maps_of_gradients,
    rollout,
)
from realfake_hf.attribution.methods import ATTENTION_METHODS, CLASS_METHODS, METHODS, Explanation, Target
from realfake_hf.labels import LabelName, Verdict

FUNCTIONS: Final[Mapping[str, Callable[..., Maps]]] = {
    "rollout": rollout,
    "last_attention": last_attention,
    "gradient_rollout": partial(maps_of_gradients, gradient_rollout),
    "relevance": partial(maps_of_gradients, relevance),
    "legrad": legrad,
    "libragrad": libragrad,
    "grad_cam": grad_cam,
    "integrated_gradients": integrated_gradients,
}
_MIN_RANGE: Final = 1e-6  # relative to the largest magnitude; a smaller range is rounding noise


def explain(
    model: PreTrainedModel,
    pixel_values: Tensor,
    *,
    method: str,
    target: Target = "predicted",
    options: Mapping[str, Any] | None = None,
) -> list[Explanation]:
    """Explain the predictions of a model on a batch.

    No hooks, gradients or changed settings remain on the model.

    Args:
        model: an image classifier in eval mode, with one label for real and one for fake. Attention methods switch it
            temporarily to eager attention.
        pixel_values: (batch, channels, height, width), normalised by the image processor of the model, on its device.
        method: name in `METHODS`.
        target: the label to explain, or "predicted" for the predicted label of each image.
        options: options of the method that differ from their defaults.

    Returns:
        One explanation per image, in order.

    Raises:
        ValueError: the method, target, an option or its value is unknown, or the model is in training mode, does not
            support the method, or has labels that do not mean real and fake.
    """
    maps = raw_maps(model, pixel_values, method=method, target=target, options=options)
    return explained(maps, method=method, target=target, options=options)


def raw_maps(
    model: PreTrainedModel, pixel_values: Tensor, *, method: str, target: Target, options: Mapping[str, Any] | None
) -> Maps:
    """Compute the maps of a batch before they are scaled; see `explain`."""
    given = dict(options or {})
    check(model, method, target, given)
    with attention_function(model, "eager") if method in ATTENTION_METHODS else nullcontext():
        return FUNCTIONS[method](model, pixel_values, target, **given)


def explained(maps: Maps, *, method: str, target: Target, options: Mapping[str, Any] | None) -> list[Explanation]:
    """Scale the raw maps of a method and join them with what they explain."""
    scaled, empty = scale(maps.values)
    verdicts = [Verdict.of(p_fake) for p_fake in maps.log_odds.float().sigmoid().tolist()]
    return [
        Explanation(
            verdict=verdict,
            map=heat,
            is_empty=is_empty,
            method=method,
            target=_explained(method, target, verdict),
            options={**METHODS[method], **(options or {})},
            layer=maps.layer,
        )
        for verdict, heat, is_empty in zip(verdicts, scaled.cpu().numpy(), empty.tolist(), strict=True)
    ]


def scale(maps: Tensor) -> tuple[Tensor, Tensor]:
    """Scale maps, (batch, grid_h, grid_w), to [0, 1] each, the lowest value to 0 and the highest to 1; NaN remains.

    Return the scaled maps; and (batch,) bool, true where a map is empty: its range is at most a millionth of its
    largest magnitude. Empty maps are all 0.
    """
    unknown = maps.isnan()
    low = maps.masked_fill(unknown, torch.inf).amin(dim=(1, 2), keepdim=True)
    high = maps.masked_fill(unknown, -torch.inf).amax(dim=(1, 2), keepdim=True)
    empty = high - low <= _MIN_RANGE * torch.maximum(low.abs(), high.abs())
    scaled = torch.where(empty & ~unknown, 0.0, (maps - low) / (high - low))
    return scaled, empty.flatten()


def fitting_methods(model: PreTrainedModel) -> tuple[str, ...]:
    """Return the methods that a model supports.

    Attention methods need attention of each token to all others in every layer, LibraGrad also that attention, norms
    and activations are all that is not affine; Grad-CAM needs a layer with a grid.
    """
    layout = layout_of(model)
    refused = (ATTENTION_METHODS if layout.refusal else frozenset()) | ({"grad_cam"} if layout.last is None else set())
    if not (layout.refusal or is_complete(model)):
        refused |= {"libragrad"}
    return tuple(method for method in METHODS if method not in refused)


def default_method(model: PreTrainedModel) -> str:
    """Return the first of relevance, Grad-CAM and integrated gradients that a model supports."""
    fitting = fitting_methods(model)
    return next(method for method in ("relevance", "grad_cam", "integrated_gradients") if method in fitting)


def check(model: PreTrainedModel, method: str, target: str, options: Mapping[str, Any]) -> None:
    """Check the arguments of `explain`."""
    if method not in METHODS:
        raise ValueError(f"expected a method of {', '.join(METHODS)}; found {method!r}.")
    if target not in get_args(Target):
        raise ValueError(f"expected a target of {', '.join(get_args(Target))}; found {target!r}.")
    if unknown := sorted(options.keys() - METHODS[method].keys()):
        known = ", ".join(METHODS[method]) or "none"
        raise ValueError(f"expected options of {method} ({known}); found {', '.join(unknown)}.")
    check_input(model)
    if model.training:
        raise ValueError(
            "expected a model in eval mode; found one in training mode, with active dropout. Call model.eval()."
        )


def _explained(method: str, target: Target, verdict: Verdict) -> LabelName | None:
    if method not in CLASS_METHODS:
        return None
    return verdict.label if target == "predicted" else target
