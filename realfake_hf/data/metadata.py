"""Read the properties of image files without decoding their pixels.

File properties (format, mode, size, JPEG tables) are unrelated to content. If they differ between real and fake
images, a detector can learn the codec instead of the generator (Grommelt et al., 2024, "Fake or JPEG?", arXiv
2403.17608). File names are not included, since no loader passes them to a model. `realfake_hf.data.provenance` reads
what a file says of its origin.
"""

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from realfake_hf.data.decoding import Opened, UnreadableImageError, open_image
from realfake_hf.data.structure import gif_images
from realfake_hf.labels import LABEL_NAMES
from realfake_hf.parallel import map_in_processes

if TYPE_CHECKING:
    from realfake_hf.data.folders import Record
    from realfake_hf.data.loading import Reader

PROPERTIES: Final = (
    "format", "mode", "width", "height", "aspect", "bytes", "bytes_per_pixel", "jpeg_tables", "jpeg_luminance",
    "in_passes", "exif",
)  # fmt: skip

_GIF_BLOCKS: Final = 2**20  # that are walked for a second frame: 256 MiB as encoders write them

Column = NDArray[Any]
Property = str | float | bool


@dataclass(frozen=True)
class FileProperties:
    """The properties of n image files; the columns are arrays of the `header_properties`, (n,), by name.

    The digest, (n,), is the SHA-256 of each file. `as_stored` means that the files are from rows of a Hugging Face
    data set, whose author may have re-encoded them. Files whose header cannot be read are counted as unreadable.
    """

    name: str
    as_stored: bool
    is_fake: NDArray[np.bool_]
    digest: NDArray[np.str_]
    columns: dict[str, Column]
    unreadable: int


def read_file_properties(
    source: str | os.PathLike[str], *, labels: str | None = None, limit: int | None = None, seed: int = 0
) -> FileProperties:
    """Read the properties of the files of a source; `labels` as for `load_images`.

    The files are read from the folder or archive itself, since `load_images` re-encodes some of them as PNG. A limit
    is the number of files to draw at random, with balanced labels if possible.
    """
    from realfake_hf.data.hub import HubRows
    from realfake_hf.data.loading import find_source

    if limit is not None and limit < 1:
        raise ValueError(f"expected a limit of 1 file or more; found {limit}. Omit it to read all files.")
    resolved = find_source(source, labels=labels)
    records = _draw(resolved.records(), limit, np.random.default_rng(seed))
    read = partial(_read_properties, resolved.reader)
    chunks = map_in_processes(read, records, description=f"file properties of {resolved.name}")
    rows = [row for _, chunk in chunks for row in chunk]
    is_fake = np.array([record.label == "FAKE" for record in records])
    return _to_columns(rows, is_fake, name=resolved.name, as_stored=isinstance(resolved.reader, HubRows))


def properties_of_files(files: Sequence[bytes], is_fake: NDArray[np.bool_], *, name: str) -> FileProperties:
    """Read the properties of whole files stored in the rows of the data set `name`, given their labels (n,)."""
    rows = [_properties(partial(bytes, data)) for data in files]
    return _to_columns(rows, is_fake, name=name, as_stored=True)


def header_properties(data: bytes) -> dict[str, Property]:
    """Read each of `PROPERTIES` of a file.

    The format and mode are Pillow's names, but a JPEG with more images (MPO) is JPEG; width and height are pixels;
    `bytes` is the size of the file; `jpeg_tables` is a digest of all quantization tables, or `none`; `jpeg_luminance`
    is the mean of the first one, or NaN; `in_passes` means progressive or interlaced; `exif` means that the header
    has an EXIF block.

    Raises:
        UnreadableImageError: the file is not an image, or its header is damaged.
    """
    opened = open_image(data, load=False)
    image = opened.image
    quantization: Mapping[int, Sequence[int]] = getattr(image, "quantization", None) or {}
    tables = {key: list(quantization[key]) for key in sorted(quantization)}
    return {
        "format": _format(opened),
        "mode": image.mode,
        "width": image.width,
        "height": image.height,
        "aspect": image.width / image.height,
        "bytes": len(data),
        "bytes_per_pixel": len(data) / (image.width * image.height),
        "jpeg_tables": hashlib.sha256(repr(tables).encode()).hexdigest()[:8] if tables else "none",
        "jpeg_luminance": float(np.mean(tables[min(tables)])) if tables else float("nan"),
        "in_passes": bool(image.info.get("progressive") or image.info.get("interlace")),
        "exif": bool(image.info.get("exif")),
    }


@dataclass(frozen=True)
class FileMetadata:
    """The header of a file.

    Format and mode are Pillow's names; width and height are pixels before the EXIF orientation is applied.
    """

    format: str
    mode: str
    width: int
    height: int
    n_bytes: int
    has_more_frames: bool


def read_metadata(data: bytes) -> FileMetadata:
    """Read the header of an image file, without decoding its pixels.

    Raises:
        UnreadableImageError: the file is not an image, or its header is damaged.
    """
    opened = open_image(data, load=False)
    image = opened.image
    return FileMetadata(
        format=_format(opened),
        mode=image.mode,
        width=image.width,
        height=image.height,
        n_bytes=len(data),
        has_more_frames=_has_more_frames(image, data),
    )


def _has_more_frames(image: Image.Image, data: bytes) -> bool:
    if image.format == "GIF":  # Pillow would walk all frames
        images = list(islice(gif_images(data, limit=_GIF_BLOCKS), 2))
        return len(images) == 2 and images[1] <= _GIF_BLOCKS  # noqa: PLR2004
    return image.format != "MPO" and bool(getattr(image, "is_animated", False))


def _format(opened: Opened) -> str:
    return "JPEG" if opened.image.format == "MPO" else str(opened.image.format)


def _to_columns(
    rows: Sequence[Mapping[str, Property]], is_fake: NDArray[np.bool_], *, name: str, as_stored: bool
) -> FileProperties:
    readable = [row for row in rows if row]
    if not readable:
        raise ValueError(
            f"expected image files with a readable header in {name}; found none among {len(rows):,}. Download the "
            "data set again."
        )
    return FileProperties(
        name=name,
        as_stored=as_stored,
        is_fake=is_fake[[bool(row) for row in rows]],
        digest=np.array([row["digest"] for row in readable]),
        columns={column: np.array([row[column] for row in readable]) for column in PROPERTIES},
        unreadable=len(rows) - len(readable),
    )


def _read_properties(reader: "Reader", records: "Sequence[Record]") -> list[dict[str, Property]]:
    return [_properties(partial(reader.read, record.key)) for record in records]


def _properties(read: Callable[[], bytes]) -> dict[str, Property]:
    """Return the header properties and the SHA-256 of a file, or nothing if its header cannot be read."""
    try:
        data = read()
        return header_properties(data) | {"digest": hashlib.sha256(data).hexdigest()}
    except (UnreadableImageError, OSError):
        return {}


def _draw(records: "Sequence[Record]", limit: int | None, generator: np.random.Generator) -> "list[Record]":
    """Draw records, half of them real if there are enough of both labels."""
    if limit is None or limit >= len(records):
        return list(records)
    by_label = [[record for record in records if record.label == label] for label in LABEL_NAMES]
    drawn: list[Record] = []
    for side, share in zip(sorted(by_label, key=len), (limit // 2, limit), strict=True):  # the smaller class first
        order = generator.permutation(len(side))[: min(share, limit - len(drawn))]
        drawn += [side[position] for position in order]
    return drawn
