"""The data sets of a grid: images, labels and contents of one split, and which images are leak-free."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from datasets import Dataset, Image

from realfake_hf.data.duplicates import absent_from
from realfake_hf.data.folders import CIFAKE_CONTENTS
from realfake_hf.data.loading import choose_split, load_images
from realfake_hf.data.metadata import FileProperties, properties_of_files, read_file_properties
from realfake_hf.data.streaming import COLUMNS, ShardedSplit, find_shards
from realfake_hf.environment import split_fingerprint
from realfake_hf.labels import FAKE
from realfake_hf.sampling import Flags, draw_evenly

LEAK_FREE: Final = "leak-free"  # suffixes of the split name
NO_NEAR_DUPLICATE: Final = "no near-duplicate"
SAME_CONTENT: Final[Mapping[str, str]] = {
    "aeroplane": "airplane", "plane": "airplane", "boat": "ship", "car": "automobile", "cock": "bird", "hen": "bird",
    "ostrich": "bird",
}  # fmt: skip  # names in other data sets -> the CIFAKE content that includes them


@dataclass(frozen=True, eq=False)
class EvalDataset:
    """One split of a source of `load_images`, on which models are evaluated."""

    name: str
    source: str
    split: str
    rows: Dataset | ShardedSplit  # n images, in the schema of `load_images`
    is_fake: Flags  # (n,) true labels
    content: tuple[str | None, ...]  # (n,) content of each image; None if unknown
    generator: tuple[str | None, ...]  # (n,) generator of each image; None for real images and if unknown
    is_leak_free: Flags  # (n,) whether the image occurs in no other split of the source
    sha256: str
    is_streamed: bool = False  # whether the images were read from shards, without a local copy of the source
    labels: str | None = None  # as for `load_images`
    # (n,) whether no training image of the source is a near-duplicate of the image; None if unknown
    is_near_duplicate_free: Flags | None = None

    @property
    def parts(self) -> dict[str, Flags]:
        """The images to measure, (n,), by split name: all of them, then the parts that leave out some, not all."""
        parts = {LEAK_FREE: self.is_leak_free, NO_NEAR_DUPLICATE: self.is_near_duplicate_free}
        return {self.split: np.ones_like(self.is_fake)} | {
            f"{self.split} {name}": where
            for name, where in parts.items()
            if where is not None and where.any() and not where.all()
        }

    @property
    def is_shared(self) -> tuple[bool | None, ...]:
        """Whether CIFAKE has the content of each image; None if the content is unknown."""
        return tuple(
            None if name is None else SAME_CONTENT.get(name, name) in CIFAKE_CONTENTS for name in self.content
        )

    def share(
        self, size: int, *, processes: int, process: int
    ) -> tuple[Sequence[range], Iterator[Iterable[Mapping[str, Any]]]]:
        """Return the row numbers and the rows of the blocks of one process, each of at most `size` rows.

        The blocks do not depend on the number of processes. Images are decoded while a block is iterated.
        """
        rows = self.rows
        if isinstance(rows, ShardedSplit):
            return rows.share(size, processes=processes, process=process)
        starts = range(0, len(rows), size)[process::processes]
        blocks = [range(start, min(start + size, len(rows))) for start in starts]
        return blocks, ((rows[row] for row in block) for block in blocks)

    def digests(self) -> Iterator[Sequence[str]]:
        """Iterate over the hashes of all images, in batches."""
        if isinstance(self.rows, ShardedSplit):
            return self.rows.column("sha256")
        return iter([self.rows["sha256"][:]])

    def file_properties(self, limit: int, *, seed: int) -> FileProperties:
        """Return the properties of at most `limit` files: of the whole source, or of this split if streamed."""
        if not self.is_streamed:
            return read_file_properties(self.source, labels=self.labels, limit=limit, seed=seed)
        drawn = draw_evenly(self.is_fake, self.content, min(limit, len(self.is_fake)), seed=seed)
        encoded = self.rows.select(drawn).cast_column("image", Image(decode=False))
        files = [file["bytes"] for file in encoded["image"]]
        return properties_of_files(files, self.is_fake[drawn], name=self.name)


def load_dataset(
    name: str,
    source: str,
    *,
    split: str | None = None,
    limit: int | None = None,
    labels: str | None = None,
    seed: int,
) -> EvalDataset:
    """Load a split of a source, by default test or the only split; `name` is the name in the grid.

    With a limit, load a random sample, balanced by label and, within a label, by content.
    """
    splits = load_images(source, labels=labels, one_class=True)
    split = choose_split(splits, split, name)
    rows = splits[split]
    if limit is not None and limit < len(rows):
        is_fake = np.asarray(rows["label"][:]) == FAKE
        rows = rows.select(draw_evenly(is_fake, rows["content"][:], limit, seed=seed))
    others = (images["sha256"][:] for other, images in splits.items() if other != split)
    is_leak_free = absent_from(rows["sha256"][:], others)
    return replace(_from_rows(name, source, split, rows, is_leak_free), labels=labels)


def stream_dataset(
    name: str, source: str, *, split: str | None = None, limit: int | None = None, seed: int
) -> EvalDataset:
    """Load a data set from Parquet shards like `load_dataset`; images are read when needed, a sample is in memory."""
    shards = find_shards(source, columns=[*COLUMNS, "generator"])
    split = choose_split(shards, split, name)
    rows = shards[split]
    is_leak_free = rows.absent_from(other for name, other in shards.items() if name != split)
    is_fake = np.array([label == FAKE for batch in rows.column("label") for label in batch], dtype=np.bool_)
    content = rows.names("content")
    if limit is not None:
        drawn = draw_evenly(is_fake, content, limit, seed=seed) if limit < len(rows) else np.arange(len(rows))
        return _from_rows(name, source, split, rows.select(drawn), is_leak_free[drawn], is_streamed=True)
    generator, sha256 = rows.names("generator"), rows.fingerprint()["sha256"]
    return EvalDataset(name, source, split, rows, is_fake, content, generator, is_leak_free, sha256, is_streamed=True)


def sample_leak_free(dataset: EvalDataset, n: int, *, seed: int) -> EvalDataset:
    """Draw at most n leak-free images at random, balanced by label and content."""
    clean = np.flatnonzero(dataset.is_leak_free)
    if n < len(clean):
        content = [dataset.content[row] for row in clean]
        clean = clean[draw_evenly(dataset.is_fake[clean], content, n, seed=seed)]
    rows, is_leak_free = dataset.rows.select(clean), np.ones(len(clean), dtype=np.bool_)
    return _from_rows(dataset.name, dataset.source, dataset.split, rows, is_leak_free, is_streamed=dataset.is_streamed)


def _from_rows(
    name: str, source: str, split: str, rows: Dataset, is_leak_free: Flags, *, is_streamed: bool = False
) -> EvalDataset:
    return EvalDataset(
        name=name,
        source=source,
        split=split,
        rows=rows,
        is_fake=np.asarray(rows["label"][:]) == FAKE,
        content=tuple(rows["content"][:]),
        generator=tuple(rows["generator"][:]),
        is_leak_free=is_leak_free,
        sha256=split_fingerprint(rows)["sha256"],
        is_streamed=is_streamed,
    )
