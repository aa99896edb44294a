"""Speed of a cross-evaluation grid beside `pipeline`: two models on the same images, decoding included.

`python -m benchmarks.grid_throughput --output_file results/benchmark_grid.json`
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from benchmarks.comparison import (
    Pair,
    compare,
    images_per_second,
    measure_in_turn,
    number_of_rounds,
    report,
    results_file,
    run_benchmark,
)
from realfake_hf.cli import read_names
from realfake_hf.tables import markdown_table

if TYPE_CHECKING:
    from realfake_hf.crosseval.datasets import EvalDataset
    from realfake_hf.crosseval.models import Model

GRIDS: Final = {"grid": False, "grid, bfloat16": True}
PIPELINE: Final = "pipeline, one by one"
WARM_UP: Final = 64  # untimed images of the pipelines


@dataclass
class Settings:
    """What to evaluate, and how often."""

    models: list[str] = field(
        default_factory=lambda: ["cnn=space/models/cifake-cnn", "vit=space/models/cifake-vit"],
        metadata={"help": "NAME=FOLDER of trained models."},
    )
    datasets: list[str] = field(
        default_factory=lambda: ["cifake=cifake"], metadata={"help": "NAME=SOURCE of test images."}
    )
    n: int = field(default=1000, metadata={"help": "Images of each data set."})
    rounds: int = number_of_rounds(3)
    output_file: Path = results_file("benchmark_grid")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return the exit status."""
    return run_benchmark(Settings, measure, to_markdown, argv, name="grid_throughput", description=__doc__)


def measure(settings: Settings) -> dict[str, Any]:
    """Time the grid and the pipelines on every data set, and compare the scores in bfloat16 with those in float32."""
    from realfake_hf.crosseval.datasets import load_dataset
    from realfake_hf.crosseval.models import check_models, load_model
    from realfake_hf.distributed import join_processes

    join_processes()
    places = read_names("--models", settings.models, kind="FOLDER")
    check_models(places)
    sources = read_names("--datasets", settings.datasets, kind="SOURCE")
    test_sets = [load_dataset(name, source, limit=settings.n, seed=0) for name, source in sources.items()]
    models = {
        way: [load_model(name, place, bf16=bf16) for name, place in places.items()] for way, bf16 in GRIDS.items()
    }
    values = measure_in_turn(_ways(list(places.values()), models, test_sets), rounds=settings.rounds)
    pairs = [
        Pair(f"{test_set.name} {way}", f"{test_set.name} {PIPELINE}", goal=3)
        for test_set in test_sets
        for way in GRIDS
    ]
    return {
        "n": {test_set.name: len(test_set.rows) for test_set in test_sets},
        "changed_by_bf16": {test_set.name: _differences(models, test_set) for test_set in test_sets},
        **compare(values, pairs, unit="images/s, both models"),
    }


def to_markdown(content: Mapping[str, Any]) -> str:
    """Render the speeds, and what bfloat16 changes."""
    rows = [
        [name, model, f"{content['n'][name]:,}", f"{row['largest_difference']:.3f}", f"{row['verdicts']:,}"]
        for name, models in content["changed_by_bf16"].items()
        for model, row in models.items()
    ]
    header = ["data", "model", "images", "bfloat16: largest difference of p_fake", "bfloat16: other verdicts"]
    return report(content, markdown_table(header, rows, align="llr"))


def _ways(
    places: Sequence[str], models: "Mapping[str, Sequence[Model]]", test_sets: "Sequence[EvalDataset]"
) -> dict[str, Callable[[], float]]:
    from transformers import pipeline

    pipes = [pipeline("image-classification", model=place, trust_remote_code=False) for place in places]
    ways: dict[str, Callable[[], float]] = {}
    for test_set in test_sets:
        rows = range(len(test_set.rows))
        for way in GRIDS:
            ways[f"{test_set.name} {way}"] = partial(images_per_second, partial(_score, models[way], test_set), rows)
        loops = partial(_run_pipelines, pipes, test_set)
        ways[f"{test_set.name} {PIPELINE}"] = partial(images_per_second, loops, rows, warm_up=WARM_UP)
    return ways


def _score(models: "Sequence[Model]", test_set: "EvalDataset", _: object = None) -> "Mapping[str, Any]":
    from realfake_hf.crosseval.scoring import score_all

    return score_all(models, test_set, "native")


def _run_pipelines(pipes: Sequence[Any], test_set: "EvalDataset", rows: range) -> None:
    """Run each model in a loop of its own over the data set, as a short script does."""
    from realfake_hf.data.decoding import to_rgb

    for pipe in pipes:
        for row in rows:
            pipe(to_rgb(test_set.rows[row]["image"]))


def _differences(models: "Mapping[str, Sequence[Model]]", test_set: "EvalDataset") -> dict[str, dict[str, float]]:
    """Return for each model the largest difference of a score in bfloat16, and the number of other verdicts."""
    import numpy as np

    exact, rounded = (_score(models[way], test_set) for way in GRIDS)
    thresholds = {model.name: model.point.threshold for model in models["grid"]}
    return {
        name: {
            "largest_difference": float(np.abs(rounded[name] - exact[name]).max()),
            "verdicts": int(((rounded[name] > threshold) != (exact[name] > threshold)).sum()),
        }
        for name, threshold in thresholds.items()
    }


if __name__ == "__main__":
    sys.exit(main())
