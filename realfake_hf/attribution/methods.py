"""The table of methods, and the one result that all of them give."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel

from realfake_hf.attribution.attention_methods import (
    gradient_rollout,
    lack_of_class_token,
    last_attention,
    relevance,
    rollout,
)
from realfake_hf.attribution.gradients import grad_cam, integrated_gradients
from realfake_hf.attribution.maps import Maps, Target
from realfake_hf.attribution.overlay import overlay
from realfake_hf.labels import LabelName, Verdict

METHODS: Final[Mapping[str, Callable[..., Maps]]] = {
    "rollout": rollout,
    "last_attention": last_attention,
    "gradient_rollout": gradient_rollout,
    "relevance": relevance,
    "grad_cam": grad_cam,
    "integrated_gradients": integrated_gradients,
}
ATTENTION_METHODS: Final = frozenset({"rollout", "last_attention", "gradient_rollout", "relevance"})
CLASS_METHODS: Final = frozenset({"gradient_rollout", "relevance", "grad_cam"})  # the others ignore the target
METHOD_NAMES: Final = {"grad_cam": "Grad-CAM"}

_LEAST_RANGE: Final = 1e-6  # of the largest magnitude; below it a map is rounding noise


@dataclass(frozen=True, eq=False)
class Explanation:
    """Where a detector looked in one picture.

    Attributes:
        verdict: what the model said in the pass that was explained.
        map: (grid_h, grid_w) float32 in [0, 1]. A picture's lowest value became 0 and its highest 1, so maps compare
            in shape and not in strength.
        is_empty: the raw map was constant, up to rounding; `map` is all 0 then.
        method: its name in `METHODS`.
        target: the label whose evidence is shown; None where the method knows no label.
        options: all options of the method, those that were not given with their defaults.
        layer: the name of the layer that was read, for methods that read one.
    """

    verdict: Verdict
    map: NDArray[np.float32]
    is_empty: bool
    method: str
    target: LabelName | None
    options: dict[str, Any]
    layer: str | None

    def overlay(self, image: NDArray[np.uint8], *, strength: float = 0.6) -> NDArray[np.uint8]:
        """Lay the map over its picture: `realfake_hf.attribution.overlay.overlay`."""
        return overlay(image, self.map, strength=strength)


def explain(
    model: PreTrainedModel,
    pixel_values: Tensor,
    *,
    method: str,
    target: Target = "predicted",
    options: Mapping[str, Any] | None = None,
) -> list[Explanation]:
    """Explain a model's verdicts on a batch, one explanation a picture.

    Nothing stays behind: no hooks, no gradients, no changed settings.

    Args:
        model: an image classifier in eval mode, with one label for real and one for fake. For the methods on
            attention it computes that eagerly (`attn_implementation="eager"`).
        pixel_values: (batch, channels, height, width), normalised by the model's image processor, on its device.
        method: a name in `METHODS`.
        target: the label to explain, or "predicted" for the one that each picture got.
        options: of the method; what is not given has its default.

    Raises:
        ValueError: an unknown method, target, option or option's value; a model in training mode, of a kind that the
            method does not fit, or whose labels do not say which output means fake.
    """
    given = {} if options is None else dict(options)
    _check(model, method, target, given)
    maps = METHODS[method](model, pixel_values, target, **given)
    all_options = default_options(method) | given
    scaled, empty = scale(maps.values)
    verdicts = [Verdict.of(p) for p in maps.log_odds.float().sigmoid().tolist()]
    return [
        Explanation(
            verdict=verdict,
            map=heat,
            is_empty=is_empty,
            method=method,
            target=_explained(method, target, verdict),
            options=all_options.copy(),
            layer=maps.layer,
        )
        for verdict, heat, is_empty in zip(verdicts, scaled.cpu().numpy(), empty.tolist(), strict=True)
    ]


def scale(maps: Tensor) -> tuple[Tensor, Tensor]:
    """Bring each map to [0, 1], its lowest value to 0 and its highest to 1.

    Args:
        maps: (batch, grid_h, grid_w).

    Returns:
        The scaled maps, and (batch,) whether each is empty: its range is less than a millionth of its largest
        magnitude. Empty maps are all 0.
    """
    low, high = maps.amin(dim=(1, 2), keepdim=True), maps.amax(dim=(1, 2), keepdim=True)
    empty = high - low <= _LEAST_RANGE * torch.maximum(low.abs(), high.abs())
    scaled = torch.where(empty, 0.0, (maps - low) / (high - low))
    return scaled, empty.flatten()


def default_options(method: str) -> dict[str, Any]:
    """Give the options of a method with their defaults."""
    parameters = inspect.signature(METHODS[method]).parameters.values()
    return {option.name: option.default for option in parameters if option.kind is option.KEYWORD_ONLY}


def method_name(method: str) -> str:
    """Give a method's name as prose has it.

    >>> method_name("grad_cam"), method_name("last_attention")
    ('Grad-CAM', 'last attention')
    """
    return METHOD_NAMES.get(method, method.replace("_", " "))


def usual_method(model: PreTrainedModel) -> str:
    """Name the method for a model of which nothing else is said: relevance where it applies, else Grad-CAM."""
    return "grad_cam" if lack_of_class_token(model) else "relevance"


def _check(model: PreTrainedModel, method: str, target: str, options: Mapping[str, Any]) -> None:
    if method not in METHODS:
        raise ValueError(f"wanted a method of {', '.join(METHODS)}; found {method!r}.")
    if target not in get_args(Target):
        raise ValueError(f"wanted a target of {', '.join(get_args(Target))}; found {target!r}.")
    known = default_options(method)
    if unknown := sorted(options.keys() - known.keys()):
        but = f" but {', '.join(known)}" if known else ""
        raise ValueError(f"wanted no options of {method}{but}; found {', '.join(unknown)}.")
    if model.training:
        raise ValueError(
            "wanted a model in eval mode; found one in training mode, where dropout would change its maps. Call "
            "model.eval() first."
        )


def _explained(method: str, target: Target, verdict: Verdict) -> LabelName | None:
    if method not in CLASS_METHODS:
        return None
    return verdict.label if target == "predicted" else target
