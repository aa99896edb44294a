"""Where the pictures to be scored come from: files, parquet shards, or a data set. Found and counted, not yet read."""

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
from realfake_hf.data.files import read_file
from realfake_hf.data.folders import find_image_files
from realfake_hf.data.ingest import Unreadable
from realfake_hf.data.loading import load_images, unreadable_files

Row = Mapping[str, Any]

PARQUET: Final = ".parquet"
_SAVED: Final = ("dataset_dict.json", "dataset_info.json")  # of a folder written by save_to_disk
_HUB_ID: Final = re.compile(r"[\w.-]+/[\w.-]+")
_ON_HUB: Final = "hf://"
_ROWS: Final = 256  # of a shard, in memory at once


@dataclass(frozen=True)
class Item:
    """A picture that waits to be scored.

    Attributes:
        id: its path, the id of its row, or its shard and the number of its row there.
        read: gives the bytes of its file.
    """

    id: str
    read: Callable[[], bytes]


@dataclass(frozen=True)
class Part:
    """Some pictures in a row, which are scored and kept together.

    Attributes:
        number: its place among all parts, from 0.
        n: how many pictures.
        items: gives them, in order.
    """

    number: int
    n: int
    items: Callable[[], Iterator[Item]]


@dataclass(frozen=True)
class Supply:
    """All pictures.

    Attributes:
        kind: files, shards or rows.
        parts: of at most so many pictures as was asked.
        sha256: names the pictures and their order.
    """

    kind: str
    parts: Sequence[Part]
    sha256: str

    @property
    def n(self) -> int:
        """How many pictures there are."""
        return sum(part.n for part in self.parts)


def find_supply(words: Sequence[str], *, part_size: int) -> Supply:
    """Find out where pictures lie, and cut them into parts.

    Args:
        words: picture files, folders of them, and globs; or parquet shards, a folder of them, or a Hub set that has
            such; or one source that `load_images` takes, such as cifake or a zip archive.
        part_size: pictures of a part at most.

    Raises:
        FileNotFoundError: a word stands for nothing.
        ValueError: the shards cannot be read, or have no column of pictures.
    """
    if not words:
        raise ValueError("wanted --data; found none. Give files, folders, globs, parquet shards, or a Hub set.")
    shards = _shards(words)
    if shards:
        return _supply("shards", [(shard, *_counted(shard)) for shard in shards], _of_shard, part_size)
    if len(words) == 1 and _is_data_set(words[0]):
        splits = load_images(words[0], one_class=True)
        raw = [rows.cast_column("image", Image(decode=False)) for rows in splits.values()]
        left_out = unreadable_files(words[0])
        heaps = [(rows, len(rows), "\n".join(rows["sha256"][:])) for rows in raw]
        heaps += [(left_out, len(left_out), "\n".join(file.key for file in left_out))]
        return _supply("rows", heaps, _of_rows, part_size)
    files = find_image_files(words)
    return _supply("files", [(files, len(files), "\n".join(map(str, files)))], _of_files, part_size)


def _supply(
    kind: str,
    heaps: Sequence[tuple[Any, int, str]],
    items: Callable[[Any, int, int], Iterator[Item]],
    part_size: int,
) -> Supply:
    """Cut heaps of pictures (what it is, how many, what it is named by) into parts; none of them spans two heaps."""
    cuts = [(heap, start, min(start + part_size, n)) for heap, n, _ in heaps for start in range(0, n, part_size)]
    parts = [
        Part(number, stop - start, partial(items, heap, start, stop))
        for number, (heap, start, stop) in enumerate(cuts)
    ]
    if not parts:
        raise ValueError("wanted pictures to score; found none in --data.")
    names = hashlib.sha256("\n\n".join(f"{n}\n{name}" for _, n, name in heaps).encode("utf-8", "surrogateescape"))
    return Supply(kind, parts, names.hexdigest())


def _of_files(files: Sequence[Path], start: int, stop: int) -> Iterator[Item]:
    return (Item(str(file), partial(read_file, file)) for file in files[start:stop])


def _of_rows(rows: Dataset | list[Unreadable], start: int, stop: int) -> Iterator[Item]:
    if isinstance(rows, list):
        yield from (Item(file.key, partial(_fail, file.reason)) for file in rows[start:stop])
        return
    for first in range(start, stop, _ROWS):
        some = rows[first : min(first + _ROWS, stop)]
        for own, picture in zip(some["id"], some["image"], strict=True):
            yield Item(own, partial(_bytes_of, picture))


def _fail(reason: str) -> bytes:
    raise UnreadableImageError(reason)


def _of_shard(shard: str, start: int, stop: int) -> Iterator[Item]:
    with _opened(shard) as file:
        picture = _picture_column(file.schema_arrow, shard)
        columns = [name for name in (picture, "id") if name in file.schema_arrow.names]
        for row, one in _rows_of(file, columns, start, stop):
            own = one.get("id")
            yield Item(f"{shard}#{row}" if own is None else str(own), partial(_bytes_of, one[picture]))


def _rows_of(file: pq.ParquetFile, columns: Sequence[str], start: int, stop: int) -> Iterator[tuple[int, Row]]:
    """Numbers and values of the rows from and to; row groups without any of them are not read."""
    ends = np.cumsum([file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)])
    first, last = np.searchsorted(ends, [start, stop - 1], side="right").tolist()
    row = int(ends[first - 1]) if first else 0
    for batch in file.iter_batches(_ROWS, row_groups=range(first, last + 1), columns=columns):
        low, high = max(start, row), min(stop, row + len(batch))
        if low < high:
            yield from enumerate(batch.slice(low - row, high - low).to_pylist(), low)
        row += len(batch)


def _bytes_of(picture: object) -> bytes:
    match picture:
        case bytes(data) | {"bytes": bytes(data)}:
            return data
        case {"path": str(path)}:
            return read_file(Path(path))
    raise UnreadableImageError("the row holds no picture")


def _shards(words: Sequence[str]) -> list[str]:
    """The parquet files that are meant; none where the words mean something else."""
    found = [_shards_of(word) for word in words]
    if any(found) and not all(found):
        raise ValueError(f"wanted parquet shards alone, or pictures alone; found both in {', '.join(words)}.")
    return list(chain.from_iterable(found))


def _shards_of(word: str) -> list[str]:
    path = Path(word).expanduser()
    if path.is_dir():
        is_saved = any((path / name).is_file() for name in _SAVED)
        return [] if is_saved else sorted(map(str, path.rglob(f"*{PARQUET}")))
    if path.suffix == PARQUET:
        files = [str(path)] if path.is_file() else sorted(glob.glob(str(path), recursive=True))  # noqa: PTH207
        if not files:
            raise FileNotFoundError(f"wanted parquet shards at {word!r}; found none.")
        return files
    is_hub = _HUB_ID.fullmatch(word) and not path.exists() and not path.suffix
    return _shards_on_hub(word) if is_hub else []


def _shards_on_hub(name: str) -> list[str]:
    system = HfFileSystem()
    for root in (f"datasets/{name}", f"datasets/{name}@refs/convert/parquet"):  # the Hub converts what is none
        try:
            found = sorted(system.glob(f"{root}/**/*{PARQUET}"))
        except (OSError, HfHubHTTPError):
            continue
        if found:
            return [f"{_ON_HUB}{path}" for path in found]
    raise FileNotFoundError(
        f"wanted pictures at {name!r}; found neither such a path here nor a data set of that name with parquet files "
        "on the Hugging Face Hub within reach. Check the name and the network."
    )


def _opened(shard: str) -> pq.ParquetFile:
    try:
        if shard.startswith(_ON_HUB):
            return pq.ParquetFile(HfFileSystem().open(shard))
        return pq.ParquetFile(shard)
    except pa.ArrowInvalid as error:
        raise ValueError(f"wanted parquet in {shard}; found {error}. Write or download it anew.") from error


def _counted(shard: str) -> tuple[int, str]:
    """How many rows a shard has, and what it is named by."""
    with _opened(shard) as file:
        _picture_column(file.schema_arrow, shard)
        return file.metadata.num_rows, f"{shard} {file.metadata.serialized_size}"


def _picture_column(schema: pa.Schema, shard: str) -> str:
    features = Features.from_arrow_schema(schema)
    columns = [name for name, feature in features.items() if isinstance(feature, Image)]
    plain = [field.name for field in schema if field.name == "image"]
    chosen = plain or columns
    if len(chosen) != 1:
        raise ValueError(
            f"wanted one column of pictures in {shard}; found {len(columns)} among {', '.join(schema.names)}. Name "
            "the one that is meant `image`."
        )
    return str(chosen[0])


def _is_data_set(word: str) -> bool:
    path = Path(word).expanduser()
    if path.is_dir():
        return any((path / name).is_file() for name in _SAVED)
    return path.suffix == ".zip" or (not path.exists() and word in ("cifake", "demo"))
