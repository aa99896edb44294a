"""The images to score: files, parquet shards or a data set, found and counted but not yet read."""

import glob
import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset, Features, Image
from huggingface_hub import HfFileSystem
from huggingface_hub.errors import HfHubHTTPError

from realfake_hf.data.decoding import UnreadableImageError
from realfake_hf.data.files import FolderFiles, printable, read_file
from realfake_hf.data.folders import find_image_files
from realfake_hf.data.hub import bytes_of_row
from realfake_hf.data.loading import Unreadable, load_images, unreadable_files
from realfake_hf.store import file_names

Row = Mapping[str, Any]

PARQUET: Final = ".parquet"
_SAVED: Final = ("dataset_dict.json", "dataset_info.json")  # in a folder written by save_to_disk
_HUB_ID: Final = re.compile(r"[\w.-]+/[\w.-]+")
_ON_HUB: Final = "hf://"
_ROWS: Final = 256  # rows of a shard in memory at once


@dataclass(frozen=True)
class Item:
    """One image: its name or id, or shard and row number, and a function that returns its encoded bytes."""

    id: str
    read: Callable[[], bytes]


Source = tuple[Callable[[int, int], Iterator[Item]], int, str]  # items from start to end, their number, and identity


@dataclass(frozen=True)
class Part:
    """Consecutive images that are scored and stored together: their position among all parts, number, and iterator."""

    number: int
    n: int
    items: Callable[[], Iterator[Item]]


@dataclass(frozen=True)
class Inputs:
    """All images: files, shards or rows, in parts; the digest changes if images are added, removed or reordered."""

    kind: str
    parts: Sequence[Part]
    sha256: str

    @property
    def n(self) -> int:
        """Number of images."""
        return sum(part.n for part in self.parts)


def find_inputs(words: Sequence[str], *, part_size: int, labels: str | None = None) -> Inputs:
    """Find images and divide them into parts of at most `part_size`.

    The words are image files, folders and globs of images; or parquet shards, a folder of shards, or a Hub data set
    with parquet files; or one source of `load_images`, such as cifake or a zip archive, with its `labels`.
    """
    shards = _shards(words)
    if shards:
        names = file_names([Path(shard) for shard in shards]) if not shards[0].startswith(_ON_HUB) else shards
        pairs = zip(shards, names, strict=True)
        return _divide("shards", [(partial(_items_of_shard, *pair), *_count(pair[0])) for pair in pairs], part_size)
    if len(words) == 1 and _is_data_set(words[0]):
        return _divide("rows", _sources_of_data_set(words[0], labels), part_size)
    files = find_image_files(words)
    named = list(zip(files, file_names(files), strict=True))
    return _divide("files", [(partial(_items_of_files, named), len(files), "\n".join(map(str, files)))], part_size)


def _sources_of_data_set(word: str, labels: str | None) -> list[Source]:
    splits = load_images(word, labels=labels, one_class=True)
    encoded = [rows.cast_column("image", Image(decode=False)) for rows in splits.values()]
    unreadable = unreadable_files(word, labels=labels)
    identity = "\n".join(file.key for file in unreadable)
    return [
        *((partial(_items_of_rows, rows), len(rows), "\n".join(rows["sha256"][:])) for rows in encoded),
        (partial(_items_of_unreadable, unreadable), len(unreadable), identity),
    ]


def _divide(kind: str, sources: Sequence[Source], part_size: int) -> Inputs:
    """Divide sources into parts; no part contains images of two sources."""
    ranges = [(items, start, min(start + part_size, n)) for items, n, _ in sources for start in range(0, n, part_size)]
    if not ranges:
        raise ValueError("expected images to score; found none in --data.")
    parts = [
        Part(number, end - start, partial(items, start, end)) for number, (items, start, end) in enumerate(ranges)
    ]
    identity = "\n\n".join(f"{n}\n{name}" for _, n, name in sources).encode("utf-8", "surrogateescape")
    return Inputs(kind, parts, hashlib.sha256(identity).hexdigest())


def _items_of_files(files: Sequence[tuple[Path, str]], start: int, end: int) -> Iterator[Item]:
    return (Item(printable(name), partial(read_file, file)) for file, name in files[start:end])


def _items_of_unreadable(files: Sequence[Unreadable], start: int, end: int) -> Iterator[Item]:
    return (Item(printable(file.key), partial(_fail, file.reason)) for file in files[start:end])


def _items_of_rows(rows: Dataset, start: int, end: int) -> Iterator[Item]:
    for first in range(start, end, _ROWS):
        batch = rows[first : min(first + _ROWS, end)]
        for row_id, image in zip(batch["id"], batch["image"], strict=True):
            yield Item(row_id, partial(bytes_of_row, image))


def _fail(reason: str) -> bytes:
    raise UnreadableImageError(reason)


def _items_of_shard(shard: str, name: str, start: int, end: int) -> Iterator[Item]:
    with _open(shard) as file:
        column = _image_column(file.schema_arrow, shard)
        columns = [name for name in (column, "id") if name in file.schema_arrow.names]
        for number, row in _rows_of(file, columns, start, end):
            row_id = row.get("id")
            row_name = f"{printable(name)}#{number}" if row_id is None else str(row_id)
            yield Item(row_name, partial(bytes_of_row, row[column]))


def _rows_of(file: pq.ParquetFile, columns: Sequence[str], start: int, end: int) -> Iterator[tuple[int, Row]]:
    """Yield numbers and values of the rows from start to end, and read no other row groups."""
    ends = np.cumsum([file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)])
    first, last = np.searchsorted(ends, [start, end - 1], side="right").tolist()
    row = int(ends[first - 1]) if first else 0
    for batch in file.iter_batches(_ROWS, row_groups=range(first, last + 1), columns=columns):
        low, high = max(start, row), min(end, row + len(batch))
        if low < high:
            yield from enumerate(batch.slice(low - row, high - low).to_pylist(), low)
        row += len(batch)


def _shards(words: Sequence[str]) -> list[str]:
    """Return the parquet files at the words, or none if they refer to something else."""
    shards = [_shards_of(word) for word in words]
    if any(shards) and not all(shards):
        raise ValueError(f"expected either parquet shards or images; found both in {', '.join(words)}.")
    return list(chain.from_iterable(shards))


def _shards_of(word: str) -> list[str]:
    path = Path(word).expanduser()
    if path.is_dir():
        return (
            [] if _is_saved(path) else [str(path / file) for file in FolderFiles(path).paths if file.endswith(PARQUET)]
        )
    if path.suffix == PARQUET:
        files = [str(path)] if path.is_file() else sorted(glob.glob(str(path), recursive=True))  # noqa: PTH207
        if not files:
            raise FileNotFoundError(f"expected parquet shards at {word!r}; found none.")
        return files
    is_hub_id = _HUB_ID.fullmatch(word) and not path.exists() and not path.suffix
    return _shards_on_hub(word) if is_hub_id else []


def _shards_on_hub(name: str) -> list[str]:
    system = HfFileSystem()
    for root in (f"datasets/{name}", f"datasets/{name}@refs/convert/parquet"):  # the Hub converts other formats
        try:
            files = sorted(system.glob(f"{root}/**/*{PARQUET}"))
        except (OSError, HfHubHTTPError):
            continue
        if files:
            return [f"{_ON_HUB}{file}" for file in files]
    raise FileNotFoundError(
        f"expected images at {name!r}; found neither a local path nor a data set of that name with parquet files on "
        "the Hugging Face Hub. Check the name and the network."
    )


def _open(shard: str) -> pq.ParquetFile:
    try:
        if shard.startswith(_ON_HUB):
            return pq.ParquetFile(HfFileSystem().open(shard))
        return pq.ParquetFile(shard)
    except pa.ArrowInvalid as error:
        raise ValueError(f"expected parquet in {shard}; found {error}. Create or download it again.") from error


def _count(shard: str) -> tuple[int, str]:
    """Return the number of rows of a shard, and its identity."""
    with _open(shard) as file:
        _image_column(file.schema_arrow, shard)
        return file.metadata.num_rows, f"{shard} {file.metadata.serialized_size}"


def _image_column(schema: pa.Schema, shard: str) -> str:
    if "image" in schema.names:
        return "image"
    columns = [name for name, feature in Features.from_arrow_schema(schema).items() if isinstance(feature, Image)]
    if len(columns) != 1:
        raise ValueError(
            f"expected one column of images in {shard}; found {len(columns)} among {', '.join(schema.names)}. Name "
            "the column `image`."
        )
    return str(columns[0])


def _is_saved(folder: Path) -> bool:
    return any((folder / name).is_file() for name in _SAVED)


def _is_data_set(word: str) -> bool:
    path = Path(word).expanduser()
    if path.is_dir():
        return _is_saved(path)
    return path.suffix == ".zip" or (not path.exists() and word in ("cifake", "demo"))
