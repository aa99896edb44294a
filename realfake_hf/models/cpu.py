"""A model's own sums on CPUs, faster, where nobody asks for gradients: weights laid out as oneDNN wants them.

For each call PyTorch's own float32 layer copies the bias over its output, multiplies, and leaves an activation that
follows to another pass over memory.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeGuard

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.activations import GELUActivation

_ACTIVATED: Final = ("fc1", "activation_fn")  # a linear layer and what follows it, as transformers' blocks name them
CLASS_TOKENS: Final = {"vit": 1, "deit": 2}  # leading tokens that a classifier of this type reads at most
INSTRUCTIONS: Final = ("amx_bf16", "avx512_bf16")  # that multiply bfloat16, as torch calls them
LEAST: Final = 4  # pictures that a rounding model gets
SHORT: Final = 257  # tokens up to which attention to all of them at once is the faster way
_TYPES: Final = ("vit", "deit", "dinov2")  # models of blocks that `RoundingBlock` knows
_NORMS: Final = (("layernorm_before", "layernorm_after"), ("norm1", "norm2"))  # as transformers' blocks name them
_QUERY_KEY_VALUE: Final = ("q_proj", "k_proj", "v_proj")


class PackedLinear(nn.Linear):
    """A linear layer, and maybe the GELU behind it, that oneDNN computes in one go; it shares another's parameters.

    Where there are gradients, another type than float32 or another device it is an ordinary layer. Weights that change
    are laid out anew, but for changes that PyTorch is not told of, through `.data`.

    Attributes:
        fuses_gelu: whether the GELU is in it.
        rounds: whether it multiplies in bfloat16, and gives its sums so.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__(linear.in_features, linear.out_features, bias=linear.bias is not None, device="meta")
        self.weight, self.bias = linear.weight, linear.bias
        self.fuses_gelu = self.rounds = False
        self._packed: _Packed | None = None

    def forward(self, input: Tensor) -> Tensor:
        """Give (..., out_features) of (..., in_features)."""
        if not is_packable(input, rounds=self.rounds):
            return super().forward(input)
        attr, algorithm = ("gelu", "none") if self.fuses_gelu else ("none", "")
        weight, bias = self._laid_out()
        values = input.bfloat16() if self.rounds else input
        return torch.ops.mkldnn._linear_pointwise(values, weight, bias, attr, [], algorithm)  # type: ignore[no-any-return]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_packed": None}  # a copy lays its own weights out

    def _laid_out(self) -> tuple[Tensor, Tensor | None]:
        given = (self.weight, self.bias)
        state = tuple((one.data_ptr(), one._version) for one in given if one is not None)
        if self._packed is None or self._packed.state != state:
            sources = (self.weight.detach(), None if self.bias is None else self.bias.detach())
            weight, bias = (one if one is None or not self.rounds else one.bfloat16() for one in sources)
            self._packed = _Packed(state, sources, torch.ops.mkldnn._reorder_linear_weight(weight), bias)
        return self._packed.weight, self._packed.bias


@dataclass(frozen=True)
class _Packed:
    """Parameters as oneDNN wants them.

    Attributes:
        state: where the parameters lay, and their versions.
        sources: the parameters, so that their memory is not given to others.
        weight: laid out.
        bias: of the weight's type.
    """

    state: tuple[tuple[int, int], ...]
    sources: tuple[Tensor, Tensor | None]
    weight: Tensor
    bias: Tensor | None


class FusedGelu(nn.Module):
    """The GELU behind a `PackedLinear`: nothing where that layer has done it already."""

    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        self.activation, self.rounds = activation, False

    def forward(self, input: Tensor) -> Tensor:
        """Give GELU of the linear layer's sums, of the same shape."""
        return input if is_packable(input, rounds=self.rounds) else self.activation(input)


def is_packable(values: Tensor, *, rounds: bool = False) -> bool:
    """Say whether oneDNN is to compute this: float32 on CPU, or bfloat16 where it rounds, for its result alone."""
    return (
        (values.dtype == torch.float32 or (rounds and values.dtype == torch.bfloat16))
        and values.device.type == "cpu"
        and not torch.is_grad_enabled()
        and not torch.compiler.is_compiling()
    )


class FirstTokens:
    """What a block makes of the leading tokens, where nothing else of it is read; zeros stand for the others.

    Args:
        forward: of the block.
        tokens: how many are read.
    """

    def __init__(self, forward: Callable[[Tensor], Tensor], tokens: int) -> None:
        self.forward, self.tokens = forward, tokens

    def __call__(self, input: Tensor) -> Tensor:
        """Give (batch, tokens, width) of the same."""
        if not is_packable(input):
            return self.forward(input)
        output = torch.zeros_like(input)
        output[:, : self.tokens] = self.forward(input[:, : self.tokens])
        return output


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


def pack(model: PreTrainedModel) -> None:
    """Let a model's linear layers, and the exact GELUs behind them, be computed by oneDNN, and nothing in vain.

    A ViT or DeiT decides by its class tokens alone, so that the last block's MLP has no need to see the patches. The
    parameters, their names and what is saved stay as they are, and the logits agree to float32's rounding. Nothing
    happens where PyTorch lacks oneDNN.
    """
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return
    for name, module in list(model.named_modules()):
        if type(module) is nn.Linear:
            model.set_submodule(name, PackedLinear(module))
    for block in list(model.modules()):
        _fuse_gelu(block)
    tokens = CLASS_TOKENS.get(model.config.model_type)
    if tokens:
        mlp: Any = last_block(model).mlp
        mlp.forward = FirstTokens(mlp.forward, tokens)


def last_block(model: PreTrainedModel) -> nn.Module:
    """Give the last block of a ViT, DeiT or DINOv2."""
    layers = [module for module in model.base_model.modules() if isinstance(module, nn.ModuleList)]
    return list(layers[0])[-1]


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


def _fuse_gelu(block: nn.Module) -> None:
    linear, activation = (getattr(block, name, None) for name in _ACTIVATED)
    if isinstance(linear, PackedLinear) and _is_exact_gelu(activation):
        linear.fuses_gelu = True
        setattr(block, _ACTIVATED[1], FusedGelu(activation))


def _is_exact_gelu(activation: object) -> TypeGuard[nn.Module]:
    if isinstance(activation, nn.GELU):
        return activation.approximate == "none"
    return isinstance(activation, GELUActivation) and activation.act is nn.functional.gelu


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
