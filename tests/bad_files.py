"""Files that people and their enemies upload: name, bytes, and whether a picture is in them."""

import gzip
import io
import struct
import zlib
from collections.abc import Iterator

import numpy as np
from PIL import Image, PngImagePlugin

SVG = b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><script>alert(1)</script></svg>'


def picture(size=(40, 30), mode="RGB"):
    random = np.random.default_rng(0)
    return Image.fromarray(random.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)).convert(mode)


def saved(image=None, format="PNG", **settings):
    buffer = io.BytesIO()
    (picture() if image is None else image).save(buffer, format=format, **settings)
    return buffer.getvalue()


def png_of_size(width, height):
    """A PNG whose header promises a size, and whose data are a few bytes."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 100)), (b"IEND", b"")]
    body = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + body


def with_huge_text():
    info = PngImagePlugin.PngInfo()
    info.add_text("Comment", "x" * 3_000_000, zip=True)
    return saved(pnginfo=info)


def animated(format):
    return saved(format=format, save_all=True, append_images=[picture().rotate(90)], duration=50)


def turned():
    exif = Image.Exif()
    exif[0x0112] = 6
    return saved(format="JPEG", exif=exif)


def sixteen_bits():
    return saved(Image.fromarray(np.arange(1200, dtype=np.uint16).reshape(30, 40) * 50), format="PNG")


def corpus() -> Iterator[tuple[str, bytes, bool]]:
    """Give name, bytes, and whether a verdict can be given."""
    jpeg, png = saved(format="JPEG"), saved()
    random = np.random.default_rng(1).bytes(5000)
    flipped = bytearray(jpeg)
    flipped[len(jpeg) // 2 : len(jpeg) // 2 + 20] = b"\xff" * 20
    yield from (
        ("empty.png", b"", False),
        ("one-byte.png", b"\x89", False),
        ("text.png", b"not a picture", False),
        ("text.txt", b"plain words", False),
        ("drawing.svg", SVG, False),
        ("drawing.png", SVG, False),
        ("zipped.svgz", gzip.compress(SVG), False),
        ("page.html", b"<html><img src=x onerror=alert(1)></html>", False),
        ("random.jpg", random, False),
        ("document.pdf", b"%PDF-1.7\n" + random, False),
        ("script.eps", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", False),
        ("photo.heic", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + random, False),
        ("film.mp4", b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom" + random, False),
        ("program.exe", b"MZ" + random, False),
        ("archive.zip", b"PK\x03\x04" + random, False),
        ("header-alone.jpg", jpeg[:20], False),
        ("half.jpg", jpeg[: len(jpeg) // 2], False),
        ("half.png", png[: len(png) // 2], False),
        ("signature-alone.png", png[:8], False),
        ("no-end.png", png[:-30], False),
        ("wrong-sum.png", png[:45] + b"\0\0\0\0" + png[49:], False),
        ("half.webp", saved(format="WEBP")[:60], False),
        ("half.gif", saved(format="GIF")[:60], False),
        ("half.tif", saved(format="TIFF")[:200], False),
        ("bomb-100-megapixels.png", png_of_size(10_000, 10_000), False),
        ("bomb-4-gigapixels.png", png_of_size(65_000, 65_000), False),
        ("bomb-line.png", png_of_size(2**31 - 1, 1), False),
        ("no-width.png", png_of_size(0, 10), False),
        ("lying-header.png", png_of_size(400, 400), False),
        ("float.tif", saved(Image.fromarray(np.ones((9, 9), np.float32)), format="TIFF"), False),
        ("plain.jpg", jpeg, True),
        ("plain.png", png, True),
        ("jpeg-called.png", jpeg, True),
        ("no-name", png, True),
        ("progressive.jpg", saved(format="JPEG", progressive=True), True),
        ("plain.webp", saved(format="WEBP"), True),
        ("plain.bmp", saved(format="BMP"), True),
        ("plain.avif", saved(format="AVIF"), True),
        ("plain.tif", saved(format="TIFF"), True),
        ("animated.gif", animated("GIF"), True),
        ("animated.webp", animated("WEBP"), True),
        ("animated.png", animated("PNG"), True),
        ("print.jpg", saved(picture(mode="CMYK"), format="JPEG"), True),
        ("sixteen-bits.png", sixteen_bits(), True),
        ("palette.png", saved(picture(mode="P")), True),
        ("bits.png", saved(picture(mode="1")), True),
        ("grey-alpha.png", saved(picture(mode="LA")), True),
        ("alpha.png", saved(picture(mode="RGBA")), True),
        ("turned.jpg", turned(), True),
        ("one-pixel.png", saved(picture((1, 1))), True),
        ("line.png", saved(picture((10_000, 1))), True),
        ("column.png", saved(picture((1, 10_000))), True),
        ("trailing.jpg", jpeg + random, True),
        ("huge-comment.png", with_huge_text(), True),
        ("<img src=x onerror=alert(1)>.png", png, True),
        ("..%2f..%2fetc%2fpasswd.png", png, True),
        ("=cmd().png", png, True),
        ("a" * 180 + ".png", png, True),
        ("spaces and ünïcode ☃.png", png, True),
    )  # fmt: skip
