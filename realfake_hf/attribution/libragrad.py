"""LibraGrad (Mehri et al., 2025, *LibraGrad: Balancing Gradient Flow*, CVPR) with FullGrad's bias terms."""

from contextlib import ExitStack
from functools import partial
from typing import Any, Final
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.activations import ACT2CLS
from transformers.masking_utils import eager_mask

from realfake_hf.attribution.attention import patch_map
from realfake_hf.attribution.layout import attention_function, block_of, class_name, example_image
from realfake_hf.attribution.maps import Maps, combinable, direction, log_odds
from realfake_hf.attribution.methods import Target

CONSTANT: Final = "realfake_constant"  # name of `constant_attention` in transformers
TOLERANCE: Final = 1e-3  # of the sum of all contributions, relative to the sum of their magnitudes
_fitting: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()
_ACTIVATIONS: Final[Any] = tuple(
    {nn.GELU, *(each[0] if isinstance(each, tuple) else each for each in ACT2CLS.values())}
)


def libragrad(model: PreTrainedModel, pixel_values: Tensor, target: Target) -> Maps:
    """Compute LibraGrad: the positive contributions of patches to the log-odds of the target, see `contributions`."""
    layout = combinable(model, pixel_values)
    at_tokens, elsewhere, odds = contributions(model, pixel_values, first=layout.attention[0])
    size = at_tokens.abs().sum(dim=1) + elsewhere.abs()
    if ((at_tokens.sum(dim=1) + elsewhere - odds).abs() > TOLERANCE * size).any():
        raise ValueError(
            "expected a model that is affine with constant attention, norms and activations; found "
            f"{class_name(model)}, whose contributions do not sum to its log-odds. Use legrad or relevance."
        )
    evidence = (at_tokens * direction(odds, target)[:, None]).relu()
    return Maps(patch_map(evidence[:, None], grid=layout.grid), odds)


def is_complete(model: PreTrainedModel) -> bool:
    """Return whether `libragrad` fits a model, found on one image of its own size, once per model."""
    if model not in _fitting:
        try:
            libragrad(model, example_image(model), "FAKE")
            _fitting[model] = True
        except ValueError:
            _fitting[model] = False
    return _fitting[model]


def contributions(model: PreTrainedModel, pixel_values: Tensor, *, first: str) -> tuple[Tensor, Tensor, Tensor]:
    """Divide the log-odds of FAKE among tokens.

    A contribution is state times gradient at the input of the first block, and bias times gradient in each layer after
    it, summed over channels. Gradients are those of a model whose steps are all affine: attention weights
    (`constant_attention`), the scales of norms, and the ratios of activations to their inputs are constants.

    Args:
        model: an image classifier.
        pixel_values: (batch, channels, height, width), normalised.
        first: name of the first attention layer.

    Returns:
        Contributions at tokens, (batch, tokens), and of biases after tokens are pooled, (batch,); and the log-odds,
        (batch,), their sum.
    """
    AttentionInterface.register(CONSTANT, constant_attention)
    AttentionMaskInterface.register(CONSTANT, eager_mask)
    trace = _Trace()
    with ExitStack() as hooks, attention_function(model, CONSTANT), torch.enable_grad():
        hooks.callback(block_of(model, first).register_forward_pre_hook(trace.begin).remove)
        for module in model.modules():
            if isinstance(module, nn.LayerNorm):
                hooks.callback(module.register_forward_hook(_balance_norm).remove)
            if isinstance(module, _ACTIVATIONS):
                hooks.callback(module.register_forward_hook(_balance_activation).remove)
            if isinstance(getattr(module, "bias", None), Tensor):
                hooks.callback(module.register_forward_hook(trace.add_bias).remove)
        odds = log_odds(model, pixel_values)
        [gradient] = torch.autograd.grad(odds.sum(), trace.states)
    trace.at_tokens += (trace.states.detach() * gradient).sum(dim=-1)
    return trace.at_tokens, trace.elsewhere, odds.detach()


def constant_attention(
    _module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None = None,
    *,
    scaling: float | None = None,
    **_: object,
) -> tuple[Tensor, Tensor]:
    """Compute attention with constant weights, which is linear in the values.

    Queries, keys and values are (batch, heads, tokens, width), the output is (batch, tokens, heads, width).
    """
    with torch.no_grad():
        scores = torch.matmul(query, key.transpose(2, 3)) * (query.shape[-1] ** -0.5 if scaling is None else scaling)
        weights = (scores if mask is None else scores + mask).softmax(dim=-1)
    return torch.matmul(weights, value).transpose(1, 2).contiguous(), weights


class _Trace:
    """Contributions of biases, from the first block on, as gradients become known."""

    states: Tensor  # (batch, tokens, width) before the first block

    def begin(self, _module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        self.states = inputs[0].detach().requires_grad_()
        self.at_tokens, self.elsewhere = inputs[0].new_zeros(inputs[0].shape[:2]), inputs[0].new_zeros(len(inputs[0]))
        return (self.states, *inputs[1:])

    def add_bias(self, module: Any, _inputs: object, output: Tensor) -> None:  # noqa: ANN401 - a module with a bias
        if hasattr(self, "states"):
            output.register_hook(partial(self._add, module.bias.detach()))  # type: ignore[no-untyped-call]

    def _add(self, bias: Tensor, gradient: Tensor) -> None:
        contribution = (gradient * bias).sum(dim=-1)
        (self.at_tokens if contribution.shape == self.at_tokens.shape else self.elsewhere).add_(contribution)


def _balance_norm(module: nn.LayerNorm, inputs: tuple[Tensor], output: Tensor) -> Tensor:
    """Return the output of a norm with the gradient of an affine function, whose scale is constant."""
    centred = inputs[0] - inputs[0].mean(dim=-1, keepdim=True)
    scale = (centred.detach().square().mean(dim=-1, keepdim=True) + module.eps).rsqrt()
    affine = centred * scale * module.weight + (0 if module.bias is None else module.bias)
    return output.detach() + affine - affine.detach()


def _balance_activation(_module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
    """Return the output of an activation as its input times a constant."""
    return inputs[0] * (output / inputs[0]).detach().nan_to_num(0)
