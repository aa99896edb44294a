"""What the files of a data set give away of the label, and which pictures it shares with others."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Final, Self

from datasets import DatasetDict, concatenate_datasets

from realfake_hf.crosseval.datasets import TestSet
from realfake_hf.crosseval.file_shortcuts import ShortcutAudit, audit_shortcuts
from realfake_hf.data.duplicates import NearDuplicates, find_near_duplicates, hash_images
from realfake_hf.data.loading import find_source, load_images
from realfake_hf.data.metadata import FileProperties, read_file_properties
from realfake_hf.estimate import Estimate

FILES: Final = 1000  # of a data set that a grid audits at most

_OF_BYTES = ("bytes", "bytes_per_pixel")
SAME_ENCODING = (
    "All files have one format, mode, size and table. Their bytes then say how much detail the pictures hold, which "
    "is a matter of content and generator and not of the codec."
)


@dataclass(frozen=True)
class Shortcut:
    """What a grid says of the files of one of its data sets.

    Attributes:
        data: what the data set is called.
        n: files that were audited.
        together: balanced accuracy of all facts in one model; None where they could not be audited.
        worst: the fact that says most of the label alone.
        worst_alone: its balanced accuracy.
        warning: a sentence or two, where one is due.
        same_encoding: all files have one format, mode, size and table.
        refused: why the files could not be audited.
        duplicates: pictures that look like one of a training's; None where no training was named.
    """

    data: str
    n: int = 0
    together: Estimate | None = None
    worst: str | None = None
    worst_alone: Estimate | None = None
    warning: str | None = None
    same_encoding: bool = False
    refused: str | None = None
    duplicates: NearDuplicates | None = None

    @property
    def words(self) -> str:
        """The warning, or what was found, in a sentence."""
        if self.refused:
            return f"{self.data}: the files were not audited ({self.refused})"
        note = f" {SAME_ENCODING}" if self.same_encoding else ""
        if self.warning:
            return f"{self.data}: {self.warning}{note}"
        return (
            f"{self.data}: file facts alone tell real from fake with a balanced accuracy of {self.together} on "
            f"{self.n:,} files (chance is 0.5).{note}"
        )

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read back what `dataclasses.asdict` made of it."""
        means = {name: data[name] and Estimate(**data[name]) for name in ("together", "worst_alone")}
        pairs = data.get("duplicates")
        return cls(**{**data, **means, "duplicates": pairs and NearDuplicates.from_dict(pairs)})


@dataclass(frozen=True)
class SourceAudit:
    """The shortcuts of a source.

    Attributes:
        name: of the source.
        as_stored: the facts are those of an HF data set's rows, and not surely those of the original files.
        unreadable: files without a readable header, which are left out.
        shortcuts: what the facts say of the label.
        near_duplicates: one entry for each two sets or splits that were compared.
    """

    name: str
    as_stored: bool
    unreadable: int
    shortcuts: ShortcutAudit
    near_duplicates: tuple[NearDuplicates, ...] = ()

    @property
    def same_encoding(self) -> bool:
        """Whether all files have one format, mode, size and table, and differ in their bytes alone."""
        return all(score.values == 1 for score in self.shortcuts.single if score.fact not in _OF_BYTES)

    def to_dict(self) -> dict[str, Any]:
        """The audit as plain numbers and dictionaries."""
        found = [pair.to_dict() for pair in self.near_duplicates]
        head = {"data": self.name, "as_stored": self.as_stored, "unreadable": self.unreadable}
        head["same_encoding"] = self.same_encoding
        return {**head, "shortcuts": self.shortcuts.to_dict(), "near_duplicates": found}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read back what `to_dict` wrote."""
        pairs = tuple(NearDuplicates.from_dict(pair) for pair in data["near_duplicates"])
        shortcuts = ShortcutAudit.from_dict(data["shortcuts"])
        return cls(data["data"], data["as_stored"], data["unreadable"], shortcuts, pairs)

    def to_markdown(self) -> str:
        """Render the audit: the warning, what the facts are of, and the tables."""
        files = (
            "file facts as stored in the data set, not surely the original ones" if self.as_stored else "file facts"
        )
        left_out = f" ({self.unreadable:,} unreadable files left out)" if self.unreadable else ""
        tables = [self.shortcuts.to_markdown(), *(pair.to_markdown() for pair in self.near_duplicates)]
        note = [SAME_ENCODING] if self.same_encoding else []
        return "\n\n".join([f"{self.name}: {files}{left_out}", *note, *tables])


def audit_source(source: str | os.PathLike[str], *, limit: int | None = None, seed: int = 0) -> SourceAudit:
    """Audit the file facts of a source; its pictures are not decoded.

    Args:
        source: as `load_images` takes it.
        limit: at most so many files, half of them fake; None means all.
        seed: of the draw, the folds, the models and the bootstrap.

    Raises:
        FileNotFoundError: there is no such source.
        ValueError: the source cannot be read, or has too few files of a label.
    """
    return _audit(read_file_properties(source, limit=limit, seed=seed), seed=seed)


def _audit(facts: FileProperties, *, seed: int) -> SourceAudit:
    shortcuts = audit_shortcuts(facts.columns, is_fake=facts.is_fake, groups=facts.digest, seed=seed)
    return SourceAudit(facts.name, facts.as_stored, facts.unreadable, shortcuts)


def find_shortcut(one: TestSet, *, seed: int) -> Shortcut:
    """Audit the file facts of a data set for a grid, or say why that cannot be done."""
    name = one.name
    try:
        audit = _audit(one.file_facts(FILES, seed=seed), seed=seed)
    except ValueError as error:
        return Shortcut(name, refused=str(error))
    found = audit.shortcuts
    return Shortcut(
        data=name,
        n=found.n,
        together=found.together.balanced_accuracy,
        worst=found.worst.fact,
        worst_alone=found.worst.balanced_accuracy,
        warning=found.warning,
        same_encoding=audit.same_encoding,
    )


def near_duplicates_of_splits(images: DatasetDict, *, threshold: int) -> tuple[NearDuplicates, ...]:
    """Compare every two splits of a data set."""
    hashed = [hash_images(rows, name=split) for split, rows in images.items()]
    return tuple(find_near_duplicates(one, two, threshold=threshold) for one, two in combinations(hashed, 2))


def near_duplicates_of_sources(
    source: str | os.PathLike[str], others: Sequence[str], *, threshold: int
) -> tuple[NearDuplicates, ...]:
    """Compare all pictures of a source with all of each other one."""
    own, *rest = (
        hash_images(concatenate_datasets(list(load_images(one).values())), name=find_source(one).name)
        for one in (source, *others)
    )
    return tuple(find_near_duplicates(own, other, threshold=threshold) for other in rest)
