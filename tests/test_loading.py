"""Folders, archives, parquet and saved data sets load in one schema; errors are reported; the cache is reliable."""

import io
import json
import logging
import os
import pickle
import re
import struct
import subprocess
import sys
import warnings
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import pyarrow as pa
import pytest
import torch
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image, Value, load_from_disk
from PIL import Image as Pillow

from realfake_hf.data import files as data_files
from realfake_hf.data import loading as sources
from realfake_hf.data.decoding import MAX_BYTES, UnreadableImageError, decode_image, pixel_hash
from realfake_hf.data.files import FolderFiles, ZipFiles, read_file
from realfake_hf.data.hub import HubRows
from realfake_hf.data.loading import DEMO, SCHEMA, choose_split, find_source, load_images, load_split
from realfake_hf.parallel import map_in_processes

PictureBytes = Callable[..., bytes]
MakeFolder = Callable[..., Path]

TWO = ("real/a.png", "fake/b.png")
MANY = [f"{label}/{n}.png" for label in ("real", "fake") for n in range(60)]


@pytest.fixture
def make_zip(tmp_path: Path, picture_bytes: PictureBytes) -> Callable[..., Path]:
    def make(
        files: Iterable[str] | Mapping[str, bytes], name: str = "set.zip", method: int = zipfile.ZIP_STORED
    ) -> Path:
        given = files if isinstance(files, Mapping) else {path: picture_bytes(path) for path in files}
        with zipfile.ZipFile(tmp_path / name, "w", method) as archive:
            for path, data in given.items():
                archive.writestr(zipfile.ZipInfo(path), data, compress_type=method)
        return tmp_path / name

    return make


def hashes(images: DatasetDict) -> dict[str, list[str]]:
    return {split: rows["sha256"][:] for split, rows in images.items()}


def cifake_names() -> list[str]:
    brackets = ["", *(f" ({number})" for number in range(2, 11))]
    places = (("train", 1000), ("test", 0))
    reals = [f"{split}/REAL/0000{b}.jpg" for split, _ in places for b in brackets]
    return reals + [f"{split}/FAKE/{start}{b}.jpg" for split, start in places for b in brackets]


def test_a_split_is_the_given_one_or_test_or_the_only_one(make_folder: MakeFolder) -> None:
    single = make_folder(TWO, name="single")
    double = make_folder([f"{split}/{path}" for split in ("train", "test") for path in TWO], name="double")
    assert (load_split(single)[0], load_split(double)[0], load_split(double, "train")[0]) == ("train", "test", "train")
    with pytest.raises(ValueError, match=r"split 'test' of .*single; found train"):
        load_split(single, "test")
    with pytest.raises(ValueError, match="split 'test' of half; found train, validation"):
        choose_split({"train": 0, "validation": 0}, None, "half")


# --- the schema


def test_a_folder_becomes_rows_of_the_schema(make_folder: MakeFolder, picture_bytes: PictureBytes) -> None:
    images = load_images(make_folder(["real/frog/a.png", "fake/frog/b.png"]))
    assert images["train"].features == SCHEMA
    assert images["train"].features["label"].names == ["REAL", "FAKE"]
    row = next(row for row in images["train"] if row["label"] == 0)
    assert (row["content"], row["generator"], row["source"]) == ("frog", None, "pictures")
    assert re.fullmatch("[0-9a-f]{16}", row["id"])
    assert row["sha256"] == pixel_hash(decode_image(picture_bytes("real/frog/a.png"))) == pixel_hash(row["image"])


def test_rows_are_sorted_by_opaque_ids_and_contain_no_file_names(make_folder: MakeFolder) -> None:
    rows = load_images(make_folder(MANY))["train"]
    assert rows["id"][:] == sorted(rows["id"][:])
    assert len(set(rows["id"][:])) == len(rows) == 120
    stored = rows.cast_column("image", Image(decode=False))
    assert {picture["path"] for picture in stored["image"]} == {None}
    assert not getattr(rows[0]["image"], "filename", "")
    assert all(name.encode() not in Path(rows.cache_files[0]["filename"]).read_bytes() for name in ("real/", ".png"))


def test_a_zip_and_its_unpacked_folder_give_the_same_images(make_zip: Callable[..., Path], tmp_path: Path) -> None:
    archive = make_zip(MANY)
    with zipfile.ZipFile(archive) as opened:
        opened.extractall(tmp_path / "set")
    zipped, unpacked = load_images(archive), load_images(tmp_path / "set")
    assert zipped["train"].to_dict() == unpacked["train"].to_dict()


def test_cifake_has_contents_splits_and_generators_from_zip_and_folder(
    make_zip: Callable[..., Path], make_folder: MakeFolder, picture_bytes: PictureBytes
) -> None:
    files = {name: picture_bytes(name, "JPEG", (32, 32)) for name in cifake_names()}
    zipped = load_images(make_zip(files, "archive.zip"))
    folder = load_images(make_folder(files, "unpacked"))
    assert {split: len(rows) for split, rows in zipped.items()} == {"train": 20, "test": 20}
    for split, rows in zipped.items():
        assert rows.to_dict() == folder[split].to_dict()
        assert len(set(zip(rows["content"][:], rows["label"][:], strict=True))) == 20
        assert set(rows["source"][:]) == {"cifake"}
        for label, generator in zip(rows["label"][:], rows["generator"][:], strict=True):
            assert generator == ("stable-diffusion-1.4" if label else None)


def test_a_wrong_suffix_does_not_matter(make_folder: MakeFolder, picture_bytes: PictureBytes) -> None:
    folder = make_folder({"real/a.png": picture_bytes(1, "WEBP"), "fake/b.gif": picture_bytes(2, "JPEG")})
    assert len(load_images(folder)["train"]) == 2


def test_special_images_decode_upright_and_rgb_through_plain_datasets(
    make_folder: MakeFolder, picture_bytes: PictureBytes
) -> None:
    exif = Pillow.Exif()
    exif[0x0112] = 6
    data = picture_bytes(1, "JPEG", (12, 8), exif=exif)
    rows = load_images(make_folder({"real/a.jpg": data, "fake/b.png": picture_bytes(2)}))["train"]
    row = next(row for row in rows if row["label"] == 0)
    assert (row["image"].mode, row["image"].size) == ("RGB", (8, 12))
    assert pixel_hash(row["image"]) == row["sha256"]


# --- unreadable files


def test_unreadable_files_are_skipped_and_logged_on_every_call(
    make_folder: MakeFolder, caplog: pytest.LogCaptureFixture
) -> None:
    folder = make_folder([*MANY, *(path.replace("/", "/more-") for path in MANY)])
    (folder / "real/empty.png").write_bytes(b"")
    (folder / "fake/cut.jpg").write_bytes(b"\xff\xd8\xff\xe0 and no more")
    for _ in range(2):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            images = load_images(folder)
        assert len(images["train"]) == 240
        assert "skipped 2 unreadable images of pictures:" in caplog.text
        assert "real/empty.png: the file is empty (0 bytes)" in caplog.text
        assert "fake/cut.jpg: " in caplog.text


def test_at_most_ten_unreadable_files_are_listed(caplog: pytest.LogCaptureFixture) -> None:
    unreadable = [sources.Unreadable(f"{n}.png", "bad") for n in range(13)]
    sources._log_unreadable("mine", unreadable)
    assert "13 unreadable images of mine" in caplog.text
    assert "9.png: bad\n  and 3 more" in caplog.text


def test_more_than_one_percent_unreadable_is_an_error_and_leaves_no_cache(
    make_folder: MakeFolder, tmp_path: Path
) -> None:
    folder = make_folder(MANY)
    (folder / "real/a.png").write_bytes(b"")
    (folder / "real/b.png").write_bytes(b"nothing")
    message = r"at most 1% unreadable images in pictures; found 2 of 122, such as real/.\.png \("
    with pytest.raises(ValueError, match=message):
        load_images(folder, cache_dir=tmp_path / "cache")
    assert [path.suffix for path in (tmp_path / "cache").iterdir()] == [".lock"]


def test_a_listed_file_that_is_missing_counts_as_unreadable(make_folder: MakeFolder) -> None:
    folder = make_folder([*TWO])
    (folder / "metadata.csv").write_text("path,label\nreal/a.png,real\nfake/b.png,fake\ngone.png,fake\n")
    with pytest.raises(ValueError, match=r"found 1 of 3, such as gone\.png \(the file is missing\)"):
        load_images(folder)


def test_a_decompression_bomb_is_skipped_and_logged(
    make_folder: MakeFolder, picture_bytes: PictureBytes, caplog: pytest.LogCaptureFixture
) -> None:
    bomb = bytearray(picture_bytes(0))
    bomb[16:24] = struct.pack(">II", 50_000, 50_000)  # width and height in the header
    bomb[29:33] = struct.pack(">I", __import__("zlib").crc32(bytes(bomb[12:29])))
    folder = make_folder({path: picture_bytes(path) for path in MANY} | {"fake/bomb.png": bytes(bomb)})
    assert len(load_images(folder)["train"]) == 120
    assert "fake/bomb.png: the image is larger than 89,478,485 pixels" in caplog.text


def test_a_class_with_only_unreadable_images_counts_as_missing(make_folder: MakeFolder) -> None:
    folder = make_folder([f"real/{n}.png" for n in range(120)])
    (folder / "fake").mkdir()
    (folder / "fake/only.png").write_bytes(b"")
    with pytest.raises(ValueError, match="found 120 real and 0 fake"):
        load_images(folder)


# --- rejected sources


@pytest.mark.parametrize(
    "paths", [["real/a.png", "real/b.png"], ["train/real/a.png", "train/fake/a.png", "test/real/b.png"]]
)
def test_a_split_with_one_class_is_rejected_before_any_image_is_read(
    make_folder: MakeFolder, paths: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_folder(paths)
    monkeypatch.setattr(Path, "read_bytes", None)
    with pytest.raises(ValueError, match=r"expected real and fake images in the split t\w+ of pictures; found . real"):
        load_images(folder)


def test_an_empty_folder_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="found 0 files"):
        load_images(tmp_path)


@pytest.mark.parametrize("name", ["nothing-here", "./a/b", "a/b.zip", "a/b/c", "no where/x", "x.parquet"])
def test_a_missing_source_is_rejected(name: str) -> None:
    with pytest.raises(FileNotFoundError, match=f"found nothing at '{name}'"):
        load_images(name)


def test_a_file_of_an_unsupported_kind_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "set.tar.gz").write_bytes(b"\x1f\x8b hello")
    with pytest.raises(ValueError, match=r"expected a zip archive, a parquet file or a folder; found .*set\.tar\.gz"):
        load_images(tmp_path / "set.tar.gz")


def test_a_truncated_zip_is_rejected(make_zip: Callable[..., Path]) -> None:
    archive = make_zip(TWO)
    archive.write_bytes(archive.read_bytes()[:-30])
    with pytest.raises(ValueError, match=r"File is not a zip file"):
        load_images(archive)


@pytest.mark.parametrize(
    "path", ["../real/c.png", "real/../../c.png", "/real/c.png", "C:/real/c.png", "real\\..\\..\\c.png"]
)
def test_a_zip_with_entries_outside_of_it_is_rejected(make_zip: Callable[..., Path], path: str) -> None:
    with pytest.raises(ValueError, match=r"expected an archive whose entries stay inside it; found"):
        load_images(make_zip([*TWO, path]))


def test_an_encrypted_zip_is_rejected(make_zip: Callable[..., Path]) -> None:
    archive = make_zip(TWO)
    data = archive.read_bytes()
    archive.write_bytes(_with_flag(data, b"PK\x01\x02", 8) if data else data)
    with pytest.raises(ValueError, match=r"encrypted entry, 'real/a\.png' in"):
        load_images(archive)


def _with_flag(data: bytes, signature: bytes, offset: int) -> bytes:
    place = data.index(signature) + offset
    return data[:place] + bytes([data[place] | 1]) + data[place + 1 :]


def test_a_zip_with_an_unbounded_compression_method_is_rejected(make_zip: Callable[..., Path]) -> None:
    with pytest.raises(ValueError, match=r"method 12, 'real/a\.png' in"):
        load_images(make_zip(TWO, method=zipfile.ZIP_BZIP2))


def test_a_zip_written_with_backslashes_is_read(make_zip: Callable[..., Path]) -> None:
    images = load_images(make_zip(["real\\frog\\a.png", "fake\\frog\\b.png"]))
    assert images["train"]["content"][:] == ["frog", "frog"]


def test_a_zip_entry_that_declares_a_huge_size_is_not_unpacked(make_zip: Callable[..., Path]) -> None:
    archive = make_zip(TWO, method=zipfile.ZIP_DEFLATED)
    data = bytearray(archive.read_bytes())
    place = data.index(b"PK\x01\x02") + 24
    data[place : place + 4] = struct.pack("<I", MAX_BYTES + 1)
    archive.write_bytes(bytes(data))
    with pytest.raises(UnreadableImageError, match="268,435,457 bytes; the limit is 268,435,456"):
        ZipFiles(archive).read("real/a.png")


def test_a_zip_entry_is_not_unpacked_beyond_its_declared_size(make_zip: Callable[..., Path]) -> None:
    archive = make_zip({"real/a.png": bytes(50_000_000)}, method=zipfile.ZIP_DEFLATED)
    data = bytearray(archive.read_bytes())
    for signature, offset in ((b"PK\x01\x02", 24), (b"PK\x03\x04", 22)):
        place = data.index(signature) + offset
        data[place : place + 4] = struct.pack("<I", 1000)
    archive.write_bytes(bytes(data))
    with pytest.raises(UnreadableImageError, match="damaged in the archive: Bad CRC-32"):
        ZipFiles(archive).read("real/a.png")


@pytest.mark.parametrize("place", range(0, 60, 3))
def test_a_damaged_zip_entry_raises_no_other_error(make_zip: Callable[..., Path], place: int) -> None:
    archive = make_zip({"a.png": bytes(range(256)) * 4}, method=zipfile.ZIP_DEFLATED)
    data = bytearray(archive.read_bytes())
    data[place] ^= 0xFF
    archive.write_bytes(bytes(data))
    try:
        assert ZipFiles(archive).read("a.png") == bytes(range(256)) * 4  # a byte that nobody reads
    except UnreadableImageError as error:
        assert "damaged in the archive" in str(error)  # noqa: PT017


def test_a_reader_can_be_pickled(make_zip: Callable[..., Path], picture_bytes: PictureBytes) -> None:
    files = ZipFiles(make_zip(TWO))
    assert files.read(TWO[0]) == pickle.loads(pickle.dumps(files)).read(TWO[0]) == picture_bytes(TWO[0])


# --- links


def test_links_are_followed_except_for_loops(make_folder: MakeFolder, tmp_path: Path) -> None:
    kept = make_folder(["a.png", "sub/b.png"], "kept")
    folder = make_folder(["fake/c.png"])
    (folder / "real").symlink_to(kept)
    (folder / "fake/d.png").symlink_to(kept / "a.png")
    (folder / "fake/loop").symlink_to(folder)
    (kept / "sub/up").symlink_to(tmp_path)
    assert FolderFiles(folder).paths[:2] == ["fake/c.png", "fake/d.png"]
    assert {"real/a.png", "real/sub/b.png"} <= set(FolderFiles(folder).paths)
    assert len(FolderFiles(folder).paths) < 20


def test_only_regular_files_are_read_and_no_more_than_their_size(tmp_path: Path, picture_bytes: PictureBytes) -> None:
    os.mkfifo(tmp_path / "fifo.png")
    for path in (tmp_path / "fifo.png", tmp_path, Path("/dev/zero"), tmp_path / "gone.png", tmp_path / "nul\0.png"):
        with pytest.raises(UnreadableImageError, match=r"regular|missing"):
            read_file(path)
    (tmp_path / "large.png").touch()
    os.truncate(tmp_path / "large.png", MAX_BYTES + 1)
    with pytest.raises(UnreadableImageError, match=f"limit is {MAX_BYTES:,}"):
        read_file(str(tmp_path / "large.png"))
    (tmp_path / "a.png").write_bytes(picture_bytes(1))
    assert read_file(str(tmp_path / "a.png")) == picture_bytes(1)


def test_a_file_that_grows_is_read_to_the_size_it_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.png").write_bytes(b"1234")

    def grow(_: int) -> None:
        (tmp_path / "a.png").write_bytes(b"12345678")

    monkeypatch.setattr(data_files, "_check_size", grow)
    assert read_file(tmp_path / "a.png") == b"1234"


def test_links_in_circles_and_deep_folders_are_one_sentence(tmp_path: Path) -> None:
    for name in "abcdef":
        (tmp_path / "circles" / name).mkdir(parents=True)
        for other in set("abcdef") - {name}:
            (tmp_path / "circles" / name / other).symlink_to(tmp_path / "circles" / other)
    with pytest.raises(ValueError, match=f"at most {data_files.MAX_WAYS} ways .* links"):
        FolderFiles(tmp_path / "circles")
    (tmp_path / "loop").mkdir()
    (tmp_path / "loop/self.png").symlink_to("self.png")
    assert FolderFiles(tmp_path / "loop").paths == ["self.png"]  # later counted as unreadable
    deep = tmp_path / "deep"
    deep.mkdir()
    place = os.open(deep, os.O_RDONLY)
    for _ in range(1_500):  # deeper than a path can be written
        os.mkdir("d" * 9, dir_fd=place)
        inner = os.open("d" * 9, os.O_RDONLY, dir_fd=place)
        os.close(place)
        place = inner
    os.close(place)
    with pytest.raises(ValueError, match=f"at most {data_files.MAX_DEPTH} nested folders"):
        FolderFiles(deep)
    subprocess.run(["rm", "-rf", str(deep)], check=True)  # shutil would recurse


def test_a_broken_link_counts_as_unreadable(make_folder: MakeFolder) -> None:
    folder = make_folder(TWO)
    (folder / "real/gone.png").symlink_to(folder / "nowhere.png")
    with pytest.raises(ValueError, match=r"found 1 of 3, such as real/gone\.png \(the file is missing\)"):
        load_images(folder)


def test_a_huge_file_in_a_folder_is_not_read(make_folder: MakeFolder) -> None:
    folder = make_folder(TWO)
    with (folder / "real/a.png").open("ab") as file:
        file.truncate(MAX_BYTES + 1)
    with pytest.raises(UnreadableImageError, match="the limit is 268,435,456"):
        FolderFiles(folder).read("real/a.png")


def test_file_names_that_are_not_utf8_are_loaded(make_folder: MakeFolder, picture_bytes: PictureBytes) -> None:
    folder = make_folder(TWO)
    Path(os.fsdecode(os.fsencode(folder) + b"/real/\xfcbung.png")).write_bytes(picture_bytes(7))
    assert len(load_images(folder)["train"]) == 3


# --- the cache


def test_a_second_call_reads_from_the_cache_only(make_folder: MakeFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_folder(MANY)
    first = load_images(folder)
    monkeypatch.delattr(sources, "write_splits")
    monkeypatch.setattr(sources, "find_records", lambda *_: pytest.fail("the images are searched for again"))
    monkeypatch.setattr(Path, "read_bytes", None)
    assert load_images(folder)["train"].to_dict() == first["train"].to_dict()


@pytest.mark.parametrize("change", ["write", "add", "remove", "table"])
def test_a_changed_source_gives_new_rows(make_folder: MakeFolder, picture_bytes: PictureBytes, change: str) -> None:
    folder = make_folder([*TWO, "real/c.png"])
    before = hashes(load_images(folder)), load_images(folder)["train"]["content"][:]
    if change == "write":
        (folder / "real/c.png").write_bytes(picture_bytes("other"))
    if change == "add":
        (folder / "real/d.png").write_bytes(picture_bytes("other"))
    if change == "remove":
        (folder / "real/c.png").unlink()
    if change == "table":
        (folder / "metadata.csv").write_text("path,content\nreal/c.png,frog\n")
    assert (hashes(load_images(folder)), load_images(folder)["train"]["content"][:]) != before


def test_a_changed_zip_gives_new_rows(make_zip: Callable[..., Path]) -> None:
    assert len(load_images(make_zip(TWO))["train"]) == 2
    assert len(load_images(make_zip([*TWO, "real/c.png"]))["train"]) == 3


def test_the_cache_folder_can_be_chosen(make_folder: MakeFolder, tmp_path: Path) -> None:
    rows = load_images(make_folder(TWO), cache_dir=tmp_path / "here")["train"]
    assert Path(rows.cache_files[0]["filename"]).is_relative_to(tmp_path / "here")


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, MemoryError])
def test_an_interrupted_call_leaves_no_cache_and_the_next_call_starts_over(
    make_folder: MakeFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, interruption: type[BaseException]
) -> None:
    folder = make_folder(MANY)
    read = FolderFiles.read

    def stop(self: FolderFiles, path: str) -> bytes:
        if path == "real/30.png":
            raise interruption
        return read(self, path)

    with monkeypatch.context() as patch:
        patch.setattr(FolderFiles, "read", stop)
        with pytest.raises(interruption):
            load_images(folder, cache_dir=tmp_path / "cache")
    assert [path.suffix for path in (tmp_path / "cache").iterdir()] == [".lock"]
    assert len(load_images(folder, cache_dir=tmp_path / "cache")["train"]) == 120


@pytest.mark.slow
def test_concurrent_processes_build_one_cache(make_folder: MakeFolder, tmp_path: Path) -> None:
    folder = make_folder(MANY)
    code = (
        "import sys; from realfake_hf.data.loading import load_images; "
        "print(len(load_images(sys.argv[1], cache_dir=sys.argv[2])['train']))"
    )
    command = [sys.executable, "-c", code, str(folder), str(tmp_path / "cache")]
    calls = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [call.communicate(timeout=200)[0].strip() for call in calls] == ["120", "120"]
    assert sorted(path.suffix for path in (tmp_path / "cache").iterdir()) == ["", ".lock"]


def test_processes_keep_the_order_and_leave_the_random_state_unchanged() -> None:
    before = torch.random.get_rng_state()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 dislikes a fork beside threads
        outcomes = [total for _, total in map_in_processes(sum, range(5_010), description="adding")]
    assert outcomes == [sum(range(start, min(start + 50, 5_010))) for start in range(0, 5_010, 50)]
    assert torch.equal(torch.random.get_rng_state(), before)


def test_an_error_in_a_chunk_reaches_the_caller() -> None:
    with pytest.raises(ZeroDivisionError):
        list(map_in_processes(lambda numbers: 1 / (len(numbers) - 7), range(7), description="dividing"))


# --- the location of CIFAKE


def small_cifake(picture_bytes: PictureBytes) -> dict[str, bytes]:
    return {name: picture_bytes(name, "JPEG", (32, 32)) for name in cifake_names()}


@pytest.mark.parametrize("place", ["data/cifake/archive.zip", "archive.zip", "shared/data/cifake/archive.zip"])
def test_cifake_is_found_below_the_working_directory_and_the_shared_folder(
    make_zip: Callable[..., Path],
    picture_bytes: PictureBytes,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    place: str,
) -> None:
    (tmp_path / "work" / place).parent.mkdir(parents=True)
    make_zip(small_cifake(picture_bytes), "set.zip").rename(tmp_path / "work" / place)
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("REALFAKE_SHARED", "shared")
    assert len(load_images("cifake")["test"]) == 20


def test_a_relative_path_is_searched_here_first_and_then_below_the_shared_folder(
    make_folder: MakeFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_folder(TWO, "shared/data/own")
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.delenv("REALFAKE_SHARED", raising=False)
    with pytest.raises(FileNotFoundError, match="found nothing at 'data/more/own'"):
        sources.find_source("data/more/own")
    monkeypatch.setenv("REALFAKE_SHARED", str(tmp_path / "shared"))
    below = sources.find_source("data/own")
    assert below.fingerprint == sources.find_source(tmp_path / "shared/data/own").fingerprint
    make_folder((*TWO, "real/more.png"), "work/data/own")
    assert sources.find_source("data/own").fingerprint != below.fingerprint


def test_an_unpacked_cifake_is_found(
    make_folder: MakeFolder, picture_bytes: PictureBytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_folder(small_cifake(picture_bytes), "data/cifake")
    monkeypatch.chdir(tmp_path)
    assert set(load_images("cifake")["train"]["source"][:]) == {"cifake"}


def test_another_data_set_in_place_of_cifake_is_rejected(
    make_zip: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load_images(make_zip(TWO, "archive.zip"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("REALFAKE_SHARED", raising=False)
    with pytest.raises(ValueError, match=r"expected CIFAKE at archive\.zip; found another data set"):
        load_images("cifake")


def test_without_archive_and_network_the_error_says_where_to_get_cifake_and_where_to_put_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data/cifake").mkdir(parents=True)  # an empty folder is nothing
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("REALFAKE_SHARED", raising=False)
    with pytest.raises(FileNotFoundError, match="mirror dragonintelligence/CIFAKE-image-dataset on the Hub") as caught:
        load_images("cifake")
    assert f"download archive.zip from {sources.CIFAKE_PAGE} and put it at data/cifake/archive.zip." in str(
        caught.value
    )
    assert "\n" not in str(caught.value)


def test_a_local_path_takes_precedence_over_a_hub_id(
    make_folder: MakeFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_folder(TWO, "user/name")
    monkeypatch.chdir(tmp_path)
    assert len(load_images("user/name")["train"]) == 2


# --- parquet and saved data sets


def table(picture_bytes: PictureBytes, names: tuple[str, str] = ("REAL", "FAKE"), **columns: list[object]) -> Dataset:
    """Four images with alternating labels."""
    rows = {"image": [{"bytes": picture_bytes(n), "path": f"{n}.png"} for n in range(4)], "label": [0, 1, 0, 1]}
    features = Features({"image": Image(), "label": ClassLabel(names=list(names))})
    features |= {name: Value("string") for name in columns}
    return Dataset.from_dict(rows | columns, features=Features(features))


def by_hash(images: DatasetDict) -> dict[str, int]:
    return {row["sha256"]: row["label"] for rows in images.values() for row in rows}


def test_labels_are_mapped_by_name_whatever_their_order(picture_bytes: PictureBytes, tmp_path: Path) -> None:
    table(picture_bytes, ("REAL", "FAKE")).to_parquet(tmp_path / "one.parquet")
    table(picture_bytes, ("fake", "real")).to_parquet(tmp_path / "two.parquet")
    one, two = (by_hash(load_images(tmp_path / f"{name}.parquet")) for name in ("one", "two"))
    assert one == {digest: 1 - label for digest, label in two.items()}


def test_string_labels_other_image_columns_and_extra_columns_are_read(
    picture_bytes: PictureBytes, tmp_path: Path
) -> None:
    rows = {
        "img": [{"bytes": picture_bytes(n), "path": None} for n in range(2)],
        "label": ["real", "fake"],
        "content": [1, 0],
        "split": ["test", "test"],
        "prompt": [None, "a frog"],
    }
    text = Value("string")
    features = Features(
        {"img": Image(), "label": text, "content": ClassLabel(names=["cat", "dog"]), "split": text, "prompt": text}
    )
    Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "my [set] ü.parquet")
    images = load_images(tmp_path / "my [set] ü.parquet")
    assert list(images) == ["test"]
    assert {(row["label"], row["content"], row["generator"]) for row in images["test"]} == {
        (0, "dog", None), (1, "cat", None),
    }  # fmt: skip


def test_a_folder_of_parquet_files_keeps_its_splits(picture_bytes: PictureBytes, tmp_path: Path) -> None:
    for split in ("train", "test"):
        (tmp_path / "set [1]/data").mkdir(parents=True, exist_ok=True)
        table(picture_bytes).to_parquet(tmp_path / f"set [1]/data/{split}-00000-of-00001.parquet")
    assert {split: len(rows) for split, rows in load_images(tmp_path / "set [1]").items()} == {"train": 4, "test": 4}


def test_a_changed_parquet_file_gives_new_rows(picture_bytes: PictureBytes, tmp_path: Path) -> None:
    file = tmp_path / "set.parquet"
    table(picture_bytes, ("REAL", "FAKE")).to_parquet(file)
    before = by_hash(load_images(file))
    table(picture_bytes, ("FAKE", "REAL")).to_parquet(file)
    os.utime(file, ns=(1, 1))
    assert by_hash(load_images(file)) == {digest: 1 - label for digest, label in before.items()}


def test_saving_to_disk_and_loading_again_keeps_the_rows(make_folder: MakeFolder, tmp_path: Path) -> None:
    images = load_images(make_folder([f"{split}/{path}" for split in ("train", "test") for path in TWO]))
    images.save_to_disk(tmp_path / "saved")
    again = load_images(tmp_path / "saved")
    for split, rows in images.items():
        assert again[split].to_dict() == rows.to_dict()
        assert again[split].features == SCHEMA
    images["train"].save_to_disk(tmp_path / "one split")
    assert load_images(tmp_path / "one split")["train"].to_dict() == images["train"].to_dict()
    assert load_from_disk(str(tmp_path / "saved"))["train"][0]["image"].mode == "RGB"


def test_the_demo_data_load_offline_with_their_splits_ids_and_hashes() -> None:
    images = load_images("demo")
    stated = Dataset.from_parquet(str(DEMO)).remove_columns(["image", "region", "box"]).to_dict()
    assert set(images) == {"train", "validation", "test"}
    loaded = {row["id"]: (row["sha256"], row["label"]) for rows in images.values() for row in rows}
    assert loaded == dict(zip(stated["id"], zip(stated["sha256"], stated["label"], strict=True), strict=True))


@pytest.mark.parametrize(
    ("feature", "labels", "message"),
    [
        (Value("int64"), [0, 1], "expected one label column in set"),
        (
            ClassLabel(names=["real", "fake", "unsure"]),
            [0, 1],
            "real or fake .* found 'unsure'",
        ),
        (ClassLabel(names=["0", "1"]), [0, 1], "real or fake .* found '0'"),
        (ClassLabel(names=["real", "fake"]), [0, -1], r"real or fake in row 1 of train of set, 'label'; found ''"),
        (Value("string"), ["real", None], r"real or fake in row 1 of train of set, 'label'; found ''"),
        (Value("string"), ["real", "frog"], r"real or fake in row 1 of train of set, 'label'; found 'frog'"),
    ],
)
def test_labels_other_than_real_and_fake_are_rejected(
    picture_bytes: PictureBytes, tmp_path: Path, feature: object, labels: list[object], message: str
) -> None:
    rows = {"image": [{"bytes": picture_bytes(n), "path": None} for n in range(2)], "label": labels}
    features = Features({"image": Image(), "label": feature})
    Dataset.from_dict(rows, features=features).save_to_disk(tmp_path / "set")
    with pytest.raises(ValueError, match=message):
        load_images(tmp_path / "set")


def test_a_data_set_without_a_single_image_column_is_rejected(picture_bytes: PictureBytes, tmp_path: Path) -> None:
    rows = table(picture_bytes)
    two = Dataset.from_dict(
        {"left": [picture_bytes(1)], "right": [picture_bytes(2)], "label": ["real"]},
        features=Features({"left": Image(), "right": Image(), "label": Value("string")}),
    )
    for name, images, count in (("none", rows.remove_columns("image"), 0), ("two", two, 2)):
        images.save_to_disk(tmp_path / name)
        with pytest.raises(ValueError, match=f"expected one image column in {name}; found {count} among"):
            load_images(tmp_path / name)


def test_splits_with_different_label_orders_are_rejected(picture_bytes: PictureBytes, tmp_path: Path) -> None:
    one, two = table(picture_bytes, ("REAL", "FAKE")), table(picture_bytes, ("FAKE", "REAL"))
    DatasetDict({"train": one, "test": two}).save_to_disk(tmp_path / "set")
    with pytest.raises(ValueError, match="expected the same columns and label names in all splits of set"):
        load_images(tmp_path / "set")


def test_a_data_set_without_rows_is_rejected(picture_bytes: PictureBytes, tmp_path: Path) -> None:
    table(picture_bytes).select([]).save_to_disk(tmp_path / "set")
    with pytest.raises(ValueError, match=r"expected a complete data set from save_to_disk in .*set; found"):
        load_images(tmp_path / "set")
    table(picture_bytes).select([]).to_parquet(tmp_path / "set.parquet")
    with pytest.raises(ValueError, match=r"expected parquet with rows in .*set\.parquet; found"):
        load_images(tmp_path / "set.parquet")


def test_rows_whose_image_is_null_or_a_path_are_unreadable(tmp_path: Path, picture_bytes: PictureBytes) -> None:
    (tmp_path / "secret.png").write_bytes(picture_bytes(1))
    pictures = [None, {"bytes": None, "path": "/dev/zero"}, {"bytes": None, "path": str(tmp_path / "secret.png")}]
    features = Features({"image": Image(), "label": Value("string")})
    splits = DatasetDict({"train": Dataset.from_dict({"image": pictures, "label": ["real"] * 3}, features=features)})
    reader = HubRows(splits, name="set")
    for row, reason in enumerate(("the row contains no image", "only the path of 'zero'", "only the path .*secret")):
        with pytest.raises(UnreadableImageError, match=reason):
            reader.read(f"train/{row}")


@pytest.mark.parametrize("data", [b"", b"PAR1 nothing PAR1", b"hello"])
def test_a_damaged_parquet_file_is_rejected(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "set.parquet").write_bytes(data)
    with pytest.raises(ValueError, match=r"expected parquet with rows in .*set\.parquet; found"):
        load_images(tmp_path / "set.parquet")


def test_find_source_reads_no_image(make_folder: MakeFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_folder(TWO)
    monkeypatch.setattr(Path, "read_bytes", None)
    assert find_source(folder).name == "pictures"
    assert len(find_source(folder).records()) == 2


def test_the_cache_is_plain_arrow_with_the_schema(make_folder: MakeFolder) -> None:
    rows = load_images(make_folder(TWO))["train"]
    with pa.OSFile(rows.cache_files[0]["filename"]) as file:
        schema = pa.ipc.open_stream(io.BytesIO(file.read())).schema
    assert set(json.loads(schema.metadata[b"huggingface"])["info"]["features"]) == set(SCHEMA)


def test_leftovers_of_a_killed_process_are_removed(tmp_path):
    images = load_images("demo", cache_dir=tmp_path / "first")
    [folder] = [place for place in (tmp_path / "first").iterdir() if place.is_dir()]
    left = tmp_path / "second" / f"{folder.name}.part-killed"
    left.mkdir(parents=True)
    (left / "train.arrow").write_bytes(b"half of it")
    again = load_images("demo", cache_dir=tmp_path / "second")
    assert again["train"]["id"][:] == images["train"]["id"][:]
    assert not left.exists()
