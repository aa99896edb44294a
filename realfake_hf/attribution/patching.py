"""Activation patching: how much of the difference between two images each cell of a layer carries.

The output of a layer for one image is replaced in a part by that for another image, its donor, and the rest of the
model computes on (Vig et al., 2020, *Investigating Gender Bias in Language Models Using Causal Mediation Analysis*,
NeurIPS; Zhang & Nanda, 2024, *Towards Best Practices of Activation Patching in Language Models*, ICLR).
"""

from dataclasses import dataclass
from typing import Final, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from realfake_hf.attribution.layout import (
    Grid,
    block_of,
    class_name,
    first_tensor,
    layout_of,
    read_cells,
    replace_cells,
    with_first_tensor,
)
from realfake_hf.attribution.maps import default_layer, log_odds

_BATCH: Final = 64  # patched copies of images in one forward pass


@dataclass(frozen=True)
class Effects:
    """Changes of the log-odds of FAKE when activations of images are replaced by those of their donors."""

    cells: Tensor  # (batch, grid_h, grid_w) float32, each cell alone
    special: Tensor  # (batch,) float32, all special tokens together; 0 up to rounding without any
    total: Tensor  # (batch,) float32, log-odds of the donor less those of the image


def patching_layer(model: PreTrainedModel, pixel_values: Tensor | None = None) -> str:
    """Return the layer to patch by default, for pixel values (batch, channels, height, width) of some size.

    It is the block at half depth where each token attends to all others: after the last block, patches have no effect
    on a classifier that reads a class token. Else it is the layer that Grad-CAM reads by default; in a transformer
    with windows, that is a norm inside a residual connection, so that its cells carry a part of the difference alone.
    """
    layout = layout_of(model, pixel_values)
    if layout.refusal:
        return default_layer(model, pixel_values)
    block = block_of(model, layout.attention[(len(layout.attention) - 1) // 2])
    found: str = next(name for name, module in model.named_modules() if module is block)
    return found


@torch.no_grad()
def patch_cells(model: PreTrainedModel, pixel_values: Tensor, donors: Tensor, layer: str) -> Effects:
    """Replace each cell of a layer, one at a time, by the cell of the donor at the same place.

    It takes one forward pass of an image for each cell.

    Args:
        model: an image classifier in eval mode.
        pixel_values: (batch, channels, height, width), normalised.
        donors: as many, in the same order.
        layer: name of a module that returns cells, see `patching_layer`.

    Raises:
        ValueError: the layer returns no cells.
    """
    grid, count = _grid(model, pixel_values, layer), len(pixel_values)
    donor_odds, activations = read_layer(model, donors, layer)
    one = torch.eye(1 + grid[0] * grid[1], dtype=torch.bool, device=pixel_values.device)
    rows, parts = (
        each.flatten() for each in torch.meshgrid(torch.arange(count), torch.arange(len(one)), indexing="ij")
    )
    patched = [
        patched_log_odds(model, pixel_values[row], activations[row], layer, one[part])
        for row, part in zip(torch.split(rows, _BATCH), torch.split(parts, _BATCH), strict=True)
    ]
    odds = log_odds(model, pixel_values).float()
    changes = torch.cat(patched).float().view(count, -1) - odds[:, None]
    return Effects(changes[:, 1:].reshape(count, *grid), changes[:, 0], donor_odds.float() - odds)


def read_layer(model: PreTrainedModel, pixel_values: Tensor, layer: str) -> tuple[Tensor, Tensor]:
    """Return the log-odds of FAKE, (batch,), and what a layer returned, a tensor that begins with the batch."""
    outputs: list[Tensor] = []

    def keep(_module: nn.Module, _inputs: object, output: object) -> None:
        outputs.append(cast("Tensor", first_tensor(output)))

    hook = model.get_submodule(layer).register_forward_hook(keep)
    try:
        return log_odds(model, pixel_values), outputs[0]
    finally:
        hook.remove()


def patched_log_odds(
    model: PreTrainedModel, pixel_values: Tensor, activations: Tensor, layer: str, where: Tensor
) -> Tensor:
    """Return the log-odds of FAKE, (batch,), with a part of the output of a layer replaced.

    The activations are another output of the layer, from `read_layer`. `where` is (batch, 1 + grid_h * grid_w) bool:
    whether all special tokens are replaced, and whether each cell is.
    """
    grid = _grid(model, pixel_values, layer)

    def replace(_module: nn.Module, _inputs: object, output: object) -> object:
        own = cast("Tensor", first_tensor(output))
        special = torch.where(where[:, 0].view(-1, *[1] * (own.ndim - 1)), activations, own)
        cells = torch.where(where[:, 1:].view(-1, 1, *grid), read_cells(activations, grid), read_cells(own, grid))
        return with_first_tensor(output, replace_cells(special, cells))

    hook = model.get_submodule(layer).register_forward_hook(replace)
    try:
        return log_odds(model, pixel_values)
    finally:
        hook.remove()


def _grid(model: PreTrainedModel, pixel_values: Tensor, layer: str) -> Grid:
    grid = layout_of(model, pixel_values).layers.get(layer)
    if grid is None:
        raise ValueError(
            f"expected a layer of {class_name(model)} that returns the cells of a grid; found {layer!r}. Name another "
            f"layer, such as {patching_layer(model, pixel_values)!r}."
        )
    return grid
