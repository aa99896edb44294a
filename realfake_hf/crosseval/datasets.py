"""The data sets of the grid: which split, which pictures, which of them the training may have seen."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from datasets import Dataset, DatasetDict, Image

from realfake_hf.data.folders import CIFAKE_CONTENTS
from realfake_hf.data.loading import load_images
from realfake_hf.data.metadata import FileProperties, properties_of_files, read_file_properties
from realfake_hf.data.sampling import Flags, draw_evenly
from realfake_hf.data.streaming import COLUMNS, ShardedRows, find_shards
from realfake_hf.environment import data_fingerprint
from realfake_hf.labels import FAKE

SAME_CONTENT: Final[Mapping[str, str]] = {
    "aeroplane": "airplane", "plane": "airplane", "boat": "ship", "car": "automobile", "cock": "bird", "hen": "bird",
    "ostrich": "bird",
}  # fmt: skip  # what other data sets call the contents of CIFAKE, or a kind of them


@dataclass(frozen=True, eq=False)
class TestSet:
    """The pictures of one data set on which models are measured.

    Attributes:
        name: what it is called.
        source: where it comes from.
        split: its split.
        rows: the pictures, in the schema of `load_images`; shards where they are streamed.
        is_fake: (n,) the truth.
        content: (n,) what each shows; None where unknown.
        generator: (n,) what made it; None for real pictures, and where unknown.
        is_leak_free: (n,) whether it occurs in no other split of the same data set.
        sha256: the fingerprint of the pictures.
        is_streamed: read from shards, without a cache of the source.
    """

    __test__ = False  # to pytest, which takes a class of this name for a test

    name: str
    source: str
    split: str
    rows: Dataset | ShardedRows
    is_fake: Flags
    content: tuple[str | None, ...]
    generator: tuple[str | None, ...]
    is_leak_free: Flags
    sha256: str
    is_streamed: bool = False

    @property
    def is_shared(self) -> tuple[bool | None, ...]:
        """Whether the content of each picture is one of CIFAKE's; None where it is unknown."""
        return tuple(
            None if name is None else SAME_CONTENT.get(name, name) in CIFAKE_CONTENTS for name in self.content
        )

    def share(
        self, size: int, *, processes: int, process: int
    ) -> tuple[Sequence[range], Iterator[Iterable[Mapping[str, Any]]]]:
        """Share out the rows among processes, block by block: the places of each block's rows, and the rows.

        The blocks are the same however many processes there are. Pictures are decoded when a block is gone through.

        Args:
            size: rows of a block at most.
            processes: that share them.
            process: which of them this is, from 0.
        """
        rows = self.rows
        if isinstance(rows, ShardedRows):
            return rows.share(size, processes=processes, process=process)
        starts = range(0, len(rows), size)[process::processes]
        blocks = [range(start, min(start + size, len(rows))) for start in starts]
        return blocks, ((rows[row] for row in block) for block in blocks)

    def digests(self) -> Iterator[Sequence[str]]:
        """The hashes of all pictures, some at a time."""
        if isinstance(self.rows, ShardedRows):
            return self.rows.split.column("sha256")
        return iter([self.rows["sha256"][:]])

    def file_facts(self, limit: int, *, seed: int) -> FileProperties:
        """The facts of the source's files, or of this split's where it is streamed; of so many at most.

        Raises:
            ValueError: none of them can be read.
        """
        if not self.is_streamed:
            return read_file_properties(self.source, limit=limit, seed=seed)
        drawn = draw_evenly(self.is_fake, self.content, min(limit, len(self.is_fake)), seed=seed)
        if isinstance(self.rows, ShardedRows):
            files = self.rows.files(drawn)
        else:
            kept = self.rows.select(drawn).cast_column("image", Image(decode=False))
            files = [file["bytes"] for file in kept["image"]]
        return properties_of_files(files, self.is_fake[drawn], name=self.name)


def load_test_set(name: str, source: str, *, split: str | None = None, limit: int | None = None, seed: int) -> TestSet:
    """Load a data set and draw its pictures, as evenly as can be by label, and within a label by content.

    Args:
        name: what it is called.
        source: what `load_images` takes.
        split: the split; by default test, or the only one there is.
        limit: pictures at most; None for all.
        seed: of the draw.

    Raises:
        FileNotFoundError: there is no such source.
        ValueError: the source has no such split, or cannot be loaded.
    """
    images = load_images(source, one_class=True)
    chosen = _choose_split(images, split, name)
    rows = images[chosen]
    seen = {digest for other, them in images.items() if other != chosen for digest in them["sha256"][:]}
    if limit is not None and limit < len(rows):
        is_fake = np.asarray(rows["label"][:]) == FAKE
        rows = rows.select(draw_evenly(is_fake, rows["content"][:], limit, seed=seed))
    is_leak_free = np.array([digest not in seen for digest in rows["sha256"][:]], dtype=np.bool_)
    return _test_set(name, source, chosen, rows, is_leak_free)


def stream_test_set(
    name: str, source: str, *, split: str | None = None, limit: int | None = None, seed: int
) -> TestSet:
    """Find a data set in parquet shards; its pictures stay there until they are asked for.

    What `load_test_set` takes and raises. The pictures of a `limit` are held in memory.
    """
    shards = find_shards(source, columns=[*COLUMNS, "generator"])
    chosen = _choose_split(shards, split, name)
    rows = ShardedRows(shards[chosen])
    is_leak_free = rows.absent_from(other for place, other in shards.items() if place != chosen)
    is_fake = np.array([label == FAKE for some in rows.split.column("label") for label in some], dtype=np.bool_)
    content = rows.names("content")
    if limit is not None:
        drawn = draw_evenly(is_fake, content, limit, seed=seed) if limit < len(rows) else np.arange(len(rows))
        return _test_set(name, source, chosen, rows.select(drawn), is_leak_free[drawn], is_streamed=True)
    generator, sha256 = rows.names("generator"), rows.split.fingerprint()["sha256"]
    return TestSet(
        name, source, chosen, rows, is_fake, content, generator, is_leak_free, sha256=sha256, is_streamed=True
    )


def draw_from(one: TestSet, n: int, *, seed: int) -> TestSet:
    """Draw pictures of a data set, as `load_test_set` does, from those that are leak-free."""
    clean = np.flatnonzero(one.is_leak_free)
    if n < len(clean):
        clean = clean[draw_evenly(one.is_fake[clean], [one.content[row] for row in clean], n, seed=seed)]
    all_clean = np.ones(len(clean), dtype=np.bool_)
    return _test_set(one.name, one.source, one.split, one.rows.select(clean), all_clean, is_streamed=one.is_streamed)


def _test_set(
    name: str, source: str, split: str, rows: Dataset, is_leak_free: Flags, *, is_streamed: bool = False
) -> TestSet:
    [facts] = data_fingerprint(DatasetDict({split: rows})).values()
    return TestSet(
        name=name,
        source=source,
        split=split,
        rows=rows,
        is_fake=np.asarray(rows["label"][:]) == FAKE,
        content=tuple(rows["content"][:]),
        generator=tuple(rows["generator"][:]),
        is_leak_free=is_leak_free,
        sha256=facts["sha256"],
        is_streamed=is_streamed,
    )


def _choose_split(images: Mapping[str, object], split: str | None, name: str) -> str:
    default = "test" if "test" in images or len(images) > 1 else next(iter(images))
    wanted = split or default
    if wanted not in images:
        raise ValueError(f"wanted the split {wanted!r} of {name}; found {', '.join(images)}. Name one with --split.")
    return wanted
