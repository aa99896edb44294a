"""A training and a grid on one machine and on two: `python -m benchmarks.two_nodes --output_dir runs/nodes`.

The two machines are network namespaces joined by a virtual cable where root allows it, else loopback; the results say
which.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from benchmarks.comparison import MODELS, machine_note, results_file, run_benchmark
from benchmarks.launch import Nodes, two_nodes
from benchmarks.processes import (
    TrainingSettings,
    batch_size_per_process,
    call,
    compare_runs,
    run_summary,
    runs_table,
    training_words,
)
from realfake_hf.store import read_json
from realfake_hf.tables import markdown_table

COMPARED: Final = ("cells", "pairs", "shortcuts", "data", "models")  # of a grid: all but place and time


@dataclass
class Settings(TrainingSettings):
    """What to train and evaluate twice."""

    grid_n: int = field(default=4000, metadata={"help": "CIFAKE test images in the grid."})
    output_file: Path = results_file("two_nodes")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return the exit status."""
    return run_benchmark(Settings, measure, to_markdown, argv, name="two_nodes", description=__doc__)


def measure(settings: Settings) -> dict[str, Any]:
    """Train and evaluate on one machine and on two.

    Raises:
        ValueError: a script failed.
    """
    with two_nodes() as nodes:
        return {"are_apart": nodes.are_apart, "training": _train(settings, nodes), "grid": _grid(settings, nodes)}


def to_markdown(content: Mapping[str, Any]) -> str:
    """Render the two trainings, and how many values of the two grids differ."""
    grid = content["grid"]
    network = "two network namespaces joined by a virtual cable" if content["are_apart"] else "loopback"
    row = ["one machine and two", f"{grid['n']:,}", grid["models"], f"{grid['values_apart']:,} of {grid['values']:,}"]
    table = markdown_table(["grid", "images", "models", "values that differ"], [row])
    note = f"One process per machine; network: {network}. {machine_note(content)}"
    return "\n".join([runs_table(content["training"]), "", table, "", note])


def count_differences(left: object, right: object) -> tuple[int, int]:
    """Count the values of two nested structures, and those that are not equal.

    >>> count_differences({"a": [1.0, 2.0]}, {"a": [1.0, 2.5], "b": 3})
    (3, 2)
    """
    values, others = dict(_leaves(left)), dict(_leaves(right))
    paths = values.keys() | others.keys()
    missing = object()
    return len(paths), sum(values.get(path, missing) != others.get(path, missing) for path in paths)


def _leaves(content: object, path: tuple[object, ...] = ()) -> Iterator[tuple[tuple[object, ...], object]]:
    match content:
        case dict():
            for name, value in content.items():
                yield from _leaves(value, (*path, name))
        case list():
            for number, value in enumerate(content):
                yield from _leaves(value, (*path, number))
        case _:
            yield path, content


def _train(settings: Settings, nodes: Nodes) -> dict[str, Any]:
    folders = [(settings.output_dir / name).resolve() for name in ("training-one", "training-two")]
    one, two = (
        ["train.py", *training_words(settings, folder, batch_size=batch_size_per_process(settings.recipe, processes))]
        for processes, folder in enumerate(folders, 1)
    )
    call([sys.executable, *one])
    _run_on_both(two, nodes, settings.output_dir)
    return compare_runs(*map(run_summary, folders))


def _grid(settings: Settings, nodes: Nodes) -> dict[str, Any]:
    models = [f"{name}={MODELS / f'cifake-{name}'}" for name in ("cnn", "vit")]
    words = ["crosseval.py", "--models", *models, "--datasets", "cifake=cifake", "--limit", str(settings.grid_n)]
    words += ["--protocols", "native", "--bootstrap_samples", "100", "--output_dir"]
    folders = [(settings.output_dir / name).resolve() for name in ("grid-one", "grid-two")]
    call([sys.executable, *words, str(folders[0])])
    _run_on_both([*words, str(folders[1])], nodes, settings.output_dir)
    grids = [read_json(folder / "grid.json") for folder in folders]
    values, different = count_differences(*({name: grid[name] for name in COMPARED} for grid in grids))
    return {"n": settings.grid_n, "models": len(models), "values": values, "values_apart": different}


def _run_on_both(words: Sequence[str], nodes: Nodes, folder: Path) -> None:
    statuses = [node.wait() for node in nodes.start(words, folder)]
    if any(statuses):
        log = (folder / "node-0.log").read_text(encoding="utf-8").strip().splitlines()
        raise ValueError(f"wanted {words[0]} to finish on both machines; found status {statuses}. {log[-1:]}")


if __name__ == "__main__":
    sys.exit(main())
