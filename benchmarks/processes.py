"""Accuracy and time of a training in one process and in two with the same total batch.

`python -m benchmarks.processes --output_dir runs/processes --output_file results/two_processes.json`
"""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

from benchmarks.comparison import machine_note, results_file, run_benchmark
from benchmarks.launch import ROOT, launcher
from realfake_hf.store import read_json
from realfake_hf.tables import markdown_table

ALLOWED: Final = 0.3  # points of accuracy by which the two may differ


@dataclass
class TrainingSettings:
    """What to train twice."""

    output_dir: Path = field(metadata={"help": "Folder of the two runs: empty or new."})
    recipe: Path = field(default=Path("recipes/vit_tiny_cifake_32.yaml"), metadata={"help": "Recipe of train.py."})
    data: str | None = field(default=None, metadata={"help": "Data source that replaces the recipe's."})
    train_size: int | None = field(default=20_000, metadata={"help": "Training images; all by default of a recipe."})
    num_train_epochs: int = field(default=1, metadata={"help": "Epochs."})


@dataclass
class Settings(TrainingSettings):
    """What to train twice, and in how many processes."""

    processes: int = field(default=2, metadata={"help": "Processes of the second run."})
    output_file: Path = results_file("two_processes")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return the exit status."""
    return run_benchmark(Settings, measure, to_markdown, argv, name="processes", description=__doc__)


def measure(settings: Settings) -> dict[str, Any]:
    """Train in one process and in several.

    Raises:
        ValueError: the batch cannot be split evenly, or a training failed.
    """
    counts = (1, settings.processes)
    batch_sizes = [batch_size_per_process(settings.recipe, processes) for processes in counts]
    return compare_runs(*(_train(settings, n, batch_size) for n, batch_size in zip(counts, batch_sizes, strict=True)))


def compare_runs(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """Compare the accuracy of two runs, and divide their durations.

    Args:
        first: what `run_summary` returned of a run.
        second: the same of another run.
    """
    points = {split: 100 * (second["accuracy"][split] - first["accuracy"][split]) for split in first["accuracy"]}
    return {
        "runs": [dict(first), dict(second)],
        "points": points,
        "allowed_points": ALLOWED,
        "within": all(abs(difference) <= ALLOWED for difference in points.values()),
        "seconds_ratio": second["seconds"] / first["seconds"],
    }


def to_markdown(content: Mapping[str, Any]) -> str:
    """Render one row per run, and their differences."""
    return "\n".join([runs_table(content), "", machine_note(content)])


def runs_table(content: Mapping[str, Any]) -> str:
    """Render what `compare_runs` returned."""
    n = content["runs"][0]["n"]
    header = ["run", *(f"{split} accuracy (n = {n[split]:,})" for split in n), "seconds"]
    rows = [
        [_run_name(run), *(f"{accuracy:.2%}" for accuracy in run["accuracy"].values()), f"{run['seconds']:.0f}"]
        for run in content["runs"]
    ]
    points = [f"{value:+.2f} points" for value in content["points"].values()]
    allowed = f"difference (at most {content['allowed_points']} points)"
    return markdown_table(header, [*rows, [allowed, *points, f"x {content['seconds_ratio']:.2f}"]])


def _run_name(run: Mapping[str, Any]) -> str:
    if "recipe" in run:
        return str(run["recipe"])
    return "1 process" if run["processes"] == 1 else f"{run['processes']} processes"


def batch_size_per_process(recipe: Path, processes: int) -> int:
    """Split the batch of a recipe evenly among processes.

    Raises:
        ValueError: there is a remainder.
    """
    total = int(yaml.safe_load(recipe.read_text(encoding="utf-8")).get("per_device_train_batch_size", 128))
    if total % processes:
        raise ValueError(f"wanted processes that divide the batch of {total}; found {processes} processes.")
    return total // processes


def training_words(settings: TrainingSettings, folder: Path, *, batch_size: int) -> list[str]:
    """Return the arguments of train.py."""
    words = ["--config", str(settings.recipe), "--output_dir", str(folder)]
    words += ["--num_train_epochs", str(settings.num_train_epochs), "--bootstrap_samples", "0"]
    words += ["--per_device_train_batch_size", str(batch_size)]
    words += ["--train_size", str(settings.train_size)] if settings.train_size else []
    return words + (["--data", settings.data] if settings.data else [])


def run_summary(folder: Path) -> dict[str, Any]:
    """Return processes, sample sizes, accuracies and seconds of a finished run."""
    from realfake_hf.run_folder import METRICS, RECORD

    metrics, run = (read_json(folder / name) for name in (METRICS, RECORD))
    splits = ("validation", "test")
    return {
        "processes": run["processes"],
        "n": {split: metrics[split]["n"] for split in splits},
        "accuracy": {split: metrics[split]["accuracy"]["value"] for split in splits},
        "seconds": run["seconds"],
    }


def call(words: Sequence[str], *, environment: Mapping[str, str] | None = None) -> None:
    """Run a command in the root of the checkout.

    Raises:
        ValueError: it failed.
    """
    status = subprocess.run(words, cwd=ROOT, env=environment, check=False).returncode
    if status:
        raise ValueError(f"wanted `{' '.join(words[:4])} ...` to finish; it ended with status {status}.")


def _train(settings: Settings, processes: int, batch_size: int) -> dict[str, Any]:
    folder = (settings.output_dir / ("one" if processes == 1 else "several")).resolve()
    words = ["train.py", *training_words(settings, folder, batch_size=batch_size)]
    options = ("--multi_gpu", "--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no")
    start = [sys.executable] if processes == 1 else launcher(processes, *options)
    threads = max(1, (os.cpu_count() or 1) // processes)
    call([*start, *words], environment={**os.environ, "OMP_NUM_THREADS": str(threads)})
    return run_summary(folder)


if __name__ == "__main__":
    sys.exit(main())
