"""Jobs in processes of their own, which can be killed: by the clock, or as they write."""

import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Final

from benchmarks.jobs import JOBS, PICTURES, Job, take_pictures
from benchmarks.writes import Write, watch

LOG: Final = "log.txt"
PATIENCE: Final = 300.0  # seconds until a job is taken to hang

Act = Callable[[Write, str], None]


@dataclass(frozen=True)
class Ended:
    """How a process ended.

    Attributes:
        status: its exit status; below 0 where a signal ended it.
        seconds: that it took.
        log: what it wrote in this run.
    """

    status: int
    seconds: float
    log: str

    @property
    def has_traceback(self) -> bool:
        """Whether a traceback was shown."""
        return "Traceback" in self.log


class Bench:
    """Runs jobs in processes of their own, which begin with everything imported.

    Args:
        folder: where their folders are made.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.pictures = folder / PICTURES
        take_pictures(self.pictures)
        self._context = get_context("forkserver")
        self._context.set_forkserver_preload(["benchmarks.jobs"])

    def start(self, job: Job, place: Path, *, clock: float = 0, at_writes: Act | None = None) -> ForkServerProcess:
        """Start a job in a folder, with its clock so many seconds ahead."""
        place.mkdir(exist_ok=True)
        process = self._context.Process(target=_run, args=(job.name, self.pictures, place, clock, at_writes))
        process.start()
        return process

    def run(
        self,
        job: Job,
        place: Path,
        *,
        kill_after: float | None = None,
        clock: float = 0,
        at_writes: Act | None = None,
    ) -> Ended:
        """Run a job to its end, or kill it and all that it started.

        Args:
            job: which.
            place: its folder.
            kill_after: so many seconds.
            clock: seconds that its clock is ahead.
            at_writes: called in its process at each write below its folder.
        """
        log = place / LOG
        before = log.stat().st_size if log.is_file() else 0
        began = time.monotonic()
        process = self.start(job, place, clock=clock, at_writes=at_writes)
        process.join(PATIENCE if kill_after is None else kill_after)
        if process.is_alive():
            kill(process)
        seconds = time.monotonic() - began
        said = log.read_bytes()[before:].decode(errors="replace") if log.is_file() else ""
        return Ended(int(process.exitcode or 0), seconds, said)


def kill(process: ForkServerProcess) -> None:
    """Kill a process and all that it started."""
    with suppress(ProcessLookupError):  # it has no group of its own yet, and has started nothing
        os.killpg(int(process.pid or 0), signal.SIGKILL)
    process.kill()
    process.join()


def _run(name: str, pictures: Path, place: Path, clock: float, at_writes: Act | None) -> None:
    os.setsid()
    if clock:
        now = time.time
        time.time = lambda: now() + clock
    job = next(one for one in JOBS if one.name == name)
    with (place / LOG).open("a", encoding="utf-8") as log, redirect_stdout(log), redirect_stderr(log):
        if at_writes:
            watch(place, at_writes)
        status = job.run(pictures, place)
    sys.exit(status)
