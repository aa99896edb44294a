"""Decode image files of any common format and mode into upright RGB images."""

import hashlib
import io
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

MAX_PIXELS: Final = 89_478_485  # Pillow's own limit: a quarter of a GiB as RGB
MAX_BYTES: Final = 256 * 1024**2
FORMATS: Final = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF", "JPEG2000")  # need no other program

_DECODER_ERRORS = (
    OSError, ValueError, SyntaxError, EOFError, IndexError, KeyError, TypeError, OverflowError, AttributeError,
    RuntimeError, struct.error, zlib.error, Image.DecompressionBombError, Image.DecompressionBombWarning,
)  # fmt: skip  # raised by Pillow's decoders on damaged files
_WARNING_FILTERS: Final = threading.RLock()
_EIGHT_BITS: Final = (np.arange(65536) / 257).round().astype(np.uint8)  # 65535 / 255 = 257


class UnreadableImageError(ValueError):
    """A file cannot be decoded to an image, for the reason in the message."""


def decode_image(data: bytes) -> Image.Image:
    """Decode an image file into an upright RGB image.

    The format is detected from the bytes, the EXIF orientation is applied, and transparency is composited on white.
    Only the first frame of an animation is decoded.

    Raises:
        UnreadableImageError: the file is empty, not an image, damaged, truncated, or larger than `MAX_PIXELS`.
    """
    return to_rgb(_open(data))


def to_rgb_file(data: bytes) -> tuple[bytes, Image.Image]:
    """Return a file that every reader decodes to the same RGB image, and that image.

    Plain RGB files are returned unchanged. All others (transparent, palette, greyscale, CMYK, 16-bit, rotated by EXIF,
    animated) are decoded by `decode_image` and re-encoded as lossless PNG.

    Raises:
        UnreadableImageError: see `decode_image`.
    """
    opened = _open(data)
    with _decoder_errors():
        is_special = _is_rotated(opened) or opened.has_transparency_data or getattr(opened, "n_frames", 1) > 1
        image = _flatten(opened)
    if opened.mode == "RGB" and not is_special:
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


def _open(data: bytes) -> Image.Image:
    if not data:
        raise UnreadableImageError("the file is empty (0 bytes)")
    with _decoder_errors():
        image = Image.open(io.BytesIO(data), formats=FORMATS)
        if image.width * image.height > MAX_PIXELS:
            raise Image.DecompressionBombError(f"{image.width}x{image.height} pixels")
        image.load()
    return image


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
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UnreadableImageError(f"the image is larger than {MAX_PIXELS:,} pixels: {error}") from error
    except UnidentifiedImageError as error:
        raise UnreadableImageError(f"not an image file ({', '.join(FORMATS)})") from error
    except _DECODER_ERRORS as error:
        reason = str(error).replace("\n", " ").strip()[:200] or type(error).__name__
        raise UnreadableImageError(f"damaged or truncated image file: {reason}") from error


def _is_rotated(image: Image.Image) -> bool:
    return bool(image.getexif().get(ExifTags.Base.Orientation, 1) != 1)  # 1: upright


def _flatten(image: Image.Image) -> Image.Image:
    if _is_rotated(image):  # `exif_transpose` would also copy upright images
        image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):  # 16 bits per sample, in a 16- or 32-bit container
        samples = np.clip(np.asarray(image), 0, 65535)
        grey = _EIGHT_BITS[samples]
        grey[samples == image.info.get("transparency", -1)] = 255  # the transparent grey level becomes white
        return Image.fromarray(grey).convert("RGB")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        white = Image.new("RGBA", layer.size, "white")
        return Image.alpha_composite(white, layer).convert("RGB")
    if image.mode == "F":
        raise UnreadableImageError("32-bit float samples have no fixed range; save the image with 8 or 16 bits")
    return image.convert("RGB") if image.mode != "RGB" else image
