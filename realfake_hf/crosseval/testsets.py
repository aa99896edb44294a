"""The data sets of the grid: which split, which pictures, which of them the training may have seen."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Final

import numpy as np
from datasets import Dataset, DatasetDict
from numpy.typing import NDArray

from realfake_hf.data.layouts import CIFAKE_CONTENTS
from realfake_hf.data.sources import load_images
from realfake_hf.explain.exhibits import take_evenly
from realfake_hf.labels import FAKE
from realfake_hf.passport import data_fingerprint

SAME_CONTENT: Final[Mapping[str, str]] = {
    "aeroplane": "airplane", "plane": "airplane", "boat": "ship", "car": "automobile", "cock": "bird", "hen": "bird",
    "ostrich": "bird",
}  # fmt: skip  # what other data sets call the contents of CIFAKE, or a kind of them

Flags = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class TestSet:
    """The pictures of one data set on which models are measured.

    Attributes:
        name: what it is called.
        source: where it comes from.
        split: its split.
        rows: the pictures, in the schema of `load_images`.
        is_fake: (n,) the truth.
        content: (n,) what each shows; None where unknown.
        generator: (n,) what made it; None for real pictures, and where unknown.
        is_leak_free: (n,) whether it occurs in no other split of the same data set.
        sha256: the fingerprint of the pictures.
    """

    __test__ = False  # to pytest, which takes a class of this name for a test

    name: str
    source: str
    split: str
    rows: Dataset
    is_fake: Flags
    content: tuple[str | None, ...]
    generator: tuple[str | None, ...]
    is_leak_free: Flags
    sha256: str

    @property
    def is_shared(self) -> tuple[bool | None, ...]:
        """Whether the content of each picture is one of CIFAKE's; None where it is unknown."""
        return tuple(
            None if name is None else SAME_CONTENT.get(name, name) in CIFAKE_CONTENTS for name in self.content
        )


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
        rows = rows.select(_draw(rows["label"][:], rows["content"][:], limit, seed=seed))
    is_leak_free = np.array([digest not in seen for digest in rows["sha256"][:]], dtype=np.bool_)
    return _test_set(name, source, chosen, rows, is_leak_free)


def draw_from(one: TestSet, n: int, *, seed: int) -> TestSet:
    """Draw pictures of a data set, as `load_test_set` does, from those that are leak-free."""
    rows = one.rows.select(np.flatnonzero(one.is_leak_free))
    if n < len(rows):
        rows = rows.select(_draw(rows["label"][:], rows["content"][:], n, seed=seed))
    return _test_set(one.name, one.source, one.split, rows, np.ones(len(rows), dtype=np.bool_))


def _test_set(name: str, source: str, split: str, rows: Dataset, is_leak_free: Flags) -> TestSet:
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
    )


def _draw(labels: Sequence[int], content: Sequence[str | None], n: int, *, seed: int) -> NDArray[np.intp]:
    """Draw n rows, as many of each label as can be, and within a label as many of each content."""
    order = np.random.default_rng(seed).permutation(len(labels)).tolist()
    seen: Counter[tuple[int, str | None]] = Counter()
    turns = []
    for row in order:
        turns.append((seen[labels[row], content[row]], row))
        seen[labels[row], content[row]] += 1
    by_turn = [row for _, row in sorted(turns, key=itemgetter(0))]
    return np.sort([by_turn[place] for place in take_evenly([labels[row] for row in by_turn], n)])


def _choose_split(images: DatasetDict, split: str | None, name: str) -> str:
    default = "test" if "test" in images or len(images) > 1 else next(iter(images))
    wanted = split or default
    if wanted not in images:
        raise ValueError(f"wanted the split {wanted!r} of {name}; found {', '.join(images)}. Name one with --split.")
    return wanted
