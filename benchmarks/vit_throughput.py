"""Images a second and memory of a ViT-Tiny at several image and patch sizes, beside the Hugging Face example's way.

`python -m benchmarks.vit_throughput --output_file results/benchmark_vit.json`
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

from benchmarks.comparison import Comparison, Pair, measure_in_turn, refuse_in_vain, run_apart, write_benchmark
from benchmarks.ways_to_vit import COMPILED, WAYS, Taken, Task
from realfake_hf.cli import parse

GEOMETRIES: Final = ("32/4", "128/16", "224/16")  # image size / patch size


@dataclass
class Settings:
    """How much is measured."""

    model: str = field(default="WinKawaks/vit-tiny-patch16-224", metadata={"help": "The pretrained ViT."})
    data: str = field(default="cifake", metadata={"help": "Source of the pictures, as train.py takes it."})
    geometries: list[str] = field(
        default_factory=lambda: list(GEOMETRIES), metadata={"help": "Image size / patch size, each."}
    )
    compiled: list[str] = field(
        default_factory=lambda: ["32/4"],
        metadata={"help": "Of the geometries: those also trained with torch.compile."},
    )
    batch_size: int = field(default=64, metadata={"help": "Pictures in a step."})
    steps: int = field(default=8, metadata={"help": "Steps timed in each way and round."})
    rounds: int = field(default=2, metadata={"help": "How often each way is measured, in turn."})
    output_file: Path = field(default=Path("results/benchmark_vit.json"), metadata={"help": "Where the JSON goes."})


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, measure, write, print the tables; give the exit status."""
    (settings,) = parse(Settings, argv=argv, description=__doc__)
    try:
        refuse_in_vain(settings.output_file, rounds=settings.rounds)
        taken = measure_in_turn(_ways(settings), rounds=settings.rounds)
    except ValueError as error:
        print(f"vit_throughput: {error}", file=sys.stderr)
        return 1
    speeds = {name: [one.images_per_s for one in row] for name, row in taken.items()}
    comparison = Comparison("images/s", speeds, _pairs(settings), digits=1)
    facts = {"memory": {name: _peak(row) for name, row in taken.items()}}
    write_benchmark(settings.output_file, settings=asdict(settings), results={**comparison.to_dict(), **facts})
    print(comparison.to_markdown())
    print(f"\n{_memory_table(facts['memory'])}")
    return 0


def _ways(settings: Settings) -> dict[str, Callable[[], Taken]]:
    tasks = [
        (geometry, way)
        for geometry in settings.geometries
        for way in WAYS
        if way != COMPILED or geometry in settings.compiled
    ]
    return {f"{geometry} {way}": partial(_take, _task(settings, geometry, way)) for geometry, way in tasks}


def sides(geometry: str) -> tuple[int, int]:
    """Read an image size and a patch size, such as 32/4.

    Raises:
        ValueError: it is none.
    """
    image_size, _, patch_size = geometry.partition("/")
    if not (image_size.isdecimal() and patch_size.isdecimal()):
        raise ValueError(f"wanted --geometries like 32/4; found {geometry!r}.")
    return int(image_size), int(patch_size)


def _task(settings: Settings, geometry: str, way: str) -> Task:
    image_size, patch_size = sides(geometry)
    return Task(
        way=way,
        model=settings.model,
        image_size=image_size,
        patch_size=patch_size,
        data=settings.data,
        batch_size=settings.batch_size,
        steps=settings.steps,
    )


def _take(task: Task) -> Taken:
    return Taken(**run_apart("benchmarks.ways_to_vit", asdict(task)))


def _pairs(settings: Settings) -> list[Pair]:
    asked = [
        ("training: trainer", "training: random tensors", 0.9),
        ("training: trainer", "training: HF example's way", None),
        ("asking: detector", "asking: random tensors", None),
        ("asking: detector", "asking: pipeline, batches", None),
        ("asking: detector", "asking: pipeline, one by one", None),
    ]
    pairs = [
        Pair(f"{at} {over}", f"{at} {under}", goal=goal) for at in settings.geometries for over, under, goal in asked
    ]
    compiled = [at for at in settings.geometries if at in settings.compiled]
    return pairs + [Pair(f"{at} {COMPILED}", f"{at} training: trainer") for at in compiled]


def _peak(row: Sequence[Taken]) -> dict[str, float]:
    return {name: max(getattr(one, name) for one in row) for name in ("peak_memory_gib", "device_memory_gib")}


def _memory_table(memory: Mapping[str, Mapping[str, Any]]) -> str:
    rows = [
        f"| {name} | {row['peak_memory_gib']:.2f} | {row['device_memory_gib']:.2f} |" for name, row in memory.items()
    ]
    return "\n".join(["| peak memory, GiB | process | accelerator |", "|---|--:|--:|", *rows])


if __name__ == "__main__":
    sys.exit(main())
