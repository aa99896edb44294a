"""Uploads are read in processes with limits of time and memory, which are replaced when they pass them."""

import os
import sys
import threading
import time
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
from bad_files import picture
from PIL import Image

from realfake_space import reader, uploads
from realfake_space.answers import metadata_table
from realfake_space.reader import BusyError, Readers
from realfake_space.uploads import MAX_BYTES, RejectedError, open_upload

THUMBNAIL = (32, 32, 2)
ENDLESS = iter(int, 1)  # zeros


@pytest.fixture(scope="module")
def context():
    if sys.platform != "linux":
        return get_context("spawn")
    server = get_context("forkserver")
    server.set_forkserver_preload(["realfake_hf.data.metadata", "PIL.PngImagePlugin"])
    return server


@pytest.fixture(scope="module")
def readers(context):
    running = Readers(context)
    yield running
    running.close()


def never_end(path):
    while path:
        pass


def timed(function, *arguments):
    began = time.monotonic()
    with pytest.raises(RejectedError) as error:
        function(*arguments)
    return str(error.value), time.monotonic() - began


def test_a_reader_returns_what_the_decoder_returns(readers, tmp_path):
    picture((640, 480)).save(tmp_path / "photo.png")
    here = open_upload(str(tmp_path / "photo.png"), [THUMBNAIL], view=True)
    there = readers.read(str(tmp_path / "photo.png"), THUMBNAIL, view=True)
    assert there.metadata == here.metadata == readers.metadata(str(tmp_path / "photo.png"))
    assert there.size == (640, 480)
    np.testing.assert_array_equal(there.resized[THUMBNAIL], picture((640, 480)).resize((32, 32), 2))
    np.testing.assert_array_equal(there.view, here.view)
    np.testing.assert_array_equal(readers.read(str(tmp_path / "photo.png"), whole=True).whole, picture((640, 480)))


def test_what_a_file_says_is_read_and_its_credentials_are_verified(readers, tmp_path, monkeypatch):
    pytest.importorskip("c2pa")
    from signed_images import signed

    monkeypatch.setattr(reader, "SECONDS", 60.0)
    file = tmp_path / "photo.jpg"
    picture((64, 48)).save(file)
    assert readers.provenance(str(file)) == ()
    file.write_bytes(signed(file.read_bytes(), source="trainedAlgorithmicMedia"))
    signature, statement = readers.provenance(str(file))
    assert signature.status == "not verified"
    assert "created by generative AI" in statement.text
    html = metadata_table(readers.metadata(str(file)), (signature, statement))
    assert html.count('<tr class="rf-not-verified"><th>Content Credentials</th>') == 2
    assert '<a href="https://contentcredentials.org/verify" target="_blank" rel="noopener noreferrer">' in html
    assert "it could not be read" in metadata_table(readers.metadata(str(file)), None)


@pytest.mark.parametrize(
    ("function", "argument", "message"),
    [(time.sleep, 60, "more than 1 seconds"), (sum, ENDLESS, "more than 1 seconds"), (list, ENDLESS, "memory"),
     (bytes, 2**36, "memory"), (os._exit, 1, "ends the process")],
    ids=["sleeps", "computes", "fills memory", "asks for memory", "dies"],
)  # fmt: skip
def test_a_reader_that_passes_a_limit_is_replaced(readers, monkeypatch, function, argument, message):
    with monkeypatch.context() as patched:
        patched.setattr(reader, "SECONDS", 5.0 if "memory" in message else 1.0)
        error, seconds = timed(readers.call, function, argument)
    assert message in error
    assert seconds < 6
    assert readers.call(sum, [1, 2]) == 3


@pytest.mark.slow
def test_files_that_are_slow_to_read_hold_up_no_other_for_longer_than_their_turns(readers, monkeypatch, tmp_path):
    monkeypatch.setattr(reader, "SECONDS", 4.0)
    monkeypatch.setattr(reader, "TURN", 0.2)
    errors = []
    slow = [threading.Thread(target=lambda: errors.append(timed(readers.call, sum, ENDLESS))) for _ in range(9)]
    for thread in slow:
        thread.start()
    picture().save(tmp_path / "small.png")
    time.sleep(0.5)
    for _ in range(3):
        began = time.monotonic()
        assert readers.call(os.getpid) > 0
        assert time.monotonic() - began < 2.5
    for thread in slow:
        thread.join(10)
    assert len(errors) == 9
    assert max(seconds for _, seconds in errors) < 6


def test_a_file_that_passed_a_limit_is_not_read_again_unless_it_changes(readers, monkeypatch, tmp_path):
    picture().save(tmp_path / "photo.png")
    monkeypatch.setattr(reader, "upload_metadata", never_end)
    monkeypatch.setattr(reader, "SECONDS", 1.0)
    error, seconds = timed(readers.read, str(tmp_path / "photo.png"))
    assert seconds >= 1
    assert timed(readers.read, str(tmp_path / "photo.png"), THUMBNAIL)[0] == error
    assert timed(readers.metadata, str(tmp_path / "photo.png"))[1] < 0.5
    monkeypatch.setattr(reader, "upload_metadata", uploads.upload_metadata)
    picture((9, 9)).save(tmp_path / "photo.png")
    assert readers.metadata(str(tmp_path / "photo.png")).width == 9


def test_only_regular_files_are_read(readers, tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "link.png").symlink_to(tmp_path / "photo.png")
    picture().save(tmp_path / "photo.png")
    for path in ("/dev/zero", tmp_path / "pipe.png", tmp_path, tmp_path / "link.png", tmp_path / "missing.png"):
        error, seconds = timed(readers.metadata, str(path))
        assert error.startswith("No verdict: ")
        assert "regular file" in error or "cannot be opened" in error
        assert seconds < 2


def test_a_file_that_grows_is_read_to_the_limit_only(tmp_path, monkeypatch):
    picture().save(tmp_path / "photo.bmp")
    monkeypatch.setattr(uploads, "MAX_BYTES", 1000)
    monkeypatch.setattr(os, "fstat", lambda _: os.stat_result((0o100600, 0, 0, 0, 0, 0, 10, 0, 0, 0)))
    assert Path(tmp_path / "photo.bmp").stat().st_size > 1000 < MAX_BYTES
    with pytest.raises(RejectedError, match="the limit is"):
        uploads.read_bytes(str(tmp_path / "photo.bmp"))


def test_closing_ends_readers_and_the_threads_that_wait_for_them(context):
    own = Readers(context)
    errors = []
    threads = [threading.Thread(target=lambda: errors.append(timed(own.call, sum, ENDLESS))) for _ in range(5)]
    for thread in threads:
        thread.start()
    time.sleep(0.5)
    own.close()
    for thread in threads:
        thread.join(3)
    assert len(errors) == 5
    with pytest.raises(BusyError):
        own.call(os.getpid)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mode", "kind"),
    [("RGB", {"format": "JPEG", "progressive": True}), ("CMYK", {"format": "JPEG"}), ("RGBA", {"format": "PNG"}),
     ("LA", {"format": "PNG"}), ("P", {"format": "PNG", "transparency": 0}), ("I;16", {"format": "PNG"}),
     ("RGBA", {"format": "TIFF", "compression": "tiff_lzw"}), ("RGB", {"format": "AVIF", "speed": 10}),
     ("RGBA", {"format": "WEBP", "quality": 10, "method": 0})],
)  # fmt: skip
def test_the_largest_images_of_every_mode_fit_into_the_memory(readers, monkeypatch, tmp_path, mode, kind):
    monkeypatch.setattr(reader, "SECONDS", 60.0)  # other programs may run
    monkeypatch.setattr(reader, "TURN", 60.0)
    shades = Image.linear_gradient("L").resize((8000, 8000))
    image = Image.fromarray(np.asarray(shades).astype(np.uint16)) if mode == "I;16" else shades.convert(mode)
    exif = Image.Exif()
    exif[0x0112] = 6  # turned
    image.save(tmp_path / "large", exif=exif, **kind)
    assert readers.read(str(tmp_path / "large"), THUMBNAIL).size == (8000, 8000)
