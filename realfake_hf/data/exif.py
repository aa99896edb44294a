"""Read EXIF, a block of TIFF directories, in time and memory bounded by its size."""

import re
import struct
from collections.abc import Iterator
from itertools import islice
from typing import Final, NamedTuple

ORIENTATION: Final = 0x0112
MAX_TAGS: Final = 5_000  # of a directory; cameras write fewer than 200
MAX_NUMBERS: Final = 400_000  # in all directories; a TIFF has two for each strip or tile
MAX_VALUES: Final = 2**20  # bytes of values, or the size of the block: tags that share one block exceed it

_TEXT_BYTES: Final = 2**16  # of one text
_SIZES: Final = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8}
_TEXTS: Final = (1, 2, 7)  # bytes, ASCII, undefined
_NAMES: Final = (0x010D, 0x010E, 0x010F, 0x0110, 0x0131, 0x0132, 0x013B, 0x013C)  # descriptions of a TIFF file
_FIRST_OTHER: Final = 0x0215  # tags of TIFF from here on describe no pixels
_INTEGERS: Final = {3: "H", 4: "L"}
_EXIF_POINTER: Final = 0x8769
_POINTERS: Final = (_EXIF_POINTER, 0x8825, 0xA005)  # to the directories of EXIF, GPS and interoperability
_XMP_ORIENTATION: Final = re.compile(rb'tiff:Orientation(?:="|>)([0-9])')


class ExcessError(ValueError):
    """A file has more of something than a decoder can walk in reasonable time and memory."""


class Entry(NamedTuple):
    """A tag in a directory: its number and type, and where its entry and its value are in the block."""

    tag: int
    kind: int
    length: int
    place: int
    start: int
    size: int

    @property
    def is_text(self) -> bool:
        """Whether a decoder reads the value at once, and not number by number."""
        return self.kind in _TEXTS and (self.tag in _NAMES or self.tag >= _FIRST_OTHER)


def check_limit(n: int, limit: int, what: str) -> None:
    """Raise `ExcessError` if n exceeds the limit."""
    if n > limit:
        raise ExcessError(f"the file has more than {limit:,} {what}")


def check_directories(block: bytes) -> None:
    """Raise `ExcessError` if the directories of an EXIF block or TIFF file are too large to read whole."""
    block = _without_prefix(block)
    pointers: list[int] = [0]
    size = numbers = 0
    for pointer in pointers:
        entries = list(islice(read_directory(block, pointer), MAX_TAGS + 1))
        check_limit(len(entries), MAX_TAGS, "tags in a directory")
        size += sum(entry.size for entry in entries)
        numbers += sum(entry.length for entry in entries if entry.size and not entry.is_text)
        if len(pointers) <= len(_POINTERS):
            pointers += [_integer(block, entry) for entry in entries if entry.tag in _POINTERS and entry.length == 1]
        check_limit(len(pointers), 2 * MAX_TAGS, "directories")
    check_limit(size, max(len(block), MAX_VALUES), "bytes of tags")
    check_limit(numbers, MAX_NUMBERS, "numbers in tags")


def read_directory(block: bytes, pointer: int = 0) -> Iterator[Entry]:
    """Yield the entries of a directory; 0 points to the first one. Entries after the end of the block are left out."""
    order, big = "<" if block[:2] == b"II" else ">", block[2:3] == b"+"
    word, wide = (f"{order}Q", 20) if big else (f"{order}L", 12)
    try:
        if not pointer:
            (pointer,) = struct.unpack_from(word, block, 8 if big else 4)
        (n,) = struct.unpack_from(word if big else f"{order}H", block, pointer)
        for place in range(pointer + (8 if big else 2), len(block), wide)[:n]:
            tag, kind, count = struct.unpack_from(f"{order}HH{word[1]}", block, place)
            size, start = count * _SIZES.get(kind, 0), place + wide - (8 if big else 4)
            if size > (8 if big else 4):
                (start,) = struct.unpack_from(word, block, start)
            yield Entry(tag, kind, count, place, start, size)
    except struct.error:  # the block ends here
        return


def without_descriptions(tiff: bytes) -> bytes:
    """Return a TIFF file whose first directory has only the tags of its pixels; all others become empty."""
    edited = bytearray(tiff)
    for entry in islice(read_directory(tiff), MAX_TAGS):
        if entry.tag in _NAMES or entry.tag >= _FIRST_OTHER:
            width = 8 if tiff[2:3] == b"+" else 4
            edited[entry.place + 4 : entry.place + 4 + width] = bytes(width)  # no values
    return bytes(edited)


def read_tags(block: bytes) -> dict[int, int | bytes]:
    """Return the tags of the first and the EXIF directory: integers, texts as bytes, and `b""` for all else."""
    block = _without_prefix(block)
    tags: dict[int, int | bytes] = {}
    for pointer in (0, _EXIF_POINTER):
        if pointer and not isinstance(tags.get(pointer), int):
            break
        for entry in islice(read_directory(block, int(tags.get(pointer, 0))), MAX_TAGS):
            if entry.kind in _TEXTS and len(tags) < MAX_TAGS // 10:
                tags[entry.tag] = block[entry.start : entry.start + min(entry.size, _TEXT_BYTES)]
            else:
                tags[entry.tag] = _integer(block, entry) if entry.kind in _INTEGERS and entry.length == 1 else b""
    return tags


def exif_of_orientation(orientation: int) -> bytes:
    """Return an EXIF block with no other tag."""
    return b"Exif\0\0II*\0\x08\0\0\0\1\0" + struct.pack("<HHII", ORIENTATION, 3, 1, orientation) + bytes(4)


def read_orientation(block: bytes, xmp: bytes) -> int:
    """Return the orientation in EXIF or else in XMP, from 1 (upright) to 8."""
    value = read_tags(block).get(ORIENTATION) if block else None
    if value is None and (match := _XMP_ORIENTATION.search(xmp)):
        value = int(match[1])
    return value if isinstance(value, int) and 1 <= value <= 8 else 1  # noqa: PLR2004


def _without_prefix(block: bytes) -> bytes:
    while block.startswith(b"Exif\0\0"):
        block = block[6:]
    return block


def _integer(block: bytes, entry: Entry) -> int:
    value = block[entry.start : entry.start + entry.size]
    return int.from_bytes(value, "little" if block[:2] == b"II" else "big")
