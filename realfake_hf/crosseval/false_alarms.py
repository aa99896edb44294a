"""Who is wronged: real pictures called fake, content by content, people first."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from realfake_hf.estimate import Estimate
from realfake_hf.metrics.intervals import share

UNKNOWN: Final = "unknown"
PEOPLE: Final = frozenset({
    "baby", "boy", "bride", "child", "children", "crowd", "face", "faces", "girl", "groom", "human", "kid", "man",
    "men", "people", "person", "persons", "player", "portrait", "selfie", "woman", "women",
})  # fmt: skip


@dataclass(frozen=True)
class Harm:
    """Real pictures of one content, and how many of them are called FAKE.

    Attributes:
        content: what they show, or `UNKNOWN`.
        shows_people: whether its name says so.
        called_fake: how many are called FAKE, of how many.
    """

    content: str
    shows_people: bool
    called_fake: Estimate

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read back what `dataclasses.asdict` made of it."""
        return cls(data["content"], data["shows_people"], Estimate.from_dict(data["called_fake"]))


def shows_people(content: str) -> bool:
    """Whether a content's name has a word for people in it.

    >>> [shows_people(name) for name in ("person", "portrait_of_a_woman", "frog", "mango")]
    [True, True, False, False]
    """
    return bool(PEOPLE & set(re.split(r"[\W_]+", content.lower())))


def harms(
    is_fake: NDArray[np.bool_], called_fake: NDArray[np.bool_], content: Sequence[str | None]
) -> tuple[Harm, ...]:
    """Count real pictures called FAKE by content: people first, then the highest lower end of the interval.

    The lower end is what is surely wrong at least, so that a content of three pictures does not lead the list by
    chance.

    Args:
        is_fake: (n,) the truth.
        called_fake: (n,) the verdict.
        content: (n,) what each picture shows; None where unknown.
    """
    names = np.array([name or UNKNOWN for name in content])
    real = ~np.asarray(is_fake, dtype=np.bool_)
    found = [
        Harm(
            str(name),
            shows_people(str(name)),
            share(int((called_fake & real & (names == name)).sum()), int((real & (names == name)).sum())),
        )
        for name in np.unique(names[real])
    ]
    return tuple(sorted(found, key=lambda one: (not one.shows_people, -(one.called_fake.low or 0), one.content)))
