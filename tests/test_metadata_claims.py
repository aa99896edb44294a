import io
import struct
import zlib

import pytest
from PIL import Image, PngImagePlugin

from realfake_hf.data.metadata import read_metadata

STORE = bytes.fromhex("6332706100110010800000aa00389b71")


def saved(format="PNG", mode="RGB", **settings):
    buffer = io.BytesIO()
    Image.new(mode, (6, 4)).save(buffer, format=format, **settings)
    return buffer.getvalue()


def with_text(**chunks):
    info = PngImagePlugin.PngInfo()
    for name, text in chunks.items():
        info.add_text(name.replace("_", "-"), text)
    return saved(pnginfo=info)


def test_a_plain_file_claims_nothing():
    found = read_metadata(saved())
    assert (found.format, found.mode, found.width, found.height, found.frames) == ("PNG", "RGB", 6, 4, 1)
    assert found.n_bytes == len(saved())
    assert (found.has_exif, found.camera, found.software, found.has_content_credentials) == (False, None, None, False)
    assert found.generator_hints == ()


def test_camera_and_software_are_read_from_exif():
    exif = Image.Exif()
    exif[0x010F], exif[0x0110], exif[0x0131] = "Maker\0", "Model 1", "Editor 2"
    found = read_metadata(saved("JPEG", exif=exif))
    assert (found.has_exif, found.camera, found.software) == (True, "Maker Model 1", "Editor 2")
    assert found.generator_hints == ()


@pytest.mark.parametrize(
    ("chunks", "claims"),
    [
        ({"parameters": "a cat\nSteps: 20"}, ('text chunk "parameters" (Stable Diffusion web UI)',)),
        ({"prompt": "{}", "workflow": "{}"}, ('text chunk "prompt" (ComfyUI)', 'text chunk "workflow" (ComfyUI)')),
        ({"Software": "NovelAI"}, ('text chunk "Software"',)),
        ({"Comment": "holiday"}, ()),
    ],
)
def test_what_generators_write_into_png_is_named(chunks, claims):
    assert read_metadata(with_text(**chunks)).generator_hints == claims


def test_what_generators_write_into_exif_is_named():
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9286] = b"UNICODE\0" + "a cat, Negative prompt: dog".encode("utf-16-le")
    assert read_metadata(saved("JPEG", exif=exif)).generator_hints == ('EXIF field "UserComment"',)


def test_content_credentials_are_seen_in_jpeg_png_and_webp():
    jpeg = saved("JPEG")
    segment = b"JP\0\x01\0\0\0\x01" + struct.pack(">I", 60) + b"jumb" + struct.pack(">I", 41) + b"jumd" + STORE
    app11 = b"\xff\xeb" + struct.pack(">H", len(segment) + 2) + segment
    png = saved()
    chunk = b"caBX" + segment
    inner = struct.pack(">I", len(segment)) + chunk + struct.pack(">I", zlib.crc32(chunk))
    webp = saved("WEBP") + b"C2PA" + struct.pack("<I", len(segment)) + segment
    for file in (jpeg[:2] + app11 + jpeg[2:], png[:33] + inner + png[33:], webp):
        assert read_metadata(file).has_content_credentials
        assert Image.open(io.BytesIO(file)).size == (6, 4)


def test_a_declared_ai_source_is_named():
    packet = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><a>http://cv.iptc.org/trainedAlgorithmicMedia</a></x:xmpmeta>'
    assert read_metadata(saved("JPEG", xmp=packet)).generator_hints == (
        "IPTC digital source type trainedAlgorithmicMedia",
    )


def test_long_and_unprintable_fields_are_cut():
    exif = Image.Exif()
    exif[0x0131] = "x" * 500 + "\x1b[31m"
    assert read_metadata(saved("JPEG", exif=exif)).software == "x" * 80 + "..."


def test_what_is_no_image_is_refused():
    with pytest.raises(OSError, match="cannot identify"):
        read_metadata(b"no picture")
