"""What is kept for later is found out when it was damaged since: files with their SHA-256 in a file beside them."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Final

CHECKSUMS: Final = "checksums.json"


def sha256_of(file: Path) -> str:
    """The SHA-256 of a file, in hexadecimal digits."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_whole(file: Path, text: str) -> None:
    """Write a text file that appears whole or not at all; a kill leaves the one before, and a `.part` at most."""
    part = file.with_name(f"{file.name}.part")
    part.write_text(text, encoding="utf-8")
    part.replace(file)


def write_checksums(files: Iterable[Path], note: Path) -> None:
    """Note the checksums of files that lie in one folder; the note appears whole or not at all."""
    write_whole(note, json.dumps({file.name: sha256_of(file) for file in files}, indent=1) + "\n")


def damaged_files(note: Path) -> list[str]:
    """Name the files beside a note that are missing or not as it says; none where there is no note."""
    if not note.is_file():
        return []
    try:
        noted: dict[str, str] = json.loads(note.read_text(encoding="utf-8"))
    except ValueError:
        return [note.name]
    files = {name: note.with_name(name) for name in noted}
    return [name for name, file in files.items() if not file.is_file() or sha256_of(file) != noted[name]]
