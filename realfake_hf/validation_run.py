"""The probabilities of all validation images in each epoch of a run, kept in one file."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class ValidationRun:
    """n validation images over k epochs.

    Attributes:
        id: (n,) the images' opaque ids.
        is_fake: (n,) bool.
        content: (n,) what each shows, "" where unknown.
        epoch: (k,) the epochs, counted from 1.
        p_fake: (k, n) float32 in [0, 1].
    """

    id: NDArray[np.str_]
    is_fake: NDArray[np.bool_]
    content: NDArray[np.str_]
    epoch: NDArray[np.int64]
    p_fake: NDArray[np.float32]

    @classmethod
    def begin(cls, *, ids: Sequence[str], is_fake: NDArray[np.bool_], content: Sequence[str | None]) -> Self:
        """Start with no epochs."""
        names = np.array([name or "" for name in content])
        none = np.empty((0, len(ids)), dtype=np.float32)
        return cls(np.array(ids), np.asarray(is_fake, dtype=np.bool_), names, np.empty(0, dtype=np.int64), none)

    @classmethod
    def read(cls, file: Path) -> Self:
        """Read what `write` wrote."""
        with np.load(file) as stored:
            return cls(**{column.name: stored[column.name] for column in fields(cls)})

    def write(self, file: Path) -> None:
        """Write a `.npz` file; it appears whole or not at all."""
        part = file.with_name(f"{file.stem}.part.npz")
        np.savez(part, **{column.name: getattr(self, column.name) for column in fields(self)})
        part.replace(file)

    def with_epoch(self, epoch: int, p_fake: NDArray[np.float32]) -> Self:
        """Append an epoch, forgetting what an interrupted run noted of it or of later ones."""
        earlier = self.epoch < epoch
        return type(self)(
            self.id,
            self.is_fake,
            self.content,
            np.append(self.epoch[earlier], epoch),
            np.vstack([self.p_fake[earlier], p_fake.astype(np.float32)]),
        )

    def p_true(self) -> NDArray[np.float32]:
        """The probability of each image's true label: (k, n) in [0, 1]."""
        return np.where(self.is_fake, self.p_fake, 1 - self.p_fake)

    def content_accuracy(self) -> dict[str, list[float]]:
        """Accuracy in [0, 1] by content and epoch, FAKE being called above one half; unknown content is left out."""
        right = (self.p_fake > 1 / 2) == self.is_fake  # (k, n)
        names = sorted({str(name) for name in self.content} - {""})
        return {name: right[:, self.content == name].mean(axis=1).tolist() for name in names}
