"""Images of a study: a sample balanced by label, content and correctness, with weights for the whole split."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray

from realfake_hf.data.decoding import to_rgb
from realfake_hf.data.sampling import take_evenly
from realfake_hf.labels import FAKE
from realfake_hf.metrics.intervals import Resampling


@dataclass(frozen=True, eq=False)
class Sample:
    """Images that every model scores and explains.

    Attributes:
        images: (n, height, width, 3) uint8 [0, 255].
        is_fake: (n,) true labels.
        content: what each image shows; "unknown" if the source does not name it.
        ids: opaque id of each row.
        is_right: whether the prediction of each model is correct, FAKE above 0.5, (n,) by the model's name.
        stratum: (n,) codes of the groups between which the draw is balanced: label, content, and correctness.
        weight: (n,) number of images of the whole split that each image represents.
    """

    images: NDArray[np.uint8]
    is_fake: NDArray[np.bool_]
    content: tuple[str, ...]
    ids: tuple[str, ...]
    is_right: Mapping[str, NDArray[np.bool_]]
    stratum: NDArray[np.intp]
    weight: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.images)

    def resampling(self, *, samples: int, seed: int) -> Resampling:
        """Return the bootstrap of this sample."""
        return Resampling(self.weight, stratum=self.stratum, samples=samples, seed=seed)

    def to_dict(self) -> dict[str, Any]:
        """Count the images by label, content and correctness, and the images of the split that they represent."""
        return {
            "n": len(self),
            "of": round(float(self.weight.sum())),
            "n_real": int((~self.is_fake).sum()),
            "n_fake": int(self.is_fake.sum()),
            "content": {name: int(mask.sum()) for name, mask in self.by_content.items()},
            "right": {name: int(right.sum()) for name, right in self.is_right.items()},
            "all_right": int(self.all_right.sum()),
            "strata": len(np.unique(self.stratum)),
        }

    @property
    def by_content(self) -> dict[str, NDArray[np.bool_]]:
        """The images of each content as masks, (n,), in alphabetical order."""
        names = np.array(self.content)
        return {name: names == name for name in sorted(set(self.content))}

    @property
    def all_right(self) -> NDArray[np.bool_]:
        """(n,) whether all models are correct."""
        return np.logical_and.reduce(list(self.is_right.values()))  # type: ignore[no-any-return]


def draw_sample(
    rows: Dataset, p_fake: Mapping[str, NDArray[np.floating]], *, n: int, seed: int, by_verdict: bool = True
) -> Sample:
    """Draw n images of a split, balanced between its strata: label, content, and which models are correct.

    The scores of every image, (rows,), are given by the model's name. All images of a smaller split are taken. With
    `by_verdict` false, correctness is ignored, and errors are as rare as in the split.

    Raises:
        ValueError: the drawn images have different sizes.
    """
    is_fake = np.asarray(rows["label"][:]) == FAKE
    is_right = {name: (scores > 0.5) == is_fake for name, scores in p_fake.items()}  # noqa: PLR2004 - one half
    content = tuple(name or "unknown" for name in rows["content"][:])
    verdicts = [right.tolist() for right in is_right.values()] if by_verdict else []
    stratum = _codes(list(zip(is_fake.tolist(), content, *verdicts, strict=True)))
    order = np.random.default_rng(seed).permutation(len(rows))
    chosen = np.sort(order[take_evenly(stratum[order].tolist(), n)])
    drawn = stratum[chosen]
    return Sample(
        images=_stack(rows.select(chosen)),
        is_fake=is_fake[chosen],
        content=tuple(content[row] for row in chosen),
        ids=tuple(rows["id"][row] for row in chosen.tolist()),
        is_right={name: right[chosen] for name, right in is_right.items()},
        stratum=drawn,
        weight=np.bincount(stratum)[drawn] / np.bincount(drawn)[drawn],
    )


def _codes(groups: Sequence[Hashable]) -> NDArray[np.intp]:
    numbers = {group: code for code, group in enumerate(dict.fromkeys(groups))}
    return np.array([numbers[group] for group in groups], dtype=np.intp)


def _stack(rows: Dataset) -> NDArray[np.uint8]:
    images = [np.asarray(to_rgb(image)) for image in rows["image"]]
    shapes = sorted({image.shape[:2] for image in images})
    if len(shapes) > 1:
        found = ", ".join(f"{width} x {height}" for height, width in shapes[:3])
        raise ValueError(
            f"expected images of one size, so that their maps are comparable; found {found}. Resize them first."
        )
    return np.stack(images)
