"""Hold out one fold of a source for validation, with each group of images on one side."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

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

    fold_column: str | None = field(
        default=None,
        metadata={"help": "Column of the source that states the fold of each training image."},
    )
    validation_fold: str | None = field(
        default=None, metadata={"help": "Value in --fold_column of the validation images; the others train."}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.fold_column is None) != (self.validation_fold is None):
            given, other = ("fold_column", "validation_fold")[:: 1 if self.fold_column is not None else -1]
            raise ValueError(f"expected --fold_column and --validation_fold; found --{given} only. Add --{other}.")

    @property
    def fold(self) -> Fold | None:
        """The validation fold, or None if the flags are not given."""
        if self.fold_column is None or self.validation_fold is None:
            return None
        return Fold(self.fold_column, self.validation_fold)


def held_out_ids(records: "Sequence[Record]", fold: Fold, *, name: str, one_class: bool = False) -> frozenset[str]:
    """Return the ids of the training images in a fold of the source `name`.

    Args:
        records: from `Source.records`, given the column of the fold.
        fold: the fold.
        name: the source, for messages.
        one_class: accept a fold with real or fake images only.

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
        found = "no such column" if len(missing) == len(training) else n
        raise ValueError(
            f"expected the fold of each training image of {name} in the column {fold.column!r}; found {found}. State "
            "it in a metadata.csv or in the rows, or give another --fold_column."
        )
    inside, outside = (
        [record for record in training if (record.fold == fold.value) == side] for side in (True, False)
    )
    if not inside:
        values = sorted({str(record.fold) for record in training})
        raise ValueError(
            f"expected images of {name} with {fold.value!r} in the column {fold.column!r}; found only "
            f"{', '.join(values[:10])}{', ...' if len(values) > 10 else ''}. Give one as --validation_fold."  # noqa: PLR2004
        )
    _require_whole_groups(inside, outside, fold, name)
    if not one_class:
        _require_both_labels(inside, outside, fold, name)
    return frozenset(record.opaque_id for record in inside)


def hold_out(images: "DatasetDict", ids: Collection[str]) -> "DatasetDict":
    """Move the training images with these ids to a new split `validation`."""
    from datasets import DatasetDict

    sides: dict[bool, list[int]] = {False: [], True: []}
    for row, identity in enumerate(images["train"]["id"][:]):
        sides[identity in ids].append(row)
    train = images["train"]
    return DatasetDict({**images, "train": train.select(sides[False]), "validation": train.select(sides[True])})


def _require_whole_groups(inside: "Sequence[Record]", outside: "Sequence[Record]", fold: Fold, name: str) -> None:
    groups = {record.group for record in inside if record.group}
    others = {record.group: record.fold for record in outside if record.group in groups}
    if others:
        group = min(map(str, others))
        raise ValueError(
            f"expected each group of {name} on one side of the validation fold; found {group!r} in the folds "
            f"{fold.value!r} and {others[group]!r} ({len(others):,} such groups). Correct the column {fold.column!r} "
            "or the column 'group'."
        )


def _require_both_labels(inside: "Sequence[Record]", outside: "Sequence[Record]", fold: Fold, name: str) -> None:
    sides = {f"in the fold {fold.value!r}": inside, f"outside of the fold {fold.value!r}": outside}
    for place, records in sides.items():
        real, fake = (sum(record.label == label for record in records) for label in LABEL_NAMES)
        if not (real and fake):
            raise ValueError(
                f"expected real and fake images {place} of {name}; found {real:,} real and {fake:,} fake. Give "
                "another --validation_fold, or other folds."
            )
