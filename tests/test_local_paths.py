"""Records, results, reports, cards and scores contain neither absolute paths nor names of users."""

import json
import zipfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

import crosseval
import explain
import train
from realfake_hf.data.shards import main as write_shards
from realfake_hf.experiments.seeds import main as summarize
from realfake_hf.hub.push import publish_model
from realfake_hf.score.__main__ import main as score
from realfake_hf.store import begin_or_resume, file_names, without_local_paths
from realfake_hf.training.posthoc import main as measure_familiarity

RESULTS = sorted((Path(__file__).parents[1] / "results").glob("*.json"))

ROOT = Path(__file__).parents[1]


def test_local_paths_are_reduced_to_their_last_part_wherever_they_are():
    record = {"data": "/home/someone/cats", "model": "user/name", "n": 3, "more": [{"place": "/tmp/a b"}, None]}
    assert without_local_paths(record) == {
        "data": "cats",
        "model": "user/name",
        "n": 3,
        "more": [{"place": "a b"}, None],
    }


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("~/cats", "cats"),
        ("~someone/cats/", "cats"),
        ("~someone", "~"),
        ("../someone/cats", "cats"),
        ("cnn=/home/some one/cnn", "cnn=cnn"),
        ("data: /home/someone/cats\nseed: 0\n", "data: cats\nseed: 0\n"),
        ("| cnn | ~someone/cats |", "| cnn | cats |"),
        ("expected labels in '/home/someone/cats'; found none", "expected labels in 'cats'; found none"),
    ],
)
def test_local_paths_are_found_in_pairs_and_in_texts(text, expected):
    assert without_local_paths(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "runs/cnn",
        "user/name",
        "https://example.org/a/b",
        "hf://datasets/a/b",
        "3 images/s",
        "real and/or fake",
        "a=b/c",
        "open trials/seed*/figures/*.png",
    ],
)
def test_other_texts_are_kept(text):
    assert without_local_paths(text) == text


@pytest.mark.parametrize(
    "file", sorted((Path(__file__).parents[1] / "results").glob("*.json")), ids=lambda file: file.stem
)
def test_no_file_of_results_contains_a_local_path(file):
    content = json.loads(file.read_text())
    assert without_local_paths(content) == content
    table = file.with_suffix(".md").read_text() if file.with_suffix(".md").exists() else ""
    assert without_local_paths(table) == table


def test_files_are_named_distinctly_below_the_folder_that_they_share(monkeypatch):
    monkeypatch.setenv("HOME", "/home/someone")
    assert file_names([Path("photos/a.png"), Path("b.png")]) == ["photos/a.png", "b.png"]
    assert file_names([Path("/home/someone/a/x.png"), Path("/home/someone/b/x.png")]) == ["a/x.png", "b/x.png"]
    assert file_names([Path("/data/x.png"), Path("/home/someone/x.png")]) == ["data/x.png", "~/x.png"]
    assert file_names([]) == []


def test_another_place_of_the_same_name_is_not_resumed(tmp_path):
    file = tmp_path / "work/settings.json"
    begin_or_resume(file, {"data": "/home/a/cats", "n": 1}, what="study")
    assert "/home" not in file.read_text()
    begin_or_resume(file, {"data": "/home/a/cats", "n": 1}, what="study")
    with pytest.raises(ValueError, match="other values of data"):
        begin_or_resume(file, {"data": "/home/b/cats", "n": 1}, what="study")


def test_work_begun_with_recorded_paths_is_resumed(tmp_path):
    file = tmp_path / "settings.json"
    file.write_text(json.dumps({"data": "/home/a/cats", "n": 1}))
    begin_or_resume(file, {"data": "/home/a/cats", "n": 1}, what="study")


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home folder with a data set and a run of train.py, which is also the working directory's parent."""
    folder = tmp_path / "homes/someone"
    random = np.random.default_rng(0)
    for split in ("train", "validation", "test"):
        for number in range(24):
            file = folder / f"pictures/{split}/{('real', 'fake')[number % 2]}/{number}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            bright = 128 * (number % 2) if number > 1 else 64  # fake ones are bright, except for the first pair
            Image.fromarray(random.integers(bright, bright + 128, (32, 32, 3), dtype=np.uint8)).save(file)
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.chdir(folder)
    small = ["--num_filters", "4", "--dense_units", "4", "--num_train_epochs", "3", "--bootstrap_samples", "0"]
    small += ["--per_device_train_batch_size", "4"]
    data = ["--data", str(folder / "pictures"), "--output_dir", str(folder / "run"), "--disable_tqdm", "true"]
    assert train.main([*small, *data]) == 0
    return folder


def local_paths_in(folder, *words):
    """Every file below a folder, or member of an archive, that contains one of the words."""
    for file in filter(Path.is_file, folder.rglob("*")):
        parts = {file: file.read_bytes()}
        if zipfile.is_zipfile(file):
            with zipfile.ZipFile(file) as archive:
                parts |= {f"{file}: {name}": archive.read(name) for name in archive.namelist()}
        if file.suffix == ".parquet":
            parts[f"{file}: rows"] = str(pq.read_table(file).to_pylist()).encode()
        yield from (name for name, data in parts.items() if any(word.encode() in data for word in words))


@pytest.mark.slow
def test_no_output_of_a_command_contains_a_local_path(home):
    run, pictures, out = home / "run", home / "pictures", home / "out"
    grid = [
        "--output_dir",
        str(out / "grid"),
        "--models",
        "cnn=~/run",
        "--bootstrap_samples",
        "5",
        "--protocols",
        "native",
    ]
    grid += ["--datasets", f"own={pictures}", "--baseline_data", str(pictures), "--duplicates_of", str(pictures)]
    assert [crosseval.main(grid), crosseval.main(grid)] == [0, 0]  # the second call resumes
    images = [str(pictures / "test/real/0.png"), "~/pictures/train/real/0.png"]
    words = ["--model", str(run), "--images", *images, "--output_dir", str(out / "explained")]
    assert explain.main(words) == 0
    assert write_shards(["--data", str(pictures), "--output_dir", str(out / "shards")]) == 0
    for model, data in ((str(run), pictures), ("~/run", out / "shards")):
        words = ["--model", model, "--data", str(data), "--output", str(out / f"scores of {data.name}")]
        assert [score(words), score(words)] == [0, 0]
    words = ["--runs", str(run), "--output_file", str(out / "seeds.json"), "--model_dir", str(out / "copy")]
    assert summarize(words) == 0
    flags = ["--models", f"cnn={run}", "--datasets", f"own={pictures}", "--n", "8", "--limit", "8"]
    assert measure_familiarity([*flags, "--output_file", str(out / "familiarity.json")]) == 0
    assert publish_model(run, "user/name", dry_run=True).files
    assert list(local_paths_in(out, str(home), str(home.parent), "someone", "~/run", "~/pictures")) == []
    assert len(list(out.rglob("*.json"))) > 15
    rows = json.loads((out / "explained/explanations.json").read_text())["explanations"]
    assert [row["path"] for row in rows] == ["test/real/0.png", "train/real/0.png"]
    scores = pq.read_table(out / "scores of pictures/part-000000.parquet")["id"].to_pylist()
    assert len(set(scores)) == 72
    assert "test/fake/1.png" in scores
