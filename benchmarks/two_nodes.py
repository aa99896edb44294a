"""A training and a grid on one machine beside the same on two: `python -m benchmarks.two_nodes`.

The two are network namespaces joined by a virtual cable where the system allows that (it wants root), and loopback
twice where it does not; the file says which.
"""

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from benchmarks.comparison import write_benchmark
from benchmarks.jobs import MODELS
from benchmarks.nodes import Nodes, two_nodes
from benchmarks.processes import Subject, batch_size_each, compare, to_markdown, training_found, training_words
from realfake_hf.cli import parse

SAME_WORK: Final = ("cells", "pairs", "shortcuts", "data", "models")  # of a grid: all but where and when it was made


@dataclass
class Settings(Subject):
    """What is trained and measured twice."""

    grid_n: int = field(default=4000, metadata={"help": "CIFAKE test pictures of the grid."})
    output_file: Path = field(default=Path("results/two_nodes.json"), metadata={"help": "Where the JSON goes."})


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, train and measure twice, write, print; give the exit status."""
    (settings,) = parse(Settings, argv=argv, description=__doc__)
    try:
        with two_nodes() as nodes:
            results: dict[str, Any] = {
                "are_apart": nodes.are_apart,
                "training": _train(settings, nodes),
                "grid": _grid(settings, nodes),
            }
    except ValueError as error:
        print(f"two_nodes: {error}", file=sys.stderr)
        return 1
    write_benchmark(settings.output_file, settings=asdict(settings), results=results)
    print(to_markdown(results["training"]))
    print(results["grid"])
    return 0


def numbers_apart(one: object, other: object) -> tuple[int, int]:
    """Count the values of two plain structures, and those that are not alike to the last digit.

    >>> numbers_apart({"a": [1.0, 2.0]}, {"a": [1.0, 2.5], "b": 3})
    (3, 2)
    """
    left, right = dict(_leaves(one)), dict(_leaves(other))
    places = left.keys() | right.keys()
    nothing = object()
    return len(places), sum(left.get(place, nothing) != right.get(place, nothing) for place in places)


def _leaves(content: object, place: tuple[object, ...] = ()) -> Iterator[tuple[tuple[object, ...], object]]:
    match content:
        case dict():
            for name, value in content.items():
                yield from _leaves(value, (*place, name))
        case list():
            for number, value in enumerate(content):
                yield from _leaves(value, (*place, number))
        case _:
            yield place, content


def _train(settings: Settings, nodes: Nodes) -> dict[str, Any]:
    folders = {"one": settings.output_dir / "training-one", "two": settings.output_dir / "training-two"}
    words = {
        name: ["train.py", *training_words(settings, folder, batch_size=batch_size_each(settings.recipe, processes))]
        for processes, (name, folder) in enumerate(folders.items(), 1)
    }
    _alone(words["one"], nodes)
    _together(words["two"], nodes, settings.output_dir)
    return compare(*(training_found(folder) for folder in folders.values()))


def _grid(settings: Settings, nodes: Nodes) -> dict[str, Any]:
    models = [f"{name}={MODELS / f'cifake-{name}'}" for name in ("cnn", "vit")]
    words = ["crosseval.py", "--models", *models, "--datasets", "cifake=cifake", "--limit", str(settings.grid_n)]
    words += ["--protocols", "native", "--bootstrap_samples", "100", "--output_dir"]
    folders = [settings.output_dir / name for name in ("grid-one", "grid-two")]
    _alone([*words, str(folders[0])], nodes)
    _together([*words, str(folders[1])], nodes, settings.output_dir)
    grids = [json.loads((folder / "grid.json").read_text(encoding="utf-8")) for folder in folders]
    values, apart = numbers_apart(*({name: grid[name] for name in SAME_WORK} for grid in grids))
    return {"n": settings.grid_n, "models": len(models), "values": values, "values_apart": apart}


def _alone(words: Sequence[str], nodes: Nodes) -> None:
    done = subprocess.run([sys.executable, *words], cwd=nodes.root, check=False)
    if done.returncode:
        raise ValueError(f"wanted {words[0]} to end in one process; found status {done.returncode}.")


def _together(words: Sequence[str], nodes: Nodes, folder: Path) -> None:
    codes = [node.wait() for node in nodes.start(words, folder)]
    if any(codes):
        log = (folder / "node-0.log").read_text(encoding="utf-8").strip().splitlines()
        raise ValueError(f"wanted {words[0]} to end on both machines; found status {codes}. {log[-1] if log else ''}")


if __name__ == "__main__":
    sys.exit(main())
