"""Accuracy, time and memory of a training on one GPU with the launch recipes `one_gpu.yaml` and `fsdp.yaml`.

`python -m benchmarks.one_gpu --output_dir runs/one-gpu`

On one GPU, FSDP has nothing to shard: the benchmark shows that the recipe runs and that it learns the same.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.comparison import results_file, run_benchmark
from benchmarks.launch import launcher
from benchmarks.processes import (
    TrainingSettings,
    batch_size_per_process,
    call,
    compare_runs,
    run_summary,
    to_markdown,
    training_words,
)

RECIPES: Final = ("one_gpu", "fsdp")


@dataclass
class Settings(TrainingSettings):
    """What to train twice."""

    output_file: Path = results_file("one_gpu")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return the exit status."""
    return run_benchmark(Settings, measure, to_markdown, argv, name="one_gpu", description=__doc__)


def measure(settings: Settings) -> dict[str, Any]:
    """Train with both recipes.

    Raises:
        ValueError: there is no GPU, or a training failed.
    """
    import torch

    if not torch.cuda.is_available():
        raise ValueError("wanted a CUDA device; found none.")
    return compare_runs(*(_train(settings, recipe) for recipe in RECIPES))


def _train(settings: Settings, recipe: str) -> dict[str, Any]:
    folder = (settings.output_dir / recipe).resolve()
    words = training_words(settings, folder, batch_size=batch_size_per_process(settings.recipe, 1))
    start = launcher(1, "--config_file", f"recipes/accelerate/{recipe}.yaml", "train.py")
    call([*start, *words, "--attn_implementation", "sdpa"])
    return {"recipe": recipe, **run_summary(folder)}


if __name__ == "__main__":
    sys.exit(main())
