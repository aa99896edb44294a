"""Attention maps of a model: collect the weights of each layer in a forward pass, and pool tokens as its head does."""

import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from realfake_hf.attribution import attention
from realfake_hf.attribution.attention import HeadFusion
from realfake_hf.attribution.layout import Layout, attention_options, attention_weights, layout_of
from realfake_hf.attribution.maps import Maps, direction, log_odds
from realfake_hf.attribution.methods import Target
from realfake_hf.parallel import available_cores, map_in_threads


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
    layout = _combinable(model, pixel_values)
    fused: defaultdict[int, list[Tensor]] = defaultdict(list)  # by thread

    @torch.no_grad()
    def maps_of(part: Tensor) -> Maps:
        odds = log_odds(model, part, **attention_options(model))
        layers = attention.required(fused.pop(threading.get_ident(), []))
        return Maps(
            attention.patch_map(fold(layers, pooling=layout.pooling, read=layout.read), grid=layout.grid), odds
        )

    parts = pixel_values.chunk(available_cores()) if pixel_values.device.type == "cpu" else (pixel_values,)
    with _each_attention(model, layout, lambda weights: fused[threading.get_ident()].append(fuse(weights))):
        maps = list(map_in_threads(maps_of, parts))
    return Maps(torch.cat([part.values for part in maps]), torch.cat([part.log_odds for part in maps]))


def maps_of_gradients(
    fold: Callable[..., Tensor], model: PreTrainedModel, pixel_values: Tensor, target: Target
) -> Maps:
    """Fold the attention of each layer and the gradient of the target's log-odds with respect to it.

    The attention of all layers is in memory at once.
    """
    layout = _combinable(model, pixel_values)
    weights: list[Tensor] = []
    with torch.enable_grad(), _each_attention(model, layout, weights.append):
        odds = log_odds(model, pixel_values.detach().requires_grad_(), **attention_options(model))  # frozen parameters
    score = odds * direction(odds.detach(), target)
    gradients = torch.autograd.grad(score.sum(), attention.required(weights))
    row = fold(weights, gradients, pooling=layout.pooling, read=layout.read)
    return Maps(attention.patch_map(row, grid=layout.grid), odds.detach())


def _combinable(model: PreTrainedModel, pixel_values: Tensor) -> Layout:
    layout = layout_of(model, pixel_values)
    if layout.refusal:
        raise ValueError(
            "expected a model in which each token attends to all others, in every layer; found "
            f"{type(model).__name__}: {layout.refusal}. Use grad_cam or integrated_gradients."
        )
    return layout


@contextmanager
def _each_attention(model: PreTrainedModel, layout: Layout, use: Callable[[Tensor], None]) -> Iterator[None]:
    """Call `use` with the attention weights of each layer as the forward pass computes them."""

    def hook(_module: nn.Module, _inputs: object, output: object) -> None:
        weights = attention_weights(output)
        if weights is not None:  # eager attention
            use(weights)

    with ExitStack() as hooks:
        for name in layout.attention:
            hooks.callback(model.get_submodule(name).register_forward_hook(hook).remove)
        yield
