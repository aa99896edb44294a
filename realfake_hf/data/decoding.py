"""Decode image files of any common format and mode into upright RGB images."""

import hashlib
import io
import struct
import threading
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import IO, Final, NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from realfake_hf.data.structure import (
    ORIENTATION,
    ExcessError,
    bounded,
    check_directories,
    check_limit,
    embedded_exif,
    exif_of_orientation,
    is_heif,
    read_orientation,
    without_metadata,
)

MAX_PIXELS: Final = 89_478_485  # Pillow's own limit: a quarter of a GiB as RGB
MAX_BYTES: Final = 256 * 1024**2
FORMATS: Final = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF", "JPEG2000")  # need no other program

_MAX_PIXELS_JPEG2000: Final = 32_000_000  # OpenJPEG needs 48 bytes for each
_BAND: Final = 2**22  # pixels that are composited at once

_DECODER_ERRORS = (
    OSError, ValueError, SyntaxError, EOFError, LookupError, TypeError, ArithmeticError, AttributeError, RuntimeError,
    AssertionError, MemoryError, struct.error, zlib.error, Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)  # fmt: skip  # raised by Pillow's decoders on damaged files
_WARNING_FILTERS: Final = threading.RLock()
_EIGHT_BITS: Final = (np.arange(65536) / 257).round().astype(np.uint8)  # 65535 / 255 = 257
_TRANSPOSITIONS: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # fmt: skip  # by orientation in EXIF
_ORIENTED: Final = ("exif", "xmp", "XML:com.adobe.xmp", "Raw profile type exif")  # metadata that hold an orientation


class UnreadableImageError(ValueError):
    """A file cannot be decoded to an image, for the reason in the message."""


class Opened(NamedTuple):
    """An open image file."""

    image: Image.Image  # the image; its metadata are safe to read with Pillow
    exif: bytes  # the EXIF block of the file; read it with `realfake_hf.data.structure` only
    is_whole: bool  # whether Pillow opened the file itself, and not a copy without metadata


def decode_image(data: bytes) -> Image.Image:
    """Decode an image file into an upright RGB image.

    The format is detected from the bytes, the EXIF orientation is applied, and transparency is composited on white.
    Only the first frame of an animation is decoded. Metadata that Pillow rejects are ignored. HEIC needs pillow-heif.

    Raises:
        UnreadableImageError: the file is empty, not an image, damaged, truncated, larger than `MAX_PIXELS`, or built
            to keep a decoder busy.
    """
    with _decoder_errors():
        return _flatten(_opened(data).image)


def to_rgb_file(data: bytes) -> tuple[bytes, Image.Image]:
    """Return a file that every reader decodes to the same RGB image, and that image.

    Plain RGB files are returned unchanged. All others (transparent, palette, greyscale, CMYK, 16-bit, rotated by EXIF,
    animated, HEIC, or with metadata that Pillow rejects) are decoded by `decode_image` and re-encoded as lossless PNG.

    Raises:
        UnreadableImageError: see `decode_image`.
    """
    with _decoder_errors():
        opened = _opened(data)
        is_plain = _is_plain(opened)
        image = _flatten(opened.image)
    if is_plain:
        return data, image
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", compress_level=1, icc_profile=None)  # a CMYK profile would not match RGB
    return buffer.getvalue(), image


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert an image of any Pillow mode to upright 8-bit RGB, with transparency composited on white.

    An upright RGB image is returned itself, not copied.

    Raises:
        UnreadableImageError: the mode is 32-bit float, or the data are damaged.
    """
    with _decoder_errors():
        image.load()
        return _flatten(image)


def pixel_hash(image: Image.Image) -> str:
    """Return the SHA-256 of an RGB image's size and pixels; it does not depend on the file format."""
    width, height = image.size
    return hashlib.sha256(f"{width}x{height}:".encode() + image.tobytes()).hexdigest()


def open_image(data: bytes, *, load: bool = True) -> Opened:
    """Open an image file, and decode its pixels unless `load` is false; its mode and orientation are kept."""
    with _decoder_errors():
        return _opened(data, load=load)


def xmp_of(image: Image.Image) -> bytes:
    """Return the XMP packet that Pillow found, or `b""`."""
    xmp = image.info.get("XML:com.adobe.xmp") or image.info.get("xmp")
    return xmp.encode() if isinstance(xmp, str) else xmp if isinstance(xmp, bytes) else b""


def _opened(data: bytes, *, load: bool = True) -> Opened:
    if not data:
        raise UnreadableImageError("the file is empty (0 bytes)")
    kept = bounded(data)
    try:
        image = _open(kept, load=load)
    except _DECODER_ERRORS:
        bare = without_metadata(kept)
        if bare == kept:
            raise
        kept, image = bare, _open(bare, load=load)
    own, found = _exif_of(image), embedded_exif(data) if kept is not data else b""
    is_whole = kept is data and (not own or _is_bounded(own))
    if not is_whole and (own or found):
        oriented = own or (b"" if image.format == "AVIF" else found)  # AVIF has orientation of its own
        image.info["exif"] = exif_of_orientation(read_orientation(oriented, xmp_of(image)))
    return Opened(image, found or own, is_whole)


def _open(data: bytes, *, load: bool) -> Image.Image:
    stream = io.BytesIO(data)
    image = _heif_opener()(stream) if is_heif(data) else Image.open(stream, formats=FORMATS)
    if load:
        n_pixels = image.width * image.height
        if n_pixels > MAX_PIXELS:
            raise Image.DecompressionBombError(f"{image.width}x{image.height} pixels")
        if image.format == "JPEG2000":
            check_limit(n_pixels, _MAX_PIXELS_JPEG2000, "pixels, the most for JPEG 2000")
        image.load()
    return image


def _heif_opener() -> Callable[[IO[bytes]], Image.Image]:
    try:
        from pillow_heif import HeifImageFile
    except ImportError as error:
        raise UnreadableImageError(
            "HEIC needs pillow-heif: install it with `pip install realfake-hf[heif]`, or save the image as JPEG"
        ) from error
    opener: Callable[[IO[bytes]], Image.Image] = HeifImageFile
    return opener


@contextmanager
def _decoder_errors() -> Iterator[None]:
    """Raise Pillow's errors on damaged files as `UnreadableImageError`, and silence its warnings.

    Warning filters are global to the process, so only one thread at a time may change them.
    """
    try:
        with _WARNING_FILTERS, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            yield
    except UnreadableImageError:
        raise
    except ExcessError as error:
        raise UnreadableImageError(str(error)) from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UnreadableImageError(f"the image is larger than {MAX_PIXELS:,} pixels: {error}") from error
    except UnidentifiedImageError as error:
        raise UnreadableImageError(f"not an image file ({', '.join(FORMATS)})") from error
    except _DECODER_ERRORS as error:
        reason = str(error).replace("\n", " ").strip()[:200] or type(error).__name__
        raise UnreadableImageError(f"damaged or truncated image file: {reason}") from error


def _is_plain(opened: Opened) -> bool:
    """Return whether every reader decodes the file of a loaded image to the same upright RGB image."""
    image = opened.image
    if not opened.is_whole or image.format not in (*FORMATS, "MPO") or image.mode != "RGB":
        return False
    if image.has_transparency_data or (image.format != "MPO" and getattr(image, "is_animated", False)):
        return False
    try:
        return image.info.keys().isdisjoint(_ORIENTED) or (
            bool(image.getexif().get(ORIENTATION, 1) == 1) and _orientation(image) == 1
        )
    except _DECODER_ERRORS:  # the file has EXIF that Pillow rejects
        return False


def _is_bounded(exif: bytes) -> bool:
    try:
        check_directories(exif)
    except ExcessError:
        return False
    return True


def _exif_of(image: Image.Image) -> bytes:
    """Return the EXIF block that Pillow found: in a field of its own, or in a text as ImageMagick writes it."""
    exif, profile = image.info.get("exif"), image.info.get("Raw profile type exif")
    if exif is None and isinstance(profile, str):
        with suppress(ValueError):
            return bytes.fromhex("".join(profile.split("\n")[3:]))
    return exif if isinstance(exif, bytes) else b""


def _orientation(image: Image.Image) -> int:
    return read_orientation(_exif_of(image), xmp_of(image))


def _upright(image: Image.Image) -> Image.Image:
    """Apply the orientation; `exif_transpose` would also copy upright images, and rewrite EXIF, which can fail."""
    if image.info.keys().isdisjoint(_ORIENTED) or (orientation := _orientation(image)) == 1:
        return image
    upright = image.transpose(_TRANSPOSITIONS[orientation])
    upright.info = {key: value for key, value in upright.info.items() if key not in _ORIENTED}
    return upright


def _flatten(image: Image.Image) -> Image.Image:
    image = _upright(image)
    if image.mode.startswith("I"):  # 16 bits per sample, in a 16- or 32-bit container
        samples = np.clip(np.asarray(image), 0, 65535)
        grey = _EIGHT_BITS[samples]
        grey[samples == image.info.get("transparency", -1)] = 255  # the transparent grey level becomes white
        return Image.fromarray(grey).convert("RGB")
    if image.has_transparency_data:
        return _on_white(image)
    if image.mode == "F":
        raise UnreadableImageError("32-bit float samples have no fixed range; save the image with 8 or 16 bits")
    return image.convert("RGB") if image.mode != "RGB" else image


def _on_white(image: Image.Image) -> Image.Image:
    """Composite an image on white, in bands, since three copies of a large image would fill the memory."""
    height = max(1, _BAND // image.width)
    if image.height > height:
        result = Image.new("RGB", image.size)
        for top in range(0, image.height, height):
            band = image.crop((0, top, image.width, min(top + height, image.height)))
            result.paste(_on_white(band), (0, top))
        return result
    layer = image.convert("RGBA")
    white = Image.new("RGBA", layer.size, "white")
    return Image.alpha_composite(white, layer).convert("RGB")
