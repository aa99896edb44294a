"""What is fitted after a training: the operating point on its validation split, and the familiarity of its images."""

import json
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest

import train
from realfake_hf.data.loading import load_images
from realfake_hf.data.splits import add_missing_splits
from realfake_hf.detector import Detector
from realfake_hf.metrics.calibration import best_threshold
from realfake_hf.metrics.operating_point import load_operating_point
from realfake_hf.metrics.out_of_distribution import FAMILIARITY, load_familiarity
from realfake_hf.run_folder import ValidationRun
from realfake_hf.training import posthoc

ROOT = Path(__file__).parents[1]
TRAINING = [
    "--data", "demo", "--num_train_epochs", "2", "--num_filters", "4", "--dense_units", "4", "--bootstrap_samples",
    "20", "--per_device_train_batch_size", "128",
]  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "first"
    assert train.main([*TRAINING, "--output_dir", str(folder)]) == 0
    return folder


def test_the_threshold_is_the_best_of_the_kept_epoch_on_validation(run, capsys):
    assert posthoc.main(["--operating_point", "--model_dir", str(run)]) == 0
    point = load_operating_point(run)
    validation = ValidationRun.read(run / "validation_probabilities.npz")
    epoch = json.loads((run / "metrics.json").read_text())["best_epoch"]
    assert point.threshold == best_threshold(validation.is_fake, validation.p_fake[epoch - 1])
    expected = json.loads((run / "run.json").read_text())["data"]["validation"]
    assert (point.n, point.sha256) == (expected["n"], expected["sha256"])
    assert "FAKE above" in capsys.readouterr().out


def test_without_recorded_probabilities_the_validation_split_is_scored(run):
    kept = run / "validation_probabilities.npz"
    aside = kept.rename(run / "aside.npz")
    try:
        assert posthoc.main(["--operating_point", "--model_dir", str(run)]) == 0
    finally:
        aside.rename(kept)
    rows = add_missing_splits(load_images("demo"))["validation"]
    p_fake = Detector.from_pretrained(run).probabilities(rows["image"])
    expected = best_threshold(np.array(rows["label"][:]) == 1, p_fake)
    assert load_operating_point(run).threshold == pytest.approx(expected, abs=1e-4)


def test_probabilities_of_another_run_are_refused(run, tmp_path, capsys):
    other = tmp_path / "other.npz"
    begun = ValidationRun.begin(ids=["a", "b"], is_fake=np.array([True, False]), content=[None, None])
    begun.with_epoch(1, np.array([0.5, 0.5])).write(other)
    assert posthoc.main(["--operating_point", "--model_dir", str(run), "--probabilities", str(other)]) == 1
    assert "found 2 and epochs 1. Name the file of the model's own run." in capsys.readouterr().err


def test_a_folder_without_a_run_is_refused(tmp_path, capsys):
    assert posthoc.main(["--operating_point", "--model_dir", str(tmp_path)]) == 1
    assert "expected a finished run of train.py" in capsys.readouterr().err


def test_familiarity_is_fitted_on_the_training_and_measured_on_test_images(run, tmp_path, capsys):
    file = tmp_path / "familiarity.json"
    words = ["--models", f"cnn={run}", "--datasets", "demo=demo", "again=demo", "--n", "64", "--far", "0.1"]
    assert posthoc.main([*words, "--output_file", str(file)]) == 0
    facts = json.loads(file.read_text())["models"]["cnn"]
    familiarity = load_familiarity(run)
    expected = json.loads((run / "run.json").read_text())["data"]["validation"]
    assert (familiarity.n, familiarity.n_validation, familiarity.sha256) == (64, expected["n"], expected["sha256"])
    assert facts["limit"] == pytest.approx(familiarity.limit)
    assert facts["sets"]["demo"]["far"] == facts["sets"]["again"]["far"]
    assert (facts["sets"]["demo"]["roc_auc"], facts["sets"]["again"]["roc_auc"]) == (None, 0.5)
    assert file.with_suffix(".md").read_text().strip() == capsys.readouterr().out.strip()


def test_the_commit_is_recorded_before_the_folder_of_a_model_changes(tmp_path, monkeypatch):
    folder = tmp_path / "model"
    folder.mkdir()
    facts = {
        "n": 2,
        "n_validation": 1,
        "far": 0.01,
        "sets": {"demo": {"far": {"value": 0.5, "n": 2}, "roc_auc": None}},
    }
    monkeypatch.setattr(posthoc, "environment", lambda: {"commit": "dirty" if any(folder.iterdir()) else "clean"})
    monkeypatch.setattr(posthoc, "fit", lambda place, **_: (place / FAMILIARITY).write_bytes(b""))
    monkeypatch.setattr(posthoc, "measure", lambda *_: facts)
    monkeypatch.setattr("realfake_hf.crosseval.datasets.load_dataset", Mock())
    monkeypatch.setattr("realfake_hf.detector.Detector", Mock())
    file = tmp_path / "familiarity.json"
    assert posthoc.main(["--models", f"cnn={folder}", "--datasets", "demo=demo", "--output_file", str(file)]) == 0
    assert json.loads(file.read_text())["commit"] == "clean"
    assert "| cnn | demo | 2 | 0.500 |  |" in file.with_suffix(".md").read_text()


def test_the_table_contains_every_row_of_the_results():
    results = json.loads((ROOT / "results/familiarity.json").read_text())
    table = posthoc.to_markdown(results)
    for model, facts in results["models"].items():
        for name, row in facts["sets"].items():
            assert f"| {model} | {name} | {row['far']['n']:,} | {row['far']['value']:.3f} (" in table
