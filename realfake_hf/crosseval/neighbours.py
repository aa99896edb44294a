"""Which training pictures a model takes a picture for: the nearest of both labels, by its own embedding."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from realfake_hf.crosseval.datasets import TestSet
from realfake_hf.crosseval.store import CellStore
from realfake_hf.data.decoding import to_rgb
from realfake_hf.detector import Detector

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Neighbour:
    """A training picture beside another picture.

    Attributes:
        row: where it stands in the training pictures.
        id: its opaque id.
        is_fake: its label.
        content: what it shows; None where unknown.
        similarity: cosine of both embeddings, in [-1, 1].
    """

    row: int
    id: str
    is_fake: bool
    content: str | None
    similarity: float


class Neighbours:
    """Training pictures in a model's embedding; they are embedded once, and kept.

    Args:
        name: of the model.
        detector: the model.
        training: the pictures.
        store: keeps their embeddings.
        digest: names the model's weights.
    """

    def __init__(self, name: str, detector: Detector, training: TestSet, store: CellStore, *, digest: str) -> None:
        self.detector, self.training = detector, training
        asked = {"weights": digest, "pictures": training.sha256}
        kept = store.array(f"embeddings-{name}", asked)
        pictures = (to_rgb(training.rows[row]["image"]) for row in range(len(training.rows)))
        made = kept if kept is not None else detector.embeddings(pictures)
        if kept is None:
            store.keep_array(f"embeddings-{name}", asked, made)
        self._unit = _unit(made.astype(np.float32))

    def nearest(self, pictures: Sequence[Image.Image]) -> list[dict[str, Neighbour]]:
        """Give the nearest REAL and the nearest FAKE training picture of each picture, by the label's name."""
        similarity = _unit(self.detector.embeddings(pictures)) @ self._unit.T
        return [
            {
                name: self._neighbour(row, np.flatnonzero(self.training.is_fake == is_fake))
                for name, is_fake in (("REAL", False), ("FAKE", True))
            }
            for row in similarity
        ]

    def _neighbour(self, similarity: Floats, among: NDArray[np.intp]) -> Neighbour:
        row = int(among[np.argmax(similarity[among])])
        one = self.training
        return Neighbour(row, one.rows[row]["id"], bool(one.is_fake[row]), one.content[row], float(similarity[row]))


def _unit(embeddings: Floats) -> Floats:
    length = np.linalg.norm(embeddings, axis=1, keepdims=True)
    return np.asarray(embeddings / np.maximum(length, np.finfo(np.float32).tiny))
