"""Exact duplicates within a data set and across its splits and labels: what leaks from training into the test."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import combinations
from typing import Any, Final, Self

import imagehash
import numpy as np
from datasets import Dataset, DatasetDict
from numpy.typing import NDArray
from PIL import Image

from realfake_hf.labels import FAKE, LABEL_NAMES
from realfake_hf.parallel import map_in_processes

Place = tuple[str, str, str]  # split, label name, content


@dataclass(frozen=True)
class DuplicateReport:
    """How many pairs of pictures in a data set are equal, pixel for pixel.

    Attributes:
        n: pictures in each split.
        pairs: equal pairs in all; a picture that occurs three times makes three pairs.
        within: equal pairs within each split.
        across: equal pairs between two splits, by `train-test` and the like.
        across_labels: equal pairs of which one is called real and the other fake.
        leaked: pictures of the test split that also occur in train or validation.
        by_content: equal pairs by label and content; `mixed` where the two differ.
    """

    n: dict[str, int]
    pairs: int
    within: dict[str, int]
    across: dict[str, int]
    across_labels: int
    leaked: int
    by_content: dict[str, int]

    def to_dict(self) -> dict[str, Any]:
        """The report as plain numbers and dictionaries."""
        return asdict(self)

    def to_markdown(self) -> str:
        """Render the report as a table."""
        rows = [("equal pairs", self.pairs)]
        rows += [(f"within {split} (n = {self.n[split]:,})", count) for split, count in self.within.items()]
        rows += [(f"between {splits.replace('-', ' and ')}", count) for splits, count in self.across.items()]
        rows += [("between real and fake", self.across_labels), ("test pictures also in train", self.leaked)]
        return "\n".join(["| exact duplicates | count |", "|---|--:|", *(f"| {what} | {k:,} |" for what, k in rows)])


def find_duplicates(images: DatasetDict) -> DuplicateReport:
    """Find all pairs of equal pictures by the hash of their decoded pixels.

    Args:
        images: from `load_images`, with or without a validation split.
    """
    copies: dict[str, Counter[Place]] = defaultdict(Counter)
    for split, rows in images.items():
        for digest, label, content in zip(rows["sha256"][:], rows["label"][:], rows["content"][:], strict=True):
            copies[digest][split, LABEL_NAMES[label], content or "unknown"] += 1
    pairs: Counter[tuple[Place, Place]] = Counter()
    for places in copies.values():
        pairs.update(_pairs(places))
    return DuplicateReport(
        n={split: len(rows) for split, rows in images.items()},
        pairs=pairs.total(),
        within={split: sum(k for (a, b), k in pairs.items() if a[0] == b[0] == split) for split in images},
        across={
            f"{s}-{t}": sum(k for (a, b), k in pairs.items() if {a[0], b[0]} == {s, t})
            for s, t in combinations(images, 2)
        },
        across_labels=sum(k for (a, b), k in pairs.items() if a[1] != b[1]),
        leaked=int((~leak_free_mask(images)).sum()) if "test" in images else 0,
        by_content=_by_content(pairs),
    )


def _pairs(places: Counter[Place]) -> dict[tuple[Place, Place], int]:
    """Count the pairs of one picture's copies by where the two lie, without listing them: k copies make k^2/2."""
    within = {(place, place): k * (k - 1) // 2 for place, k in places.items() if k > 1}
    return within | {(a, b): places[a] * places[b] for a, b in combinations(places, 2)}


def _by_content(pairs: Counter[tuple[Place, Place]]) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for (a, b), k in pairs.items():
        counts[" ".join(a[1:]) if a[1:] == b[1:] else "mixed"] += k
    return dict(sorted(counts.items()))


def leak_free_mask(images: Mapping[str, Dataset]) -> NDArray[np.bool_]:
    """Say of each test picture, (n_test,), whether it occurs in no other split."""
    others = (rows["sha256"][:] for split, rows in images.items() if split != "test")
    return absent_from(images["test"]["sha256"][:], others)


def absent_from(digests: Sequence[str], others: Iterable[Iterable[str]]) -> NDArray[np.bool_]:
    """Say of each picture, (n,), by its hash whether it is in none of other heaps, which are never held together."""
    wanted, seen = set(digests), set[str]()
    for some in others:
        seen |= wanted.intersection(some)
    return np.array([digest not in seen for digest in digests], dtype=np.bool_)


HASH_BITS: Final = 64
THRESHOLD: Final = 4  # a re-encoded copy is this close or closer; different pictures rarely are
MOST: Final = 16  # half of the distance at which hashes of pictures that share nothing lie; beyond, all find one

_TILE: Final = (32, 4096)  # hashes against hashes: 1 MiB, which a processor's cache holds

Hashes = NDArray[np.uint64]


@dataclass(frozen=True)
class ImageHashes:
    """The perceptual hashes of n pictures.

    Attributes:
        name: of the data set or split.
        hashes: (n,) 64 bits each.
        ids: (n,) of `load_images`.
        is_fake: (n,)
    """

    name: str
    hashes: Hashes
    ids: NDArray[np.str_]
    is_fake: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.hashes)


@dataclass(frozen=True)
class Pair:
    """Two pictures that look alike, by id, and in how many bits their hashes differ."""

    first: str
    second: str
    distance: int


@dataclass(frozen=True)
class NearDuplicates:
    """How many pictures of two sets look alike.

    Attributes:
        first: the name of one set.
        second: the name of the other.
        n_first: pictures of it.
        n_second: pictures of it.
        threshold: bits of 64 in which the hashes of near-duplicates differ at most.
        pairs: near-duplicate pairs; a picture that occurs twice on one side and three times on the other makes six.
        by_distance: pairs at distance 0, 1, ..., threshold. Pixel-equal copies are at distance 0, not all there are.
        across_labels: pairs of which one is called real and the other fake.
        first_found: pictures of the first set that have a near-duplicate in the second.
        second_found: pictures of the second set that have one in the first.
        examples: some pairs, the closest first.
    """

    first: str
    second: str
    n_first: int
    n_second: int
    threshold: int
    pairs: int
    by_distance: tuple[int, ...]
    across_labels: int
    first_found: int
    second_found: int
    examples: tuple[Pair, ...]

    def to_dict(self) -> dict[str, Any]:
        """The counts as plain numbers and dictionaries."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read back what `to_dict` wrote."""
        pairs = tuple(Pair(**pair) for pair in data["examples"])
        return cls(**{**data, "by_distance": tuple(data["by_distance"]), "examples": pairs})

    def __str__(self) -> str:
        return (
            f"{self.second_found:,} of {self.n_second:,} pictures of {self.second} look like one of the "
            f"{self.n_first:,} of {self.first} (perceptual hashes that differ in at most {self.threshold} of "
            f"{HASH_BITS} bits); {self.across_labels:,} of the {self.pairs:,} pairs are of a real and a fake one."
        )

    def to_markdown(self) -> str:
        """Render the counts as a table."""
        rows = [
            (f"pairs that differ in at most {self.threshold} of {HASH_BITS} bits", self.pairs),
            ("between real and fake", self.across_labels),
            (f"pictures of {self.first} (n = {self.n_first:,}) with one in {self.second}", self.first_found),
            (f"pictures of {self.second} (n = {self.n_second:,}) with one in {self.first}", self.second_found),
        ]
        head = f"| near-duplicates of {self.first} and {self.second} | count |"
        return "\n".join([head, "|---|--:|", *(f"| {what} | {count:,} |" for what, count in rows)])


def perceptual_hash(picture: Image.Image) -> int:
    """Hash what a picture looks like: the signs of its 8 x 8 lowest frequencies about their median, as 64 bits.

    The picture is compared in grey at 32 x 32 pixels. A picture without any structure has no frequencies to speak of,
    so all plain ones look alike.
    """
    bits = imagehash.phash(picture).hash
    return int.from_bytes(np.packbits(bits).tobytes())


def hash_images(images: Dataset, *, name: str) -> ImageHashes:
    """Hash all pictures of a split from `load_images`."""
    work = range(len(images))
    chunks = map_in_processes(partial(_hash_rows, images), work, description=f"hashing {name}")
    return ImageHashes(
        name=name,
        hashes=np.array([value for _, chunk in chunks for value in chunk], dtype=np.uint64),
        ids=np.array(images["id"][:], dtype=np.str_),
        is_fake=np.asarray(images["label"][:]) == FAKE,
    )


def find_near_duplicates(
    first: ImageHashes, second: ImageHashes, *, threshold: int = THRESHOLD, examples: int = 10
) -> NearDuplicates:
    """Find all pairs of pictures, one of each set, whose hashes differ in few bits.

    Every hash is compared with every other, so none is missed: tile by tile, each different hash once.

    Args:
        first: one set.
        second: the other.
        threshold: bits of 64 in which they may differ, from 0 to `MOST`.
        examples: how many pairs to name.

    Raises:
        ValueError: the threshold is out of range.
    """
    if not 0 <= threshold <= MOST:
        raise ValueError(f"wanted a threshold from 0 to {MOST} bits; found {threshold}. Give one near {THRESHOLD}.")
    one, two = _Different.of(first), _Different.of(second)
    rows, columns, distances = _close(one.hashes, two.hashes, threshold)
    counts = one.counts[rows, :, None] * two.counts[columns, None, :]  # (pairs of hashes, labels, labels)
    pairs = counts.sum(axis=(1, 2))
    order = np.lexsort((columns, rows, distances))[:examples]
    return NearDuplicates(
        first=first.name,
        second=second.name,
        n_first=len(first),
        n_second=len(second),
        threshold=threshold,
        pairs=int(pairs.sum()),
        by_distance=tuple(int(pairs[distances == distance].sum()) for distance in range(threshold + 1)),
        across_labels=int(counts[:, 0, 1].sum() + counts[:, 1, 0].sum()),
        first_found=int(one.counts[np.unique(rows)].sum()),
        second_found=int(two.counts[np.unique(columns)].sum()),
        examples=tuple(
            Pair(str(one.ids[rows[place]]), str(two.ids[columns[place]]), int(distances[place])) for place in order
        ),
    )


@dataclass(frozen=True)
class _Different:
    """The different hashes of a set: (m,), how many real and fake pictures have each (m, 2), and the id of one."""

    hashes: Hashes
    counts: NDArray[np.int64]
    ids: NDArray[np.str_]

    @classmethod
    def of(cls, pictures: ImageHashes) -> "_Different":
        hashes, first, place = np.unique(pictures.hashes, return_index=True, return_inverse=True)
        counts = np.zeros((len(hashes), 2), dtype=np.int64)
        np.add.at(counts, (place, pictures.is_fake.astype(np.intp)), 1)
        return cls(hashes, counts, pictures.ids[first])


def _close(one: Hashes, two: Hashes, threshold: int) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.uint8]]:
    """Find the pairs of hashes within a distance: (rows of one, rows of two, distances), each (pairs,)."""
    found = [(np.zeros(0, np.intp), np.zeros(0, np.intp), np.zeros(0, np.uint8)), *_close_tiles(one, two, threshold)]
    rows, columns, distances = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return rows, columns, distances


def _close_tiles(
    one: Hashes, two: Hashes, threshold: int
) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.uint8]]]:
    height, width = _TILE
    for top in range(0, len(one), height):
        for left in range(0, len(two), width):
            distances = np.bitwise_count(one[top : top + height, None] ^ two[left : left + width])
            close = np.flatnonzero(distances <= threshold)
            if close.size:
                rows, columns = np.unravel_index(close, distances.shape)
                yield rows + top, columns + left, distances[rows, columns]


def _hash_rows(images: Dataset, rows: Sequence[int]) -> list[int]:
    return [perceptual_hash(picture) for picture in images[list(rows)]["image"]]
