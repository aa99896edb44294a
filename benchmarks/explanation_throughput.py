"""What explanations cost: time beside the forward pass and beside a script's loop, and memory for many pictures.

`python -m benchmarks.explanation_throughput --output_file results/benchmark_explanations.json`
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

import torch

from benchmarks.comparison import Comparison, Pair, measure_in_turn, refuse_in_vain, run_apart, write_benchmark
from benchmarks.vit_throughput import sides
from benchmarks.ways_to_explain import SINGLY, STREAMED, WAYS, Taken, Task, take
from realfake_hf.cli import parse

GEOMETRIES: Final = ("32/4", "224/16")  # image size / patch size
GAIN_ON_CPU: Final = 2  # times the speed of a script's loop
GAIN_ON_GPU: Final = 10
FEW: Final = 64  # pictures that the memory of many is compared with
MIB: Final = 1024  # in a GiB


@dataclass
class Settings:
    """How much is measured."""

    model: str = field(default="WinKawaks/vit-tiny-patch16-224", metadata={"help": "The pretrained ViT."})
    data: str = field(default="cifake", metadata={"help": "Source of the pictures, as train.py takes it."})
    geometries: list[str] = field(
        default_factory=lambda: list(GEOMETRIES),
        metadata={"help": "Image size / patch size, each; memory is measured at the last one."},
    )
    batch_size: int = field(default=16, metadata={"help": "Pictures in a batch."})
    steps: int = field(default=8, metadata={"help": "Batches timed in each way and round."})
    singles: int = field(default=128, metadata={"help": "Pictures timed where they come one at a time."})
    many: int = field(default=1000, metadata={"help": f"Pictures whose memory is compared with that of {FEW}."})
    rounds: int = field(default=3, metadata={"help": "How often each way is measured, in turn."})
    apart: bool = field(
        default=True,
        metadata={"help": "Each way in a process of its own, whose memory is measured; false: all in one, sooner."},
    )
    output_file: Path = field(
        default=Path("results/benchmark_explanations.json"), metadata={"help": "Where the JSON goes."}
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, measure, write, print the tables; give the exit status."""
    (settings,) = parse(Settings, argv=argv, description=__doc__)
    try:
        refuse_in_vain(settings.output_file, rounds=settings.rounds)
        _refuse_few(settings.many)
        taken = measure_in_turn(_ways(settings), rounds=settings.rounds)
    except ValueError as error:
        print(f"explanation_throughput: {error}", file=sys.stderr)
        return 1
    times, memory = _times(settings, taken), _memory(settings, taken) if settings.apart else None
    facts = (
        {} if memory is None else {"memory": memory.to_dict(), "peaks": {w: _peak(row) for w, row in taken.items()}}
    )
    write_benchmark(settings.output_file, settings=asdict(settings), results={**times.to_dict(), **facts})
    print(*(table.to_markdown() for table in (times, memory) if table is not None), sep="\n\n")
    return 0


def _ways(settings: Settings) -> dict[str, Callable[[], Taken]]:
    timed = settings.batch_size * settings.steps
    tasks = {
        f"{geometry} {way}": _task(settings, geometry, way, settings.singles if way in SINGLY else timed)
        for geometry in settings.geometries
        for way in WAYS
    }
    streamed = {
        _streamed(settings, n): _task(settings, settings.geometries[-1], STREAMED, n) for n in (settings.many, FEW)
    }
    if not settings.apart:
        return {name: partial(take, task) for name, task in tasks.items()}
    return {name: partial(_take, task) for name, task in {**tasks, **streamed}.items()}


def _task(settings: Settings, geometry: str, way: str, pictures: int) -> Task:
    image_size, patch_size = sides(geometry)
    return Task(
        way=way,
        model=settings.model,
        image_size=image_size,
        patch_size=patch_size,
        data=settings.data,
        batch_size=settings.batch_size,
        pictures=pictures,
    )


def _take(task: Task) -> Taken:
    return Taken(**run_apart("benchmarks.ways_to_explain", asdict(task)))


def _times(settings: Settings, taken: Mapping[str, Sequence[Taken]]) -> Comparison:
    gain = GAIN_ON_GPU if torch.accelerator.is_available() else GAIN_ON_CPU
    asked = [
        Pair("rollout", "eager forward", limit=1.3),
        Pair("relevance", "eager forward", limit=3),
        Pair("grad_cam", "eager forward"),
        Pair("script, one at a time", "rollout", goal=gain),
        Pair("script, discarding, one at a time", "rollout, discarding", goal=gain),
        Pair("script, discarding, one at a time", "rollout", goal=gain),  # each at its defaults
        Pair("relevance, one at a time", "relevance"),
    ]
    pairs = [
        Pair(f"{at} {pair.over}", f"{at} {pair.under}", goal=pair.goal, limit=pair.limit)
        for at in settings.geometries
        for pair in asked
    ]
    measured = {name: [one.ms_per_picture for one in row] for name, row in taken.items() if STREAMED not in name}
    return Comparison("ms a picture", measured, pairs, digits=1)


def _memory(settings: Settings, taken: Mapping[str, Sequence[Taken]]) -> Comparison:
    many, few = (_streamed(settings, n) for n in (settings.many, FEW))
    measured = {name: [MIB * one.peak_memory_gib for one in taken[name]] for name in (many, few)}
    return Comparison("MiB of memory", measured, [Pair(many, few, limit=1.1)])


def _streamed(settings: Settings, n: int) -> str:
    return f"{settings.geometries[-1]} {STREAMED}, {n:,} pictures"


def _peak(row: Sequence[Taken]) -> dict[str, Any]:
    return {name: max(getattr(one, name) for one in row) for name in ("peak_memory_gib", "device_memory_gib")}


def _refuse_few(many: int) -> None:
    if many <= FEW:
        raise ValueError(f"wanted more than {FEW} pictures as --many; found {many}. 1,000 is the default.")


if __name__ == "__main__":
    sys.exit(main())
