"""Ask all models about the pictures of a data set, each decoded once, shared out among processes."""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Final

import numpy as np
from accelerate import PartialState
from accelerate.utils import gather_object
from numpy.typing import NDArray
from PIL import Image
from tqdm.auto import tqdm

from realfake_hf.crosseval.datasets import TestSet
from realfake_hf.crosseval.models import Entrant
from realfake_hf.data.corruptions import PROTOCOLS, Protocol
from realfake_hf.data.decoding import to_rgb
from realfake_hf.data.pixels import geometry, resize_images, resize_target
from realfake_hf.distributed import cores_each, this_process
from realfake_hf.parallel import map_in_threads

logger = logging.getLogger(__name__)

_BLOCK: Final = 32  # pictures; whichever process takes a block, it goes through a model in the same batches. More of
# them do not fit a core's cache: a ViT-Tiny then takes a sixth longer
_MOST_PIXELS: Final = 2**25  # of a batch, in memory at once

Change = Callable[[Image.Image, str], Image.Image]
Prepare = Callable[[Mapping[str, Any]], Image.Image]


def score_all(
    entrants: Sequence[Entrant],
    one: TestSet,
    protocol: str,
    *,
    change: Change | None = None,
    title: str | None = None,
) -> dict[str, NDArray[np.floating]]:
    """Score the pictures of a data set with several models: (n,) `p_fake` in [0, 1] each, by name.

    Under `accelerate launch` each process takes every so-manieth block, and all of them get all scores. On CPU each
    core of a process takes blocks of its own: a sum that is shared out among threads depends in its last digit on how
    many there are, and so would the scores on how many processes.

    Args:
        entrants: the models.
        one: the data set.
        protocol: what is done to each picture.
        change: what else is done to it after that, given the picture and its SHA-256.
        title: of the progress bar.
    """
    state = PartialState()
    places, blocks = one.share(_BLOCK, processes=state.num_processes, process=state.process_index)
    hidden = None if state.is_main_process else True
    score = partial(_score_block, entrants, prepare=partial(_prepared, PROTOCOLS[protocol], change))
    bar = tqdm(
        map_in_threads(score, blocks, workers=cores_each(state)),
        total=len(places),
        desc=title or f"{one.name} {one.split} {protocol}",
        unit="block",
        disable=hidden,
    )
    mine = [(place.start, scores) for place, scores in zip(places, bar, strict=True)]
    if state.num_processes > 1:
        logger.info("%s: %d blocks of %s", this_process(), len(mine), title or f"{one.name} {protocol}")
    found = dict(gather_object(mine))
    return {
        entrant.name: np.concatenate([found[start][entrant.name] for start in sorted(found)]) for entrant in entrants
    }


def _score_block(
    entrants: Sequence[Entrant], rows: Iterable[Mapping[str, Any]], *, prepare: Prepare
) -> dict[str, NDArray[Any]]:
    found = [
        {entrant.name: entrant.score(given) for entrant, given in _sized_once(entrants, batch)}
        for batch in _batches(map(prepare, rows))
    ]
    return {entrant.name: np.concatenate([part[entrant.name] for part in found]) for entrant in entrants}


def _sized_once(
    entrants: Sequence[Entrant], batch: list[Image.Image]
) -> Iterator[tuple[Entrant, Sequence[Image.Image]]]:
    """Give each model the pictures; models whose processors only resize, and alike, get them resized once for all.

    A processor leaves a picture that has its size as it is, so the models see what they would see anyway.
    """
    made: dict[str, Sequence[Image.Image]] = {}
    for entrant in entrants:
        processor = entrant.detector.processor if entrant.detector else None
        if processor is None or resize_target(processor) is None:
            yield entrant, batch
            continue
        key = geometry(processor)
        if key not in made:
            made[key] = [Image.fromarray(one) for one in resize_images(batch, processor)]
        yield entrant, made[key]


def _prepared(protocol: Protocol, change: Change | None, row: Mapping[str, Any]) -> Image.Image:
    picture = protocol(to_rgb(row["image"]))
    return picture if change is None else change(picture, row["sha256"])


def _batches(pictures: Iterator[Image.Image]) -> Iterator[list[Image.Image]]:
    batch: list[Image.Image] = []
    pixels = 0
    for picture in pictures:
        batch.append(picture)
        pixels += picture.width * picture.height
        if pixels >= _MOST_PIXELS:
            yield batch
            batch, pixels = [], 0
    if batch:
        yield batch
