"""Atomic files without local paths, their checksums, and the finished cells of resumable work."""

import hashlib
import json
import logging
import os
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, Final, cast

if TYPE_CHECKING:
    from numpy.typing import NDArray

logger = logging.getLogger(__name__)

CHECKSUMS: Final = "checksums.json"
LFS_POINTER: Final = b"version https://git-lfs.github.com/"

_LOCAL: Final = re.compile(r"((?:[\w.-]+=)?)(?:/|~[\w.-]*(?:/|$)|\.\./)")  # begins a path, or NAME=PATH
_LOCAL_IN_TEXT: Final = re.compile(r"(?<![\w.:/~*])(?:~[\w.-]*/|/[^\s/\"'`(),;|]+/)[^\s\"'`(),;|]+")


def sha256_of(file: Path) -> str:
    """Return the SHA-256 of a file as hexadecimal digits."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_text(file: Path, text: str) -> None:
    """Write a text file atomically, creating its folder; a killed process leaves at most a `.part` file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f"{file.name}.part")
    part.write_text(text, encoding="utf-8")
    part.replace(file)


def write_json(file: Path, content: object) -> None:
    """Write indented JSON with a final newline, atomically."""
    write_text(file, json.dumps(content, indent=2) + "\n")


def read_json(file: Path) -> Any:  # noqa: ANN401 - plain JSON
    """Read a JSON file; a `ValueError` is raised if it contains something else."""
    check_not_pointer(file)
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"expected JSON in {file}; found something else ({error})") from error


def read_object(file: Path) -> dict[str, Any]:
    """Read a JSON file that contains an object; see `read_json`."""
    content = read_json(file)
    if not isinstance(content, dict):
        raise ValueError(f"expected a JSON object in {file}; found {type(content).__name__}")
    return content


def check_not_pointer(file: Path) -> None:
    """Raise an `OSError` if a file is the pointer that Git leaves in the place of a large file, or no regular file."""
    if file.exists() and not file.is_file():
        raise OSError(f"expected a file at {file}; found a folder or a device")
    with file.open("rb") as stream:
        if stream.read(len(LFS_POINTER)) == LFS_POINTER:
            raise OSError(f"expected the content of {file}; found a Git LFS pointer to it: run `git lfs pull`")


def without_local_paths(value: Any) -> Any:  # noqa: ANN401 - plain JSON
    """Replace each path outside the working directory in plain JSON, also within a text, by its last part.

    >>> without_local_paths({"data": "/home/someone/cats", "models": ["cnn=~someone/cnn"], "seed": 0})
    {'data': 'cats', 'models': ['cnn=cnn'], 'seed': 0}
    >>> without_local_paths("9 images of /home/someone/cats, scored at 3 images/s")
    '9 images of cats, scored at 3 images/s'
    """
    if isinstance(value, Mapping):
        return {name: without_local_paths(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [without_local_paths(entry) for entry in value]
    if not isinstance(value, str | Path):
        return value
    text = str(value)
    start = _LOCAL.match(text)
    if start and "\n" not in text:
        return start[1] + re.sub("~.*", "~", PurePath(text.removeprefix(start[1])).name)
    return _LOCAL_IN_TEXT.sub(lambda path: PurePath(path[0]).name, text)


def file_names(files: Sequence[Path]) -> list[str]:
    """Name files for records: by their paths or, if one is absolute, by the paths below the folder that all share.

    >>> file_names([Path("/home/someone/cats/a.png"), Path("/home/someone/cats/more/a.png")])
    ['a.png', 'more/a.png']
    """
    if not any(_LOCAL.match(str(file)) for file in files):
        return [str(file) for file in files]
    places = [os.path.abspath(file) for file in files]  # noqa: PTH100 - a symbolic link keeps its name
    root, home = os.path.commonpath([os.path.dirname(place) for place in places]), str(Path.home())  # noqa: PTH120
    short = [f"~{place.removeprefix(home)}" if place.startswith(f"{home}/") else place for place in places]
    is_above_home = home.startswith(f"{root.rstrip('/')}/")
    return [
        name if is_above_home and name.startswith("~") else os.path.relpath(place, root)
        for name, place in zip(short, places, strict=True)
    ]


def write_results(file: Path, content: object, table: str) -> str:
    """Write plain JSON as NAME.json and its Markdown table as NAME.md beside it, without local paths.

    Return the table.
    """
    write_json(file, without_local_paths(content))
    write_text(file.with_suffix(".md"), f"{without_local_paths(table.rstrip())}\n")
    return table


def write_checksums(files: Iterable[Path], checksums: Path) -> None:
    """Write the SHA-256 of files of one folder to a JSON file beside them, atomically."""
    write_text(checksums, json.dumps({file.name: sha256_of(file) for file in files}, indent=1) + "\n")


def damaged_files(checksums: Path) -> list[str]:
    """Return the names of files that are missing or do not match their checksum; empty without a checksum file."""
    if not checksums.is_file():
        return []
    try:
        expected: dict[str, str] = read_json(checksums)
    except ValueError:
        return [checksums.name]
    files = {name: checksums.with_name(name) for name in expected}
    return [name for name, file in files.items() if not file.is_file() or sha256_of(file) != expected[name]]


def cached_file(file: Path, make: Callable[[Path], None], *, making: str) -> Path:
    """Return a file of a cache; make it if it is missing or does not match the checksum beside it.

    `make` writes to the path that it is given, which is renamed when it is complete; `making` says what it does, for
    the log. Processes may call this concurrently: one makes the file and the others wait.
    """
    from filelock import FileLock

    file.parent.mkdir(parents=True, exist_ok=True)
    checksums, part = file.with_suffix(".json"), file.with_suffix(".part")
    with FileLock(f"{file}.lock"):
        if file.exists() and damaged_files(checksums):
            logger.warning("checksum mismatch in %s: %s again", file, making)
            file.unlink()
        if not file.exists():
            checksums.unlink(missing_ok=True)
            make(part)
            part.replace(file)
            write_checksums([file], checksums)
    return file


def foreign_files(folder: Path, *own: str) -> list[str]:
    """Return the names of files in a folder except `own` and their `.part` files; empty without a folder."""
    expected = {*own, *(f"{name}.part" for name in own)}
    return sorted(file.name for file in folder.iterdir() if file.name not in expected) if folder.exists() else []


def changed_settings(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return the names of the settings that differ, sorted.

    >>> changed_settings({"n": 5, "seed": 0}, {"n": 6, "seed": 0})
    ['n']
    """
    return sorted(name for name in {*before, *now} if before.get(name) != now.get(name))


def recorded_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings as plain JSON for a record; local paths are replaced by their names and a digest."""
    recorded = {}
    for name, value in json.loads(json.dumps(settings)).items():
        short = without_local_paths(value)
        digest = hashlib.sha256(json.dumps(value).encode()).hexdigest()
        recorded[name] = value if short == value else {"name": short, "sha256": digest}
    return recorded


def begin_or_resume(file: Path, settings: Mapping[str, Any], *, what: str, flag: str = "--output_dir") -> None:
    """Record the settings of resumable work in a file, creating its folder, or compare them with the recorded ones.

    The settings are everything that determines the result. Messages name the work and the flag of its folder. A
    `ValueError` is raised if the folder contains other files, or work with other settings.
    """
    folder = file.parent
    now = recorded_settings(settings)
    if not file.exists():
        if foreign_files(folder, file.name):
            raise ValueError(
                f"expected an empty output folder, or the folder of an interrupted {what}; found other files in "
                f"{folder}. Use another folder with {flag}."
            )
        write_json(file, now)
        return
    changed = changed_settings(recorded_settings(read_json(file)), now)
    if changed:
        raise ValueError(
            f"expected the same settings to resume the {what} in {folder}; found other values of "
            f"{', '.join(changed)}. Repeat the original settings, or use another folder with {flag}."
        )


class Store:
    """A folder of the finished cells of resumable work, one file each; it is created with the first cell.

    Each cell records the settings that determine it; reading it with other settings is a `ValueError`. Only the
    process that `writes` stores cells; the other processes of a launch read. `seconds` has, by cell of `json`, the
    duration of its computation, also if it was read.
    """

    def __init__(self, folder: Path, *, writes: bool = True) -> None:
        self.folder = folder
        self.writes = writes
        self.seconds: dict[str, float] = {}

    def json(self, name: str, settings: Mapping[str, Any], make: Callable[[], Any]) -> Any:  # noqa: ANN401 - plain JSON
        """Return a cell of plain JSON; compute and store it if it is not finished."""
        file = self.folder / f"{name}.json"
        if file.exists():
            stored = read_json(file)
            self._check(name, stored.get("settings", {}), settings)
        else:
            began = time.monotonic()
            cell = without_local_paths(json.loads(json.dumps(make())))
            stored = {"settings": recorded_settings(settings), "seconds": time.monotonic() - began, "cell": cell}
            if self.writes:
                write_json(file, stored)
        self.seconds[name] = stored["seconds"]
        return stored["cell"]

    def arrays(
        self, name: str, settings: Mapping[str, Any], make: Callable[[], Mapping[str, "NDArray[Any]"]]
    ) -> dict[str, "NDArray[Any]"]:
        """Return a cell of named arrays; compute and store it if it is not finished."""
        arrays = self.load(name, settings)
        if arrays is None:
            arrays = dict(make())
            self.save(name, settings, **arrays)
        return arrays

    def load(self, name: str, settings: Mapping[str, Any]) -> "dict[str, NDArray[Any]] | None":
        """Return the named arrays of a finished cell, or None if it is not finished."""
        import numpy as np

        file = self.folder / f"{name}.npz"
        if not file.exists():
            return None
        with np.load(file, allow_pickle=False) as stored:
            self._check(name, json.loads(str(stored.get("settings", "{}"))), settings)
            return {key: stored[key] for key in stored.files if key != "settings"}

    def save(self, name: str, settings: Mapping[str, Any], **arrays: "NDArray[Any]") -> None:
        """Store named arrays atomically, if this process writes."""
        import numpy as np

        if not self.writes:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        recorded = np.array(json.dumps(recorded_settings(settings)))
        part = self.folder / f"{name}.npz.part"
        with part.open("wb") as stream:
            np.savez_compressed(stream, **cast("dict[str, Any]", arrays), settings=recorded)
        part.replace(self.folder / f"{name}.npz")

    def clear(self) -> None:
        """Delete all finished cells, if this process writes."""
        for file in [*self.folder.glob("*.npz"), *self.folder.glob("*.json")] if self.writes else []:
            file.unlink(missing_ok=True)

    def _check(self, name: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
        changed = changed_settings(recorded_settings(before), recorded_settings(now))
        if changed:
            raise ValueError(
                f"expected the settings of the finished cell {name} in {self.folder}; found other values of "
                f"{', '.join(changed)}. Repeat the original settings, use another output folder, or "
                "delete the finished cells (crosseval.py: --fresh)."
            )
