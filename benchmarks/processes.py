"""A training in one process beside the same training in two, of the same batch in total: accuracy, and seconds.

`python -m benchmarks.processes --output_file results/two_processes.json`
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

from benchmarks.comparison import write_benchmark
from benchmarks.launch import launcher
from realfake_hf.cli import parse
from realfake_hf.run_folder import METRICS, RECORD

ALLOWED: Final = 0.3  # points of accuracy that the two may differ by
_ROOT: Final = Path(__file__).resolve().parents[1]


@dataclass
class Subject:
    """What is trained twice."""

    output_dir: Path = field(metadata={"help": "Where the two runs go: an empty or a new folder."})
    recipe: Path = field(default=Path("recipes/vit_tiny_cifake_32.yaml"), metadata={"help": "What train.py takes."})
    data: str | None = field(default=None, metadata={"help": "In place of the recipe's pictures."})
    train_size: int | None = field(default=20_000, metadata={"help": "Pictures of the subset; none for all."})
    num_train_epochs: int = field(default=1, metadata={"help": "Passes over them."})


@dataclass
class Settings(Subject):
    """What is trained twice, and by how many."""

    processes: int = field(default=2, metadata={"help": "The other number of processes."})
    output_file: Path = field(default=Path("results/two_processes.json"), metadata={"help": "Where the JSON goes."})


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, train twice, write, print; give the exit status."""
    (settings,) = parse(Settings, argv=argv, description=__doc__)
    counts = {"one": 1, "several": settings.processes}
    try:
        batch_sizes = {name: batch_size_each(settings.recipe, n) for name, n in counts.items()}
        runs = {name: _train(settings, name, n, batch_size=batch_sizes[name]) for name, n in counts.items()}
    except ValueError as error:
        print(f"processes: {error}", file=sys.stderr)
        return 1
    results = compare(runs["one"], runs["several"])
    write_benchmark(settings.output_file, settings=asdict(settings), results=results)
    print(to_markdown(results))
    return 0


def compare(one: Mapping[str, Any], several: Mapping[str, Any]) -> dict[str, Any]:
    """Put the accuracies of two runs beside each other, and divide their seconds.

    Args:
        one: `n`, `accuracy` of each split, `seconds` and `processes` of the run in one process.
        several: the same of the other.
    """
    points = {split: 100 * (several["accuracy"][split] - one["accuracy"][split]) for split in one["accuracy"]}
    return {
        "runs": [dict(one), dict(several)],
        "points": points,
        "allowed_points": ALLOWED,
        "within": all(abs(difference) <= ALLOWED for difference in points.values()),
        "seconds_ratio": several["seconds"] / one["seconds"],
    }


def to_markdown(results: Mapping[str, Any]) -> str:
    """Render one row a run, and what lies between them."""
    rows = [
        f"| {run['processes']} | {100 * run['accuracy']['validation']:.2f} % | {100 * run['accuracy']['test']:.2f} % "
        f"| {run['seconds']:.0f} |"
        for run in results["runs"]
    ]
    points = ", ".join(f"{split} {value:+.2f}" for split, value in results["points"].items())
    note = f"Points of difference: {points}; at most {results['allowed_points']} are allowed."
    return "\n".join(["| processes | validation | test | seconds |", "|--:|--:|--:|--:|", *rows, "", note])


def batch_size_each(recipe: Path, processes: int) -> int:
    """Share a recipe's batch out among processes, before anything is trained.

    Raises:
        ValueError: that leaves a remainder.
    """
    total = int(yaml.safe_load(recipe.read_text(encoding="utf-8")).get("per_device_train_batch_size", 128))
    if total % processes:
        raise ValueError(
            f"wanted a batch of {total} shared out evenly; found {processes} processes. Give another number."
        )
    return total // processes


def _train(settings: Settings, name: str, processes: int, *, batch_size: int) -> dict[str, Any]:
    folder = settings.output_dir / name
    words = [str(_ROOT / "train.py"), *training_words(settings, folder, batch_size=batch_size)]
    done = subprocess.run([*_launcher(processes), *words], env=_environment(processes), check=False)
    if done.returncode:
        raise ValueError(f"wanted the training in {processes} process(es) to end; found status {done.returncode}.")
    return training_found(folder)


def training_words(subject: Subject, folder: Path, *, batch_size: int) -> list[str]:
    """What train.py is told."""
    words = ["--config", str(subject.recipe), "--output_dir", str(folder)]
    words += ["--num_train_epochs", str(subject.num_train_epochs), "--bootstrap_samples", "0"]
    words += ["--per_device_train_batch_size", str(batch_size)]
    words += ["--train_size", str(subject.train_size)] if subject.train_size else []
    return words + (["--data", subject.data] if subject.data else [])


def _launcher(processes: int) -> list[str]:
    if processes == 1:
        return [sys.executable]
    return launcher(
        processes, "--multi_gpu", "--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"
    )


def _environment(processes: int) -> dict[str, str]:
    """Share the cores out among the processes."""
    threads = max(1, (os.cpu_count() or 1) // processes)
    return {**os.environ, "OMP_NUM_THREADS": str(threads)}


def training_found(folder: Path) -> dict[str, Any]:
    """What a training left that `compare` takes."""
    measured, passport = (json.loads((folder / name).read_text()) for name in (METRICS, RECORD))
    splits = ("validation", "test")
    return {
        "processes": passport["processes"],
        "n": {split: measured[split]["n"] for split in splits},
        "accuracy": {split: measured[split]["accuracy"]["value"] for split in splits},
        "seconds": passport["seconds"],
    }


if __name__ == "__main__":
    sys.exit(main())
