"""Statistics of features within the labels, from sums that are added over parts of the data; linear discriminants."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_BATCH = 256  # images


@dataclass(frozen=True, eq=False)
class Moments:
    """Weighted sums over views, for REAL and FAKE.

    Attributes:
        offset: (width,), subtracted from the features beforehand, because products of large numbers lose digits; close
            to their mean. Moments with the same offset can be added.
        weight: (2,) sums of the weights.
        total: (2, width) sums of the features.
        products: (2, width, width) sums of their products.
    """

    offset: Tensor
    weight: Tensor
    total: Tensor
    products: Tensor

    def __add__(self, other: "Moments") -> "Moments":
        sums = (getattr(self, name) + getattr(other, name) for name in ("weight", "total", "products"))
        return Moments(self.offset, *sums)

    @classmethod
    def collect(
        cls,
        variants: Sequence[Any],
        is_fake: NDArray[np.bool_],
        weights: NDArray[np.float64],
        *,
        views: slice,
        offset: NDArray[np.float32],
    ) -> "Moments":
        """Sum over images, their variants and views.

        Args:
            variants: features (n, views, width) of the same images.
            is_fake: (n,) labels.
            weights: (variants, n) weights.
            views: the views of each image.
            offset: (width,).
        """
        width = len(offset)
        weight, total, products = torch.zeros(2), torch.zeros(2, width), torch.zeros(2, width, width)
        for label in (0, 1):
            rows = np.flatnonzero(is_fake == bool(label))
            for features, row_weights in zip(variants, weights, strict=True):
                for part in np.split(rows, range(_BATCH, len(rows), _BATCH)):
                    own = features[part][:, views].astype(np.float32) - offset
                    values = torch.from_numpy(own).flatten(0, 1)
                    each = torch.from_numpy(row_weights[part]).float().repeat_interleave(own.shape[1])
                    weight[label] += each.sum()
                    total[label] += each @ values
                    products[label].addmm_((values * each[:, None]).T, values)
        return cls(torch.from_numpy(offset), weight, total, products)


@dataclass(frozen=True, eq=False)
class Standardized:
    """Standardised features; both labels weigh the same.

    Attributes:
        mean: (width,), of the features.
        std: (width,), of the features.
        covariance: (width, width) of the standardised features, within the labels.
        half: (width,), half of the difference between the standardised means of FAKE and REAL.
    """

    mean: Tensor
    std: Tensor
    covariance: Tensor
    half: Tensor

    @classmethod
    def of(cls, moments: Moments) -> "Standardized":
        """Derive the statistics from the moments of both labels."""
        means = moments.total / moments.weight[:, None]
        covariance = (moments.products / moments.weight[:, None, None]).mean(0) - means.T @ means / 2
        half = (means[1] - means[0]) / 2
        std = (covariance.diagonal() + half.square()).sqrt().clamp_min(1e-6)
        covariance /= std * std[:, None]
        return cls(moments.offset + means.mean(0), std, covariance, half / std)

    def shrunk(self, shrinkage: float) -> Tensor:
        """Return the covariance, a share of which is replaced by the same multiple of the identity."""
        shrunk = (1 - shrinkage) * self.covariance
        shrunk.diagonal().add_(shrinkage * self.covariance.trace() / len(self.std))
        return shrunk

    def axes(self, shrinkage: float, components: int) -> Tensor:
        """Return principal axes, each divided by the fourth root of its shrunk variance: (width, components).

        Directions that vary much within the labels count less than in the features as they are, and more than after
        whitening, which divides by the square root.
        """
        variances, axes = torch.linalg.eigh(self.shrunk(shrinkage))
        scaled: Tensor = axes[:, -components:] / variances[-components:].pow(0.25)
        return scaled


@torch.no_grad()
def set_discriminant(head: torch.nn.Sequential, features: Standardized, *, shrinkage: float) -> None:
    """Set a head, of a `Standardize` and a `Linear` layer, to Fisher's discriminant.

    Both labels have the same prior. The covariance within the labels is shrunk towards a multiple of the identity; the
    scores of all views have a standard deviation of one.

    Args:
        head: the head; features (..., width) to scores (..., 1).
        features: the statistics of the features.
        shrinkage: share of a multiple of the identity in the covariance, in (0, 1].
    """
    half, covariance = features.half, features.covariance
    direction = torch.cholesky_solve(half[:, None], torch.linalg.cholesky(features.shrunk(shrinkage)))[:, 0]
    spread = (direction @ covariance @ direction + (direction @ half).square()).sqrt()
    standardize: Any = head[0]
    linear: Any = head[1]
    standardize.mean.copy_(features.mean)
    standardize.std.copy_(features.std)
    linear.weight.copy_(direction[None] / spread)
    linear.bias.zero_()
