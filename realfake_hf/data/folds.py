"""Hold out one fold of a source for validation, with each group of images on one side."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from textwrap import shorten
from typing import TYPE_CHECKING

import numpy as np

from realfake_hf.cli import setting
from realfake_hf.labels import LABEL_NAMES, LabelArguments

if TYPE_CHECKING:
    from datasets import DatasetDict

    from realfake_hf.data.folders import Record


@dataclass(frozen=True)
class Fold:
    """The training images of a source with one value in a column; they become its validation split."""

    column: str
    value: str


@dataclass(kw_only=True)
class FoldArguments(LabelArguments):
    """The flags of a command that reads the splits of a source.

    Raises:
        ValueError: only one of the flags of a fold is given, or the labels are not understood.
    """

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


def held_out_ids(records: "Sequence[Record]", fold: Fold, *, name: str) -> frozenset[str]:
    """Return the ids of the training images in a fold of the source `name`, given the records with their folds.

    Raises:
        ValueError: the source has a validation split, the column or the fold does not exist, a group lies in the fold
            and outside of it, or a side lacks real or fake images.
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
