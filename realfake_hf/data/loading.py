"""Any source of real and fake pictures as one `DatasetDict` with one schema."""

import hashlib
import json
import logging
import os
import re
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from datasets import Dataset, DatasetDict, config
from filelock import FileLock

from realfake_hf.data import hub
from realfake_hf.data.demo import demo_path
from realfake_hf.data.files import FolderFiles, ZipFiles, file_stamp
from realfake_hf.data.folders import CIFAKE, CIFAKE_GENERATOR, Record, find_records
from realfake_hf.data.ingest import Reader, Unreadable, require_both_classes, write_splits
from realfake_hf.labels import LABEL_NAMES
from realfake_hf.store import CHECKSUMS, damaged_files

logger = logging.getLogger(__name__)

CIFAKE_PAGE: Final = "https://www.kaggle.com/datasets/birdy654/cifake-real-and-ai-generated-synthetic-images"
CIFAKE_MIRROR: Final = "dragonintelligence/CIFAKE-image-dataset"
CIFAKE_PLACES: Final = ("data/cifake/archive.zip", "data/cifake", "archive.zip")
SPLITS: Final = ("train", "validation", "test")

_CACHE_VERSION = 1  # raise it when the same source would give other rows
_NAMED_AT_MOST = 10  # unreadable files named in the log


@dataclass(frozen=True)
class Source:
    """A source that was found, and is not yet read.

    Attributes:
        name: a short name, for messages and the cache folder.
        fingerprint: another one when the source's files are others.
        records: says what every picture of it is.
        reader: gives the bytes of a picture.
    """

    name: str
    fingerprint: str
    records: Callable[[], list[Record]]
    reader: Reader


def load_images(
    source: str | os.PathLike[str], *, cache_dir: str | os.PathLike[str] | None = None, one_class: bool = False
) -> DatasetDict:
    """Load real and fake pictures from any source, in one schema.

    Args:
        source: `demo`; `cifake` (a local archive where one lies, else the Hub mirror); a zip archive or a folder, laid
            out as CIFAKE, as the Kaggle set "AI Generated Images vs Real Images", or with folders named for the label;
            a parquet file or a folder of them; a folder written by `save_to_disk`; or a Hub id such as `user/name`. An
            existing path wins over a Hub id; a relative one is also looked for below `REALFAKE_SHARED`.
        cache_dir: where the rows are kept for the next call; by default a folder of the `datasets` cache.
        one_class: take a source that has real or fake pictures only, as one to measure on may.

    Returns:
        The source's own splits, with the columns of `ingest.SCHEMA`; a source without splits is one split `train`.
        Rows stand in the order of their opaque ids, which is as good as shuffled. Pictures that cannot be read are
        left out, counted, and named in the log.

    Raises:
        FileNotFoundError: there is no such source, or it cannot be downloaded.
        ValueError: the source is ambiguous, has one class only and may not, is unsafe, or more than 1 % of it cannot
            be read.
    """
    found = find_source(source)
    folder = _cache_folder(found, cache_dir)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        _remove_damaged(folder)
        if not folder.exists():
            for left in folder.parent.glob(f"{folder.name}.part-*"):  # by a process that was killed: the lock is ours
                shutil.rmtree(left)
            write_splits(found.records(), found.reader, folder, name=found.name, one_class=one_class)
    _warn_of_unreadable(found.name, _unreadable_in(folder))
    files = {split: folder / f"{split}.arrow" for split in SPLITS}
    images = DatasetDict({split: Dataset.from_file(str(file)) for split, file in files.items() if file.exists()})
    labels = {split: Counter(rows["label"][:]) for split, rows in images.items()}
    counts = {(split, LABEL_NAMES[label]): n for split, them in labels.items() for label, n in them.items()}
    require_both_classes(counts, found.name, one_class=one_class)  # the rows may be kept from a call that allowed it
    return images


def unreadable_files(
    source: str | os.PathLike[str], *, cache_dir: str | os.PathLike[str] | None = None
) -> list[Unreadable]:
    """Name the pictures of a source that `load_images` left out, as they cannot be read; it must have been called."""
    return _unreadable_in(_cache_folder(find_source(source), cache_dir))


def find_source(source: str | os.PathLike[str]) -> Source:
    """Find out what kind of source is meant and where it lies, without reading its pictures.

    Raises:
        FileNotFoundError: nothing is there.
        ValueError: it is a file of another kind, or an unsafe archive.
    """
    name = os.fspath(source)
    if name == "demo":
        return _rows(hub.open_parquet(demo_path()), name="demo", fingerprint=file_stamp(demo_path()))
    if name == CIFAKE:
        local = find_local_cifake()
        return _only_cifake(_from_path(local), local) if local else _cifake_mirror()
    path = _local(Path(name).expanduser())
    if path.exists():
        return _from_path(path)
    if re.fullmatch(r"[\w.-]+/[\w.-]+", name) and not name.startswith(".") and path.suffix not in (".zip", ".parquet"):
        return _from_hub(name)
    raise FileNotFoundError(
        f"wanted a source of pictures; found nothing at {name!r}. Give demo, cifake, a zip archive, a folder, "
        "a parquet file, or a Hub id such as user/name."
    )


def find_local_cifake() -> Path | None:
    """Find the CIFAKE archive or folder below the working directory or `REALFAKE_SHARED`."""
    places = [root / place for root in _roots() for place in CIFAKE_PLACES]
    return next((place for place in places if place.is_file() or (place.is_dir() and any(place.iterdir()))), None)


def _roots() -> list[Path]:
    shared = os.environ.get("REALFAKE_SHARED")
    return [Path(), *([Path(shared)] if shared else [])]


def _local(path: Path) -> Path:
    """Where a path lies: below the working directory, or else below `REALFAKE_SHARED`."""
    return next((root / path for root in _roots() if (root / path).exists()), path)


def _from_path(path: Path) -> Source:
    if path.is_file() and path.suffix == ".parquet":
        return _rows(hub.open_parquet(path), name=path.stem, fingerprint=f"{path.resolve()} {file_stamp(path)}")
    if path.is_file():
        return _files(ZipFiles(path), name=path.stem)
    files = FolderFiles(path)
    name = path.resolve().name
    if {"dataset_dict.json", "state.json"} & set(files.paths):
        return _rows(hub.open_saved(path), name=name, fingerprint=files.fingerprint)
    if any(file.endswith(".parquet") for file in files.paths):
        return _rows(hub.open_parquet(path), name=name, fingerprint=files.fingerprint)
    return _files(files, name=name)


def _files(files: FolderFiles | ZipFiles, *, name: str) -> Source:
    def records() -> list[Record]:
        return find_records(files.paths, source=name, read=files.read)

    return Source(name=name, fingerprint=files.fingerprint, records=records, reader=files)


def _rows(splits: DatasetDict, *, name: str, fingerprint: str) -> Source:
    rows = hub.HubRows(splits, name=name)
    return Source(name=name, fingerprint=fingerprint, records=rows.records, reader=rows)


def _from_hub(name: str) -> Source:
    splits = hub.download(name)
    files = [file["filename"] for rows in splits.values() for file in rows.cache_files]  # named for the Hub's commit
    return _rows(splits, name=name, fingerprint="\n".join(files))


def _cifake_mirror() -> Source:
    try:
        mirror = _from_hub(CIFAKE_MIRROR)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"CIFAKE is not at {', '.join(CIFAKE_PLACES)}, and its mirror {CIFAKE_MIRROR} on the Hub cannot be "
            f"reached: download archive.zip from {CIFAKE_PAGE} and put it at {CIFAKE_PLACES[0]}."
        ) from error

    def records() -> list[Record]:
        return [
            replace(record, source=CIFAKE, generator=CIFAKE_GENERATOR if record.label == "FAKE" else None)
            for record in mirror.records()
        ]

    return replace(mirror, records=records)


def _only_cifake(source: Source, place: Path) -> Source:
    def records() -> list[Record]:
        found = source.records()
        if any(record.source != CIFAKE for record in found):
            raise ValueError(
                f"wanted CIFAKE at {place}; found another data set. Put CIFAKE's archive.zip at {CIFAKE_PLACES[0]}, "
                f"or load the one that is there by its path: {place}."
            )
        return found

    return replace(source, name=CIFAKE, records=records)


def _remove_damaged(folder: Path) -> None:
    damaged = damaged_files(folder / CHECKSUMS)
    if damaged:
        logger.warning("%s is not as its checksum says: the source is read again", folder / damaged[0])
        shutil.rmtree(folder)


def _unreadable_in(folder: Path) -> list[Unreadable]:
    return [Unreadable(**row) for row in json.loads((folder / "unreadable.json").read_text())]


def _cache_folder(source: Source, cache_dir: str | os.PathLike[str] | None) -> Path:
    root = Path(cache_dir) if cache_dir else Path(config.HF_DATASETS_CACHE) / "realfake"
    digest = hashlib.sha256(os.fsencode(f"{_CACHE_VERSION}\n{source.name}\n{source.fingerprint}")).hexdigest()
    return root / f"{re.sub(r'[^a-zA-Z0-9]+', '-', source.name)}-{digest[:16]}"


def _warn_of_unreadable(name: str, unreadable: list[Unreadable]) -> None:
    if not unreadable:
        return
    named = "\n".join(f"  {file.key}: {file.reason}" for file in unreadable[:_NAMED_AT_MOST])
    rest = f"\n  and {len(unreadable) - _NAMED_AT_MOST} more" if len(unreadable) > _NAMED_AT_MOST else ""
    logger.warning("%d pictures of %s cannot be read and are left out:\n%s%s", len(unreadable), name, named, rest)
