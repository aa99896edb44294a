"""Infer split, label, content and generator of images from the paths of a folder or archive."""

import hashlib
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from glob import glob
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Final, TypeVar

from realfake_hf.data.files import Files, FolderFiles, is_hidden
from realfake_hf.data.listings import Row, read_listings
from realfake_hf.labels import (
    LABEL_NAMES,
    LabelName,
    LabelWords,
    flag_label,
    is_truth_value,
    parse_label,
    read_label,
    split_words,
)

CIFAKE_CONTENTS: Final = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip
CIFAKE: Final = "cifake"
CIFAKE_GENERATOR: Final = "stable-diffusion-1.4"
DEFAULT_SPLIT: Final = "train"  # split of a source without splits

_Name = TypeVar("_Name", bound=str)
_Labeller = Callable[[str], LabelName | None]  # label of a folder by its name
_CIFAKE_FILE = re.compile(
    r"(?P<place>.*/)?(?P<split>train|test)/(?P<label>REAL(?=/\d{4}\D)|FAKE(?=/(?:0\D|[1-9])))/"  # REAL is zero-padded
    r"(?P<name>\d{1,4}(?: \((?P<number>[2-9]|10)\))?\.jpg)"
)
_SPLITS = {
    "train": "train", "training": "train",
    "val": "validation", "valid": "validation", "validation": "validation", "dev": "validation",
    "test": "test", "testing": "test", "eval": "test", "evaluation": "test",  # as in `datasets`
}  # fmt: skip
_UNCLEAR = ("held-out",)
SPLIT_COLUMNS = ("split", "splits", "subset", "partition", "set", "phase")
_OTHER_LABEL_COLUMNS = ("labels", "class", "target")  # of tables; they may also state a content
_NEUTRAL_WORDS = {"data", "dataset", "folder", "images", "image", "imgs", "of", "part", "set", "split"}
_IMAGE_SUFFIXES = {
    ".avif", ".bmp", ".gif", ".heic", ".heif", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".pgm", ".png", ".ppm",
    ".tif", ".tiff", ".webp",
}  # fmt: skip
_OTHER_SUFFIXES = {
    ".7z", ".bz2", ".csv", ".db", ".doc", ".docx", ".gz", ".html", ".ini", ".json", ".jsonl", ".lnk", ".log",
    ".md", ".pdf", ".py", ".rar", ".rtf", ".sha256", ".tar", ".tgz", ".tsv", ".txt", ".url", ".xml", ".xz",
    ".yaml", ".yml", ".zip",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Record:
    """An image of a source that has not been read yet.

    The key locates it within the source; it may reveal the label and never reaches a model. Content, generator, group
    and fold are None if unknown; an id of None is derived from the key.
    """

    key: str
    split: str
    label: LabelName
    content: str | None = None
    generator: str | None = None
    source: str
    group: str | None = None
    fold: str | None = None
    id: str | None = None

    @property
    def opaque_id(self) -> str:
        """The id of the image in the schema."""
        return self.id or opaque_id(f"{self.source}/{self.key}")


def find_records(
    files: Files, source: str, words: LabelWords = MappingProxyType({}), fold_column: str | None = None
) -> list[Record]:
    """Find the images of a source and infer their labels, splits and contents.

    Three layouts are supported: that of CIFAKE; folders named for a label (`real`, `FAKE`, `0_real`, `AiArtData`, ...)
    at any depth, with optional folders for splits and contents; and any folders with `metadata.csv` or
    `metadata.jsonl` files, whose column `file_name` or `path` names the images and whose columns `label` (or `is_ai`,
    `fake`, ...), `content`, `generator`, `source`, `group` and `split` override the folders. A label folder that all
    images share is ignored. A file counts as an image if it has an image suffix or, in a label folder, any suffix that
    is not known for another kind of file.

    Of the files, only these tables are read. `words` are further words for the labels, from `parse_label_words`;
    `fold_column` is the column of the tables that states the fold of an image.

    Raises:
        ValueError: there are no images, or some have no label, or contradictory labels or splits.
    """
    label_of = lru_cache(maxsize=4096)(partial(_folder_label, words=words))
    images = [path for path in files.paths if _is_image(path, label_of)]
    matches = [match for path in images if (match := _CIFAKE_FILE.fullmatch(path))]
    if matches and len(matches) == len(images) and any(match["number"] for match in matches):
        places = sorted({match["place"] or "./" for match in matches})
        if len(places) > 1:
            copies = f"{len(places)}: {', '.join(places)}"
            raise ValueError(f"expected one copy of CIFAKE in {source}; found {copies}. Give the path of one.")
        return [_cifake_record(match) for match in matches]
    metadata = read_listings(files)
    images = list(dict.fromkeys([*metadata, *images]))  # a listed image that is missing counts as unreadable
    if not images:
        raise ValueError(
            f"expected images in {source}; found {len(files.paths)} files, none of them with the suffix of an image "
            "or in a folder named for its label. State the meaning of other names with --labels 0=REAL,1=FAKE."
        )
    start, fold = _first_distinct_folder(images, label_of), (fold_column or "").strip().lower()
    make = partial(_folder_record, source=source, start=start, words=words, label_of=label_of, fold_column=fold)
    return _complete({path: make(path, metadata.get(path, {})) for path in images}, source)


def find_image_files(words: Sequence[str]) -> list[Path]:
    """Find image files, each once, in the order given; `FileNotFoundError` is raised if a word matches none.

    A word is a file; a folder, which is searched recursively for files with an image suffix; or a glob pattern, which
    matches all files that are not hidden.
    """
    files: dict[Path, None] = {}
    for word in words:
        path = Path(word).expanduser()
        if path.is_dir():
            matches = [path / file for file in FolderFiles(path).paths if has_image_suffix(file)]
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


def names_split(text: str) -> bool:
    """Return whether a name mentions a split, which `parse_split` understands or rejects."""
    return bool(_splits_of(text))


def parse_split(text: str, *, where: str) -> str:
    """Convert a name of a split, such as Training, dev or test_set, to `train`, `validation` or `test`, or fail."""
    splits = _splits_of(text)
    if len(splits) != 1 or splits == _UNCLEAR:
        raise ValueError(f"expected a split named train, validation or test in {where}; found {text!r}. Rename it.")
    return splits[0]


def split_of_path(folders: Iterable[str], *, path: str) -> str | None:
    """Return the split that the names of a path state, or None if they mention none.

    A name that mentions several, such as `train_and_test`, may contain folders of each.
    """
    mentioned = {folder: splits for folder in folders if (splits := _splits_of(folder))}
    clear = [splits[0] for splits in mentioned.values() if len(splits) == 1 and splits != _UNCLEAR]
    split = _only("split", clear, path)
    unclear = [folder for folder, splits in mentioned.items() if splits == _UNCLEAR or not split]
    return parse_split(unclear[0], where=repr(path)) if unclear else split


def require_label(text: str, *, where: str, column: str = "label", words: LabelWords) -> LabelName:
    """Read a label of a table; raise ValueError if its meaning is uncertain."""
    label = read_label(text, column=column, words=words)
    if label is None:
        raise ValueError(
            f"expected a label such as real or fake in {where}; found {text!r}. State what the words or numbers mean "
            "with --labels 0=REAL,1=FAKE."
        )
    return label


@lru_cache(maxsize=4096)
def _splits_of(name: str) -> tuple[str, ...]:
    """Return the splits that a name mentions; `train` only if the name consists of words for splits and labels."""
    words = [re.sub(r"(?<=.)(dataset|data|images|set|split)$", "", word) for word in split_words(name)]
    splits = sorted({_SPLITS[word] for word in words if word in _SPLITS})
    if re.search(r"(^|_)(h[eo]ld_?out|unseen)(_|$)", "_".join(words)):  # validation or test?
        return _UNCLEAR
    rest = [word for word in words if not (word in _SPLITS or word in _NEUTRAL_WORDS or word.isdecimal())]
    return () if splits == ["train"] and rest and not parse_label(" ".join(rest)) else tuple(splits)


def _folder_label(folder: str, *, words: LabelWords) -> LabelName | None:
    """Parse the label in the name of a folder, which may also state a split."""
    rest = " ".join(word for word in split_words(folder) if word not in _SPLITS)
    return words.get(folder.strip().casefold()) or parse_label(folder) or parse_label(rest)


def _is_image(path: str, label_of: _Labeller) -> bool:
    pure = PurePosixPath(path)
    if is_hidden(path) or pure.suffix.lower() in _OTHER_SUFFIXES:
        return False
    return has_image_suffix(path) or any(label_of(folder) for folder in pure.parts[:-1])


def has_image_suffix(path: str) -> bool:
    """Return whether the name of a file says that it is an image."""
    return PurePosixPath(path).suffix.lower() in _IMAGE_SUFFIXES and not is_hidden(path)


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


def _complete(by_path: Mapping[str, Record | None], source: str) -> list[Record]:
    """Check that every image has a label, and every image or none a split."""
    records = [record for record in by_path.values() if record]
    if unlabelled := [path for path, record in by_path.items() if not record]:
        raise ValueError(
            f"expected every image of {source} in a folder named for its label (real, fake, 0_real, 1_fake, ...) "
            f"or in a metadata.csv with a column label; found {len(unlabelled)} of {len(by_path)} without one, such "
            f"as {unlabelled[0]!r}. Move or remove them, or state what other words mean with --labels 0=REAL,1=FAKE."
        )
    missing = [record.key for record in records if not record.split]
    if missing and len(missing) < len(records):
        raise ValueError(
            f"expected a split (train, validation or test) for every image of {source} or for none; found "
            f"{len(missing)} of {len(records)} images without a split, such as {missing[0]!r}."
        )
    return [replace(record, split=record.split or DEFAULT_SPLIT) for record in records]


def _folder_record(
    path: str, row: Row, *, source: str, start: int, words: LabelWords, label_of: _Labeller, fold_column: str
) -> Record | None:
    folders = PurePosixPath(path).parts[start:-1]
    label = _stated_label(row, where=f"the metadata of {source}", words=words)
    label = label or _only("label", [label for folder in folders if (label := label_of(folder))], path)
    for column in _OTHER_LABEL_COLUMNS:
        label = label or read_label(row.get(column, ""), column=column, words=words)
    if label is None:
        return None
    return Record(
        key=path,
        split=stated_split(row, where=source) or split_of_path(PurePosixPath(path).parts[:-1], path=path) or "",
        label=label,
        content=(row["content"] or None) if "content" in row else _content_of_folders(folders, label_of),
        generator=(row.get("generator") or None) if label == "FAKE" else None,
        source=row.get("source") or source,
        group=row.get("group") or None,
        fold=(row.get(fold_column) or None) if fold_column else None,
    )


def _stated_label(row: Row, *, where: str, words: LabelWords) -> LabelName | None:
    """Return the label in a column `label` or in a truth value such as `is_ai`, or None without these columns."""
    if "label" in row:
        return require_label(row["label"], where=where, words=words)
    flags = [column for column, text in row.items() if flag_label(column) and is_truth_value(text)]
    return _only(
        "label", [require_label(row[column], where=where, column=column, words=words) for column in flags], where
    )


def stated_split(row: Mapping[str, str | None], *, where: str) -> str | None:
    """Return the split in a column `split` or in a similar column that mentions one, or None without these columns."""
    column = next(
        (column for column in SPLIT_COLUMNS if column == "split" in row or names_split(row.get(column) or "")), None
    )
    return None if column is None else parse_split(row[column] or "", where=where)


def _only(kind: str, names: Sequence[_Name], path: str) -> _Name | None:
    """Return the name on which all folders of a path agree, or None without a name."""
    if len(set(names)) > 1:
        raise ValueError(
            f"expected one {kind} for each image; found {' and '.join(sorted(set(names)))} in {path!r}. "
            f"Rename one of the folders, or state the {kind} in a metadata.csv."
        )
    return names[0] if names else None


def _content_of_folders(folders: Sequence[str], label_of: _Labeller) -> str | None:
    """Return the first folder below the label folder or, failing that, the last folder above it."""
    labels = [position for position, folder in enumerate(folders) if label_of(folder)]
    if not labels:
        return None
    below = [folder for folder in folders[labels[-1] + 1 :] if not names_split(folder)]
    above = [folder for folder in folders[: labels[0]] if not names_split(folder)]
    content = below[0] if below else (above[-1] if above else None)
    return content and os.fsencode(content).decode(errors="replace")


def _first_distinct_folder(images: Sequence[str], label_of: _Labeller) -> int:
    """Return how many leading folders all images share, or 0 if only these name a label."""
    folders = [PurePosixPath(path).parts[:-1] for path in images]
    same = [a == b for a, b in zip(min(folders), max(folders), strict=False)]
    shared = same.index(False) if False in same else len(same)
    return shared if any(label_of(folder) for parts in folders for folder in parts[shared:]) else 0
