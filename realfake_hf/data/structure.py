"""Bound the structure of an image file before a decoder walks it, read its EXIF, and remove metadata.

A file of kilobytes can hold more scans, tags or chunks than a decoder reads in minutes. The limits are far above what
cameras and encoders write. Pillow joins, copies or walks in Python what is counted here. EXIF is a block of TIFF
directories, which are read in time and memory bounded by the size of the block.
"""

import re
import struct
from collections.abc import Callable, Iterator
from itertools import islice
from math import prod
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

MAX_SCANS: Final = 200  # of a progressive JPEG; encoders write about ten
MAX_SEGMENTS: Final = 4_096  # of a JPEG before its first scan: 256 MiB of metadata
MAX_TABLES: Final = 256  # of these, segments that are not metadata
MAX_CHUNKS: Final = 100_000  # of a PNG
MAX_TEXTS: Final = 1_000  # of these, compressed metadata
MAX_BLOCKS: Final = 10_000  # of a GIF before its first image
MAX_BOXES: Final = 100  # of the headers of JPEG 2000
SLOW_PIXELS: Final = 2**21  # of variants of BMP and PPM that Pillow decodes in Python
MAX_CANVAS: Final = 2**28  # pixels of an animated WebP, which libwebp allocates before its size is known

_SMALL: Final = 2**16  # bytes; the header of a smaller JPEG cannot hold enough to matter
_MARKER: Final = re.compile(rb"\xff+([^\x00\xff])")
_JPEG_METADATA: Final = (*range(0xE1, 0xEE), 0xEF, 0xFE)  # not JFIF and Adobe, which tell the colour space
_JPEG_START_OF_SCAN: Final = 0xDA
_PNG_PIXELS: Final = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND", b"acTL", b"fcTL", b"fdAT")
_AVIF_EXIF: Final = re.compile(rb"(infe\x02.{7}|infe\x03.{9})Exif", re.DOTALL)  # an entry of the list of items
_AVIF_BLOCK: Final = re.compile(rb"\0\0\0(?:\x00|\x06Exif\x00\x00)(II\*\0|MM\0\*)")
_PNG_METADATA: Final = (b"tEXt", b"zTXt", b"iTXt", b"eXIf")
_HEIF_BRANDS: Final = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs")

Segment = tuple[int, int, int]  # marker, start, end


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


def bounded(data: bytes) -> bytes:
    """Return a file that Pillow opens and decodes in bounded time: itself, or without its metadata.

    Raises:
        ExcessError: the file has more scans, chunks, tiles, blocks or boxes than a decoder should walk.
    """
    check = next((check for magic, check in _CHECKS.items() if data.startswith(magic)), None)
    if check:
        check(data)
    if data[4:8] == b"ftyp":
        return data if is_heif(data) else without_metadata(data)  # EXIF in AVIF may lie in pieces, and is not checked
    try:
        _check_metadata(data)
    except ExcessError:
        bare = without_metadata(data)
        _check_metadata(bare)
        return bare
    return data


def without_metadata(data: bytes) -> bytes:
    """Return a JPEG, PNG, TIFF or AVIF file without the metadata that Pillow reads; the pixels are the same.

    Orientation in EXIF is lost, except that of TIFF and AVIF.
    """
    if data.startswith(b"\xff\xd8"):
        segments = jpeg_segments(data)
        kept = [data[start:end] for marker, start, end in segments if marker not in _JPEG_METADATA]
        return b"".join([data[:2], *kept, data[segments[-1][2] :]]) if segments else data
    if data.startswith(b"\x89PNG"):
        return data[:8] + b"".join(data[start:end] for kind, start, end in png_chunks(data) if kind in _PNG_PIXELS)
    if data.startswith((b"II", b"MM")):
        return without_descriptions(data)
    return _AVIF_EXIF.sub(rb"\1free", data) if data[4:8] == b"ftyp" else data


def is_heif(data: bytes) -> bool:
    """Return whether a file is HEIC, or another file of HEVC images."""
    if data[4:8] != b"ftyp" or data[8:11] == b"avi":
        return False
    brands = data[8 : min(int.from_bytes(data[:4]), 256)]
    return any(brand in brands for brand in _HEIF_BRANDS)


def with_early_metadata(data: bytes) -> bytes:
    """Return a file whose metadata Pillow reads before the pixels: a PNG whose texts and EXIF precede its pixels."""
    if not data.startswith(b"\x89PNG"):
        return data
    chunks = list(islice(png_chunks(data), MAX_CHUNKS))
    first = next((start for kind, start, _ in chunks if kind == b"IDAT"), len(data))
    late = [(start, end) for kind, start, end in chunks if start > first and kind in _PNG_METADATA]
    return b"".join([data[:first], *(data[start:end] for start, end in late), data[first:]]) if late else data


def embedded_exif(data: bytes) -> bytes:
    """Return the EXIF block of a JPEG, PNG or AVIF file, or `b""`."""
    if data.startswith(b"\xff\xd8") and b"Exif\0\0" in data:
        blocks = [data[start + 4 : end] for marker, start, end in jpeg_segments(data) if marker == 0xE1]  # noqa: PLR2004
        return b"".join(block[6:] for block in blocks if block.startswith(b"Exif\0\0"))
    if data.startswith(b"\x89PNG") and b"eXIf" in data:
        return b"".join(data[start + 8 : end - 4] for kind, start, end in png_chunks(data) if kind == b"eXIf")
    match = _AVIF_BLOCK.search(data) if data[4:8] == b"ftyp" else None
    return data[match.start(1) :] if match else b""


def jpeg_segments(data: bytes) -> list[Segment]:
    """Return the segments of a JPEG up to its first scan.

    Raises:
        ExcessError: there are more than `MAX_SEGMENTS`, or more bytes between them than a damaged file has.
    """
    segments: list[Segment] = []
    position, skipped = 2, 0
    while match := _MARKER.search(data, position):
        marker, end = match[1][0], match.end()
        if (0xC0 <= marker < 0xF0 and not 0xD0 <= marker <= 0xD9) or marker == 0xFE:  # noqa: PLR2004  all others are bare
            end += max(2, int.from_bytes(data[end : end + 2]))
        skipped += match.end() - 2 - position
        segments.append((marker, match.end() - 2, end))
        check_limit(len(segments), MAX_SEGMENTS, "segments before the first scan")
        position = end
        if marker == _JPEG_START_OF_SCAN:
            break
    else:
        skipped += max(0, len(data) - position)
    check_limit(skipped, _SMALL, "bytes between segments")
    return segments


def png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield kind, start and end of each chunk of a PNG file."""
    position, kind = 8, b""
    while position + 8 <= len(data) and kind != b"IEND":
        end = position + 12 + int.from_bytes(data[position : position + 4])
        kind = data[position + 4 : position + 8]
        yield kind, position, end
        position = end


def gif_images(data: bytes, *, limit: int) -> Iterator[int]:
    """Yield, at each image of a GIF, how many blocks were walked before; stop at the limit."""
    position, blocks = 13, 0
    if len(data) > position and data[10] & 0x80:
        position += 3 << (data[10] & 7) + 1  # the palette
    while position < len(data) - 10 and blocks <= limit:
        blocks += 1
        if data[position] not in b"!,":  # the end, or bytes that Pillow skips one by one
            position += 1
            continue
        if data[position] == ord(","):
            yield blocks
            flags = data[position + 9]
            position += 11 + (3 << (flags & 7) + 1 if flags & 0x80 else 0)
        else:
            position += 2
        while position < len(data) and data[position] and blocks <= limit:
            position += data[position] + 1
            blocks += 1
        position += 1
    if blocks > limit:
        yield blocks


def _check_jpeg(data: bytes) -> None:
    check_limit(data.count(b"\xff\xda\0"), MAX_SCANS, "scans")
    if len(data) > _SMALL:
        tables = sum(marker not in _JPEG_METADATA for marker, _, _ in jpeg_segments(data))
        check_limit(tables, MAX_TABLES, "tables before the first scan")


def _check_metadata(data: bytes) -> None:
    """Raise `ExcessError` if Pillow needs much time or memory for the metadata of a file as soon as it opens it."""
    if data.startswith(b"\xff\xd8"):
        _check_jpeg_metadata(data)
    elif data.startswith(b"\x89PNG"):
        check_limit(sum(data.count(kind) for kind in (b"zTXt", b"iTXt", b"iCCP")), MAX_TEXTS, "texts")
    elif data.startswith((b"II", b"MM")):
        check_directories(data)


def _check_jpeg_metadata(data: bytes) -> None:
    check_limit(data.count(b"8BIM"), MAX_CHUNKS, "blocks of Photoshop")
    if b"Exif\0\0" in data or b"MPF\0" in data:
        blocks = [data[start + 4 : end] for marker, start, end in jpeg_segments(data) if marker in (0xE1, 0xE2)]
        parts = [block for block in blocks if block.startswith(b"Exif\0\0")]
        check_limit(len(parts), MAX_TABLES, "segments of EXIF")
        for block in (b"".join(part[6:] for part in parts), *(block[4:] for block in blocks if block[:4] == b"MPF\0")):
            check_directories(block)


def _check_png(data: bytes) -> None:
    check_limit(sum(1 for _ in islice(png_chunks(data), MAX_CHUNKS + 1)), MAX_CHUNKS, "chunks")


def _check_gif(data: bytes) -> None:
    check_limit(next(gif_images(data, limit=MAX_BLOCKS), 0), MAX_BLOCKS, "blocks before its first image")


def _check_webp(data: bytes) -> None:
    if data[8:16] == b"WEBPVP8X":
        width, height = (int.from_bytes(data[start : start + 3], "little") + 1 for start in (24, 27))
        check_limit(width * height, MAX_CANVAS, "pixels")


def _check_bmp(data: bytes) -> None:
    if len(data) > 34 and data[14] >= 40 and data[30] in (1, 2):  # run lengths  # noqa: PLR2004
        width, height = struct.unpack_from("<ii", data, 18)
        check_limit(max(len(data) // 2, 64 * abs(width), abs(width * height)), SLOW_PIXELS, "pixels in run lengths")


def _check_ppm(data: bytes) -> None:
    if not re.match(rb"P(?:[1-6f]\s|0CMYK|yP|yRGBA|yCMYK)", data):
        return
    kind, *words = re.sub(rb"#[^\r\n]*", b"", data[:_SMALL]).split()[:4]
    if len(words) < 2:  # noqa: PLR2004
        check_limit(len(data), _SMALL, "bytes before its size")
    if not all(re.fullmatch(rb"\d{1,10}", word) for word in words[:2]):
        return
    is_text, depth = kind in (b"P1", b"P2", b"P3"), words[2:]
    is_raw = kind in (b"P4", b"Pf") or depth == [b"255"] or (kind == b"P5" and depth == [b"65535"])
    if is_text or not is_raw:
        check_limit(max(len(data) // 16, prod(map(int, words[:2]))), SLOW_PIXELS, "pixels in text or of unusual depth")
        check_limit(data.count(b"#") if is_text else 0, MAX_TEXTS, "comments")


def _check_jpeg2000(data: bytes) -> None:
    position = n = 0
    while position + 16 <= len(data) and n <= MAX_BOXES and data[position + 4 : position + 8] != b"jp2c":
        size, kind, long_size = struct.unpack_from(">I4sQ", data, position)
        position += 8 if kind in (b"jp2h", b"res ") else max(8, long_size if size == 1 else size)
        n += 1
    check_limit(n, MAX_BOXES, "boxes")
    _check_codestream(data[position + 8 :])


def _check_codestream(data: bytes) -> None:
    position = n = 2
    while (
        position + 4 <= len(data) and n <= MAX_SEGMENTS and data[position + 1] not in (0x90, 0xD9)
    ):  # first tile, end
        position += 2 + max(2, int.from_bytes(data[position + 2 : position + 4]))
        n += 1
    check_limit(n, MAX_SEGMENTS, "segments before the first tile")


_CHECKS: Final[dict[bytes, Callable[[bytes], None]]] = {
    b"\xff\xd8": _check_jpeg,
    b"\x89PNG": _check_png,
    b"GIF8": _check_gif,
    b"RIFF": _check_webp,
    b"BM": _check_bmp,
    b"P": _check_ppm,
    b"\0\0\0\x0cjP": _check_jpeg2000,
    b"\xff\x4f\xff\x51": _check_codestream,
}
