"""Out-of-distribution detection: how far an image is from the training images, in the embedding of the model.

The distance is the Mahalanobis distance to the nearer of two class means, with a shared covariance (Lee et al., 2018,
"A Simple Unified Framework for Detecting Out-of-Distribution Samples and Adversarial Attacks", arXiv 1807.03888).
It adds a warning to a verdict and never changes it.
"""

import json
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from realfake_hf.metrics.operating_point import find_beside
from realfake_hf.store import check_not_pointer

FAMILIARITY: Final = "familiarity.safetensors"
_METADATA: Final = "familiarity"  # key of the file's header

Floats = NDArray[np.floating]


@dataclass(frozen=True, eq=False)
class Familiarity:
    """The distribution of a model's training images in its embedding.

    Attributes:
        means: (2, k), for REAL and FAKE training images.
        precision: (k, k), inverse of the covariance around these means.
        limit: distance beyond which an image is out of distribution, `far` for short.
        far: share of the validation images beyond the limit, in (0, 1).
        n: number of training images.
        n_validation: number of validation images, on which the limit was chosen.
        sha256: fingerprint of the validation split.
        projection: (k, width), applied to the embeddings first; None if they are used as they are.

    Raises:
        ValueError: the shapes do not fit together, or a number is not finite.
    """

    means: Floats
    precision: Floats
    limit: float
    far: float
    n: int
    n_validation: int
    sha256: str
    projection: Floats | None = None

    def __post_init__(self) -> None:
        k, tensors = self.means.shape[-1], self._tensors()
        shapes = [tensor.shape for tensor in tensors.values()]
        if shapes[:2] != [(2, k), (k, k)] or any(len(shape) != 2 or shape[0] != k for shape in shapes[2:]):  # noqa: PLR2004
            raise ValueError(f"expected means (2, k), precision (k, k) and projection (k, width); found {shapes}.")
        if not (all(np.isfinite(tensor).all() for tensor in tensors.values()) and 0 <= self.limit < np.inf):
            raise ValueError("expected finite means, precision, projection and limit; found others.")

    def distances(self, embeddings: Floats) -> NDArray[np.float64]:
        """Return the distance of each embedding, in standard deviations of the training images: (n, width) to (n,).

        Raises:
            ValueError: the embeddings have another width.
        """
        width = (self.means if self.projection is None else self.projection).shape[1]
        if embeddings.ndim != 2 or embeddings.shape[1] != width:  # noqa: PLR2004
            raise ValueError(
                f"expected embeddings (n, {width}); found {embeddings.shape}. Fit the familiarity again with this "
                "model."
            )
        inputs = embeddings if self.projection is None else embeddings @ self.projection.T
        offsets = inputs[:, None, :].astype(np.float64) - self.means  # (n, 2, k)
        squared = (offsets @ self.precision * offsets).sum(axis=2)
        return np.sqrt(np.maximum(squared.min(axis=1), 0))  # type: ignore[no-any-return]

    def is_far(self, embeddings: Floats) -> NDArray[np.bool_]:
        """Return whether each embedding is beyond the limit: (n,)."""
        return self.distances(embeddings) > self.limit

    def save(self, folder: Path) -> Path:
        """Write `familiarity.safetensors` into a model's folder and return its path."""
        facts = {name: getattr(self, name) for name in ("limit", "far", "n", "n_validation", "sha256")}
        tensors = {name: np.ascontiguousarray(tensor, np.float32) for name, tensor in self._tensors().items()}
        save_file(tensors, folder / FAMILIARITY, metadata={_METADATA: json.dumps(facts)})
        return folder / FAMILIARITY

    @classmethod
    def load(cls, file: str | os.PathLike[str]) -> Self:
        """Load what `save` wrote.

        Raises:
            OSError: the file cannot be read.
            ValueError: the file does not contain a familiarity.
        """
        check_not_pointer(Path(file))
        try:
            with safe_open(file, framework="numpy") as tensors:
                facts = json.loads(tensors.metadata()[_METADATA])
                return cls(**{name: tensors.get_tensor(name) for name in tensors.keys()}, **facts)  # noqa: SIM118
        except (SafetensorError, KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"expected the familiarity of a model in {file}; found something else ({error}). Write it again with "
                "python -m realfake_hf.training.posthoc."
            ) from error

    def _tensors(self) -> dict[str, Floats]:
        tensors = {"means": self.means, "precision": self.precision, "projection": self.projection}
        return {name: tensor for name, tensor in tensors.items() if tensor is not None}


def load_familiarity(place: str | os.PathLike[str], *, revision: str = "main") -> Familiarity | None:
    """Load the familiarity from a model's folder or Hub repository; return None if it has none.

    Raises:
        ValueError: the file does not contain a familiarity.
    """
    file = find_beside(place, FAMILIARITY, revision=revision)
    return None if file is None else Familiarity.load(file)


def fit_familiarity(
    embeddings: Floats, is_fake: NDArray[np.bool_], validation: Floats, *, far: float = 0.01, sha256: str,
    components: int | None = None,
) -> Familiarity:  # fmt: skip
    """Fit means and covariance on training images, and choose the limit on validation images.

    Args:
        embeddings: (n, width) embeddings of the training images.
        is_fake: (n,) labels of the training images.
        validation: (m, width) embeddings of images that the model was not trained on.
        far: share of the validation images beyond the limit, in (0, 1).
        sha256: fingerprint of the validation split.
        components: principal components of the training images that count; None means the embeddings as they are.

    Raises:
        ValueError: `far` is outside (0, 1), or all training images have the same label.
    """
    from sklearn.covariance import LedoitWolf

    if not 0 < far < 1:
        raise ValueError(f"expected a share in (0, 1) of validation images that are far; found {far}.")
    if is_fake.all() or not is_fake.any():
        raise ValueError(f"expected training images of both labels; found {len(is_fake):,} of one. Sample others.")
    projection = None
    if components is not None:
        from sklearn.decomposition import PCA

        projection = PCA(components, random_state=0).fit(embeddings).components_.astype(np.float32)
        embeddings, validation = (values @ projection.T for values in (embeddings, validation))
    means = np.stack([embeddings[is_fake == label].mean(axis=0, dtype=np.float64) for label in (False, True)])
    centered = embeddings - means[is_fake.astype(int)]
    precision = LedoitWolf(assume_centered=True).fit(centered).precision_
    familiarity = Familiarity(means, precision, 0, far, len(embeddings), len(validation), sha256)
    limit = float(np.quantile(familiarity.distances(validation), 1 - far))
    return replace(familiarity, limit=limit, projection=projection)
