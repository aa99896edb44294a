"""Attribution from gradients: Grad-CAM on feature maps or tokens, and integrated gradients."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from difflib import get_close_matches
from functools import partial
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d
from transformers import PreTrainedModel

from realfake_hf.attribution.maps import Maps, direction, log_odds, patch_grid
from realfake_hf.attribution.methods import Target

BASELINE: Final = 0.0  # in normalised pixels: the mean of the image processor, a uniform grey image


def grad_cam(model: PreTrainedModel, pixel_values: Tensor, target: Target, *, layer: str | None = None) -> Maps:
    """Compute Grad-CAM (Selvaraju et al., 2017, ICCV) on feature maps or on the grid of tokens.

    The channels of a layer are weighted by their mean gradient over the grid and summed; negative sums become 0.

    Args:
        model: an image classifier with one label for real and one for fake.
        pixel_values: (batch, channels, height, width), normalised.
        target: the label whose log-odds are differentiated.
        layer: name of a module that returns (batch, channels, grid_h, grid_w), or (batch, tokens, channels) with the
            special tokens first; None means `default_layer`. A convolution followed by ReLU is read after the ReLU,
            at its own resolution.

    Raises:
        ValueError: the model has no such layer, or the output of the layer has no spatial layout.
    """
    name = default_layer(model) if layer is None else layer
    with torch.enable_grad(), _activations(model, name, pixel_values) as activations:
        odds = log_odds(model, pixel_values)
    score = odds * direction(odds.detach(), target)
    [gradient] = torch.autograd.grad(score.sum(), activations)
    weighted = gradient.mean(dim=(2, 3), keepdim=True) * activations[0].detach()
    return Maps(weighted.sum(dim=1).relu().float(), odds.detach(), name)


def default_layer(model: nn.Module) -> str:
    """Return the layer that Grad-CAM reads by default: the last spatial layer whose cells affect the prediction.

    It is the norm before the last attention of a transformer (a ViT predicts from the class token alone, so later
    patches have no effect), else the last stage of a CNN with stages such as ConvNeXt, else the last convolution.

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
    processor, to each image. Magnitudes are summed over channels and averaged over the pixels of a cell; evidence for
    a label and against it both count as positive.

    Args:
        model: an image classifier with one label for real and one for fake.
        pixel_values: (batch, channels, height, width), normalised.
        target: ignored.
        steps: points of the Gauss-Legendre quadrature; each takes one forward and one backward pass of the batch.
        grid: height and width of the map in cells.

    Raises:
        ValueError: the number of steps or a side of the grid is below 1.
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
def _activations(model: PreTrainedModel, name: str, pixel_values: Tensor) -> Iterator[list[Tensor]]:
    """Collect the output of a layer as (batch, channels, grid_h, grid_w), a leaf of the graph of the logits."""
    layer, relu = _find_layer(model, name), _relu_after(model, name)
    activations: list[Tensor] = []

    def hook(_module: nn.Module, _inputs: object, output: object) -> Tensor:
        match output:
            case Tensor(ndim=4) as maps:
                activations.append((maps.detach().relu() if relu else maps.detach()).requires_grad_())
                return activations[0]
            case Tensor(ndim=3) as tokens:
                special, cells = _split_tokens(tokens.detach(), grid=patch_grid(model, pixel_values))
                activations.append(cells.requires_grad_())
                return torch.cat([special, cells.flatten(2).transpose(1, 2)], dim=1)
        found = f"the shape {tuple(output.shape)}" if isinstance(output, Tensor) else type(output).__name__
        raise ValueError(
            "expected a layer that returns (batch, channels, height, width) or (batch, tokens, channels); found "
            f"{name!r}, which returns {found}. Name another layer, such as {default_layer(model)!r}."
        )

    with ExitStack() as hooks:
        hooks.callback(layer.register_forward_hook(hook).remove)
        if relu:  # already applied; a second ReLU would block gradients where the first returned 0
            hooks.callback(relu.register_forward_hook(lambda _module, inputs, _output: inputs[0]).remove)
        yield activations


def _split_tokens(tokens: Tensor, *, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Split (batch, tokens, channels) into special tokens and (batch, channels, grid_h, grid_w).

    The stages of a Swin halve the grid of the patches.
    """
    while grid[0] * grid[1] > tokens.shape[1]:
        grid = (grid[0] + 1) // 2, (grid[1] + 1) // 2
    special, cells = tokens.tensor_split([tokens.shape[1] - grid[0] * grid[1]], dim=1)
    return special, cells.transpose(1, 2).reshape(len(cells), -1, *grid)


def _find_layer(model: nn.Module, name: str) -> nn.Module:
    layers: dict[str, nn.Module] = dict(model.named_modules())
    if name in layers:
        return layers[name]
    nearest = ", ".join(get_close_matches(name, layers, cutoff=0))
    raise ValueError(f"expected a layer of {type(model).__name__}; found {name!r}. Similar names are {nearest}.")


def _relu_after(model: nn.Module, name: str) -> nn.Module | None:
    """Return the ReLU that follows a layer, directly or after max pooling, with which it commutes."""
    parent, _, index = name.rpartition(".")
    siblings = model.get_submodule(parent)
    if not isinstance(siblings, nn.Sequential):
        return None
    later = list(siblings)[list(dict(siblings.named_children())).index(index) + 1 :]
    following = next((module for module in later if not isinstance(module, nn.MaxPool2d)), None)
    return following if isinstance(following, nn.ReLU) else None
