"""Training sets of several sources have equal sizes, and the transfer matrix is trained, measured and resumed."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from datasets import load_from_disk
from small_grid import save_images

from realfake_hf.data.corruptions import matched
from realfake_hf.data.loading import load_images
from realfake_hf.experiments import transfer
from realfake_hf.experiments.transfer import matched_splits, mix

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sources")
    for name, n in (("one", 60), ("two", 40)):
        save_images(folder / name, n=n)
    return folder


def splits(sources, name="one", **settings):
    chosen = {"train_size": 1000, "test_size": 1000, "protocol": "matched"} | settings
    return matched_splits(load_images(sources / name), **chosen)


def test_every_image_follows_the_protocol_and_is_in_one_split(sources):
    found = splits(sources)
    before = load_images(sources / "one")["train"]
    expected = {matched(row["image"].convert("RGB")).tobytes() for row in before}
    images = [{row["image"].tobytes() for row in rows} for rows in found.values()]
    assert all(some <= expected for some in images)
    assert sum(map(len, images)) == len(set.union(*images))
    assert {row["image"].size for row in found["train"]} == {(32, 32)}
    assert {"label", "content", "generator", "source"} <= set(found["train"].column_names)


def test_splits_have_the_given_sizes_and_balanced_labels(sources):
    found = splits(sources, train_size=40, test_size=8)
    assert [len(found[name]) for name in ("train", "validation", "test")] == [40, 4, 8]
    assert [sum(found[name]["label"][:]) for name in ("train", "validation", "test")] == [20, 2, 4]


def test_a_mix_has_equally_many_rows_of_each_source(sources):
    one, two = splits(sources), splits(sources, "two")
    both = mix([one, two], rows=200)
    assert [both["train"]["source"][:].count(name) for name in ("one", "two")] == [100, 100]
    assert len(both["test"]) == len(one["test"]) + len(two["test"])
    assert len(mix([two], rows=200)["train"]) == 200
    counts = np.unique([row["image"].tobytes() for row in both["train"].select(range(100, 200))], return_counts=True)[
        1
    ]
    assert counts.max() - counts.min() <= 1  # repeated evenly


@pytest.fixture(scope="module")
def plan_file(sources, tmp_path_factory):
    small = {"num_train_epochs": 1, "num_filters": 4, "dense_units": 4, "bootstrap_samples": 10}
    plan = {
        "sources": {name: str(sources / name) for name in ("one", "two")},
        "protocol": "matched",
        "rows": 64,
        "test_size": 16,
        "models": {"cnn": {"base": str(ROOT / "recipes/demo.yaml"), "seeds": [0, 1], "settings": small}},
    }
    file = tmp_path_factory.mktemp("plan") / "matrix.yaml"
    file.write_text(yaml.safe_dump(plan))
    return file


def words(plan_file, folder):
    places = ["--output_file", str(folder / "transfer.json"), "--figure_file", str(folder / "transfer.png")]
    flags = ["--plan", str(plan_file), "--output_dir", str(folder / "runs"), "--bootstrap_samples", "20"]
    return [*flags, *places]


@pytest.fixture(scope="module")
def done(plan_file, tmp_path_factory):
    folder = tmp_path_factory.mktemp("transfer")
    assert transfer.main(words(plan_file, folder)) == 0
    return folder


def test_the_matrix_has_every_training_and_test_set_over_all_seeds(done):
    found = json.loads((done / "transfer.json").read_text())
    places = [(cell["trained_on"], cell["tested_on"]) for cell in found["cells"]]
    assert places == [(row, column) for row in ("one", "two", "both") for column in ("one", "two")]
    cell = found["cells"][1]
    assert (cell["n_real"], cell["n_fake"]) == (8, 8)
    runs = [run["value"] for run in cell["roc_auc"]["runs"]]
    assert cell["roc_auc"]["mean"] == pytest.approx(np.mean(runs))
    assert cell["roc_auc"]["sd"] == pytest.approx(np.std(runs, ddof=1))
    assert (done / "transfer.png").stat().st_size > 10_000


def test_a_model_is_trained_on_the_set_in_its_name_and_has_an_operating_point(done):
    for name, others in (("two", {"two"}), ("both", {"one", "two"})):
        passport = json.loads((done / f"runs/models/cnn-{name}-1/run.json").read_text())
        assert passport["arguments"]["data"] == str(done / "runs/data" / name)
        assert passport["data"]["train"]["n"] == 64
        assert set(load_from_disk(str(done / "runs/data" / name))["train"]["source"][:]) == others
        assert (done / f"runs/models/cnn-{name}-1/operating_point.json").exists()


def test_finished_work_is_not_repeated(done, plan_file, monkeypatch):
    def again(*_, **__):
        raise AssertionError

    monkeypatch.setattr("realfake_hf.training.run.train", again)
    monkeypatch.setattr(transfer, "matched_splits", again)
    before = (done / "transfer.json").read_text()
    assert transfer.main(words(plan_file, done)) == 0
    assert json.loads((done / "transfer.json").read_text())["cells"] == json.loads(before)["cells"]


def test_the_table_has_a_row_for_each_cell(done):
    table = (done / "transfer.md").read_text()
    cells = json.loads((done / "transfer.json").read_text())["cells"]
    mean, deviation = (cells[-1]["balanced_accuracy"][key] for key in ("mean", "sd"))
    assert f"| cnn | both | two | 16 | {mean:.3f} ± {deviation:.3f} |" in table
    assert table.count("\n| cnn |") == len(cells) == 6
    assert "cnn: 2 seeds" in table


def test_the_folder_of_another_plan_is_rejected(done, plan_file, tmp_path, capsys):
    other = yaml.safe_load(plan_file.read_text()) | {"rows": 32}
    (tmp_path / "other.yaml").write_text(yaml.safe_dump(other))
    assert transfer.main(words(tmp_path / "other.yaml", done)) == 1
    assert "found other values of rows" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"protocol": "wild"}, "expected a protocol of native, matched, crop in"),
        ({"sources": {"one": "demo"}}, "expected two or more sources"),
        ({"sources": {"one": "demo", "two": "no/such/place.zip"}}, "found nothing at 'no/such/place.zip'"),
        ({"colour": "red"}, "expected the keys models, protocol, rows, sources, test_size in"),
    ],
)
def test_an_invalid_plan_is_rejected_before_any_work(plan_file, tmp_path, capsys, change, sentence):
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(yaml.safe_load(plan_file.read_text()) | change))
    assert transfer.main(words(tmp_path / "plan.yaml", tmp_path)) == 1
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_the_plan_of_the_repository_is_valid_and_its_recipes_exist():
    plan = transfer.read_transfer(ROOT / "recipes/transfer/matrix.yaml")
    assert list(plan.training_sets) == ["cifake", "second", "both"]
    assert all((ROOT / row["base"]).is_file() for row in plan.models.values())
