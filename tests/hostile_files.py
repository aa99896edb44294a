"""Small files that cost a reader without bounds minutes or gigabytes: their name and how to make them."""

import struct
import zlib
from collections.abc import Callable, Mapping
from functools import partial
from io import BytesIO

from PIL import Image

_BYTE, _SHORT, _LONG, _RATIONAL = 1, 3, 4, 5  # types of TIFF, with 1, 2, 4 and 8 bytes


def hostile_files() -> Mapping[str, Callable[[], bytes]]:
    """Return the makers of all files by name; a file has at most 32 MB, and is made in a second or two."""
    return {
        "shared-block.jpg": partial(jpeg_with_shared_block, tags=2_700),
        "shared-block.png": partial(png_with_shared_block, tags=300, size=8_000_000),
        "frames.tif": partial(tiff_with_frames, 140_000),
        "scans.jpg": partial(jpeg_with_scans, 100_000),
        "strips.tif": partial(tiff_with_strips, 16_000_000),
        "exif-segments.jpg": partial(jpeg_with_exif_segments, 1_500_000),
        "chunks.png": partial(png_with_chunks, 2_500_000),
    }


def exif_with_shared_block(tags: int, size: int) -> bytes:
    """Return EXIF whose tags are all lists of fractions in the same `size` bytes."""
    count = size // 8
    start = 8 + 2 + 12 * tags + 4
    entries = b"".join(struct.pack("<HHII", 0x8000 + tag, _RATIONAL, count, start) for tag in range(tags))
    return b"II*\0\x08\0\0\0" + struct.pack("<H", tags) + entries + bytes(4) + struct.pack("<II", 1, 3) * count


def jpeg_with_shared_block(*, tags: int) -> bytes:
    """Return a JPEG of 64 kB whose tags share a block: 11 million fractions for 2,700 tags."""
    exif = b"Exif\0\0" + exif_with_shared_block(tags, 65_500 - 12 * tags - 32)
    return _with_segments(_segment(0xE1, exif))


def png_with_shared_block(*, tags: int, size: int) -> bytes:
    """Return a PNG whose eXIf chunk has tags that share a block of `size` bytes."""
    return _png(_chunk(b"eXIf", exif_with_shared_block(tags, size)))


def png_with_chunks(n: int) -> bytes:
    """Return a PNG with n empty private chunks, of 12 bytes each, before its pixels."""
    return _png(_chunk(b"prVt", b"") * n)


def jpeg_with_exif_segments(n: int) -> bytes:
    """Return a JPEG with n Exif segments, of 12 bytes each, which Pillow joins one by one."""
    return _with_segments(_segment(0xE1, b"Exif\0\0II") * n)


def jpeg_with_scans(n: int, side: int = 4_000) -> bytes:
    """Return a progressive grey JPEG with n scans, of 20 bytes each, every one of which visits all blocks."""
    frame = _segment(0xC2, struct.pack(">BHHBBBB", 8, side, side, 1, 1, 0x11, 0))
    quantization = _segment(0xDB, b"\0" + b"\1" * 64)
    dc = _segment(0xC4, b"\x00\1" + bytes(15) + b"\0")  # one code of one bit: a difference of 0
    ac = _segment(0xC4, b"\x10\1" + bytes(15) + b"\xe0")  # one code of one bit: 2^14 to 2^15 - 1 empty blocks
    blocks = (-(-side // 8)) ** 2
    first = _segment(0xDA, b"\1\1\x00\0\0\0") + bytes(-(-blocks // 8))
    run = "0" + "1" * 13 + "0"  # and 14 bits of its length; never 0xff, which would begin a marker
    bits = run * -(-blocks // (2**14 + int(run[1:], 2)))
    bits += "0" * (-len(bits) % 8)
    data = int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\0")
    scan = _segment(0xDA, b"\1\1\x00\1\x3f\0") + data
    return b"\xff\xd8" + quantization + frame + dc + ac + first + scan * n + b"\xff\xd9"


def tiff_with_frames(n: int) -> bytes:
    """Return a grey TIFF of 1 x 1 pixel with a chain of n frames, of 38 bytes each, all with the same pixel."""
    tags = struct.pack("<HHIHHHHIHHHHII", 256, _SHORT, 1, 1, 0, 257, _SHORT, 1, 1, 0, 273, _LONG, 1, 8)
    size = 2 + len(tags) + 4
    frames = (
        struct.pack("<H", 3) + tags + struct.pack("<I", 12 + size * (i + 1) if i + 1 < n else 0) for i in range(n)
    )
    return b"II*\0" + struct.pack("<I", 12) + bytes(4) + b"".join(frames)


def tiff_with_strips(n: int) -> bytes:
    """Return a grey TIFF of 1 x n pixels in n strips of one row, whose positions take one byte each."""
    tags = [
        (256, _SHORT, 1, 1), (257, _LONG, 1, n), (258, _SHORT, 1, 8), (259, _SHORT, 1, 1), (262, _SHORT, 1, 1),
        (273, _BYTE, n, 110), (277, _SHORT, 1, 1), (278, _SHORT, 1, 1),
    ]  # fmt: skip
    entries = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    head = b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + entries + bytes(4)
    return head + b"\x08" * n


def _segment(marker: int, data: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data


def _with_segments(segments: bytes) -> bytes:
    """Return a small JPEG with more segments at its beginning."""
    stream = BytesIO()
    Image.new("RGB", (32, 32), "teal").save(stream, "JPEG")
    data = stream.getvalue()
    return data[:2] + segments + data[2:]


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _png(chunks: bytes) -> bytes:
    """Return a PNG of one grey pixel with more chunks before its pixels."""
    header = struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)
    pixels = zlib.compress(b"\0\x80")
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + chunks + _chunk(b"IDAT", pixels) + _chunk(b"IEND", b"")
