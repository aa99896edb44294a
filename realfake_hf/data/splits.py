"""Cut validation (and, where a source has none, test) from the training pictures without letting copies straddle."""

from collections import defaultdict

import numpy as np
from datasets import Dataset, DatasetDict
from numpy.typing import NDArray


def add_missing_splits(
    images: DatasetDict, *, validation_share: float = 0.05, test_share: float = 0.2, seed: int = 0
) -> DatasetDict:
    """Give a data set train, validation and test, keeping the splits that it has.

    A missing test split is cut from train first, then a missing validation split from what is left; a test split that
    the source has is never touched. Each cut takes the same share of every label and content, and all copies of a
    picture (equal `sha256`) fall on one side of it.

    Args:
        images: from `load_images`, with a split `train`.
        validation_share: of the training pictures, in (0, 1).
        test_share: of the training pictures, in (0, 1).
        seed: of the draw; it does not depend on the order of the rows.

    Raises:
        ValueError: there is no train split, or a share leaves a side without real or without fake pictures.
    """
    if "train" not in images:
        raise ValueError(f"wanted a split named train; found {sorted(images)}. A test set alone cannot train a model.")
    splits = dict(images)
    for split, share in (("test", test_share), ("validation", validation_share)):
        if split not in splits:
            splits["train"], splits[split] = stratified_split(splits["train"], share=share, seed=seed)
    return DatasetDict({split: splits[split] for split in ("train", "validation", "test")})


def stratified_split(images: Dataset, *, share: float, seed: int) -> tuple[Dataset, Dataset]:
    """Cut a data set in two: (the rest, about `share` of it).

    Raises:
        ValueError: a side would have one label only.
    """
    taken = _draw(images, share=share, seed=seed)
    labels = np.asarray(images["label"][:])
    for side in (~taken, taken):
        if len(set(labels[side].tolist())) < 2:  # noqa: PLR2004 - both labels
            raise ValueError(
                f"wanted real and fake pictures on both sides of a cut at {share:.0%}; found too few among "
                f"{len(images):,} pictures. Give a larger data set or another share."
            )
    return images.select(np.flatnonzero(~taken)), images.select(np.flatnonzero(taken))


def _draw(images: Dataset, *, share: float, seed: int) -> NDArray[np.bool_]:
    """Say of each row whether it is taken: group by picture, shuffle within (label, content), take from the front."""
    groups: dict[str, list[int]] = defaultdict(list)
    for row, digest in enumerate(images["sha256"][:]):
        groups[digest].append(row)
    labels, contents = images["label"][:], images["content"][:]
    strata: dict[tuple[int, str], list[str]] = defaultdict(list)
    for digest in sorted(groups):
        strata[min((labels[row], contents[row] or "") for row in groups[digest])].append(digest)
    taken = np.zeros(len(images), dtype=np.bool_)
    generator = np.random.default_rng(seed)
    owed: dict[int, float] = defaultdict(float)  # by label: what rounding in one content leaves to the next
    for label, content in sorted(strata):
        digests = strata[label, content]
        owed[label] += share * sum(len(groups[digest]) for digest in digests)
        for position in generator.permutation(len(digests)):
            rows = groups[digests[position]]
            if owed[label] < len(rows) / 2:  # taking this group would overshoot by more than leaving it falls short
                break
            taken[rows] = True
            owed[label] -= len(rows)
    return taken
