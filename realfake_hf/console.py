"""Run the work of a command: logging on stderr, errors in one line, one writer for each output folder."""

import logging
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Literal

logger = logging.getLogger(__name__)

Others = Literal["refused", "awaited", "allowed"]

VERBOSE: Final = "REALFAKE_VERBOSE"  # environment variable, for the processes of a command as well
_FULL_DISK: Final = re.compile("No space left on device|Disk quota exceeded|inline_container")  # in torch.save


def run_command(
    work: Callable[[], int], *, name: str, resumable: str | Path | None = None, others: Others = "refused"
) -> int:
    """Run the work of a command: log on stderr, and report an `OSError`, a `ValueError` or a full disk in one line.

    Libraries do not warn, unless the environment variable `REALFAKE_VERBOSE` is set, as `--verbose` does.

    Args:
        work: a function that prints results on stdout and returns the exit status.
        name: name of the command, the prefix of error messages.
        resumable: the output folder from which a repeated command resumes.
        others: whether the command is refused, waits or runs if another command is writing to that folder.

    Returns:
        The exit status of the work, 1 after an error, or 130 after an interruption.
    """
    of_libraries, own = (logging.WARNING, logging.DEBUG) if os.environ.get(VERBOSE) else (logging.ERROR, logging.INFO)
    logging.basicConfig(level=of_libraries, format="%(message)s", stream=sys.stderr)
    logging.getLogger("realfake_hf").setLevel(own)
    try:
        with _lock(resumable, others):
            return work()
    except KeyboardInterrupt:
        hint = f"; to resume from {resumable}, repeat the command" if resumable else ""
        print(f"\n{name}: interrupted{hint}", file=sys.stderr)
        return 130
    except Exception as error:
        message = str(error)
        if _FULL_DISK.search(message):
            message = f"cannot write a file: {message}. Free some disk space, and repeat the command."
        elif not isinstance(error, OSError | ValueError):
            raise
        print(f"{name}: {without_tokens(message)}", file=sys.stderr)
        return 1


@contextmanager
def _lock(folder: str | Path | None, others: Others) -> Iterator[None]:
    """Hold the lock of an output folder; the processes of one launch hold it together."""
    if folder is None or others == "allowed" or os.environ.get("RANK", "0") != "0":
        yield
        return
    from filelock import FileLock, Timeout

    place = Path(folder).resolve()
    place.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(f"{place}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        if others == "refused":
            raise ValueError(
                f"expected no other command that writes to {folder}; found one. Wait for it, or use another folder."
            ) from None
        logger.info("waiting for another command that writes to %s", folder)
        lock.acquire()
    try:
        yield
    finally:
        Path(lock.lock_file).unlink(missing_ok=True)  # while it is held; a waiting process locks a new file
        lock.release()


def without_tokens(message: str) -> str:
    """Hide the access tokens of the Hugging Face Hub in a message."""
    return re.sub(r"\bhf_[\w.-]{20,}", "hf_...", message)
