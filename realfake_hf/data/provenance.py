"""Read what an image file says of itself: Content Credentials, which are verified, and metadata, which cannot be.

Nothing here enters a score: all of it can be removed, and what is not signed can be forged.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib.resources import files
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Final, Literal
from xml.parsers import expat

from PIL import ExifTags

from realfake_hf.data.credentials import Credentials, CredentialsError, TrustListError, verify_credentials
from realfake_hf.data.decoding import open_image, xmp_of
from realfake_hf.data.structure import read_tags, with_early_metadata

Status = Literal["verified", "not verified", "invalid"]

TRUST_VARIABLE: Final = "REALFAKE_TRUST_LIST"
TRUST_LIST: Final = "c2pa_trust_list_2026-08-14.pem"  # beside this file
SOURCE_TYPES: Final = {  # https://cv.iptc.org/newscodes/digitalsourcetype/, and two of C2PA
    "digitalCapture": "a photograph by a digital camera",
    "computationalCapture": "a photograph computed from several frames of a digital camera",
    "negativeFilm": "a scan of a negative on film",
    "positiveFilm": "a scan of a positive on film",
    "print": "a scan of a print",
    "minorHumanEdits": "an original with small edits by a person",
    "humanEdits": "an original edited by a person without generative AI",
    "algorithmicallyEnhanced": "an original changed by an algorithm",
    "compositeWithTrainedAlgorithmicMedia": "edited with generative AI",
    "trainedAlgorithmicMedia": "created by generative AI",
    "algorithmicMedia": "created by an algorithm that was not trained on images",
    "dataDrivenMedia": "drawn from data",
    "digitalCreation": "made by a person with digital tools",
    "digitalArt": "made by a person with digital tools",
    "softwareImage": "made with software",
    "screenCapture": "a capture of a screen",
    "virtualRecording": "a recording of a virtual event",
    "composite": "composed of several elements",
    "compositeCapture": "composed of several photographs",
    "compositeSynthetic": "composed of several elements, of which at least one is synthetic",
    "trainedAlgorithmicData": "data created by generative AI",
    "empty": "no image content at the start",
}

_VERIFY: Final = "https://contentcredentials.org/verify"
_GOOGLE: Final = "https://support.google.com/gemini/answer/16722517"  # how to look for SynthID
_OPENAI: Final = "https://openai.com/verify"  # looks for SynthID in images of OpenAI
_MAKERS: Final = {
    "google": _GOOGLE, "gemini": _GOOGLE, "imagen": _GOOGLE, "openai": _OPENAI, "chatgpt": _OPENAI, "dall-e": _OPENAI,
    "dall·e": _OPENAI, "gpt-image": _OPENAI,
}  # fmt: skip  # words in lower case, and the page of the maker
_C2PA_STORE: Final = bytes.fromhex("63327061 0011 0010 8000 00aa00389b71")  # JUMBF type (C2PA 2.1, 11.1.4.2)
_AI_MEDIA: Final = ("compositeWithTrainedAlgorithmicMedia", "trainedAlgorithmicMedia")  # searched in all bytes
_AI_CODES: Final = (*_AI_MEDIA, "trainedAlgorithmicData")
_AI_SYSTEM: Final = "AI system"
_GENERATOR_KEYS: Final = {
    "parameters": "Stable Diffusion web UI", "prompt": "ComfyUI", "workflow": "ComfyUI",
    "invokeai_metadata": "InvokeAI", "sd-metadata": "InvokeAI", "dream": "InvokeAI",
}  # fmt: skip  # keys of text chunks
_GENERATOR_WORDS: Final = (
    "novelai", "midjourney", "dall-e", "dall·e", "stable diffusion", "comfyui", "invokeai", "adobe firefly",
    "google ai", "imagen 3", "imagen 4", "flux.1", "openai", "chatgpt", "negative prompt:", "cfg scale:",
)  # fmt: skip  # words in free text, in lower case
_XMP: Final = {
    "http://iptc.org/std/Iptc4xmpExt/2008-02-29/ DigitalSourceType": "source",
    "http://iptc.org/std/Iptc4xmpExt/2008-02-29/ AISystemUsed": _AI_SYSTEM,
    "http://ns.adobe.com/xap/1.0/ CreatorTool": "tool",
    "http://ns.adobe.com/photoshop/1.0/ Credit": "credit",
    "http://purl.org/dc/terms/ provenance": "credentials",
}  # by namespace and name
_RESOURCE: Final = "http://www.w3.org/1999/02/22-rdf-syntax-ns# resource"
_MAX_XMP: Final = 2**22  # bytes of a packet
_MAX_LINES: Final = 30
_MAX_SHOWN: Final = 80  # characters of a field
_STATUSES: Final[Mapping[str, Status]] = {"Trusted": "verified", "Valid": "not verified"}
_SPEAKERS: Final[Mapping[Status, str]] = {
    "verified": "the signer says", "not verified": "an unknown signer says",
    "invalid": "the invalid credentials say",
}  # fmt: skip
_NO_QUOTES: Final = str.maketrans(dict.fromkeys('"\u201c\u201d\u201e', "'"))
_CHANGED: Final = {
    "assertion.dataHash.mismatch": "the image was changed after signing",
    "assertion.bmffHash.mismatch": "the image was changed after signing",
    "assertion.boxesHash.mismatch": "the image was changed after signing",
    "assertion.hashedURI.mismatch": "the credentials were changed after signing",
    "claimSignature.mismatch": "the credentials were changed after signing",
    "claimSignature.outsideValidity": "the certificate of the signer was not valid when they were signed",
    "signingCredential.expired": "the certificate of the signer has expired, and no trusted time stamp is older",
    "signingCredential.ocsp.revoked": "the certificate of the signer was revoked",
}  # by code of C2PA


@dataclass(frozen=True)
class Evidence:
    """One line of what a file says of itself.

    Attributes:
        kind: where it stands: `Content Credentials`, `IPTC digital source type`, `XMP`, `generator text`,
            `camera EXIF` or `software`.
        text: what it says, in words.
        status: `verified` if it is signed by a trusted signer and the image is unchanged, `invalid` if it is signed
            and that does not hold, and `not verified` for all else.
        link: a page where its maker may know more, or `None`.
    """

    kind: str
    text: str
    status: Status = "not verified"
    link: str | None = None

    @property
    def names_ai(self) -> bool:
        """Whether it says that generative AI had a part in the image."""
        return (
            self.kind == "generator text"
            or self.text.startswith(_AI_SYSTEM)
            or any(code in self.text for code in _AI_CODES)
            or _names_generator(self.text)
        )


def read_provenance(data: bytes, *, trust: str | os.PathLike[str] | None = None) -> tuple[Evidence, ...]:
    """Read what an image file says of itself, without decoding its pixels; nothing is fetched from the network.

    Args:
        data: of the file.
        trust: PEM file of the certificates whose signers are trusted; by default the one that the environment
            variable `REALFAKE_TRUST_LIST` names, or else the list of C2PA that the package contains.

    Returns:
        one item per statement, the signed ones first; empty if the file says nothing. Metadata that Pillow rejects, or
        that are too large to read, count as missing.

    Raises:
        UnreadableImageError: the file is not an image, or its header is damaged.
        ValueError: the trust list is not a PEM file of certificates.
    """
    name, anchors = _read_trust_list(trust or os.environ.get(TRUST_VARIABLE))
    opened = open_image(with_early_metadata(data), load=False)
    image = opened.image
    tags = read_tags(data if image.format == "TIFF" else opened.exif)
    block = tags.pop(ExifTags.Base.XMLPacket, b"")  # of a TIFF file
    xmp = _xmp_fields(xmp_of(image) or (block if isinstance(block, bytes) else b""))
    fields = {str(ExifTags.TAGS.get(tag, tag)): _text(value) for tag, value in tags.items()}
    texts = {
        str(key): _text(value)
        for key, value in image.info.items()
        if (isinstance(value, str) and not str(key).startswith("XML:")) or key == "comment"
    }
    signed = list(_credentials(data, name, anchors))
    lines = [*signed, *_from_xmp(xmp), *_from_texts(texts, fields)]
    code = next((code for code in _AI_MEDIA if code.encode() in data), None)
    if code and not any(code in item.text for item in lines):
        text = f'the file contains the word "{code}" ({SOURCE_TYPES[code]}), outside of what could be read'
        lines.append(Evidence("IPTC digital source type", text))
    return tuple(islice(dict.fromkeys(lines), _MAX_LINES))


def _read_trust_list(trust: str | os.PathLike[str] | None) -> tuple[str, str]:
    """Return the name and the text of a trust list."""
    file = Path(trust) if trust else files(__package__).joinpath(TRUST_LIST)
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise _no_trust_list(file.name, str(error)) from error
    if "-----BEGIN CERTIFICATE-----" not in text:
        raise _no_trust_list(file.name, "no certificate")
    return file.name, text


def _no_trust_list(name: str, found: str) -> ValueError:
    return ValueError(
        f"expected a PEM file of certificates as trust list; found {found} in {name}. Name another file in "
        f"{TRUST_VARIABLE}, or unset it."
    )


def _credentials(data: bytes, trust: str, anchors: str) -> Iterator[Evidence]:
    kind = "Content Credentials"
    if _C2PA_STORE not in data:
        return
    if find_spec("c2pa") is None:
        how = "pip install 'realfake-hf[provenance]'"
        yield Evidence(kind, f"present, and not verified: to verify them here, install {how}", link=_VERIFY)
        return
    try:
        found = verify_credentials(data, anchors)
    except CredentialsError as error:
        yield Evidence(kind, f"present, and unreadable: {_shown(str(error))}", link=_VERIFY)
        return
    except TrustListError as error:
        raise _no_trust_list(trust, str(error)) from error
    status = _STATUSES.get(found.state, "invalid")
    yield Evidence(kind, _signature(found, trust), status, _VERIFY)
    parts = [*map(_source_type, found.sources)]
    if found.made_with:
        parts.append(f"made with {', '.join(map(_quoted, found.made_with))}")
    if parts:
        makers = " ".join((*found.signer, *found.made_with))
        yield Evidence(kind, f"{_SPEAKERS[status]}: {'; '.join(parts)}", status, _maker_page(makers))
    if found.earlier:
        yield Evidence(kind, f"an ingredient or earlier version: {'; '.join(map(_source_type, found.earlier))}")


def _signature(found: Credentials, trust: str) -> str:
    signer = " of ".join(map(_quoted, reversed(found.signer))) or "nobody"
    when = f" on {found.signed_on}" if found.signed_on else ""
    if found.state == "Trusted":
        return (
            f"signed by {signer}{when}, whose certificate is in the trust list {trust}; the image is unchanged since"
        )
    if found.state == "Valid":
        return (
            f"signed{when} in the name of {signer}; the image is unchanged since, but the certificate is not in "
            f"the trust list {trust}, and anyone can make one with that name"
        )
    reasons = [_CHANGED[code] for code in found.failures if code in _CHANGED] or ["they break the rules of C2PA"]
    where = "" if found.is_active else "in an ingredient or an earlier version, "
    code = f" ({_shown(found.failures[0])})" if found.failures else ""
    return f"invalid: {where}{reasons[0]}{code}; the name of the signer is {signer}"


def _source_type(value: str) -> str:
    code = value.strip().replace("#", "/").replace(":", "/").rstrip("/").rpartition("/")[2]
    return f"{SOURCE_TYPES[code]} ({code})" if code in SOURCE_TYPES else f"{_quoted(code)}, a type that IPTC has not"


def _from_xmp(fields: Mapping[str, str]) -> Iterator[Evidence]:
    if source := fields.get("source"):
        yield Evidence("IPTC digital source type", _source_type(source))
    for name in ("tool", _AI_SYSTEM):
        if text := fields.get(name):
            yield Evidence("XMP", f"{name}: {_quoted(text)}", link=_maker_page(text))
    if _names_generator(credit := fields.get("credit", "")):
        yield Evidence("XMP", f"credit: {_quoted(credit)}", link=_maker_page(credit))
    if (address := fields.get("credentials", "")).startswith(("http://", "https://")):
        text = f"the file names an address for them, which was not asked: {_quoted(address)}"
        yield Evidence("Content Credentials", text, link=_VERIFY)


def _xmp_fields(packet: bytes) -> dict[str, str]:
    """Return the values of `_XMP` in a packet, up to where it is malformed; a document type is not read."""
    found: dict[str, str] = {}
    inside: list[str | None] = [None]  # field that each open element belongs to
    parser = expat.ParserCreate(namespace_separator=" ")

    def add(field: str | None, text: str) -> None:
        if field:
            found[field] = (found.get(field, "") + text)[: 10 * _MAX_SHOWN]

    def start(name: str, attributes: dict[str, str]) -> None:
        inside.append(_XMP.get(name) or inside[-1])
        for key, value in attributes.items():
            add(inside[-1] if key == _RESOURCE else _XMP.get(key), value)

    def refuse(*_: object) -> None:
        raise expat.ExpatError("a document type")

    parser.StartElementHandler = start
    parser.EndElementHandler = lambda _: inside.pop()
    parser.CharacterDataHandler = lambda text: add(inside[-1], text)
    parser.StartDoctypeDeclHandler = refuse
    with suppress(expat.ExpatError):
        parser.Parse(packet[:_MAX_XMP].rstrip(b"\0"), True)
    return {field: text.strip() for field, text in found.items() if text.strip()}


def _from_texts(texts: Mapping[str, str], fields: Mapping[str, str]) -> Iterator[Evidence]:
    for name, text in texts.items():
        program = _GENERATOR_KEYS.get(name.lower())
        if program or _names_generator(text):
            by = f" of {program}" if program else ""
            place = f"text chunk {_quoted(name)}{by}"
            yield Evidence("generator text", f"{place}: {_quoted(text)}", link=_maker_page(text))
    for name, text in fields.items():
        if _names_generator(text):
            yield Evidence("generator text", f"EXIF field {_quoted(name)}: {_quoted(text)}", link=_maker_page(text))
    if camera := _shown(" ".join(filter(None, (fields.get("Make"), fields.get("Model"))))):
        yield Evidence("camera EXIF", camera)
    software = _shown(fields.get("Software") or texts.get("Software", ""))
    if software and not _names_generator(software):
        yield Evidence("software", software)


def _names_generator(text: str) -> bool:
    return any(word in text.lower() for word in _GENERATOR_WORDS)


def _maker_page(text: str) -> str | None:
    return next((page for word, page in _MAKERS.items() if word in text.lower()), None)


def _text(value: object) -> str:
    """Convert a field to text; EXIF comments begin with 8 bytes that name their encoding."""
    if isinstance(value, bytes):
        body = value[8:] if value[:7] in (b"UNICODE", b"ASCII\0\0") else value
        return body.replace(b"\0", b"").decode("utf-8", "replace")
    return str(value)


def _shown(text: str) -> str:
    printable = "".join(character for character in text if character.isprintable()).strip()
    return f"{printable[:_MAX_SHOWN]}..." if len(printable) > _MAX_SHOWN else printable


def _quoted(text: str) -> str:
    """Return a text of the file in quotation marks, of which it can write none itself."""
    return f'"{_shown(text.translate(_NO_QUOTES))}"'
