"""Maps from gradients: Grad-CAM, on feature maps or on tokens laid out as their grid, and integrated gradients."""

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

from realfake_hf.attribution.maps import Maps, Target, direction, log_odds, patch_grid

BASELINE: Final = 0.0  # in normalised pixels: the processor's mean, a plain grey image


def grad_cam(model: PreTrainedModel, pixel_values: Tensor, target: Target, *, layer: str | None = None) -> Maps:
    """Weigh a layer's channels by their mean gradient over the grid, add them up, and keep what is positive.

    Args:
        model: any image classifier with one label for real and one for fake.
        pixel_values: (batch, channels, height, width), normalised.
        target: the label whose log-odds are differentiated.
        layer: the dotted name of a module that gives (batch, channels, grid_h, grid_w), or (batch, tokens, channels)
            with the special tokens first. None means `usual_layer`. A convolution is read after the ReLU that it
            feeds, at its own resolution.

    Raises:
        ValueError: the model has no such layer, or the layer's output is not laid out in space.
    """
    from captum.attr import LayerGradCam  # takes a second to import, which few commands need

    name = usual_layer(model) if layer is None else layer
    seen: list[Tensor] = []

    def score(pixels: Tensor) -> Tensor:
        odds = log_odds(model, pixels)
        seen.append(odds.detach())
        return odds * direction(seen[0], target)

    view = nn.Identity()  # stands in the layer's place for captum
    with _looking_through(view, model, name, pixel_values):
        values = LayerGradCam(score, view).attribute(pixel_values, relu_attributions=True)
    return Maps(values.detach()[:, 0].float(), seen[0], name)


def usual_layer(model: nn.Module) -> str:
    """Name the layer that Grad-CAM is usually read at, the last that still has its place and its say in the verdict.

    The norm before the last attention in transformers (after it, only the class token counts in a ViT), else the
    last stage in staged CNNs as ConvNeXt, else the last convolution.

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
        f"wanted a layer laid out in space for grad_cam; found none in {type(model).__name__}. Name one with the "
        "option layer, or use integrated_gradients."
    )


def integrated_gradients(
    model: PreTrainedModel,
    pixel_values: Tensor,
    target: Target,  # noqa: ARG001  magnitudes are the same for both labels
    *,
    steps: int = 32,
    grid: tuple[int, int] = (8, 8),
) -> Maps:
    """Integrate the gradient of the log-odds on the straight way from a grey picture to each picture.

    Magnitudes are added over the channels and averaged over the pixels of each cell: what speaks for a label and what
    speaks against it count alike. The grey is the processor's mean, which normalisation turns into 0.

    Args:
        model: any image classifier with one label for real and one for fake.
        pixel_values: (batch, channels, height, width), normalised.
        target: has no effect.
        steps: points on the way, by the Gauss-Legendre rule; as many passes of the batch, one after the other.
        grid: cells of the map, as height and width.

    Raises:
        ValueError: no steps, or a grid without cells.
    """
    from captum.attr import IntegratedGradients  # takes a second to import, which few commands need

    if steps < 1 or min(grid) < 1:
        raise ValueError(f"wanted one step or more and a grid with cells; found {steps} steps and the grid {grid}.")
    with torch.no_grad():
        odds = log_odds(model, pixel_values)
    values = IntegratedGradients(partial(log_odds, model)).attribute(
        pixel_values, baselines=BASELINE, n_steps=steps, internal_batch_size=len(pixel_values)
    )
    return Maps(adaptive_avg_pool2d(values.detach().float().abs().sum(dim=1), grid), odds)


@contextmanager
def _looking_through(view: nn.Module, model: PreTrainedModel, name: str, pixel_values: Tensor) -> Iterator[None]:
    """Pass a layer's output through `view` as (batch, channels, grid_h, grid_w); the model's output is unchanged."""
    layer, relu = _find(model, name), _relu_after(model, name)

    def look(_module: nn.Module, _inputs: object, output: object) -> Tensor:
        match output:
            case Tensor(ndim=4) as maps:
                seen: Tensor = view(maps.detach().relu() if relu else maps.detach())
                return seen
            case Tensor(ndim=3) as tokens:
                return _laid_out(view, tokens.detach(), grid=patch_grid(model, pixel_values))
        found = f"of shape {tuple(output.shape)}" if isinstance(output, Tensor) else type(output).__name__
        raise ValueError(
            "wanted a layer that gives (batch, channels, height, width) or (batch, tokens, channels); found "
            f"{name!r}, whose output is {found}. Name another one, or use {usual_layer(model)!r}."
        )

    with ExitStack() as hooks:
        hooks.callback(layer.register_forward_hook(look).remove)
        if relu:  # it has come first, and a second one would stop gradients where the first gave 0
            hooks.callback(relu.register_forward_hook(lambda _module, inputs, _output: inputs[0]).remove)
        yield


def _laid_out(view: nn.Module, tokens: Tensor, *, grid: tuple[int, int]) -> Tensor:
    """Pass (batch, tokens, channels) through `view` as their grid. Stages, as in Swin, halve the patches' grid."""
    while grid[0] * grid[1] > tokens.shape[1]:
        grid = (grid[0] + 1) // 2, (grid[1] + 1) // 2
    special, cells = tokens.tensor_split([tokens.shape[1] - grid[0] * grid[1]], dim=1)
    seen: Tensor = view(cells.transpose(1, 2).reshape(len(cells), -1, *grid))
    return torch.cat([special, seen.flatten(2).transpose(1, 2)], dim=1)


def _find(model: nn.Module, name: str) -> nn.Module:
    layers: dict[str, nn.Module] = dict(model.named_modules())
    if name in layers:
        return layers[name]
    nearest = ", ".join(get_close_matches(name, layers, cutoff=0))
    raise ValueError(
        f"wanted a layer of {type(model).__name__}; found {name!r}, which it does not have. The nearest names are "
        f"{nearest}."
    )


def _relu_after(model: nn.Module, name: str) -> nn.Module | None:
    """Find the ReLU that a layer feeds, at once or after max pooling, with which it may change places."""
    parent, _, own = name.rpartition(".")
    siblings = model.get_submodule(parent)
    if not isinstance(siblings, nn.Sequential):
        return None
    after = islice(dropwhile(lambda child: child[0] != own, siblings.named_children()), 1, None)
    following = next((module for _, module in after if not isinstance(module, nn.MaxPool2d)), None)
    return following if isinstance(following, nn.ReLU) else None
