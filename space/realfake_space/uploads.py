"""Read uploaded files. Size limits are checked before anything is decoded."""

from pathlib import Path
from typing import Final

from PIL import Image

from realfake_hf.data.decoding import UnreadableImageError, decode_image
from realfake_hf.data.metadata import FileMetadata, read_metadata

MAX_BYTES: Final = 32 * 2**20
MAX_PIXELS: Final = 64_000_000


class RejectedError(ValueError):
    """A file that gets no verdict; the message is shown on the page."""


def open_upload(path: str) -> tuple[Image.Image, FileMetadata]:
    """Decode an uploaded file, whatever its name.

    Raises:
        RejectedError: it is too large, or not a readable image.
    """
    data, metadata = read_header(path)
    try:
        return decode_image(data), metadata
    except UnreadableImageError as error:
        raise _rejected(error) from error


def read_header(path: str) -> tuple[bytes, FileMetadata]:
    """Read an uploaded file and its metadata, without decoding its pixels.

    Raises:
        RejectedError: it is too large, or its header is not that of an image.
    """
    file = Path(path)
    if file.stat().st_size > MAX_BYTES:
        size = file.stat().st_size / 2**20
        raise RejectedError(f"No verdict: the file has {size:.0f} MiB; the limit is {MAX_BYTES // 2**20} MiB.")
    data = file.read_bytes()
    try:
        metadata = read_metadata(data)
    except Exception as error:  # a damaged header can raise anything; the decoder may have a better message
        _reject_undecodable(data)
        raise RejectedError("No verdict: the metadata of the file cannot be read.") from error
    if metadata.width * metadata.height > MAX_PIXELS:
        raise RejectedError(
            f"No verdict: the image has {metadata.width:,} x {metadata.height:,} pixels; the limit is "
            f"{MAX_PIXELS // 1_000_000} million. Upload a smaller copy; note that downscaling removes traces that "
            "detectors look for."
        )
    return data, metadata


def _reject_undecodable(data: bytes) -> None:
    try:
        decode_image(data)
    except UnreadableImageError as error:
        raise _rejected(error) from error


def _rejected(error: UnreadableImageError) -> RejectedError:
    return RejectedError(f"No verdict: {str(error).rstrip('.')}.")
