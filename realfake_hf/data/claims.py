"""What a picture file says of itself: EXIF, Content Credentials, words that generators leave.

All of it can be removed. Nothing here is verified, and nothing of it reaches a model. A file without any of it is the
rule on the web, where platforms strip such data; a file with it may carry what someone put there.
"""

import io
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from PIL import ExifTags, Image

from realfake_hf.data.decoding import FORMATS

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
class FileClaims:
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
        says_generated: where it says that a generator made it, such as `text chunk "parameters" (ComfyUI)`.
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
    says_generated: tuple[str, ...]


def read_claims(data: bytes) -> FileClaims:
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
    return FileClaims(
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
        says_generated=tuple(dict.fromkeys(_generator_claims(data, texts, fields))),
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
