"""Kill a process at a write, a moment that a random clock seldom hits.

Only Python's own calls are watched, not those of compiled libraries.
"""

import os
import re
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_EVENTS: Final = frozenset({"os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.truncate", "os.link", "os.symlink"})


@dataclass(frozen=True)
class Write:
    """A call that changes the content of a folder.

    Attributes:
        number: position among the calls, from 1.
        call: the call and the file's path relative to the folder.
        truncates: whether it creates or empties the file.
    """

    number: int
    call: str
    truncates: bool

    @property
    def kind(self) -> str:
        """The call with numbers, digests and random parts of names replaced by `*`."""
        return re.sub(r"\.part-\w+|[0-9a-f]{16,}|\d+", "*", self.call)


Action = Callable[[Write, str], None]


def watch(folder: Path, action: Action) -> None:
    """From now on, call `action(write, path)` before each write of this process below a folder.

    Writes of the action itself are not watched. Watching cannot be stopped.
    """
    owner, count, is_acting = os.getpid(), 0, False

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal count, is_acting
        if is_acting or os.getpid() != owner:
            return
        path = _changed_path(event, arguments, str(folder))
        if path is None:
            return
        count += 1
        is_acting = True
        truncates = event == "open" and str(arguments[1]).startswith("w")
        action(Write(count, f"{event.removeprefix('os.')} {path.removeprefix(f'{folder}/')}", truncates), path)
        is_acting = False

    sys.addaudithook(hook)


def _changed_path(event: str, arguments: tuple[object, ...], folder: str) -> str | None:
    """Return the path that an audited call is about to change, or None if it changes nothing below the folder."""
    if event == "open":
        flags = arguments[2]
        if not isinstance(flags, int) or not flags & (os.O_WRONLY | os.O_RDWR):
            return None
    elif event not in _EVENTS:
        return None
    path = os.fsdecode(arguments[0]) if isinstance(arguments[0], str | bytes | os.PathLike) else ""
    is_in_rmtree = event == "os.remove" and arguments[1] != -1  # the path is relative to an open folder
    return path if path.startswith(f"{folder}/") or is_in_rmtree else None


@dataclass(frozen=True)
class RecordWrites:
    """Record every write of a process in a file."""

    file: Path

    def __call__(self, write: Write, _: str) -> None:
        """Append a line."""
        with self.file.open("a", encoding="utf-8") as lines:
            lines.write(f"{int(write.truncates)} {write.call}\n")

    def read(self) -> list[Write]:
        """Return the recorded writes."""
        lines = self.file.read_text(encoding="utf-8").splitlines()
        return [Write(number, line[2:], line[0] == "1") for number, line in enumerate(lines, 1)]


@dataclass(frozen=True)
class KillAt:
    """Kill a process and its children right before a write, or right after it has emptied a file."""

    write: Write
    is_begun: bool

    def __call__(self, write: Write, path: str) -> None:
        """Kill if this is the write."""
        if write.number == self.write.number:
            if self.is_begun:
                Path(path).write_bytes(b"")
            os.killpg(os.getpgid(0), signal.SIGKILL)


def moments_to_kill(writes: Sequence[Write], limit: int) -> list[KillAt]:
    """Choose the first and the last write of each kind: a kill before each, and one after each that truncates a file.

    Args:
        writes: writes of an undisturbed run.
        limit: maximum number of moments, evenly chosen.
    """
    first = {write.kind: write for write in reversed(writes)}
    last = {write.kind: write for write in writes}
    chosen = sorted({*first.values(), *last.values()}, key=lambda write: write.number)
    moments = [KillAt(write, is_begun) for write in chosen for is_begun in (False, True)[: 1 + write.truncates]]
    n = min(limit, len(moments))
    return [moments[position * len(moments) // n] for position in range(n)]
