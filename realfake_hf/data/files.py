"""The files of a folder or a zip archive: their paths, and their bytes on demand."""

import os
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from realfake_hf.data.decoding import MAX_BYTES, UnreadableImageError

_ENCRYPTED = 0x1  # bit of a zip entry's flags
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # the others unpack without a bound on what comes out
_BROKEN_ARCHIVE_ERRORS = (zipfile.BadZipFile, NotImplementedError, ValueError, struct.error)
_BROKEN_ENTRY_ERRORS = (*_BROKEN_ARCHIVE_ERRORS, zlib.error, EOFError)


class FolderFiles:
    """The files below a folder; `paths` are relative to it, with forward slashes."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._stamps = dict(sorted(_walk(os.fspath(root), "", (os.path.realpath(root),))))
        self.paths = list(self._stamps)

    @property
    def fingerprint(self) -> str:
        """Changes when a file comes, goes, or is written."""
        files = "\n".join(f"{path} {stamp}" for path, stamp in self._stamps.items())
        return f"{self.root.resolve()}\n{files}"

    def read(self, path: str) -> bytes:
        """Give a file's bytes.

        Raises:
            UnreadableImageError: the file is missing, or too large to be a picture.
        """
        return read_file(self.root / path)


class ZipFiles:
    """The files of a zip archive, read in place."""

    def __init__(self, archive: Path) -> None:
        self.archive = archive

    @property
    def paths(self) -> list[str]:
        """The entries of the archive, sorted, with forward slashes.

        Raises:
            ValueError: the file is no zip archive, or an entry's path climbs out of it, or is encrypted.
        """
        return sorted(self._entries)

    @property
    def fingerprint(self) -> str:
        """Changes when the archive is written or moved."""
        return f"{self.archive.resolve()} {file_stamp(self.archive)}"

    def read(self, path: str) -> bytes:
        """Give an entry's bytes.

        Raises:
            UnreadableImageError: the entry is missing, damaged, or too large to be a picture (it is not unpacked).
        """
        if path not in self._entries:
            raise UnreadableImageError("the file is missing")
        entry = self._entries[path]
        _refuse_huge(entry.file_size)
        try:
            with self._zip.open(entry) as file:
                return file.read(entry.file_size)  # a size makes zipfile unpack no more than that
        except _BROKEN_ENTRY_ERRORS as error:
            raise UnreadableImageError(f"damaged in the archive: {error}") from error

    @cached_property
    def _entries(self) -> dict[str, zipfile.ZipInfo]:
        try:
            entries = [entry for entry in self._zip.infolist() if not entry.is_dir()]
        except _BROKEN_ARCHIVE_ERRORS as error:
            raise ValueError(
                f"wanted a zip archive, a parquet file or a folder; found {self.archive}: {error}. "
                "If it should be a zip archive, download it anew."
            ) from error
        for entry in entries:
            _refuse_unsafe(entry, self.archive)
        return {entry.filename.replace("\\", "/"): entry for entry in entries}

    @property
    def _zip(self) -> zipfile.ZipFile:
        if self.__dict__.get("_process") != os.getpid():  # forked workers must not share one file position
            self._handle, self._process = zipfile.ZipFile(self.archive), os.getpid()
        return self._handle

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ("_handle", "_process")}


def file_stamp(file: Path) -> str:
    """Size and time of writing of a file, as one word."""
    return _stamp(file.stat())


def read_file(file: Path) -> bytes:
    """Give a file's bytes.

    Raises:
        UnreadableImageError: the file is missing, not a plain file, or too large to be a picture.
    """
    if not file.is_file():
        raise UnreadableImageError("the file is missing")
    _refuse_huge(file.stat().st_size)
    return file.read_bytes()


def escapes_folder(path: str) -> bool:
    r"""Say whether a path leads out of the folder that it is relative to, on any system.

    >>> [escapes_folder(path) for path in ("real/a.png", "../a.png", "real\\..\\..\\a.png", "/a.png", "C:a.png")]
    [False, True, True, True, True]
    """
    pure = PurePosixPath(path.replace("\\", "/"))
    return pure.is_absolute() or ".." in pure.parts or re.match(r"[A-Za-z]:", path) is not None


def _stamp(status: os.stat_result) -> str:
    return f"{status.st_size}:{status.st_mtime_ns}"


def _walk(folder: str, prefix: str, parents: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """Yield (relative path, stamp) of all files below a folder, through links but never back into a parent."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir():
                real = os.path.realpath(entry.path) if entry.is_symlink() else f"{parents[-1]}/{entry.name}"
                if real not in parents:
                    yield from _walk(entry.path, f"{prefix}{entry.name}/", (*parents, real))
            elif entry.is_file() or entry.is_symlink():  # a link to nothing is counted as unreadable
                yield f"{prefix}{entry.name}", _stamp(entry.stat(follow_symlinks=entry.is_file()))


def _refuse_huge(size: int) -> None:
    if size > MAX_BYTES:
        raise UnreadableImageError(f"the file has {size:,} bytes, more than the {MAX_BYTES:,} allowed")


def _refuse_unsafe(entry: zipfile.ZipInfo, archive: Path) -> None:
    if escapes_folder(entry.filename):
        raise ValueError(
            f"wanted an archive whose entries stay inside it; found {entry.filename!r} in {archive}. "
            "Do not use this archive."
        )
    if entry.flag_bits & _ENCRYPTED:
        raise ValueError(f"wanted an archive without a password; {entry.filename!r} in {archive} has one. Unpack it.")
    if entry.compress_type not in _METHODS:
        raise ValueError(
            f"wanted an archive whose entries are stored or deflated; {entry.filename!r} in {archive} is packed by "
            f"method {entry.compress_type}. Unpack it."
        )
