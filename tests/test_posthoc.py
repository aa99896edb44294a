"""What is fitted after a training: the operating point on its validation split, and the familiarity of its images."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest

import train
from realfake_hf.estimate import to_plain
from realfake_hf.metrics.calibration import choose_operating_point, scale
from realfake_hf.metrics.operating_point import load_operating_point
from realfake_hf.metrics.out_of_distribution import FAMILIARITY, load_familiarity
from realfake_hf.metrics.report import make_report
from realfake_hf.run_folder import VALIDATION, ValidationRun, read_run
from realfake_hf.store import write_json
from realfake_hf.training import posthoc
from realfake_hf.training.arguments import DataArguments
from realfake_hf.training.data import load_splits

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


def test_the_operating_point_is_that_of_the_kept_epoch_on_validation(run, capsys):
    trained = load_operating_point(run)
    assert posthoc.main(["--operating_point", "--model_dir", str(run)]) == 0
    validation = ValidationRun.read(run / "validation_probabilities.npz")
    epoch = json.loads((run / "metrics.json").read_text())["best_epoch"]
    expected = json.loads((run / "run.json").read_text())["data"]["validation"]
    p_fake = validation.p_fake[epoch - 1]
    assert load_operating_point(run) == choose_operating_point(validation.is_fake, p_fake, sha256=expected["sha256"])
    assert load_operating_point(run).n == expected["n"]
    assert trained.temperature == pytest.approx(load_operating_point(run).temperature, rel=1e-3)
    assert "FAKE above" in capsys.readouterr().out


@pytest.mark.parametrize("epoch", [1, 2])
def test_the_operating_point_of_an_epoch_that_is_not_the_last_is_its_own(run, tmp_path, epoch):
    folder = shutil.copytree(run, tmp_path / "run", ignore=shutil.ignore_patterns("checkpoint-*"))
    write_json(folder / "metrics.json", {**json.loads((folder / "metrics.json").read_text()), "best_epoch": epoch})
    assert posthoc.main(["--operating_point", "--model_dir", str(folder)]) == 0
    validation = ValidationRun.read(folder / VALIDATION)
    found, (first, last) = load_operating_point(folder), validation.p_fake
    points = {1: first, 2: last}
    for other, p_fake in points.items():
        expected = choose_operating_point(validation.is_fake, p_fake, sha256=found.sha256)
        assert (found == expected) == (other == epoch)


def test_without_recorded_probabilities_validation_is_scored_without_the_temperature_in_the_folder(run, tmp_path):
    folder = shutil.copytree(run, tmp_path / "run", ignore=shutil.ignore_patterns("checkpoint-*", VALIDATION))
    expected = load_operating_point(run)
    write_json(folder / "operating_point.json", to_plain(replace(expected, temperature=7.0)))
    assert posthoc.main(["--operating_point", "--model_dir", str(folder)]) == 0
    found = load_operating_point(folder)
    assert found.temperature == pytest.approx(expected.temperature, rel=1e-3)
    assert (found.threshold, found.sha256) == (pytest.approx(expected.threshold, abs=1e-3), expected.sha256)


def test_the_measurements_of_a_training_are_those_of_calibrated_probabilities(run):
    outcome, temperature = read_run(run).outcome, load_operating_point(run).temperature
    validation = ValidationRun.read(run / "validation_probabilities.npz")
    raw = validation.p_fake[outcome.best_epoch - 1]
    for p_fake, ece in (
        (raw, outcome.ece_before["validation"]),
        (scale(raw, temperature), outcome.validation.ece),
    ):
        expected = make_report(validation.is_fake, p_fake, bootstrap_samples=0).ece.value
        assert ece.value == pytest.approx(expected, abs=2e-3)
        assert ece.low < ece.high
    assert abs(outcome.validation.ece.value - outcome.ece_before["validation"].value) > 5e-3
    assert outcome.ece_before.keys() == {"validation", *outcome.tests}
    assert outcome.test_no_near_duplicate.n <= outcome.test_leak_free.n


def test_a_finished_run_is_measured_again_from_its_weights(run, tmp_path, capsys):
    folder = shutil.copytree(run, tmp_path / "run", ignore=shutil.ignore_patterns("checkpoint-*", VALIDATION))
    before, metrics = read_run(run), json.loads((folder / "metrics.json").read_text())
    old = {name: metrics[name] for name in ("best_epoch", "validation", "test", "test_leak_free")}  # of version 0.1
    write_json(folder / "metrics.json", {**old, "best_epoch": 1})
    history = (folder / "history.json").read_text()
    (folder / "figures/confusion_matrix.png").unlink()
    assert posthoc.main(["--outcome", "--model_dir", str(folder)]) == 0
    found = read_run(folder)
    assert found.outcome.best_epoch == 1
    assert (folder / "history.json").read_text() == history
    assert (folder / "figures/confusion_matrix.png").is_file()
    assert found.record == {**before.record, "measured": found.record["measured"]}
    for name, report in before.outcome.tests.items():
        again = found.outcome.tests[name]
        assert (again.n, again.threshold, again.bootstrap_samples, again.seed) == (report.n, 0.5, 20, report.seed)
        for statistic in ("accuracy", "roc_auc", "ece"):
            value = getattr(report, statistic).value
            assert getattr(again, statistic).value == pytest.approx(value, abs=5e-3)
        expected = before.outcome.ece_before[name].value
        assert found.outcome.ece_before[name].value == pytest.approx(expected, abs=5e-3)
    assert found.outcome.to_markdown() in capsys.readouterr().out


def test_without_the_search_for_near_duplicates_no_image_is_hashed_until_the_run_is_measured_again(
    run, tmp_path, monkeypatch
):
    folder, far = tmp_path / "run", read_run(run).outcome.test_no_near_duplicate
    with monkeypatch.context() as patch:
        patch.setattr("realfake_hf.training.data.near_duplicate_free_mask", Mock(side_effect=AssertionError))
        assert train.main([*TRAINING, "--near_duplicates", "false", "--output_dir", str(folder)]) == 0
    found = read_run(folder).outcome
    assert found.tests.keys() == {"test", "test_leak_free"}
    assert posthoc.main(["--outcome", "--model_dir", str(folder)]) == 0
    assert read_run(folder).outcome.test_no_near_duplicate.n == far.n


def test_other_test_images_than_those_of_the_training_are_refused(run, tmp_path, capsys):
    folder = shutil.copytree(run, tmp_path / "run", ignore=shutil.ignore_patterns("checkpoint-*"))
    record = json.loads((folder / "run.json").read_text())
    record["data"]["test"]["sha256"] = "0" * 64
    write_json(folder / "run.json", record)
    assert posthoc.main(["--outcome", "--model_dir", str(folder)]) == 1
    assert "expected the 390 test images of the training run in demo; found 390 others." in capsys.readouterr().err


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


def test_familiarity_is_fitted_on_images_of_the_training_split_and_its_limit_on_validation(run, tmp_path, monkeypatch):
    folder = shutil.copytree(run, tmp_path / "run", ignore=shutil.ignore_patterns("checkpoint-*"))
    fitted_on, embeddings = [], posthoc._embeddings
    monkeypatch.setattr(
        posthoc,
        "_embeddings",
        lambda detector, rows, title: fitted_on.append(rows) or embeddings(detector, rows, title),
    )
    posthoc.fit(folder, n=64, far=0.1, seed=0)
    record = read_run(run).record
    splits = load_splits(DataArguments(data="demo", split_seed=record["arguments"]["split_seed"]))
    training, validation = (set(rows["sha256"][:]) for rows in fitted_on)
    assert training < set(splits["train"]["sha256"][:])
    assert not training & set(splits["test"]["sha256"][:])
    assert validation == set(splits["validation"]["sha256"][:])


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
