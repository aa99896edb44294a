"""Files built to keep a decoder busy are decoded without their metadata, or rejected, in bounded time and memory."""

import json
import os
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from bad_files import animated, picture, saved
from hostile_files import (
    _chunk,
    _png,
    _segment,
    _with_segments,
    exif_with_shared_block,
    hostile_files,
    jpeg_with_scans,
)
from mutated_files import mutated, originals, run_lengths
from transformers import ViTImageProcessorPil

from realfake_hf import CifakeCnnConfig, CifakeCnnForImageClassification
from realfake_hf.data.decoding import UnreadableImageError, decode_image, to_rgb_file
from realfake_hf.data.metadata import header_properties, read_metadata
from realfake_hf.data.structure import MAX_CHUNKS, MAX_SCANS, SLOW_PIXELS, bounded, gif_images

READERS = (decode_image, to_rgb_file, read_metadata, header_properties)
SECONDS = 5  # of the processor, for one file; the makers cost minutes without bounds
MEMORY = 2 * 2**30  # bytes
REJECTED = {
    "scans.jpg": "200 scans", "strips.tif": "400,000 numbers", "exif-segments.jpg": "4,096 segments",
    "chunks.png": "100,000 chunks",
}  # fmt: skip


def rejected(data: bytes) -> str:
    """Give the one reason for which every reader rejects a file, within the time of the processor."""
    reasons = set()
    for read in READERS:
        start = time.process_time()
        with pytest.raises(UnreadableImageError) as caught:
            read(data)
        assert time.process_time() - start < SECONDS
        reasons.add(str(caught.value))
    [reason] = reasons
    return reason


def bmp_of_size(width: int, height: int) -> bytes:
    data = bytearray(run_lengths())
    data[18:26] = struct.pack("<ii", width, height)
    return bytes(data)


def gif_with(extension: bytes) -> bytes:
    data = saved(picture(mode="P"), format="GIF")
    start = 13 + (3 << (data[10] & 7) + 1)
    return data[:start] + extension + data[start:]


def webp_of_canvas(side: int) -> bytes:
    header = b"\x10\0\0\0" + 2 * (side - 1).to_bytes(3, "little")
    return b"RIFF" + struct.pack("<I", 4 + 8 + len(header)) + b"WEBPVP8X" + struct.pack("<I", len(header)) + header


@pytest.mark.parametrize("name", ["shared-block.jpg", "shared-block.png", "frames.tif"])
def test_metadata_that_would_fill_the_memory_are_left_out(name: str) -> None:
    data = hostile_files()[name]()
    start = time.process_time()
    kept, image = to_rgb_file(data)
    assert image.mode == "RGB"
    assert len(kept) < 5_000  # the file itself is not handed to readers without bounds
    assert read_metadata(data).n_bytes == header_properties(data)["bytes"] == len(data)
    assert time.process_time() - start < SECONDS


@pytest.mark.parametrize("name", ["scans.jpg", "strips.tif"])
def test_more_than_a_decoder_should_walk_is_rejected_and_named(name: str) -> None:
    assert REJECTED[name] in rejected(hostile_files()[name]())


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (_with_segments(_segment(0xDB, b"\0" + b"\1" * 64) * 1_000), "256 tables"),
        (_with_segments(bytes(100_000)), "65,536 bytes between segments"),
        (gif_with(b"!\xfe" + b"\1a" * 20_000 + b"\0"), "10,000 blocks"),
        (gif_with(bytes(20_000)), "10,000 blocks"),
        (webp_of_canvas(2**20), "268,435,456 pixels"),
        (bmp_of_size(4_000, 4_000), "2,097,152 pixels in run lengths"),
        (bmp_of_size(2_000_000, 1), "2,097,152 pixels in run lengths"),
        (b"P3 3000 3000 255 " + b"1 " * 99, "2,097,152 pixels in text"),
        (b"P6 3000 3000 1023 " + bytes(99), "2,097,152 pixels in text or of unusual depth"),
        (b"P2 3 3 255 " + b"#\n" * 2_000, "1,000 comments"),
        (b"P6 #" + bytes(100_000), "65,536 bytes before its size"),
        (b"\0\0\0\x0cjP  \r\n\x87\n" + b"\0\0\0\x08free" * 200, "100 boxes"),
        (b"\xff\x4f\xff\x51" + b"\0\2" + b"\xff\x5c\0\2" * 10_000, "4,096 segments"),
    ],
)  # fmt: skip
def test_each_format_has_its_bound(data: bytes, reason: str) -> None:
    assert reason in rejected(data)


def test_structures_below_the_bounds_are_decoded() -> None:
    assert decode_image(jpeg_with_scans(MAX_SCANS - 1, side=64)).size == (64, 64)
    assert decode_image(_png(_chunk(b"prVt", b"") * (MAX_CHUNKS - 3))).size == (1, 1)
    assert decode_image(gif_with(b"!\xfe" + b"\1a" * 9_000 + b"\0")).size == (40, 30)
    side = int(SLOW_PIXELS**0.5)
    assert decode_image(b"P5 %d 2 1023 " % side + bytes(4 * side)).size == (side, 2)


def test_ordinary_files_are_opened_as_they_are() -> None:
    for name, data in originals().items():
        assert bounded(data) == data or name == "avif", name  # EXIF in AVIF is always left to this package


def test_tags_of_ordinary_number_are_kept_and_more_are_left_out() -> None:
    exif = b"Exif\0\0" + exif_with_shared_block(200, 400)
    for data, is_kept in ((exif, True), (b"Exif\0\0" + exif_with_shared_block(2_000, 40_000), False)):
        file = _with_segments(_segment(0xE1, data))
        assert (to_rgb_file(file)[0] is file) is is_kept


def test_many_compressed_texts_are_left_out() -> None:
    text = _chunk(b"zTXt", b"\0\0" + zlib.compress(bytes(1_000_000)))
    assert decode_image(_png(text * 1_100)).size == (1, 1)


def test_frames_of_a_gif_are_found_without_walking_them_all() -> None:
    one, two = saved(format="GIF"), animated("GIF")
    assert (read_metadata(one).has_more_frames, read_metadata(two).has_more_frames) == (False, True)
    assert len(list(gif_images(two, limit=1_000))) == 2
    assert max(gif_images(two, limit=1)) == 2  # more than the limit


READ_ALL = """
import json, resource, sys, time
from hostile_files import hostile_files
from realfake_hf.data.decoding import UnreadableImageError, decode_image, to_rgb_file
from realfake_hf.data.metadata import header_properties, read_metadata
for name, make in hostile_files().items():
    data = make()
    resource.setrlimit(resource.RLIMIT_AS, (%d, %d))
    for read in (decode_image, to_rgb_file, read_metadata, header_properties):
        start = time.process_time()
        try:
            read(data)
            reason = None
        except UnreadableImageError as error:
            reason = str(error)
        print(json.dumps([name, reason, time.process_time() - start]))
"""
READ_MUTATED = """
import json, signal, sys
from pathlib import Path
from realfake_hf.data.decoding import UnreadableImageError
from realfake_hf.data.metadata import read_metadata
from realfake_hf.detector import Detector
from realfake_hf.environment import peak_memory_gib
from realfake_hf.score.__main__ import main
model, folder, output = sys.argv[1:]
detector, readable = Detector.from_pretrained(model), []
for file in sorted(Path(folder).iterdir()):
    signal.alarm(20)  # ends the process
    try:
        read_metadata(file.read_bytes())
    except UnreadableImageError:
        pass
    try:
        detector.predict(file)
        readable.append(file.name)
    except UnreadableImageError:
        pass
signal.alarm(120)
status = main(["--model", model, "--data", folder, "--output", output])
print(json.dumps([status, readable, peak_memory_gib() * 2**30]))
"""


def run(script: str, *words: object) -> list[list]:
    """Run a script in a process of its own; give the lists that it prints."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    command = [sys.executable, "-W", "error", "-c", script, *map(str, words)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=250, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Traceback" not in done.stderr
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]


@pytest.mark.slow
def test_every_hostile_file_is_answered_in_seconds_and_with_little_memory() -> None:
    answers = run(READ_ALL % (MEMORY, MEMORY))
    assert len(answers) == len(hostile_files()) * len(READERS)
    for name, reason, seconds in answers:
        assert seconds < SECONDS, name
        assert (REJECTED[name] in reason) if name in REJECTED else reason is None, (name, reason)


@pytest.mark.slow
def test_mutated_files_are_read_or_rejected_without_a_traceback_a_hang_or_much_memory(tmp_path: Path) -> None:
    CifakeCnnForImageClassification(CifakeCnnConfig(num_filters=8)).save_pretrained(tmp_path / "model")
    ViTImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(tmp_path / "model")
    (folder := tmp_path / "images").mkdir()
    for name, data in mutated(360, seed=0):
        (folder / f"{name}.png").write_bytes(data)
    [[status, readable, memory]] = run(READ_MUTATED, tmp_path / "model", folder, tmp_path / "scores")
    assert status == 0
    assert memory < MEMORY
    assert 60 < len(readable) < 300  # some of both kinds
    scores = [row for file in sorted((tmp_path / "scores").glob("part-*")) for row in pq.read_table(file).to_pylist()]
    assert len(scores) == 360
    assert [row["id"] for row in scores if row["error"] is None] == readable
    assert all((row["p_fake"] is None) == (row["error"] is not None) for row in scores)
