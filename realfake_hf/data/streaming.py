"""Parquet shards as a stream of batches: shared out among processes, shuffled, resumable between any two batches.

Shards lie in a folder or on the Hub, as `realfake_hf.data.shards` writes them; none of them is ever held whole.
"""

import hashlib
import itertools
import logging
from collections.abc import Collection, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from datasets import Dataset, Features, Image, IterableDataset, load_dataset, load_dataset_builder
from numpy.typing import NDArray
from torch import Tensor
from torch.utils import data as torch_data
from transformers import BaseImageProcessor

from realfake_hf.data.augment import Augmentation
from realfake_hf.data.decoding import UnreadableImageError, decode_image
from realfake_hf.data.pixels import resize_images

logger = logging.getLogger(__name__)

State = dict[str, Any]


def _is_of_more_than_one_row(record: logging.LogRecord) -> bool:
    """Whether a message is not of the buffer that `datasets` cannot put into a state: it holds one row here."""
    return "shuffle buffer" not in record.getMessage()


COLUMNS: Final = frozenset({"id", "image", "label", "content", "sha256"})
_ROWS: Final = 4096  # of a column, in memory at once


@dataclass(frozen=True)
class ShardedSplit:
    """The shards of one split, found and counted, not read.

    Attributes:
        name: of the split.
        files: paths, or addresses that begin with `hf://`.
        groups: rows of each row group of all files, in order.
        groups_of_files: how many row groups each file has.
    """

    name: str
    files: tuple[str, ...]
    groups: tuple[int, ...]
    groups_of_files: tuple[int, ...]

    @property
    def n(self) -> int:
        """How many pictures there are."""
        return sum(self.groups)

    def rows(self, columns: Sequence[str] = ("id", "image", "label")) -> IterableDataset:
        """Their rows, with the pictures as the bytes of their files; a row group is the least that is shared out."""
        rows = load_dataset("parquet", data_files=list(self.files), split="train", streaming=True).reshard()
        return rows.select_columns(list(columns)).cast_column("image", Image(decode=False))

    def load(self) -> Dataset:
        """All of it in the columns of `load_images`, memory-mapped: for splits to measure on."""
        return load_dataset("parquet", data_files={self.name: list(self.files)}, split=self.name)

    def column(self, name: str) -> Iterator[list[Any]]:
        """The values of a column, some thousands at a time; no other column is read."""
        for file in self.files:
            with fsspec.open(file) as opened, pq.ParquetFile(opened) as shard:
                for batch in shard.iter_batches(_ROWS, columns=[name]):
                    yield batch.column(0).to_pylist()

    def max_rows(self, parts: int) -> int:
        """The largest number of rows that one of so many parts can get, whichever row groups fall to it."""
        return sum(sorted(self.groups, reverse=True)[: -(-len(self.groups) // parts)])

    def fingerprint(self) -> dict[str, Any]:
        """Size, class balance and digest; the digest covers pictures and labels, in order."""
        digest, fake = hashlib.sha256(), 0
        for labels, pictures in zip(self.column("label"), self.column("sha256"), strict=True):
            fake += sum(labels)
            digest.update(
                "".join(f"{label} {picture}\n" for label, picture in zip(labels, pictures, strict=True)).encode()
            )
        return {"n": self.n, "n_real": self.n - fake, "n_fake": fake, "sha256": digest.hexdigest()}


def find_shards(source: str, *, columns: Collection[str] = COLUMNS) -> dict[str, ShardedSplit]:
    """Find the shards of a folder or a Hub set, and read how many rows they have.

    Args:
        source: a folder, or the id of a Hub set.
        columns: that they must have.

    Raises:
        FileNotFoundError: there are none.
        ValueError: a shard cannot be read, or lacks a column.
    """
    try:
        found = load_dataset_builder(source).config.data_files or {}
    except (OSError, ValueError) as error:
        raise FileNotFoundError(
            f"wanted a folder or a Hub set of parquet shards at {source!r}; found none within reach. "
            "`python -m realfake_hf.data.shards --data ... --output_dir ...` writes them."
        ) from error
    strange = [file for files in found.values() for file in files if not file.endswith(".parquet")]
    if strange:
        raise ValueError(
            f"wanted parquet shards alone in {source!r}; found {_name_of(strange[0])}. "
            "`python -m realfake_hf.data.shards` makes shards of other sources."
        )
    return {str(name): _counted(str(name), tuple(files), columns) for name, files in found.items()}


def _counted(name: str, files: tuple[str, ...], columns: Collection[str]) -> ShardedSplit:
    groups = [_groups(file, columns) for file in files]
    return ShardedSplit(name, files, tuple(itertools.chain.from_iterable(groups)), tuple(map(len, groups)))


def _groups(file: str, columns: Collection[str]) -> list[int]:
    try:
        with fsspec.open(file) as opened, pq.ParquetFile(opened) as shard:
            lacking = sorted(set(columns) - set(shard.schema_arrow.names))
            facts = shard.metadata
            groups = [facts.row_group(group).num_rows for group in range(facts.num_row_groups)]
    except pa.ArrowInvalid as error:
        raise ValueError(
            f"wanted a parquet shard in {file}; found {error}. Write it again: the command that made the shards "
            "replaces those that are not as their checksums say."
        ) from error
    if lacking:
        raise ValueError(
            f"wanted the columns {', '.join(sorted(columns))} in {file}; found no {', '.join(lacking)}. "
            "`python -m realfake_hf.data.shards --data` writes a source with all of them."
        )
    return groups


def _name_of(file: str) -> str:
    return file.rpartition("/")[2]


class StreamedPixels(torch_data.IterableDataset[dict[str, Tensor]]):
    """Batches of pixels and labels from shards: each part of the stream decodes and resizes its own.

    An epoch is a pass over all rows. Row groups are shuffled and shared out among processes and their workers; the
    rows of some of them at a time, as many as the buffer holds, are shuffled once more. Parts that get fewer rows than
    the largest begin again until all have given equally many batches, as processes that learn together must.

    The order follows from seed, epoch and part alone, so that the state of a stream is its place in it: a resumed
    stream gives the very batches that an unbroken one would have given.

    Args:
        split: the shards.
        processor: an image processor with a fixed output size.
        batch_size: pictures of a batch.
        buffer_size: pictures in memory at once, for each part; rounded up to whole batches.
        processes: that learn together.
        process: which of them this is, from 0.
        workers: of each process that read and decode; 0 for the process itself.
        multiple: of how many batches an epoch is.
        augment: what is done to the pictures.
        seed: of the order.
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
        self._processor, self._seed = processor, seed
        self._batch_size = batch_size
        self._buffer_size = -(-buffer_size // batch_size) * batch_size
        self._each = max(1, workers)  # parts of each process
        self._parts, self._first = processes * self._each, process * self._each
        if len(split.groups) < self._parts:
            raise ValueError(
                f"wanted at least as many row groups as processes times workers, {self._parts}; found "
                f"{len(split.groups)} in the {split.name} shards. Use fewer workers, or write smaller shards."
            )
        own = -(-split.max_rows(self._parts) // batch_size)
        self._own_batches = -(-own // multiple) * multiple
        self._rows = split.rows()
        self._start: State | None = None
        self._state: State = {}

    def set_epoch(self, epoch: int) -> None:
        """Draw order and augmentation of an epoch; a callback of the `Trainer` calls this."""
        self.epoch = epoch

    def __len__(self) -> int:
        """Batches of an epoch, of this process."""
        return self._own_batches * self._each

    def state_dict(self) -> State:
        """The place in the stream, after the batch that was given last."""
        return dict(self._state)

    def load_state_dict(self, state: State) -> None:
        """Go on from a place, the next time that the stream is begun."""
        self._start = state

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        self._state = {}
        start, self._start = self._start or {"epoch": self.epoch, "lap": 0, "given": 0}, None
        self.epoch = start["epoch"]
        given = start["given"]
        for lap in itertools.count(start["lap"]):
            with closing(self._lap(lap, start if lap == start["lap"] else {})) as batches:
                for batch, place in batches:
                    given += 1
                    self._state = {"epoch": self.epoch, "lap": lap, "given": given, **place}
                    yield batch
                    if given == self._own_batches:
                        return
            if not self._state:
                raise ValueError(
                    f"wanted pictures in the {self.split.name} shards; found none that can be read in the part of "
                    f"{self._parts} that fell to this process. Look at the warnings, and write the shards again."
                )

    def _lap(self, lap: int, start: State) -> Generator[tuple[dict[str, Tensor], State]]:
        """One pass over the rows of this part, and the place after each batch."""
        part = self._first + self._worker()
        drawn = int(np.random.default_rng([self._seed, self.epoch]).integers(2**31))  # alike in all parts
        rows = self._rows.shuffle(seed=drawn, buffer_size=1, max_buffer_input_shards=1)
        own = rows.with_format("arrow").shard(num_shards=self._parts, index=part)
        before = start.get("rows")
        if before:
            logging.getLogger("datasets.iterable_dataset").addFilter(_is_of_more_than_one_row)
            own.load_state_dict(before)
        blocks, done = own.iter(batch_size=self._buffer_size), start.get("done", 0)
        for number in itertools.count(start.get("block", 0)):
            block = next(blocks, None)
            if block is None:
                return
            order = np.random.default_rng([self._seed, self.epoch, part, lap, number]).permutation(len(block))
            for place in range(done, len(block), self._batch_size):
                some = block.take(order[place : place + self._batch_size])
                batch = self._decoded(some, (part << 40) + number * self._buffer_size + place)
                if batch is not None:
                    yield batch, {"rows": before, "block": number, "done": place + self._batch_size}
            before, done = own.state_dict(), 0

    def _worker(self) -> int:
        worker = torch_data.get_worker_info()
        return worker.id if worker else 0

    def _decoded(self, rows: pa.Table, first: int) -> dict[str, Tensor] | None:
        pictures, labels = [], []
        for row in rows.to_pylist():
            try:
                pictures.append(decode_image(row["image"]["bytes"]))
            except UnreadableImageError as error:
                logger.warning("%s is left out: %s", row["id"], error)
            else:
                labels.append(row["label"])
        if not pictures:
            return None
        pixels = resize_images(pictures, self._processor)
        if self.augment:
            pixels = self.augment(pixels, first + np.arange(len(pixels)), epoch=self.epoch)
        return {"pixel_values": torch.from_numpy(pixels), "labels": torch.tensor(labels)}


Row = dict[str, Any]
Keys = NDArray[np.uint64]

_READ = 256  # rows of a stream, in memory at once


class ShardedRows:
    """The rows of a split that is never held whole.

    Of each picture eight bytes of its hash are kept, to know it again; all else is read where it is asked for.

    Args:
        split: the shards.
    """

    def __init__(self, split: ShardedSplit) -> None:
        self.split = split
        self._ends = np.cumsum(split.groups)  # of the row groups

    def __len__(self) -> int:
        return self.split.n

    def __getitem__(self, row: int) -> Row:
        """A row with its picture, decoded; its row group is read for it."""
        found: Row = self.select([row])[0]
        return found

    @cached_property
    def keys(self) -> Keys:
        """(n,) the first eight bytes of each picture's hash."""
        return np.concatenate([hash_keys(some) for some in self.split.column("sha256")])

    def names(self, column: str) -> tuple[str | None, ...]:
        """A column of few different names, each held once."""
        known: dict[str | None, str | None] = {}
        return tuple(known.setdefault(one, one) for some in self.split.column(column) for one in some)

    def absent_from(self, others: Iterable[ShardedSplit]) -> NDArray[np.bool_]:
        """Say of each picture, (n,), whether it is in none of other splits, which are read and not held."""
        own, places = np.unique(self.keys, return_inverse=True)
        is_seen = np.zeros(len(own), dtype=np.bool_)
        for some in itertools.chain.from_iterable(other.column("sha256") for other in others):
            keys = hash_keys(some)
            at = np.minimum(np.searchsorted(own, keys), len(own) - 1)
            is_seen[at[own[at] == keys]] = True
        return ~is_seen[places]

    def select(self, rows: Sequence[int] | NDArray[np.integer]) -> Dataset:
        """Some rows, by their places in ascending order, in the columns of `load_images`; these are held."""
        tables = [self._group(group).take(pa.array(own)) for group, own in self._by_group(rows)]
        table = pa.concat_tables(tables)
        features = Features.from_arrow_schema(table.schema)
        features["image"] = Image()
        return Dataset.from_list(table.to_pylist(), features=features)

    def files(self, rows: Sequence[int] | NDArray[np.integer]) -> list[bytes]:
        """The bytes of some pictures' files, by their places in ascending order."""
        return [
            file["bytes"]
            for group, own in self._by_group(rows)
            for file in self._group(group, ["image"]).take(pa.array(own)).column("image").to_pylist()
        ]

    def share(self, size: int, *, processes: int, process: int) -> tuple[list[range], Iterator[Iterable[Row]]]:
        """Read what falls to a process, block by block: whole row groups, as `IterableDataset.shard` shares them out.

        No block spans two row groups, so that blocks are the same however many processes there are.

        Args:
            size: rows of a block at most.
            processes: that share the split.
            process: which of them this is, from 0.

        Returns:
            The places of each block's rows, and the blocks. A block's pictures are decoded when it is gone through.

        Raises:
            ValueError: on the way, where a picture cannot be read, or the shards are not those that were counted.
        """
        own = np.array_split(np.arange(len(self.split.groups)), processes)[process]
        starts = self._ends - np.asarray(self.split.groups)
        blocks = [
            range(start, min(start + size, self._ends[group]))
            for group in own
            for start in range(starts[group], self._ends[group], size)
        ]
        return blocks, self._read(blocks, processes=min(processes, len(self.split.groups)), process=process)

    def _read(self, blocks: Sequence[range], *, processes: int, process: int) -> Iterator[Iterable[Row]]:
        if not blocks:
            return
        rows = self.split.rows(["id", "image", "sha256"]).with_format("arrow")
        tables = rows.shard(num_shards=processes, index=process).iter(batch_size=_READ)
        held: pa.Table | None = None
        for block in blocks:
            while held is None or len(held) < len(block):
                more = next(tables, None)
                if more is None:
                    raise ValueError(_CHANGED.format(self.split.name))
                held = more if held is None else pa.concat_tables([held, more])
            some, held = held[: len(block)], held[len(block) :]
            if (hash_keys(some.column("sha256").to_pylist()) != self.keys[block.start : block.stop]).any():
                raise ValueError(_CHANGED.format(self.split.name))
            yield _decoded(some)

    def _by_group(self, rows: Sequence[int] | NDArray[np.integer]) -> Iterator[tuple[int, NDArray[np.integer]]]:
        """Row groups, and the places inside them that are meant."""
        places = np.asarray(rows)
        groups = np.searchsorted(self._ends, places, side="right")
        for group in np.unique(groups).tolist():
            yield group, places[groups == group] - (self._ends[group] - self.split.groups[group])

    def _group(self, group: int, columns: Sequence[str] | None = None) -> pa.Table:
        for file, groups in zip(self.split.files, self.split.groups_of_files, strict=True):
            if group < groups:
                with fsspec.open(file) as opened, pq.ParquetFile(opened) as shard:
                    return shard.read_row_group(group, columns=columns)
            group -= groups
        raise IndexError(f"wanted a row of the {self.split.n:,} in the {self.split.name} shards; found none so far on")


def hash_keys(digests: Sequence[str]) -> Keys:
    """(n,) the first eight bytes of hashes that are written in hexadecimal digits."""
    return np.array([int(digest[:16], 16) for digest in digests], dtype=np.uint64)


_CHANGED = (
    "wanted the {} shards as they were when they were counted; found other pictures. Somebody writes them: wait until "
    "that is done, and start again."
)


def _decoded(rows: pa.Table) -> Iterator[Row]:
    for row in rows.to_pylist():
        try:
            yield {**row, "image": decode_image(row["image"]["bytes"])}
        except UnreadableImageError as error:
            raise ValueError(
                f"wanted pictures in the shards that can be read; found {row['id']}: {error}. Write the shards anew: "
                "`python -m realfake_hf.data.shards` leaves such pictures out, and names them."
            ) from error
