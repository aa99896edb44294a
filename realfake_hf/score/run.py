"""Score images with one model, part by part, in any number of processes; one parquet file holds each finished part."""

import json
import logging
import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby, islice
from operator import itemgetter
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq
from accelerate import PartialState
from accelerate.utils import gather_object
from PIL import Image
from tqdm.auto import tqdm

from realfake_hf.data.decoding import UnreadableImageError, decode_image
from realfake_hf.data.pixels import check_elongation, resize_image
from realfake_hf.detector import Detector, load_detector
from realfake_hf.distributed import cores_each, join_processes, report_lost_processes, this_process
from realfake_hf.estimate import to_plain
from realfake_hf.labels import NotFiniteError, Verdict
from realfake_hf.parallel import map_in_threads
from realfake_hf.places import default_model
from realfake_hf.score.arguments import ScoreArguments
from realfake_hf.score.inputs import Item, Part, find_inputs
from realfake_hf.store import begin_or_resume, without_local_paths, write_json
from realfake_hf.tables import markdown_table

logger = logging.getLogger(__name__)

SUMMARY: Final = "summary.json"
COUNTS: Final = ("FAKE", "REAL", "unsure", "far", "errors")
SCHEMA: Final = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("label", pa.string()),  # REAL or FAKE at the threshold of the model; null without a verdict
        pa.field("p_fake", pa.float32()),  # in [0, 1]
        pa.field("is_sure", pa.bool_()),  # null if the model has neither a band nor limits
        pa.field("is_far", pa.bool_()),  # out of distribution; null if the model has no familiarity
        pa.field("reason", pa.string()),  # why it is unsure, in a sentence; null if it is not
        pa.field("error", pa.string()),  # reason if there is no verdict
    ]
)
SETTINGS: Final = "scoring.json"
_COUNTS_KEY: Final = b"realfake_counts"  # in the metadata of a file of scores
_LARGE: Final = 2**20  # pixels; larger images are resized as soon as they are decoded, to save memory
_VERDICT: Final = ("label", "p_fake", "is_sure", "is_far", "reason")

Row = dict[str, Any]


@dataclass(frozen=True)
class ScoreSummary:
    """The state of the scores after a call."""

    n: int  # number of images
    # verdicts and errors in all finished parts, by the names in `COUNTS`; empty outside the main process
    counts: Mapping[str, int]
    missing: int  # number of unfinished parts, if another process died or is still running
    new: int  # number of images that this call scored, in all processes
    seconds: float  # duration of this call

    def to_markdown(self) -> str:
        """Render the counts, and the speed of this call."""
        counts = [f"{self.counts.get(name, 0):,}" for name in COUNTS]
        rate = f"{self.new / self.seconds:,.0f}" if self.new else "-"
        row = [f"{self.n:,}", *counts, f"{self.new:,}", rate]
        return markdown_table(["images", *COUNTS, "scored now", "images/s"], [row], align="r")


class ScoreStore:
    """A folder of scores.

    Args:
        folder: an empty folder, or the folder of an interrupted scoring with the same settings.
        settings: everything that determines the scores; recorded beside them.
        is_main: whether this is the main process, which records the settings and deletes unfinished files.

    Raises:
        ValueError: the folder contains other files, or scores with other settings.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any], *, is_main: bool) -> None:
        self.folder = folder
        if is_main:
            begin_or_resume(folder / SETTINGS, settings, what="scoring", flag="--output")
            for file in folder.glob("part-*.parquet.*"):
                file.unlink(missing_ok=True)

    def file(self, part: Part) -> Path:
        """Return the file of the scores of a part."""
        return self.folder / f"part-{part.number:06d}.parquet"

    def counts(self, part: Part) -> Counter[str] | None:
        """Count the verdicts of a finished part: FAKE, REAL, unsure, far, errors; None if it is not finished.

        The part of a damaged file counts as not finished; the file is logged.
        """
        file = self.file(part)
        if not file.exists():
            return None
        try:
            with pq.ParquetFile(file) as scores:
                if scores.metadata.num_rows == part.n:
                    return Counter(json.loads(scores.schema_arrow.metadata[_COUNTS_KEY]))
            reason = "unexpected number of rows"
        except (pa.ArrowException, OSError, TypeError, KeyError) as error:
            reason = str(error).partition("\n")[0]
        logger.warning("%s is damaged (%s): scoring its images again", file, reason)
        return None

    def save(self, part: Part, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write the scores of a part atomically, one row per image, with their counts."""
        schema = SCHEMA.with_metadata({_COUNTS_KEY: json.dumps(_count(rows))})
        scratch = self.folder / f"{self.file(part).name}.{os.getpid()}"
        with scratch.open("wb") as stream:
            pq.write_table(pa.Table.from_pylist(list(rows), schema=schema), stream)
            stream.flush()
            os.fsync(stream.fileno())
        scratch.replace(self.file(part))


@report_lost_processes()
def score(arguments: ScoreArguments) -> ScoreSummary:
    """Score the images that have no scores in the output folder yet.

    Each of n processes takes every n-th part. A part is written after all of its images are scored, so each image has
    exactly one row after any number of interruptions.

    Raises:
        OSError: the model or an input does not exist, or the disk is full.
        ValueError: the labels of the model do not mean real and fake, or the folder contains other files.
    """
    state = join_processes()
    inputs = find_inputs(arguments.data, part_size=arguments.part_size, labels=arguments.labels)
    detector = load_detector("--model", arguments.model or str(default_model()))
    detector.batch_size = arguments.batch_size
    settings = {
        "model": arguments.model, "weights": detector.digest(), "point": to_plain(detector.point),
        "columns": SCHEMA.names, "data": arguments.data, "kind": inputs.kind, "n": inputs.n, "sha256": inputs.sha256,
        "part_size": arguments.part_size,
    }  # fmt: skip
    store = ScoreStore(arguments.output, settings, is_main=state.is_main_process)
    state.wait_for_everyone()
    began = time.perf_counter()
    new = _score_parts(inputs.parts[state.process_index :: state.num_processes], detector, store, state)
    seconds = time.perf_counter() - began
    logger.info("%s: %s images scored in %.0f s", this_process(), f"{new:,}", seconds)
    new_everywhere = sum(gather_object([new]))  # waits for all processes
    counts = [store.counts(part) for part in inputs.parts] if state.is_main_process else []
    total, missing = sum(filter(None, counts), Counter()), counts.count(None)
    if state.is_main_process and not missing:
        write_json(arguments.output / SUMMARY, {"n": inputs.n, "counts": dict(total)})
    return ScoreSummary(inputs.n, total, missing, new_everywhere, seconds)


def _score_parts(parts: Sequence[Part], detector: Detector, store: ScoreStore, state: PartialState) -> int:
    """Score and store the unfinished parts; return the number of their images."""
    unfinished = [part for part in parts if store.counts(part) is None]
    n_all, n_new = (sum(part.n for part in selection) for selection in (parts, unfinished))
    score_batch = partial(_score_batch, detector)
    hidden = None if state.is_main_process else True
    with tqdm(total=n_all, initial=n_all - n_new, desc="scoring", unit="image", disable=hidden) as bar:
        batches = map_in_threads(score_batch, _batches(unfinished, detector.batch_size), workers=cores_each(state))
        for part, batches_of_part in groupby(batches, itemgetter(0)):
            rows: list[Row] = []
            for _, batch_rows in batches_of_part:
                rows += batch_rows
                bar.update(len(batch_rows))
            store.save(part, rows)
    return n_new


def _batches(parts: Sequence[Part], size: int) -> Iterator[tuple[Part, list[Item]]]:
    for part in parts:
        items = part.items()
        while batch := list(islice(items, size)):
            yield part, batch


def _score_batch(detector: Detector, part_and_batch: tuple[Part, list[Item]]) -> tuple[Part, list[Row]]:
    """Return one row for each image, with its verdict or the reason for its absence."""
    part, batch = part_and_batch
    images = [_open(detector, item) for item in batch]
    verdicts = iter(_judge(detector, [image for image in images if not isinstance(image, str)]))
    answers = [image if isinstance(image, str) else next(verdicts) for image in images]
    return part, [{"id": item.id, **_columns(answer)} for item, answer in zip(batch, answers, strict=True)]


def _judge(detector: Detector, images: Sequence[Image.Image]) -> list[Verdict | str]:
    """Return a verdict for each image, or the reason why it has none, which leaves those of the others unchanged."""
    try:
        return list(detector.predict(images))
    except NotFiniteError as error:
        return [str(error)] if len(images) == 1 else [_judge(detector, [image])[0] for image in images]


def _columns(answer: Verdict | str) -> Row:
    if isinstance(answer, str):
        return {**dict.fromkeys(_VERDICT), "error": without_local_paths(answer)}
    return {**{name: getattr(answer, name) for name in _VERDICT}, "error": None}


def _open(detector: Detector, item: Item) -> Image.Image | str:
    """Read and decode an image, or return the reason for the failure."""
    try:
        image = decode_image(item.read())
        check_elongation(image, detector.processor)
    except (UnreadableImageError, OSError) as error:
        return str(error)
    if image.width * image.height <= _LARGE or detector.point.limits:  # which apply to the image as it is
        return image
    return resize_image(image, detector.processor)


def _count(rows: Sequence[Mapping[str, Any]]) -> Counter[str]:
    counts = Counter(row["label"] if row["error"] is None else "errors" for row in rows)
    counts["unsure"] = sum(row["is_sure"] is False for row in rows)
    counts["far"] = sum(row["is_far"] is True for row in rows)
    return counts
