"""Shards contain the rows of their source, are written atomically, and are replaced if damaged."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from datasets import load_dataset
from huggingface_hub import DatasetCard

from realfake_hf.data.loading import load_images
from realfake_hf.data.shards import main, write_shards
from realfake_hf.store import sha256_of

ROOT = Path(__file__).parents[1]
MIB = 2**20


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return load_images("demo", cache_dir=tmp_path_factory.mktemp("rows"))


def words(folder, **settings):
    flags = [word for name, value in settings.items() for word in (f"--{name}", str(value))]
    return ["--data", "demo", "--output_dir", str(folder), *flags]


def damaged_shards(folder):
    shards = json.loads((folder / "shards.json").read_text())["shards"]
    checksums = {shard["file"]: shard["sha256"] for shard in shards}
    return [file for file in checksums if not (folder / file).exists() or sha256_of(folder / file) != checksums[file]]


def test_shards_contain_the_rows_of_the_source_in_its_schema(images, tmp_path, capsys):
    assert main(words(tmp_path / "shards", shard_mib=0.3, license="mit")) == 0
    loaded = load_dataset("parquet", data_dir=str(tmp_path / "shards/data"), cache_dir=str(tmp_path / "cache"))
    assert set(loaded) == set(images)
    for split, rows in images.items():
        assert loaded[split].features == rows.features
        assert loaded[split]["sha256"][:] == rows["sha256"][:]
        assert loaded[split]["id"][:] == rows["id"][:]
        assert loaded[split][3]["image"].tobytes() == rows[3]["image"].tobytes()
    again = load_images(tmp_path / "shards", cache_dir=tmp_path / "rows")
    assert {split: rows["id"][:] for split, rows in again.items()} == {
        split: rows["id"][:] for split, rows in images.items()
    }
    manifest = json.loads((tmp_path / "shards/shards.json").read_text())["shards"]
    assert sum(one["n"] for one in manifest) == sum(map(len, images.values()))
    assert sum(one["n_fake"] for one in manifest) == sum(sum(rows["label"][:]) for rows in images.values())
    assert len(manifest) > 3
    assert all(one["bytes"] < 0.4 * MIB for one in manifest)
    card = DatasetCard.load(tmp_path / "shards/README.md")
    assert card.data.license == "mit"
    assert f"in {len(manifest):,} shards" in capsys.readouterr().out


def test_intact_shards_are_kept_and_damaged_ones_are_written_again(images, tmp_path, caplog):
    folder = tmp_path / "shards"
    folder.mkdir()
    (folder / "shards.json.part").write_text("{")  # of one that was killed as it began
    before = write_shards(images, folder, shard_bytes=0.3 * MIB)
    assert damaged_shards(folder) == []
    cut, gone, changed, kept = (folder / before[number]["file"] for number in (0, 1, 2, 3))
    data = changed.read_bytes()
    cut.write_bytes(cut.read_bytes()[:-1])
    gone.unlink()
    changed.write_bytes(bytes([data[0] ^ 1]) + data[1:])
    untouched = kept.stat().st_mtime_ns
    assert damaged_shards(folder) == [shard["file"] for shard in before[:3]]
    assert write_shards(images, folder, shard_bytes=0.3 * MIB) == before
    assert damaged_shards(folder) == []
    assert kept.stat().st_mtime_ns == untouched
    for file in (cut, gone, changed):
        assert f"checksum mismatch in {file}" in caplog.text


def test_a_full_disk_leaves_complete_shards(images, tmp_path, monkeypatch, capsys):
    real = os.fsync
    calls = []

    def full(descriptor):
        calls.append(descriptor)
        if len(calls) == 3:
            raise OSError(28, "No space left on device")
        real(descriptor)

    monkeypatch.setattr("realfake_hf.data.shards.os.fsync", full)
    assert main(words(tmp_path / "shards", shard_mib=0.3)) == 1
    assert "No space left on device" in capsys.readouterr().err
    assert damaged_shards(tmp_path / "shards") == []
    assert len(list((tmp_path / "shards/data").glob("*.parquet"))) == 2
    assert main(words(tmp_path / "shards", shard_mib=0.3)) == 0
    assert write_shards(images, tmp_path / "other", shard_bytes=0.3 * MIB) == write_shards(
        images, tmp_path / "shards", shard_bytes=0.3 * MIB
    )


def test_other_files_other_images_and_other_sizes_are_rejected(images, tmp_path, capsys):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/letter.txt").write_text("dear")
    assert main(words(tmp_path / "mine")) == 1
    assert "found letter.txt" in capsys.readouterr().err
    assert main(words(tmp_path / "shards", shard_mib=0)) == 1
    assert "more than 0 bytes; found 0" in capsys.readouterr().err
    write_shards(images, tmp_path / "shards", shard_bytes=MIB)
    assert main(words(tmp_path / "shards", shard_mib=2)) == 1
    assert "found other values of shard_bytes" in capsys.readouterr().err
    fewer = type(images)({"train": images["train"].select(range(9))})
    with pytest.raises(ValueError, match="found other values of source"):
        write_shards(fewer, tmp_path / "shards", shard_bytes=MIB)


@pytest.mark.slow
def test_after_a_kill_the_shards_are_those_of_an_uninterrupted_call(images, tmp_path):
    expected = write_shards(images, tmp_path / "unbroken", shard_bytes=0.01 * MIB)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "realfake_hf.data.shards", *words(tmp_path / "killed", shard_mib=0.01)]
    log = tmp_path / "log"
    with log.open("w") as stream:
        killed = subprocess.Popen(command, env=environment, stdout=stream, stderr=subprocess.STDOUT)
    deadline = time.monotonic() + 120
    while len(list((tmp_path / "killed/data").glob("*.parquet"))) < 5:
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.001)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert len(list((tmp_path / "killed/data").glob("*.parquet"))) < len(expected)
    assert main(words(tmp_path / "killed", shard_mib=0.01)) == 0
    assert write_shards(images, tmp_path / "killed", shard_bytes=0.01 * MIB) == expected
    assert not list((tmp_path / "killed").rglob("*.part"))
