"""What the files of a data set give away of the label, and which pictures it shares with others, as a results file.

`python -m realfake_hf.publish.shortcuts --data cifake --limit 1000 --output_file results/shortcuts_cifake.json`
"""

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path
from typing import Any

from datasets import DatasetDict, concatenate_datasets

from realfake_hf.cli import parse
from realfake_hf.data.file_facts import read_file_facts
from realfake_hf.data.near_duplicates import THRESHOLD, NearDuplicates, find_near_duplicates, hash_pictures
from realfake_hf.data.sources import find_source, load_images
from realfake_hf.measure.shortcuts import ShortcutAudit, audit_shortcuts
from realfake_hf.run_folder import write_json

_OF_BYTES = ("bytes", "bytes_per_pixel")
_SAME_ENCODING = (
    "All files have one format, mode, size and table. Their bytes then say how much detail the pictures hold, which "
    "is a matter of content and generator and not of the codec."
)


@dataclass
class ShortcutArguments:
    """What to audit, and where to keep the answer."""

    data: str = field(metadata={"help": "A source of pictures, as train.py takes it."})
    limit: int | None = field(
        default=None, metadata={"help": "Audit the facts of at most so many files, half of them fake."}
    )
    against: list[str] = field(
        default_factory=list, metadata={"help": "Other sources in which near-duplicates are looked for, all pictures."}
    )
    splits: bool = field(
        default=False, metadata={"help": "Look for near-duplicates between the source's own splits, all pictures."}
    )
    threshold: int = field(
        default=THRESHOLD,
        metadata={"help": "Bits of 64 in which the perceptual hashes of near-duplicates differ at most."},
    )
    seed: int = field(default=0, metadata={"help": "Of the draw, the folds, the models and the bootstrap."})
    output_file: Path | None = field(default=None, metadata={"help": "A JSON file for the numbers."})


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

    def to_markdown(self) -> str:
        """Render the audit: the warning, what the facts are of, and the tables."""
        files = (
            "file facts as stored in the data set, not surely the original ones" if self.as_stored else "file facts"
        )
        left_out = f" ({self.unreadable:,} unreadable files left out)" if self.unreadable else ""
        tables = [self.shortcuts.to_markdown(), *(pair.to_markdown() for pair in self.near_duplicates)]
        note = [_SAME_ENCODING] if self.same_encoding else []
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
    facts = read_file_facts(source, limit=limit, seed=seed)
    shortcuts = audit_shortcuts(facts.columns, is_fake=facts.is_fake, groups=facts.digest, seed=seed)
    return SourceAudit(facts.name, facts.as_stored, facts.unreadable, shortcuts)


def near_duplicates_of_splits(images: DatasetDict, *, threshold: int) -> tuple[NearDuplicates, ...]:
    """Compare every two splits of a data set."""
    hashed = [hash_pictures(rows, name=split) for split, rows in images.items()]
    return tuple(find_near_duplicates(one, two, threshold=threshold) for one, two in combinations(hashed, 2))


def near_duplicates_of_sources(
    source: str | os.PathLike[str], others: Sequence[str], *, threshold: int
) -> tuple[NearDuplicates, ...]:
    """Compare all pictures of a source with all of each other one."""
    own, *rest = (
        hash_pictures(concatenate_datasets(list(load_images(one).values())), name=find_source(one).name)
        for one in (source, *others)
    )
    return tuple(find_near_duplicates(own, other, threshold=threshold) for other in rest)


def main(argv: Sequence[str] | None = None) -> int:
    """Print the shortcuts of a source, and keep their numbers where asked; give the exit status."""
    (arguments,) = parse(ShortcutArguments, argv=argv, description=__doc__)
    try:
        audit = _run(arguments)
    except (OSError, ValueError) as error:
        print(f"shortcuts: {error}", file=sys.stderr)  # noqa: T201
        return 1
    if arguments.output_file:
        write_json(arguments.output_file, audit.to_dict())
    print(audit.to_markdown())  # noqa: T201 - the result of the command
    return 0


def _run(arguments: ShortcutArguments) -> SourceAudit:
    for source in (arguments.data, *arguments.against):
        find_source(source)
    audit = audit_source(arguments.data, limit=arguments.limit, seed=arguments.seed)
    found: tuple[NearDuplicates, ...] = ()
    if arguments.splits:
        found += near_duplicates_of_splits(load_images(arguments.data), threshold=arguments.threshold)
    if arguments.against:
        found += near_duplicates_of_sources(arguments.data, arguments.against, threshold=arguments.threshold)
    return replace(audit, near_duplicates=found)


if __name__ == "__main__":
    sys.exit(main())
