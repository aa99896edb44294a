"""From the bytes of an image file to an upright RGB picture, whatever the file's format and mode."""

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

MAX_PIXELS: Final = 89_478_485  # Pillow's own bound: a quarter of a GiB as RGB
MAX_BYTES: Final = 256 * 1024**2
FORMATS: Final = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF", "JPEG2000")  # none runs another program

_BROKEN_FILE_ERRORS = (
    OSError, ValueError, SyntaxError, EOFError, IndexError, KeyError, TypeError, OverflowError, AttributeError,
    RuntimeError, struct.error, zlib.error, Image.DecompressionBombError, Image.DecompressionBombWarning,
)  # fmt: skip  # what Pillow's decoders were seen to raise on damaged input


_ONE_AT_A_TIME: Final = threading.RLock()
_EIGHT_BITS: Final = (np.arange(65536) / 257).round().astype(np.uint8)  # 65535 / 255 = 257


class UnreadableImageError(ValueError):
    """The bytes are not a picture that can be used; the message says why."""


def decode_image(data: bytes) -> Image.Image:
    """Decode an image file into an upright RGB picture.

    The format is read from the bytes, never from a file name. Of an animation the first frame counts.

    Args:
        data: the whole file.

    Returns:
        The picture in mode RGB, loaded, turned as its EXIF orientation says, transparency laid on white.

    Raises:
        UnreadableImageError: the file is empty, not an image, damaged, cut short, or larger than `MAX_PIXELS`.
    """
    return to_rgb(_open(data))


def to_rgb_file(data: bytes) -> tuple[bytes, Image.Image]:
    """Give the bytes of a file that every reader decodes to the same RGB picture, and that picture.

    A plain RGB file passes unchanged. Any other (transparent, palette, greyscale, CMYK, 16-bit, rotated by EXIF,
    animated) becomes a lossless PNG of what `decode_image` makes of it.

    Raises:
        UnreadableImageError: as `decode_image`.
    """
    opened = _open(data)
    with _refusing_broken():
        plain = opened.mode == "RGB" and not _is_special(opened)
        picture = _flatten(_upright(opened))
    if plain:
        return data, picture
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", compress_level=1, icc_profile=None)  # a profile of CMYK would not fit RGB
    return buffer.getvalue(), picture


def to_rgb(image: Image.Image) -> Image.Image:
    """Turn a picture of any Pillow mode upright and into 8-bit RGB, transparency laid on white.

    A picture that is all of this is given back itself, not a copy.

    Raises:
        UnreadableImageError: the mode holds no picture to look at (32-bit float), or the data are damaged.
    """
    with _refusing_broken():
        image.load()
        return _flatten(_upright(image))


def pixel_hash(picture: Image.Image) -> str:
    """SHA-256 of an RGB picture's size and pixels: equal for equal pictures, whatever file they came in."""
    width, height = picture.size
    return hashlib.sha256(f"{width}x{height}:".encode() + picture.tobytes()).hexdigest()


def _open(data: bytes) -> Image.Image:
    if not data:
        raise UnreadableImageError("the file is empty (0 bytes)")
    with _refusing_broken():
        image = Image.open(io.BytesIO(data), formats=FORMATS)
        if image.width * image.height > MAX_PIXELS:
            raise Image.DecompressionBombError(f"{image.width}x{image.height} pixels")
        image.load()
    return image


@contextmanager
def _refusing_broken() -> Iterator[None]:
    """Turn what Pillow raises on a bad file into `UnreadableImageError`, and keep its warnings to itself.

    Python keeps one list of warning filters for all threads, so that one thread at a time may change it.
    """
    try:
        with _ONE_AT_A_TIME, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            yield
    except UnreadableImageError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UnreadableImageError(f"the picture is larger than {MAX_PIXELS:,} pixels: {error}") from error
    except UnidentifiedImageError as error:
        raise UnreadableImageError(f"not an image file ({', '.join(FORMATS)})") from error
    except _BROKEN_FILE_ERRORS as error:
        raise UnreadableImageError(f"not a whole image file: {_reason(error)}") from error


def _upright(image: Image.Image) -> Image.Image:
    """The picture itself where nothing is to be turned: `exif_transpose` would copy it all the same."""
    return ImageOps.exif_transpose(image) if _is_turned(image) else image


def _is_turned(image: Image.Image) -> bool:
    return bool(image.getexif().get(ExifTags.Base.Orientation, 1) != 1)  # 1: upright


def _is_special(image: Image.Image) -> bool:
    """Say whether a plain reader would show this file otherwise than `to_rgb` does."""
    return _is_turned(image) or image.has_transparency_data or getattr(image, "n_frames", 1) > 1


def _flatten(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bits a sample, in a 16- or 32-bit container
        return _from_16_bits(image)
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        white = Image.new("RGBA", layer.size, "white")
        return Image.alpha_composite(white, layer).convert("RGB")
    if image.mode == "F":
        raise UnreadableImageError("32-bit float samples have no fixed range; save it with 8 or 16 bits")
    return image.convert("RGB") if image.mode != "RGB" else image


def _from_16_bits(image: Image.Image) -> Image.Image:
    samples = np.clip(np.asarray(image), 0, 65535)
    grey = _EIGHT_BITS[samples]
    grey[samples == image.info.get("transparency", -1)] = 255  # the one grey that stands for nothing is laid on white
    return Image.fromarray(grey).convert("RGB")


def _reason(error: BaseException) -> str:
    text = str(error).replace("\n", " ").strip()
    return text[:200] or type(error).__name__
