"""Image files are decoded to upright RGB images, or rejected with a reason."""

import io
import struct
import sys
import time
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np
import pytest
from datasets import Image as ImageFeature
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from realfake_hf.data import decoding
from realfake_hf.data.decoding import (
    MAX_PIXELS,
    UnreadableImageError,
    decode_image,
    pixel_hash,
    to_rgb,
    to_rgb_file,
)

WIDTH, HEIGHT = 12, 9
ORIENTATION = 0x0112


def rgb() -> Image.Image:
    values = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    return Image.fromarray(values)


def encoded(picture: Image.Image, format: str, **settings: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format=format, **settings)
    return buffer.getvalue()


def turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return exif


def sixteen_bits() -> Image.Image:
    return Image.fromarray(np.linspace(0, 65535, WIDTH * HEIGHT).reshape(HEIGHT, WIDTH).astype(np.uint16))


def png_that_declares(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")
    )


@cache
def special_files() -> dict[str, bytes]:
    other = rgb().transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    alpha = rgb().copy()
    alpha.putalpha(Image.linear_gradient("L").resize(alpha.size))
    return {
        "greyscale jpeg": encoded(rgb().convert("L"), "JPEG"),
        "cmyk jpeg": encoded(rgb().convert("CMYK"), "JPEG"),
        "rotated jpeg": encoded(rgb(), "JPEG", exif=turned(6)),
        "rotated png": encoded(rgb(), "PNG", exif=turned(3)),
        "rotated webp": encoded(rgb(), "WEBP", exif=turned(8)),
        "rotated tiff": encoded(rgb(), "TIFF", exif=turned(6)),
        "transparent png": encoded(alpha, "PNG"),
        "transparent webp": encoded(alpha, "WEBP", lossless=True),
        "one transparent colour": encoded(rgb(), "PNG", transparency=rgb().getpixel((0, 0))),
        "palette png": encoded(rgb().convert("P"), "PNG"),
        "palette with alpha": encoded(rgb().convert("P"), "PNG", transparency=bytes(range(200))),
        "grey with alpha": encoded(alpha.convert("LA"), "PNG"),
        "black and white": encoded(rgb().convert("1"), "PNG"),
        "16-bit png": encoded(sixteen_bits(), "PNG"),
        "16-bit tiff": encoded(sixteen_bits(), "TIFF"),
        "32-bit tiff": encoded(sixteen_bits().convert("I"), "TIFF"),
        "cmyk tiff": encoded(rgb().convert("CMYK"), "TIFF", icc_profile=b"a profile of inks"),
        "two pages": encoded(rgb(), "TIFF", save_all=True, append_images=[rgb().rotate(180)]),
        "gif": encoded(rgb(), "GIF"),
        "animated gif": encoded(rgb(), "GIF", save_all=True, append_images=[other]),
        "animated png": encoded(rgb(), "PNG", save_all=True, append_images=[other]),
        "animated webp": encoded(rgb(), "WEBP", save_all=True, append_images=[other], lossless=True),
        "grey bmp": encoded(rgb().convert("L"), "BMP"),
    }


@cache
def plain_files() -> dict[str, bytes]:
    formats = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "PPM", "AVIF", "JPEG2000")
    return {format: encoded(rgb(), format) for format in formats} | {
        "progressive": encoded(rgb(), "JPEG", progressive=True),
        "upright by exif": encoded(rgb(), "JPEG", exif=turned(1)),
        "two pictures in a jpeg": encoded(rgb(), "MPO", save_all=True, append_images=[rgb().rotate(180)]),
    }


def decoded_by_datasets(data: bytes) -> Image.Image:
    return ImageFeature().decode_example({"bytes": data, "path": None})


@pytest.mark.parametrize("name", plain_files())
def test_a_plain_rgb_file_keeps_its_bytes(name: str) -> None:
    data = plain_files()[name]
    assert to_rgb_file(data)[0] is data


@pytest.mark.parametrize("name", [*plain_files(), *special_files()])
def test_datasets_decodes_the_rgb_file_to_the_same_image(name: str) -> None:
    data = (plain_files() | special_files())[name]
    kept, picture = to_rgb_file(data)
    seen = decoded_by_datasets(kept)
    assert picture.mode == seen.mode == "RGB"
    assert picture.size == seen.size
    assert picture.tobytes() == seen.tobytes() == decode_image(data).tobytes() == decode_image(kept).tobytes()


@pytest.mark.parametrize("name", special_files())
def test_the_rgb_file_has_no_profile_exif_or_text(name: str) -> None:
    opened = Image.open(io.BytesIO(to_rgb_file(special_files()[name])[0]))
    opened.load()
    if name != "rotated tiff":
        assert (opened.format, opened.mode) == ("PNG", "RGB")
        assert not {"icc_profile", "exif", "transparency"} & set(opened.info)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int) -> None:
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # the Pillow transpositions that lead back
    stored = rgb() if orientation == 1 else rgb().transpose(Image.Transpose(undo[orientation]))
    assert decode_image(encoded(stored, "PNG", exif=turned(orientation))).tobytes() == rgb().tobytes()


def test_transparency_is_composited_on_white() -> None:
    clear = Image.new("RGBA", (2, 1), (0, 0, 0, 0))
    clear.putpixel((1, 0), (255, 0, 0, 255))
    picture = decode_image(encoded(clear, "PNG"))
    assert [picture.getpixel((x, 0)) for x in range(2)] == [(255, 255, 255), (255, 0, 0)]


def test_half_transparent_black_is_middle_grey() -> None:
    assert decode_image(encoded(Image.new("RGBA", (1, 1), (0, 0, 0, 128)), "PNG")).getpixel((0, 0)) == (127,) * 3


def test_the_transparent_colour_of_a_palette_is_white() -> None:
    palette = Image.new("P", (2, 1))
    palette.putpalette([10, 20, 30, 40, 50, 60])
    palette.putpixel((1, 0), 1)
    picture = decode_image(encoded(palette, "PNG", transparency=0))
    assert [picture.getpixel((x, 0)) for x in range(2)] == [(255, 255, 255), (40, 50, 60)]


def test_the_transparent_grey_of_a_16_bit_image_is_white_and_its_neighbours_are_not() -> None:
    samples = Image.fromarray(np.array([[300, 301]], dtype=np.uint16))
    picture = decode_image(encoded(samples, "PNG", transparency=300))
    assert [picture.getpixel((x, 0)) for x in range(2)] == [(255,) * 3, (1,) * 3]


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_16_bits_are_scaled_not_clipped_to_8(format: str) -> None:
    samples = Image.fromarray(np.array([[0, 257, 32896, 65535]], dtype=np.uint16))
    assert np.asarray(decode_image(encoded(samples, format)))[0, :, 0].tolist() == [0, 1, 128, 255]


def test_the_first_frame_of_an_animation_is_decoded() -> None:
    red, blue = (Image.new("RGB", (4, 4), colour) for colour in ("red", "blue"))
    for format in ("GIF", "PNG", "WEBP", "TIFF"):
        picture = decode_image(encoded(red, format, save_all=True, append_images=[blue]))
        assert picture.getpixel((1, 1))[0] > 200, format
        assert picture.getpixel((1, 1))[2] < 60, format


def test_the_pixel_hash_does_not_depend_on_the_file_format() -> None:
    files = [encoded(rgb(), format) for format in ("PNG", "BMP", "TIFF", "PPM")]
    assert {pixel_hash(decode_image(data)) for data in files} == {pixel_hash(rgb())}


def test_the_pixel_hash_depends_on_the_shape() -> None:
    assert pixel_hash(Image.new("RGB", (2, 3))) != pixel_hash(Image.new("RGB", (3, 2)))


def test_an_empty_file_is_rejected() -> None:
    with pytest.raises(UnreadableImageError, match=r"^the file is empty \(0 bytes\)$"):
        decode_image(b"")


@pytest.mark.parametrize(
    "data", [b"hello", b"<svg/>", bytes(1000), b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"]
)
def test_files_that_are_not_images_are_rejected_without_running_another_program(data: bytes) -> None:
    with pytest.raises(UnreadableImageError, match=r"^not an image file \(JPEG, PNG, .*\)$"):
        decode_image(data)


def test_an_upright_image_is_not_turned_again() -> None:
    for name in ("rotated jpeg", "rotated png", "rotated webp"):
        upright = decode_image(special_files()[name])
        assert to_rgb(upright).tobytes() == upright.tobytes(), name


def test_orientation_is_read_when_the_rest_of_exif_is_broken() -> None:
    tags = [(0x010F, 2, 900, 5_000), (0x0112, 3, 1, 6), (0x011A, 5, 1, 9_999), (0x8769, 4, 1, 7_777)]
    block = b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in tags)
    for format in ("JPEG", "PNG", "WEBP"):
        settings = {"lossless": True} if format == "WEBP" else {}
        stored = decode_image(encoded(rgb(), format, **settings))
        picture = decode_image(encoded(rgb(), format, exif=b"Exif\0\0" + block, **settings))
        assert picture.tobytes() == stored.transpose(Image.Transpose.ROTATE_270).tobytes(), format


@pytest.mark.parametrize("exif", [b"Exif\0\0", b"Exif\0\0no directory", b"Exif\0\0II*\0\x08\0\0\0\xff\xff"])
def test_exif_that_pillow_rejects_leaves_the_pixels_readable(exif: bytes) -> None:
    data = encoded(rgb(), "JPEG", exif=exif)
    kept, picture = to_rgb_file(data)
    assert picture.tobytes() == decode_image(encoded(rgb(), "JPEG")).tobytes()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, on the EXIF
        assert decoded_by_datasets(kept).tobytes() == picture.tobytes()


def _png_with(*chunks: tuple[bytes, bytes], place: int = 33) -> bytes:
    data = encoded(rgb(), "PNG")
    packed = b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    )
    return data[:place] + packed + data[place:]


@pytest.mark.parametrize(
    "chunk",
    [
        (b"iCCP", b"profile\0\0" + zlib.compress(bytes(2_000_000))),
        (b"zTXt", b"Comment\0\0" + zlib.compress(bytes(2_000_000))),
        (b"iTXt", b"Comment\0\1\0\0\0" + zlib.compress(bytes(2_000_000))),
        (b"tEXt", b"exif\0no block"),
        (b"cHRM", b"short"),
        (b"pHYs", b""),
    ],
    ids=lambda chunk: chunk[0].decode(),
)
@pytest.mark.parametrize("place", [33, -12])  # before and after the pixels
def test_large_and_odd_metadata_leave_the_pixels_readable(chunk: tuple[bytes, bytes], place: int) -> None:
    kept, picture = to_rgb_file(_png_with(chunk, place=place))
    assert picture.tobytes() == rgb().tobytes() == decoded_by_datasets(kept).tobytes()


def test_a_large_image_is_composited_in_bands(monkeypatch: pytest.MonkeyPatch) -> None:
    files = ("transparent png", "palette with alpha", "grey with alpha", "one transparent colour")
    whole = [decode_image(special_files()[name]).tobytes() for name in files]
    monkeypatch.setattr(decoding, "_BAND", 2 * WIDTH)
    assert [decode_image(special_files()[name]).tobytes() for name in files] == whole


def test_a_small_jpeg_2000_that_needs_gigabytes_is_rejected() -> None:
    header = bytearray(encoded(rgb(), "JPEG2000", no_jp2=True))
    header[8:16] = struct.pack(">II", 9_000, 9_000)
    with pytest.raises(UnreadableImageError, match="32,000,000 pixels"):
        decode_image(bytes(header))


HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100)


def test_heic_without_its_decoder_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(UnreadableImageError, match=r"HEIC .* pillow-heif.*realfake-hf\[heif\]"):
        decode_image(HEIC)


def test_heic_is_decoded_where_its_decoder_is_installed() -> None:
    pillow_heif = pytest.importorskip("pillow_heif")
    buffer = io.BytesIO()
    smooth = rgb().resize((160, 120), Image.Resampling.BICUBIC)
    pillow_heif.from_pillow(smooth).save(buffer, quality=95)
    kept, picture = to_rgb_file(buffer.getvalue())
    assert "HEIF" not in Image.OPEN  # nothing is registered for the rest of the program
    assert kept.startswith(b"\x89PNG")
    assert np.abs(np.asarray(picture).astype(int) - np.asarray(smooth)).mean() < 8
    with pytest.raises(UnreadableImageError, match="damaged"):
        decode_image(HEIC)


@pytest.mark.parametrize("error", [AssertionError, MemoryError, RecursionError, ZeroDivisionError, zlib.error])
def test_whatever_a_decoder_raises_is_one_error(error: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(Image, "open", fail)
    with pytest.raises(UnreadableImageError, match=f"damaged.*{error.__name__}"):
        decode_image(encoded(rgb(), "PNG"))


@pytest.mark.parametrize("format", ["JPEG", "PNG", "BMP", "WEBP", "GIF", "TIFF", "AVIF"])
def test_a_truncated_file_is_rejected(format: str) -> None:
    data = encoded(rgb().resize((64, 64)), format)
    with pytest.raises(UnreadableImageError, match=r"damaged or truncated|not an image"):
        to_rgb_file(data[: len(data) // 2])


def test_float_samples_are_rejected() -> None:
    with pytest.raises(UnreadableImageError, match=r"32-bit float .* 8 or 16 bits"):
        decode_image(encoded(rgb().convert("F"), "TIFF"))


@pytest.mark.parametrize("size", [(50_000, 50_000), (MAX_PIXELS + 1, 1), (9_500, 9_500), (2**31 - 1, 2**31 - 1)])
def test_a_decompression_bomb_is_rejected_before_it_is_unpacked(size: tuple[int, int]) -> None:
    start = time.perf_counter()
    with pytest.raises(UnreadableImageError, match="larger than 89,478,485 pixels"):
        decode_image(png_that_declares(*size))
    assert time.perf_counter() - start < 5  # seconds


def test_an_image_without_pixels_is_rejected() -> None:
    with pytest.raises(UnreadableImageError, match=r"damaged or truncated|not an image"):
        decode_image(png_that_declares(0, 5))


def _damage(data: bytes, cut: float, flips: list[tuple[float, int]]) -> bytes:
    damaged = bytearray(data[: max(1, round(len(data) * cut))])
    for place, value in flips:
        damaged[int(place * (len(damaged) - 1))] = value
    return bytes(damaged)


places = st.floats(0, 1) | st.floats(0, 0.1)


@settings(max_examples=400)
@given(
    name=st.sampled_from([*plain_files(), *special_files()]),
    cut=st.just(1.0) | st.floats(0, 1),
    flips=st.lists(st.tuples(places, st.integers(0, 255)), max_size=6),
)
def test_a_damaged_file_is_decoded_or_raises_no_other_error(
    name: str, cut: float, flips: list[tuple[float, int]]
) -> None:
    data = _damage((plain_files() | special_files())[name], cut, flips)
    try:
        kept, picture = to_rgb_file(data)
    except UnreadableImageError:
        return
    assert picture.mode == "RGB"
    assert min(picture.size) > 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, on a damaged file that it still shows
        seen = decoded_by_datasets(kept)
    assert (seen.mode, seen.size, seen.tobytes()) == (picture.mode, picture.size, picture.tobytes())


@settings(max_examples=100)
@given(data=st.binary(max_size=300))
def test_random_bytes_raise_no_other_error(data: bytes) -> None:
    with pytest.raises(UnreadableImageError):
        decode_image(data)


def test_decoding_in_threads_leaves_the_warning_filters_unchanged():
    before, pause = list(warnings.filters), sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # seconds: threads take turns as often as can be
    try:
        with ThreadPoolExecutor(8) as threads:
            found = list(threads.map(to_rgb, [rgb() for _ in range(400)]))
    finally:
        sys.setswitchinterval(pause)
    assert {picture.tobytes() for picture in found} == {rgb().tobytes()}
    assert warnings.filters == before
