"""What the files of a source are, before any picture is decoded: format, mode, size, bytes, JPEG tables.

None of it says what a picture shows. Where it tells real from fake all the same, a detector can learn the codec
instead of the generator (Grommelt et al., 2024, "Fake or JPEG?", arXiv 2403.17608). File names are no facts
here: no loader shows them to a model.
"""

import hashlib
import io
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

from realfake_hf.data.decoding import FORMATS, UnreadableImageError
from realfake_hf.data.folders import Record
from realfake_hf.data.hub import HubRows
from realfake_hf.data.ingest import Reader
from realfake_hf.data.loading import find_source
from realfake_hf.labels import LABEL_NAMES
from realfake_hf.parallel import map_in_processes

PROPERTIES: Final = (
    "format", "mode", "width", "height", "aspect", "bytes", "bytes_per_pixel", "jpeg_tables", "jpeg_luminance",
    "in_passes", "exif",
)  # fmt: skip

_BROKEN_HEADER_ERRORS = (UnreadableImageError, OSError, ValueError, OverflowError, Image.DecompressionBombError)

Column = NDArray[Any]
Fact = str | float | bool


@dataclass(frozen=True)
class FileProperties:
    """The facts of n picture files, one entry a file in every array.

    Attributes:
        name: of the source.
        as_stored: the files are those of an HF data set's rows. Whoever wrote them may have encoded the pictures anew,
            so the facts need not be those of the original files.
        is_fake: (n,)
        digest: (n,) SHA-256 of each file: equal for equal files.
        columns: each of `PROPERTIES`, (n,): `format` (as Pillow calls it), `mode` and `jpeg_tables` (a digest of all
            quantisation tables; `none` where it is no JPEG) are strings; `width` and `height` are pixels; `aspect` is
            width / height; `bytes` is the whole file; `jpeg_luminance` is the mean of the first quantisation table,
            NaN where it is no JPEG; `in_passes` says progressive or interlaced; `exif` whether the header has a block.
        unreadable: files that are left out, as their header cannot be read.
    """

    name: str
    as_stored: bool
    is_fake: NDArray[np.bool_]
    digest: NDArray[np.str_]
    columns: dict[str, Column]
    unreadable: int

    def __len__(self) -> int:
        return len(self.is_fake)


def read_file_properties(source: str | os.PathLike[str], *, limit: int | None = None, seed: int = 0) -> FileProperties:
    """Read the facts of a source's files: those that lie in the folder or archive, not what `load_images` keeps.

    `load_images` keeps plain RGB files byte for byte and turns all others into PNG, so its rows would not do.

    Args:
        source: as `load_images` takes it.
        limit: at most so many files, as evenly of both labels as there are; None means all.
        seed: of the draw of these.

    Raises:
        FileNotFoundError: there is no such source.
        ValueError: the source is ambiguous or unsafe, or no header can be read.
    """
    if limit is not None and limit < 1:
        raise ValueError(f"wanted a limit of 1 file or more; found {limit}. Leave it out for all files.")
    found = find_source(source)
    records = _draw(found.records(), limit, np.random.default_rng(seed))
    read = partial(_facts_of, found.reader)
    rows = [
        row for _, chunk in map_in_processes(read, records, description=f"file facts of {found.name}") for row in chunk
    ]
    is_fake = np.array([record.label == "FAKE" for record in records])
    return _together(rows, is_fake, name=found.name, as_stored=isinstance(found.reader, HubRows))


def properties_of_files(files: Sequence[bytes], is_fake: NDArray[np.bool_], *, name: str) -> FileProperties:
    """Read the facts of files as they are stored in a data set's rows.

    Args:
        files: their bytes.
        is_fake: (n,) their labels.
        name: of the data set.

    Raises:
        ValueError: no header can be read.
    """
    return _together([_facts_or_nothing(data) for data in files], is_fake, name=name, as_stored=True)


def _together(
    rows: Sequence[Mapping[str, Fact]], is_fake: NDArray[np.bool_], *, name: str, as_stored: bool
) -> FileProperties:
    kept = [row for row in rows if row]
    if not kept:
        raise ValueError(
            f"wanted picture files with a readable header in {name}; found none among {len(rows):,}. Get the data set "
            "anew."
        )
    return FileProperties(
        name=name,
        as_stored=as_stored,
        is_fake=is_fake[[bool(row) for row in rows]],
        digest=np.array([row["digest"] for row in kept]),
        columns={fact: np.array([row[fact] for row in kept]) for fact in PROPERTIES},
        unreadable=len(rows) - len(kept),
    )


def header_properties(data: bytes) -> dict[str, Fact]:
    """Read each of `PROPERTIES` from a file's bytes, without decoding its pixels.

    Raises:
        OSError: it is no image file. Pillow raises others of its own on damaged headers.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of large pictures and odd metadata; nothing is decoded here
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    tables: Mapping[int, Sequence[int]] = getattr(image, "quantization", None) or {}
    return {
        "format": str(image.format),
        "mode": image.mode,
        "width": image.width,
        "height": image.height,
        "aspect": image.width / image.height,
        "bytes": len(data),
        "bytes_per_pixel": len(data) / (image.width * image.height),
        "jpeg_tables": _short_digest({key: list(tables[key]) for key in sorted(tables)}) if tables else "none",
        "jpeg_luminance": float(np.mean(tables[min(tables)])) if tables else float("nan"),
        "in_passes": bool(image.info.get("progressive") or image.info.get("interlace")),
        "exif": "exif" in image.info,
    }


def _short_digest(tables: Mapping[int, Sequence[int]]) -> str:
    return hashlib.sha256(repr(tables).encode()).hexdigest()[:8]


def _facts_of(reader: Reader, records: Sequence[Record]) -> list[dict[str, Fact]]:
    return [_facts_or_nothing(_bytes_or_nothing(reader, record)) for record in records]


def _bytes_or_nothing(reader: Reader, record: Record) -> bytes:
    try:
        return reader.read(record.key)
    except _BROKEN_HEADER_ERRORS:
        return b""


def _facts_or_nothing(data: bytes) -> dict[str, Fact]:
    try:
        return header_properties(data) | {"digest": hashlib.sha256(data).hexdigest()}
    except _BROKEN_HEADER_ERRORS:
        return {}


def _draw(records: Sequence[Record], limit: int | None, generator: np.random.Generator) -> list[Record]:
    """Draw records, half of them real where both labels have enough."""
    if limit is None or limit >= len(records):
        return list(records)
    by_label = [[record for record in records if record.label == label] for label in LABEL_NAMES]
    fewer = min(by_label, key=len)
    more = max(reversed(by_label), key=len)
    of_fewer = min(len(fewer), limit // 2)
    drawn = [fewer[place] for place in generator.permutation(len(fewer))[:of_fewer]]
    return drawn + [more[place] for place in generator.permutation(len(more))[: limit - of_fewer]]


# A manifest store's identifier in a JUMBF box, whichever container holds the box (C2PA specification 2.1, 11.1.4.2)
_C2PA_STORE: Final = bytes.fromhex("63327061 0011 0010 8000 00aa00389b71")
_AI_MEDIA: Final = b"trainedAlgorithmicMedia"  # IPTC's digital source type, alone or at the end of "compositeWith..."
_GENERATOR_KEYS: Final = {
    "parameters": "Stable Diffusion web UI", "prompt": "ComfyUI", "workflow": "ComfyUI",
    "invokeai_metadata": "InvokeAI", "sd-metadata": "InvokeAI", "dream": "InvokeAI",
}  # fmt: skip  # of text chunks
_GENERATOR_WORDS: Final = (
    "novelai", "midjourney", "dall-e", "dall·e", "stable diffusion", "comfyui", "invokeai", "adobe firefly", "imagen",
    "flux.1", "openai", "negative prompt:", "cfg scale:",
)  # fmt: skip  # of free text, in lower case
_MOST_SHOWN: Final = 80  # characters of a field


@dataclass(frozen=True)
class FileMetadata:
    """What one file says of itself, and what it is by its header.

    Attributes:
        format: as Pillow calls it.
        mode: Pillow's, such as RGB, L, P or CMYK.
        width: pixels, before any turn that EXIF asks for.
        height: likewise.
        n_bytes: of the file.
        frames: 1, or more of an animation.
        has_exif: whether it carries EXIF fields.
        camera: maker and model that EXIF names, cut after 80 characters; None where it names none.
        software: likewise.
        has_content_credentials: whether it carries a C2PA manifest store; its signatures are not checked.
        generator_hints: where it says that a generator made it, such as `text chunk "parameters" (ComfyUI)`.
    """

    format: str
    mode: str
    width: int
    height: int
    n_bytes: int
    frames: int
    has_exif: bool
    camera: str | None
    software: str | None
    has_content_credentials: bool
    generator_hints: tuple[str, ...]


def read_metadata(data: bytes) -> FileMetadata:
    """Read what a picture file claims, without decoding its pixels.

    Args:
        data: the whole file.

    Raises:
        OSError: it is no image file. Pillow raises others of its own on damaged headers.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of odd metadata and large pictures; nothing is decoded here
        image = Image.open(io.BytesIO(data), formats=FORMATS)
        exif = image.getexif()
        inner = exif.get_ifd(ExifTags.IFD.Exif)
    fields = {str(ExifTags.TAGS.get(tag, tag)): _text(value) for tag, value in {**exif, **inner}.items()}
    texts = {str(name): _text(value) for name, value in image.info.items() if isinstance(value, str)}
    return FileMetadata(
        format=str(image.format),
        mode=image.mode,
        width=image.width,
        height=image.height,
        n_bytes=len(data),
        frames=getattr(image, "n_frames", 1),
        has_exif=bool(exif),
        camera=_shown(" ".join(filter(None, (fields.get("Make"), fields.get("Model"))))),
        software=_shown(fields.get("Software") or texts.get("Software", "")),
        has_content_credentials=_C2PA_STORE in data,
        generator_hints=tuple(dict.fromkeys(_generator_claims(data, texts, fields))),
    )


def _generator_claims(data: bytes, texts: dict[str, str], fields: dict[str, str]) -> Iterator[str]:
    if _AI_MEDIA in data:
        yield "IPTC digital source type trainedAlgorithmicMedia"
    for name, text in texts.items():
        if name.lower() in _GENERATOR_KEYS:
            yield f'text chunk "{name}" ({_GENERATOR_KEYS[name.lower()]})'
        elif any(word in text.lower() for word in _GENERATOR_WORDS):
            yield f'text chunk "{_shown(name)}"'
    for name, text in fields.items():
        if any(word in text.lower() for word in _GENERATOR_WORDS):
            yield f'EXIF field "{name}"'


def _text(value: object) -> str:
    """A field as text; comments of EXIF say first, in 8 bytes, how the others are to be read."""
    if isinstance(value, bytes):
        body = value[8:] if value[:7] in (b"UNICODE", b"ASCII\0\0") else value
        return body.replace(b"\0", b"").decode("utf-8", "replace")
    return str(value)


def _shown(text: str) -> str | None:
    printable = "".join(character for character in text if character.isprintable()).strip()
    return f"{printable[:_MOST_SHOWN]}..." if len(printable) > _MOST_SHOWN else printable or None
