"""Heads with other layers, poolings and losses than those of the model, on stored features of a frozen tower."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, normalize
from tqdm.auto import trange

from realfake_hf.training.features import WHOLE, WINDOWS, Features

_BATCH: Final = 256  # images whose features are read at once
_TEMPERATURE: Final = 0.1  # of the contrastive term

Rows = NDArray[np.intp]


@dataclass(frozen=True)
class HeadSettings:
    """What distinguishes a head.

    Attributes:
        hidden_units: units of the hidden layer; 0 means a linear head.
        dropout: of the inputs of the first layer.
        shared: whether the whole image and its windows have the same head.
        pooling: score of the windows: their `mean`, their `max`, or a mean with weights that each window is given
            by the head (`attention`).
        consistency: weight of the squared difference between the scores of an image and of a changed copy of it.
        contrastive: weight of a supervised contrastive term on the hidden layer for the whole image.
        weighted_blocks: whether the inputs are the standardised tokens of all layers, averaged with learnt weights
            (RINE; Koutlis & Papadopoulos, 2024), instead of principal components of the features.
        seeds: heads whose scores are averaged.

    Raises:
        ValueError: the pooling is unknown, or there is a contrastive term without a hidden layer.
    """

    hidden_units: int = 64
    dropout: float = 0.5
    shared: bool = False
    pooling: str = "mean"
    consistency: float = 0.0
    contrastive: float = 0.0
    weighted_blocks: bool = False
    seeds: int = 1

    def __post_init__(self) -> None:
        if self.pooling not in ("mean", "max", "attention"):
            raise ValueError(f"expected the pooling mean, max or attention; found {self.pooling}.")
        if self.contrastive and not self.hidden_units:
            raise ValueError("expected hidden_units for the contrastive term; found none.")


@dataclass(frozen=True, eq=False)
class Space:
    """Statistics of the features of one kind of views: `mean` and `std` (width,), `axes` (width, components)."""

    mean: Tensor
    std: Tensor
    axes: Tensor


class Inputs:
    """The inputs of heads for images in several variants: components along axes, or standardised features.

    Args:
        variants: features of the same images.
        spaces: statistics of the whole images and of the windows.
        project: whether to compute the components of all images now; otherwise, features are read when asked for.
    """

    def __init__(self, variants: Sequence[Features], spaces: Sequence[Space], *, project: bool) -> None:
        self.variants, self.spaces = variants, spaces
        self.components: Tensor | None = None
        if project:
            parts = [self._batches(variant) for variant in variants]
            self.components = torch.stack(parts)  # (variants, n, views, components)

    def __call__(self, variants: Rows, rows: Rows) -> Tensor:
        """Return the inputs of images, each in one variant: (batch, views, width)."""
        if self.components is not None:
            return self.components[torch.from_numpy(variants), torch.from_numpy(rows)]
        features = np.stack([self.variants[variant][row] for variant, row in zip(variants, rows, strict=True)])
        return torch.cat(self._standardise(features), dim=1)

    def _standardise(self, features: NDArray[np.float16]) -> list[Tensor]:
        values = torch.from_numpy(features).float()
        return [
            (values[:, views] - space.mean) / space.std
            for views, space in zip((WHOLE, WINDOWS), self.spaces, strict=True)
        ]

    def _batches(self, variant: Features) -> Tensor:
        parts = []
        for rows in np.array_split(np.arange(len(variant)), ceil(len(variant) / _BATCH)):
            kinds = zip(self._standardise(variant[rows]), self.spaces, strict=True)
            parts.append(torch.cat([values @ space.axes for values, space in kinds], dim=1))
        return torch.cat(parts)


class ViewHeads(nn.Module):
    """One head for the whole image and one for its windows, or the same for both.

    Args:
        settings: of the heads.
        width: of the inputs.
        token: width of a token, of which the inputs consist if their blocks are weighted.
    """

    def __init__(self, settings: HeadSettings, width: int, token: int) -> None:
        super().__init__()
        self.pooling = settings.pooling
        self.kinds = nn.ModuleList(_Head(settings, width, token) for _ in range(1 if settings.shared else 2))

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Judge images (batch, views, width).

        Returns:
            scores (batch,), scores of the views (batch, views), hidden activations of the whole image (batch, units).
        """
        whole, hidden = self.kinds[0](inputs[:, WHOLE])
        windows, _ = self.kinds[-1](inputs[:, WINDOWS])
        pooled = pool_windows(windows[..., 0], self.pooling, windows[..., -1])
        scores = torch.cat([whole[..., 0], windows[..., 0]], dim=1)
        return (whole[:, 0, 0] + pooled) / 2, scores, hidden[:, 0]


class _Head(nn.Module):
    def __init__(self, settings: HeadSettings, width: int, token: int) -> None:
        super().__init__()
        self.blocks = nn.Parameter(torch.zeros(width // token, token)) if settings.weighted_blocks else None
        width, units = token if settings.weighted_blocks else width, settings.hidden_units
        layers = [nn.Linear(width, units), nn.GELU()] if units else []
        self.hidden = nn.Sequential(nn.Dropout(settings.dropout), *layers)
        self.last = nn.Linear(units or width, 2 if settings.pooling == "attention" else 1)

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        if self.blocks is not None:
            tokens = inputs.reshape(*inputs.shape[:-1], *self.blocks.shape)
            inputs = torch.einsum("...bt,bt->...t", tokens, self.blocks.softmax(0))
        hidden = self.hidden(inputs)
        return self.last(hidden), hidden


def pool_windows(scores: Tensor, pooling: str, attention: Tensor) -> Tensor:
    """Pool the scores of windows (n, windows) to (n,); the weights of `attention` are a softmax over the windows."""
    if pooling == "max":
        return scores.amax(1)
    return scores.mean(1) if pooling == "mean" else (attention.softmax(1) * scores).sum(1)


def supervised_contrastive(embeddings: Tensor, labels: Tensor) -> Tensor:
    """Return the supervised contrastive loss of embeddings (n, width) (Khosla et al., 2020, *NeurIPS*)."""
    unit = normalize(embeddings, dim=1)
    itself = torch.eye(len(unit), dtype=torch.bool)
    log_p = (unit @ unit.T / _TEMPERATURE).masked_fill(itself, -torch.inf).log_softmax(1)
    same = (labels[:, None] == labels) & ~itself
    return -(log_p.where(same, 0.0).sum(1) / same.sum(1).clamp_min(1)).mean()


def train_heads(
    settings: HeadSettings,
    inputs: Inputs,
    labels: Tensor,
    *,
    weights: NDArray[np.float64],
    shares: NDArray[np.float64],
    token: int,
    seed: int,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    weight_decay: float,
) -> ViewHeads:
    """Train new heads by AdamW with a one-cycle learning rate; batches depend on the images and the seed alone.

    Args:
        settings: of the heads.
        inputs: of the images, at least two variants, the first of which is the image itself.
        labels: (n,) 0 for REAL and 1 for FAKE.
        weights: (n,) probability of each image in a draw.
        shares: probability of each variant.
        token: see `ViewHeads`.
        seed: of the first weights, the dropout and the batches.
        epochs: as often as there are images, images are drawn in an epoch.
        batch_size: images in a batch.
        learning_rate: the highest of the cycle.
        weight_decay: of AdamW.
    """
    steps, copies = epochs * ceil(len(labels) / batch_size), len(shares) - 1
    generator = np.random.default_rng(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        first = np.zeros(1, dtype=np.intp)
        heads = ViewHeads(settings, inputs(first, first).shape[-1], token)
        optimizer = torch.optim.AdamW(heads.parameters(), lr=learning_rate, weight_decay=weight_decay)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=steps)
        for _ in trange(steps, desc="training", leave=False, disable=None):
            rows = generator.choice(len(labels), p=weights, size=batch_size)
            drawn = generator.choice(len(shares), p=shares, size=batch_size)
            other = np.where(
                drawn > 0, 0, generator.integers(copies, size=batch_size) + 1
            )  # a copy for the image itself
            loss = _loss(heads, settings, inputs, labels, rows=rows, variants=(drawn, other))
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
    return heads.eval()


def _loss(
    heads: ViewHeads,
    settings: HeadSettings,
    inputs: Inputs,
    labels: Tensor,
    *,
    rows: Rows,
    variants: tuple[Rows, Rows],
) -> Tensor:
    drawn, other = variants
    targets = labels[torch.from_numpy(rows)].float()
    scores, views, hidden = heads(inputs(drawn, rows))
    of_views = binary_cross_entropy_with_logits(views, targets[:, None].expand_as(views))
    loss = (binary_cross_entropy_with_logits(scores, targets) + of_views) / 2
    if settings.consistency:
        loss = loss + settings.consistency * (scores - heads(inputs(other, rows))[0]).square().mean()
    if settings.contrastive:
        loss = loss + settings.contrastive * supervised_contrastive(hidden, targets)
    return loss


@torch.inference_mode()
def judge(heads: Sequence[ViewHeads], inputs: Inputs) -> NDArray[np.float64]:
    """Return the mean score of several heads for all images, (n,), in their first variant."""
    n, scores = len(inputs.variants[0]), []
    for rows in np.array_split(np.arange(n), ceil(n / _BATCH)):
        values = inputs(np.zeros_like(rows), rows)
        scores.append(torch.stack([each(values)[0] for each in heads]).mean(0))
    return torch.cat(scores).double().numpy()
