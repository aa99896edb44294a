"""The threshold that a model's folder carries: chosen on validation, read back, and refused where it does not fit."""

import json

import numpy as np
import pytest

import train
from realfake_hf.data.loading import load_images
from realfake_hf.data.splits import add_missing_splits
from realfake_hf.detector import Detector
from realfake_hf.metrics.calibration import best_threshold
from realfake_hf.metrics.operating_point import DEFAULT, OperatingPoint, load_operating_point
from realfake_hf.run_folder import ValidationRun
from realfake_hf.training import posthoc

TRAINING = [
    "--data", "demo", "--num_train_epochs", "2", "--num_filters", "4", "--dense_units", "4", "--bootstrap_samples",
    "20", "--per_device_train_batch_size", "128",
]  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "first"
    assert train.main([*TRAINING, "--output_dir", str(folder)]) == 0
    return folder


def test_the_threshold_is_the_best_one_of_the_kept_epoch_on_validation(run, capsys):
    assert posthoc.main(["--operating_point", "--model_dir", str(run)]) == 0
    point = load_operating_point(run)
    kept = ValidationRun.read(run / "validation_probabilities.npz")
    epoch = json.loads((run / "metrics.json").read_text())["best_epoch"]
    assert point.threshold == best_threshold(kept.is_fake, kept.p_fake[epoch - 1])
    stated = json.loads((run / "run.json").read_text())["data"]["validation"]
    assert (point.n, point.sha256) == (stated["n"], stated["sha256"])
    assert "FAKE above" in capsys.readouterr().out


def test_without_kept_probabilities_the_validation_split_is_scored(run):
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


def test_a_folder_that_carries_none_has_one_half_and_says_so(tmp_path):
    assert load_operating_point(tmp_path) == DEFAULT == load_operating_point("user/name")
    assert str(DEFAULT) == "0.5, one half by default: no threshold was chosen on validation"


@pytest.mark.parametrize(
    "text", ["{}", "no JSON", '{"threshold": 2, "chosen": "by hand"}', '{"threshold": 0.5, "x": 1}']
)
def test_a_file_that_says_something_else_is_refused(text, tmp_path):
    (tmp_path / "operating_point.json").write_text(text)
    with pytest.raises(ValueError, match=r"operating_point\.json"):
        load_operating_point(tmp_path)


def test_an_operating_point_survives_its_dictionary():
    point = OperatingPoint(0.25, "on validation", n=10, sha256="ab")
    assert OperatingPoint.from_dict(json.loads(json.dumps(point.to_dict()))) == point
