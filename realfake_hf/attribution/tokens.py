"""The tokens in every block of a transformer: their norms, and the attention that they receive."""

from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from realfake_hf.attribution.attention import required
from realfake_hf.attribution.layout import Grid, attention_function, attention_options, block_of, first_tensor
from realfake_hf.attribution.maps import combinable, each_attention, log_odds

OUTLIER: Final = 4.0  # norm of an outlier token at least, in medians of the patches of its block and image


@dataclass(frozen=True)
class Tokens:
    """Norms and attention of the tokens of a batch in each block, from the first to the last; special tokens first."""

    norms: Tensor  # (blocks, batch, tokens) float32, Euclidean norm of each token after the block
    received: (
        Tensor  # (blocks, batch, tokens) float32, attention on each token, mean over heads and queries; sums to 1
    )
    grid: Grid  # height and width of the patches among the tokens

    @property
    def special(self) -> int:
        """The number of special tokens."""
        return self.norms.shape[-1] - self.grid[0] * self.grid[1]

    @property
    def is_outlier(self) -> Tensor:
        """Whether each token is a patch whose norm is above `OUTLIER` medians: (blocks, batch, tokens) bool.

        Darcet et al. (2024, *Vision Transformers Need Registers*, ICLR) cut at a fixed norm that they chose for one
        model. This cut is relative to the patches of the same block and image, so that it fits any model.
        """
        patches = self.norms[..., self.special :]
        found = self.norms > OUTLIER * patches.quantile(0.5, dim=-1, keepdim=True)
        found[..., : self.special] = False
        return found


@torch.no_grad()
def trace_tokens(model: PreTrainedModel, pixel_values: Tensor) -> Tokens:
    """Trace the tokens of images, (batch, channels, height, width), through the blocks up to the last that is read.

    Raises:
        ValueError: the tokens of the model do not attend to all others in every layer.
    """
    layout = combinable(model, pixel_values)
    norms: list[Tensor] = []
    received: list[Tensor] = []

    def keep(_module: nn.Module, _inputs: object, output: object) -> None:
        norms.append(cast("Tensor", first_tensor(output)).float().norm(dim=-1))

    with ExitStack() as hooks:
        for name in layout.attention:
            hooks.callback(block_of(model, name).register_forward_hook(keep).remove)
        hooks.enter_context(attention_function(model, "eager"))
        hooks.enter_context(
            each_attention(model, layout, lambda weights: received.append(weights.float().mean(dim=(1, 2))))
        )
        log_odds(model, pixel_values, **attention_options(model))
    return Tokens(torch.stack(norms), torch.stack(list(required(received))), layout.grid)
