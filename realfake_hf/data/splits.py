"""Validation and test splits of a source: drawn from the training images, or held out by a column of folds.

Copies of an image and whole groups stay on one side. Cheap to import, for the flags of a command.
"""

import logging
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import combinations
from textwrap import shorten
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from realfake_hf.cli import setting
from realfake_hf.labels import LABEL_NAMES, LabelArguments

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

    from realfake_hf.data.folders import Record

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Fold:
    """The training images of a source with one value in a column; they become its validation split."""

    column: str
    value: str


@dataclass(kw_only=True)
class FoldArguments(LabelArguments):
    """The splits of a source."""

    validation_share: float = setting(0.05, "Share of the training images used for validation if there is no split.")
    test_share: float = setting(0.2, "Share of the training images used for testing if there is no test split.")
    split_seed: int = setting(0, "Seed of these splits; keep it fixed to compare models and seeds.")
    fold_column: str | None = setting(None, "Column of the source that states the fold of each training image.")
    validation_fold: str | None = setting(None, "Value in --fold_column of the validation images; the others train.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.fold_column is None) != (self.validation_fold is None):
            raise ValueError("expected --fold_column and --validation_fold; found one of them. Add the other.")

    @property
    def fold(self) -> Fold | None:
        """The validation fold, or None if the flags are not given."""
        if self.fold_column is None or self.validation_fold is None:
            return None
        return Fold(self.fold_column, self.validation_fold)

    def complete(self, images: "DatasetDict") -> "DatasetDict":
        """Draw the splits that a source lacks, see `add_missing_splits`."""
        shares = {"validation_share": self.validation_share, "test_share": self.test_share}
        return add_missing_splits(images, **shares, seed=self.split_seed)


def held_out_ids(records: "Sequence[Record]", fold: Fold, *, name: str) -> frozenset[str]:
    """Return the ids of the training images in a fold of the source `name`, given the records with their folds.

    A `ValueError` is raised if the source has a validation split, the column or the fold does not exist, a group lies
    in the fold and outside of it, or a side lacks real or fake images.
    """
    if any(record.split == "validation" for record in records):
        raise ValueError(
            f"expected a source without a validation split for --validation_fold; found one in {name}. Remove "
            "--fold_column and --validation_fold, or the split."
        )
    training = [record for record in records if record.split == "train"]
    if missing := [record.key for record in training if not record.fold]:
        n = f"none for {len(missing):,} of {len(training):,}, such as {missing[0]!r}"
        raise ValueError(
            f"expected the fold of each training image of {name} in the column {fold.column!r}; found "
            f"{n if len(missing) < len(training) else 'no such column'}. State it in a metadata.csv or in the rows, "
            "or give another --fold_column."
        )
    inside = [record for record in training if record.fold == fold.value]
    outside = [record for record in training if record.fold != fold.value]
    if not inside:
        values = ", ".join(sorted({str(record.fold) for record in training}))
        raise ValueError(
            f"expected images of {name} with {fold.value!r} in the column {fold.column!r}; found only "
            f"{shorten(values, 100)}. Give one as --validation_fold."
        )
    groups = {record.group for record in inside if record.group}
    if shared := {str(record.group): record.fold for record in outside if record.group in groups}:
        group = min(shared)
        raise ValueError(
            f"expected each group of {name} in the fold {fold.value!r} or outside of it; found {len(shared):,} on "
            f"both sides, such as {group!r}, also in {shared[group]!r}. Correct the column {fold.column!r} or 'group'."
        )
    for place, side in (("in", inside), ("outside of", outside)):
        real, fake = (sum(record.label == label for record in side) for label in LABEL_NAMES)
        if not (real and fake):
            raise ValueError(
                f"expected real and fake images {place} the fold {fold.value!r} of {name}; found {real:,} real and "
                f"{fake:,} fake. Give another --validation_fold, or other folds."
            )
    return frozenset(record.opaque_id for record in inside)


def hold_out(images: "DatasetDict", ids: Collection[str]) -> "DatasetDict":
    """Move the training images with these ids to a new split `validation`."""
    train = images["train"]
    is_inside = np.array([identity in ids for identity in train["id"][:]])
    sides = {"train": ~is_inside, "validation": is_inside}
    return type(images)({**images, **{split: train.select(np.flatnonzero(rows)) for split, rows in sides.items()}})


def add_missing_splits(
    images: "DatasetDict", *, validation_share: float = 0.05, test_share: float = 0.2, seed: int = 0
) -> "DatasetDict":
    """Add a test and a validation split to a data set that lacks them; existing splits are kept.

    A missing test split is drawn from the training images first, then a missing validation split from the remaining
    ones, as `stratified_split` does. Shares are those of the training images, in (0, 1). Groups on both sides of
    existing splits are logged.
    """
    if "train" not in images:
        raise ValueError(
            f"expected a split named train; found {sorted(images)}. A test split alone cannot train a model."
        )
    splits = dict(images)
    for split, share in (("test", test_share), ("validation", validation_share)):
        if split not in splits:
            splits["train"], splits[split] = stratified_split(splits["train"], share=share, seed=seed)
    complete = type(images)({split: splits[split] for split in ("train", "validation", "test")})
    _log_groups(complete)
    return complete


def stratified_split(
    images: "Dataset", *, share: float, seed: int, whole_groups: bool = True
) -> "tuple[Dataset, Dataset]":
    """Split a data set in two, and return (the rest, about `share` of it).

    Duplicates (equal `sha256`) stay on one side, and so do groups, if any are known and `whole_groups` is set. The
    draw is stratified by label, without groups also by content, and does not depend on the order of the rows.
    """
    groups = known_groups(images)
    has_groups = whole_groups and any(groups)
    is_drawn = _draw_groups(images, groups, share, seed) if has_groups else _draw(images, share=share, seed=seed)
    labels = np.asarray(images["label"][:])
    for side in (~is_drawn, is_drawn):
        if len(set(labels[side].tolist())) < 2:  # noqa: PLR2004 - both labels
            raise ValueError(
                f"expected real and fake images on both sides of a split of {share:.0%}; found too few among "
                f"{len(images):,} images{f' of {len(set(groups)):,} groups' if has_groups else ''}. Give a larger "
                "data set or another share."
            )
    return images.select(np.flatnonzero(~is_drawn)), images.select(np.flatnonzero(is_drawn))


def _draw(images: "Dataset", *, share: float, seed: int) -> NDArray[np.bool_]:
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


def known_groups(images: "Dataset") -> list[str | None]:
    """Return the group of each image; None if unknown, as in all shards that were written without this column."""
    return images["group"][:] if "group" in images.column_names else [None] * len(images)


def _draw_groups(images: "Dataset", groups: list[str | None], share: float, seed: int) -> NDArray[np.bool_]:
    """Return a mask of the rows to draw: shuffle the groups, and take those that bring the labels nearer the share."""
    units = _linked(images["sha256"][:], groups)
    counts = np.zeros((units.max() + 1, 2))
    np.add.at(counts, (units, images["label"][:]), 1)
    missing = share * counts.sum(axis=0)
    is_drawn = np.zeros(len(counts), dtype=np.bool_)
    for unit in np.random.default_rng(seed).permutation(len(counts)):
        if np.abs(missing - counts[unit]).sum() < np.abs(missing).sum():
            is_drawn[unit] = True
            missing -= counts[unit]
    return is_drawn[units]


def _linked(digests: list[str], groups: list[str | None]) -> NDArray[np.intp]:
    """Number the sets of rows that share a hash or a group, directly or through other rows: (n,)."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    links = [f"group {group}" if group else digest for digest, group in zip(digests, groups, strict=True)]
    names, nodes = np.unique([digests, links], return_inverse=True)
    graph = coo_array((np.ones(len(digests)), tuple(nodes)), shape=(len(names), len(names)))
    return connected_components(graph, directed=False)[1][nodes[0]]  # type: ignore[no-any-return]


def _log_groups(splits: "DatasetDict") -> None:
    """Log the number of groups of each split, and groups in two of them, which a source may state."""
    found: dict[str, set[str]] = {}
    for split, rows in splits.items():
        kinds = {(group, label) for group, label in zip(known_groups(rows), rows["label"][:], strict=True) if group}
        found[split] = {group for group, _ in kinds}
        if kinds:
            single = 2 * len(found[split]) - len(kinds)
            logger.info("%s: %d groups, %d of them with one label", split, len(found[split]), single)
    for one, other in combinations(found, 2):
        if shared := sorted(found[one] & found[other]):
            logger.warning("%d groups are in %s and %s, such as %s", len(shared), one, other, shared[0])
