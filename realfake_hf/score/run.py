"""Score any number of pictures by one model, part by part, in as many processes as one likes."""

import logging
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby, islice
from operator import itemgetter
from pathlib import Path
from typing import Any, Final

from accelerate import PartialState
from accelerate.utils import gather_object
from PIL import Image
from tqdm.auto import tqdm

from realfake_hf.data.decoding import UnreadableImageError, decode_image
from realfake_hf.data.pixels import resize_image
from realfake_hf.detector import Detector, load_detector
from realfake_hf.distributed import cores_each, join_processes, this_process, told_of_lost_processes
from realfake_hf.parallel import map_in_threads
from realfake_hf.score.inputs import Item, Part, find_supply
from realfake_hf.score.store import ScoreStore
from realfake_hf.store import write_json

logger = logging.getLogger(__name__)

SUMMARY: Final = "summary.json"
_LARGE: Final = 2**20  # pixels above which a picture is brought to the model's size at once, for the memory's sake

Row = dict[str, Any]


@dataclass
class ScoreArguments:
    """Which pictures are scored by which model, and where the scores go."""

    model: str = field(metadata={"help": "A folder of train.py, or a Hub id."})
    output: Path = field(metadata={"help": "The folder of scores; the same command goes on from there."})
    data: list[str] = field(
        default_factory=list,
        metadata={"help": "Picture files, folders, globs; parquet shards; a Hub set; or one source of train.py."},
    )
    batch_size: int = field(default=32, metadata={"help": "Pictures that go through the model at once, on each core."})
    part_size: int = field(default=2048, metadata={"help": "Pictures of a file of scores: what a kill costs at most."})


@dataclass(frozen=True)
class Scored:
    """What there is when a process is done.

    Attributes:
        folder: of the scores.
        n: pictures of the whole.
        counts: FAKE, REAL, unsure, far, errors, in all parts that are finished.
        missing: parts that are not: another process has died, or is still at work.
        new: pictures that this call scored, in all processes.
        seconds: that it took.
    """

    folder: Path
    n: int
    counts: Mapping[str, int]
    missing: int
    new: int
    seconds: float

    def to_markdown(self) -> str:
        """Render the counts, and the speed of this call."""
        names = ("FAKE", "REAL", "unsure", "far", "errors")
        counts = [f"{self.counts.get(name, 0):,}" for name in names]
        rate = f"{self.new / self.seconds:,.0f}" if self.new else "-"
        return (
            f"| pictures | {' | '.join(names)} | scored now | images/s |\n|{'--:|' * 8}\n"
            f"| {self.n:,} | {' | '.join(counts)} | {self.new:,} | {rate} |"
        )


@told_of_lost_processes()
def score(arguments: ScoreArguments) -> Scored:
    """Score pictures; what is finished in the output folder is kept.

    Each process takes every so-manieth part. A part is written when all its pictures are scored, so that each of them
    stands in the scores once, however often the work was broken off.

    Raises:
        OSError: there is no such model, no such picture, or no room for the scores.
        ValueError: the model does not say real and fake, or the folder holds something else.
    """
    state = join_processes()
    supply = find_supply(arguments.data, part_size=_at_least_one(arguments.part_size, "--part_size"))
    detector = load_detector("--model", arguments.model)
    detector.batch_size = _at_least_one(arguments.batch_size, "--batch_size")
    asked = {
        "model": arguments.model, "weights": detector.digest(), "data": arguments.data, "kind": supply.kind,
        "n": supply.n, "sha256": supply.sha256, "part_size": arguments.part_size,
    }  # fmt: skip
    store = ScoreStore(arguments.output, asked, writes=state.is_main_process)
    if state.is_main_process:
        store.sweep()
    state.wait_for_everyone()
    mine = supply.parts[state.process_index :: state.num_processes]
    began = time.perf_counter()
    new = _score_parts(mine, detector, store, state)
    seconds = time.perf_counter() - began
    logger.info("%s: %s pictures scored in %.0f s", this_process(), f"{new:,}", seconds)
    everywhere = gather_object([new])  # also waits for everyone
    counts = [store.counts(part) for part in supply.parts] if state.is_main_process else []
    found = Scored(
        folder=arguments.output,
        n=supply.n,
        counts=sum(filter(None, counts), Counter()),
        missing=counts.count(None),
        new=sum(everywhere),
        seconds=seconds,
    )
    if state.is_main_process and not found.missing:
        write_json(arguments.output / SUMMARY, {"n": found.n, "counts": dict(found.counts)})
    return found


def _score_parts(parts: Sequence[Part], detector: Detector, store: ScoreStore, state: PartialState) -> int:
    """Score the parts that are not finished, and keep them; give how many pictures that were."""
    left = [part for part in parts if store.counts(part) is None]
    total, todo = (sum(part.n for part in some) for some in (parts, left))
    ask = partial(_ask, detector)
    hidden = None if state.is_main_process else True
    with tqdm(total=total, initial=total - todo, desc="scoring", unit="image", disable=hidden) as bar:
        answers = map_in_threads(ask, _batches(left, detector.batch_size), workers=cores_each(state))
        for part, of_part in groupby(answers, itemgetter(0)):
            rows: list[Row] = []
            for _, some in of_part:
                rows += some
                bar.update(len(some))
            store.keep(part, rows)
    return todo


def _batches(parts: Sequence[Part], size: int) -> Iterator[tuple[Part, list[Item]]]:
    for part in parts:
        items = part.items()
        while batch := list(islice(items, size)):
            yield part, batch


def _ask(detector: Detector, of_part: tuple[Part, list[Item]]) -> tuple[Part, list[Row]]:
    part, batch = of_part
    return part, _score_batch(detector, batch)


def _score_batch(detector: Detector, batch: list[Item]) -> list[Row]:
    """Give a row for each picture: its verdict, or why there is none."""
    opened = [_open(detector, item) for item in batch]
    good = [one for one in opened if isinstance(one, Image.Image)]
    verdicts = iter(detector.predict(good)) if good else iter(())
    return [_row(item, one, verdicts) for item, one in zip(batch, opened, strict=True)]


def _row(item: Item, opened: Image.Image | str, verdicts: Iterator[Any]) -> Row:
    if isinstance(opened, str):
        return {"id": item.id, "label": None, "p_fake": None, "is_sure": None, "is_far": None, "error": opened}
    verdict = next(verdicts)
    return {
        "id": item.id,
        "label": verdict.label,
        "p_fake": verdict.p_fake,
        "is_sure": verdict.is_sure,
        "is_far": verdict.is_far,
        "error": None,
    }


def _open(detector: Detector, item: Item) -> Image.Image | str:
    try:
        picture = decode_image(item.read())
    except (UnreadableImageError, OSError) as error:
        return str(error)
    return picture if picture.width * picture.height <= _LARGE else resize_image(picture, detector.processor)


def _at_least_one(value: int, flag: str) -> int:
    if value < 1:
        raise ValueError(f"wanted {flag} of at least 1; found {value}.")
    return value
