"""Exact duplicates within a data set and across its splits and labels: what leaks from training into the test."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np
from datasets import Dataset, DatasetDict
from numpy.typing import NDArray

from realfake_hf.labels import LABEL_NAMES

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
        leaked=int((~leak_free(images)).sum()) if "test" in images else 0,
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


def leak_free(images: Mapping[str, Dataset]) -> NDArray[np.bool_]:
    """Say of each test picture, (n_test,), whether it occurs in no other split."""
    others = (rows["sha256"][:] for split, rows in images.items() if split != "test")
    return in_none_of(images["test"]["sha256"][:], others)


def in_none_of(digests: Sequence[str], others: Iterable[Iterable[str]]) -> NDArray[np.bool_]:
    """Say of each picture, (n,), by its hash whether it is in none of other heaps, which are never held together."""
    wanted, seen = set(digests), set[str]()
    for some in others:
        seen |= wanted.intersection(some)
    return np.array([digest not in seen for digest in digests], dtype=np.bool_)
