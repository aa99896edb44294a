"""Break long jobs on purpose: `python -m tests.faults --output_file results/faults.json`.

Each job runs undisturbed, is then broken by a fault, and repeated by the same command: the result must be the same.
Faults: kill -9 at random moments and at writes, a full disk, a truncated file, a clock set back, two processes in one
folder, a read-only cache. Small disks require root on Linux. Jobs that --jobs leaves out keep their entries.
"""

import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.comparison import machine_note, results_file, run_benchmark
from realfake_hf.store import read_json
from realfake_hf.tables import markdown_table


@dataclass
class Settings:
    """Which jobs to break, and how often."""

    kills: int = field(default=20, metadata={"help": "Random moments at which each job is killed."})
    writes: int = field(default=200, metadata={"help": "Maximum number of writes at which each job is killed."})
    jobs: list[str] = field(
        default_factory=lambda: ["cache building", "training", "grid", "search", "scoring"],
        metadata={"help": "Jobs to break."},
    )
    seed: int = field(default=0, metadata={"help": "Seed of the random moments."})
    output_file: Path = results_file("faults")


def measure(settings: Settings) -> dict[str, Any]:
    """Break every job by every fault, and pass unreadable files through every script.

    Raises:
        ValueError: there is no such job, or a job fails undisturbed.
    """
    from realfake_hf.environment import commit
    from tests.faults.faults import Trial, break_everywhere
    from tests.faults.jobs import JOBS
    from tests.faults.runner import Runner
    from tests.faults.unreadable import count_named

    if unknown := set(settings.jobs) - JOBS.keys():
        raise ValueError(f"wanted --jobs among {', '.join(JOBS)}; found {', '.join(sorted(unknown))}.")
    before = read_json(settings.output_file) if settings.output_file.is_file() else {}
    jobs: dict[str, Any] = before.get("jobs", {})
    commits: dict[str, str | None] = before.get("commits", dict.fromkeys(jobs, before.get("commit")))
    with tempfile.TemporaryDirectory() as folder:
        runner = Runner(Path(folder))
        for name in (name for name in JOBS if name in settings.jobs):
            trial = Trial.of(runner, JOBS[name])
            jobs[name] = break_everywhere(trial, kills=settings.kills, writes=settings.writes, seed=settings.seed)
            commits[name] = commit()
    with tempfile.TemporaryDirectory() as folder:
        return {"jobs": jobs, "commits": commits, "bad pictures": count_named(Path(folder))}


def to_markdown(content: Mapping[str, Any]) -> str:
    """Render the results: one row for each job and fault, and one for each way to read images."""
    faults = [
        [job, fault, _outcome(row), row.get("tracebacks", int(row.get("traceback", False)))]
        for job, rows in content["jobs"].items()
        for fault, row in rows.items()
    ]
    unreadable = [
        [way, f"{row['named']} of {row['n']}", row["tracebacks"]] for way, row in content["bad pictures"].items()
    ]
    tables = [
        markdown_table(["job", "fault", "same result when repeated", "tracebacks"], faults, align="lllr"),
        markdown_table(["unreadable files given to", "named", "tracebacks"], unreadable),
    ]
    return "\n\n".join([*tables, machine_note(content)])


def _outcome(row: Mapping[str, Any]) -> str:
    if "n" in row:
        return f"{row['same']} of {row['n']} ({row['killed']} killed before their end)"
    words = ["yes" if row["same"] else "no"]
    words += ["file named" if row["named"] else "file not named"] if "named" in row else []
    words += ["first run refused" if row["refused"] else "first run not refused"] if "refused" in row else []
    return ", ".join(words)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return the exit status."""
    return run_benchmark(Settings, measure, to_markdown, argv, name="faults", description=__doc__)


if __name__ == "__main__":
    sys.exit(main())
