"""Faster inference on CPUs: weights in the layout of oneDNN, fused GELU, and products in bfloat16.

PyTorch computes bias, product and activation of a float32 linear layer in three passes over memory; oneDNN needs one.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeGuard

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.activations import GELUActivation

CLASS_TOKENS: Final = {"vit": 1, "deit": 2}  # by model type: the most leading tokens that a classifier reads
INSTRUCTIONS: Final = ("amx_bf16", "avx512_bf16")  # for products in bfloat16, as named in torch
MIN_BATCH: Final = 4  # images per forward pass in bfloat16
SHORT: Final = 257  # tokens up to which attention over all heads at once is faster
_ACTIVATED: Final = ("fc1", "activation_fn")  # a linear layer and its activation, as named in transformers
_MLP: Final = (*_ACTIVATED, "fc2")
_MULTIVIEW_TYPE: Final = "multiview"  # whose tower computes in bfloat16 as a whole
_BFLOAT16_TYPES: Final = ("vit", "deit", "dinov2")  # model types with blocks that `Bfloat16Block` supports
_NORMS: Final = (("layernorm_before", "layernorm_after"), ("norm1", "norm2"))  # as named in transformers
_QUERY_KEY_VALUE: Final = ("q_proj", "k_proj", "v_proj")


class PackedLinear(nn.Linear):
    """A linear layer, optionally with the GELU that follows it, computed by oneDNN from the original's parameters.

    It is an ordinary layer if gradients are enabled, the input is not float32 or the device is not a CPU. Changed
    weights are packed again, except for changes through `.data`, which PyTorch does not record. With `uses_bfloat16`,
    the layer multiplies in bfloat16 and returns bfloat16.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__(linear.in_features, linear.out_features, bias=linear.bias is not None, device="meta")
        self.weight, self.bias = linear.weight, linear.bias
        self.fuses_gelu = self.uses_bfloat16 = False
        self._packed: _Packed | None = None

    def forward(self, input: Tensor) -> Tensor:
        """Map (..., in_features) to (..., out_features)."""
        if not is_packable(input, or_bfloat16=self.uses_bfloat16):
            return super().forward(input)
        attr, algorithm = ("gelu", "none") if self.fuses_gelu else ("none", "")
        weight, bias = self._pack()
        values = input.bfloat16() if self.uses_bfloat16 else input
        return torch.ops.mkldnn._linear_pointwise(values, weight, bias, attr, [], algorithm)  # type: ignore[no-any-return]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_packed": None}  # a copy packs its own parameters

    def _pack(self) -> tuple[Tensor, Tensor | None]:
        parameters = [parameter for parameter in (self.weight, self.bias) if parameter is not None]
        state = tuple((parameter.data_ptr(), parameter._version) for parameter in parameters)
        if self._packed is None or self._packed.state != state:
            sources = [parameter.detach() for parameter in parameters]
            weight, *bias = (source.bfloat16() for source in sources) if self.uses_bfloat16 else sources
            packed = torch.ops.mkldnn._reorder_linear_weight(weight)
            self._packed = _Packed(state, sources, packed, bias[0] if bias else None)
        return self._packed.weight, self._packed.bias


@dataclass(frozen=True)
class _Packed:
    """Parameters in the layout of oneDNN."""

    state: tuple[tuple[int, int], ...]  # addresses and versions of the original parameters
    sources: list[Tensor]  # the original parameters, so that their memory is not reused
    weight: Tensor
    bias: Tensor | None


class FusedGelu(nn.Module):
    """The GELU after a `PackedLinear`: the identity if that layer has applied it."""

    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        self.activation, self.uses_bfloat16 = activation, False

    def forward(self, input: Tensor) -> Tensor:
        """Return the activation of the linear layer's output."""
        return input if is_packable(input, or_bfloat16=self.uses_bfloat16) else self.activation(input)


class LeadingTokens:
    """The `forward` of a token-wise module, restricted to the leading tokens; the output of the others is 0."""

    def __init__(self, forward: Callable[[Tensor], Tensor], tokens: int) -> None:
        self.forward, self.tokens = forward, tokens

    def __call__(self, input: Tensor) -> Tensor:
        """Map (batch, tokens, width) to the same shape."""
        if not is_packable(input):
            return self.forward(input)
        output = torch.zeros_like(input)
        output[:, : self.tokens] = self.forward(input[:, : self.tokens])
        return output


class Bfloat16Block:
    """The `forward` of a ViT block with products in bfloat16, without gradients or attention weights.

    Query, key and value are one product; norms and residuals are float32. The block is one of a packed ViT, DeiT or
    DINOv2, whose linear layers are switched to bfloat16; `tokens` leading tokens are returned, by default all.
    """

    def __init__(self, block: nn.Module, tokens: int | None = None) -> None:
        self.block, self.tokens = block, tokens
        self.forward: Callable[..., Tensor] = block.forward
        for module in block.modules():
            if isinstance(module, PackedLinear | FusedGelu):
                module.uses_bfloat16 = True
        attention: Any = block.attention
        self._qkv = PackedLinear(_concatenated([getattr(attention, name) for name in _QUERY_KEY_VALUE]))
        self._qkv.uses_bfloat16 = True
        self._norms = next([getattr(block, name) for name in names] for names in _NORMS if hasattr(block, names[0]))
        self._scales = [getattr(block, name, None) for name in ("layer_scale1", "layer_scale2")]  # in DINOv2

    def __call__(self, hidden: Tensor, mask: Tensor | None = None, **options: Any) -> Tensor:  # noqa: ANN401
        """Map (batch, all tokens, width) float32 to (batch, tokens, width) float32."""
        if mask is not None or self.block.training or not is_packable(hidden):
            return self.forward(hidden, mask, **options)
        attended = self._attend(self._norms[0](hidden).bfloat16())
        hidden = _add_residual(attended, hidden[:, : self.tokens], self._scales[0])
        return _add_residual(self.block.mlp(self._norms[1](hidden).bfloat16()), hidden, self._scales[1])  # type: ignore[operator]

    def _attend(self, hidden: Tensor) -> Tensor:
        attention: Any = self.block.attention
        heads = (3, attention.num_attention_heads, attention.head_dim)
        query, key, value = self._qkv(hidden).view(*hidden.shape[:2], *heads).permute(2, 0, 3, 1, 4).unbind()
        query = query[:, :, : self.tokens]
        attend = _short_attention if key.shape[-2] <= SHORT else nn.functional.scaled_dot_product_attention
        mixed = attend(query, key, value, scale=attention.scaling)
        return attention.o_proj(mixed.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


def is_packable(values: Tensor, *, or_bfloat16: bool = False) -> bool:
    """Return whether oneDNN computes this input: float32 (or bfloat16 if set) on a CPU, without gradients."""
    return (
        (values.dtype == torch.float32 or (or_bfloat16 and values.dtype == torch.bfloat16))
        and values.device.type == "cpu"
        and not torch.is_grad_enabled()
        and not torch.compiler.is_compiling()
    )


def pack(model: PreTrainedModel) -> None:
    """Replace the linear layers of a model and the exact GELUs after them by `PackedLinear`, in place.

    A ViT or DeiT predicts from its class tokens alone, so the MLP of its last block skips the patches. Parameters,
    their names and saved files are unchanged; logits agree up to float32 rounding. Without oneDNN, do nothing.
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
        mlp: Any = _last_block(model).mlp
        mlp.forward = LeadingTokens(mlp.forward, tokens)


def has_fast_bfloat16() -> bool:
    """Return whether this CPU supports bfloat16 in hardware, by AMX or AVX512-BF16."""
    has_onednn: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return has_onednn and any(torch.cpu.get_capabilities().get(name) for name in INSTRUCTIONS)


def in_bfloat16(model: PreTrainedModel) -> PreTrainedModel:
    """Return a copy of a packed ViT, DeiT, DINOv2 or multi-view tower that multiplies in bfloat16, for logits only.

    It is faster if `has_fast_bfloat16`. Residuals, norms and the classifier remain in float32, which is more accurate
    than all weights in bfloat16. The copy returns no attention, does not follow later changes of the weights, and its
    last block returns only the tokens that the classifier reads. Models of other types are copied unchanged.
    """
    duplicate = copy.deepcopy(model)
    if model.config.model_type == _MULTIVIEW_TYPE:
        duplicate.get_submodule("tower").to(torch.bfloat16)
    if model.config.model_type not in _BFLOAT16_TYPES:
        return duplicate
    last = _last_block(duplicate)
    tokens = CLASS_TOKENS.get(model.config.model_type)
    for block in duplicate.base_model.modules():
        if hasattr(block, "attention") and hasattr(block, "mlp"):
            block.forward = Bfloat16Block(block, tokens if block is last else None)
    return duplicate


def is_bfloat16(model: PreTrainedModel) -> bool:
    """Return whether a model is a copy that multiplies in bfloat16."""
    is_packed = any(isinstance(module, PackedLinear) and module.uses_bfloat16 for module in model.modules())
    return is_packed or any(parameter.dtype == torch.bfloat16 for parameter in model.parameters())


def logits_of(model: PreTrainedModel, pixel_values: Tensor) -> Tensor:
    """Return the logits of a batch, independent of the batch size.

    For one or two images or views, oneDNN sums in another order than for more, which changes the third digit in
    bfloat16. The batches of a model from `in_bfloat16` are therefore padded to four.
    """
    missing = MIN_BATCH - pixel_values[..., 0, 0, 0].numel()  # of (batch, channels, ...) or (batch, views, ...)
    if missing <= 0 or not is_bfloat16(model):
        return _logits(model, pixel_values)
    padded = torch.cat([pixel_values, pixel_values.new_zeros(missing, *pixel_values.shape[1:])])
    return _logits(model, padded)[: len(pixel_values)]


def _logits(model: PreTrainedModel, pixel_values: Tensor) -> Tensor:
    output = model(pixel_values=pixel_values)
    if not isinstance(getattr(output, "logits", None), Tensor):
        raise ValueError(
            f"expected a classifier that returns logits; found {type(model).__name__}, which returns none."
        )
    return output.logits  # type: ignore[no-any-return]


def _last_block(model: PreTrainedModel) -> nn.Module:
    """Return the last block of a ViT, DeiT or DINOv2."""
    layers = next(module for module in model.base_model.modules() if isinstance(module, nn.ModuleList))
    return layers[-1]


def _fuse_gelu(block: nn.Module) -> None:
    """Fuse the GELU of an MLP into its first layer; SegFormer has a convolution between them."""
    linear, activation = (getattr(block, name, None) for name in _ACTIVATED)
    others = {name for name, child in block.named_children() if not isinstance(child, nn.Dropout)} - set(_MLP)
    if isinstance(linear, PackedLinear) and _is_exact_gelu(activation) and not others:
        linear.fuses_gelu = True
        setattr(block, _ACTIVATED[1], FusedGelu(activation))


def _is_exact_gelu(activation: object) -> TypeGuard[nn.Module]:
    if isinstance(activation, nn.GELU):
        return activation.approximate == "none"
    return isinstance(activation, GELUActivation) and activation.act is nn.functional.gelu


def _concatenated(layers: list[nn.Linear]) -> nn.Linear:
    """Return one layer whose output is the concatenated outputs of several."""
    has_bias = layers[0].bias is not None
    joint = nn.Linear(layers[0].in_features, sum(layer.out_features for layer in layers), bias=has_bias, device="meta")
    for name, _ in list(joint.named_parameters()):
        setattr(joint, name, nn.Parameter(torch.cat([getattr(layer, name).detach() for layer in layers])))
    return joint


def _short_attention(query: Tensor, key: Tensor, value: Tensor, *, scale: float) -> Tensor:
    """Compute scaled dot-product attention, in one product for all heads."""
    scores = torch.matmul(query, key.transpose(-1, -2)).mul_(scale)
    return torch.matmul(scores.softmax(-1), value)


def _add_residual(output: Tensor, hidden: Tensor, scale: Any) -> Tensor:  # noqa: ANN401
    output = output.float()  # adding tensors of two dtypes is slower
    return (output if scale is None else output.mul_(scale.lambda1)).add_(hidden)
