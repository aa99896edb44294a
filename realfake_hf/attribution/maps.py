"""The maps of each method: attention over layers, Grad-CAM on feature maps or tokens, and integrated gradients."""

import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d
from transformers import PreTrainedModel

from realfake_hf.attribution import attention
from realfake_hf.attribution.attention import HeadFusion
from realfake_hf.attribution.layout import (
    Layout,
    attention_options,
    attention_weights,
    class_name,
    first_tensor,
    layout_of,
    read_cells,
    replace_cells,
    with_first_tensor,
)
from realfake_hf.attribution.methods import Target
from realfake_hf.labels import fake_index
from realfake_hf.parallel import available_cores, map_in_threads

BASELINE: Final = 0.0  # in normalised pixels: the mean of the image processor, a uniform grey image


@dataclass(frozen=True)
class Maps:
    """The raw maps of a batch."""

    values: Tensor  # (batch, grid_h, grid_w) float32 on the scale of the method
    log_odds: Tensor  # (batch,) log-odds of FAKE in the explained forward pass; their sigmoid is `p_fake`
    layer: str | None = None  # the layer that was read, for methods that read one


def log_odds(model: PreTrainedModel, pixel_values: Tensor, **options: bool) -> Tensor:
    """Return the logit of FAKE minus the logit of REAL, (batch,), in a forward pass with these further arguments.

    Methods differentiate the log-odds, on which `p_fake` depends, and not one logit: the logits of the CIFAKE CNN are
    (0, z), so its logit of REAL has no gradient.
    """
    names: dict[int, str] = model.config.id2label  # type: ignore[assignment]
    fake = fake_index(names)
    logits: Tensor = model(pixel_values=pixel_values, **options).logits
    return logits[:, fake] - logits[:, 1 - fake]


def direction(odds: Tensor, target: Target) -> Tensor:
    """Return the sign by which the log-odds of FAKE favour the target: (batch,), 1 for FAKE and -1 for REAL."""
    if target == "predicted":
        return torch.where(odds > 0, 1.0, -1.0)
    return torch.full_like(odds, 1.0 if target == "FAKE" else -1.0)


def rollout(
    model: PreTrainedModel,
    pixel_values: Tensor,
    target: Target,  # noqa: ARG001  both labels have the same map
    *,
    head_fusion: HeadFusion = "mean",
    discard_ratio: float = 0.0,
) -> Maps:
    """Compute maps of `attention.attention_rollout`, which ignore the target and the classifier's head.

    Heads are fused as soon as a layer is computed, so only one layer's heads are in memory.
    """
    fuse = partial(attention.fuse_layer, head_fusion=head_fusion, discard_ratio=discard_ratio)
    return _maps_of_layers(model, pixel_values, fuse, attention.attention_rollout)


def last_attention(
    model: PreTrainedModel,
    pixel_values: Tensor,
    target: Target,  # noqa: ARG001  both labels have the same map
    *,
    head_fusion: HeadFusion = "mean",
) -> Maps:
    """Compute maps of the last layer's attention with fused heads, which ignore the target."""
    fuse = partial(attention.fuse_heads, head_fusion=head_fusion)
    return _maps_of_layers(model, pixel_values, fuse, lambda layers, pooling, **_: attention.pool(layers[-1], pooling))


def _maps_of_layers(
    model: PreTrainedModel,
    pixel_values: Tensor,
    fuse: Callable[[Tensor], Tensor],
    fold: Callable[..., Tensor],
) -> Maps:
    """Fuse the heads of each layer, then fold the layers; on a CPU, the batch is divided among the cores."""
    layout = combinable(model, pixel_values)
    fused: defaultdict[int, list[Tensor]] = defaultdict(list)  # by thread

    @torch.no_grad()
    def maps_of(part: Tensor) -> Maps:
        odds = log_odds(model, part, **attention_options(model))
        layers = attention.required(fused.pop(threading.get_ident(), []))
        return Maps(
            attention.patch_map(fold(layers, pooling=layout.pooling, read=layout.read), grid=layout.grid), odds
        )

    parts = pixel_values.chunk(available_cores()) if pixel_values.device.type == "cpu" else (pixel_values,)
    with each_attention(model, layout, lambda weights: fused[threading.get_ident()].append(fuse(weights))):
        maps = list(map_in_threads(maps_of, parts))
    return Maps(torch.cat([part.values for part in maps]), torch.cat([part.log_odds for part in maps]))


def maps_of_gradients(
    fold: Callable[..., Tensor], model: PreTrainedModel, pixel_values: Tensor, target: Target
) -> Maps:
    """Fold the attention of each layer and the gradient of the target's log-odds with respect to it.

    The attention of all layers is in memory at once.
    """
    layout = combinable(model, pixel_values)
    weights: list[Tensor] = []
    with torch.enable_grad(), each_attention(model, layout, weights.append):
        odds = log_odds(model, pixel_values.detach().requires_grad_(), **attention_options(model))  # frozen parameters
    score = odds * direction(odds.detach(), target)
    gradients = torch.autograd.grad(score.sum(), attention.required(weights))
    row = fold(weights, gradients, pooling=layout.pooling, read=layout.read)
    return Maps(attention.patch_map(row, grid=layout.grid), odds.detach())


def combinable(model: PreTrainedModel, pixel_values: Tensor) -> Layout:
    """Return the layout of a model for these images; raise a `ValueError` if its attention cannot be combined."""
    layout = layout_of(model, pixel_values)
    if layout.refusal:
        raise ValueError(
            "expected a model in which each token attends to all others, in every layer; found "
            f"{class_name(model)}: {layout.refusal}. Use grad_cam or integrated_gradients."
        )
    return layout


@contextmanager
def each_attention(model: PreTrainedModel, layout: Layout, use: Callable[[Tensor], None]) -> Iterator[None]:
    """Call `use` with the attention weights of each layer as the forward pass computes them."""

    def hook(_module: nn.Module, _inputs: object, output: object) -> None:
        weights = attention_weights(output)
        if weights is not None:  # eager attention
            use(weights)

    with ExitStack() as hooks:
        for name in layout.attention:
            hooks.callback(model.get_submodule(name).register_forward_hook(hook).remove)
        yield


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
    name = default_layer(model, pixel_values) if layer is None else layer
    with torch.enable_grad(), _activations(model, name, pixel_values) as activations:
        odds = log_odds(model, pixel_values)
    score = odds * direction(odds.detach(), target)
    [gradient] = torch.autograd.grad(score.sum(), activations)
    weighted = gradient.mean(dim=(2, 3), keepdim=True) * activations[0].detach()
    return Maps(weighted.sum(dim=1).relu().float(), odds.detach(), name)


def default_layer(model: PreTrainedModel, pixel_values: Tensor | None = None) -> str:
    """Return the layer that Grad-CAM reads by default: the last with a grid whose cells affect the prediction.

    In a transformer it is the input of the last attention, as in Gildenblat's pytorch-grad-cam: the norm before it, or
    the previous block. After it, patches have no effect on a classifier that reads a class token, and are mixed for
    one that pools them. It is the last layer in a transformer without a grid there, such as MobileViT, and in a CNN,
    whose last convolution is read before pooling. The size of the pixel values, (batch, channels, height, width),
    matters; None means that in the config.
    """
    layout = layout_of(model, pixel_values)
    if layout.last is None:
        raise ValueError(
            "expected a layer for grad_cam with a grid whose cells affect the prediction; found none in "
            f"{class_name(model)}. Use integrated_gradients."
        )
    return layout.last


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
    grid = layout_of(model, pixel_values).layers.get(name)
    activations: list[Tensor] = []

    def hook(_module: nn.Module, _inputs: object, output: object) -> object:
        tensor = first_tensor(output)
        if grid is None or tensor is None:
            found = type(output).__name__ if tensor is None else f"the shape {tuple(tensor.shape)}"
            raise ValueError(
                "expected a layer that returns (batch, channels, height, width) or (batch, tokens, channels); found "
                f"{name!r}, which returns {found}. Name another layer, such as {default_layer(model, pixel_values)!r}."
            )
        values = read_cells(tensor.detach(), grid)
        activations.append((values.relu() if relu else values).requires_grad_())
        replaced = replace_cells(tensor.detach(), activations[0])
        return with_first_tensor(output, replaced)

    with ExitStack() as hooks:
        hooks.callback(layer.register_forward_hook(hook).remove)
        if relu:  # already applied; a second ReLU would block gradients where the first returned 0
            hooks.callback(relu.register_forward_hook(lambda _module, inputs, _output: inputs[0]).remove)
        yield activations


def _find_layer(model: nn.Module, name: str) -> nn.Module:
    layers: dict[str, nn.Module] = dict(model.named_modules())
    if name in layers:
        return layers[name]
    nearest = ", ".join(get_close_matches(name, layers, cutoff=0))
    raise ValueError(f"expected a layer of {class_name(model)}; found {name!r}. Similar names are {nearest}.")


def _relu_after(model: nn.Module, name: str) -> nn.Module | None:
    """Return the ReLU that follows a layer, directly or after max pooling, with which it commutes."""
    parent, _, index = name.rpartition(".")
    siblings = model.get_submodule(parent)
    if not isinstance(siblings, nn.Sequential):
        return None
    later = list(siblings)[list(dict(siblings.named_children())).index(index) + 1 :]
    following = next((module for module in later if not isinstance(module, nn.MaxPool2d)), None)
    return following if isinstance(following, nn.ReLU) else None
