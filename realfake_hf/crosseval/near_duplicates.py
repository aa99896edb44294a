"""Near-duplicates of training images among the images of a grid, by perceptual hash."""

from dataclasses import replace
from functools import cache
from typing import Any

from realfake_hf.crosseval.datasets import EvalDataset
from realfake_hf.data.duplicates import (
    THRESHOLD,
    ImageHashes,
    NearDuplicates,
    far_from,
    find_near_duplicates,
    hash_images,
)
from realfake_hf.estimate import from_plain, to_plain
from realfake_hf.store import Store


class TrainingImages:
    """The training images of a source, which are hashed once, and only if a result is not in the store."""

    def __init__(self, training: EvalDataset, store: Store) -> None:
        self.training, self.store = training, store
        self._hash = cache(lambda dataset, name: hash_images(dataset.rows, name=f"{name} {dataset.split}"))

    def compare(self, dataset: EvalDataset) -> NearDuplicates:
        """Count the near-duplicates of training images in a data set."""
        compared = self.store.json(
            f"{dataset.name}-duplicates",
            self._settings(dataset),
            lambda: to_plain(find_near_duplicates(*self._hashes(dataset))),
        )
        return from_plain(NearDuplicates, compared)

    def mark(self, dataset: EvalDataset) -> EvalDataset:
        """Return a data set of the same source with `is_near_duplicate_free`, and other data sets unchanged."""
        if dataset.source != self.training.source:
            return dataset

        def find() -> dict[str, Any]:
            training, own = self._hashes(dataset)
            return {"is_far": far_from(own.hashes, training.hashes)}

        marked = self.store.arrays(f"{dataset.name}-near-duplicates", self._settings(dataset), find)
        return replace(dataset, is_near_duplicate_free=marked["is_far"])

    def _hashes(self, dataset: EvalDataset) -> tuple[ImageHashes, ImageHashes]:
        return self._hash(self.training, self.training.source), self._hash(dataset, dataset.name)

    def _settings(self, dataset: EvalDataset) -> dict[str, Any]:
        return {"pictures": dataset.sha256, "training": self.training.sha256, "threshold": THRESHOLD}
