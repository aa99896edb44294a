"""How far a picture lies from those that a model learnt from, in what the model itself sees: a warning, no verdict.

The distance is that of Mahalanobis to the nearer of two label means, with one covariance for both (Lee et al., 2018,
"A Simple Unified Framework for Detecting Out-of-Distribution Samples and Adversarial Attacks", arXiv 1807.03888).
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import save_file
from sklearn.covariance import LedoitWolf

from realfake_hf.metrics.operating_point import find_beside

FAMILIARITY: Final = "familiarity.safetensors"
_FACTS: Final = "familiarity"  # key of the header

Floats = NDArray[np.floating]


@dataclass(frozen=True, eq=False)
class Familiarity:
    """Where a model's training pictures lie in its embedding.

    Attributes:
        means: (2, width), of REAL and FAKE training pictures.
        precision: (width, width), the inverse of the covariance around these means.
        limit: the distance that `far` of the validation pictures exceed; beyond it a picture is far.
        far: in (0, 1).
        n: training pictures.
        n_validation: pictures on which the limit was chosen.
        sha256: the fingerprint of that validation split.
    """

    means: Floats
    precision: Floats
    limit: float
    far: float
    n: int
    n_validation: int
    sha256: str

    def distances(self, embeddings: Floats) -> NDArray[np.float64]:
        """Give the distance of each embedding, in standard deviations of a training picture: (n, width) to (n,).

        Raises:
            ValueError: the embeddings have another width.
        """
        if embeddings.ndim != 2 or embeddings.shape[1] != self.means.shape[1]:  # noqa: PLR2004
            raise ValueError(
                f"wanted embeddings (n, {self.means.shape[1]}), as the model gives them; found {embeddings.shape}. "
                "Fit the familiarity anew with this model."
            )
        away = embeddings[:, None, :].astype(np.float64) - self.means  # (n, 2, width)
        squared = (away @ self.precision * away).sum(axis=2)
        return np.sqrt(np.maximum(squared.min(axis=1), 0))  # type: ignore[no-any-return]

    def is_far(self, embeddings: Floats) -> NDArray[np.bool_]:
        """Say of each embedding whether it lies beyond the limit: (n,)."""
        return self.distances(embeddings) > self.limit

    def save(self, folder: Path) -> Path:
        """Write `familiarity.safetensors` into a model's folder."""
        facts = {name: getattr(self, name) for name in ("limit", "far", "n", "n_validation", "sha256")}
        tensors = {name: np.ascontiguousarray(getattr(self, name), np.float32) for name in ("means", "precision")}
        save_file(tensors, folder / FAMILIARITY, metadata={_FACTS: json.dumps(facts)})
        return folder / FAMILIARITY

    @classmethod
    def load(cls, file: str | os.PathLike[str]) -> Self:
        """Read back what `save` wrote.

        Raises:
            ValueError: the file says something else.
        """
        try:
            with safe_open(file, framework="numpy") as kept:
                facts = json.loads(kept.metadata()[_FACTS])
                return cls(kept.get_tensor("means"), kept.get_tensor("precision"), **facts)
        except Exception as error:  # safetensors raises an exception of its own below no common one
            if isinstance(error, OSError):
                raise
            raise ValueError(
                f"wanted the familiarity of a model in {file}; found something else ({error}). Write it anew with "
                "python -m realfake_hf.training.posthoc."
            ) from error


def load_familiarity(place: str | os.PathLike[str], *, revision: str = "main") -> Familiarity | None:
    """Read the familiarity of a model's folder or Hub repository; None where there is none.

    Raises:
        ValueError: the file is there and says something else.
    """
    file = find_beside(place, FAMILIARITY, revision=revision)
    return None if file is None else Familiarity.load(file)


def fit_familiarity(
    embeddings: Floats, is_fake: NDArray[np.bool_], validation: Floats, *, far: float = 0.01, sha256: str
) -> Familiarity:
    """Learn where training pictures lie, and choose on validation beyond which distance a picture is far.

    Args:
        embeddings: (n, width) of training pictures.
        is_fake: (n,) their labels.
        validation: (m, width) of pictures that were not trained on.
        far: share of the validation pictures beyond the limit, in (0, 1).
        sha256: the fingerprint of the validation split.

    Raises:
        ValueError: another share, or training pictures of one label.
    """
    if not 0 < far < 1:
        raise ValueError(f"wanted a share in (0, 1) of validation pictures that are far; found {far}.")
    if is_fake.all() or not is_fake.any():
        raise ValueError(f"wanted training pictures of both labels; found {len(is_fake):,} of one. Draw others.")
    means = np.stack([embeddings[is_fake == label].mean(axis=0, dtype=np.float64) for label in (False, True)])
    around = embeddings - means[is_fake.astype(int)]
    precision = LedoitWolf(assume_centered=True).fit(around).precision_
    found = Familiarity(means, precision, 0, far, len(embeddings), len(validation), sha256)
    limit = float(np.quantile(found.distances(validation), 1 - far))
    return Familiarity(means, precision, limit, far, len(embeddings), len(validation), sha256)
