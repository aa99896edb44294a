"""Resumable batch scoring: every image exactly once, whatever it is and whatever dies."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from bad_files import corpus
from datasets import Dataset, Image, concatenate_datasets
from transformers import ViTImageProcessorPil
from writable_hub import serve

from benchmarks.launch import launcher
from realfake_hf import CifakeCnnConfig, CifakeCnnForImageClassification, Detector
from realfake_hf.data.loading import load_images
from realfake_hf.score.__main__ import main

ROOT = Path(__file__).parents[1]
COLUMNS = ["id", "label", "p_fake", "is_sure", "is_far", "reason", "error"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "cnn"
    torch.manual_seed(0)
    CifakeCnnForImageClassification(CifakeCnnConfig(num_filters=8)).save_pretrained(folder)
    ViTImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(folder)
    (folder / "operating_point.json").write_text(json.dumps({"threshold": 0.49, "chosen": "by hand", "n": 9}))
    return folder


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    images = load_images("demo", cache_dir=tmp_path_factory.mktemp("rows"))
    return concatenate_datasets([images["test"], images["validation"]]).select(range(300))


def words(model, output, *data, **settings):
    flags = [word for name, value in settings.items() for word in (f"--{name}", str(value))]
    return ["--model", str(model), "--data", *map(str, data), "--output", str(output), *flags]


def scores_in(folder):
    return Dataset.from_parquet([str(file) for file in sorted(folder.glob("part-*.parquet"))]).to_list()


def files_of(rows, folder):
    folder.mkdir()
    for place, row in enumerate(rows.cast_column("image", Image(decode=False))):
        (folder / f"{place:05d}.png").write_bytes(row["image"]["bytes"])
    return folder


def test_files_get_the_verdicts_of_the_detector(model, demo, tmp_path, capsys):
    folder = files_of(demo, tmp_path / "images")
    assert main(words(model, tmp_path / "scores", folder, part_size=128)) == 0
    found = scores_in(tmp_path / "scores")
    expected = Detector.from_pretrained(model).predict(demo["image"])
    assert list(found[0]) == COLUMNS
    assert [row["id"] for row in found] == sorted(file.name for file in folder.iterdir())
    assert [row["label"] for row in found] == [one.label for one in expected]
    np.testing.assert_allclose([row["p_fake"] for row in found], [one.p_fake for one in expected], atol=1e-6)
    assert {row["error"] for row in found} == {None}
    assert len(list((tmp_path / "scores").glob("part-*"))) == 3
    summary = json.loads((tmp_path / "scores/summary.json").read_text())
    assert summary["n"] == 300 == summary["counts"]["FAKE"] + summary["counts"]["REAL"]
    assert "| 300 |" in capsys.readouterr().out


@pytest.mark.slow
def test_shards_rows_and_files_get_the_same_scores(model, demo, tmp_path):
    folder = files_of(demo, tmp_path / "images")
    (tmp_path / "shards").mkdir()
    demo.select(range(170)).to_parquet(tmp_path / "shards/a.parquet", batch_size=50)
    demo.select(range(170, 300)).to_parquet(tmp_path / "shards/b.parquet")
    demo.save_to_disk(tmp_path / "saved")
    demo.to_parquet(tmp_path / "one group.parquet", batch_size=300)
    assert pq.read_metadata(tmp_path / "one group.parquet").num_row_groups == 1
    found = {}
    for name, data in {
        "files": [folder], "glob": [tmp_path / "images/*.png"], "folder of shards": [tmp_path / "shards"],
        "two shards": sorted((tmp_path / "shards").iterdir()), "glob of shards": [tmp_path / "shards/*.parquet"],
        "saved": [tmp_path / "saved"], "one group": [tmp_path / "one group.parquet"],
    }.items():  # fmt: skip
        assert main(words(model, tmp_path / f"scores of {name}", *data, part_size=70, batch_size=7)) == 0
        found[name] = scores_in(tmp_path / f"scores of {name}")
    for name, rows in found.items():
        if name in ("files", "glob"):
            continue
        by_id = {row["id"]: row["p_fake"] for row in rows}
        assert len(by_id) == 300
        in_order = [by_id[own] for own in demo["id"]]
        np.testing.assert_allclose(in_order, [row["p_fake"] for row in found["files"]], atol=1e-6)
    assert [row["p_fake"] for row in found["glob"]] == [row["p_fake"] for row in found["files"]]


def test_limits_apply_to_images_as_they_are_and_their_reason_is_a_column(model, tmp_path, picture_bytes, capsys):
    shutil.copytree(model, tmp_path / "limited")
    point = {"threshold": 0.5, "chosen": "by hand", "limits": {"short_side": 600}}
    (tmp_path / "limited/operating_point.json").write_text(json.dumps(point))
    (tmp_path / "images").mkdir()
    for name, size in (("large", (2000, 600)), ("small", (599, 700))):  # the large one is reduced before it is judged
        (tmp_path / f"images/{name}.png").write_bytes(picture_bytes(name, size=size))
    assert main(words(tmp_path / "limited", tmp_path / "scores", tmp_path / "images")) == 0
    large, small = scores_in(tmp_path / "scores")
    assert (large["is_sure"], large["reason"]) == (True, None)
    assert small["is_sure"] is False
    assert "too small" in small["reason"]
    (tmp_path / "limited/operating_point.json").write_text(json.dumps({**point, "threshold": 0.6}))
    capsys.readouterr()
    assert main(words(tmp_path / "limited", tmp_path / "scores", tmp_path / "images")) == 1
    assert "found other values of point" in capsys.readouterr().err


def test_shards_without_ids_are_named_by_file_and_row(model, demo, tmp_path):
    shard = tmp_path / "plain.parquet"
    demo.select(range(20)).select_columns(["image"]).to_parquet(shard)
    assert main(words(model, tmp_path / "scores", shard, part_size=8)) == 0
    assert [row["id"] for row in scores_in(tmp_path / "scores")] == [f"plain.parquet#{row}" for row in range(20)]


def test_whatever_people_upload_becomes_a_row(model, tmp_path):
    files = list(corpus())
    (folder := tmp_path / "uploads").mkdir()
    for number, (_, data, _) in enumerate(files):
        (folder / f"{number:03d}.png").write_bytes(data)
    (folder / "gone.png").symlink_to(folder / "nowhere.png")
    assert len(files) >= 40
    assert main(words(model, tmp_path / "scores", folder)) == 0
    found = scores_in(tmp_path / "scores")
    assert len(found) == len(files) + 1
    for (name, _, is_image), row in zip(files, found, strict=False):
        assert (row["error"] is None) == is_image == (row["p_fake"] is not None) == (row["label"] is not None), name
    assert found[-1]["error"] == "the file is missing"
    counts = json.loads((tmp_path / "scores/summary.json").read_text())["counts"]
    assert counts["errors"] == 1 + sum(not is_image for _, _, is_image in files)


def test_names_that_are_not_utf_8_are_scored(model, picture_bytes, tmp_path, capsys):
    (folder := tmp_path / "images").mkdir()
    for name in (b"caf\xe9.png", b"caf\xe8.png", "café.png".encode()):
        (folder / os.fsdecode(name)).write_bytes(picture_bytes(0))
    assert main(words(model, tmp_path / "scores", folder)) == 0
    found = scores_in(tmp_path / "scores")
    assert sorted(row["id"] for row in found) == sorted(["caf\\xe8.png", "caf\\xe9.png", "café.png"])
    assert {row["error"] for row in found} == {None}
    assert main(words(model, tmp_path / "one", folder / os.fsdecode(b"caf\xe9.png"))) == 0
    capsys.readouterr().out.encode()  # no surrogates


def test_broken_rows_of_shards_become_rows(model, picture_bytes, tmp_path):
    images = [
        {"bytes": picture_bytes(1), "path": None}, {"bytes": b"none", "path": None}, None,
        {"bytes": None, "path": None}, {"bytes": None, "path": str(tmp_path / "secret.png")},
    ]  # fmt: skip
    table = pa.table({"image": pa.array(images, Image().pa_type), "id": ["a", "b", "c", None, "e"]})
    pq.write_table(table, tmp_path / "odd.parquet")
    (tmp_path / "secret.png").write_bytes(picture_bytes(2))  # a stranger's row must not read it
    assert main(words(model, tmp_path / "scores", tmp_path / "odd.parquet")) == 0
    found = scores_in(tmp_path / "scores")
    assert [row["error"] is None for row in found] == [True, False, False, False, False]
    assert [row["error"] for row in found[2:4]] == ["the row contains no image"] * 2
    assert "secret.png" in found[4]["error"]
    assert [row["id"] for row in found] == ["a", "b", "c", "odd.parquet#3", "e"]


def test_a_part_that_is_cut_short_is_scored_again_and_named(model, demo, tmp_path, caplog):
    folder = files_of(demo, tmp_path / "images")
    given = words(model, tmp_path / "scores", folder, part_size=100)
    assert main(given) == 0
    before = scores_in(tmp_path / "scores")
    part = tmp_path / "scores/part-000001.parquet"
    part.write_bytes(part.read_bytes()[:-40])
    untouched = (tmp_path / "scores/part-000000.parquet").stat().st_mtime_ns
    (tmp_path / "scores/part-000002.parquet.999").write_bytes(b"half")
    assert main(given) == 0
    assert scores_in(tmp_path / "scores") == before
    assert f"{part} is damaged" in caplog.text
    assert (tmp_path / "scores/part-000000.parquet").stat().st_mtime_ns == untouched
    assert not (tmp_path / "scores/part-000002.parquet.999").exists()


REFUSED = {
    "nowhere/*.png": "images at 'nowhere/*.png'; found none",
    "nowhere.parquet": "expected parquet shards at 'nowhere.parquet'; found none",
    "user/none": "expected images at 'user/none'",
    "rows.parquet images": "expected either parquet shards or images; found both",
    "broken.parquet": "expected parquet in",
    "numbers.parquet": "expected one column of images in numbers.parquet; found 0 among number",
    "none.parquet": "expected images to score; found none in --data",
}


@pytest.fixture
def odd_sources(demo, make_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_folder(["1.png"], name="images")
    demo.select(range(2)).to_parquet("rows.parquet")
    demo.select([]).to_parquet("none.parquet")
    Dataset.from_dict({"number": [1]}).to_parquet("numbers.parquet")
    Path("broken.parquet").write_bytes(b"PAR1 nothing")


@pytest.mark.usefixtures("odd_sources")
@pytest.mark.parametrize("data", REFUSED)
def test_what_does_not_fit_is_refused_before_anything_is_written(model, capsys, data):
    assert main(["--model", str(model), "--output", "scores", "--data", *data.split()]) == 1
    assert REFUSED[data] in capsys.readouterr().err
    assert not Path("scores").exists()


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        ([], "--data"),
        (["--data", "images", "--part_size", "0"], "--part_size of at least 1"),
        (["--data", "images", "--batch_size", "0"], "--batch_size"),
    ],
)
def test_flags_that_do_not_fit_are_refused_before_torch_is_imported(flags, named):
    command = [sys.executable, "-X", "importtime", "-m", "realfake_hf.score", "--model", "m", "--output", "o", *flags]
    process = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert process.returncode == 2
    assert named in process.stderr.splitlines()[-1]
    assert not any(line.endswith(("| torch", "| datasets", "| pyarrow")) for line in process.stderr.splitlines())


def test_other_scores_in_the_folder_are_left_alone(model, demo, tmp_path, capsys):
    folder = files_of(demo.select(range(9)), tmp_path / "images")
    output = tmp_path / "scores"
    assert main(words(model, output, folder)) == 0
    assert main(words(model, output, folder, part_size=4)) == 1
    assert "found other values of part_size" in capsys.readouterr().err
    (folder / "another.png").write_bytes((folder / "00000.png").read_bytes())
    assert main(words(model, output, folder)) == 1
    assert "found other values of n, sha256" in capsys.readouterr().err
    assert main(words(model, folder, folder)) == 1
    assert "an empty output folder, or the folder of an interrupted scoring" in capsys.readouterr().err


@pytest.mark.slow
def test_a_set_on_the_hub_is_read_from_there(model, demo, tmp_path):
    demo.select(range(50)).to_parquet(tmp_path / "rows.parquet")
    with serve() as (_, address):
        environment = {**{k: v for k, v in os.environ.items() if not k.startswith("HF_")}, "HF_ENDPOINT": address}
        environment |= {"HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_XET": "1", "HF_TOKEN": "hf_stand_in"}
        upload = (
            "from huggingface_hub import HfApi; api = HfApi(); api.create_repo('user/set', repo_type='dataset'); "
            f"api.upload_file(path_or_fileobj={str(tmp_path / 'rows.parquet')!r}, "
            "path_in_repo='data/train-00000.parquet', repo_id='user/set', repo_type='dataset')"
        )
        subprocess.run([sys.executable, "-c", upload], env=environment, check=True, capture_output=True, timeout=120)
        done = subprocess.run(
            [sys.executable, "-m", "realfake_hf.score", *words(model, tmp_path / "scores", "user/set")],
            env=environment, capture_output=True, text=True, check=False, cwd=ROOT, timeout=120,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    expected = Detector.from_pretrained(model).probabilities(demo.select(range(50))["image"])
    found = scores_in(tmp_path / "scores")
    assert [row["id"] for row in found] == demo["id"][:50]
    np.testing.assert_allclose([row["p_fake"] for row in found], expected, atol=1e-6)


def start(given, log):
    """Score in two processes, in a process group of their own; what they say goes into the file `log`."""
    command = launcher(2, "--multi_gpu", "-m")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    with log.open("w") as stream:
        return subprocess.Popen(
            [*command, "realfake_hf.score", *given], env=environment, cwd=ROOT, start_new_session=True,
            stdout=stream, stderr=subprocess.STDOUT,
        )  # fmt: skip


@pytest.mark.slow
def test_two_processes_give_the_scores_of_one(model, demo, tmp_path):
    folder = files_of(demo, tmp_path / "images")
    assert main(words(model, tmp_path / "one", folder, part_size=32)) == 0
    given, log = words(model, tmp_path / "two", folder, part_size=32), tmp_path / "log"
    assert start(given, log).wait(240) == 0, log.read_text()
    assert scores_in(tmp_path / "two") == scores_in(tmp_path / "one")
    assert all(f"process {rank} of 2 on " in log.read_text() for rank in (0, 1))
    assert json.loads((tmp_path / "two/summary.json").read_text())["n"] == 300


@pytest.mark.slow
def test_after_a_kill_every_image_is_scored_exactly_once(model, demo, tmp_path):
    folder = files_of(demo, tmp_path / "images")
    originals = [file.read_bytes() for file in sorted(folder.iterdir())]
    for copy in range(1, 12):
        for place, data in enumerate(originals):
            (folder / f"{copy:02d}-{place:05d}.png").write_bytes(data)
    given = words(model, tmp_path / "scores", folder, part_size=32, batch_size=4)
    log = tmp_path / "log"
    killed = start(given, log)
    deadline = time.monotonic() + 120
    while len(list((tmp_path / "scores").glob("part-*.parquet"))) < 5:
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.01)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    kept = {file: file.stat().st_mtime_ns for file in (tmp_path / "scores").glob("part-*.parquet")}
    assert 5 <= len(kept) < 113
    assert start(given, log).wait(240) == 0, log.read_text()
    found = scores_in(tmp_path / "scores")
    assert sorted(row["id"] for row in found) == sorted(file.name for file in folder.iterdir())
    assert all(file.stat().st_mtime_ns == before for file, before in kept.items())
    assert pq.read_metadata(tmp_path / "scores/part-000000.parquet").num_rows == 32


def test_what_an_archive_cannot_give_is_a_row_with_an_error(model, demo, tmp_path):
    files = files_of(demo, tmp_path / "images")
    with ZipFile(tmp_path / "images.zip", "w") as archive:
        for place, file in enumerate(sorted(files.iterdir())):
            archive.write(file, f"train/{'FAKE' if place % 2 else 'REAL'}/{file.name}")
        archive.writestr("train/REAL/broken.jpg", b"no image")
    assert main(words(model, tmp_path / "scores", tmp_path / "images.zip")) == 0
    rows = scores_in(tmp_path / "scores")
    assert len(rows) == len(demo) + 1
    [broken] = [row for row in rows if row["error"]]
    assert broken["id"].endswith("train/REAL/broken.jpg")
    assert broken["p_fake"] is None
    assert "not an image file" in broken["error"]
