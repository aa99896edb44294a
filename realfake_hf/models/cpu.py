"""A model's own sums on CPUs, faster, where nobody asks for gradients: weights laid out as oneDNN wants them.

For each call PyTorch's own float32 layer copies the bias over its output, multiplies, and leaves an activation that
follows to another pass over memory.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeGuard

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.activations import GELUActivation

_ACTIVATED: Final = ("fc1", "activation_fn")  # a linear layer and what follows it, as transformers' blocks name them
CLASS_TOKENS: Final = {"vit": 1, "deit": 2}  # leading tokens that a classifier of this type reads at most


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


def _fuse_gelu(block: nn.Module) -> None:
    linear, activation = (getattr(block, name, None) for name in _ACTIVATED)
    if isinstance(linear, PackedLinear) and _is_exact_gelu(activation):
        linear.fuses_gelu = True
        setattr(block, _ACTIVATED[1], FusedGelu(activation))


def _is_exact_gelu(activation: object) -> TypeGuard[nn.Module]:
    if isinstance(activation, nn.GELU):
        return activation.approximate == "none"
    return isinstance(activation, GELUActivation) and activation.act is nn.functional.gelu
