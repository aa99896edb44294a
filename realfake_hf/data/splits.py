"""Draw validation and test splits from the training images, with all copies of an image on one side."""

from collections import defaultdict

import numpy as np
from datasets import Dataset, DatasetDict
from numpy.typing import NDArray


def add_missing_splits(
    images: DatasetDict, *, validation_share: float = 0.05, test_share: float = 0.2, seed: int = 0
) -> DatasetDict:
    """Add a test and a validation split to a data set that lacks them; existing splits are kept.

    A missing test split is drawn from the training images first, then a missing validation split from the remaining
    ones. Draws are stratified by label and content, do not depend on the order of the rows, and keep duplicates (equal
    `sha256`) on one side. Shares are those of the training images, in (0, 1).

    Raises:
        ValueError: there is no split `train`, or a side would have no real or no fake images.
    """
    if "train" not in images:
        raise ValueError(
            f"expected a split named train; found {sorted(images)}. A test split alone cannot train a model."
        )
    splits = dict(images)
    for split, share in (("test", test_share), ("validation", validation_share)):
        if split not in splits:
            splits["train"], splits[split] = stratified_split(splits["train"], share=share, seed=seed)
    return DatasetDict({split: splits[split] for split in ("train", "validation", "test")})


def stratified_split(images: Dataset, *, share: float, seed: int) -> tuple[Dataset, Dataset]:
    """Split a data set in two, stratified by label and content, and return (the rest, about `share` of it)."""
    is_drawn = _draw(images, share=share, seed=seed)
    labels = np.asarray(images["label"][:])
    for side in (~is_drawn, is_drawn):
        if len(set(labels[side].tolist())) < 2:  # noqa: PLR2004 - both labels
            raise ValueError(
                f"expected real and fake images on both sides of a split of {share:.0%}; found too few among "
                f"{len(images):,} images. Give a larger data set or another share."
            )
    return images.select(np.flatnonzero(~is_drawn)), images.select(np.flatnonzero(is_drawn))


def _draw(images: Dataset, *, share: float, seed: int) -> NDArray[np.bool_]:
    """Return a mask of the rows to draw: shuffle the groups of equal images in each stratum, and take the first."""
    groups: dict[str, list[int]] = defaultdict(list)
    for row, digest in enumerate(images["sha256"][:]):
        groups[digest].append(row)
    labels, contents = images["label"][:], images["content"][:]
    strata: dict[tuple[int, str], list[str]] = defaultdict(list)
    for digest in sorted(groups):
        strata[min((labels[row], contents[row] or "") for row in groups[digest])].append(digest)
    is_drawn = np.zeros(len(images), dtype=np.bool_)
    generator = np.random.default_rng(seed)
    missing: dict[int, float] = defaultdict(float)  # rows per label; rounding carries over to the next content
    for label, content in sorted(strata):
        digests = strata[label, content]
        missing[label] += share * sum(len(groups[digest]) for digest in digests)
        for position in generator.permutation(len(digests)):
            rows = groups[digests[position]]
            if missing[label] < len(rows) / 2:  # the excess with this group would be larger than the deficit without
                break
            is_drawn[rows] = True
            missing[label] -= len(rows)
    return is_drawn
