"""Which pictures of the measured data sets look like pictures of the training."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache, partial

from realfake_hf.crosseval.datasets import TestSet
from realfake_hf.crosseval.shortcuts import Shortcut
from realfake_hf.crosseval.store import CellStore
from realfake_hf.data.duplicates import THRESHOLD, ImageHashes, NearDuplicates, find_near_duplicates, hash_images


def with_duplicates(
    shortcuts: Sequence[Shortcut], sets: Sequence[TestSet], training: TestSet, store: CellStore
) -> tuple[Shortcut, ...]:
    """Add to what is said of each data set how many of its pictures have a near-duplicate among training pictures.

    Args:
        shortcuts: of each data set, in order.
        sets: the data sets.
        training: the pictures of a training; they are hashed once, and only where a data set is not yet compared.
        store: keeps what is found.
    """
    hashed = cache(partial(hash_images, training.rows, name=f"{training.source} {training.split}"))
    return tuple(
        replace(found, duplicates=_compare(one, training, hashed, store))
        for found, one in zip(shortcuts, sets, strict=True)
    )


def _compare(one: TestSet, training: TestSet, hashed: Callable[[], ImageHashes], store: CellStore) -> NearDuplicates:
    def make() -> dict[str, object]:
        own = hash_images(one.rows, name=f"{one.name} {one.split}")
        return find_near_duplicates(hashed(), own).to_dict()

    asked = {"pictures": one.sha256, "training": training.sha256, "threshold": THRESHOLD}
    return NearDuplicates.from_dict(store.cell(f"{one.name}-duplicates", asked, make))
