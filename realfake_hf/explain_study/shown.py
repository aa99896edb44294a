"""The pictures of a study's gallery, with what every model says of them and where it looks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from realfake_hf.data.sampling import take_evenly
from realfake_hf.explain_study.maps import MapSet
from realfake_hf.explain_study.sample import Sample


@dataclass(frozen=True, eq=False)
class Shown:
    """A picture of the gallery.

    Attributes:
        picture: (height, width, 3) uint8 [0, 255].
        is_fake: the truth.
        content: what is on it.
        p_fake: by the model's name.
        heats: by model and method, (grid_h, grid_w) in [0, 1].
    """

    picture: NDArray[np.uint8]
    is_fake: bool
    content: str
    p_fake: dict[str, float]
    heats: dict[str, NDArray[np.float32]]


def choose_shown(
    sample: Sample, p_fake: Mapping[str, Mapping[str, float]], maps: Sequence[MapSet], *, n: int
) -> tuple[Shown, ...]:
    """Take pictures of each label on which all models are right and on which one is wrong, as evenly as can be.

    Args:
        sample: the pictures.
        p_fake: by the model's name and the picture's id.
        maps: of the sample.
        n: pictures wanted.
    """
    right = np.logical_and.reduce(list(sample.is_right.values()))
    chosen = take_evenly(list(zip(sample.is_fake.tolist(), right.tolist(), strict=True)), n)
    return tuple(
        Shown(
            picture=sample.pictures[row],
            is_fake=bool(sample.is_fake[row]),
            content=sample.content[row],
            p_fake={name: scores[sample.ids[row]] for name, scores in p_fake.items()},
            heats={one.name: one.heat[row] for one in maps},
        )
        for row in chosen
    )
