"""Content Credentials are verified, and all else that a file says of itself is told line by line."""

import io
import socket
import ssl
import struct
import time
import zlib
from importlib.resources import files

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mutated_files import mutated
from PIL import Image, PngImagePlugin

from realfake_hf.data import credentials, provenance
from realfake_hf.data.credentials import Credentials, CredentialsError
from realfake_hf.data.decoding import UnreadableImageError
from realfake_hf.data.provenance import SOURCE_TYPES, TRUST_LIST, TRUST_VARIABLE, read_provenance

IPTC = "http://cv.iptc.org/newscodes/digitalsourcetype/"
STORE = bytes.fromhex("6332706100110010800000aa00389b71")
NAMESPACES = (
    'xmlns:x="adobe:ns:meta/" xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#" '
    'xmlns:ext="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" xmlns:xmp="http://ns.adobe.com/xap/1.0/" '
    'xmlns:photoshop="http://ns.adobe.com/photoshop/1.0/" xmlns:dcterms="http://purl.org/dc/terms/"'
)


def saved(format="PNG", **settings):
    buffer = io.BytesIO()
    Image.new("RGB", (6, 4), "red").save(buffer, format=format, **settings)
    return buffer.getvalue()


def with_text(**chunks):
    info = PngImagePlugin.PngInfo()
    for name, text in chunks.items():
        info.add_text(name.replace("_", "-"), text)
    return saved(pnginfo=info)


def packet(*, attributes="", inside=""):
    body = f"<rdf:RDF><rdf:Description {attributes}>{inside}</rdf:Description></rdf:RDF>"
    return f"<x:xmpmeta {NAMESPACES}>{body}</x:xmpmeta>".encode()


def with_xmp(text, format="JPEG"):
    """A file with an XMP packet."""
    if format == "TIFF":
        return saved(format, tiffinfo={700: text})
    if format != "PNG":
        return saved(format, xmp=text)
    info = PngImagePlugin.PngInfo()
    info.add_itxt("XML:com.adobe.xmp", text.decode())
    return saved(pnginfo=info)


def with_store(data, store):
    """A PNG with a chunk of Content Credentials, whatever is in it."""
    chunk = b"caBX" + store
    return data[:33] + struct.pack(">I", len(store)) + chunk + struct.pack(">I", zlib.crc32(chunk)) + data[33:]


def lines(data):
    return [(item.kind, item.text) for item in read_provenance(data)]


@pytest.fixture(scope="module")
def signing():
    """The signing of images."""
    pytest.importorskip("c2pa")
    import signed_images

    return signed_images


@pytest.fixture
def newsroom(signing, tmp_path):
    """A trust list that names one newsroom."""
    file = tmp_path / "newsroom.pem"
    file.write_text(signing.signer_of("A newsroom")[2])
    return file


@pytest.fixture
def _in_process(monkeypatch):
    """Verify in this process, which is quick."""

    def verify(data, anchors):
        answer = credentials._read(data, anchors)
        if "error" in answer:
            raise CredentialsError(answer["error"])
        return Credentials(**answer)

    monkeypatch.setattr(provenance, "verify_credentials", verify)


@pytest.mark.parametrize("format", ["JPEG", "PNG"])
def test_a_trusted_signer_of_an_unchanged_image_is_verified(signing, newsroom, format):
    photo = signing.signed(saved(format), f"image/{format.lower()}")
    first, second = read_provenance(photo, trust=newsroom)
    assert {first.kind, second.kind} == {"Content Credentials"}
    assert first.status == second.status == "verified"
    assert '"A camera" of "A newsroom"' in first.text
    assert "newsroom.pem; the image is unchanged" in first.text
    assert first.link == "https://contentcredentials.org/verify"
    assert second.text == (
        'the signer says: a photograph by a digital camera (digitalCapture); made with "A program 1.2"'
    )


@pytest.mark.usefixtures("_in_process")
def test_a_signer_outside_of_the_trust_list_is_not_verified(signing, newsroom):
    forged = signing.signed(saved("JPEG"), by="OpenAI", source="trainedAlgorithmicMedia", tool="ChatGPT")
    for trust, name in ((newsroom, "newsroom.pem"), (None, TRUST_LIST)):
        first, second = read_provenance(forged, trust=trust)
        assert first.status == second.status == "not verified"
        assert 'in the name of "A camera" of "OpenAI"' in first.text
        assert f"not in the trust list {name}, and anyone can make one" in first.text
        assert second.text.startswith("an unknown signer says: created by generative AI (trainedAlgorithmicMedia)")
        assert second.link == "https://openai.com/verify"


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF", "GIF", "AVIF"])
@pytest.mark.usefixtures("_in_process")
def test_an_image_changed_after_signing_is_invalid(signing, newsroom, format):
    photo = bytearray(signing.signed(saved(format), f"image/{format.lower()}"))
    assert [item.status for item in read_provenance(bytes(photo), trust=newsroom)] == ["verified"] * 2
    original = saved(format)
    end = original[-20:-8] if format != "TIFF" else original[8:20]
    place = photo.find(end)
    assert place >= 0
    photo[place + 5] ^= 1
    first, second = read_provenance(bytes(photo), trust=newsroom)
    assert first.status == second.status == "invalid"
    assert first.text.startswith("invalid: the image was changed after signing (")
    assert second.text.startswith("the invalid credentials say: ")


@pytest.mark.usefixtures("_in_process")
def test_credentials_changed_after_signing_are_invalid(signing, newsroom):
    photo = signing.signed(saved("JPEG")).replace(b"/digitalCapture", b"/digitalCreated")
    first, _ = read_provenance(photo, trust=newsroom)
    assert first.status == "invalid"
    assert "the credentials were changed after signing" in first.text


@pytest.mark.usefixtures("_in_process")
def test_what_an_earlier_version_says_is_told_and_its_faults_make_the_image_invalid(signing, newsroom):
    first = signing.signed(saved("JPEG"), source="trainedAlgorithmicMedia")
    second = signing.signed(saved("JPEG"), source="humanEdits", parent=first)
    signature, statement, earlier = read_provenance(second, trust=newsroom)
    assert signature.status == statement.status == "verified"
    assert earlier.status == "not verified"  # its signer is another
    assert earlier.text == "an ingredient or earlier version: created by generative AI (trainedAlgorithmicMedia)"
    broken = second.replace(b"/trainedAlgorithmicMedia", b"/trainedAlgorithmicMedio")
    signature, *_ = read_provenance(broken, trust=newsroom)
    assert (signature.status, "in an ingredient or an earlier version, " in signature.text) == ("invalid", True)


def test_the_trust_list_of_the_environment_is_used_unless_another_is_given(signing, newsroom, monkeypatch, tmp_path):
    photo = signing.signed(saved("JPEG"))
    monkeypatch.setenv(TRUST_VARIABLE, str(newsroom))
    assert read_provenance(photo)[0].status == "verified"
    other = tmp_path / "other.pem"
    other.write_text(signing.signer_of("Another newsroom")[2])
    assert read_provenance(photo, trust=other)[0].status == "not verified"


def test_a_trust_list_without_certificates_is_rejected(signing, tmp_path):
    file = tmp_path / "list.pem"
    with pytest.raises(ValueError, match=r"PEM file of certificates .*list\.pem.*REALFAKE_TRUST_LIST"):
        read_provenance(saved(), trust=file)
    file.write_bytes(b"\xff\xfe no certificates")
    with pytest.raises(ValueError, match=r"PEM file of certificates .*list\.pem"):
        read_provenance(saved(), trust=file)
    file.write_text("-----BEGIN CERTIFICATE-----\n!!\n-----END CERTIFICATE-----\n")
    with pytest.raises(ValueError, match=r"PEM file of certificates .*list\.pem"):
        read_provenance(signing.signed(saved("JPEG")), trust=file)


def test_the_trust_list_of_the_package_is_that_of_c2pa_with_its_licence():
    text = (files("realfake_hf.data") / TRUST_LIST).read_text()
    heading, *certificates = text.split("-----BEGIN CERTIFICATE-----")
    assert "https://creativecommons.org/licenses/by/4.0/" in heading
    assert len(certificates) > 40
    for certificate in certificates:
        body = certificate.split("-----END CERTIFICATE-----")[0]
        assert ssl.PEM_cert_to_DER_cert(f"-----BEGIN CERTIFICATE-----{body}-----END CERTIFICATE-----")[0] == 0x30


def test_without_the_package_credentials_are_present_and_not_verified(monkeypatch):
    monkeypatch.setattr(provenance, "find_spec", lambda _: None)
    [item] = read_provenance(with_store(saved(), STORE))
    assert (item.kind, item.status) == ("Content Credentials", "not verified")
    assert "pip install 'realfake-hf[provenance]'" in item.text
    _, word = read_provenance(with_store(saved(), STORE + b"trainedAlgorithmicMedia"))
    assert (word.kind, word.status) == ("IPTC digital source type", "not verified")


def test_credentials_that_are_not_readable_are_told_to_be_unreadable(signing, monkeypatch):
    photo = signing.signed(saved("JPEG"))
    [item] = read_provenance(with_store(saved(), STORE * 4))
    assert (item.status, item.text.startswith("present, and unreadable: ")) == ("not verified", True)
    with monkeypatch.context() as patched:
        patched.setenv("C2PA_LIBRARY_NAME", "missing.so")  # the process ends
        assert "end the process that reads them (status 1)" in lines(photo)[0][1]
    with monkeypatch.context() as patched:
        patched.setattr(credentials, "SECONDS", 0.01)
        assert "took more than 0.01 seconds" in lines(photo)[0][1]
    monkeypatch.setattr(credentials, "MAX_BYTES", 1000)
    assert "the file is larger than 0 MiB" in lines(photo)[0][1]


def test_nothing_is_fetched_for_credentials_that_are_kept_elsewhere(signing):
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        address = f"http://127.0.0.1:{server.getsockname()[1]}/store.c2pa"
        photo = with_xmp(packet(attributes=f'dcterms:provenance="{address}"'))
        assert "remote" in str(credentials._read(photo, signing.signer_of("A newsroom")[2])["error"])
        assert lines(photo) == [
            ("Content Credentials", f'the file names an address for them, which was not asked: "{address}"')
        ]
        with pytest.raises(TimeoutError):
            server.accept()


def test_a_plain_file_says_nothing():
    for format in ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"):
        assert read_provenance(saved(format)) == ()


def test_a_file_that_is_not_an_image_is_rejected():
    with pytest.raises(UnreadableImageError, match="not an image"):
        read_provenance(b"not an image")


@pytest.mark.parametrize("code", SOURCE_TYPES)
def test_every_digital_source_type_of_iptc_is_told_in_words(code):
    [(kind, text)] = lines(with_xmp(packet(attributes=f'ext:DigitalSourceType="{IPTC}{code}"')))
    assert (kind, text) == ("IPTC digital source type", f"{SOURCE_TYPES[code]} ({code})")


@pytest.mark.parametrize(
    "inside",
    [
        f"<ext:DigitalSourceType>{IPTC}trainedAlgorithmicMedia</ext:DigitalSourceType>",
        f'<ext:DigitalSourceType rdf:resource="{IPTC}trainedAlgorithmicMedia"/>',
        "<ext:DigitalSourceType><rdf:li>\n digsrctype:trainedAlgorithmicMedia </rdf:li></ext:DigitalSourceType>",
        "<ext:DigitalSourceType>trainedAlgorithmicMedia/</ext:DigitalSourceType><broken",
    ],
)
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_the_digital_source_type_is_read_however_it_is_written(inside, format):
    text = "created by generative AI (trainedAlgorithmicMedia)"
    assert lines(with_xmp(packet(inside=inside), format)) == [("IPTC digital source type", text)]


@pytest.mark.parametrize("code", SOURCE_TYPES)
def test_generative_ai_is_named_by_its_own_source_types_only(code):
    [found] = read_provenance(with_xmp(packet(attributes=f'ext:DigitalSourceType="{IPTC}{code}"')))
    expected = {"trainedAlgorithmicMedia", "compositeWithTrainedAlgorithmicMedia", "trainedAlgorithmicData"}
    assert found.names_ai == (code in expected)


def test_tools_that_generate_and_the_field_for_ai_systems_name_generative_ai():
    for field, value, names_ai in (
        ("xmp:CreatorTool", "Adobe Firefly", True),
        ("xmp:CreatorTool", "GIMP 3.0", False),
        ("ext:AISystemUsed", "a system that no list has", True),
    ):
        [found] = read_provenance(with_xmp(packet(attributes=f'{field}="{value}"')))
        assert found.names_ai == names_ai, value


def test_a_source_type_that_iptc_does_not_know_is_quoted():
    [(_, text)] = lines(with_xmp(packet(attributes='ext:DigitalSourceType="http://x/&lt;b&gt;painted"')))
    assert text == '"<b>painted", a type that IPTC has not'


def test_a_file_cannot_end_the_quotation_of_its_own_words():
    attributes = 'xmp:CreatorTool="a &quot;, verified by \u201dC2PA"'
    assert lines(with_xmp(packet(attributes=attributes))) == [("XMP", "tool: \"a ', verified by 'C2PA\"")]


@pytest.mark.parametrize("code", ["trainedAlgorithmicMedia", "compositeWithTrainedAlgorithmicMedia"])
def test_a_source_type_outside_of_xmp_is_found_as_bytes(code):
    [(kind, text)] = lines(saved("JPEG", comment=code.encode()))
    assert kind == "IPTC digital source type"
    assert f'"{code}" ({SOURCE_TYPES[code]}), outside of what could be read' in text


def test_tools_systems_and_credits_of_xmp_are_told_with_a_page_of_the_maker():
    attributes = 'xmp:CreatorTool="An editor 3" ext:AISystemUsed="Imagen 4" photoshop:Credit="Made with Google AI"'
    tool, system, credit = read_provenance(with_xmp(packet(attributes=attributes)))
    assert {item.kind for item in (tool, system, credit)} == {"XMP"}
    assert (tool.text, tool.link) == ('tool: "An editor 3"', None)
    assert (system.text, credit.text) == ('AI system: "Imagen 4"', 'credit: "Made with Google AI"')
    assert system.link == credit.link
    assert "gemini" in system.link
    assert lines(with_xmp(packet(attributes='photoshop:Credit="An agency"'))) == []


def bomb():
    entities = "".join(f'<!ENTITY e{n + 1} "{f"&e{n};" * 10}">' for n in range(12))
    body = packet(attributes='xmp:CreatorTool="before"', inside="<xmp:CreatorTool>&e12;</xmp:CreatorTool>").decode()
    return f'<!DOCTYPE x [<!ENTITY e0 "ha">{entities}]>{body}'.encode()


HOSTILE = {
    "entities": bomb(),
    "files": b'<!DOCTYPE x [<!ENTITY f SYSTEM "file:///etc/passwd">]>' + packet(attributes='xmp:CreatorTool="&f;"'),
    "no end": b"<x:xmpmeta",
    "other": b"\xff\xfe\0\0",
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_xmp_says_nothing(name):
    began = time.monotonic()
    assert read_provenance(saved("JPEG", xmp=HOSTILE[name])) == ()
    assert time.monotonic() - began < 20


def test_large_and_deep_xmp_is_read_in_time():
    deep = packet(inside="<rdf:li>" * 200_000 + "text" + "</rdf:li>" * 200_000)
    long = packet(inside=f"<xmp:CreatorTool>{'a' * 3_000_000}</xmp:CreatorTool>")
    began = time.monotonic()
    assert lines(with_xmp(deep, "PNG")) == []
    assert lines(with_xmp(long, "WEBP")) == [("XMP", f'tool: "{"a" * 80}..."')]
    assert time.monotonic() - began < 60


@given(st.one_of(st.binary(max_size=200), st.text(alphabet='<>/="x:rdf&;e ', max_size=80).map(str.encode)))
def test_any_packet_gives_short_fields(text):
    inside = packet(inside="<xmp:CreatorTool>").replace(b"</rdf:Description>", text)
    for each in (text, inside):
        assert all(len(value) <= 800 for value in provenance._xmp_fields(each).values())


@pytest.mark.parametrize(
    ("chunks", "texts"),
    [
        ({"parameters": "a cat\nSteps: 20"}, ['text chunk "parameters" of Stable Diffusion web UI: "a catSteps: 20"']),
        ({"prompt": "{}", "workflow": "[]"}, ['text chunk "prompt" of ComfyUI: "{}"',
                                              'text chunk "workflow" of ComfyUI: "[]"']),
        ({"Description": "by Midjourney"}, ['text chunk "Description": "by Midjourney"']),
        ({"Comment": "una imagen de vacaciones"}, []),
    ],
)  # fmt: skip
def test_the_text_that_generators_write_to_png_is_told(chunks, texts):
    assert lines(with_text(**chunks)) == [("generator text", text) for text in texts]


def test_texts_behind_the_pixels_of_a_png_are_found():
    data, text = saved(), b"tEXtparameters\0a cat"
    chunk = struct.pack(">I", len(text) - 4) + text + struct.pack(">I", zlib.crc32(text))
    [(kind, _)] = lines(data[:-12] + chunk + data[-12:])
    assert kind == "generator text"


def test_the_text_that_generators_write_to_exif_and_comments_is_told():
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9286] = b"UNICODE\0" + "a cat, Negative prompt: dog".encode("utf-16-le")
    assert lines(saved("JPEG", exif=exif)) == [
        ("generator text", 'EXIF field "UserComment": "a cat, Negative prompt: dog"')
    ]
    [item] = read_provenance(saved("JPEG", comment=b"made by DALL-E 3"))
    assert (item.kind, item.link) == ("generator text", "https://openai.com/verify")


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "AVIF", "TIFF"])
def test_camera_and_software_are_told_for_every_format_with_exif(format):
    exif = Image.Exif()
    exif[0x0112], exif[0x010F], exif[0x0110], exif[0x0131] = 6, "Maker\0", "Model 1", "Editor 2"
    assert lines(saved(format, exif=exif)) == [("camera EXIF", "Maker Model 1"), ("software", "Editor 2")]
    exif[0x0131] = "Midjourney"
    assert lines(saved(format, exif=exif)) == [
        ("generator text", 'EXIF field "Software": "Midjourney"'),
        ("camera EXIF", "Maker Model 1"),
    ]


def test_long_and_unprintable_texts_are_shortened_and_many_are_limited():
    exif = Image.Exif()
    exif[0x0131] = "x" * 500 + "\x1b[31m"
    assert lines(saved("JPEG", exif=exif)) == [("software", "x" * 80 + "...")]
    found = lines(with_text(**{f"a{n}": f"{n} midjourney" + "x" * 2000 for n in range(200)}))
    assert len(found) == 30
    assert all(len(text) < 300 for _, text in found)


def test_a_damaged_file_gives_lines_or_is_rejected():
    outcomes = {True: 0, False: 0}
    for _, data in mutated(300, seed=3):
        try:
            found = read_provenance(data)
        except UnreadableImageError:
            outcomes[False] += 1
        else:
            outcomes[True] += 1
            assert all(len(item.text) < 1000 for item in found)
    assert min(outcomes.values()) > 20


@pytest.mark.usefixtures("_in_process")
def test_what_is_verified_of_damaged_credentials_is_what_was_signed(signing, newsroom):
    photo = signing.signed(saved("JPEG"))
    original = read_provenance(photo, trust=newsroom)
    statuses = []
    for place in range(photo.find(STORE), photo.find(b"\xff\xdb\0C"), 13):
        damaged = bytearray(photo)
        damaged[place] ^= 0x55
        found = read_provenance(bytes(damaged), trust=newsroom)
        assert {item for item in found if item.status == "verified"} <= {*original}
        assert all(len(item.text) < 1000 for item in found)
        statuses += [item.status for item in found]
    assert statuses.count("invalid") > statuses.count("verified")
