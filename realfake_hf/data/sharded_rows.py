"""Rows of shards to measure on: what is said of each picture in memory, the pictures themselves as they pass."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset, Features, Image
from numpy.typing import NDArray

from realfake_hf.data.decoding import UnreadablePictureError, read_picture
from realfake_hf.data.streaming import ShardedSplit

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
        return np.concatenate([keys_of(some) for some in self.split.column("sha256")])

    def names(self, column: str) -> tuple[str | None, ...]:
        """A column of few different names, each held once."""
        known: dict[str | None, str | None] = {}
        return tuple(known.setdefault(one, one) for some in self.split.column(column) for one in some)

    def is_none_of(self, others: Iterable[ShardedSplit]) -> NDArray[np.bool_]:
        """Say of each picture, (n,), whether it is in none of other splits, which are read and not held."""
        own, places = np.unique(self.keys, return_inverse=True)
        is_seen = np.zeros(len(own), dtype=np.bool_)
        for some in itertools.chain.from_iterable(other.column("sha256") for other in others):
            keys = keys_of(some)
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
            if (keys_of(some.column("sha256").to_pylist()) != self.keys[block.start : block.stop]).any():
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


def keys_of(digests: Sequence[str]) -> Keys:
    """(n,) the first eight bytes of hashes that are written in hexadecimal digits."""
    return np.array([int(digest[:16], 16) for digest in digests], dtype=np.uint64)


_CHANGED = (
    "wanted the {} shards as they were when they were counted; found other pictures. Somebody writes them: wait until "
    "that is done, and start again."
)


def _decoded(rows: pa.Table) -> Iterator[Row]:
    for row in rows.to_pylist():
        try:
            yield {**row, "image": read_picture(row["image"]["bytes"])}
        except UnreadablePictureError as error:
            raise ValueError(
                f"wanted pictures in the shards that can be read; found {row['id']}: {error}. Write the shards anew: "
                "`python -m realfake_hf.data.shards` leaves such pictures out, and names them."
            ) from error
