"""Attention maps of a model: collect the weights of each layer in a forward pass, and read the class token's row."""

import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from realfake_hf.attribution import attention
from realfake_hf.attribution.attention import HeadFusion
from realfake_hf.attribution.maps import Maps, direction, log_odds, patch_grid
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
    fold = partial(attention.attention_rollout, rows=_class_tokens(model))
    return _maps_of_layers(model, pixel_values, fuse, fold)


def last_attention(
    model: PreTrainedModel,
    pixel_values: Tensor,
    target: Target,  # noqa: ARG001  both labels have the same map
    *,
    head_fusion: HeadFusion = "mean",
) -> Maps:
    """Compute maps of the last layer's attention with fused heads, which ignore the target."""
    fuse = partial(attention.fuse_heads, head_fusion=head_fusion)
    return _maps_of_layers(model, pixel_values, fuse, lambda layers: layers[-1])


def gradient_rollout(model: PreTrainedModel, pixel_values: Tensor, target: Target) -> Maps:
    """Compute maps of `attention.gradient_rollout`. The attention of all layers is in memory at once."""
    return _maps_of_gradients(model, pixel_values, target, attention.gradient_rollout)


def relevance(model: PreTrainedModel, pixel_values: Tensor, target: Target) -> Maps:
    """Compute maps of `attention.relevance`. The attention of all layers is in memory at once."""
    fold = partial(attention.relevance, rows=_class_tokens(model))
    return _maps_of_gradients(model, pixel_values, target, fold)


def no_class_token(model: PreTrainedModel) -> str | None:
    """Return why a model does not predict from a class token that attends to all patches, or None if it does."""
    heads = getattr(model.config, "num_attention_heads", None)
    if heads is None:
        return "it has no attention"
    if not isinstance(heads, int):
        return "its attention stays inside windows or stages"
    if getattr(model.config, "use_mean_pooling", False):  # as in BEiT
        return "it pools its patches and does not read its class token"
    return None


@contextmanager
def eager_attention(model: PreTrainedModel) -> Iterator[None]:
    """Switch a model temporarily to eager attention, which returns its weights."""
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.set_attn_implementation(before)


def _maps_of_layers(
    model: PreTrainedModel,
    pixel_values: Tensor,
    fuse: Callable[[Tensor], Tensor],
    fold: Callable[[Sequence[Tensor]], Tensor],
) -> Maps:
    """Fuse the heads of each layer, then fold the layers; on a CPU, the batch is divided among the cores."""
    fused: defaultdict[int, list[Tensor]] = defaultdict(list)  # by thread

    @torch.no_grad()
    def maps_of(part: Tensor) -> Maps:
        odds = log_odds(model, part)
        return _read(fold(attention.required(fused.pop(threading.get_ident(), []))), model, part, odds)

    parts = pixel_values.chunk(available_cores()) if pixel_values.device.type == "cpu" else (pixel_values,)
    with _each_attention(model, lambda weights: fused[threading.get_ident()].append(fuse(weights))):
        maps = list(map_in_threads(maps_of, parts))
    return Maps(torch.cat([part.values for part in maps]), torch.cat([part.log_odds for part in maps]))


def _maps_of_gradients(
    model: PreTrainedModel,
    pixel_values: Tensor,
    target: Target,
    fold: Callable[[Sequence[Tensor], Sequence[Tensor]], Tensor],
) -> Maps:
    """Fold the attention of each layer and the gradient of the target's log-odds with respect to it."""
    weights: list[Tensor] = []
    with torch.enable_grad(), _each_attention(model, weights.append):
        odds = log_odds(model, pixel_values.detach().requires_grad_())  # parameters may be frozen
    score = odds * direction(odds.detach(), target)
    gradients = torch.autograd.grad(score.sum(), attention.required(weights))
    return _read(fold(weights, gradients), model, pixel_values, odds.detach())


def _read(matrix: Tensor, model: PreTrainedModel, pixel_values: Tensor, odds: Tensor) -> Maps:
    grid = patch_grid(model, pixel_values)
    return Maps(attention.class_token_map(matrix, grid=grid, class_tokens=_class_tokens(model)), odds)


def _class_tokens(model: PreTrainedModel) -> int:
    return 2 if hasattr(model, "distillation_classifier") else 1


@contextmanager
def _each_attention(model: PreTrainedModel, use: Callable[[Tensor], None]) -> Iterator[None]:
    """Call `use` with the attention weights of each layer as the forward pass computes them."""
    reason = no_class_token(model)
    if reason:
        raise ValueError(
            f"expected a model with a class token that attends to all patches; found {type(model).__name__}: {reason}."
            " Use grad_cam or integrated_gradients."
        )

    def hook(_module: nn.Module, _inputs: object, output: object) -> None:
        match output:
            case (Tensor(), Tensor(ndim=4) as weights, *_):
                use(weights)

    with ExitStack() as hooks:
        for module in model.modules():
            if next(module.children(), None):  # leaves are no attention modules, which contain linear layers
                hooks.callback(module.register_forward_hook(hook).remove)
        yield
