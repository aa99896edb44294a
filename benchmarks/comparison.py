"""Compare ways to do the same work: measure them in turn, divide round by round, write the results and their table."""

import json
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar
from unittest.mock import patch

from benchmarks.launch import ROOT
from realfake_hf.cli import parse
from realfake_hf.console import run_command
from realfake_hf.store import write_results
from realfake_hf.tables import markdown_table

Result = TypeVar("Result")
Content = Mapping[str, Any]  # of a results file
Way = Callable[[], Result]

MODELS: Final = ROOT / "space/models"


@dataclass(frozen=True)
class Pair:
    """Two ways whose values are divided, `over / under`, round by round.

    Attributes:
        over: name of a way.
        under: name of a way.
        goal: lower bound of the median ratio, if any.
        limit: upper bound of the median ratio, if any.
    """

    over: str
    under: str
    goal: float | None = None
    limit: float | None = None


def results_file(name: str) -> Path:
    """Return the dataclass field `output_file` of a benchmark's settings."""
    file: Path = field(default=Path(f"results/{name}.json"), metadata={"help": "JSON file of the results."})
    return file


def number_of_rounds(n: int) -> int:
    """Return the dataclass field `rounds` of a benchmark's settings."""
    rounds: int = field(default=n, metadata={"help": "Measurements of each way, in turn."})
    return rounds


def compare(values: Mapping[str, Sequence[float]], pairs: Iterable[Pair], *, unit: str) -> dict[str, Any]:
    """Summarize the values of each way and the ratios of pairs of ways.

    Ratios are taken within a round, so that a machine that slows down affects both sides.

    Args:
        values: for each way, one value per round.
        pairs: the ways to divide.
        unit: unit of the values.

    >>> compare({"a": [2.0, 6.0], "b": [1.0, 2.0]}, [Pair("a", "b")], unit="images/s")["ratios"][0]["ratio"]
    {'n': 2, 'median': 2.5, 'min': 2.0, 'max': 3.0, 'values': [2.0, 3.0]}
    """
    ratios = [
        asdict(pair) | {"ratio": _spread([a / b for a, b in zip(values[pair.over], values[pair.under], strict=True)])}
        for pair in pairs
    ]
    return {"unit": unit, "rows": {way: _spread(row) for way, row in values.items()}, "ratios": ratios}


def _spread(values: Sequence[float]) -> dict[str, Any]:
    return {
        "n": len(values),
        "median": statistics.median(values),
        "min": min(values),
        "max": max(values),
        "values": list(values),
    }


def report(content: Content, *tables: str, digits: int = 0, note: str = "") -> str:
    """Render a results file: the values and ratios of `compare`, further tables, and a line about machine and code.

    Args:
        content: content of the file.
        tables: further Markdown tables.
        digits: decimals of the values.
        note: sentences that precede the last line.
    """
    return "\n\n".join([comparison_tables(content, digits=digits), *tables, f"{note} {machine_note(content)}".strip()])


def comparison_tables(content: Content, *, digits: int = 0) -> str:
    """Render what `compare` returned as two Markdown tables."""
    ways = [[name, f"{row['median']:,.{digits}f}", _range(row, digits)] for name, row in content["rows"].items()]
    ratios = [
        [f"{row['over']} / {row['under']}", f"{row['ratio']['median']:.2f}", _range(row["ratio"], 2), _bounds(row)]
        for row in content["ratios"]
    ]
    values = markdown_table(["way", f"{content['unit']}, median", "range"], ways)
    return f"{values}\n\n{markdown_table(['ratio', 'median', 'range', 'goal'], ratios)}"


def _range(row: Content, digits: int) -> str:
    return f"{row['min']:,.{digits}f} to {row['max']:,.{digits}f}"


def _bounds(row: Content) -> str:
    bounds = {"at least": row.get("goal"), "at most": row.get("limit")}
    return ", ".join(f"{words} {bound:g}" for words, bound in bounds.items() if bound is not None)


def machine_note(content: Content) -> str:
    """Return one sentence on the machine and the code of a results file, and its number of rounds if it has any."""
    machine, rounds = content["machine"], content["settings"].get("rounds")
    words = [f"{machine['cores']} cores", machine["processor"], f"commit {str(content['commit'])[:7]}"]
    words += [machine["device"]] if machine["device"] != "cpu" else []
    words += [f"{rounds} round{'s' if rounds > 1 else ''}"] if rounds else []
    return f"Measured on {', '.join(words)}."


def measure_in_turn(ways: Mapping[str, Way[Result]], *, rounds: int) -> dict[str, list[Result]]:
    """Measure A, B, C, then A, B, C again; report each result on stderr.

    Args:
        ways: the functions to call, by name.
        rounds: how often each is called.

    Returns:
        For each way, one result per round.
    """
    measured: dict[str, list[Result]] = {name: [] for name in ways}
    for number in range(1, rounds + 1):
        for name, way in ways.items():
            measured[name].append(way())
            print(f"round {number}/{rounds}  {name}: {measured[name][-1]}", file=sys.stderr)
    return measured


def images_per_second(call: Callable[[Any], object], images: Sequence[Any], *, warm_up: int = 0) -> float:
    """Time a call on a sequence of images, after an untimed call on its first `warm_up` images."""
    if warm_up:
        call(images[:warm_up])
    began = now()
    call(images)
    return len(images) / (now() - began)


def now() -> float:
    """Return the time in seconds, after the accelerator, if any, has finished its work."""
    import torch

    if torch.accelerator.is_available():
        torch.accelerator.synchronize()
    return time.perf_counter()


def save_images(rows: Any, folder: Path) -> list[str]:  # noqa: ANN401 - a datasets.Dataset
    """Write the encoded images of a data set to a new folder without decoding them; return the paths in order."""
    from datasets import Image

    folder.mkdir()
    files = []
    for number, row in enumerate(rows.cast_column("image", Image(decode=False))):
        file = folder / f"{number:06d}.jpg"
        file.write_bytes(row["image"]["bytes"])
        files.append(str(file))
    return files


def run_apart(function: Callable[..., Result], *arguments: object, environment: Content | None = None) -> Result:
    """Call a module-level function in a fresh process, so that its peak memory and its imports are its own.

    Args:
        function: to call.
        arguments: arguments of the function; they and the result must pickle.
        environment: environment variables of the process; those of this process by default.

    Raises:
        ValueError: the process died.
    """
    context = multiprocessing.get_context("spawn")
    with patch.dict(os.environ, environment or os.environ, clear=True), ProcessPoolExecutor(1, context) as pool:
        try:
            return pool.submit(function, *arguments).result()
        except BrokenProcessPool as error:
            raise ValueError(
                f"wanted {function.__name__} to finish in a process of its own; the process died."
            ) from error


def run_benchmark(
    settings_type: type[Any],
    measure: Callable[[Any], Content],
    to_markdown: Callable[[Content], str],
    argv: Sequence[str] | None,
    *,
    name: str,
    description: str | None,
) -> int:
    """Run a benchmark as a command: parse, measure, write NAME.json and NAME.md, print the table.

    Args:
        settings_type: a dataclass of the flags, with an `output_file`.
        measure: takes the settings and returns the results as plain JSON.
        to_markdown: renders the content of the results file.
        argv: arguments of the command line.
        name: name of the command, for error messages.
        description: for `--help`.

    Returns:
        The exit status.
    """
    (settings,) = parse(settings_type, argv=argv, description=description)

    def work() -> int:
        check_settings(settings.output_file, rounds=getattr(settings, "rounds", 1))
        write_benchmark(settings.output_file, asdict(settings), measure(settings), to_markdown)
        return 0

    return run_command(work, name=name)


def check_settings(file: Path, *, rounds: int) -> None:
    """Check that there is something to measure and a folder to write it to.

    Raises:
        ValueError: there is no round, or the folder of the file does not exist.
    """
    if rounds < 1:
        raise ValueError(f"wanted at least 1 round; found --rounds {rounds}.")
    if not file.parent.is_dir():
        raise ValueError(f"wanted an existing folder for {file.name}; found none at {file.parent}. Create it first.")


def write_benchmark(file: Path, settings: Content, results: Content, to_markdown: Callable[[Content], str]) -> None:
    """Write settings, environment and results as JSON and as a table, and print the table."""
    from realfake_hf.environment import environment

    content = json.loads(json.dumps({"settings": settings, **environment(), **results}, default=str))  # paths as text
    table = to_markdown(content)
    write_results(file, content, table)
    print(table)
