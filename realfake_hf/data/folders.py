"""What the paths of a folder or an archive say about its pictures: split, label, content, generator."""

import csv
import hashlib
import io
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from glob import glob
from pathlib import Path, PurePosixPath
from typing import Final

from realfake_hf.data.files import FolderFiles, escapes_folder
from realfake_hf.labels import LABEL_NAMES, LabelName, parse_label

CIFAKE_CONTENTS: Final = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip
CIFAKE: Final = "cifake"
CIFAKE_GENERATOR: Final = "stable-diffusion-1.4"

_CIFAKE_FILE = re.compile(
    r"(?P<place>.*/)?(?P<split>train|test)/(?P<label>REAL(?=/\d{4}\D)|FAKE(?=/(?:0\D|[1-9])))/"  # REAL is zero-padded
    r"(?P<name>\d{1,4}(?: \((?P<number>[2-9]|10)\))?\.jpg)"
)
_SPLITS = {
    "train": "train", "training": "train",
    "val": "validation", "valid": "validation", "validation": "validation", "dev": "validation",
    "test": "test", "testing": "test",
}  # fmt: skip
_PICTURE_SUFFIXES = {
    ".avif", ".bmp", ".gif", ".heic", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif",
    ".tiff", ".webp",
}  # fmt: skip
_OTHER_SUFFIXES = {
    ".csv", ".db", ".doc", ".docx", ".html", ".ini", ".json", ".jsonl", ".lnk", ".log", ".md", ".pdf", ".py", ".rtf",
    ".sha256", ".tsv", ".txt", ".url", ".xml", ".yaml", ".yml", ".zip",
}  # fmt: skip
DEFAULT_SPLIT: Final = "train"  # of a source without splits


@dataclass(frozen=True, kw_only=True)
class Record:
    """One picture of a source, before it is read.

    Attributes:
        key: where the picture lies in its source; it may give the label away and never reaches a model.
        split: `train`, `validation` or `test`.
        label: `REAL` or `FAKE`.
        content: what the picture shows, where the source says so.
        generator: what made the picture, where it is fake and the source says so.
        source: the data set that the picture comes from.
        id: an opaque id, where the place in the source does not make it.
    """

    key: str
    split: str
    label: LabelName
    content: str | None = None
    generator: str | None = None
    source: str
    id: str | None = None


def find_records(paths: Sequence[str], *, source: str, read: Callable[[str], bytes]) -> list[Record]:
    """Work out what each file of a source is.

    Known layouts: CIFAKE's own; folders named for a label (`real`, `FAKE`, `0_real`, `AiArtData`, ...) at any depth,
    with optional folders for splits and contents; and any folders with `metadata.csv` files, whose column
    `file_name` or `path` names the pictures and whose columns `label`, `content`, `generator`, `source` and `split`
    override the folders. A label folder that all pictures share says nothing. A file counts as a picture by its suffix
    or, in a label folder, if its suffix is not that of another kind of file.

    Args:
        paths: the files below the source's root, with forward slashes.
        source: the name of the source.
        read: gives the bytes of a file; called for `metadata.csv` only.

    Raises:
        ValueError: there are no pictures, or the label or split of some is missing or contradictory.
    """
    pictures = [path for path in paths if _is_picture(path)]
    if not pictures:
        raise ValueError(f"wanted pictures in {source}; found {len(paths)} files and no picture among them.")
    cifake = [_CIFAKE_FILE.fullmatch(path) for path in pictures]
    if all(cifake) and any(match["number"] for match in cifake if match):
        return _cifake_records([match for match in cifake if match], source)
    facts = _facts({path: read(path) for path in paths if _is_metadata(path)})
    pictures = list(dict.fromkeys([*facts, *pictures]))  # a listed picture that is missing counts as unreadable
    return _folder_records(pictures, facts, source)


def opaque_id(place: str) -> str:
    """Name a picture by 16 hexadecimal digits that say nothing of its label or content.

    >>> opaque_id("cifake/train/REAL/0000.jpg")
    'b52ac008717c1bfb'
    """
    return hashlib.sha256(os.fsencode(place)).hexdigest()[:16]


def is_split_name(text: str) -> bool:
    """Say whether a word is a split's name, as data sets spell it."""
    return text.lower() in _SPLITS


def parse_split(text: str, *, where: str) -> str:
    """Read the name of a split as data sets spell it.

    >>> parse_split("Training", where="set")
    'train'
    """
    if not is_split_name(text):
        raise ValueError(f"wanted a split named train, validation or test in {where}; found {text!r}.")
    return _SPLITS[text.lower()]


def require_label(text: str, *, where: str) -> LabelName:
    """Read a label that a table states, or refuse it.

    Raises:
        ValueError: the text is no known word for real or fake.
    """
    label = parse_label(text)
    if label is None:
        raise ValueError(
            f"wanted a label that says real or fake in {where}; found {text!r}. "
            "Numbers do not say which class they mean: write the names."
        )
    return label


def has_image_suffix(path: str) -> bool:
    """Say whether a file has a picture's suffix and is not hidden, nor lies in a hidden folder.

    >>> [has_image_suffix(path) for path in ("a/photo.JPG", "notes.txt", ".thumbnails/photo.jpg")]
    [True, False, False]
    """
    pure = PurePosixPath(path)
    return pure.suffix.lower() in _PICTURE_SUFFIXES and not _is_hidden(pure)


def _is_picture(path: str) -> bool:
    pure = PurePosixPath(path)
    if _is_hidden(pure) or pure.suffix.lower() in _OTHER_SUFFIXES:
        return False
    return has_image_suffix(path) or any(_folder_label(folder) for folder in pure.parts[:-1])


def _is_metadata(path: str) -> bool:
    pure = PurePosixPath(path)
    return pure.name == "metadata.csv" and not _is_hidden(pure)


def _is_hidden(path: PurePosixPath) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in path.parts)


def _cifake_records(matches: Sequence[re.Match[str]], source: str) -> list[Record]:
    places = sorted({match["place"] or "./" for match in matches})
    if len(places) > 1:
        raise ValueError(f"wanted one copy of CIFAKE in {source}; found {len(places)}: {', '.join(places)}. Give one.")
    return [_cifake_record(match) for match in matches]


def _cifake_record(match: re.Match[str]) -> Record:
    split, label = match["split"], LABEL_NAMES[match["label"] == "FAKE"]
    return Record(
        key=match[0],
        split=split,
        label=label,
        content=CIFAKE_CONTENTS[int(match["number"] or 1) - 1],
        generator=CIFAKE_GENERATOR if label == "FAKE" else None,
        source=CIFAKE,
        id=opaque_id(f"{CIFAKE}/{split}/{label}/{match['name']}"),  # the same wherever the archive or folder lies
    )


def _facts(tables: Mapping[str, bytes]) -> dict[str, Mapping[str, str]]:
    """What the metadata.csv files say of each picture that they list."""
    facts: dict[str, Mapping[str, str]] = {}
    for path, row in (pair for place, table in tables.items() for pair in _metadata_rows(place, table)):
        if path in facts:
            raise ValueError(f"wanted each picture once in the metadata.csv; found {path!r} twice. Keep one row.")
        facts[path] = row
    return facts


def _metadata_rows(path: str, table: bytes) -> Iterator[tuple[str, Mapping[str, str]]]:
    """Yield (picture's path, its filled-in columns) of one metadata.csv."""
    try:
        rows = list(csv.DictReader(io.StringIO(table.decode("utf-8-sig")), strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"wanted a UTF-8 comma-separated table in {path}; found {error}.") from error
    for row in rows:
        name = row.get("file_name") or row.get("path")
        if not name:
            raise ValueError(f"wanted a column file_name or path, filled in each row of {path}; found {row}.")
        if escapes_folder(name):
            raise ValueError(f"wanted paths below the folder of {path}; found {name!r}, which climbs out of it.")
        full = PurePosixPath(path).parent / name.replace("\\", "/")
        yield str(full), {column: value or "" for column, value in row.items() if column}


def _folder_records(pictures: Sequence[str], facts: Mapping[str, Mapping[str, str]], source: str) -> list[Record]:
    start = _first_own_folder(pictures)
    records, unlabelled = [], []
    for path in pictures:
        record = _folder_record(path, facts.get(path, {}), source, start)
        if record is None:
            unlabelled.append(path)
            continue
        records.append(record)
    if unlabelled:
        raise ValueError(
            f"wanted every picture of {source} in a folder named for its label (real, fake, 0_real, 1_fake, ...) "
            f"or in a metadata.csv with a column label; found {len(unlabelled)} of {len(pictures)} without, such as "
            f"{unlabelled[0]!r}. Move them, or take them out."
        )
    return _with_one_split_rule(records, source)


def _folder_record(path: str, row: Mapping[str, str], source: str, start: int) -> Record | None:
    folders = PurePosixPath(path).parts[start:-1]
    label = require_label(row["label"], where=f"the metadata.csv of {source}") if "label" in row else None
    label = label or _one_label(path, folders)
    if label is None:
        return None
    split = parse_split(row["split"], where=source) if "split" in row else _folder_split(path)
    return Record(
        key=path,
        split=split or "",
        label=label,
        content=(row["content"] or None) if "content" in row else _folder_content(folders),
        generator=(row.get("generator") or None) if label == "FAKE" else None,
        source=row.get("source") or source,
    )


def _one_label(path: str, folders: Sequence[str]) -> LabelName | None:
    found = {label for folder in folders if (label := _folder_label(folder))}
    if len(found) > 1:
        raise ValueError(
            f"wanted one label for each picture; found both REAL and FAKE in the folders of {path!r}. "
            "Rename the folder that is not meant, or state the label in a metadata.csv."
        )
    return next(iter(found), None)


@lru_cache(maxsize=4096)
def _folder_label(folder: str) -> LabelName | None:
    return parse_label(folder)


def _folder_split(path: str) -> str | None:
    folders = PurePosixPath(path).parts[:-1]
    found = sorted({_SPLITS[folder.lower()] for folder in folders if is_split_name(folder)})
    if len(found) > 1:
        raise ValueError(f"wanted one split for each picture; found {' and '.join(found)} in {path!r}.")
    return found[0] if found else None


def _folder_content(folders: Sequence[str]) -> str | None:
    """The content folder: the first one below the label's, else the last one above it."""
    labels = [position for position, folder in enumerate(folders) if _folder_label(folder)]
    if not labels:
        return None
    below = [folder for folder in folders[labels[-1] + 1 :] if not is_split_name(folder)]
    above = [folder for folder in folders[: labels[0]] if not is_split_name(folder)]
    content = below[0] if below else (above[-1] if above else None)
    return content and os.fsencode(content).decode(errors="replace")


def _first_own_folder(pictures: Sequence[str]) -> int:
    """Where the folders begin that tell pictures apart: after those that all share, unless only these name a label."""
    folders = [PurePosixPath(path).parts[:-1] for path in pictures]
    same = [a == b for a, b in zip(min(folders), max(folders), strict=False)]
    shared = same.index(False) if False in same else len(same)
    return shared if any(_folder_label(folder) for parts in folders for folder in parts[shared:]) else 0


def _with_one_split_rule(records: Sequence[Record], source: str) -> list[Record]:
    """Name the one split of a source without splits, or refuse a source that names it for some pictures only."""
    without = [record.key for record in records if not record.split]
    if without and len(without) < len(records):
        raise ValueError(
            f"wanted a split (train, validation or test) for every picture of {source} or for none; found "
            f"{len(without)} of {len(records)} without, such as {without[0]!r}."
        )
    return [replace(record, split=record.split or DEFAULT_SPLIT) for record in records]


def find_image_files(words: Sequence[str]) -> list[Path]:
    """Find pictures by files, folders and globs, each file once, in the order of the words.

    Args:
        words: of a folder, the files named as pictures below it, at any depth; of a glob, every file that it matches
            and that is not hidden.

    Raises:
        FileNotFoundError: a word stands for no file.
    """
    return list(dict.fromkeys(path for word in words for path in _paths(word)))


def _paths(word: str) -> list[Path]:
    path = Path(word).expanduser()
    if path.is_dir():
        found = [path / file for file in FolderFiles(path).paths if has_image_suffix(file)]
    elif path.exists() or path.is_symlink():  # a link to nothing is counted as unreadable
        found = [path]
    else:
        matches = glob(str(path), recursive=True)  # noqa: PTH207  it skips hidden files, as shells do
        found = sorted(match for match in map(Path, matches) if match.is_file())
    if not found:
        raise FileNotFoundError(f"wanted pictures at {word!r}; found none. Give files, folders or globs.")
    return found
