"""What every method differentiates and gives: the log-odds of FAKE, and raw maps beside them."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from transformers import PreTrainedModel

from realfake_hf.labels import fake_index

Target = Literal["predicted", "FAKE", "REAL"]


@dataclass(frozen=True)
class Maps:
    """What a method gives for a batch.

    Attributes:
        values: (batch, grid_h, grid_w) float32 on the method's own scale.
        log_odds: (batch,) of FAKE, from the forward pass that was explained; its sigmoid is `p_fake`.
        layer: the name of the layer that was read, for methods that read one.
    """

    values: Tensor
    log_odds: Tensor
    layer: str | None = None


def log_odds(model: PreTrainedModel, pixel_values: Tensor) -> Tensor:
    """Score a batch: (batch,) the logit of FAKE minus that of REAL.

    Methods differentiate this and not a logit: it alone decides `p_fake`, and the logits of the CIFAKE CNN are
    (0, z), so that REAL's has no gradient.

    Raises:
        ValueError: the model's labels do not say which of its outputs means fake.
    """
    names: dict[int, str] = model.config.id2label  # type: ignore[assignment]
    fake = fake_index(names)
    logits: Tensor = model(pixel_values=pixel_values).logits
    return logits[:, fake] - logits[:, 1 - fake]


def direction(odds: Tensor, target: Target) -> Tensor:
    """Say which way the log-odds speak for the target: (batch,) 1 for FAKE, -1 for REAL."""
    if target == "predicted":
        return torch.where(odds > 0, 1.0, -1.0)
    return torch.full_like(odds, 1.0 if target == "FAKE" else -1.0)


def patch_grid(model: PreTrainedModel, pixel_values: Tensor) -> tuple[int, int]:
    """Count the patches that a model with a patch size cuts pictures into: height and width of their grid."""
    size = model.config.patch_size
    height, width = (size, size) if isinstance(size, int) else size
    return pixel_values.shape[-2] // height, pixel_values.shape[-1] // width
