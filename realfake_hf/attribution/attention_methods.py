"""Attention maps of a model: run it, take each layer's weights as it is reached, read the row of the class token."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from realfake_hf.attribution import attention
from realfake_hf.attribution.attention import HeadFusion
from realfake_hf.attribution.maps import Maps, Target, direction, log_odds, patch_grid
from realfake_hf.parallel import available_cores, map_in_threads


def rollout(
    model: PreTrainedModel,
    pixel_values: Tensor,
    target: Target,  # noqa: ARG001  both labels get the same map
    *,
    head_fusion: HeadFusion = "mean",
    discard_ratio: float = 0.0,
) -> Maps:
    """Give `attention.attention_rollout` maps, which know no class and ignore the classifier's head.

    The heads of each layer become one as soon as it is computed, so that those of one layer at a time are in memory.
    """
    fuse = partial(attention.distributions, head_fusion=head_fusion, discard_ratio=discard_ratio)
    read = partial(attention.rollout_rows, rows=_class_tokens(model))
    return _folded(model, pixel_values, lambda before, weights: [*(before or []), fuse(weights)], read)


def last_attention(
    model: PreTrainedModel,
    pixel_values: Tensor,
    target: Target,  # noqa: ARG001  both labels get the same map
    *,
    head_fusion: HeadFusion = "mean",
) -> Maps:
    """Give the attention of the last layer as it is, its heads fused."""
    fuse = partial(attention.fuse_heads, head_fusion=head_fusion)
    return _folded(model, pixel_values, lambda _, weights: [fuse(weights)], lambda found: found[0])


def gradient_rollout(model: PreTrainedModel, pixel_values: Tensor, target: Target) -> Maps:
    """Give `attention.gradient_rollout` maps. The attention of all layers of the batch is in memory at once."""
    weights, gradients, odds = _differentiated(model, pixel_values, target)
    return _read(attention.gradient_rollout(weights, gradients), model, pixel_values, odds)


def relevance(model: PreTrainedModel, pixel_values: Tensor, target: Target) -> Maps:
    """Give `attention.relevance` maps. The attention of all layers of the batch is in memory at once."""
    weights, gradients, odds = _differentiated(model, pixel_values, target)
    rows = attention.relevance_rows(weights, gradients, rows=_class_tokens(model))
    return _read(rows, model, pixel_values, odds)


def lack_of_class_token(model: PreTrainedModel) -> str | None:
    """Say why the verdict of a model does not come from a class token that attends to all patches; None: it does."""
    heads = getattr(model.config, "num_attention_heads", None)
    if heads is None:
        return "which has no attention"
    if not isinstance(heads, int):
        return "whose attention stays inside windows or stages"
    if getattr(model.config, "use_mean_pooling", False):  # as BEiT's, which then has a class token that nothing reads
        return "whose verdict comes from the mean of its patches and not from its class token"
    return None


@contextmanager
def eager_attention(model: PreTrainedModel) -> Iterator[None]:
    """Let a model compute attention so that the weights can be seen, and give it back as it was."""
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.set_attn_implementation(before)


def _folded(
    model: PreTrainedModel,
    pixel_values: Tensor,
    keep: Callable[[list[Tensor] | None, Tensor], list[Tensor]],
    read: Callable[[list[Tensor]], Tensor],
) -> Maps:
    """Keep of each layer's attention what is read in the end; on a CPU each core has a part of the batch."""
    kept: dict[int, list[Tensor]] = {}  # by thread

    def look(weights: Tensor) -> None:
        thread = threading.get_ident()
        kept[thread] = keep(kept.get(thread), weights)

    @torch.no_grad()
    def maps_of(part: Tensor) -> Maps:
        kept.pop(threading.get_ident(), None)  # of a part that failed
        odds = log_odds(model, part)
        found = kept.pop(threading.get_ident(), None)
        if found is None:
            raise ValueError(attention.NO_WEIGHTS)
        return _read(read(found), model, part, odds)

    parts = pixel_values.chunk(available_cores()) if pixel_values.device.type == "cpu" else (pixel_values,)
    with _each_attention(model, look):
        maps = list(map_in_threads(maps_of, parts))
    return Maps(torch.cat([one.values for one in maps]), torch.cat([one.log_odds for one in maps]))


def _differentiated(
    model: PreTrainedModel, pixel_values: Tensor, target: Target
) -> tuple[list[Tensor], tuple[Tensor, ...], Tensor]:
    """The attention of each layer, the gradients of the target's log-odds with respect to it, the log-odds of FAKE."""
    weights: list[Tensor] = []
    with torch.enable_grad(), _each_attention(model, weights.append):
        odds = log_odds(model, pixel_values.detach().requires_grad_())  # also where the parameters are frozen
    if not weights:
        raise ValueError(attention.NO_WEIGHTS)
    score = odds * direction(odds.detach(), target)
    return weights, torch.autograd.grad(score.sum(), weights), odds.detach()


def _read(matrix: Tensor, model: PreTrainedModel, pixel_values: Tensor, odds: Tensor) -> Maps:
    grid = patch_grid(model, pixel_values)
    return Maps(attention.class_token_map(matrix, grid=grid, class_tokens=_class_tokens(model)), odds)


def _class_tokens(model: PreTrainedModel) -> int:
    return 2 if hasattr(model, "distillation_classifier") else 1


@contextmanager
def _each_attention(model: PreTrainedModel, use: Callable[[Tensor], None]) -> Iterator[None]:
    """Call `use` with the attention weights of each layer when the forward pass computes them.

    What computes them has layers of its own, for queries and keys, so that the leaves of the model are left alone.
    """
    _check_attention(model)

    def look(_module: nn.Module, _inputs: object, output: object) -> None:
        match output:
            case (Tensor(), Tensor(ndim=4) as weights, *_):
                use(weights)

    inner = [module for module in model.modules() if next(module.children(), None) is not None]
    handles = [module.register_forward_hook(look) for module in inner]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _check_attention(model: PreTrainedModel) -> None:
    lack = lack_of_class_token(model)
    if lack:
        raise ValueError(
            f"wanted a model in which a class token attends to all patches; found {type(model).__name__}, {lack}. Use "
            "grad_cam or integrated_gradients."
        )
