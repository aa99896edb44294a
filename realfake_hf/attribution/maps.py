"""Common parts of the attribution methods: the explained score, and the maps that they return."""

from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from realfake_hf.attribution.methods import Target
from realfake_hf.labels import fake_index


@dataclass(frozen=True)
class Maps:
    """The raw maps of a batch.

    Attributes:
        values: (batch, grid_h, grid_w) float32 on the scale of the method.
        log_odds: (batch,) log-odds of FAKE in the explained forward pass; their sigmoid is `p_fake`.
        layer: the layer that was read, for methods that read one.
    """

    values: Tensor
    log_odds: Tensor
    layer: str | None = None


def log_odds(model: PreTrainedModel, pixel_values: Tensor, **options: bool) -> Tensor:
    """Return the logit of FAKE minus the logit of REAL, (batch,), in a forward pass with these further arguments.

    Methods differentiate the log-odds, on which `p_fake` depends, and not one logit: the logits of the CIFAKE CNN are
    (0, z), so its logit of REAL has no gradient.

    Raises:
        ValueError: the labels of the model do not mean real and fake.
    """
    names: dict[int, str] = model.config.id2label  # type: ignore[assignment]
    fake = fake_index(names)
    logits: Tensor = model(pixel_values=pixel_values, **options).logits
    return logits[:, fake] - logits[:, 1 - fake]


def direction(odds: Tensor, target: Target) -> Tensor:
    """Return the sign by which the log-odds of FAKE favour the target: (batch,), 1 for FAKE and -1 for REAL."""
    if target == "predicted":
        return torch.where(odds > 0, 1.0, -1.0)
    return torch.full_like(odds, 1.0 if target == "FAKE" else -1.0)
