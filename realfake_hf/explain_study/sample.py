"""Which pictures a study is made on: a draw that is even in label, content and correctness, and what it stands for."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray

from realfake_hf.data.decoding import to_rgb
from realfake_hf.data.sampling import take_evenly
from realfake_hf.labels import FAKE
from realfake_hf.metrics.intervals import Resampling


@dataclass(frozen=True, eq=False)
class Sample:
    """Pictures that every model is asked about.

    Attributes:
        pictures: (n, height, width, 3) uint8 [0, 255].
        is_fake: (n,) the truth.
        content: what is on each picture; "unknown" where the source does not say.
        ids: the opaque id of each row.
        is_right: by the model's name, (n,) whether its verdict is right, called FAKE above one half.
        stratum: (n,) codes of the groups that the draw was even in: label, content, and who is right.
        weight: (n,) how many pictures of the whole split each one stands for.
    """

    pictures: NDArray[np.uint8]
    is_fake: NDArray[np.bool_]
    content: tuple[str, ...]
    ids: tuple[str, ...]
    is_right: Mapping[str, NDArray[np.bool_]]
    stratum: NDArray[np.intp]
    weight: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.pictures)

    def take(self, n: int) -> Self:
        """Give at most n of the pictures, as evenly drawn from the same strata, weighted anew."""
        whole = np.bincount(self.stratum, self.weight).astype(np.float64)
        return self.select(np.asarray(take_evenly(self.stratum.tolist(), n)), whole=whole)

    def select(self, rows: NDArray[np.intp], *, whole: NDArray[np.float64]) -> Self:
        """Give some of the pictures, weighted so that those of stratum s stand for `whole[s]`."""
        stratum = self.stratum[rows]
        counts = np.bincount(stratum, minlength=len(whole))
        return type(self)(
            pictures=self.pictures[rows],
            is_fake=self.is_fake[rows],
            content=tuple(self.content[row] for row in rows),
            ids=tuple(self.ids[row] for row in rows),
            is_right={name: right[rows] for name, right in self.is_right.items()},
            stratum=stratum,
            weight=whole[stratum] / counts[stratum],
        )

    def resampling(self, *, samples: int, seed: int) -> Resampling:
        """Give the bootstrap of this sample."""
        return Resampling(self.weight, stratum=self.stratum, samples=samples, seed=seed)

    def to_dict(self) -> dict[str, Any]:
        """Count the pictures by label, content and verdict, and the split that they stand for."""
        right = {name: int(flags.sum()) for name, flags in self.is_right.items()}
        return {
            "n": len(self),
            "of": round(float(self.weight.sum())),
            "n_real": int((~self.is_fake).sum()),
            "n_fake": int(self.is_fake.sum()),
            "content": {name: self.content.count(name) for name in sorted(set(self.content))},
            "right": right,
            "all_right": int(np.logical_and.reduce(list(self.is_right.values())).sum()),
            "strata": len(np.unique(self.stratum)),
        }


def draw_sample(
    rows: Dataset, p_fake: Mapping[str, NDArray[np.floating]], *, n: int, seed: int, by_verdict: bool = True
) -> Sample:
    """Draw pictures of a split as evenly as can be from its strata: label, content, and which models are right.

    Args:
        rows: the split, in the schema of `load_images`.
        p_fake: by the model's name, (rows,) what it says of every picture.
        n: pictures wanted; a smaller split is taken whole.
        seed: of the order in which a stratum's pictures are taken.
        by_verdict: False leaves out who is right, so that rare errors are as rare as in the split.

    Raises:
        ValueError: the pictures that were drawn are not all of one size.
    """
    is_fake = np.asarray(rows["label"][:]) == FAKE
    is_right = {name: (scores > 0.5) == is_fake for name, scores in p_fake.items()}  # noqa: PLR2004 - one half
    content = tuple(name or "unknown" for name in rows["content"][:])
    verdicts = [right.tolist() for right in is_right.values()] if by_verdict else []
    stratum = _codes(list(zip(is_fake.tolist(), content, *verdicts, strict=True)))
    order = np.random.default_rng(seed).permutation(len(rows))
    chosen = np.sort(order[take_evenly(stratum[order].tolist(), n)])
    whole = np.bincount(stratum).astype(np.float64)
    drawn = stratum[chosen]
    return Sample(
        pictures=_stack(rows.select(chosen)),
        is_fake=is_fake[chosen],
        content=tuple(content[row] for row in chosen),
        ids=tuple(rows["id"][row] for row in chosen.tolist()),
        is_right={name: right[chosen] for name, right in is_right.items()},
        stratum=drawn,
        weight=whole[drawn] / np.bincount(drawn, minlength=len(whole))[drawn],
    )


def _codes(groups: Sequence[Hashable]) -> NDArray[np.intp]:
    numbers = {group: code for code, group in enumerate(dict.fromkeys(groups))}
    return np.array([numbers[group] for group in groups], dtype=np.intp)


def _stack(rows: Dataset) -> NDArray[np.uint8]:
    pictures = [np.asarray(to_rgb(picture)) for picture in rows["image"]]
    shapes = sorted({picture.shape[:2] for picture in pictures})
    if len(shapes) > 1:
        found = ", ".join(f"{width} x {height}" for height, width in shapes[:3])
        raise ValueError(
            f"wanted pictures of one size, so that their maps can be laid over each other; found {found}. Resize the "
            "data set first."
        )
    return np.stack(pictures)
