"""Infer split, label, content and generator of images from the paths of a folder or archive."""

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
from typing import Final, TypeVar

from realfake_hf.data.files import FolderFiles, escapes_folder
from realfake_hf.labels import LABEL_NAMES, LabelName, parse_label

CIFAKE_CONTENTS: Final = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip
CIFAKE: Final = "cifake"
CIFAKE_GENERATOR: Final = "stable-diffusion-1.4"
DEFAULT_SPLIT: Final = "train"  # split of a source without splits

_Name = TypeVar("_Name", bound=str)
_folder_label = lru_cache(maxsize=4096)(parse_label)
_CIFAKE_FILE = re.compile(
    r"(?P<place>.*/)?(?P<split>train|test)/(?P<label>REAL(?=/\d{4}\D)|FAKE(?=/(?:0\D|[1-9])))/"  # REAL is zero-padded
    r"(?P<name>\d{1,4}(?: \((?P<number>[2-9]|10)\))?\.jpg)"
)
_SPLITS = {
    "train": "train", "training": "train",
    "val": "validation", "valid": "validation", "validation": "validation", "dev": "validation",
    "test": "test", "testing": "test",
}  # fmt: skip
_IMAGE_SUFFIXES = {
    ".avif", ".bmp", ".gif", ".heic", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif",
    ".tiff", ".webp",
}  # fmt: skip
_OTHER_SUFFIXES = {
    ".csv", ".db", ".doc", ".docx", ".html", ".ini", ".json", ".jsonl", ".lnk", ".log", ".md", ".pdf", ".py", ".rtf",
    ".sha256", ".tsv", ".txt", ".url", ".xml", ".yaml", ".yml", ".zip",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Record:
    """An image of a source that has not been read yet.

    The key locates it within the source; it may reveal the label and never reaches a model. Content and generator are
    None if unknown; an id of None is derived from the key.
    """

    key: str
    split: str
    label: LabelName
    content: str | None = None
    generator: str | None = None
    source: str
    id: str | None = None


def find_records(paths: Sequence[str], *, source: str, read: Callable[[str], bytes]) -> list[Record]:
    """Find the images of a source and infer their labels, splits and contents.

    Three layouts are supported: that of CIFAKE; folders named for a label (`real`, `FAKE`, `0_real`, `AiArtData`, ...)
    at any depth, with optional folders for splits and contents; and any folders with `metadata.csv` files, whose
    column `file_name` or `path` names the images and whose columns `label`, `content`, `generator`, `source` and
    `split` override the folders. A label folder that all images share is ignored. A file counts as an image if it has
    an image suffix or, in a label folder, any suffix that is not known for another kind of file.

    Paths are relative to the root of the source, with forward slashes; `read` is called for `metadata.csv` only.

    Raises:
        ValueError: there are no images, or some have no label, or contradictory labels or splits.
    """
    images = [path for path in paths if _is_image(path)]
    if not images:
        raise ValueError(f"expected images in {source}; found {len(paths)} files, none of them an image.")
    matches = [match for path in images if (match := _CIFAKE_FILE.fullmatch(path))]
    if len(matches) == len(images) and any(match["number"] for match in matches):
        places = sorted({match["place"] or "./" for match in matches})
        if len(places) > 1:
            copies = f"{len(places)}: {', '.join(places)}"
            raise ValueError(f"expected one copy of CIFAKE in {source}; found {copies}. Give the path of one.")
        return [_cifake_record(match) for match in matches]
    tables = [path for path in paths if PurePosixPath(path).name == "metadata.csv" and not _is_hidden(path)]
    metadata = _read_metadata({path: read(path) for path in tables})
    images = list(dict.fromkeys([*metadata, *images]))  # a listed image that is missing counts as unreadable
    return _folder_records(images, metadata, source)


def find_image_files(words: Sequence[str]) -> list[Path]:
    """Find image files, each once, in the order given.

    A word is a file; a folder, which is searched recursively for files with an image suffix; or a glob pattern, which
    matches all files that are not hidden.

    Raises:
        FileNotFoundError: a word matches no file.
    """
    files: dict[Path, None] = {}
    for word in words:
        path = Path(word).expanduser()
        if path.is_dir():
            matches = [path / file for file in FolderFiles(path).paths if _has_image_suffix(file)]
        elif path.exists() or path.is_symlink():  # a broken link is later counted as unreadable
            matches = [path]
        else:
            paths = map(Path, glob(str(path), recursive=True))  # noqa: PTH207  it skips hidden files, as shells do
            matches = sorted(match for match in paths if match.is_file())
        if not matches:
            raise FileNotFoundError(f"expected images at {word!r}; found none. Give files, folders or glob patterns.")
        files |= dict.fromkeys(matches)
    return list(files)


def opaque_id(place: str) -> str:
    """Return 16 hexadecimal digits that identify an image without revealing its label or content.

    >>> opaque_id("cifake/train/REAL/0000.jpg")
    'b52ac008717c1bfb'
    """
    return hashlib.sha256(os.fsencode(place)).hexdigest()[:16]


def is_split_name(text: str) -> bool:
    """Return whether a word is a common name of a split."""
    return text.lower() in _SPLITS


def parse_split(text: str, *, where: str) -> str:
    """Convert a common name of a split, such as Training or dev, to `train`, `validation` or `test`."""
    if not is_split_name(text):
        raise ValueError(f"expected a split named train, validation or test in {where}; found {text!r}.")
    return _SPLITS[text.lower()]


def require_label(text: str, *, where: str) -> LabelName:
    """Parse a label from a table; raise ValueError if the text is not a known word for real or fake."""
    label = parse_label(text)
    if label is None:
        raise ValueError(
            f"expected a label such as real or fake in {where}; found {text!r}. "
            "Numbers are ambiguous: write the class names."
        )
    return label


def _is_image(path: str) -> bool:
    pure = PurePosixPath(path)
    if _is_hidden(path) or pure.suffix.lower() in _OTHER_SUFFIXES:
        return False
    return _has_image_suffix(path) or any(_folder_label(folder) for folder in pure.parts[:-1])


def _has_image_suffix(path: str) -> bool:
    return PurePosixPath(path).suffix.lower() in _IMAGE_SUFFIXES and not _is_hidden(path)


def _is_hidden(path: str) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in PurePosixPath(path).parts)


def _cifake_record(match: re.Match[str]) -> Record:
    split, label = match["split"], LABEL_NAMES[match["label"] == "FAKE"]
    return Record(
        key=match[0],
        split=split,
        label=label,
        content=CIFAKE_CONTENTS[int(match["number"] or 1) - 1],
        generator=CIFAKE_GENERATOR if label == "FAKE" else None,
        source=CIFAKE,
        id=opaque_id(f"{CIFAKE}/{split}/{label}/{match['name']}"),  # the same for any archive or folder
    )


def _read_metadata(tables: Mapping[str, bytes]) -> dict[str, Mapping[str, str]]:
    """Read all `metadata.csv` files: the columns of each listed image, by its path."""
    metadata: dict[str, Mapping[str, str]] = {}
    for path, row in (row for table in tables.items() for row in _metadata_rows(*table)):
        if path in metadata:
            raise ValueError(f"expected each image once in metadata.csv; found {path!r} twice. Keep one row.")
        metadata[path] = row
    return metadata


def _metadata_rows(path: str, table: bytes) -> Iterator[tuple[str, Mapping[str, str]]]:
    """Yield (path of an image, its columns) for each row of a `metadata.csv`."""
    try:
        rows = list(csv.DictReader(io.StringIO(table.decode("utf-8-sig")), strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"expected comma-separated UTF-8 in {path}; found {error}.") from error
    for row in rows:
        name = row.get("file_name") or row.get("path")
        if not name:
            raise ValueError(f"expected a column file_name or path with a value in each row of {path}; found {row}.")
        if escapes_folder(name):
            raise ValueError(f"expected paths below the folder of {path}; found {name!r}, which lies outside.")
        full = PurePosixPath(path).parent / name.replace("\\", "/")
        yield str(full), {column: value or "" for column, value in row.items() if column}


def _folder_records(images: Sequence[str], metadata: Mapping[str, Mapping[str, str]], source: str) -> list[Record]:
    start = _first_distinct_folder(images)
    by_path = {path: _folder_record(path, metadata.get(path, {}), source, start) for path in images}
    records = [record for record in by_path.values() if record]
    if unlabelled := [path for path, record in by_path.items() if not record]:
        raise ValueError(
            f"expected every image of {source} in a folder named for its label (real, fake, 0_real, 1_fake, ...) "
            f"or in a metadata.csv with a column label; found {len(unlabelled)} of {len(images)} without one, such as "
            f"{unlabelled[0]!r}. Move or remove them."
        )
    missing = [record.key for record in records if not record.split]
    if missing and len(missing) < len(records):
        raise ValueError(
            f"expected a split (train, validation or test) for every image of {source} or for none; found "
            f"{len(missing)} of {len(records)} images without a split, such as {missing[0]!r}."
        )
    return [replace(record, split=record.split or DEFAULT_SPLIT) for record in records]


def _folder_record(path: str, row: Mapping[str, str], source: str, start: int) -> Record | None:
    folders = PurePosixPath(path).parts[start:-1]
    label = require_label(row["label"], where=f"metadata.csv of {source}") if "label" in row else None
    label = label or _only("label", [label for folder in folders if (label := _folder_label(folder))], path)
    if label is None:
        return None
    named = [_SPLITS[folder.lower()] for folder in PurePosixPath(path).parts[:-1] if is_split_name(folder)]
    return Record(
        key=path,
        split=parse_split(row["split"], where=source) if "split" in row else _only("split", named, path) or "",
        label=label,
        content=(row["content"] or None) if "content" in row else _content_of_folders(folders),
        generator=(row.get("generator") or None) if label == "FAKE" else None,
        source=row.get("source") or source,
    )


def _only(kind: str, names: Sequence[_Name], path: str) -> _Name | None:
    """Return the name on which all folders of a path agree, or None without a name."""
    if len(set(names)) > 1:
        raise ValueError(
            f"expected one {kind} for each image; found {' and '.join(sorted(set(names)))} in {path!r}. "
            f"Rename one of the folders, or state the {kind} in a metadata.csv."
        )
    return names[0] if names else None


def _content_of_folders(folders: Sequence[str]) -> str | None:
    """Return the first folder below the label folder or, failing that, the last folder above it."""
    labels = [position for position, folder in enumerate(folders) if _folder_label(folder)]
    if not labels:
        return None
    below = [folder for folder in folders[labels[-1] + 1 :] if not is_split_name(folder)]
    above = [folder for folder in folders[: labels[0]] if not is_split_name(folder)]
    content = below[0] if below else (above[-1] if above else None)
    return content and os.fsencode(content).decode(errors="replace")


def _first_distinct_folder(images: Sequence[str]) -> int:
    """Return how many leading folders all images share, or 0 if only these name a label."""
    folders = [PurePosixPath(path).parts[:-1] for path in images]
    same = [a == b for a, b in zip(min(folders), max(folders), strict=False)]
    shared = same.index(False) if False in same else len(same)
    return shared if any(_folder_label(folder) for parts in folders for folder in parts[shared:]) else 0
