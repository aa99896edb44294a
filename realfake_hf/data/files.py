"""List the files of a folder or zip archive, and read their bytes on demand."""

import os
import re
import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, Final

from realfake_hf.data.decoding import MAX_BYTES, UnreadableImageError

MAX_DEPTH: Final = 200  # nested folders
MAX_WAYS: Final = 100  # to a folder that is linked

_ENCRYPTED = 0x1  # bit of a zip entry's flags
_MAX_DIRECTORY = 64 * 2**20  # bytes of a zip archive's list of entries, about ten times that in memory
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # zipfile cannot bound the output of the others
_ARCHIVE_ERRORS = (zipfile.BadZipFile, NotImplementedError, ValueError, struct.error)
_ENTRY_ERRORS = (*_ARCHIVE_ERRORS, zlib.error, EOFError)


class FolderFiles:
    """The files below a folder; `paths` are relative to it and use forward slashes."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._stamps = dict(sorted(_walk(os.fspath(root))))
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

    @cached_property
    def paths(self) -> list[str]:
        """The sorted paths of the archive's entries, with forward slashes."""
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


Files = FolderFiles | ZipFiles


def file_stamp(file: "Path | os.DirEntry[str]", *, follow_symlinks: bool = True) -> str:
    """Return the size and modification time of a file as one word."""
    status = file.stat(follow_symlinks=follow_symlinks)
    return f"{status.st_size}:{status.st_mtime_ns}"


def read_file(file: str | os.PathLike[str]) -> bytes:
    """Read a file; raise `UnreadableImageError` if it is missing, not a regular file, or larger than `MAX_BYTES`.

    No more is read than the size of the file at the start, even if it grows.
    """
    path = Path(file)
    if not path.is_file():
        raise UnreadableImageError("not a regular file" if path.exists() else "the file is missing")
    size = path.stat().st_size
    _check_size(size)
    with path.open("rb") as stream:
        return stream.read(size)


def is_hidden(path: str) -> bool:
    """Return whether a file or one of its folders is hidden, or made by macOS beside the real file."""
    return any(part.startswith(".") or part == "__MACOSX" for part in PurePosixPath(path).parts)


def printable(path: str | os.PathLike[str]) -> str:
    r"""Return a path as text that can be printed and stored, with control characters and invalid UTF-8 escaped.

    >>> printable(os.fsdecode(b"caf\xe9.jpg"))
    'caf\\xe9.jpg'
    """
    text = os.fsencode(path).decode(errors="backslashreplace")
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


def escapes_folder(path: str) -> bool:
    r"""Return whether a path leaves the folder it is relative to, on any operating system.

    >>> [escapes_folder(path) for path in ("real/a.png", "../a.png", "real\\..\\..\\a.png", "/a.png", "C:a.png")]
    [False, True, True, True, True]
    """
    pure = PurePosixPath(path.replace("\\", "/"))
    return pure.is_absolute() or ".." in pure.parts or re.match(r"[A-Za-z]:", path) is not None


def _walk(root: str) -> Iterator[tuple[str, str]]:
    """Yield (relative path, stamp) of all files below a folder; follow links, except to a parent folder."""
    ways: Counter[str] = Counter()  # to each folder that is linked
    folders: list[tuple[str, tuple[str, ...]]] = [("", (os.path.realpath(root),))]
    while folders:
        prefix, places = folders.pop()  # real path of the folder, after those of the folders whose links led to it
        if prefix.count("/") > MAX_DEPTH:
            raise ValueError(f"expected at most {MAX_DEPTH} nested folders in {root}; found more. Move them up.")
        with os.scandir(os.path.join(root, prefix)) as entries:  # noqa: PTH118  faster than Path, for many folders
            for entry in entries:
                is_link = entry.is_symlink()
                if os.path.isdir(entry.path) if is_link else entry.is_dir():  # noqa: PTH112  no error in a loop of links
                    inner = (
                        _follow(entry.path, places, ways) if is_link else (*places[:-1], f"{places[-1]}/{entry.name}")
                    )
                    folders += [(f"{prefix}{entry.name}/", inner)] if inner else []
                elif is_link or entry.is_file():  # a broken link is later counted as unreadable
                    is_broken = is_link and not os.path.isfile(entry.path)  # noqa: PTH113
                    yield f"{prefix}{entry.name}", file_stamp(entry, follow_symlinks=not is_broken)


def _follow(link: str, places: tuple[str, ...], ways: Counter[str]) -> tuple[str, ...]:
    """Return the places of the folder behind a link, or nothing if it is a parent folder."""
    target = os.path.realpath(link)
    if any(Path(place).is_relative_to(target) for place in places):
        return ()
    ways[target] += 1
    if ways[target] > MAX_WAYS:
        raise ValueError(
            f"expected at most {MAX_WAYS} ways to a folder; found more to {target}, such as {link}. "
            "Remove links that lead in circles."
        )
    return (*places, target)


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
