"""Judging in bfloat16 on CPUs that multiply it in hardware: products are rounded, what they are added to is not."""

import copy
from collections.abc import Callable
from typing import Any, Final

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from realfake_hf.models.cpu import CLASS_TOKENS, FusedGelu, PackedLinear, is_packable, last_block

INSTRUCTIONS: Final = ("amx_bf16", "avx512_bf16")  # that multiply bfloat16, as torch calls them
LEAST: Final = 4  # pictures that a rounding model gets
SHORT: Final = 257  # tokens up to which attention to all of them at once is the faster way
_TYPES: Final = ("vit", "deit", "dinov2")  # models of blocks that `RoundingBlock` knows
_NORMS: Final = (("layernorm_before", "layernorm_after"), ("norm1", "norm2"))  # as transformers' blocks name them
_QUERY_KEY_VALUE: Final = ("q_proj", "k_proj", "v_proj")


class RoundingBlock:
    """What a ViT block computes, its products in bfloat16, where nobody asks for gradients or its attention.

    Query, key and value are one product; norms and residuals are float32. It stands for the block's `forward`.

    Args:
        block: of a ViT, DeiT or DINOv2 whose linear layers are packed; they shall round from now on.
        tokens: how many leading tokens are read of what it gives; it gives only those. None means all.
    """

    def __init__(self, block: nn.Module, tokens: int | None = None) -> None:
        self.block, self.tokens = block, tokens
        self.forward: Callable[..., Tensor] = block.forward
        for module in block.modules():
            if isinstance(module, PackedLinear | FusedGelu):
                module.rounds = True
        attention: Any = block.attention
        self._qkv = PackedLinear(_joined([getattr(attention, name) for name in _QUERY_KEY_VALUE]))
        self._qkv.rounds = True
        self._norms = next([getattr(block, name) for name in names] for names in _NORMS if hasattr(block, names[0]))
        self._scales = [getattr(block, name, None) for name in ("layer_scale1", "layer_scale2")]  # of DINOv2

    def __call__(self, hidden: Tensor, mask: Tensor | None = None, **options: Any) -> Tensor:  # noqa: ANN401
        """Give (batch, tokens, width) float32 of (batch, all tokens, width)."""
        if mask is not None or self.block.training or not is_packable(hidden):
            return self.forward(hidden, mask, **options)
        attended = self._attend(self._norms[0](hidden).bfloat16())
        hidden = _added(attended, hidden[:, : self.tokens], self._scales[0])
        return _added(self.block.mlp(self._norms[1](hidden).bfloat16()), hidden, self._scales[1])  # type: ignore[operator]

    def _attend(self, rounded: Tensor) -> Tensor:
        attention: Any = self.block.attention
        heads = (3, attention.num_attention_heads, attention.head_dim)
        query, key, value = self._qkv(rounded).view(*rounded.shape[:2], *heads).permute(2, 0, 3, 1, 4).unbind()
        query = query[:, :, : self.tokens]
        attend = _short_attention if key.shape[-2] <= SHORT else nn.functional.scaled_dot_product_attention
        mixed = attend(query, key, value, scale=attention.scaling)
        return attention.o_proj(mixed.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


def has_fast_bfloat16() -> bool:
    """Say whether this processor multiplies bfloat16 in hardware: matrices (AMX), or at least rows (AVX512-BF16)."""
    has_onednn: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return has_onednn and any(torch.cpu.get_capabilities().get(name) for name in INSTRUCTIONS)


def in_bfloat16(model: PreTrainedModel) -> PreTrainedModel:
    """Copy a packed ViT, DeiT or DINOv2; the copy multiplies in bfloat16 on CPUs, where nobody asks for gradients.

    What lies between its products stays in float32: the residuals, norms, and the classifier. So its scores are nearer
    to those of float32 than where all weights are rounded. The speed is that of processors for which
    `has_fast_bfloat16`. The copy is for logits: it keeps no attention, has the weights of now, and its last block
    gives no more tokens than the classifier reads. Other models are copied as they are.
    """
    rough = copy.deepcopy(model)
    if model.config.model_type not in _TYPES:
        return rough
    last = last_block(rough)
    tokens = CLASS_TOKENS.get(model.config.model_type)
    for block in rough.base_model.modules():
        if hasattr(block, "attention") and hasattr(block, "mlp"):
            block.forward = RoundingBlock(block, tokens if block is last else None)
    return rough


def is_rounding(model: PreTrainedModel) -> bool:
    """Say whether a model is a copy that multiplies in bfloat16."""
    return any(isinstance(module, PackedLinear) and module.rounds for module in model.modules())


def logits_of(model: PreTrainedModel, pixels: Tensor) -> Tensor:
    """Give the logits of a batch, the same for a picture whatever its neighbours.

    oneDNN adds up the few rows of one or two pictures in another order than those of more, which in bfloat16 shows in
    the third digit. So a model of `in_bfloat16` never gets so few: nothing stands in for the missing ones. Others get
    the batch as it is.
    """
    missing = LEAST - len(pixels)
    if missing <= 0 or not is_rounding(model):
        return model(pixel_values=pixels).logits  # type: ignore[no-any-return]
    padded = torch.cat([pixels, pixels.new_zeros(missing, *pixels.shape[1:])])
    return model(pixel_values=padded).logits[: len(pixels)]  # type: ignore[no-any-return]


def _joined(layers: list[nn.Linear]) -> nn.Linear:
    """One layer that gives what several give of the same input, one after the other."""
    first = layers[0]
    bias = first.bias is not None
    found = nn.Linear(first.in_features, sum(one.out_features for one in layers), bias=bias, device="meta")
    found.weight = nn.Parameter(torch.cat([one.weight.detach() for one in layers]))
    if bias:
        found.bias = nn.Parameter(torch.cat([one.bias.detach() for one in layers]))
    return found


def _short_attention(query: Tensor, key: Tensor, value: Tensor, *, scale: float) -> Tensor:
    """What `scaled_dot_product_attention` gives: that goes to oneDNN for some rows of a head, this for all heads."""
    scores = torch.matmul(query, key.transpose(-1, -2)).mul_(scale)
    return torch.matmul(scores.softmax(-1), value)


def _added(rounded: Tensor, hidden: Tensor, scale: Any) -> Tensor:  # noqa: ANN401
    exact = rounded.float()  # tensors of two types are added more slowly
    return (exact if scale is None else exact.mul_(scale.lambda1)).add_(hidden)
