"""Read uploads in processes with limits of time and memory, which are replaced when they pass them.

A file that is built to keep a decoder busy thus costs its own user at most `SECONDS`, and others at most their turn.
"""

import os
import signal
import sys
import threading
import time
from bisect import insort
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import count
from multiprocessing import parent_process
from multiprocessing.connection import Connection, wait
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any, Final, TypeVar

from PIL import Image

from realfake_hf.data.metadata import FileMetadata
from realfake_hf.data.provenance import Evidence
from realfake_space.uploads import (
    Geometry,
    RejectedError,
    Upload,
    open_upload,
    upload_metadata,
    upload_provenance,
)

Result = TypeVar("Result")

PROCESSES: Final = 3
SECONDS: Final = 10.0  # of one file, with waiting
TURN: Final = 0.25  # seconds after which a reader is taken from its file if others wait; twice as long at each turn
TICK: Final = 0.1  # seconds between two looks at a reader
HEADER_MEMORY: Final = 192 * 2**20  # bytes to read the metadata of a file
PIXEL_MEMORY: Final = 20  # bytes more for each pixel to decode it, see `test_space_reader`
LARGE_MEMORY: Final = 512 * 2**20  # reads that may take more go one at a time
ADDRESS_SPACE: Final = 1536 * 2**20  # bytes that a reader can allocate at all
ATTEMPTS: Final = 2  # readers that may die on a file before it is rejected
REMEMBERED: Final = 256  # files, for the next model and the next map


class LimitError(RejectedError):
    """A file that passed a limit; it is not read again."""


class BusyError(RejectedError):
    """A file that was not read, since others were."""


class _TakenError(Exception):
    """A reader was taken from its file."""


class Readers:
    """Processes that read uploads for the threads of the page.

    Args:
        context: how to start them.
    """

    def __init__(self, context: BaseContext) -> None:
        self._context = context
        self._changed = threading.Condition()
        self._waiting: list[_Ticket] = []
        self._running: dict[_Ticket, _Reader | None] = {}
        self._idle: list[_Reader] = []
        self._tickets = count()
        self._known: OrderedDict[object, Future[Any]] = OrderedDict()
        self._geometries: set[Geometry] = set()
        self._is_closed = False

    def metadata(self, path: str) -> FileMetadata:
        """Return the metadata of an upload.

        Raises:
            RejectedError: the file is rejected.
        """
        return self._metadata(path, _stamp(path), time.monotonic() + SECONDS)

    def provenance(self, path: str) -> tuple[Evidence, ...]:
        """Return what an upload says of itself.

        Raises:
            RejectedError: the file is rejected.
        """
        return self._once(("provenance", _stamp(path)), partial(self.call, upload_provenance, path))

    def read(self, path: str, geometry: Geometry | None = None, *, view: bool = False, whole: bool = False) -> Upload:
        """Read an upload, once for all models whose geometry is known; see `open_upload`.

        Raises:
            RejectedError: the file is rejected.
        """
        deadline, stamp = time.monotonic() + SECONDS, _stamp(path)
        metadata = self._metadata(path, stamp, deadline)
        if geometry:
            self._geometries.add(geometry)
        geometries = tuple(sorted(self._geometries))
        memory = HEADER_MEMORY + PIXEL_MEMORY * metadata.width * metadata.height
        job = partial(open_upload, path, geometries, view=view, whole=whole)
        ask = partial(self.call, job, memory=memory, deadline=deadline)
        try:
            return self._once((stamp, geometries, view, whole), ask, is_kept=not view and not whole)
        except LimitError as error:
            failed: Future[Any] = Future()
            failed.set_exception(error)
            with self._changed:
                self._known[stamp] = failed
            raise

    def call(
        self,
        function: Callable[..., Result],
        *arguments: Any,  # noqa: ANN401 - of the function
        memory: int = HEADER_MEMORY,
        deadline: float | None = None,
    ) -> Result:
        """Call a function in a reader.

        Args:
            function: of a module.
            arguments: of the function.
            memory: bytes that it may take.
            deadline: when it must have ended, as `time.monotonic`; by default in `SECONDS`.

        Raises:
            LimitError: it took too much time or memory, or readers died.
            BusyError: no reader was free in time.
            RejectedError: the function raised it, or another error.
        """
        deadline = deadline or time.monotonic() + SECONDS
        turn = deaths = 0
        while True:
            ticket = _Ticket(turn, next(self._tickets), memory > LARGE_MEMORY)
            try:
                with self._reader(ticket, deadline) as reader:
                    result: Result = reader.ask(function, arguments, memory=memory, deadline=deadline)
                    return result
            except (EOFError, OSError) as error:
                deaths += 1
                if deaths == ATTEMPTS:
                    raise LimitError("No verdict: the file ends the process that reads it.") from error
            except _TakenError:
                turn += 1

    def close(self) -> None:
        """End all readers at once, also those that read; waiting threads get a `BusyError`."""
        self._is_closed = True
        for reader in [*self._running.values(), *self._idle]:
            if reader:
                reader.kill()

    def _metadata(self, path: str, stamp: object, deadline: float) -> FileMetadata:
        return self._once(stamp, partial(self.call, upload_metadata, path, deadline=deadline))

    def _once(self, key: object, read: Callable[[], Result], *, is_kept: bool = True) -> Result:
        """Read, or wait for another thread that reads the same, or return what is remembered."""
        with self._changed:
            known = self._known.get(key)
            future: Future[Result] = known or Future()
            self._known[key] = future
            self._known.move_to_end(key)
            while len(self._known) > REMEMBERED:
                self._known.popitem(last=False)
        if known is None:
            try:
                future.set_result(read())
            except BaseException as error:  # noqa: BLE001 - for all threads that wait
                future.set_exception(error)
                is_kept = is_kept and isinstance(error, RejectedError) and not isinstance(error, BusyError)
            if not is_kept:
                with self._changed:
                    self._known.pop(key, None)
        return future.result()

    @contextmanager
    def _reader(self, ticket: "_Ticket", deadline: float) -> Iterator["_Reader"]:
        """Wait for a reader, and hold it."""
        began = time.monotonic()
        with self._changed:
            insort(self._waiting, ticket)
            try:
                while not self._may_start(ticket):
                    if time.monotonic() > deadline or self._is_closed:
                        raise BusyError("No verdict: too many large or damaged files are being read. Try again later.")
                    if time.monotonic() > began + TICK:
                        self._take_back(ticket)
                    self._changed.wait(TICK)
            finally:
                self._waiting.remove(ticket)
            reader = self._idle.pop() if self._idle else None
            self._running[ticket] = reader
        try:
            if reader is None:
                reader = _Reader(self._context)
            reader.turn_ends = time.monotonic() + TURN * 2**ticket.turn
            self._running[ticket] = reader
            if self._is_closed:
                reader.kill()
            yield reader
        finally:
            with self._changed:
                del self._running[ticket]
                if reader is not None and reader.is_reusable():
                    self._idle.append(reader)
                self._changed.notify_all()

    def _may_start(self, ticket: "_Ticket") -> bool:
        if self._is_closed or len(self._running) >= PROCESSES:
            return False
        is_large_running = any(each.is_large for each in self._running)
        return ticket == next((each for each in self._waiting if not (each.is_large and is_large_running)), None)

    def _take_back(self, ticket: "_Ticket") -> None:
        """End the reader whose turn ended first, for a ticket that waits."""
        larges = {each: reader for each, reader in self._running.items() if each.is_large}
        runs = larges if ticket.is_large and larges else self._running if len(self._running) >= PROCESSES else {}
        overdue = [reader for reader in runs.values() if reader and reader.turn_ends < time.monotonic()]
        if overdue:
            min(overdue, key=lambda reader: reader.turn_ends).take()


@dataclass(frozen=True, order=True)
class _Ticket:
    """Place in the queue: those with fewer turns come first."""

    turn: int  # how often a reader was taken from the file
    number: int  # of the ticket
    is_large: bool  # whether it needs much memory


class _Reader:
    """One process that reads files.

    Attributes:
        turn_ends: when another file may have it, as `time.monotonic`.
    """

    def __init__(self, context: BaseContext) -> None:
        self.turn_ends = float("inf")
        self._is_taken = self._is_killed = False
        self._connection, other = context.Pipe()
        self._process = context.Process(target=_serve, args=(other,), daemon=True)  # type: ignore[attr-defined]
        self._process.start()
        other.close()
        self._at_start: int = self._connection.recv()

    def ask(self, function: Callable[..., Any], arguments: tuple[Any, ...], *, memory: int, deadline: float) -> Any:  # noqa: ANN401
        """Call a function there; see `Readers.call`.

        Raises:
            _TakenError: another file got the reader.
            EOFError: the process died.
        """
        try:
            self._connection.send((function, arguments))
            while not self._connection.poll(min(TICK, max(0.0, deadline - time.monotonic()))):
                if time.monotonic() >= deadline:
                    self.kill()
                    raise LimitError(f"No verdict: reading the file took more than {SECONDS:.0f} seconds.")
                if self._growth() > memory:
                    self.kill()
                    raise LimitError("No verdict: reading the file needs too much memory.")
            result, error = self._connection.recv()
        except (EOFError, OSError) as error_of_pipe:
            self.kill()
            raise (_TakenError if self._is_taken else EOFError) from error_of_pipe
        if error is not None:
            raise error
        return result

    def take(self) -> None:
        """End the process for another file."""
        self._is_taken = True
        self.kill()

    def kill(self) -> None:
        """End the process at once, whatever it does."""
        self._is_killed = True
        if self._process.is_alive():
            self._process.kill()

    def is_reusable(self) -> bool:
        """Return whether it can read another file; end it if it kept much memory."""
        if self._growth() > HEADER_MEMORY:
            self.kill()
        return not self._is_killed and self._process.is_alive()

    def _growth(self) -> int:
        return _own_memory(self._process.pid) - self._at_start


def _serve(connection: Connection) -> None:
    """Call functions for the page until it closes the connection."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # which the page handles
    threading.Thread(target=exit_with_the_page, daemon=True).start()
    Image.preinit()  # imports decoders
    _limit_process()
    connection.send(_own_memory(os.getpid()))
    while True:
        try:
            function, arguments = connection.recv()
        except EOFError:
            return
        _limit_time()
        try:
            answer: tuple[object, RejectedError | None] = (function(*arguments), None)
        except RejectedError as error:
            answer = (None, error)
        except MemoryError:
            answer = (None, LimitError("No verdict: reading the file needs too much memory."))
        except Exception as error:  # noqa: BLE001 - a decoder can raise anything
            answer = (None, RejectedError(f"No verdict: the file cannot be read ({type(error).__name__})."))
        connection.send(answer)


def exit_with_the_page() -> None:
    """Wait for the end of the page, and end this process."""
    page = parent_process()
    if page is not None:
        wait([page.sentinel])
        os._exit(0)


def _limit_process() -> None:
    if sys.platform == "linux":
        import resource

        pages = int(Path("/proc/self/statm").read_text().split()[0])
        space = pages * resource.getpagesize() + ADDRESS_SPACE
        resource.setrlimit(resource.RLIMIT_AS, (space, space))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _limit_time() -> None:
    """Let the system end the process if nobody else does."""
    if sys.platform == "linux":
        import resource

        seconds = int(time.process_time() + 2 * SECONDS)
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, resource.getrlimit(resource.RLIMIT_CPU)[1]))


def _own_memory(process: int | None) -> int:
    """Return the bytes in memory that belong to a process, without files; 0 if unknown."""
    try:
        _, resident, shared, *_ = Path(f"/proc/{process}/statm").read_text().split()
    except (OSError, ValueError):
        return 0
    return (int(resident) - int(shared)) * os.sysconf("SC_PAGESIZE")


def _stamp(path: str) -> tuple[object, ...]:
    """Return what changes if another file lies at a path."""
    try:
        status = Path(path).lstat()
    except OSError:
        return (path,)
    return path, status.st_ino, status.st_size, status.st_mtime_ns
