"""Several ways to do the same work, measured in turn in one run, as medians and as ratios round by round."""

import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from realfake_hf.environment import environment
from realfake_hf.store import write_json

Measured = TypeVar("Measured")

_ROOT: Final = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Spread:
    """One value a round, and what they come to.

    >>> Spread.of([3.0, 1.0, 2.0])
    Spread(n=3, median=2.0, min=1.0, max=3.0, values=(3.0, 1.0, 2.0))
    """

    n: int
    median: float
    min: float
    max: float
    values: tuple[float, ...]

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Sum up at least one value."""
        return cls(len(values), statistics.median(values), min(values), max(values), tuple(values))

    def to_markdown(self, digits: int) -> str:
        """Render the cells median, min, max."""
        return " | ".join(f"{value:,.{digits}f}" for value in (self.median, self.min, self.max))


@dataclass(frozen=True)
class Pair:
    """Two ways whose values are divided, `over / under`, round by round.

    Attributes:
        over: name of a way.
        under: name of a way.
        goal: what the median ratio should reach at least; None where it has no such goal.
        limit: what the median ratio should reach at most; None where it has no such limit.
    """

    over: str
    under: str
    goal: float | None = None
    limit: float | None = None


@dataclass(frozen=True)
class Comparison:
    """What was measured of several ways, and the ratios that matter.

    Attributes:
        unit: of the values.
        measured: of each way, one value a round; all ways have the same number of rounds.
        pairs: which ways are divided by which.
        digits: decimals of a value in the table.
    """

    unit: str
    measured: Mapping[str, Sequence[float]]
    pairs: Sequence[Pair]
    digits: int = 0

    def ratio(self, pair: Pair) -> Spread:
        """Divide round by round, so that a machine that slows down does so on both sides."""
        over, under = self.measured[pair.over], self.measured[pair.under]
        return Spread.of([a / b for a, b in zip(over, under, strict=True)])

    def to_dict(self) -> dict[str, Any]:
        """Give every value, its median, and every ratio as plain numbers and dictionaries."""
        ratios = [asdict(pair) | {"ratio": asdict(self.ratio(pair))} for pair in self.pairs]
        rows = {name: asdict(Spread.of(values)) for name, values in self.measured.items()}
        return {"unit": self.unit, "rows": rows, "ratios": ratios}

    def to_markdown(self) -> str:
        """Render two tables: the ways, and their ratios."""
        ways = [f"| {name} | {Spread.of(v).to_markdown(self.digits)} |" for name, v in self.measured.items()]
        ratios = [
            f"| {p.over} / {p.under} | {self.ratio(p).to_markdown(2)} | {goal_words(goal=p.goal, limit=p.limit)} |"
            for p in self.pairs
        ]
        head = [f"| {self.unit} | median | min | max |", "|---|--:|--:|--:|"]
        between = ["", "| ratio, round by round | median | min | max | goal |", "|---|--:|--:|--:|--:|"]
        return "\n".join([*head, *ways, *between, *ratios])


def goal_words(*, goal: float | None, limit: float | None) -> str:
    """Say what a ratio should be.

    >>> goal_words(goal=2, limit=None), goal_words(goal=None, limit=1.3), goal_words(goal=None, limit=None)
    ('at least 2', 'at most 1.3', '')
    """
    bounds = {"at least": goal, "at most": limit}
    return ", ".join(f"{words} {bound:g}" for words, bound in bounds.items() if bound is not None)


def run_apart(module: str, task: Mapping[str, Any]) -> dict[str, Any]:
    """Run a module of this folder in a process of its own, so that its memory is its own.

    Args:
        module: its dotted name; it takes a JSON object as its one argument, and its last line is one.
        task: that object; its `way` says what is done.

    Raises:
        ValueError: the process failed.
    """
    words = [sys.executable, "-m", module, json.dumps(task)]
    done = subprocess.run(words, cwd=_ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ValueError(f"wanted {task['way']} to end; its process failed:\n{done.stderr[-2000:]}")
    taken: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return taken


def measure_in_turn(ways: Mapping[str, Callable[[], Measured]], *, rounds: int) -> dict[str, list[Measured]]:
    """Measure A, B, C, then A, B, C again; narrated on stderr.

    Args:
        ways: what to call, by name.
        rounds: how often each is called.

    Returns:
        What each returned, round by round.
    """
    measured: dict[str, list[Measured]] = {name: [] for name in ways}
    for number in range(1, rounds + 1):
        for name, way in ways.items():
            measured[name].append(way())
            print(f"round {number}/{rounds}  {name}: {measured[name][-1]}", file=sys.stderr)
    return measured


def refuse_in_vain(file: Path, *, rounds: int) -> None:
    """Check before the expensive part that there will be results, and where to write them.

    Raises:
        ValueError: there is no round, or the folder of the file does not exist.
    """
    if rounds < 1:
        raise ValueError(f"wanted at least 1 round; found {rounds}. Give --rounds 1 or more.")
    if not file.parent.is_dir():
        raise ValueError(f"wanted a folder for {file.name}; found none at {file.parent}. Make it first.")


def write_benchmark(file: Path, *, settings: Mapping[str, Any], results: Mapping[str, Any]) -> None:
    """Write settings, machine and results as JSON."""
    plain = json.loads(json.dumps(dict(settings), default=str))  # paths become text
    write_json(file, {"settings": plain, **environment(), **results})
