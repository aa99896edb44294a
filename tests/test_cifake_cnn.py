import json
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModelForImageClassification,
    ViTImageProcessorPil,
    pipeline,
)

from realfake_hf import CifakeCnnConfig, CifakeCnnForImageClassification
from realfake_hf.detector import Detector
from realfake_hf.labels import id2label, label2id

WITHOUT_THE_PACKAGE = """
import json, sys

class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "realfake_hf":
            raise ImportError("realfake_hf is hidden")

sys.meta_path.insert(0, Hidden())
from transformers import AutoConfig, AutoModelForImageClassification, pipeline

folder, *images = sys.argv[1:]
classify = pipeline("image-classification", model=folder, trust_remote_code=True)
scores = [{row["label"]: row["score"] for row in rows} for rows in classify(images)]
model = AutoModelForImageClassification.from_pretrained(folder, trust_remote_code=True)
config = AutoConfig.from_pretrained(folder, trust_remote_code=True)
print(json.dumps({
    "p_fake": [row["FAKE"] for row in scores],
    "parameters": model.num_parameters(),
    "classes": [type(model).__name__, type(config).__name__],
    "module": type(model).__module__,
    "hidden": "realfake_hf" not in sys.modules,
}))
"""


def build(*, seed=0, **shape):
    torch.manual_seed(seed)
    return CifakeCnnForImageClassification(CifakeCnnConfig(**shape)).eval()


def pixels(n, *, size=32, seed=1):
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(seed))


def logits_of(model, values):
    with torch.no_grad():
        return model(pixel_values=values).logits


def save(model, folder):
    model.save_pretrained(folder)
    size = {"height": model.config.image_size, "width": model.config.image_size}
    ViTImageProcessorPil(size=size).save_pretrained(folder)
    return folder


@pytest.fixture
def images(tmp_path):
    """PNG files of 32 pixels, of other sizes, and in greyscale."""
    rng = np.random.default_rng(0)
    shapes = [(32, 32, 3), (32, 32, 3), (48, 64, 3), (20, 17, 3), (40, 40)]
    files = [tmp_path / f"{number}.png" for number in range(len(shapes))]
    for file, shape in zip(files, shapes, strict=True):
        Image.fromarray(rng.integers(256, size=shape, dtype=np.uint8)).save(file)
    return files


def count(*, image_size=32, num_channels=3, num_filters=32, num_conv_layers=2, dense_units=64, num_dense_layers=1):
    first = (9 * num_channels + 1) * num_filters
    others = (num_conv_layers - 1) * (9 * num_filters + 1) * num_filters
    widths = [num_filters * (image_size // 2**num_conv_layers) ** 2, *[dense_units] * num_dense_layers, 1]
    return first + others + sum((into + 1) * out for into, out in pairwise(widths))


def test_the_default_has_the_papers_141_345_parameters():
    assert build().num_parameters() == count() == 141_345


@pytest.mark.parametrize("num_conv_layers", [1, 2, 3, 5])
@pytest.mark.parametrize("num_filters", [16, 128])
@pytest.mark.parametrize(("num_dense_layers", "dense_units"), [(0, 32), (1, 32), (3, 256)])
def test_every_topology_builds_runs_and_has_the_parameters_of_the_formula(
    num_conv_layers, num_filters, num_dense_layers, dense_units
):
    shape = {
        "num_conv_layers": num_conv_layers,
        "num_filters": num_filters,
        "num_dense_layers": num_dense_layers,
        "dense_units": dense_units,
    }
    model = build(**shape)
    assert model.num_parameters() == count(**shape)
    assert logits_of(model, pixels(2)).shape == (2, 2)


def test_image_size_and_channels_are_settings_too():
    model = build(image_size=45, num_channels=1)
    assert model.num_parameters() == count(image_size=45, num_channels=1)
    assert logits_of(model, torch.zeros(2, 1, 45, 45)).shape == (2, 2)


def test_weights_begin_glorot_uniform_and_biases_at_zero():
    model = build()
    for weight in (model.features[3].weight, model.dense[0].weight):
        inputs, outputs = weight[0].numel(), weight[:, 0].numel()
        bound = (6 / (inputs + outputs)) ** 0.5
        assert weight.abs().max() <= bound
        assert weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.05)
    assert all(not values.any() for name, values in model.named_parameters() if name.endswith("bias"))


def test_the_same_seed_builds_the_same_weights():
    values = pixels(4)
    assert torch.equal(logits_of(build(seed=3), values), logits_of(build(seed=3), values))
    assert not torch.allclose(logits_of(build(seed=3), values), logits_of(build(seed=4), values))


def test_logits_are_zero_and_z_and_their_softmax_is_the_papers_sigmoid():
    logits = logits_of(build(), pixels(8))
    z = logits[:, 1]
    assert torch.equal(logits[:, 0], torch.zeros(8))
    torch.testing.assert_close(logits.softmax(dim=1), torch.stack([1 - z.sigmoid(), z.sigmoid()], dim=1))


def test_the_loss_and_its_gradients_are_those_of_the_binary_cross_entropy_of_z():
    model, values, labels = build(), pixels(8), torch.tensor([0, 1, 1, 0, 1, 0, 0, 1])
    output = model(pixel_values=values, labels=labels)
    expected = torch.nn.functional.binary_cross_entropy_with_logits(output.logits[:, 1], labels.float())
    torch.testing.assert_close(output.loss, expected)
    weights = list(model.parameters())
    ours, theirs = (torch.autograd.grad(loss, weights, retain_graph=True) for loss in (output.loss, expected))
    torch.testing.assert_close(ours, theirs)


def test_a_batch_is_its_images():
    model, values = build(), pixels(8)
    one_by_one = torch.cat([logits_of(model, image[None]) for image in values])
    torch.testing.assert_close(logits_of(model, values), one_by_one)


def test_a_plain_tuple_is_given_where_the_call_or_the_config_asks_for_it():
    model, values = build(), pixels(2)
    labels = torch.tensor([0, 1])
    loss, logits = model(values, labels, return_dict=False)
    assert (loss.shape, logits.shape) == ((), (2, 2))
    model.config.return_dict = False
    assert torch.equal(model(values)[0], logits)
    assert torch.equal(model(values, return_dict=True).logits, logits)


def test_labels_are_real_and_fake_unless_others_are_named():
    config = CifakeCnnConfig()
    assert (config.id2label, config.label2id, config.num_labels) == (id2label(), label2id(), 2)
    other = CifakeCnnConfig(id2label={0: "photo", 1: "synthetic"})
    assert (other.id2label, other.label2id) == ({0: "photo", 1: "synthetic"}, {"photo": 0, "synthetic": 1})


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"num_filters": 0}, "expected an integer num_filters of at least 1; found 0"),
        ({"dense_units": -1}, "expected an integer dense_units of at least 1; found -1"),
        ({"num_dense_layers": -1}, "expected an integer num_dense_layers of at least 0; found -1"),
        ({"image_size": "32"}, "expected an integer image_size of at least 1; found '32'"),
        ({"num_channels": 1.5}, r"expected an integer num_channels of at least 1; found 1\.5"),
        (
            {"num_conv_layers": 6},
            r"expected at least one pixel after 6 poolings; found none for image_size 32\. Use fewer convolutions or",
        ),
        (
            {"num_labels": 3},
            r"expected two labels, because the logits are \(0, z\); found 3 with the names {0: 'REAL'",
        ),
        (
            {"id2label": {0: "cat", 1: "dog", 2: "fish"}},
            r"expected two labels, because the logits are \(0, z\); found 3 with .*'fish'}",
        ),
    ],
)
def test_a_config_that_cannot_be_built_is_refused(settings, sentence):
    with pytest.raises(ValueError, match=sentence):
        CifakeCnnConfig(**settings)


@pytest.mark.parametrize("shape", [(2, 3, 48, 48), (2, 1, 32, 32), (3, 32, 32), (2, 3, 33, 33)])
def test_pixels_of_another_shape_are_refused(shape):
    sentence = r"expected pixel_values \(batch, 3, 32, 32\); found \([0-9, ]+\)\. Use the image processor saved with"
    with pytest.raises(ValueError, match=sentence):
        build()(torch.zeros(shape))


def test_a_saved_model_loads_through_auto_classes_with_its_shape_and_logits(tmp_path):
    model = build(num_filters=8, num_conv_layers=3, dense_units=16, num_dense_layers=2)
    folder = save(model, tmp_path)
    loaded = AutoModelForImageClassification.from_pretrained(folder)
    assert type(loaded) is CifakeCnnForImageClassification
    assert loaded.config.to_diff_dict().keys() == model.config.to_diff_dict().keys()
    torch.testing.assert_close(logits_of(loaded, pixels(4)), logits_of(model, pixels(4)), rtol=0, atol=1e-6)
    config = AutoConfig.from_pretrained(folder)
    assert (type(config), config.num_conv_layers, config.id2label) == (CifakeCnnConfig, 3, id2label())
    assert type(AutoImageProcessor.from_pretrained(folder)) is ViTImageProcessorPil


@pytest.mark.slow
def test_without_the_package_the_saved_folder_gives_the_same_scores(tmp_path, images):
    folder = save(build(), tmp_path / "model")
    words = [sys.executable, "-c", WITHOUT_THE_PACKAGE, str(folder), *map(str, images)]
    settings = {"HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1"}
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "TRANSFORMERS_"))}
    said = subprocess.run(words, env=kept | settings, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stderr
    found = json.loads(said.stdout)
    assert found["hidden"]
    assert found["module"].startswith("transformers_modules.")
    assert (found["parameters"], found["classes"]) == (
        141_345,
        ["CifakeCnnForImageClassification", "CifakeCnnConfig"],
    )
    expected = [verdict.p_fake for verdict in Detector.from_pretrained(folder).predict(images)]
    np.testing.assert_allclose(found["p_fake"], expected, atol=1e-6)


def test_the_code_that_travels_with_the_weights_is_this_file(tmp_path):
    folder = save(build(), tmp_path)
    source = Path(sys.modules[CifakeCnnConfig.__module__].__file__)
    assert (folder / source.name).read_text() == source.read_text()


def test_a_pipeline_gives_the_scores_of_the_detector(tmp_path, images):
    folder = save(build(), tmp_path / "model")
    classify = pipeline("image-classification", model=str(folder))
    scores = [{row["label"]: row["score"] for row in rows} for rows in classify([str(file) for file in images])]
    expected = [verdict.p_fake for verdict in Detector.from_pretrained(folder).predict(images)]
    np.testing.assert_allclose([row["FAKE"] for row in scores], expected, atol=1e-6)
    assert len({round(value, 4) for value in expected}) == len(images)
