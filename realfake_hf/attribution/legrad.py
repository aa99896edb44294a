"""LeGrad (Bousselham et al., 2025, *LeGrad: An Explainability Method for Vision Transformers*, ICCV)."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from realfake_hf.attribution import attention
from realfake_hf.attribution.layout import attention_options, block_of, first_tensor, with_first_tensor
from realfake_hf.attribution.maps import Maps, combinable, direction, each_attention, log_odds
from realfake_hf.attribution.methods import Target


def legrad(model: PreTrainedModel, pixel_values: Tensor, target: Target) -> Maps:
    """Compute LeGrad: the mean over layers, heads and output tokens of the positive gradients of attention weights.

    The gradient is that of the score of the layer itself: the log-odds of the target if the classifier read the states
    after this layer. It passes through one block, because each block starts from constant states. The scores of all
    layers take one pass through the part of the model after its blocks. All states are in memory at once.
    """
    layout = combinable(model, pixel_values)
    blocks = [block_of(model, name) for name in layout.attention]
    weights: list[Tensor] = []
    with torch.enable_grad(), each_attention(model, layout, weights.append), _separated(blocks) as outputs:
        odds = log_odds(model, pixel_values, **attention_options(model)).detach()
    with torch.enable_grad(), _skipped(blocks, outputs):
        scores = log_odds(model, pixel_values[:1]).view(len(blocks), -1) * direction(odds, target)
        gradients = torch.autograd.grad(scores.sum(), attention.required(weights))
    rows = torch.stack([gradient.float().relu_().mean(dim=(1, 2)) for gradient in gradients]).mean(dim=0)
    return Maps(attention.patch_map(rows[:, None], grid=layout.grid), odds)


@contextmanager
def _separated(blocks: Sequence[nn.Module]) -> Iterator[list[Any]]:
    """Detach the states before each block; collect what each returns."""
    outputs: list[Any] = []

    def detach(_module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        return (inputs[0].detach().requires_grad_(), *inputs[1:])  # parameters may be frozen

    with ExitStack() as hooks:
        for block in blocks:
            hooks.callback(block.register_forward_pre_hook(detach).remove)
            hooks.callback(block.register_forward_hook(lambda _module, _inputs, output: outputs.append(output)).remove)
        yield outputs


@contextmanager
def _skipped(blocks: Sequence[nn.Module], outputs: Sequence[Any]) -> Iterator[None]:
    """Let every block return the states after all blocks, as one batch, in place of its own computation."""
    states = torch.cat([cast("Tensor", first_tensor(output)) for output in outputs])
    before = [vars(block).get("forward") for block in blocks]
    for block, output in zip(blocks, outputs, strict=True):
        returned = with_first_tensor(output, states)
        block.forward = lambda *_, returned=returned, **__: returned
    try:
        yield
    finally:
        for block, forward in zip(blocks, before, strict=True):
            if forward is None:
                del block.forward
            else:
                block.forward = forward
