"""Load real and fake images from any source as one `DatasetDict` with one schema.

Every image is decoded and checked once; its row is stored in memory-mapped Arrow files.
"""

import hashlib
import json
import logging
import os
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Any, Final, Protocol

import pyarrow as pa
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image, Value, config
from filelock import FileLock

from realfake_hf.data import hub
from realfake_hf.data.decoding import UnreadableImageError, pixel_hash, to_rgb_file
from realfake_hf.data.files import Files, FolderFiles, ZipFiles, file_stamp, is_hidden, printable
from realfake_hf.data.folders import CIFAKE, CIFAKE_GENERATOR, DEFAULT_SPLIT, Record, find_records
from realfake_hf.data.splits import Fold, held_out_ids, hold_out
from realfake_hf.labels import LABEL_NAMES, LabelName, LabelWords, parse_label_words
from realfake_hf.parallel import map_in_processes
from realfake_hf.store import CHECKSUMS, damaged_files, read_json, write_checksums

logger = logging.getLogger(__name__)

CIFAKE_PAGE: Final = "https://www.kaggle.com/datasets/birdy654/cifake-real-and-ai-generated-synthetic-images"
CIFAKE_MIRROR: Final = "dragonintelligence/CIFAKE-image-dataset"
CIFAKE_PLACES: Final = ("data/cifake/archive.zip", "data/cifake", "archive.zip")
DEMO: Final = Path(__file__).parent / "demo/demo.parquet"  # works offline; see README.md beside it
SPLITS: Final = ("train", "validation", "test")

_CACHE_VERSION = 3  # increase it when the rows of an unchanged source change
_MAX_LOGGED = 10  # unreadable files that are listed
SCHEMA: Final = Features(
    {
        "image": Image(),  # decodes to an upright RGB image
        "label": ClassLabel(names=list(LABEL_NAMES)),  # REAL = 0, FAKE = 1
        "content": Value("string"),  # subject of the image, such as "frog"; null if unknown
        "generator": Value("string"),  # model that generated it, such as "stable-diffusion-1.4"; null for real images
        "source": Value("string"),  # data set of the image
        "group": Value("string"),  # who made or owns the image, kept on one side of a split; null if unknown
        "id": Value("string"),  # 16 hexadecimal digits that reveal neither label nor content
        "sha256": Value("string"),  # hash of the decoded image (`decoding.pixel_hash`), equal for re-saved copies
    }
)
UNREADABLE_LIMIT: Final = 0.01  # share of unreadable images above which a source is rejected as broken

Row = dict[str, Any]


class Reader(Protocol):
    """Reads the image files of a source; must be picklable."""

    def read(self, path: str, /) -> bytes:
        """Return the whole file at a record's key."""


@dataclass(frozen=True)
class Unreadable:
    """A file that was skipped, and why."""

    key: str
    reason: str


def write_splits(
    records: Sequence[Record], reader: Reader, folder: Path, *, name: str, one_class: bool = False
) -> None:
    """Read all images and write `{split}.arrow` and `unreadable.json` to a new folder, atomically."""
    require_both_classes(((record.split, record.label) for record in records), name, one_class=one_class)
    scratch = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f"{folder.name}.part-"))
    try:
        unreadable: list[Unreadable] = []
        for split in sorted({record.split for record in records}):
            in_split = sorted((record for record in records if record.split == split), key=attrgetter("opaque_id"))
            unreadable += _write_split(in_split, reader, scratch / f"{split}.arrow", name=f"{name} {split}")
        if len(unreadable) > UNREADABLE_LIMIT * len(records):
            examples = "; ".join(f"{file.key} ({file.reason})" for file in unreadable[:5])
            raise ValueError(
                f"expected at most {UNREADABLE_LIMIT:.0%} unreadable images in {name}; found {len(unreadable):,} of "
                f"{len(records):,}, such as {examples}. Download the data set again, or remove these files."
            )
        skipped = {file.key for file in unreadable}
        readable = [(record.split, record.label) for record in records if record.key not in skipped]
        require_both_classes(readable, name, one_class=one_class)
        (scratch / "unreadable.json").write_text(json.dumps([asdict(file) for file in unreadable], indent=1))
        write_checksums(sorted(scratch.iterdir()), scratch / CHECKSUMS)
        scratch.rename(folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def require_both_classes(images: Iterable[tuple[str, LabelName]], name: str, *, one_class: bool) -> None:
    """Raise a `ValueError` if a split, of the (split, label) of each image, has no real or no fake images.

    With `one_class`, one of them suffices. The name is that of the source.
    """
    counts = Counter(images)
    for split in sorted({split for split, _ in counts}) or [DEFAULT_SPLIT]:
        real, fake = (counts[split, label] for label in LABEL_NAMES)
        if not (real or fake if one_class else real and fake):
            raise ValueError(
                f"expected real and fake images in the split {split} of {name}; found {real:,} real and {fake:,} "
                "fake. Put them in folders named real and fake, or state the labels in a metadata.csv."
            )


def _write_split(records: Sequence[Record], reader: Reader, file: Path, *, name: str) -> list[Unreadable]:
    unreadable: list[Unreadable] = []
    schema = SCHEMA.arrow_schema
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_stream(sink, schema) as stream:
        for _, results in map_in_processes(partial(_read_rows, reader), records, description=f"reading {name}"):
            rows = [result for result in results if not isinstance(result, Unreadable)]
            unreadable += [result for result in results if isinstance(result, Unreadable)]
            stream.write_batch(pa.RecordBatch.from_pylist(rows, schema=schema))
    return unreadable


def _read_rows(reader: Reader, records: Sequence[Record]) -> list[Row | Unreadable]:
    return [_read_row(reader, record) for record in records]


def _read_row(reader: Reader, record: Record) -> Row | Unreadable:
    try:
        data, image = to_rgb_file(reader.read(record.key))
    except (UnreadableImageError, OSError) as error:
        return Unreadable(record.key, str(error))
    return {
        "image": {"bytes": data, "path": None},
        "label": LABEL_NAMES.index(record.label),
        "content": record.content,
        "generator": record.generator,
        "source": record.source,
        "group": record.group,
        "id": record.opaque_id,
        "sha256": pixel_hash(image),
    }


@dataclass(frozen=True)
class Source:
    """A source that was located but not read."""

    name: str
    fingerprint: str  # changes with its files and words
    # finds its images, given further words for the labels, and the column that states their folds
    find: Callable[[LabelWords, str | None], list[Record]]
    reader: Reader  # reads them
    words: LabelWords = field(default_factory=dict)  # further words for the labels

    def records(self, fold_column: str | None = None) -> list[Record]:
        """Find the images of the source, with their folds if a column states them."""
        return self.find(self.words, fold_column)


def load_images(
    source: str | os.PathLike[str],
    *,
    labels: str | None = None,
    fold: Fold | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    one_class: bool = False,
) -> DatasetDict:
    """Load real and fake images from any source in one schema.

    Args:
        source: `demo`; `cifake` (a local archive if there is one, else the Hub mirror); a zip archive or folder in the
            layout of CIFAKE, of the Kaggle data set "AI Generated Images vs Real Images", with folders named for the
            label, or with `metadata.csv` or `metadata.jsonl`; a parquet file or a folder of them; a folder written by
            `save_to_disk`; or a Hub id such as `user/name`. An existing path takes precedence over a Hub id. A
            relative path is also searched below `REALFAKE_SHARED`. `user/name[:1000]` streams 1,000 rows of each split
            of a Hub data set, whole row groups in random order; several sources, separated by commas, are read as one.
        labels: meaning of words of the source, such as `0=REAL,1=FAKE`: folder names or values of the label column.
            Other words are read as usual.
        fold: the training images to return as the validation split; the cached rows are the same for all folds.
        cache_dir: folder of the cached rows; by default, a folder of the `datasets` cache.
        one_class: accept a source with real or fake images only, for evaluation.

    Returns:
        The splits of the source, or one split `train`, with the columns of `SCHEMA`. Rows are sorted by their
        opaque ids, which amounts to shuffling. Unreadable images are skipped and logged.

    Raises:
        FileNotFoundError: the source does not exist or cannot be downloaded.
        ValueError: the source is ambiguous or unsafe, lacks a class, or more than 1% of it is unreadable; for a fold,
            see `held_out_ids`.
    """
    resolved = find_source(source, labels=labels)
    ids = fold and held_out_ids(resolved.records(fold.column), fold, name=resolved.name)
    folder = _cache_folder(resolved, cache_dir)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if damaged := damaged_files(folder / CHECKSUMS):
            logger.warning("checksum mismatch in %s: reading the source again", folder / damaged[0])
            shutil.rmtree(folder)
        if not folder.exists():
            for leftover in folder.parent.glob(f"{folder.name}.part-*"):  # from a killed process, as we hold the lock
                shutil.rmtree(leftover)
            write_splits(resolved.records(), resolved.reader, folder, name=resolved.name, one_class=one_class)
    _log_unreadable(resolved.name, _read_unreadable(folder))
    files = {split: folder / f"{split}.arrow" for split in SPLITS}
    images = DatasetDict({split: Dataset.from_file(str(file)) for split, file in files.items() if file.exists()})
    images = hold_out(images, ids) if ids else images
    classes = [(split, LABEL_NAMES[label]) for split, rows in images.items() for label in rows["label"][:]]
    require_both_classes(classes, resolved.name, one_class=one_class)  # an earlier call may have accepted one class
    return images


def load_split(
    source: str | os.PathLike[str], split: str | None = None, *, labels: str | None = None
) -> tuple[str, Dataset]:
    """Load one split of a source, as `load_images` does; return the name chosen by `choose_split`, and the rows."""
    splits = load_images(source, labels=labels)
    split = choose_split(splits, split, os.fspath(source))
    return split, splits[split]


def choose_split(splits: Mapping[str, object], split: str | None, name: str) -> str:
    """Return the split to evaluate: the given one, which must exist; without one, test, or the only split."""
    split = split or ("test" if "test" in splits or len(splits) > 1 else next(iter(splits)))
    if split not in splits:
        raise ValueError(f"expected the split {split!r} of {name}; found {', '.join(splits)}. Choose with --split.")
    return split


def unreadable_files(
    source: str | os.PathLike[str], *, labels: str | None = None, cache_dir: str | os.PathLike[str] | None = None
) -> list[Unreadable]:
    """List the images of a source that `load_images`, which must have been called, skipped as unreadable."""
    return _read_unreadable(_cache_folder(find_source(source, labels=labels), cache_dir))


def find_source(source: str | os.PathLike[str], *, labels: str | None = None) -> Source:
    """Determine the kind and location of a source without reading its images; `labels` as for `load_images`.

    Raises:
        FileNotFoundError: the source does not exist.
        ValueError: it is a file of an unsupported kind, or an unsafe archive.
    """
    words = parse_label_words(labels)
    found = _find_source(source)
    return replace(found, fingerprint=f"{found.fingerprint}\n{sorted(words.items())}", words=words) if words else found


def _find_source(source: str | os.PathLike[str]) -> Source:
    name = os.fspath(source)
    if name == "demo":
        return _rows(hub.open_parquet(DEMO), name="demo", fingerprint=file_stamp(DEMO))
    if name == CIFAKE:
        local = find_local_cifake()
        return _only_cifake(_from_path(local), local) if local else _cifake_mirror()
    path = Path(name).expanduser()
    path = next((root / path for root in _roots() if (root / path).exists()), path)
    if path.exists():
        return _from_path(path)
    if "," in name:
        return _joined([_find_source(part.strip()) for part in name.split(",")])
    match = re.fullmatch(r"([\w.-]+/[\w.-]+)(?:\[:([1-9]\d*)\])?", name)
    if match and not name.startswith(".") and path.suffix not in (".zip", ".parquet"):
        return _from_hub(match[1], int(match[2]) if match[2] else None)
    raise FileNotFoundError(
        f"expected a source of images; found nothing at {name!r}. Give demo, cifake, a zip archive, a folder, "
        "a parquet file, a Hub id such as user/name or user/name[:1000], or several, separated by commas."
    )


def _joined(sources: Sequence[Source]) -> Source:
    """Read several sources as one; a key begins with the number of its source."""

    def find(words: LabelWords, fold_column: str | None) -> list[Record]:
        return [
            replace(record, key=f"{number}/{record.key}")
            for number, source in enumerate(sources)
            for record in source.find(words, fold_column)
        ]

    name = " and ".join(source.name for source in sources)
    fingerprint = "\n".join(f"{source.name}\n{source.fingerprint}" for source in sources)
    return Source(name, fingerprint, find, _JoinedReader(tuple(source.reader for source in sources)))


@dataclass(frozen=True)
class _JoinedReader:
    readers: tuple[Reader, ...]

    def read(self, key: str) -> bytes:
        number, _, rest = key.partition("/")
        return self.readers[int(number)].read(rest)


def find_local_cifake() -> Path | None:
    """Find the CIFAKE archive or folder below the working directory or `REALFAKE_SHARED`."""
    places = [root / place for root in _roots() for place in CIFAKE_PLACES]
    return next((place for place in places if place.is_file() or (place.is_dir() and any(place.iterdir()))), None)


def _roots() -> list[Path]:
    shared = os.environ.get("REALFAKE_SHARED")
    return [Path(), Path(shared)] if shared else [Path()]


def _from_path(path: Path) -> Source:
    if path.is_file() and path.suffix == ".parquet":
        return _rows(hub.open_parquet(path), name=path.stem, fingerprint=f"{path.resolve()} {file_stamp(path)}")
    if path.is_file():
        return _files(ZipFiles(path), name=path.stem)
    files = FolderFiles(path)
    name = path.resolve().name
    if {"dataset_dict.json", "state.json"} & set(files.paths):
        return _rows(hub.open_saved(path), name=name, fingerprint=files.fingerprint)
    if parquet := [file for file in files.paths if file.endswith(".parquet") and not is_hidden(file)]:
        return _rows(hub.open_parquet(path, parquet), name=name, fingerprint=files.fingerprint)
    return _files(files, name=name)


def _files(files: Files, *, name: str) -> Source:
    name = os.fsencode(name).decode(errors="replace")
    return Source(name, files.fingerprint, partial(find_records, files, name), files)


def _rows(splits: DatasetDict, *, name: str, fingerprint: str, are_files: bool = False) -> Source:
    rows = hub.HubRows(splits, name=os.fsencode(name).decode(errors="replace"), are_files=are_files)
    return Source(name, fingerprint, rows.records, rows)


def _from_hub(name: str, n: int | None = None) -> Source:
    splits = hub.sample(name, n) if n else hub.download(name)
    files = [file["filename"] for rows in splits.values() for file in rows.cache_files]  # names contain the commit
    are_files = {rows.info.builder_name for rows in splits.values()} == {"imagefolder"}
    return _rows(splits, name=name, fingerprint="\n".join(files), are_files=are_files)


def _cifake_mirror() -> Source:
    try:
        mirror = _from_hub(CIFAKE_MIRROR)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"expected CIFAKE at {', '.join(CIFAKE_PLACES)}, or its mirror {CIFAKE_MIRROR} on the Hub; found neither. "
            f"Check the network, or download archive.zip from {CIFAKE_PAGE} and put it at {CIFAKE_PLACES[0]}."
        ) from error

    def records(words: LabelWords, fold_column: str | None) -> list[Record]:
        return [
            replace(record, source=CIFAKE, generator=CIFAKE_GENERATOR if record.label == "FAKE" else None)
            for record in mirror.find(words, fold_column)
        ]

    return replace(mirror, find=records)


def _only_cifake(source: Source, place: Path) -> Source:
    def records(words: LabelWords, fold_column: str | None) -> list[Record]:
        images = source.find(words, fold_column)
        if any(record.source != CIFAKE for record in images):
            raise ValueError(
                f"expected CIFAKE at {place}; found another data set. Put CIFAKE's archive.zip at {CIFAKE_PLACES[0]}, "
                f"or load this data set by its path, {place}."
            )
        return images

    return replace(source, name=CIFAKE, find=records)


def _read_unreadable(folder: Path) -> list[Unreadable]:
    rows = read_json(folder / "unreadable.json")
    return [Unreadable(printable(row["key"]), row["reason"]) for row in rows]


def _cache_folder(source: Source, cache_dir: str | os.PathLike[str] | None) -> Path:
    root = Path(cache_dir) if cache_dir else Path(config.HF_DATASETS_CACHE) / "realfake"
    digest = hashlib.sha256(os.fsencode(f"{_CACHE_VERSION}\n{source.name}\n{source.fingerprint}")).hexdigest()
    return root / f"{re.sub(r'[^a-zA-Z0-9]+', '-', source.name)}-{digest[:16]}"


def _log_unreadable(name: str, unreadable: list[Unreadable]) -> None:
    if not unreadable:
        return
    lines = "\n".join(f"  {file.key}: {file.reason}" for file in unreadable[:_MAX_LOGGED])
    rest = f"\n  and {len(unreadable) - _MAX_LOGGED} more" if len(unreadable) > _MAX_LOGGED else ""
    logger.warning("skipped %d unreadable images of %s:\n%s%s", len(unreadable), name, lines, rest)
