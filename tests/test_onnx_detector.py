"""The graph of a model of several views in ONNX Runtime gives the verdicts of `Detector`."""

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from realfake_hf.detector import Detector
from realfake_hf.hub.onnx import export_views, main
from realfake_hf.models.views import MultiViewImageProcessor
from realfake_hf.onnx_detector import GRAPH, SETTINGS, OnnxDetector, cut_views

ROOT = Path(__file__).parents[1]
WILD = ROOT / "space/models/wild"
SIDES = st.integers(1, 70)


@given(width=SIDES, height=SIDES, size=st.sampled_from([16, 32]), n_windows=st.integers(0, 5), seed=st.integers(0, 9))
def test_the_views_are_those_of_the_image_processor(width, height, size, n_windows, seed):
    pixels = np.random.default_rng(seed).integers(256, size=(height, width, 3), dtype=np.uint8)
    image, processor = Image.fromarray(pixels), MultiViewImageProcessor(size=size, n_windows=n_windows)
    positions = [(0.5, 0.5), (0.15, 0.3), (0.85, 0.7), (0.85, 0.15), (0.15, 0.85)][:n_windows]
    np.testing.assert_array_equal(cut_views(image, size=size, positions=positions), processor.views(image))


def test_the_normalised_views_are_those_of_the_image_processor():
    image = Image.open(ROOT / "space/examples/rocket.jpg").convert("RGB")
    processor = MultiViewImageProcessor.from_pretrained(WILD)
    expected = processor(image, return_tensors="np")["pixel_values"][0]
    np.testing.assert_array_equal(OnnxDetector(WILD)._pixel_values(image), expected)


def test_the_graph_holds_no_weights_and_no_path_of_a_machine():
    graph = onnx.load(WILD / GRAPH, load_external_data=False)
    assert max(len(tensor.raw_data) for tensor in graph.graph.initializer) < 2000
    assert {entry.value for tensor in graph.graph.initializer for entry in tensor.external_data[:1]} == {
        f"model-0000{number}-of-00002.safetensors" for number in (1, 2)
    }
    assert (WILD / GRAPH).stat().st_size < 2**18
    assert b"site-packages" not in (WILD / GRAPH).read_bytes()


@pytest.mark.slow
def test_verdicts_are_those_of_the_detector():
    generator = np.random.default_rng(0)
    images = [
        Image.open(ROOT / "space/examples/rocket.jpg").convert("RGB"),
        *(Image.open(file).convert("RGB") for file in sorted((ROOT / "space/examples").glob("*-*.jpg"))),
        Image.fromarray(generator.integers(256, size=(300, 500, 3), dtype=np.uint8)),
        Image.new("RGB", (1, 900), "white"),
        Image.new("RGB", (224, 224)),
    ]
    expected, found = Detector.from_pretrained(WILD).predict(images), OnnxDetector(WILD).predict(images)
    for one, other in zip(expected, found, strict=True):
        assert other.p_fake == pytest.approx(one.p_fake, abs=1e-4)
        assert (other.label, other.is_sure, other.is_far, other.reasons) == (
            one.label, one.is_sure, one.is_far, one.reasons,
        )  # fmt: skip


@pytest.mark.slow
def test_an_exported_graph_is_the_one_that_is_kept(tmp_path):
    folder = shutil.copytree(WILD, tmp_path / "wild")
    (folder / GRAPH).unlink()
    file = export_views(folder)
    image = Image.open(ROOT / "space/examples/rocket.jpg").convert("RGB")
    [new], [kept] = OnnxDetector(folder).predict([image]), OnnxDetector(WILD).predict([image])
    assert new.p_fake == pytest.approx(kept.p_fake, abs=1e-6)
    assert file == folder / GRAPH


@pytest.mark.slow
def test_a_model_of_one_view_is_refused(capsys):
    assert main(["--model_dir", str(ROOT / "space/models/cifake-cnn")]) == 1
    assert "--output_file" in capsys.readouterr().err


@pytest.fixture
def copy(tmp_path):
    return shutil.copytree(WILD, tmp_path / "wild")


def change_graph(folder, change):
    graph = onnx.load(folder / GRAPH, load_external_data=False)
    change(graph)
    (folder / GRAPH).write_bytes(graph.SerializeToString())


def test_a_damaged_graph_is_named(copy):
    (copy / GRAPH).write_bytes(b"\x08" * 100)
    with pytest.raises(ValueError, match=GRAPH):
        OnnxDetector(copy)


@pytest.mark.parametrize(
    ("content", "named"), [("[]", "model.onnx.json"), ("{}", "KeyError"), ("{", "model.onnx.json")]
)
def test_damaged_settings_are_named(copy, content, named):
    (copy / SETTINGS).write_text(content)
    with pytest.raises(ValueError, match=named):
        OnnxDetector(copy)


def test_the_weights_are_those_of_the_folder_wherever_the_graph_points(copy):
    def point_elsewhere(graph):
        for tensor in graph.graph.initializer:
            for entry in tensor.external_data:
                entry.value = {"location": "/etc/passwd", "offset": "0"}.get(entry.key, entry.value)

    image = Image.open(ROOT / "space/examples/rocket.jpg").convert("RGB")
    expected = OnnxDetector(copy).predict([image])
    change_graph(copy, point_elsewhere)
    assert OnnxDetector(copy).predict([image]) == expected


def test_a_graph_that_reads_a_file_outside_of_the_folder_is_refused(copy):
    (copy.parent / "secret").write_bytes(bytes(10**8))
    settings = json.loads((copy / SETTINGS).read_text())
    settings["weights"].remove("whole.0.mean")
    (copy / SETTINGS).write_text(json.dumps(settings))

    def read_secret(graph):
        for tensor in graph.graph.initializer:
            for entry in tensor.external_data:
                if entry.key == "location":
                    entry.value = "../secret"

    change_graph(copy, read_secret)
    with pytest.raises(ValueError, match=GRAPH):
        OnnxDetector(copy)


def test_weights_that_are_missing_or_of_another_shape_are_refused(copy):
    (copy / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(ValueError, match=GRAPH):
        OnnxDetector(copy)


def test_settings_are_those_of_the_image_processor():
    settings = json.loads((WILD / "preprocessor_config.json").read_text())
    stored = OnnxDetector(WILD)._settings
    assert (stored["image_mean"], stored["image_std"]) == (settings["image_mean"], settings["image_std"])
    assert (stored["size"], len(stored["positions"])) == (settings["size"]["height"], settings["n_windows"])
