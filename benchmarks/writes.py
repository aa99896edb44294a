"""Kill a process as it writes: at moments that a clock hits once in hundreds of tries.

What is watched are the calls that Python itself makes; libraries that write without it are seen as the time between.
"""

import os
import re
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_CHANGES: Final = frozenset({"os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.truncate", "os.link", "os.symlink"})


@dataclass(frozen=True)
class Write:
    """A call that changes what lies in a folder.

    Attributes:
        number: of the call, from 1.
        what: the call and the file, relative to the folder.
        begins: whether it begins a file anew, which is there and empty then.
    """

    number: int
    what: str
    begins: bool

    @property
    def kind(self) -> str:
        """The same for calls that differ in steps, digests or random parts of a name alone."""
        return re.sub(r"\.part-\w+|[0-9a-f]{16,}|\d+", "*", self.what)


@dataclass(frozen=True)
class Moment:
    """When a process is killed: right before a write, or with the file that it begins empty."""

    write: Write
    is_begun: bool


def watch(folder: Path, act: Callable[[Write, str], None]) -> None:
    """Call a function right before every later write of this process below a folder, with the file's path.

    What the function itself writes is not watched. There is no end to it.
    """
    owner, count, is_acting = os.getpid(), 0, False

    def hook(event: str, given: tuple[object, ...]) -> None:
        nonlocal count, is_acting
        if is_acting or os.getpid() != owner:
            return
        path = _written(event, given, str(folder))
        if path is None:
            return
        count += 1
        is_acting = True
        begins = event == "open" and isinstance(given[1], str) and given[1].startswith("w")
        act(Write(count, f"{event.removeprefix('os.')} {path.removeprefix(f'{folder}/')}", begins), path)
        is_acting = False

    sys.addaudithook(hook)


def _written(event: str, given: tuple[object, ...], folder: str) -> str | None:
    """The path that a call is about to change, or None where it changes nothing below the folder."""
    if event == "open":
        flags = given[2]
        if not isinstance(flags, int) or not flags & (os.O_WRONLY | os.O_RDWR):
            return None
    elif event not in _CHANGES:
        return None
    path = os.fsdecode(given[0]) if isinstance(given[0], str | bytes | os.PathLike) else ""
    is_inside_removal = event == "os.remove" and given[1] != -1  # its path is relative to a folder that is held open
    return path if path.startswith(f"{folder}/") or is_inside_removal else None


@dataclass(frozen=True)
class NoteWrites:
    """Note every write of a process in a file."""

    file: Path

    def __call__(self, write: Write, _: str) -> None:
        """Add a line."""
        with self.file.open("a", encoding="utf-8") as text:
            text.write(f"{int(write.begins)} {write.what}\n")

    def read(self) -> list[Write]:
        """Give what was noted."""
        lines = self.file.read_text(encoding="utf-8").splitlines()
        return [Write(number, line[2:], line[0] == "1") for number, line in enumerate(lines, 1)]


@dataclass(frozen=True)
class DieAt:
    """Kill a process, and all that it started, at a moment."""

    moment: Moment

    def __call__(self, write: Write, path: str) -> None:
        """Do it if this is the write."""
        if write.number == self.moment.write.number:
            if self.moment.is_begun and write.begins:
                Path(path).write_bytes(b"")
            os.killpg(os.getpgid(0), signal.SIGKILL)


def moments_of(writes: Sequence[Write], most: int) -> list[Moment]:
    """Choose moments: of each kind of write its first and its last, right before and, where it begins a file, after.

    Args:
        writes: of an unbroken process.
        most: so many of them at most, evenly chosen.
    """
    first = {write.kind: write for write in reversed(writes)}
    last = {write.kind: write for write in writes}
    chosen = sorted({*first.values(), *last.values()}, key=lambda write: write.number)
    moments = [
        Moment(write, is_begun) for write in chosen for is_begun in ((False, True) if write.begins else (False,))
    ]
    step = max(1.0, len(moments) / most) if most else float("inf")
    return [moments[int(at * step)] for at in range(min(most, len(moments)))]
