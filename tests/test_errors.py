"""The most confident errors are found, and shown with their map and nearest training images."""

import json

import numpy as np
import pytest
import torch
from small_grid import arguments, save_cnn, save_images
from transformers import (
    ConvNextConfig,
    ConvNextForImageClassification,
    SwinConfig,
    SwinForImageClassification,
    ViTConfig,
    ViTForImageClassification,
)

import crosseval
from realfake_hf.crosseval.datasets import load_dataset
from realfake_hf.crosseval.errors import ShownError, most_confident_errors
from realfake_hf.detector import Detector
from realfake_hf.estimate import from_plain
from realfake_hf.models.heads import collect_embeddings, head_modules


def test_the_most_confident_error_of_each_content_comes_first_then_the_second():
    is_fake = np.array([False] * 6 + [True] * 3)
    p_fake = np.array([0.99, 0.98, 0.7, 0.6, 0.2, 0.9, 0.1, 0.3, 0.9])
    content = ["cat", "cat", "dog", "cat", "dog", None, "cat", "cat", "dog"]
    found = most_confident_errors(is_fake, p_fake, content, threshold=0.5, n=4)
    assert found["false positive"] == [0, 5, 2, 1]
    assert found["false negative"] == [6, 7]
    assert most_confident_errors(is_fake, p_fake, content, threshold=0.5, n=1)["false positive"] == [0]


def tiny(kind):
    torch.manual_seed(0)
    if kind == "vit":
        shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
        return ViTForImageClassification(ViTConfig(image_size=32, patch_size=8, **shape)), 16
    if kind == "swin":
        config = SwinConfig(image_size=32, patch_size=4, embed_dim=8, depths=[1, 1], num_heads=[1, 2], window_size=4)
        return SwinForImageClassification(config), 16
    config = ConvNextConfig(hidden_sizes=[4, 8, 12, 16], depths=[1, 1, 1, 1])
    return ConvNextForImageClassification(config), 16


@pytest.mark.parametrize("kind", ["vit", "swin", "convnext"])
def test_an_embedding_is_what_the_last_layer_decides_by(kind):
    model, width = tiny(kind)
    model.eval()
    pixels = torch.randn(3, 3, 32, 32)
    with torch.no_grad(), collect_embeddings(model) as caught:
        logits = model(pixel_values=pixels).logits
    [embedding] = caught
    assert embedding.shape == (3, width)
    [head] = head_modules(model).values()
    torch.testing.assert_close(head(embedding).detach(), logits)
    with torch.no_grad():
        model(pixel_values=pixels)
    assert len(caught) == 1  # the hook is gone


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("errors")
    save_cnn(folder / "one", threshold=0.45)
    save_images(folder / "boats", n=12)
    return folder


@pytest.fixture(scope="module")
def done(base):
    asked = ["--protocols", "native", "--errors", "3", "--training_data", str(base / "boats"), "--neighbours_n", "16"]
    given = arguments(base, base / "boats", base / "grid", *asked, names=("one",))
    assert crosseval.main(given) == 0
    return given, [from_plain(ShownError, one) for one in json.loads((base / "grid/grid.json").read_text())["errors"]]


def test_what_is_shown_are_errors_and_their_sheets_are_there(done, base):
    _, shown = done
    dataset = load_dataset("boats", str(base / "boats"), seed=0)
    p_fake = Detector.from_pretrained(base / "one").probabilities(dataset.rows["image"])
    found = most_confident_errors(dataset.is_fake, p_fake, dataset.content, threshold=0.45, n=3)
    assert [error.id for error in shown] == [dataset.rows[row]["id"] for rows in found.values() for row in rows]
    assert 0 < len(shown) <= 6
    for error in shown:
        assert (error.p_fake > 0.45) == (error.kind == "false positive")
        assert (base / "grid" / error.file).stat().st_size > 5000
        assert error.method == "grad_cam"


def test_the_nearest_training_image_of_a_training_image_is_itself(done, base):
    _, shown = done
    training = load_dataset("x", str(base / "boats"), split="train", limit=16, seed=0)
    ids = set(training.rows["id"][:])
    own = [error for error in shown if error.id in ids]
    assert own
    for error in own:
        same = error.nearest["REAL" if error.kind == "false positive" else "FAKE"]
        assert (same.id, round(same.similarity, 4)) == (error.id, 1.0)
    for error in shown:
        assert [near.is_fake for near in (error.nearest["REAL"], error.nearest["FAKE"])] == [False, True]


def test_sheets_of_before_do_not_stay_and_embeddings_do(done, base, monkeypatch):
    given, _ = done
    stale = base / "grid/errors/other-one-false-positives.png"
    stale.write_bytes(b"old")
    monkeypatch.setattr(Detector, "embeddings", lambda _, images: np.ones((len(list(images)), 64), np.float32))
    assert crosseval.main(given) == 0
    assert not stale.exists()


def test_training_images_of_one_label_are_refused_before_anything_is_scored(base, capsys):
    save_images(base / "photos", labels=("real",))
    words = ["--errors", "1", "--training_data", str(base / "photos")]
    assert crosseval.main(arguments(base, base / "boats", base / "none", *words, names=("one",))) == 1
    assert "real and fake images in --training_data; found 9 and 0" in capsys.readouterr().err
    assert not (base / "none/cells").exists()


@pytest.mark.slow
def test_without_training_data_errors_have_no_neighbours(base):
    given = arguments(base, base / "boats", base / "bare", "--protocols", "native", "--errors", "1", names=("one",))
    assert crosseval.main(given) == 0
    errors = json.loads((base / "bare/grid.json").read_text())["errors"]
    assert errors
    assert all(error["nearest"] == {} for error in errors)


def test_a_negative_number_of_errors_is_refused(capsys):
    with pytest.raises(SystemExit):
        crosseval.main(["--models", "a=b", "--datasets", "c=d", "--output_dir", "out", "--errors", "-1"])
    assert "--errors of at least 0; found -1." in capsys.readouterr().err.replace("\n", " ")
