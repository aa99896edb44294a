"""Find exact duplicates and near-duplicates within a data set and across splits, labels and data sets.

Exact duplicates have equal decoded pixels. Near-duplicates have perceptual hashes that differ in few bits, such as
copies that were re-encoded or slightly resized.
"""

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import combinations, product
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from realfake_hf.labels import FAKE, LABEL_NAMES
from realfake_hf.parallel import map_in_processes
from realfake_hf.store import cached_file
from realfake_hf.tables import markdown_table

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

HASH_BITS: Final = 64
THRESHOLD: Final = 4  # bits; re-encoded copies are this close or closer, different images rarely are
MAX_THRESHOLD: Final = 16  # bits; half the expected distance of unrelated images, beyond which every image matches

_CACHE_VERSION: Final = 1  # increase it when the hashes of unchanged images change
_TILE: Final = (32, 4096)  # hashes compared at once: 1 MiB, which fits into a CPU cache

Place = tuple[str, str, str]  # split, label name, content
Hashes = NDArray[np.uint64]


@dataclass(frozen=True)
class DuplicateReport:
    """The number of pairs of images in a data set that are equal pixel for pixel."""

    n: dict[str, int]  # number of images in each split
    pairs: int  # equal pairs in total; an image that occurs three times makes three pairs
    within: dict[str, int]  # equal pairs within each split
    across: dict[str, int]  # equal pairs between two splits, with keys such as `train-test`
    across_labels: int  # equal pairs of a real and a fake image
    leaked: int  # images of the test split that also occur in another split
    by_content: dict[str, int]  # equal pairs by label and content, or `mixed` if the two differ
    # the same by the other split, after `train.py` has drawn a missing validation split; empty if not counted
    leaked_to: dict[str, int] = field(default_factory=dict)

    def to_markdown(self) -> str:
        """Render the report as a table."""
        rows = [("equal pairs", self.pairs)]
        rows += [(f"within {split} (n = {self.n[split]:,})", count) for split, count in self.within.items()]
        rows += [(f"between {splits.replace('-', ' and ')}", count) for splits, count in self.across.items()]
        rows += [("between real and fake", self.across_labels), ("test images also in another split", self.leaked)]
        rows += [(f"test images also in {split}, as split for training", n) for split, n in self.leaked_to.items()]
        return _table("exact duplicates", rows)


def find_duplicates(images: "DatasetDict") -> DuplicateReport:
    """Count all pairs of equal images in a data set from `load_images`, by the hash of their decoded pixels."""
    copies: dict[str, Counter[Place]] = defaultdict(Counter)
    for split, rows in images.items():
        for digest, label, content in zip(rows["sha256"][:], rows["label"][:], rows["content"][:], strict=True):
            copies[digest][split, LABEL_NAMES[label], content or "unknown"] += 1
    pairs: Counter[tuple[Place, Place]] = Counter()
    for places in copies.values():
        pairs.update({(place, place): k * (k - 1) // 2 for place, k in places.items()})
        pairs.update({(a, b): places[a] * places[b] for a, b in combinations(places, 2)})
    by_content: Counter[str] = Counter()
    for (a, b), k in pairs.items():
        by_content[" ".join(a[1:]) if a[1:] == b[1:] else "mixed"] += k
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
        by_content=dict(sorted((+by_content).items())),
    )


def leaks_by_split(images: "Mapping[str, Dataset]") -> dict[str, int]:
    """Count the test images that also occur in each other split."""
    test, others = images["test"]["sha256"][:], {split: rows for split, rows in images.items() if split != "test"}
    return {split: int((~absent_from(test, [rows["sha256"][:]])).sum()) for split, rows in others.items()}


def leak_free_mask(images: "Mapping[str, Dataset]") -> NDArray[np.bool_]:
    """Return, for each test image, whether it occurs in no other split: (n_test,)."""
    others = (rows["sha256"][:] for split, rows in images.items() if split != "test")
    return absent_from(images["test"]["sha256"][:], others)


def absent_from(digests: Sequence[str], others: Iterable[Iterable[str]]) -> NDArray[np.bool_]:
    """Return, for each hash, whether none of the other collections, which may be generators, contains it: (n,)."""
    own, shared = set(digests), set[str]()
    for other in others:
        shared |= own.intersection(other)
    return np.array([digest not in shared for digest in digests], dtype=np.bool_)


@dataclass(frozen=True)
class ImageHashes:
    """The perceptual hashes of n images of a data set or split, and their ids and labels."""

    name: str
    hashes: Hashes
    ids: NDArray[np.str_]
    is_fake: NDArray[np.bool_]


@dataclass(frozen=True)
class Pair:
    """The ids of two near-duplicates, and the number of bits in which their hashes differ."""

    first: str
    second: str
    distance: int


@dataclass(frozen=True)
class NearDuplicates:
    """The near-duplicates between two sets of images."""

    first: str
    second: str
    n_first: int
    n_second: int
    threshold: int  # maximum distance of near-duplicates: the number of bits, of 64, in which their hashes differ
    pairs: int  # near-duplicate pairs; an image that occurs twice in one set and three times in the other makes six
    # pairs at distance 0, 1, ..., threshold. Distance 0 includes, but is not limited to, equal images
    by_distance: tuple[int, ...]
    across_labels: int  # pairs of a real and a fake image
    first_found: int  # images of the first set with a near-duplicate in the second; `second_found` the reverse
    second_found: int
    examples: tuple[Pair, ...]  # the closest pairs, the closest first

    def to_markdown(self) -> str:
        """Render the counts as a table."""
        rows = [
            (f"pairs that differ in at most {self.threshold} of {HASH_BITS} bits", self.pairs),
            ("between real and fake", self.across_labels),
            (f"images of {self.first} (n = {self.n_first:,}) with one in {self.second}", self.first_found),
            (f"images of {self.second} (n = {self.n_second:,}) with one in {self.first}", self.second_found),
        ]
        return _table(f"near-duplicates of {self.first} and {self.second}", rows)


def perceptual_hash(image: Image.Image) -> int:
    """Return the 64-bit perceptual hash of an image: the signs of its 8 x 8 lowest frequencies about their median.

    The hash is computed in greyscale at 32 x 32 pixels. Images without structure all have similar hashes.
    """
    import imagehash

    return int.from_bytes(np.packbits(imagehash.phash(image).hash).tobytes())


def hash_images(images: "Dataset", *, name: str) -> ImageHashes:
    """Hash all images of a split from `load_images`."""
    chunks = map_in_processes(partial(_hash_rows, images), range(len(images)), description=f"hashing {name}")
    return ImageHashes(
        name=name,
        hashes=np.array([value for _, chunk in chunks for value in chunk], dtype=np.uint64),
        ids=np.array(images["id"][:], dtype=np.str_),
        is_fake=np.asarray(images["label"][:]) == FAKE,
    )


def find_near_duplicates(
    first: ImageHashes, second: ImageHashes, *, threshold: int = THRESHOLD, examples: int = 10
) -> NearDuplicates:
    """Find all pairs of near-duplicates between two sets, by exhaustive comparison of their distinct hashes.

    Raises:
        ValueError: the threshold, in bits, is below 0 or above `MAX_THRESHOLD`.
    """
    if not 0 <= threshold <= MAX_THRESHOLD:
        raise ValueError(
            f"expected a threshold from 0 to {MAX_THRESHOLD} bits; found {threshold}. Give one near {THRESHOLD}."
        )
    (hashes, counts, ids), (others, other_counts, other_ids) = _distinct(first), _distinct(second)
    rows, columns, distances = _close_pairs(hashes, others, threshold)
    by_labels = counts[rows, :, None] * other_counts[columns, None, :]  # (pairs of hashes, labels, labels)
    pairs = by_labels.sum(axis=(1, 2))
    closest = np.lexsort((columns, rows, distances))[:examples]
    return NearDuplicates(
        first=first.name,
        second=second.name,
        n_first=len(first.hashes),
        n_second=len(second.hashes),
        threshold=threshold,
        pairs=int(pairs.sum()),
        by_distance=tuple(int(pairs[distances == distance].sum()) for distance in range(threshold + 1)),
        across_labels=int(by_labels[:, 0, 1].sum() + by_labels[:, 1, 0].sum()),
        first_found=int(counts[np.unique(rows)].sum()),
        second_found=int(other_counts[np.unique(columns)].sum()),
        examples=tuple(Pair(str(ids[rows[k]]), str(other_ids[columns[k]]), int(distances[k])) for k in closest),
    )


def near_duplicate_free_mask(images: "Mapping[str, Dataset]") -> NDArray[np.bool_]:
    """Return, for each test image, whether it has no near-duplicate in another split: (n_test,).

    The first call hashes all images, those of CIFAKE in half a minute on one core. The mask is kept in a folder of the
    `datasets` cache for later calls, also with another division of the same images into train and validation.
    Processes may call this concurrently: one hashes and the others wait.
    """
    from datasets import config

    def find(file: Path) -> None:
        hashes = {split: hash_images(rows, name=split).hashes for split, rows in images.items()}
        mask = far_from(hashes.pop("test"), np.concatenate([*hashes.values()]), threshold=THRESHOLD)
        with file.open("wb") as stream:
            np.save(stream, mask)

    others = {digest for split, rows in images.items() if split != "test" for digest in rows["sha256"][:]}
    key = json.dumps([_CACHE_VERSION, THRESHOLD, images["test"]["sha256"][:], sorted(others)])
    name = f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.npy"
    file = Path(config.HF_DATASETS_CACHE) / "realfake-duplicates" / name
    mask: NDArray[np.bool_] = np.load(cached_file(file, find, making="hashing the images"))
    return mask


def far_from(hashes: Hashes, others: Hashes, *, threshold: int = THRESHOLD) -> NDArray[np.bool_]:
    """Return, for each hash, whether it differs from all others in more than `threshold` bits: (n,)."""
    distinct, positions = np.unique(hashes, return_inverse=True)
    rows, _, _ = _close_pairs(distinct, np.unique(others), threshold)
    is_far = np.ones(len(distinct), dtype=np.bool_)
    is_far[rows] = False
    return is_far[positions]


def _distinct(images: ImageHashes) -> tuple[Hashes, NDArray[np.int64], NDArray[np.str_]]:
    """Return the distinct hashes (m,), the number of real and fake images of each (m, 2), and the id of one (m,)."""
    hashes, first, positions = np.unique(images.hashes, return_index=True, return_inverse=True)
    counts = np.zeros((len(hashes), 2), dtype=np.int64)
    np.add.at(counts, (positions, images.is_fake.astype(np.intp)), 1)
    return hashes, counts, images.ids[first]


def _close_pairs(
    first: Hashes, second: Hashes, threshold: int
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.uint8]]:
    """Find all pairs of hashes within a distance: (rows of first, rows of second, distances), each (pairs,)."""
    tiles = [(np.zeros(0, np.intp), np.zeros(0, np.intp), np.zeros(0, np.uint8))]
    height, width = _TILE
    for top, left in product(range(0, len(first), height), range(0, len(second), width)):
        distances = np.bitwise_count(first[top : top + height, None] ^ second[left : left + width])
        close = np.flatnonzero(distances <= threshold)
        if close.size:
            rows, columns = np.unravel_index(close, distances.shape)
            tiles.append((rows + top, columns + left, distances[rows, columns]))
    rows, columns, values = (np.concatenate(parts) for parts in zip(*tiles, strict=True))
    return rows, columns, values


def _hash_rows(images: "Dataset", rows: Sequence[int]) -> list[int]:
    return list(map(perceptual_hash, images[list(rows)]["image"]))


def _table(title: str, rows: Iterable[tuple[str, int]]) -> str:
    return markdown_table([title, "count"], [[name, f"{count:,}"] for name, count in rows])
