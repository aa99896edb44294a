"""Read uploaded files, in a process of `reader`. Limits are checked before anything is decoded."""

import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from PIL import Image

from realfake_hf.data.decoding import UnreadableImageError, decode_image
from realfake_hf.data.metadata import FileMetadata, read_metadata
from realfake_hf.data.provenance import Evidence, read_provenance

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MAX_BYTES: Final = 32 * 2**20
MAX_PIXELS: Final = 64_000_000
VIEW_SIDE: Final = 768  # pixels of the longer side of a view

Geometry = tuple[int, int, int]  # width, height, and filter of Pillow, of a processor that only resizes


class RejectedError(ValueError):
    """A file that gets no verdict; the message is shown on the page."""


@dataclass(frozen=True)
class Upload:
    """What was read of a file. Arrays are (height, width, 3) uint8."""

    metadata: FileMetadata  # of the file
    size: tuple[int, int]  # (width, height) of the upright image in pixels
    resized: "dict[Geometry, NDArray[np.uint8]]"  # the image in each geometry that was asked for
    view: "NDArray[np.uint8] | None" = None  # the image within `VIEW_SIDE` pixels, if it was asked for
    whole: "NDArray[np.uint8] | None" = None  # the image itself, if it was asked for


def open_upload(path: str, geometries: Sequence[Geometry] = (), *, view: bool = False, whole: bool = False) -> Upload:
    """Decode an uploaded file, whatever its name.

    Args:
        path: of the file.
        geometries: in which to return the image.
        view: return a view as well.
        whole: return the whole image as well.

    Raises:
        RejectedError: it is too large, or not a readable image.
    """
    import numpy as np

    data, metadata = read_header(path)
    image = _decode(data)
    size = image.size
    resized = {each: np.asarray(_resize(image, each)) for each in geometries}
    full = np.asarray(image) if whole else None
    if view:
        image.thumbnail((VIEW_SIDE, VIEW_SIDE))
    return Upload(metadata, size, resized, np.asarray(image) if view else None, full)


def upload_metadata(path: str) -> FileMetadata:
    """Return the metadata of an uploaded file; see `read_header`."""
    return read_header(path)[1]


def upload_provenance(path: str) -> tuple[Evidence, ...]:
    """Return what an uploaded file says of itself; see `read_bytes` and `read_provenance`."""
    return read_provenance(read_bytes(path))


def read_header(path: str) -> tuple[bytes, FileMetadata]:
    """Read an uploaded file and its metadata, without decoding its pixels.

    Raises:
        RejectedError: it is too large, or its header is not that of an image.
    """
    data = read_bytes(path)
    try:
        metadata = read_metadata(data)
    except MemoryError:
        raise
    except Exception as error:  # a damaged header can raise anything; the decoder may have a better message
        _decode(data)
        raise RejectedError("No verdict: the metadata of the file cannot be read.") from error
    if metadata.width * metadata.height > MAX_PIXELS:
        raise RejectedError(
            f"No verdict: the image has {metadata.width:,} x {metadata.height:,} pixels; the limit is "
            f"{MAX_PIXELS // 1_000_000} million. Upload a smaller copy; note that downscaling removes traces that "
            "detectors look for."
        )
    return data, metadata


def read_bytes(path: str) -> bytes:
    """Read a regular file of at most `MAX_BYTES`; never a link, a device or a pipe.

    Raises:
        RejectedError: it is missing, too large, or no regular file.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise RejectedError(f"No verdict: the file cannot be opened ({error.strerror}). Upload it again.") from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise RejectedError("No verdict: expected a regular file; found a folder, device or pipe.")
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            data = b"" if status.st_size > MAX_BYTES else file.read(MAX_BYTES + 1)  # it may grow
    finally:
        os.close(descriptor)
    size = max(status.st_size, len(data))
    if size > MAX_BYTES:
        raise RejectedError(f"No verdict: the file has {size / 2**20:.0f} MiB; the limit is {MAX_BYTES // 2**20} MiB.")
    return data


def _resize(image: Image.Image, geometry: Geometry) -> Image.Image:
    width, height, resample = geometry
    return image if image.size == (width, height) else image.resize((width, height), Image.Resampling(resample))


def _decode(data: bytes) -> Image.Image:
    try:
        return decode_image(data)
    except UnreadableImageError as error:
        raise RejectedError(f"No verdict: {str(error).rstrip('.')}.") from error
