"""List the files of a folder or zip archive, and read their bytes on demand."""

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
_MAX_DIRECTORY = 64 * 2**20  # bytes of a zip archive's list of entries, about ten times that in memory
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # zipfile cannot bound the output of the others
_ARCHIVE_ERRORS = (zipfile.BadZipFile, NotImplementedError, ValueError, struct.error)
_ENTRY_ERRORS = (*_ARCHIVE_ERRORS, zlib.error, EOFError)


class FolderFiles:
    """The files below a folder; `paths` are relative to it and use forward slashes."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._stamps = dict(sorted(_walk(os.fspath(root), "", (os.path.realpath(root),))))
        self.paths = list(self._stamps)

    @property
    def fingerprint(self) -> str:
        """A string that changes if a file is added, removed or written."""
        files = "\n".join(f"{path} {stamp}" for path, stamp in self._stamps.items())
        return f"{self.root.resolve()}\n{files}"

    def read(self, path: str) -> bytes:
        """Read a file; see `read_file`."""
        return read_file(self.root / path)


class ZipFiles:
    """The files of a zip archive, read without unpacking it."""

    def __init__(self, archive: Path) -> None:
        self.archive = archive

    @property
    def paths(self) -> list[str]:
        """The sorted paths of the archive's entries, with forward slashes.

        Raises:
            ValueError: the file is not a zip archive, or an entry is encrypted or has a path outside the archive.
        """
        return sorted(self._entries)

    @property
    def fingerprint(self) -> str:
        """A string that changes if the archive is written or moved."""
        return f"{self.archive.resolve()} {file_stamp(self.archive)}"

    def read(self, path: str) -> bytes:
        """Read an entry; raise `UnreadableImageError` if it is missing, damaged, or larger than `MAX_BYTES`."""
        if path not in self._entries:
            raise UnreadableImageError("the file is missing")
        entry = self._entries[path]
        _check_size(entry.file_size)
        try:
            with self._zip.open(entry) as file:
                return file.read(entry.file_size)  # limits what zipfile unpacks
        except _ENTRY_ERRORS as error:
            raise UnreadableImageError(f"damaged in the archive: {error}") from error

    @cached_property
    def _entries(self) -> dict[str, zipfile.ZipInfo]:
        try:
            _check_directory(self.archive)
            entries = [entry for entry in self._zip.infolist() if not entry.is_dir()]
        except _ARCHIVE_ERRORS as error:
            raise ValueError(
                f"expected a zip archive, a parquet file or a folder; found {self.archive}: {error}. "
                "If it is a zip archive, download it again, or unpack it and give the folder."
            ) from error
        for entry in entries:
            _check_entry(entry, self.archive)
        return {entry.filename.replace("\\", "/"): entry for entry in entries}

    @property
    def _zip(self) -> zipfile.ZipFile:
        if self.__dict__.get("_process") != os.getpid():  # forked workers must not share a file position
            self._handle, self._process = zipfile.ZipFile(self.archive), os.getpid()
        return self._handle

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ("_handle", "_process")}


def file_stamp(file: "Path | os.DirEntry[str]", *, follow_symlinks: bool = True) -> str:
    """Return the size and modification time of a file as one word."""
    status = file.stat(follow_symlinks=follow_symlinks)
    return f"{status.st_size}:{status.st_mtime_ns}"


def read_file(file: Path) -> bytes:
    """Read a file; raise `UnreadableImageError` if it is missing, not a regular file, or larger than `MAX_BYTES`."""
    if not file.is_file():
        raise UnreadableImageError("the file is missing")
    _check_size(file.stat().st_size)
    return file.read_bytes()


def escapes_folder(path: str) -> bool:
    r"""Return whether a path leaves the folder it is relative to, on any operating system.

    >>> [escapes_folder(path) for path in ("real/a.png", "../a.png", "real\\..\\..\\a.png", "/a.png", "C:a.png")]
    [False, True, True, True, True]
    """
    pure = PurePosixPath(path.replace("\\", "/"))
    return pure.is_absolute() or ".." in pure.parts or re.match(r"[A-Za-z]:", path) is not None


def _walk(folder: str, prefix: str, parents: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """Yield (relative path, stamp) of all files below a folder; follow links, except to a parent folder."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir():
                real = os.path.realpath(entry.path) if entry.is_symlink() else f"{parents[-1]}/{entry.name}"
                if real not in parents:
                    yield from _walk(entry.path, f"{prefix}{entry.name}/", (*parents, real))
            elif entry.is_file() or entry.is_symlink():  # a broken link is later counted as unreadable
                yield f"{prefix}{entry.name}", file_stamp(entry, follow_symlinks=entry.is_file())


def _check_size(size: int) -> None:
    if size > MAX_BYTES:
        raise UnreadableImageError(f"the file has {size:,} bytes; the limit is {MAX_BYTES:,}")


def _check_directory(archive: Path) -> None:
    """Reject a list of entries that would not fit into memory, before `zipfile` reads it."""
    with archive.open("rb") as file:
        end = zipfile._EndRecData(file)  # type: ignore[attr-defined]  # None if it is no archive
    size = end[zipfile._ECD_SIZE] if end else 0  # type: ignore[attr-defined]
    if size > _MAX_DIRECTORY:
        raise ValueError(f"its list of files has {size:,} bytes; the limit is {_MAX_DIRECTORY:,}")


def _check_entry(entry: zipfile.ZipInfo, archive: Path) -> None:
    if escapes_folder(entry.filename):
        raise ValueError(
            f"expected an archive whose entries stay inside it; found {entry.filename!r} in {archive}. "
            "Do not use this archive."
        )
    if entry.flag_bits & _ENCRYPTED or entry.compress_type not in _METHODS:
        kind = "an encrypted entry" if entry.flag_bits & _ENCRYPTED else f"compression method {entry.compress_type}"
        raise ValueError(
            f"expected stored or deflated entries without encryption; found {kind}, {entry.filename!r} in {archive}. "
            "Unpack the archive, and give the folder."
        )
