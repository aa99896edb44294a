"""A disk that is soon full, or cannot be written: a tmpfs, which wants root on Linux."""

import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def small_disk(place: Path, size: int) -> Iterator[Callable[[str], None]]:
    """Mount a disk of so many bytes; what is given can be called to mount it anew with other options."""
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(place)], check=True)
    try:
        yield lambda options: _remount(place, options)
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)
        place.rmdir()


def _remount(place: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(place)], check=True)
