"""Seconds from CIFAKE's archive to a trained and measured CNN that is better than the paper's, in two precisions.

`python -m benchmarks.time_to_accuracy --output_file results/benchmark_time_to_accuracy.json`

A command of train.py runs in a process and with a cache of its own: Python starts, the archive is decoded, the network
is trained, test images are scored, also without those that occur in training, and figures are drawn. Near-duplicates
are not searched.
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from benchmarks.comparison import (
    Pair,
    compare,
    measure_in_turn,
    now,
    number_of_rounds,
    report,
    results_file,
    run_benchmark,
)
from benchmarks.launch import ROOT
from realfake_hf.tables import markdown_table

PAPER: Final = 0.9298  # accuracy of the paper's network (Bird & Lotfi, 2024)
GOAL: Final = 60.0  # seconds on 2 cores
WAYS: Final = {"bfloat16": "true", "float32": "false"}


@dataclass
class Settings:
    """What to train, and how often."""

    recipe: Path = field(default=Path("recipes/cifake_cnn_quick.yaml"), metadata={"help": "Recipe."})
    rounds: int = number_of_rounds(3)
    output_file: Path = results_file("benchmark_time_to_accuracy")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return the exit status."""
    return run_benchmark(Settings, measure, to_markdown, argv, name="time_to_accuracy", description=__doc__)


def measure(settings: Settings) -> dict[str, Any]:
    """Train in both precisions, in turn, each round with another seed."""
    rounds = range(settings.rounds)
    seeds = {way: iter(rounds) for way in WAYS}
    ways = {way: partial(_train, settings.recipe, way, seeds[way]) for way in WAYS}
    rows = measure_in_turn(ways, rounds=settings.rounds)
    seconds = {way: [row["seconds"] for row in measured] for way, measured in rows.items()}
    results = compare(seconds, [Pair("float32", "bfloat16")], unit="s")
    return {**results, "accuracy": {way: [row["accuracy"] for row in measured] for way, measured in rows.items()}}


def to_markdown(content: Mapping[str, Any]) -> str:
    """Render times and accuracies."""
    rows = [
        (
            way,
            f"{content['rows'][way]['median']:.1f}",
            f"{100 * min(values):.2f} to {100 * max(values):.2f}%",
            f"{sum(value > PAPER for value in values)} of {len(values)}",
        )
        for way, values in content["accuracy"].items()
    ]
    header = ("way", "seconds, median", "test accuracy", f"above {PAPER:.2%}")
    note = f"Goal: at most {GOAL:.0f} seconds on 2 cores. Each round has another seed."
    return report(content, markdown_table(header, rows), digits=1, note=note)


def _train(recipe: Path, way: str, seeds: Any) -> dict[str, float]:  # noqa: ANN401 - an iterator of integers
    with TemporaryDirectory() as folder:
        words = [
            "--config",
            str(recipe),
            "--bf16",
            WAYS[way],
            "--seed",
            str(next(seeds)),
            "--output_dir",
            f"{folder}/run",
        ]
        began = now()
        subprocess.run(
            [sys.executable, "train.py", *words],
            check=True,
            cwd=ROOT,
            env={**os.environ, "HF_DATASETS_CACHE": f"{folder}/cache"},
            capture_output=True,
        )
        seconds = now() - began
        metrics = json.loads((Path(folder) / "run/metrics.json").read_text(encoding="utf-8"))
    return {"seconds": seconds, "accuracy": metrics["test"]["accuracy"]["value"]}


if __name__ == "__main__":
    sys.exit(main())
