"""From the bytes of an image file to an upright RGB picture, whatever the file's format and mode."""

import hashlib
import io
import struct
import warnings
import zlib
from typing import Final

import numpy as np
from PIL import Image, ImageOps

MAX_PIXELS: Final = 89_478_485  # Pillow's own bound: a quarter of a GiB as RGB
MAX_BYTES: Final = 256 * 1024**2

_BROKEN_FILE_ERRORS = (
    OSError, ValueError, SyntaxError, EOFError, IndexError, KeyError, TypeError, OverflowError, AttributeError,
    NotImplementedError, struct.error, zlib.error, Image.DecompressionBombError, Image.DecompressionBombWarning,
)  # fmt: skip  # what Pillow's decoders were seen to raise on damaged input


class UnreadablePictureError(ValueError):
    """The bytes are not a picture that can be used; the message says why."""


def read_picture(data: bytes) -> Image.Image:
    """Decode an image file into an upright RGB picture.

    The format is read from the bytes, never from a file name. Of an animation the first frame counts.

    Args:
        data: the whole file.

    Returns:
        The picture in mode RGB, loaded, turned as its EXIF orientation says, transparency laid on white.

    Raises:
        UnreadablePictureError: the file is empty, not an image, damaged, cut short, or larger than `MAX_PIXELS`.
    """
    return to_rgb(_open(data))


def usable_bytes(data: bytes) -> tuple[bytes, Image.Image]:
    """Give the bytes of a file that every reader decodes to the same RGB picture, and that picture.

    A plain RGB file passes unchanged. Any other (transparent, palette, greyscale, CMYK, 16-bit, rotated by EXIF,
    animated) becomes a lossless PNG of what `read_picture` makes of it.

    Raises:
        UnreadablePictureError: as `read_picture`.
    """
    opened = _open(data)
    plain = opened.mode == "RGB" and not _is_special(opened)
    picture = to_rgb(opened)
    if plain:
        return data, picture
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue(), picture


def to_rgb(image: Image.Image) -> Image.Image:
    """Turn a picture of any Pillow mode upright and into 8-bit RGB, transparency laid on white.

    Raises:
        UnreadablePictureError: the mode holds no picture to look at (32-bit float), or the data are damaged.
    """
    try:
        return _flatten(ImageOps.exif_transpose(image))
    except _BROKEN_FILE_ERRORS as error:
        raise UnreadablePictureError(f"the picture cannot be decoded: {_reason(error)}") from error


def pixel_hash(picture: Image.Image) -> str:
    """SHA-256 of an RGB picture's size and pixels: equal for equal pictures, whatever file they came in."""
    width, height = picture.size
    return hashlib.sha256(f"{width}x{height}:".encode() + picture.tobytes()).hexdigest()


def _open(data: bytes) -> Image.Image:
    if not data:
        raise UnreadablePictureError("the file is empty (0 bytes)")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(data))
            if image.width * image.height > MAX_PIXELS:
                raise Image.DecompressionBombError(f"{image.width}x{image.height} pixels")
            image.load()
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UnreadablePictureError(f"the picture is larger than {MAX_PIXELS:,} pixels: {error}") from error
    except _BROKEN_FILE_ERRORS as error:
        raise UnreadablePictureError(f"not a whole image file: {_reason(error)}") from error
    return image


def _is_special(image: Image.Image) -> bool:
    """Say whether a plain reader would show this file otherwise than `to_rgb` does."""
    turned = image.getexif().get(0x0112, 1) != 1  # EXIF orientation; 1 = upright
    return turned or image.has_transparency_data or getattr(image, "n_frames", 1) > 1


def _flatten(image: Image.Image) -> Image.Image:
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        white = Image.new("RGBA", layer.size, "white")
        return Image.alpha_composite(white, layer).convert("RGB")
    if image.mode.startswith("I"):  # 16 bits a sample, in a 16- or 32-bit container
        samples = np.asarray(image).astype(np.int64)
        return Image.fromarray((np.clip(samples, 0, 65535) / 257).round().astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise ValueError("32-bit float samples have no fixed range; save it with 8 or 16 bits")
    return image.convert("RGB") if image.mode != "RGB" else image


def _reason(error: BaseException) -> str:
    text = str(error).replace("\n", " ").strip()
    return text[:200] or type(error).__name__
