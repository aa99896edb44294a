"""Damaged image files: real files of every format that Pillow writes, with bits, lengths and segments changed."""

import struct
from collections.abc import Callable, Iterator, Mapping
from functools import cache

import numpy as np
from bad_files import animated, picture, saved, sixteen_bits
from PIL import Image, PngImagePlugin

_LENGTHS = (0, 1, 2, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFF_FFFF, 0xFFFF_FFFF)


@cache
def originals() -> Mapping[str, bytes]:
    """Return undamaged files by name."""
    exif = Image.Exif()
    exif[0x0112], exif[0x010F], exif[0x0131] = 6, "a maker", "a program"
    exif.get_ifd(0x8769)[0x9286] = b"ASCII\0\0\0a comment"
    text = PngImagePlugin.PngInfo()
    text.add_text("parameters", "a cat", zip=True)
    text.add_itxt("Comment", "ünïcode", zip=True)
    turned = {"exif": exif, "icc_profile": bytes(300)}
    files = {
        "jpeg": saved(format="JPEG", **turned),
        "progressive": saved(format="JPEG", progressive=True, comment=b"a comment"),
        "cmyk": saved(picture(mode="CMYK"), format="JPEG"),
        "mpo": saved(format="MPO", save_all=True, append_images=[picture()]),
        "png": saved(pnginfo=text, **turned),
        "palette": saved(picture(mode="P"), transparency=bytes(range(200))),
        "apng": animated("PNG"),
        "16-bit": sixteen_bits(),
        "gif": saved(format="GIF", comment=b"a comment"),
        "animated-gif": animated("GIF"),
        "webp": saved(format="WEBP", **turned),
        "lossless-webp": saved(picture(mode="RGBA"), format="WEBP", lossless=True),
        "animated-webp": animated("WEBP"),
        "bmp": saved(format="BMP"),
        "run-lengths": run_lengths(),
        "tiff": saved(format="TIFF", **turned),
        "big-tiff": saved(format="TIFF", big_tiff=True),
        "pages": animated("TIFF"),
        "ppm": saved(format="PPM"),
        "pgm": saved(picture(mode="L"), format="PPM"),
        "text-ppm": b"P3 # a comment\n4 3\n255\n" + b"1 22 255 " * 12,
        "deep-ppm": b"P6\n4 3\n1023\n" + bytes(range(72)),
        "avif": saved(format="AVIF", **turned),
        "animated-avif": animated("AVIF"),
        "jp2": saved(format="JPEG2000"),
        "j2k": saved(format="JPEG2000", no_jp2=True),
    }
    return files | {
        f"{compression}-tiff": saved(format="TIFF", compression=compression)
        for compression in ("tiff_lzw", "tiff_adobe_deflate", "jpeg", "packbits")
    }


def run_lengths() -> bytes:
    """Return a BMP in run lengths, which Pillow reads and does not write."""
    body = b"\x14\x05\0\0" * 3 + b"\x0c\x07" + b"\0\x08" + bytes(range(8)) + b"\0\1"
    header = struct.pack("<IiiHHIIiiII", 40, 20, 4, 1, 8, 1, len(body), 0, 0, 256, 0)
    palette = bytes(range(256)) * 4
    start = 14 + len(header) + len(palette)
    return b"BM" + struct.pack("<IHHI", start + len(body), 0, 0, start) + header + palette + body


def mutated(n: int, *, seed: int) -> Iterator[tuple[str, bytes]]:
    """Yield n damaged files and names that tell what was done, taking the originals in turns."""
    random = np.random.default_rng(seed)
    files = list(originals().items())
    kinds = list(_MUTATIONS.items())
    for number in range(n):
        name, data = files[number % len(files)]
        kind, mutate = kinds[int(random.integers(len(kinds)))]
        yield f"{number:04d}-{kind}-{name}", mutate(data, random)


def _place(data: bytes, random: np.random.Generator) -> int:
    """Draw a position, half of the time among the first 200 bytes, where headers are."""
    return int(random.integers(min(len(data), 200) if random.random() < 0.5 else len(data)))


def _flip(data: bytes, random: np.random.Generator) -> bytes:
    damaged = bytearray(data)
    for _ in range(int(random.integers(1, 12))):
        damaged[_place(data, random)] ^= 1 << int(random.integers(8))
    return bytes(damaged)


def _cut(data: bytes, random: np.random.Generator) -> bytes:
    return data[: _place(data, random)]


def _length(data: bytes, random: np.random.Generator) -> bytes:
    value, width = _LENGTHS[int(random.integers(len(_LENGTHS)))], int(random.choice([2, 4]))
    order = "little" if random.random() < 0.5 else "big"
    place = _place(data, random)
    return data[:place] + (value % 256**width).to_bytes(width, order) + data[place + width :]


def _remove(data: bytes, random: np.random.Generator) -> bytes:
    place, size = _place(data, random), int(random.integers(1, 100))
    return data[:place] + data[place + size :]


def _repeat(data: bytes, random: np.random.Generator) -> bytes:
    place, size, times = _place(data, random), int(random.integers(1, 200)), int(random.choice([1, 2, 50, 5000]))
    return data[:place] + data[place : place + size] * times + data[place:]


def _insert(data: bytes, random: np.random.Generator) -> bytes:
    place = _place(data, random)
    return data[:place] + random.bytes(int(random.integers(1, 300))) + data[place:]


def _join(data: bytes, random: np.random.Generator) -> bytes:
    others = list(originals().values())
    other = others[int(random.integers(len(others)))]
    return data[: _place(data, random)] + other[_place(other, random) :]


_MUTATIONS: Mapping[str, Callable[[bytes, np.random.Generator], bytes]] = {
    "flip": _flip, "cut": _cut, "length": _length, "remove": _remove, "repeat": _repeat, "insert": _insert,
    "join": _join,
}  # fmt: skip
