"""The files of a folder or a zip archive: their paths, and their bytes on demand."""

import os
import zipfile
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from realfake_hf.data.pictures import MAX_BYTES, UnreadablePictureError

_ENCRYPTED = 0x1  # bit of a zip entry's flags


class FolderFiles:
    """The files below a folder; `paths` are relative to it, with forward slashes."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._stamps = dict(sorted(_walk(os.fspath(root), "")))
        self.paths = list(self._stamps)

    @property
    def fingerprint(self) -> str:
        """Changes when a file comes, goes, or is written."""
        files = "\n".join(f"{path} {stamp}" for path, stamp in self._stamps.items())
        return f"{self.root.resolve()}\n{files}"

    def read(self, path: str) -> bytes:
        """Give a file's bytes.

        Raises:
            UnreadablePictureError: the file is missing, or too large to be a picture.
        """
        file = self.root / path
        if not file.is_file():
            raise UnreadablePictureError("the file is missing")
        _refuse_huge(file.stat().st_size)
        return file.read_bytes()


class ZipFiles:
    """The files of a zip archive, read in place."""

    def __init__(self, archive: Path) -> None:
        self.archive = archive

    @property
    def paths(self) -> list[str]:
        """The entries of the archive, in order.

        Raises:
            ValueError: the file is no zip archive, or an entry's path climbs out of it, or is encrypted.
        """
        return sorted(self._sizes)

    @property
    def fingerprint(self) -> str:
        """Changes when the archive is written or moved."""
        return f"{self.archive.resolve()} {stamp(self.archive)}"

    def read(self, path: str) -> bytes:
        """Give an entry's bytes.

        Raises:
            UnreadablePictureError: the entry is missing, damaged, or too large to be a picture (it is not unpacked).
        """
        if path not in self._sizes:
            raise UnreadablePictureError("the file is missing")
        _refuse_huge(self._sizes[path])
        try:
            return self._zip.read(path)
        except zipfile.BadZipFile as error:
            raise UnreadablePictureError(str(error)) from error

    @cached_property
    def _sizes(self) -> dict[str, int]:
        try:
            entries = [entry for entry in self._zip.infolist() if not entry.is_dir()]
        except zipfile.BadZipFile as error:
            raise ValueError(f"wanted a zip archive; found {self.archive}: {error}. Download it anew.") from error
        for entry in entries:
            _refuse_unsafe(entry, self.archive)
        return {entry.filename: entry.file_size for entry in entries}

    @property
    def _zip(self) -> zipfile.ZipFile:
        if self.__dict__.get("_process") != os.getpid():  # forked workers must not share one file position
            self._handle, self._process = zipfile.ZipFile(self.archive), os.getpid()
        return self._handle

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ("_handle", "_process")}


def stamp(file: Path) -> str:
    """Size and time of writing of a file, as one word."""
    return _stamp(file.stat())


def _stamp(status: os.stat_result) -> str:
    return f"{status.st_size}:{status.st_mtime_ns}"


def _walk(folder: str, prefix: str) -> Iterator[tuple[str, str]]:
    """Yield (relative path, stamp) of all files below a folder, with one system call for each."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from _walk(entry.path, f"{prefix}{entry.name}/")
            elif entry.is_file():
                yield f"{prefix}{entry.name}", _stamp(entry.stat())


def _refuse_huge(size: int) -> None:
    if size > MAX_BYTES:
        raise UnreadablePictureError(f"the file has {size:,} bytes, more than the {MAX_BYTES:,} allowed")


def _refuse_unsafe(entry: zipfile.ZipInfo, archive: Path) -> None:
    path = PurePosixPath(entry.filename.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or ":" in path.parts[0]:
        raise ValueError(
            f"wanted an archive whose entries stay inside it; found {entry.filename!r} in {archive}. "
            "Do not use this archive."
        )
    if entry.flag_bits & _ENCRYPTED:
        raise ValueError(f"wanted an archive without a password; {entry.filename!r} in {archive} has one. Unpack it.")
