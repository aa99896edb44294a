"""Score the images of a data set with all models: each image decoded once, blocks distributed over processes."""

import hashlib
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

from realfake_hf.crosseval.datasets import EvalDataset
from realfake_hf.crosseval.models import Model
from realfake_hf.data.corruptions import PROTOCOLS, Protocol
from realfake_hf.data.decoding import to_rgb
from realfake_hf.data.pixels import geometry, resize_images, resize_target
from realfake_hf.distributed import cores_each, this_process
from realfake_hf.parallel import map_in_threads
from realfake_hf.sampling import Flags
from realfake_hf.store import Store

logger = logging.getLogger(__name__)

_BLOCK: Final = 32  # images, the same in every process; larger blocks leave the cache and slow a ViT-Tiny by a sixth
_MAX_PIXELS: Final = 2**25  # per batch, in memory at once

Change = Callable[[Image.Image, str], Image.Image]
Scores = Mapping[str, NDArray[np.float64]]


def cell_name(dataset: EvalDataset, condition: str, model: Model, *, split: str | None = None) -> str:
    """Return the name of the results of a model on a data set in the store; `split` names a part of its images."""
    part = "" if split is None else split.removeprefix(dataset.split).replace(" ", "-")
    return f"{dataset.name}-{dataset.split}-{condition}-{model.name}{part}"


def load_or_score(
    models: Sequence[Model],
    dataset: EvalDataset,
    store: Store,
    *,
    protocol: str = "native",
    condition: str | None = None,
    settings: Mapping[str, Any] | None = None,
    change: Change | None = None,
) -> Scores:
    """Return the scores of each model by name, see `score_all`: read from the store, or computed and stored.

    With a change, `condition` is its name, and `settings` identify it in the store.
    """
    condition, settings = condition or protocol, settings or {"protocol": protocol}
    recorded = {model.name: {**cell_settings(dataset, model), **settings} for model in models}
    files = {model.name: cell_name(dataset, condition, model) for model in models}
    stored = {name: store.load(file, recorded[name]) for name, file in files.items()}
    missing = [model for model in models if stored[model.name] is None]
    new = score_all(missing, dataset, protocol, change=change, title=condition) if missing else {}
    for name, p_fake in new.items():
        store.save(files[name], recorded[name], p_fake=p_fake)
    old = {name: arrays["p_fake"] for name, arrays in stored.items() if arrays is not None}
    return {name: p_fake.astype(np.float64) for name, p_fake in {**new, **old}.items()}


def cell_settings(dataset: EvalDataset, model: Model, where: Flags | None = None) -> dict[str, Any]:
    """Return what all results of a model on a data set, or its images `where`, (n,), depend on.

    These are the digests of weights and images, and the temperature, by which the scores are calibrated.
    """
    part = {} if where is None else {"part": hashlib.sha256(where.tobytes()).hexdigest()}
    digests = {"weights": model.digest, "pictures": dataset.sha256}
    return {**digests, "temperature": model.point.temperature, **part}


def score_all(
    models: Sequence[Model], dataset: EvalDataset, protocol: str, *, change: Change | None = None, title: str = ""
) -> dict[str, NDArray[np.floating]]:
    """Score the images of a data set with several models: (n,) calibrated `p_fake` in [0, 1] each, by name.

    A change, a function of an image and its SHA-256, is applied after the protocol. The title is that of the progress
    bar, by default the protocol.

    Under `accelerate launch` each process scores every n-th block, and all processes return all scores. On CPU each
    core scores whole blocks: the last digits of a sum depend on the number of threads, and scores must not depend on
    the number of processes.
    """
    state = PartialState()
    ranges, blocks = dataset.share(_BLOCK, processes=state.num_processes, process=state.process_index)
    score = partial(_score_block, models, prepare=partial(_prepare, PROTOCOLS[protocol], change))
    description = f"{dataset.name} {dataset.split} {title or protocol}"
    bar = tqdm(
        map_in_threads(score, blocks, workers=cores_each(state)),
        total=len(ranges),
        desc=description,
        unit="block",
        disable=None if state.is_main_process else True,
    )
    own = [(rows.start, scores) for rows, scores in zip(ranges, bar, strict=True)]
    if state.num_processes > 1:
        logger.info("%s: %d blocks of %s", this_process(), len(own), description)
    by_start = dict(gather_object(own))
    return {
        model.name: np.concatenate([by_start[start][model.name] for start in sorted(by_start)]) for model in models
    }


def _score_block(
    models: Sequence[Model], rows: Iterable[Mapping[str, Any]], *, prepare: Callable[[Mapping[str, Any]], Image.Image]
) -> dict[str, NDArray[Any]]:
    batches = [
        {model.name: model.score(images) for model, images in _resize_once(models, batch)}
        for batch in _batches(map(prepare, rows))
    ]
    return {model.name: np.concatenate([batch[model.name] for batch in batches]) for model in models}


def _resize_once(models: Sequence[Model], batch: list[Image.Image]) -> Iterator[tuple[Model, Sequence[Image.Image]]]:
    """Yield each model with its images, resized once for all models whose processors resize alike and do not crop.

    A processor leaves an image of the right size unchanged, so the models receive the same pixels as without this.
    """
    resized: dict[str, Sequence[Image.Image]] = {}
    for model in models:
        processor = model.detector.processor if model.detector else None
        if processor is None or resize_target(processor) is None:
            yield model, batch
            continue
        key = geometry(processor)
        if key not in resized:
            resized[key] = [Image.fromarray(pixels) for pixels in resize_images(batch, processor)]
        yield model, resized[key]


def _prepare(protocol: Protocol, change: Change | None, row: Mapping[str, Any]) -> Image.Image:
    image = protocol(to_rgb(row["image"]))
    return image if change is None else change(image, row["sha256"])


def _batches(images: Iterator[Image.Image]) -> Iterator[list[Image.Image]]:
    batch: list[Image.Image] = []
    pixels = 0
    for image in images:
        batch.append(image)
        pixels += image.width * image.height
        if pixels >= _MAX_PIXELS:
            yield batch
            batch, pixels = [], 0
    if batch:
        yield batch
