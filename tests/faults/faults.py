"""The faults: each breaks a job, repeats the command, and compares the result with that of an undisturbed run."""

import os
import random
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from difflib import unified_diff
from itertools import islice
from pathlib import Path
from typing import Any, Final

from tqdm.auto import tqdm

from realfake_hf.store import CHECKSUMS
from tests.faults.jobs import Job, result_of
from tests.faults.runner import LOG, TIMEOUT, Exit, Runner, kill, small_disk
from tests.faults.writes import RecordWrites, moments_to_kill

DAY: Final = 86_400.0  # seconds
CONCURRENT: Final = ("cache building", "search", "scoring")  # jobs of which two may share a folder
TRUNCATED: Final = {  # by job and fault: the files to cut short
    "cache building": {"file cut short": "cache/**/*.arrow", "pixels cut short": "cache/**/*.npy"},
    "training": {"file cut short": "run/checkpoint-*/model.safetensors"},
}

Row = dict[str, Any]


@dataclass(frozen=True)
class Trial:
    """A job and its undisturbed run.

    Attributes:
        runner: runs it.
        job: to break.
        seconds: duration of the undisturbed run.
        size: bytes that it wrote.
        expected: its result.
    """

    runner: Runner
    job: Job
    seconds: float
    size: int
    expected: str

    @classmethod
    def of(cls, runner: Runner, job: Job) -> "Trial":
        """Run a job undisturbed, once to warm up and once to measure.

        Raises:
            ValueError: it failed.
        """
        folder = runner.folder / "undisturbed"
        runner.run(job, folder)
        shutil.rmtree(folder)
        ended = runner.run(job, folder)
        if ended.status:
            raise ValueError(f"wanted {job.name} to finish undisturbed; it failed:\n{ended.log[-2000:]}")
        size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        expected = result_of(folder)
        shutil.rmtree(folder)
        return cls(runner, job, ended.seconds, size, expected)

    @property
    def folder(self) -> Path:
        """The folder in which the job is broken."""
        return self.runner.folder / "broken"

    def repeat(self, *, clock: float = 0) -> Row:
        """Repeat the command in the folder of the broken job, and compare the result."""
        ended = self.runner.run(self.job, self.folder, clock=clock)
        result = result_of(self.folder) if ended.status == 0 else ""
        row = {"same": result == self.expected, "traceback": ended.has_traceback}
        return row if row["same"] else {**row, "log": ended.log[-600:], "differs": self._difference(result)}

    def _difference(self, result: str) -> list[str]:
        lines = unified_diff(
            self.expected.splitlines(), result.splitlines(), "undisturbed", "broken", n=0, lineterm=""
        )
        return list(islice(lines, 12))


def break_everywhere(trial: Trial, *, kills: int, writes: int, seed: int) -> Row:
    """Break a job by every fault that applies to it and that this machine allows; return one row per fault.

    Args:
        trial: the job.
        kills: random moments at which it is killed.
        writes: maximum number of writes at which it is killed.
        seed: seed of the random moments.
    """
    rows = {
        "kill -9": kill_at_random(trial, n=kills, seed=seed),
        "kill -9 as it writes": kill_at_writes(trial, limit=writes),
        "clock set back": set_clock_back(trial),
    }
    if trial.job.name in CONCURRENT:
        rows["two at once"] = run_two_at_once(trial)
    for name, pattern in TRUNCATED.get(trial.job.name, {}).items():
        rows[name] = truncate_file(trial, pattern)
    if os.geteuid() == 0 and sys.platform == "linux":
        rows["full disk"] = fill_disk(trial)
        rows["read-only cache"] = lock_cache(trial)
    return rows


def kill_at_random(trial: Trial, *, n: int, seed: int) -> Row:
    """Kill a job at random moments, and repeat it each time."""
    draw = random.Random(f"{seed} {trial.job.name}")
    rows: list[Row] = []
    for _ in tqdm(range(n), desc=f"{trial.job.name}: kill -9", disable=None):
        moment = draw.uniform(0, trial.seconds)
        ended = trial.runner.run(trial.job, trial.folder, kill_after=moment)
        rows.append({"seconds": moment, "killed": ended.is_killed, **trial.repeat()})
        shutil.rmtree(trial.folder)
    return {**_counts(rows), "seconds_unbroken": trial.seconds, "rows": rows}


def kill_at_writes(trial: Trial, *, limit: int) -> Row:
    """Kill a job at its writes, and repeat it each time."""
    record = RecordWrites(trial.runner.folder / "writes.txt")
    trial.runner.run(trial.job, trial.folder, at_writes=record)
    writes = record.read()
    record.file.unlink()
    shutil.rmtree(trial.folder)
    rows: list[Row] = []
    for moment in tqdm(moments_to_kill(writes, limit), desc=f"{trial.job.name}: kill -9 as it writes", disable=None):
        ended = trial.runner.run(trial.job, trial.folder, at_writes=moment)
        row = {"write": moment.write.kind, "begun": moment.is_begun, "killed": ended.is_killed}
        rows.append({**row, **trial.repeat()})
        shutil.rmtree(trial.folder)
    return {**_counts(rows), "writes": len(writes), "rows": rows}


def _counts(rows: list[Row]) -> Row:
    counts = {"killed": "killed", "same": "same", "tracebacks": "traceback"}
    return {"n": len(rows), **{name: sum(row[key] for row in rows) for name, key in counts.items()}}


def set_clock_back(trial: Trial) -> Row:
    """Kill a job half-way, and repeat it with the clock set back by a day."""
    trial.runner.run(trial.job, trial.folder, kill_after=trial.seconds / 2)
    row = trial.repeat(clock=-DAY)
    shutil.rmtree(trial.folder)
    return row


def run_two_at_once(trial: Trial) -> Row:
    """Start a job twice at the same time in one folder."""
    processes = [trial.runner.start(trial.job, trial.folder) for _ in range(2)]
    for process in processes:
        process.join(TIMEOUT)
    is_same = all(process.exitcode == 0 for process in processes) and result_of(trial.folder) == trial.expected
    log = (trial.folder / LOG).read_text(encoding="utf-8")
    shutil.rmtree(trial.folder)
    return {"same": is_same, "traceback": "Traceback" in log, **({} if is_same else {"log": log[-600:]})}


def truncate_file(trial: Trial, pattern: str) -> Row:
    """Cut a file short that the repeated job reads again, and check that the log names it."""
    file = _file_to_read_again(trial, pattern)
    data = file.read_bytes()
    file.write_bytes(data[: len(data) // 2])
    log = trial.folder / LOG
    before = log.stat().st_size
    row = trial.repeat()
    lines = log.read_bytes()[before:].decode(errors="replace").splitlines()
    row["named"] = any(file.name in line and "checksum" in line for line in lines)
    shutil.rmtree(trial.folder)
    return row


def _file_to_read_again(trial: Trial, pattern: str) -> Path:
    """Run a job to its second checkpoint or its end; return the newest complete file that matches."""
    process = trial.runner.start(trial.job, trial.folder)
    while process.is_alive() and len(list(trial.folder.glob(f"run/checkpoint-*/{CHECKSUMS}"))) < 2:
        time.sleep(0.02)
    if process.is_alive():
        kill(process)
    process.join()
    is_checkpoint = pattern.startswith("run/")
    files = [file for file in trial.folder.glob(pattern) if not is_checkpoint or file.with_name(CHECKSUMS).is_file()]
    if not files:
        raise ValueError(f"wanted {trial.job.name} to leave a file {pattern} to truncate; found none.")
    return max(files, key=lambda file: file.stat().st_mtime)


def fill_disk(trial: Trial) -> Row:
    """Run a job on a disk that is too small, and repeat it on the same disk made larger."""
    with small_disk(trial.folder, max(trial.size // 3, 2**16)) as remount:
        return _repair_and_repeat(trial, lambda: remount(f"size={4 * trial.size + 2**24}"))


def lock_cache(trial: Trial) -> Row:
    """Run a job with a read-only cache, and repeat it with a writable one."""
    trial.folder.mkdir()
    with small_disk(trial.folder / "cache", 2**28) as remount:
        remount("ro")
        row = _repair_and_repeat(trial, lambda: remount("rw"))
    shutil.rmtree(trial.folder)
    return row


def _repair_and_repeat(trial: Trial, repair: Callable[[], None]) -> Row:
    ended = trial.runner.run(trial.job, trial.folder)
    repair()
    row = trial.repeat()
    refusal = {"refused": ended.status == 1, "sentence": _last_line(ended, trial.runner.folder)}
    return {**refusal, **row, "traceback": row["traceback"] or ended.has_traceback}


def _last_line(ended: Exit, folder: Path) -> str:
    lines = ended.log.replace(str(folder), ".").strip().splitlines()
    return lines[-1][:300] if lines else ""
