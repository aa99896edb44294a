"""From an uploaded file to a picture, or to a sentence that says why not; limits hold before anything is decoded."""

from pathlib import Path
from typing import Final

from PIL import Image

from realfake_hf.data.decoding import UnreadableImageError, decode_image
from realfake_hf.data.metadata import FileMetadata, read_metadata

MOST_BYTES: Final = 32 * 2**20
MOST_PIXELS: Final = 64_000_000


class RefusedError(ValueError):
    """A file that gets no verdict; the message says why, in a sentence for the page."""


def open_upload(path: str) -> tuple[Image.Image, FileMetadata]:
    """Read an uploaded file, whatever its name says it is.

    Raises:
        RefusedError: it is too large, or no picture that can be read.
    """
    data, claims = read_header(path)
    try:
        return decode_image(data), claims
    except UnreadableImageError as error:
        raise RefusedError(_sentence(str(error))) from error


def read_header(path: str) -> tuple[bytes, FileMetadata]:
    """Read an uploaded file, and what its header says, without decoding its pixels.

    Raises:
        RefusedError: it is too large, or its header is not that of a picture.
    """
    file = Path(path)
    if file.stat().st_size > MOST_BYTES:
        size = file.stat().st_size / 2**20
        raise RefusedError(f"No verdict: the file has {size:.0f} MiB; this page takes up to {MOST_BYTES // 2**20}.")
    data = file.read_bytes()
    try:
        claims = read_metadata(data)
    except Exception as error:  # damaged headers raise anything; the decoder may know better what is wrong
        raise RefusedError(_reason(data)) from error
    if claims.width * claims.height > MOST_PIXELS:
        raise RefusedError(
            f"No verdict: the picture has {claims.width:,} x {claims.height:,} pixels; this page takes up to "
            f"{MOST_PIXELS // 1_000_000} million. Save a smaller copy, and mind that shrinking removes what "
            "detectors look for."
        )
    return data, claims


def _reason(data: bytes) -> str:
    try:
        decode_image(data)
    except UnreadableImageError as error:
        return _sentence(str(error))
    return "No verdict: what the file says of itself cannot be read."


def _sentence(reason: str) -> str:
    return f"No verdict: {reason.rstrip('.')}."
