"""Training sets of one size out of one source or several, so that models that learnt from them can be compared."""

import io
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from datasets import Dataset, DatasetDict, concatenate_datasets
from PIL import Image

from realfake_hf.data.corruptions import PROTOCOLS
from realfake_hf.data.decoding import to_rgb
from realfake_hf.data.splits import add_missing_splits, stratified_split

_KEPT: Final = ("image", "label", "content", "generator", "source")


def matched_splits(
    images: DatasetDict, *, train_size: int | None, test_size: int | None, protocol: str, seed: int
) -> DatasetDict:
    """Give a source train, validation and test, cut to sizes, every picture brought to one resolution and codec.

    Args:
        images: from `load_images`.
        train_size: pictures of the training split at most, even in labels and contents; None means all.
        test_size: pictures of the test split at most; those that also occur in another split are left out.
        protocol: one of `PROTOCOLS`; what it gives is kept without further loss.
        seed: of the cuts.

    Raises:
        ValueError: a split would have one label only.
    """
    splits = add_missing_splits(images, validation_share=0.1, test_share=0.2, seed=seed)
    seen = {digest for name in ("train", "validation") for digest in splits[name]["sha256"][:]}
    fresh = np.flatnonzero([digest not in seen for digest in splits["test"]["sha256"][:]])
    splits["test"] = splits["test"].select(fresh)
    for name, size in (("train", train_size), ("test", test_size), ("validation", train_size and train_size // 10)):
        if size is not None and size < len(splits[name]):
            splits[name] = stratified_split(splits[name], share=size / len(splits[name]), seed=seed)[1]
    return DatasetDict({name: _encoded(rows, protocol) for name, rows in splits.items()})


def mix(parts: Sequence[DatasetDict], *, rows: int) -> DatasetDict:
    """Join sources: each gives the training split as many rows, its pictures repeated until they are enough.

    Args:
        parts: from `matched_splits`.
        rows: of the training split, shared out evenly; of the other splits, all are taken once.
    """
    share = -(-rows // len(parts))
    train = concatenate_datasets([_repeated(part["train"], share) for part in parts])
    others = {name: concatenate_datasets([part[name] for part in parts]) for name in ("validation", "test")}
    return DatasetDict({"train": train.select(range(rows)), **others})


def _repeated(images: Dataset, rows: int) -> Dataset:
    return images.select([number % len(images) for number in range(rows)])


def _encoded(images: Dataset, protocol: str) -> Dataset:
    kept = images.select_columns(list(_KEPT))
    return kept.map(_png, fn_kwargs={"protocol": protocol}, features=kept.features, desc=protocol)


def _png(row: Mapping[str, Image.Image], protocol: str) -> dict[str, dict[str, bytes | None]]:
    buffer = io.BytesIO()
    PROTOCOLS[protocol](to_rgb(row["image"])).save(buffer, format="PNG")
    return {"image": {"bytes": buffer.getvalue(), "path": None}}
