"""Combine the attention of all layers into one matrix: rollout, gradient rollout and relevance, on tensors only.

The attention of a layer has the shape (batch, heads, tokens, tokens); row i contains the shares of the input tokens in
output token i, and sums to 1. Layers are ordered from first to last.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import accumulate
from typing import Final, Literal, get_args

import torch
from torch import Tensor

HeadFusion = Literal["mean", "max", "min"]

_FUSIONS: Final[tuple[HeadFusion, ...]] = get_args(HeadFusion)


def fuse_heads(attention: Tensor, *, head_fusion: HeadFusion = "mean") -> Tensor:
    """Fuse the heads of a layer: (batch, heads, tokens, tokens) to (batch, tokens, tokens) float32."""
    if head_fusion not in _FUSIONS:
        raise ValueError(f"expected a head_fusion of {', '.join(_FUSIONS)}; found {head_fusion!r}.")
    heads = attention.float()
    return heads.mean(dim=1) if head_fusion == "mean" else getattr(heads, f"a{head_fusion}")(dim=1)


def fuse_layer(attention: Tensor, *, head_fusion: HeadFusion = "mean", discard_ratio: float = 0.0) -> Tensor:
    """Fuse the heads of a layer, discard the lowest weights, and normalise the rows to sum to 1.

    The attention is (batch, heads, tokens, tokens), rows summing to 1; the result (batch, tokens, tokens) float32. A
    share `discard_ratio` of the weights of each image, in [0, 1), is discarded, the lowest first. Ties with the lowest
    remaining weight are kept. A row without weights becomes that of the identity.
    """
    if not 0 <= discard_ratio < 1:
        raise ValueError(f"expected a discard_ratio in [0, 1); found {discard_ratio}.")
    weights = fuse_heads(attention, head_fusion=head_fusion)
    if discard_ratio:
        flat = weights.flatten(1)  # (batch, tokens * tokens)
        threshold = flat.kthvalue(int(discard_ratio * flat.shape[1]) + 1, dim=1).values
        weights = weights * (weights >= threshold[:, None, None])
    is_normalised = head_fusion == "mean" and not discard_ratio  # the mean of distributions is a distribution
    return weights if is_normalised else _normalise_rows(weights)


def attention_rollout(layers: Sequence[Tensor], *, pooling: Tensor, read: Collection[int] = ()) -> Tensor:
    """Compute attention rollout (Abnar & Zuidema, 2020, *Quantifying Attention Flow in Transformers*, ACL).

    It is the product over layers of 0.5 W + 0.5 I, where W is a layer fused by `fuse_layer` and I is the residual
    connection.

    Args:
        layers: (batch, tokens, tokens) each.
        pooling: (tokens,) weights of the output tokens in the row that is computed.
        read: numbers of the layers whose output tokens are pooled and weigh the same, 1 for the first; the last layer
            is among them, and by default the only one.

    Returns:
        (batch, 1, tokens) float32: the share of each input token in the weighted sum of the output tokens.

    Raises:
        ValueError: there are no layers; scaled-dot-product attention returns none.
    """
    return _product(reversed(required(layers)), pooling, read or [len(layers)], share=0.5)


def gradient_rollout(
    attentions: Sequence[Tensor], gradients: Sequence[Tensor], *, pooling: Tensor, read: Collection[int] = ()
) -> Tensor:
    """Compute attention rollout from the attention that favours a class.

    It is the product over layers of W + I with normalised rows, where W is the mean over heads of (dA * A)+. With
    small gradients it ranks patches like `relevance`; it gives less weight to layers with large gradients. Arguments
    are as in `relevance`, and the result as in `attention_rollout`.
    """
    evidence = _evidence(required(attentions), gradients)
    layers = (_normalise_rows(weights + _identity(weights)) for weights in evidence)
    products = list(accumulate(layers, lambda product, weights: torch.matmul(weights, product)))
    rows = [pool(products[number - 1], pooling) for number in read or [len(products)]]
    return torch.stack(rows).mean(dim=0)


def relevance(
    attentions: Sequence[Tensor], gradients: Sequence[Tensor], *, pooling: Tensor, read: Collection[int] = ()
) -> Tensor:
    """Compute relevance (Chefer et al., 2021, *Generic Attention-model Explainability*, ICCV).

    It is the product over layers of W + I, where W is the mean over heads of (dA * A)+. The paper reads the row of the
    class token; a classifier that pools other tokens reads a weighted sum of rows. Attentions, and gradients of the
    class score with respect to them, are (batch, heads, tokens, tokens) of each layer; `pooling` and `read` are as in
    `attention_rollout`.

    Returns:
        (batch, 1, tokens) float32, non-negative: the relevance of each input token to the weighted sum of the output
        tokens, on the scale of the score.
    """
    layers = _evidence(reversed(required(attentions)), reversed(gradients))
    return _product(layers, pooling, read or [len(attentions)], share=1)


def pool(matrix: Tensor, pooling: Tensor) -> Tensor:
    """Return the weighted sum of the rows of a matrix: (batch, tokens, tokens) to (batch, 1, tokens).

    Of the weights, (tokens,), zeros cost nothing: a class token is one row.
    """
    read = pooling.nonzero().flatten()
    return torch.matmul(pooling[read], matrix[:, read]).unsqueeze(1)


def patch_map(row: Tensor, *, grid: tuple[int, int]) -> Tensor:
    """Return the patches of a row: (batch, 1, tokens) to (batch, grid_h, grid_w).

    Special tokens precede the patches. Their number is tokens - grid_h * grid_w: none in SigLIP, one in ViT (class),
    two in DeiT (class and distillation).
    """
    return row[:, 0, row.shape[-1] - grid[0] * grid[1] :].reshape(-1, *grid)


def required(layers: Sequence[Tensor]) -> Sequence[Tensor]:
    """Return the layers; raise a `ValueError` if there are none."""
    if not layers:
        raise ValueError(
            "expected the attention weights of at least one layer; found none. Scaled-dot-product attention does not "
            "return them: load the model with attn_implementation='eager'."
        )
    return layers


def _normalise_rows(weights: Tensor) -> Tensor:
    """Divide each row by its sum; a row of zeros becomes that of the identity."""
    sums = weights.sum(dim=-1, keepdim=True)
    return torch.where(sums > 0, weights / sums, _identity(weights))


def _evidence(attentions: Iterable[Tensor], gradients: Iterable[Tensor]) -> Iterator[Tensor]:
    for weights, gradient in zip(attentions, gradients, strict=True):
        yield (gradient.float() * weights.detach().float()).relu_().mean(dim=1)


def _product(layers: Iterator[Tensor], pooling: Tensor, read: Collection[int], *, share: float) -> Tensor:
    """Return the pooled rows of the product of share * (I + W) over layers, from last to first."""
    last, number, row = next(layers), max(read), pooling / len(read)
    product = share * (row + pool(last, row))
    for weights in layers:
        number -= 1
        product = product + row if number in read else product
        product = torch.baddbmm(product, product, weights, beta=share, alpha=share)
    return product


def _identity(like: Tensor) -> Tensor:
    return torch.eye(like.shape[-1], device=like.device)
