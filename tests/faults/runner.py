"""Run jobs in processes of their own, which can be killed, and on small disks, which can fill up."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Final

from tests.faults.jobs import JOBS, Job, write_images
from tests.faults.writes import Action, watch

LOG: Final = "log.txt"
TIMEOUT: Final = 300.0  # seconds after which a job counts as hanging


@dataclass(frozen=True)
class Exit:
    """How a process ended.

    Attributes:
        status: its exit status; negative if a signal ended it.
        seconds: its duration.
        log: what it printed.
    """

    status: int
    seconds: float
    log: str

    @property
    def is_killed(self) -> bool:
        """Whether it was killed."""
        return self.status == -signal.SIGKILL

    @property
    def has_traceback(self) -> bool:
        """Whether it printed a traceback."""
        return "Traceback" in self.log


class Runner:
    """Runs jobs in processes that start with all imports done.

    Args:
        folder: folder of the images and of the jobs' folders.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._images = folder / "images.zip"
        write_images(self._images)
        self._context = get_context("forkserver")
        self._context.set_forkserver_preload(["tests.faults.jobs"])

    def start(self, job: Job, folder: Path, *, clock: float = 0, at_writes: Action | None = None) -> ForkServerProcess:
        """Start a job in a folder; the arguments are those of `run`."""
        folder.mkdir(exist_ok=True)
        process = self._context.Process(target=_run, args=(job.name, self._images, folder, clock, at_writes))
        process.start()
        return process

    def run(
        self,
        job: Job,
        folder: Path,
        *,
        kill_after: float | None = None,
        clock: float = 0,
        at_writes: Action | None = None,
    ) -> Exit:
        """Run a job to its end, or kill it with all its children.

        Args:
            job: to run.
            folder: folder of the job.
            kill_after: seconds.
            clock: seconds by which its clock is ahead.
            at_writes: called in its process before each write below its folder.
        """
        log = folder / LOG
        before = log.stat().st_size if log.is_file() else 0
        began = time.monotonic()
        process = self.start(job, folder, clock=clock, at_writes=at_writes)
        process.join(kill_after or TIMEOUT)
        if process.is_alive():
            kill(process)
        seconds = time.monotonic() - began
        printed = log.read_bytes()[before:].decode(errors="replace") if log.is_file() else ""
        return Exit(int(process.exitcode or 0), seconds, printed)


def kill(process: ForkServerProcess) -> None:
    """Kill a process and its children."""
    with suppress(ProcessLookupError):  # killed before it had a process group, and thus any children
        os.killpg(int(process.pid or 0), signal.SIGKILL)
    process.kill()
    process.join()


@contextmanager
def small_disk(mount: Path, size: int) -> Iterator[Callable[[str], None]]:
    """Mount a tmpfs of `size` bytes, which requires root on Linux; yield a function that remounts it with options."""
    mount.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(mount)], check=True)
    try:
        yield lambda options: _remount(mount, options)
    finally:
        subprocess.run(["umount", "-l", str(mount)], check=True)
        mount.rmdir()


def _remount(mount: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(mount)], check=True)


def _run(name: str, images: Path, folder: Path, clock: float, at_writes: Action | None) -> None:
    os.setsid()
    if clock:
        now = time.time
        time.time = lambda: now() + clock
    with (folder / LOG).open("a", encoding="utf-8") as log, redirect_stdout(log), redirect_stderr(log):
        if at_writes:
            watch(folder, at_writes)
        status = JOBS[name].run(images, folder)
    sys.exit(status)
