"""Attribution from gradients: Grad-CAM on feature maps or tokens, and integrated gradients."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from difflib import get_close_matches
from functools import partial
from itertools import dropwhile, islice
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d
from transformers import PreTrainedModel

from realfake_hf.attribution.maps import Maps, direction, log_odds, patch_grid
from realfake_hf.attribution.methods import Target

BASELINE: Final = 0.0  # in normalised pixels: the mean of the image processor, a plain grey image


def grad_cam(model: PreTrainedModel, pixel_values: Tensor, target: Target, *, layer: str | None = None) -> Maps:
    """Compute Grad-CAM (Selvaraju et al., 2017, ICCV) on feature maps or on the grid of tokens.

    The channels of a layer are weighted by their mean gradient over the grid and summed; positive values remain.

    Args:
        model: an image classifier with one label for real and one for fake.
        pixel_values: (batch, channels, height, width), normalised.
        target: the label whose log-odds are differentiated.
        layer: name of a module that returns (batch, channels, grid_h, grid_w), or (batch, tokens, channels) with the
            special tokens first; None means `default_layer`. A convolution is read after the ReLU behind it, at its
            own resolution.

    Raises:
        ValueError: the model has no such layer, or the output of the layer has no spatial layout.
    """
    from captum.attr import LayerGradCam  # takes a second to import

    name = default_layer(model) if layer is None else layer
    seen: list[Tensor] = []

    def score(pixels: Tensor) -> Tensor:
        odds = log_odds(model, pixels)
        seen.append(odds.detach())
        return odds * direction(seen[0], target)

    view = nn.Identity()  # captum reads this module in place of the layer
    with _passed_through(view, model, name, pixel_values):
        values = LayerGradCam(score, view).attribute(pixel_values, relu_attributions=True)
    return Maps(values.detach()[:, 0].float(), seen[0], name)


def default_layer(model: nn.Module) -> str:
    """Return the layer that Grad-CAM reads by default: the last spatial layer whose cells affect the prediction.

    It is the norm before the last attention in transformers (behind it only the class token counts in a ViT), else
    the last stage of staged CNNs such as ConvNeXt, else the last convolution.

    Raises:
        ValueError: the model has none of these.
    """
    layers: dict[str, nn.Module] = dict(model.named_modules())
    families = (
        [name for name in layers if name.endswith((".layernorm_before", ".norm1"))],
        [name for name in layers if name.split(".")[-2:-1] == ["stages"]],
        [name for name, layer in layers.items() if isinstance(layer, nn.Conv2d)],
    )
    for family in families:
        if family:
            return family[-1]
    raise ValueError(
        f"expected a layer with a spatial layout for grad_cam; found none in {type(model).__name__}. Name one with "
        "the option layer, or use integrated_gradients."
    )


def integrated_gradients(
    model: PreTrainedModel,
    pixel_values: Tensor,
    target: Target,  # noqa: ARG001  magnitudes are the same for both labels
    *,
    steps: int = 32,
    grid: tuple[int, int] = (8, 8),
) -> Maps:
    """Compute integrated gradients (Sundararajan et al., 2017, *Axiomatic Attribution*, ICML) on a coarse grid.

    The gradient of the log-odds is integrated along the straight path from a grey image, the mean of the image
    processor, to each image. Magnitudes are summed over channels and averaged over the pixels of a cell, so evidence
    for and against a label counts alike.

    Args:
        model: an image classifier with one label for real and one for fake.
        pixel_values: (batch, channels, height, width), normalised.
        target: ignored.
        steps: points on the path, by Gauss-Legendre quadrature; the batch passes through the model once for each.
        grid: height and width of the map in cells.

    Raises:
        ValueError: no steps, or a grid without cells.
    """
    from captum.attr import IntegratedGradients  # takes a second to import

    if steps < 1 or min(grid) < 1:
        raise ValueError(f"expected at least one step and a grid with cells; found {steps} steps and the grid {grid}.")
    with torch.no_grad():
        odds = log_odds(model, pixel_values)
    values = IntegratedGradients(partial(log_odds, model)).attribute(
        pixel_values, baselines=BASELINE, n_steps=steps, internal_batch_size=len(pixel_values)
    )
    return Maps(adaptive_avg_pool2d(values.detach().float().abs().sum(dim=1), grid), odds)


@contextmanager
def _passed_through(view: nn.Module, model: PreTrainedModel, name: str, pixel_values: Tensor) -> Iterator[None]:
    """Pass the output of a layer through `view` as (batch, channels, grid_h, grid_w), without changing the logits."""
    layer, relu = _find_layer(model, name), _relu_behind(model, name)

    def hook(_module: nn.Module, _inputs: object, output: object) -> Tensor:
        match output:
            case Tensor(ndim=4) as maps:
                passed: Tensor = view(maps.detach().relu() if relu else maps.detach())
                return passed
            case Tensor(ndim=3) as tokens:
                return _pass_tokens(view, tokens.detach(), grid=patch_grid(model, pixel_values))
        found = f"the shape {tuple(output.shape)}" if isinstance(output, Tensor) else type(output).__name__
        raise ValueError(
            "expected a layer that returns (batch, channels, height, width) or (batch, tokens, channels); found "
            f"{name!r}, which returns {found}. Name another layer, such as {default_layer(model)!r}."
        )

    with ExitStack() as hooks:
        hooks.callback(layer.register_forward_hook(hook).remove)
        if relu:  # already applied; a second ReLU would block gradients where the first returned 0
            hooks.callback(relu.register_forward_hook(lambda _module, inputs, _output: inputs[0]).remove)
        yield


def _pass_tokens(view: nn.Module, tokens: Tensor, *, grid: tuple[int, int]) -> Tensor:
    """Pass (batch, tokens, channels) through `view` as a grid. Stages, as in Swin, halve the grid of the patches."""
    while grid[0] * grid[1] > tokens.shape[1]:
        grid = (grid[0] + 1) // 2, (grid[1] + 1) // 2
    special, cells = tokens.tensor_split([tokens.shape[1] - grid[0] * grid[1]], dim=1)
    passed: Tensor = view(cells.transpose(1, 2).reshape(len(cells), -1, *grid))
    return torch.cat([special, passed.flatten(2).transpose(1, 2)], dim=1)


def _find_layer(model: nn.Module, name: str) -> nn.Module:
    layers: dict[str, nn.Module] = dict(model.named_modules())
    if name in layers:
        return layers[name]
    nearest = ", ".join(get_close_matches(name, layers, cutoff=0))
    raise ValueError(f"expected a layer of {type(model).__name__}; found {name!r}. The nearest names are {nearest}.")


def _relu_behind(model: nn.Module, name: str) -> nn.Module | None:
    """Return the ReLU that follows a layer, directly or after max pooling, with which it commutes."""
    parent, _, own = name.rpartition(".")
    siblings = model.get_submodule(parent)
    if not isinstance(siblings, nn.Sequential):
        return None
    after = islice(dropwhile(lambda child: child[0] != own, siblings.named_children()), 1, None)
    following = next((module for _, module in after if not isinstance(module, nn.MaxPool2d)), None)
    return following if isinstance(following, nn.ReLU) else None
