"""How fast the grid scores beside `pipeline`: both models on the same pictures, decoded and all.

`python -m benchmarks.grid_throughput --output_file results/benchmark_grid.json`
"""

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
from transformers import pipeline
from transformers.utils.logging import disable_progress_bar

from benchmarks.comparison import Comparison, Pair, measure_in_turn, refuse_in_vain, write_benchmark
from realfake_hf.cli import parse, read_names
from realfake_hf.crosseval.datasets import TestSet, load_test_set
from realfake_hf.crosseval.models import Entrant, check_models, load_model
from realfake_hf.crosseval.scoring import score_all
from realfake_hf.data.decoding import to_rgb
from realfake_hf.distributed import join_processes
from realfake_hf.metrics.operating_point import load_operating_point

GRID: Final = "grid"
GRID_BF16: Final = "grid, bfloat16"
ONE_BY_ONE: Final = "pipeline, one by one"
WARM: Final = 64  # pictures of each way that are not timed


@dataclass
class Settings:
    """How much is measured."""

    models: list[str] = field(
        default_factory=lambda: ["cnn=space/models/cifake-cnn", "vit=space/models/cifake-vit"],
        metadata={"help": "NAME=FOLDER of the models."},
    )
    datasets: list[str] = field(default_factory=lambda: ["cifake=cifake"], metadata={"help": "NAME=SOURCE."})
    n: int = field(default=1000, metadata={"help": "Pictures of each."})
    rounds: int = field(default=3, metadata={"help": "How often each way is measured, in turn."})
    output_file: Path = field(default=Path("results/benchmark_grid.json"), metadata={"help": "Where the JSON goes."})


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, measure, write, print the tables; give the exit status."""
    disable_progress_bar()  # type: ignore[no-untyped-call]
    (settings,) = parse(Settings, argv=argv, description=__doc__)
    join_processes()
    try:
        refuse_in_vain(settings.output_file, rounds=settings.rounds)
        places = read_names("--models", settings.models, kind="FOLDER")
        check_models(places)
        sources = read_names("--datasets", settings.datasets, kind="SOURCE")
        sets = [load_test_set(name, source, limit=settings.n, seed=0) for name, source in sources.items()]
        taken = measure_in_turn(_ways(places, sets), rounds=settings.rounds)
        changed = {one.name: _changed(places, one) for one in sets}
    except (OSError, ValueError) as error:
        print(f"grid_throughput: {error}", file=sys.stderr)
        return 1
    pairs = [
        Pair(f"{one.name} {way}", f"{one.name} {ONE_BY_ONE}", goal=3) for one in sets for way in (GRID, GRID_BF16)
    ]
    found = Comparison("images/s, both models", taken, pairs)
    facts = {"n": {one.name: len(one.rows) for one in sets}, "changed_by_bf16": changed}
    write_benchmark(settings.output_file, settings=asdict(settings), results={**facts, **found.to_dict()})
    print(found.to_markdown())
    return 0


def _changed(places: Mapping[str, str], one: TestSet) -> dict[str, dict[str, float]]:
    """What bfloat16 does to the scores: the largest difference, and how many verdicts are others."""
    exact, fast = (
        score_all([load_model(name, place, bf16=bf16) for name, place in places.items()], one, "native")
        for bf16 in (False, True)
    )
    points = {name: load_operating_point(place) for name, place in places.items()}
    return {
        name: {
            "largest_difference": float(np.abs(fast[name] - exact[name]).max()),
            "verdicts": int(((fast[name] > point.threshold) != (exact[name] > point.threshold)).sum()),
        }
        for name, point in points.items()
    }


def _ways(places: Mapping[str, str], sets: Sequence[TestSet]) -> dict[str, Callable[[], float]]:
    exact, fast = ([load_model(name, place, bf16=bf16) for name, place in places.items()] for bf16 in (False, True))
    pipes = [pipeline("image-classification", model=place, trust_remote_code=True) for place in places.values()]
    return {
        f"{one.name} {way}": call
        for one in sets
        for way, call in (
            (GRID, partial(_grid, exact, one)),
            (GRID_BF16, partial(_grid, fast, one)),
            (ONE_BY_ONE, partial(_one_by_one, pipes, one)),
        )
    }


def _grid(entrants: Sequence[Entrant], one: TestSet) -> float:
    began = time.perf_counter()
    score_all(entrants, one, "native")
    return len(one.rows) / (time.perf_counter() - began)


def _one_by_one(pipes: Sequence[Any], one: TestSet) -> float:
    _ask(pipes, one, min(WARM, len(one.rows)))
    began = time.perf_counter()
    _ask(pipes, one, len(one.rows))
    return len(one.rows) / (time.perf_counter() - began)


def _ask(pipes: Sequence[Any], one: TestSet, n: int) -> None:
    """One model after the other, each in a loop of its own over the data set, as one writes it."""
    for pipe in pipes:
        for row in range(n):
            pipe(to_rgb(one.rows[row]["image"]))


if __name__ == "__main__":
    sys.exit(main())
