"""Attention of all layers folded into one map: rollout, gradient rollout, relevance. Knows tensors, and no model.

A layer's attention is (batch, heads, tokens, tokens): row i says how output token i mixes the input tokens, and sums
to 1. Layers are taken one at a time, first layer first, so an iterator keeps the memory at one of them.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Final, Literal, get_args

import torch
from torch import Tensor

HeadFusion = Literal["mean", "max", "min"]

NO_WEIGHTS: Final = (
    "wanted the attention of one layer or more; found none: scaled-dot-product attention returns no weights. Load the "
    "model with attn_implementation='eager'."
)
_FUSIONS: Final[tuple[HeadFusion, ...]] = get_args(HeadFusion)


def attention_rollout(
    attentions: Iterable[Tensor], *, head_fusion: HeadFusion = "mean", discard_ratio: float = 0.0
) -> Tensor:
    """Fold the attention of all layers into one map (Abnar & Zuidema, 2020, *Quantifying Attention Flow*, ACL).

    The product over layers of A = 0.5 W + 0.5 I, where W is the layer's attention with its heads fused, the lowest
    weights discarded, and its rows made distributions again. The one half stands for the residual connection.

    Args:
        attentions: one (batch, heads, tokens, tokens) tensor a layer, first layer first; rows sum to 1.
        head_fusion: how the heads of a layer become one.
        discard_ratio: share of each image's weights, in [0, 1), that is dropped in every layer, the lowest first.
            Weights that tie with the lowest one kept are kept. A row that loses all its weights passes its own
            token on.

    Returns:
        (batch, tokens, tokens) float32, rows summing to 1: the share of input token j in output token i.

    Raises:
        ValueError: no attentions were returned, as scaled-dot-product attention does; an unknown fusion; a ratio
            outside [0, 1).
    """
    rollout = None
    for attention in attentions:
        rollout = _mixed(rollout, distributions(attention, head_fusion=head_fusion, discard_ratio=discard_ratio))
    return _folded(rollout)


def distributions(attention: Tensor, *, head_fusion: HeadFusion = "mean", discard_ratio: float = 0.0) -> Tensor:
    """Make one of a layer's heads, and rows that sum to 1 of what is not discarded: the W of `attention_rollout`.

    Args:
        attention: (batch, heads, tokens, tokens); rows sum to 1.
        head_fusion: as in `attention_rollout`.
        discard_ratio: as in `attention_rollout`.

    Returns:
        (batch, tokens, tokens) float32.

    Raises:
        ValueError: an unknown fusion; a ratio outside [0, 1).
    """
    if not 0 <= discard_ratio < 1:
        raise ValueError(
            f"wanted a discard_ratio in [0, 1); found {discard_ratio}. It is the share of weights that is dropped."
        )
    weights = fuse_heads(attention, head_fusion=head_fusion)
    if discard_ratio:
        weights = _without_lowest(weights, discard_ratio)
    if discard_ratio or head_fusion != "mean":  # the mean of distributions is one
        weights = _as_distributions(weights)
    return weights


def rollout_rows(layers: Sequence[Tensor], *, rows: int) -> Tensor:
    """Give the first rows of a rollout: from the last layer back a few rows are multiplied, and no whole matrices.

    Args:
        layers: `distributions` of each layer, first layer first: (batch, tokens, tokens).
        rows: how many output tokens, from the first one on.

    Returns:
        (batch, rows, tokens) float32: `attention_rollout(...)[:, :rows]`, up to rounding.
    """
    return _first_rows(reversed(layers), rows=rows, share=0.5)


def fuse_heads(attention: Tensor, *, head_fusion: HeadFusion = "mean") -> Tensor:
    """Make one of a layer's heads: (batch, tokens, tokens) float32 from (batch, heads, tokens, tokens).

    Raises:
        ValueError: an unknown fusion.
    """
    if head_fusion not in _FUSIONS:
        raise ValueError(f"wanted a head_fusion of {', '.join(_FUSIONS)}; found {head_fusion!r}.")
    heads = attention.float()
    return heads.mean(dim=1) if head_fusion == "mean" else getattr(heads, f"a{head_fusion}")(dim=1)


def gradient_rollout(attentions: Iterable[Tensor], gradients: Iterable[Tensor]) -> Tensor:
    """Roll out the attention that speaks for a class.

    The product over layers of W + I with its rows divided by their sums, where W = mean over heads of (dA * A)+, as
    image practice has it. While the gradients are small it ranks patches as `relevance` does; a layer with large ones
    is held back.

    Args:
        attentions: one (batch, heads, tokens, tokens) tensor a layer, first layer first.
        gradients: those of the class's score with respect to them.

    Returns:
        (batch, tokens, tokens) float32, rows summing to 1.

    Raises:
        ValueError: no attentions were returned.
    """
    product = None
    for weights in _evidence(attentions, gradients):
        mixed = _as_distributions(weights + _identity(weights))
        product = mixed if product is None else mixed @ product
    return _folded(product)


def relevance(attentions: Iterable[Tensor], gradients: Iterable[Tensor]) -> Tensor:
    """Fold gradient-weighted attention into one map (Chefer et al., 2021, *Generic Attention-model Explainability*).

    R = I at first, then R = R + W R for each layer, where W = mean over heads of (dA * A)+.

    Args:
        attentions: one (batch, heads, tokens, tokens) tensor a layer, first layer first.
        gradients: those of the class's score with respect to them. A backward pass gives them together, so the
            attentions of all layers of a batch are in memory at once: that, not this sum, bounds the batch.

    Returns:
        (batch, tokens, tokens) float32, not negative: how much input token j matters to output token i. The rows do
        not sum to 1, and the scale is that of the score.

    Raises:
        ValueError: no attentions were returned.
    """
    total = None
    for weights in _evidence(attentions, gradients):
        total = _identity(weights) + weights if total is None else torch.baddbmm(total, weights, total)
    return _folded(total)


def relevance_rows(attentions: Sequence[Tensor], gradients: Sequence[Tensor], *, rows: int) -> Tensor:
    """Give the first rows of a relevance as `rollout_rows` does those of a rollout.

    Args:
        attentions: as `relevance` takes them.
        gradients: likewise.
        rows: how many output tokens, from the first one on.

    Returns:
        (batch, rows, tokens) float32: `relevance(...)[:, :rows]`, up to rounding.
    """
    return _first_rows(_evidence(reversed(attentions), reversed(gradients)), rows=rows, share=1)


def class_token_map(matrix: Tensor, *, grid: tuple[int, int], class_tokens: int = 1) -> Tensor:
    """Read what the class token took from each patch.

    Special tokens come first and are counted, not assumed: tokens - grid_h * grid_w, one in ViT (class) and two in
    DeiT (class, distillation).

    Args:
        matrix: (batch, tokens, tokens), row i for output token i; rows beyond the class tokens may be missing.
        grid: height and width of the patches' grid.
        class_tokens: the leading tokens that the classifier reads; the map is the mean of their rows. One in ViT and
            DeiT; two in a DeiT with a distilled head, whose logits are the mean of a head on each.

    Returns:
        (batch, grid_h, grid_w).

    Raises:
        ValueError: fewer special tokens than class tokens.
    """
    special = matrix.shape[-1] - grid[0] * grid[1]
    if special < class_tokens:
        raise ValueError(
            f"wanted {class_tokens} class token(s) before {grid[0]} x {grid[1]} patches; found {matrix.shape[-1]} "
            "tokens. A model that pools its patches has no class token to read: use grad_cam."
        )
    return matrix[:, :class_tokens, special:].mean(dim=1).reshape(-1, *grid)


def _without_lowest(weights: Tensor, ratio: float) -> Tensor:
    of_image = weights.flatten(1)  # (batch, tokens * tokens)
    least_kept = of_image.kthvalue(int(ratio * of_image.shape[1]) + 1, dim=1).values
    return weights * (weights >= least_kept[:, None, None])


def _as_distributions(weights: Tensor) -> Tensor:
    """Divide each row by its sum; a row of zeros becomes that of the identity."""
    sums = weights.sum(dim=-1, keepdim=True)
    return torch.where(sums > 0, weights / sums, _identity(weights))


def _evidence(attentions: Iterable[Tensor], gradients: Iterable[Tensor]) -> Iterator[Tensor]:
    for weights, gradient in zip(attentions, gradients, strict=True):
        yield (gradient.float() * weights.detach().float()).relu_().mean(dim=1)


def _first_rows(layers: Iterable[Tensor], *, rows: int, share: float) -> Tensor:
    """Multiply share * (I + W) of each layer, last layer first, as far as the first rows of the product need it."""
    found = None
    for layer in layers:
        if found is None:
            found = share * (_identity(layer)[:rows] + layer[:, :rows])
        else:
            found = torch.baddbmm(found, found, layer, beta=share, alpha=share)
    return _folded(found)


def _mixed(product: Tensor | None, weights: Tensor) -> Tensor:
    """(0.5 W + 0.5 I) P."""
    if product is None:
        return _identity(weights).lerp(weights, 0.5)
    return torch.baddbmm(product, weights, product, beta=0.5, alpha=0.5)


def _identity(like: Tensor) -> Tensor:
    return torch.eye(like.shape[-1], device=like.device)


def _folded(matrix: Tensor | None) -> Tensor:
    if matrix is None:
        raise ValueError(NO_WEIGHTS)
    return matrix
