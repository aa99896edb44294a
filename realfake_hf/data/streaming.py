"""Stream parquet shards: batches for training, and rows for evaluation.

Shards lie in a folder or on the Hub, as written by `realfake_hf.data.shards`. No split is ever held in memory.
"""

import hashlib
import itertools
import logging
import os
from collections.abc import Collection, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from datasets import Dataset, Features, Image, IterableDataset, load_dataset, load_dataset_builder
from numpy.typing import NDArray
from torch import Tensor
from torch.utils import data as torch_data
from transformers import BaseImageProcessor

from realfake_hf.data.augment import Augmentation
from realfake_hf.data.decoding import UnreadableImageError, decode_image
from realfake_hf.data.hub import bytes_of_row, check_training_files
from realfake_hf.data.pixels import check_elongation, resize_images
from realfake_hf.sampling import Flags

logger = logging.getLogger(__name__)

COLUMNS: Final = frozenset({"id", "image", "label", "content", "sha256"})
_COLUMN_BATCH: Final = 4096  # rows of a single column in memory

State = dict[str, Any]
Row = dict[str, Any]
Keys = NDArray[np.uint64]
Rows = Sequence[int] | NDArray[np.integer]


@dataclass(frozen=True)
class ShardedSplit:
    """The shards of a split, of which only the row counts are held in memory, and `keys` once they are read.

    Each row group is a file (a local path or `hf://` URL), its position in the file, and its number of rows.
    """

    name: str
    row_groups: tuple[tuple[str, int, int], ...]

    @property
    def files(self) -> list[str]:
        """The files, in order."""
        return list(dict.fromkeys(file for file, _, _ in self.row_groups))

    @property
    def sizes(self) -> list[int]:
        """The number of rows in each row group."""
        return [rows for _, _, rows in self.row_groups]

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        """The first row of each row group, and the number of rows: (row groups + 1,)."""
        return np.cumsum([0, *self.sizes])

    def __len__(self) -> int:
        return int(self.starts[-1])

    def __getitem__(self, row: int) -> Row:
        """Read the row group of a row, and return the row with its decoded image."""
        return self.select([row])[0]  # type: ignore[no-any-return]

    def rows(self) -> IterableDataset:
        """Stream ids, encoded images and labels; each row group is one shard of the `IterableDataset`."""
        rows = load_dataset("parquet", data_files=self.files, split="train", streaming=True).reshard()
        return rows.select_columns(["id", "image", "label"]).cast_column("image", Image(decode=False))

    def load(self) -> Dataset:
        """Load the whole split, memory-mapped, with the columns of `load_images`."""
        rows = load_dataset("parquet", data_files={self.name: self.files}, split=self.name)
        _require_files(rows.data.column("image"), self.name)
        return rows

    def column(self, name: str) -> Iterator[list[Any]]:
        """Yield the values of a column in batches, without reading other columns."""
        for file in self.files:
            with fsspec.open(file) as stream, pq.ParquetFile(stream) as shard:
                for batch in shard.iter_batches(_COLUMN_BATCH, columns=[name]):
                    yield batch.column(0).to_pylist()

    def row_group(self, group: int, columns: Sequence[str] | None = None) -> pa.Table:
        """Read a row group by its index in `row_groups`."""
        file, position, _ = self.row_groups[group]
        with fsspec.open(file) as stream, pq.ParquetFile(stream) as shard:
            return shard.read_row_group(position, columns=columns)

    def fingerprint(self) -> dict[str, Any]:
        """Return the size, the class counts, and a digest of the images and labels in order."""
        digest, n_fake = hashlib.sha256(), 0
        for labels, hashes in zip(self.column("label"), self.column("sha256"), strict=True):
            n_fake += sum(labels)
            lines = (f"{label} {sha256}\n" for label, sha256 in zip(labels, hashes, strict=True))
            digest.update("".join(lines).encode())
        return {"n": len(self), "n_real": len(self) - n_fake, "n_fake": n_fake, "sha256": digest.hexdigest()}

    @cached_property
    def keys(self) -> Keys:
        """The first eight bytes of each image's hash: (n,)."""
        return np.concatenate([hash_keys(hashes) for hashes in self.column("sha256")])

    def names(self, column: str) -> tuple[str | None, ...]:
        """Return a column with few distinct values, each held in memory once."""
        known: dict[str | None, str | None] = {}
        return tuple(known.setdefault(name, name) for batch in self.column(column) for name in batch)

    def absent_from(self, others: "Iterable[ShardedSplit]") -> Flags:
        """Return, for each image, whether none of the other splits, which are streamed, contains it: (n,)."""
        own, positions = np.unique(self.keys, return_inverse=True)
        is_shared = np.zeros(len(own), dtype=np.bool_)
        for hashes in itertools.chain.from_iterable(other.column("sha256") for other in others):
            keys = hash_keys(hashes)
            nearest = np.minimum(np.searchsorted(own, keys), len(own) - 1)
            is_shared[nearest[own[nearest] == keys]] = True
        return ~is_shared[positions]

    def select(self, rows: Rows) -> Dataset:
        """Load some rows, given in ascending order, with the columns of `load_images`."""
        positions = np.asarray(rows)
        groups = np.searchsorted(self.starts, positions, side="right") - 1
        table = pa.concat_tables(
            self.row_group(group).take(pa.array(positions[groups == group] - self.starts[group]))
            for group in np.unique(groups).tolist()
        )
        _require_files(table.column("image"), self.name)
        features = Features.from_arrow_schema(table.schema)
        features["image"] = Image()
        return Dataset.from_list(table.to_pylist(), features=features)

    def share(self, size: int, *, processes: int, process: int) -> tuple[list[range], Iterator[Iterable[Row]]]:
        """Return the row numbers and the rows of each block of at most `size` rows of a process.

        Blocks lie within a row group, whatever the number of processes. Images are decoded during iteration; a
        `ValueError` is raised if one is unreadable, or if the shards have changed since they were counted.
        """
        groups = np.array_split(np.arange(len(self.row_groups)), processes)[process].tolist()
        blocks = [
            range(start, min(start + size, self.starts[group + 1]))
            for group in groups
            for start in range(self.starts[group], self.starts[group + 1], size)
        ]
        return blocks, self._read(groups, size)

    def _read(self, groups: Iterable[int], size: int) -> Iterator[Iterable[Row]]:
        for group in groups:
            table = self.row_group(group, ["id", "image", "sha256"])
            keys = hash_keys(table.column("sha256").to_pylist())
            if not np.array_equal(keys, self.keys[self.starts[group] : self.starts[group + 1]]):
                raise ValueError(
                    f"expected the {self.name} shards to be unchanged since they were counted; found other "
                    "images. Wait until they are completely written, and start again."
                )
            for start in range(0, len(table), size):
                yield _decode_rows(table[start : start + size])


def find_shards(source: str, *, columns: Collection[str] = COLUMNS) -> dict[str, ShardedSplit]:
    """Find the parquet shards of each split in a folder or Hub data set, and count their rows.

    Raises:
        FileNotFoundError: there are no shards.
        ValueError: a shard cannot be read, or lacks one of the columns.
    """
    try:
        data_files = load_dataset_builder(source).config.data_files or {}
    except (OSError, ValueError) as error:
        raise FileNotFoundError(
            f"expected parquet shards in a folder or Hub data set {source!r}; found none. "
            "Write them with `python -m realfake_hf.data.shards --data ... --output_dir ...`."
        ) from error
    if others := [file for files in data_files.values() for file in files if not file.endswith(".parquet")]:
        raise ValueError(
            f"expected only parquet shards in {source!r}; found {others[0].rpartition('/')[2]}. "
            "Convert other sources with `python -m realfake_hf.data.shards`."
        )
    root = os.path.realpath(source)  # of addresses on the Hub, there is none
    files = [file if "://" in file else os.path.relpath(file, root) for file in data_files.get("train", ())]
    check_training_files(files, name=source)
    return {
        str(name): ShardedSplit(str(name), tuple(group for file in files for group in _row_groups(file, columns)))
        for name, files in data_files.items()
    }


def _row_groups(file: str, columns: Collection[str]) -> list[tuple[str, int, int]]:
    try:
        with fsspec.open(file) as stream, pq.ParquetFile(stream) as shard:
            schema = shard.schema_arrow
            present = {field.name for field in schema if field.name != "image" or _is_file(field)}
            missing = sorted(set(columns) - present)
            metadata = shard.metadata
            groups = [(file, k, metadata.row_group(k).num_rows) for k in range(metadata.num_row_groups)]
    except pa.ArrowInvalid as error:
        raise ValueError(
            f"expected a parquet shard in {file}; found {error}. Repeat the command that wrote the shards."
        ) from error
    if missing:
        raise ValueError(
            f"expected the columns {', '.join(sorted(columns))} in {file}; found no {', '.join(missing)}. "
            "`python -m realfake_hf.data.shards` writes all of them."
        )
    return groups


def _is_file(field: pa.Field) -> bool:
    return bool(pa.types.is_struct(field.type) and field.type.get_field_index("bytes") >= 0)


def _require_files(images: pa.ChunkedArray, name: str) -> None:
    """Reject rows without the bytes of an image, before `datasets` opens the path or address in such a row."""
    missing = pc.struct_field(images, "bytes").null_count
    if missing:
        raise ValueError(
            f"expected image files in the {name} shards; found {missing:,} rows without one or with its path only. "
            "Write the shards again with `python -m realfake_hf.data.shards`."
        )


class StreamedPixels(torch_data.IterableDataset[dict[str, Tensor]]):
    """Stream decoded, resized batches of pixels and labels from shards.

    An epoch is a pass over all rows. The stream has one part per process and decoding worker. Row groups are shuffled
    and distributed over the parts; within a part, rows are shuffled in a buffer. Parts with fewer rows start over
    until all parts have yielded the same number of batches, as distributed training requires.

    The order depends on seed, epoch and part alone, and can be resumed after any batch by `state_dict` and
    `load_state_dict`; a resumed stream yields exactly the batches of an uninterrupted one.

    Args:
        processor: an image processor with a fixed output size.
        buffer_size: images in memory for each part; rounded up to whole batches.
        workers: decoding workers of each process; 0 to decode in the process itself.
        multiple: the number of batches in an epoch is rounded up to a multiple of this.
        seed: random seed of the order; `augment` has its own.
    """

    def __init__(
        self,
        split: ShardedSplit,
        processor: BaseImageProcessor,
        *,
        batch_size: int,
        buffer_size: int = 8192,
        processes: int = 1,
        process: int = 0,
        workers: int = 0,
        multiple: int = 1,
        augment: Augmentation | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.split, self.augment, self.epoch = split, augment, 0
        self._processor, self._seed, self._batch_size = processor, seed, batch_size
        self._buffer_size = -(-buffer_size // batch_size) * batch_size
        self._parts_per_process = max(1, workers)
        self._parts, self._first = processes * self._parts_per_process, process * self._parts_per_process
        if len(split.row_groups) < self._parts:
            raise ValueError(
                f"expected at least as many row groups as processes times workers, {self._parts}; found "
                f"{len(split.row_groups)} in the {split.name} shards. Use fewer workers, or write smaller shards."
            )
        max_groups = -(-len(split.row_groups) // self._parts)  # most row groups in a part
        batches = -(-sum(sorted(split.sizes, reverse=True)[:max_groups]) // batch_size)
        self._batches_per_part = -(-batches // multiple) * multiple
        self._rows = split.rows()
        self._start: State | None = None
        self._state: State = {}
        self.skips_single = False  # batches of a single image, for batch norms

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of order and augmentation, as a callback of the `Trainer` does."""
        self.epoch = epoch

    def __len__(self) -> int:
        """The number of batches of this process in an epoch."""
        return self._batches_per_part * self._parts_per_process

    def state_dict(self) -> State:
        """Return the position in the stream after the last batch."""
        return dict(self._state)

    def load_state_dict(self, state: State) -> None:
        """Resume from a position when the stream is next iterated over."""
        self._start = state

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        self._state = {}
        start, self._start = self._start or {"epoch": self.epoch, "lap": 0, "given": 0}, None
        self.epoch, given = start["epoch"], start["given"]
        for lap in itertools.count(start["lap"]):
            with closing(self._lap(lap, start if lap == start["lap"] else {})) as batches:
                for batch, position in batches:
                    given += 1
                    self._state = {"epoch": self.epoch, "lap": lap, "given": given, **position}
                    yield batch
                    if given == self._batches_per_part:
                        return
            if not self._state:
                raise ValueError(
                    f"expected readable images in the {self.split.name} shards; found none in one of {self._parts} "
                    "parts. See the warnings above, and write the shards again."
                )

    def _lap(self, lap: int, start: State) -> Generator[tuple[dict[str, Tensor], State]]:
        """Yield each batch of one pass over the rows of this part, and the position after it."""
        part = self._first + self._worker()
        shuffle_seed = int(np.random.default_rng([self._seed, self.epoch]).integers(2**31))  # the same in all parts
        rows = self._rows.shuffle(seed=shuffle_seed, buffer_size=1, max_buffer_input_shards=1)
        own = rows.with_format("arrow").shard(num_shards=self._parts, index=part)
        rows_state = start.get("rows")
        if rows_state:
            logging.getLogger("datasets.iterable_dataset").addFilter(_is_not_about_the_shuffle_buffer)
            own.load_state_dict(rows_state)
        done = start.get("done", 0)
        for number, block in enumerate(own.iter(batch_size=self._buffer_size), start.get("block", 0)):
            order = np.random.default_rng([self._seed, self.epoch, part, lap, number]).permutation(len(block))
            for position in range(done, len(block), self._batch_size):
                table = block.take(order[position : position + self._batch_size])
                batch = self._decode(table, (part << 40) + number * self._buffer_size + position)
                if batch is not None and (len(batch["labels"]) > 1 or not self.skips_single):
                    yield batch, {"rows": rows_state, "block": number, "done": position + self._batch_size}
            rows_state, done = own.state_dict(), 0

    def _worker(self) -> int:
        worker = torch_data.get_worker_info()
        return worker.id if worker else 0

    def _decode(self, rows: pa.Table, first: int) -> dict[str, Tensor] | None:
        """Decode and augment a batch; `first` numbers its first row, for the augmentation."""
        images, labels = [], []
        for row in rows.to_pylist():
            try:
                image = decode_image(bytes_of_row(row["image"]))
                check_elongation(image, self._processor)
                images.append(image)
                labels.append(row["label"])
            except UnreadableImageError as error:
                logger.warning("skipped the unreadable image %s: %s", row["id"], error)
        if not images:
            return None
        pixels = resize_images(images, self._processor)
        if self.augment:
            pixels = self.augment(pixels, first + np.arange(len(pixels)), epoch=self.epoch)
        return {"pixel_values": torch.from_numpy(pixels), "labels": torch.tensor(labels)}


def _is_not_about_the_shuffle_buffer(record: logging.LogRecord) -> bool:
    """Filter out the warning of `datasets` that a shuffle buffer is not resumed, as ours contains a single row."""
    return "shuffle buffer" not in record.getMessage()


def hash_keys(digests: Sequence[str]) -> Keys:
    """Return the first eight bytes of hexadecimal hashes as integers: (n,)."""
    return np.array([int(digest[:16], 16) for digest in digests], dtype=np.uint64)


def _decode_rows(rows: pa.Table) -> Iterator[Row]:
    for row in rows.to_pylist():
        try:
            yield {**row, "image": decode_image(bytes_of_row(row["image"]))}
        except UnreadableImageError as error:
            raise ValueError(
                f"expected readable images in the shards; found {row['id']}: {error}. Write the shards again with "
                "`python -m realfake_hf.data.shards`, which skips and logs unreadable images."
            ) from error
