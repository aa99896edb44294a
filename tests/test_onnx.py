import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image
from small_grid import save_cnn

from benchmarks.detector_throughput import OnnxDetector
from realfake_hf.detector import Detector
from realfake_hf.estimate import to_plain
from realfake_hf.hub.onnx import export, main
from realfake_hf.metrics.calibration import scale
from realfake_hf.metrics.operating_point import OperatingPoint

MODELS = Path(__file__).resolve().parents[1] / "space/models"


@pytest.fixture(scope="module")
def images():
    random = np.random.default_rng(0)
    return [Image.fromarray(random.integers(0, 256, (40, 30, 3), dtype=np.uint8)) for _ in range(70)]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cifake-cnn", "cifake-vit"])
def test_an_exported_model_gives_the_same_probabilities_for_any_batch(name, images, tmp_path):
    detector = Detector.from_pretrained(MODELS / name)
    export(MODELS / name, tmp_path / "model.onnx")
    assert Path(torch.__file__).parent.as_posix().encode() not in (tmp_path / "model.onnx").read_bytes()
    found = OnnxDetector(tmp_path / "model.onnx", detector)
    exact = detector.probabilities(images)
    assert found.probabilities(images) == pytest.approx(exact, abs=1e-4)
    assert found.probabilities(images[:1]) == pytest.approx(exact[:1], abs=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("temperature", [None, 3.0])
def test_an_exported_model_is_calibrated_as_the_detector(temperature, images, tmp_path):
    folder = save_cnn(tmp_path / "model")
    point = OperatingPoint(0.5, "by hand", temperature=temperature)
    (folder / "operating_point.json").write_text(json.dumps(to_plain(point)))
    export(folder, tmp_path / "model.onnx")
    detector = Detector.from_pretrained(folder)
    found = OnnxDetector(tmp_path / "model.onnx", detector).probabilities(images)
    assert found == pytest.approx(detector.probabilities(images), abs=1e-5)
    raw = Detector(detector.model, detector.processor).probabilities(images)
    assert found == pytest.approx(raw if temperature is None else scale(raw, temperature), abs=1e-5)


@pytest.mark.slow
def test_the_metadata_hold_the_processor_and_the_operating_point(tmp_path):
    export(MODELS / "cifake-cnn", tmp_path / "model.onnx")
    onnx.checker.check_model(str(tmp_path / "model.onnx"))
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"])
    about = json.loads(session.get_modelmeta().custom_metadata_map["realfake"])
    detector = Detector.from_pretrained(MODELS / "cifake-cnn")
    assert about["size"] == {"width": 32, "height": 32}
    assert about["operating_point"] == to_plain(detector.point)
    assert about["weights"] == detector.digest()
    numbers = detector.processor.to_dict()
    assert (about["rescale_factor"], about["resample"]) == (numbers["rescale_factor"], numbers["resample"])


@pytest.mark.slow
def test_int8_makes_a_smaller_file_with_similar_scores(images, tmp_path):
    place = MODELS / "cifake-vit"
    for int8 in (False, True):
        export(place, tmp_path / f"{int8}.onnx", int8=int8)
    whole, small = ((tmp_path / f"{int8}.onnx").stat().st_size for int8 in (False, True))
    assert small < whole / 2
    detector = Detector.from_pretrained(place)
    found = OnnxDetector(tmp_path / "True.onnx", detector).probabilities(images)
    assert np.abs(found - detector.probabilities(images)).mean() < 0.1


def test_a_folder_without_a_model_is_reported(tmp_path, capsys):
    assert main(["--model_dir", str(tmp_path / "none"), "--output_file", str(tmp_path / "model.onnx")]) == 1
    assert capsys.readouterr().err.startswith("export: ")


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "onnxscript", None)
    with pytest.raises(
        ValueError, match=r"expected the package onnxscript; found none\. Install realfake-hf\[export\]"
    ):
        export(MODELS / "cifake-cnn", tmp_path / "model.onnx")
