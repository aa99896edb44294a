"""Integrated gradients (Sundararajan et al., 2017, *Axiomatic Attribution*, ICML) on a coarse grid."""

from functools import partial
from typing import Final

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d
from transformers import PreTrainedModel

from realfake_hf.attribution.maps import Maps, Target, log_odds

BASELINE: Final = 0.0  # in normalised pixels: the processor's mean, a plain grey picture


def integrated_gradients(
    model: PreTrainedModel,
    pixel_values: Tensor,
    target: Target,  # noqa: ARG001  magnitudes are the same for both labels
    *,
    steps: int = 32,
    grid: tuple[int, int] = (8, 8),
) -> Maps:
    """Integrate the gradient of the log-odds on the straight way from a grey picture to each picture.

    Magnitudes are added over the channels and averaged over the pixels of each cell: what speaks for a label and what
    speaks against it count alike. The grey is the processor's mean, which normalisation turns into 0.

    Args:
        model: any image classifier with one label for real and one for fake.
        pixel_values: (batch, channels, height, width), normalised.
        target: has no effect.
        steps: points on the way, by the Gauss-Legendre rule; as many passes of the batch, one after the other.
        grid: cells of the map, as height and width.

    Raises:
        ValueError: no steps, or a grid without cells.
    """
    from captum.attr import IntegratedGradients  # takes a second to import, which few commands need

    if steps < 1 or min(grid) < 1:
        raise ValueError(f"wanted one step or more and a grid with cells; found {steps} steps and the grid {grid}.")
    with torch.no_grad():
        odds = log_odds(model, pixel_values)
    values = IntegratedGradients(partial(log_odds, model)).attribute(
        pixel_values, baselines=BASELINE, n_steps=steps, internal_batch_size=len(pixel_values)
    )
    return Maps(adaptive_avg_pool2d(values.detach().float().abs().sum(dim=1), grid), odds)
