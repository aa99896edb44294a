"""Read a manifest: facts about images in public Git repositories, one a row, without the images."""

import csv
import gzip
import hashlib
import io
import re
import zlib
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Final

from realfake_hf.tables import Table

RESERVED: Final = Path(__file__).with_name("reserved.txt")  # SHA-256 of `owner/name` in lower case, one a line

_MAX_BYTES: Final = 64 * 2**20  # of an uncompressed manifest
_PATTERNS: Final = {  # column -> what it contains, in words and as a regular expression
    "sha256": ("64 hexadecimal digits", r"[0-9a-f]{64}"),
    "label": ("real or fake", r"real|fake"),
    "group": ("the name of a group", r".{1,200}"),
    "fold": ("the number of a fold", r"\d{1,3}"),
    "repository": ("owner/name", r"[A-Za-z0-9][\w-]{0,99}/(?!\.\.?$)(?!.*\.git$)[\w.-]{1,100}"),
    "commit": ("40 hexadecimal digits", r"[0-9a-f]{40}"),
    "path": ("a path inside the repository", r"(?!/)(?!(.*/)?\.\.?(/|$)).{1,4096}(?<!/)"),
}
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_WHOLE: Final = (("group", "fold"), ("repository", "group"))  # the first lies in the second as a whole


@dataclass(frozen=True)
class Entry:
    """A row of a manifest; generator, content and licence are empty if unknown."""

    sha256: str  # of the file, in lower case
    label: str  # `real` or `fake`
    generator: str  # model that generated the image
    content: str  # subject of the image
    group: str  # images of one origin; they lie in one fold
    fold: str  # its number
    repository: str  # `owner/name` on GitHub
    commit: str  # full id of a commit
    path: str  # of the file in the repository
    licence: str  # as the repository states it


def read_manifest(file: Path) -> list[Entry]:
    """Read and check a manifest, a CSV file in UTF-8 with the columns of `Entry`, optionally compressed with gzip.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no such table; a value is malformed; an image is listed twice; a group lies in two folds or
            a repository in two groups; or a repository is reserved (see `RESERVED`).
    """
    reserved = set(RESERVED.read_text(encoding="utf-8").split())
    entries: dict[str, Entry] = {}
    parents: dict[tuple[str, str], str] = {}
    for number, entry in enumerate(_entries(file), start=1):
        where = f"row {number} of {file.name}"
        _check(entry, where, reserved)
        if first := entries.get(entry.sha256):
            raise ValueError(
                f"expected each image once; found the SHA-256 of {first.path!r} ({first.label}) again in {where} "
                f"({entry.label}). Keep the row with the right label."
            )
        for child, parent in _WHOLE:
            name, found = getattr(entry, child), getattr(entry, parent)
            if parents.setdefault((child, name.lower()), found) != found:
                raise ValueError(
                    f"expected one {parent} for the {child} {name}; found {found} in {where}, and "
                    f"{parents[child, name.lower()]} before. Correct the rows."
                )
        entries[entry.sha256] = entry
    if not entries:
        raise ValueError(f"expected rows in {file.name}; found none. Give another --manifest.")
    return list(entries.values())


def licence_table(entries: Sequence[Entry]) -> Table:
    """Count repositories and images by stated licence, most images first."""
    groups: defaultdict[str, list[Entry]] = defaultdict(list)
    for entry in entries:
        groups[entry.licence or "none stated"].append(entry)
    rows = []
    for licence, group in sorted(groups.items(), key=lambda item: (-len(item[1]), item[0])):
        n_fake = sum(entry.label == "fake" for entry in group)
        rows.append([licence, len({entry.repository for entry in group}), len(group) - n_fake, n_fake])
    return Table("", ["stated licence", "repositories", "real", "fake"], rows)


def _entries(file: Path) -> Iterator[Entry]:
    columns = [column.name for column in fields(Entry)]
    try:
        rows = csv.DictReader(io.StringIO(_read(file), newline=""), restval="", strict=True)
        if missing := [column for column in columns if column not in (rows.fieldnames or ())]:
            raise ValueError(
                f"expected the columns {', '.join(columns)} in {file.name}; found none named {', '.join(missing)}. "
                "Give another --manifest."
            )
        yield from (Entry(**{column: row[column] for column in columns}) for row in rows)
    except (UnicodeDecodeError, csv.Error, gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"expected comma-separated UTF-8 in {file.name}; found an error: {error}.") from error


def _read(file: Path) -> str:
    with file.open("rb") as stream:
        is_compressed = stream.peek(2).startswith(b"\x1f\x8b")
        data = (gzip.GzipFile(fileobj=stream) if is_compressed else stream).read(_MAX_BYTES + 1)
    if len(data) > _MAX_BYTES:
        raise ValueError(f"expected at most {_MAX_BYTES:,} bytes in {file.name}; found more. Split the manifest.")
    return data.decode("utf-8-sig")


def _check(entry: Entry, where: str, reserved: Collection[str]) -> None:
    if control := _CONTROL.search("".join(astuple(entry))):
        raise ValueError(f"expected no control characters in {where}; found {control[0]!r}. Remove the row.")
    for column, (words, pattern) in _PATTERNS.items():
        value = getattr(entry, column)
        if not re.fullmatch(pattern, value, re.ASCII):
            found = f"{value[:200]!r} of {entry.repository[:200]!r}"
            raise ValueError(f"expected {words} as {column} in {where}; found {found}. Correct or remove the row.")
    if hashlib.sha256(entry.repository.lower().encode()).hexdigest() in reserved:
        raise ValueError(
            f"expected no repository that is reserved for evaluation; found {entry.repository} in {where}. "
            "Remove its rows."
        )
