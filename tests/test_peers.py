"""Comparisons with detectors in ONNX, on samples of folds and on other data sets."""

import json
import zipfile
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from scipy.special import expit

from realfake_hf.data.loading import load_images
from realfake_hf.experiments import peers as module
from realfake_hf.experiments.peers import LEAST, OWN, PEERS, Peer, correct, main
from realfake_hf.labels import FAKE

ROOT = Path(__file__).parents[1]
PROCESSOR = {"size": {"height": 224, "width": 224}, "image_mean": [0.5] * 3, "image_std": [0.5] * 3, "resample": 3}
HEAD = {"weights": [0.5, -1.0, 2.0], "bias": 0.1}


def linear(matrix: np.ndarray) -> bytes:
    """A network that maps the mean of each channel to a matrix times it."""
    nodes = [
        helper.make_node("GlobalAveragePool", ["pixel_values"], ["means"]),
        helper.make_node("Flatten", ["means"], ["flat"]),
        helper.make_node("MatMul", ["flat", "matrix"], ["output"]),
    ]
    tensors = [helper.make_tensor_value_info("pixel_values", TensorProto.FLOAT, ["batch", 3, 224, 224])]
    outputs = [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["batch", matrix.shape[1]])]
    weights = [numpy_helper.from_array(matrix.astype(np.float32), "matrix")]
    graph = helper.make_graph(nodes, "linear", tensors, outputs, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return model.SerializeToString()


RED = np.array([[4.0, 0.0], [0.0, 0.0], [0.0, 0.0]])  # the first logit is that of FAKE
MODELS = {"sdxl-detector": linear(RED), "CLIP probe": linear(np.eye(3))}
SMALL = {name: replace(PEERS[name], sha256=sha256(model).hexdigest()) for name, model in MODELS.items()}


@pytest.fixture(scope="module")
def wheels(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheels")
    for name, files in PEERS.items():
        with zipfile.ZipFile(folder / files.wheel, "w") as archive:
            archive.writestr(files.model, MODELS[name])
            for name, content in ((files.processor, PROCESSOR), (files.head, HEAD)):
                if name:
                    archive.writestr(name, json.dumps(content))
    return folder


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    """Red images are fake, blue ones real, of 8 owners in 2 folds."""
    folder = tmp_path_factory.mktemp("images")
    generator, rows = np.random.default_rng(0), ["file_name,label,group"]
    for number in range(32):
        pixels = generator.integers(120, size=(50, 60, 3), dtype=np.uint8)
        pixels[..., 0 if number % 2 else 2] += 100
        Image.fromarray(pixels).save(folder / f"{number}.png")
        rows.append(f"{number}.png,{'fake' if number % 2 else 'real'},owner{number // 4}")
    (folder / "metadata.csv").write_text("\n".join(rows))
    return folder


def test_scores_are_those_of_the_formula(wheels):
    image = Image.fromarray(np.random.default_rng(1).integers(256, size=(224, 224, 3), dtype=np.uint8))
    values = np.asarray(image) / 255
    means = ((values - 0.5) / 0.5).mean((0, 1))
    classifier, probe = (Peer(files, wheels) for files in SMALL.values())
    assert classifier.p_fake(image) == pytest.approx(expit(4 * means[0]), abs=1e-5)
    clip = ((values - [0.48145466, 0.4578275, 0.40821073]) / [0.26862954, 0.26130258, 0.27577711]).mean((0, 1))
    expected = expit(clip @ HEAD["weights"] / np.linalg.norm(clip) + HEAD["bias"])
    assert probe.p_fake(image) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("name", PEERS)
def test_another_model_of_the_same_name_is_not_run(wheels, name):
    with pytest.raises(ValueError, match=PEERS[name].sha256):
        Peer(PEERS[name], wheels)


def test_p_values_of_all_comparisons_are_corrected_together():
    def facts(*p_values: float) -> dict[str, Any]:
        return {"n": LEAST, "p_values": dict(zip(("a", "b"), p_values, strict=True))}

    results = {
        "out_of_fold": {"plain": {"all": facts(0.01, 0.2)}},
        "elsewhere": {"art": facts(0.02, 0.5), "few": {**facts(0.3, 0.3), "n": 1}},  # the last is not shown
    }
    correct(results)
    assert results["out_of_fold"]["plain"]["all"]["p_values"] == pytest.approx({"a": 0.04, "b": 0.4})
    assert results["elsewhere"]["art"]["p_values"] == pytest.approx({"a": 0.06, "b": 0.5})
    assert results["elsewhere"]["few"]["p_values"] == {"a": 0.3, "b": 0.3}


@pytest.mark.slow
def test_the_command_compares_on_the_same_images_and_resumes(wheels, images, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(module, "PEERS", SMALL)
    (tmp_path / "other").mkdir()
    for number in range(12):  # the first two are copies
        first = Image.open(images / f"{number}.png") if number < 2 else None
        pixels = np.random.default_rng(number).integers(256, size=(6, 8, 3), dtype=np.uint8)
        (first or Image.fromarray(pixels).resize((60, 50))).save(tmp_path / "other" / f"{number}.png")
    labels = [f"{number}.png,{('real', 'fake')[number % 2]}" for number in range(12)]
    (tmp_path / "other" / "metadata.csv").write_text("\n".join(["file_name,label", *labels]))
    rows = load_images(str(images))["train"]
    is_fake = np.asarray(rows["label"][:]) == FAKE
    fold = np.array([int(group[5:]) % 2 for group in rows["group"][:]])
    scores = np.stack([np.where(is_fake, 0.8, 0.3), np.where(is_fake, 0.3, 0.8)])
    place = tmp_path / "scores.npz"
    np.savez(place, sha256=rows["sha256"][:], fold=fold, folds=["0", "1"], variants=["plain", "hard"], p_fake=scores)
    words = [
        "--wheels", str(wheels), "--data", str(images), "--scores", str(place),
        "--model", str(ROOT / "space/models/cifake-cnn"), "--datasets", f"other={tmp_path / 'other'}",
        "--per_fold", "10",
        "--output_dir", str(tmp_path / "run"), "--output_file", str(tmp_path / "peers.json"),
        "--figure_file", str(tmp_path / "auc.png"),
    ]  # fmt: skip
    assert main(words) == 0
    results = json.loads((tmp_path / "peers.json").read_text())
    assert [part["n"] for part in results["out_of_fold"]["plain"].values()] == [20, 10, 10]
    values = {name: row["value"] for name, row in results["out_of_fold"]["plain"]["all"]["roc_auc"].items()}
    assert (values[OWN], values["sdxl-detector"], values[f"{OWN} less sdxl-detector"]) == (1, 1, 0)
    assert results["out_of_fold"]["hard"]["all"]["roc_auc"][OWN]["value"] == 0
    other = results["elsewhere"]["other"]
    assert (other["near_duplicates"], other["n"], other["verdicts"]["decided"]["n"]) == (2, 10, 10)
    assert "| hard, fold 1 | 10 |" in capsys.readouterr().out
    with Image.open(tmp_path / "auc.png") as figure:
        assert figure.width > 500
    monkeypatch.setattr(Peer, "p_fake", None)  # finished scores are kept
    assert main(words) == 0
