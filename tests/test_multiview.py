"""A frozen CLIP tower with heads on its middle layers, as a model of transformers."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from transformers import AutoConfig, AutoModel, AutoModelForImageClassification, pipeline

from realfake_hf.detector import Detector
from realfake_hf.metrics.operating_point import Band, Limits, OperatingPoint
from realfake_hf.models import MultiViewConfig, MultiViewForImageClassification, MultiViewImageProcessor, multiview
from realfake_hf.models.checkpoint import load_classifier
from realfake_hf.models.heads import head_modules
from realfake_hf.models.multiview import Int8Linear

TOWER = {
    "model_type": "clip_vision_model", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3,
    "num_attention_heads": 2, "image_size": 32, "patch_size": 8,
}  # fmt: skip
SIZES = ((20, 90), (100, 64), (300, 200), (9, 9))
WITHOUT_THE_PACKAGE = """
import json, sys
class Hidden:
    def find_spec(self, name, *rest):
        if name.split(".")[0] == "realfake_hf":
            raise ImportError(name)
sys.meta_path.insert(0, Hidden())
from transformers import pipeline
folder, *files = sys.argv[1:]
classify = pipeline("image-classification", model=folder, trust_remote_code=True)
scores = [{row["label"]: row["score"] for row in rows}["FAKE"] for rows in classify(files)]
print(json.dumps([type(classify.model).__module__, type(classify.image_processor).__module__, scores]))
"""


def build(tower: dict = TOWER, **settings) -> MultiViewForImageClassification:
    torch.manual_seed(0)
    config = MultiViewConfig(tower_config=tower, feature_layers=(2, 3), **settings)
    model = MultiViewForImageClassification(config)
    tower = AutoModel.from_config(config.tower_config)
    for module in tower.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.2)
    model.set_tower(tower)
    return model.eval()


def save(model: MultiViewForImageClassification, folder: Path) -> Path:
    model.save_pretrained(folder)
    MultiViewImageProcessor(size=32).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> list[str]:
    folder = tmp_path_factory.mktemp("images")
    for number, size in enumerate(SIZES):
        pixels = np.random.default_rng(number).integers(256, size=(*size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return [str(file) for file in sorted(folder.iterdir())]


def values(batch: int = 2, views: int = 4) -> torch.Tensor:
    return torch.randn(batch, views, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def test_the_default_is_eight_layers_of_vit_b_16_with_features_of_6144():
    config = MultiViewConfig()
    tower = config.tower_config
    assert (tower.num_hidden_layers, tower.hidden_size, tower.patch_size, tower.image_size) == (8, 768, 16, 224)
    with torch.device("meta"):
        assert MultiViewForImageClassification(config).feature_width == 6144


def test_the_score_is_the_mean_of_the_wholes_and_of_the_windows_mean():
    model, pixels = build(), values()
    with torch.no_grad():
        logits = model(pixels).logits
        features = model.features(pixels.flatten(0, 1)).view(2, 4, -1)
        whole, windows = model.whole(features[:, 0]), model.window(features[:, 1:])
    assert features.shape[-1] == 2 * 2 * 32
    torch.testing.assert_close(logits[:, 0], torch.zeros(2))
    torch.testing.assert_close(logits[:, 1], (whole[:, 0] + windows[..., 0].mean(1)) / 2)


def test_features_are_class_and_mean_patch_tokens_of_the_layers():
    model, pixels = build(), values(1, 1)[:, 0]
    hidden = model.tower(pixel_values=pixels, output_hidden_states=True).hidden_states
    expected = torch.cat([hidden[2][:, 0], hidden[2][:, 1:].mean(1), hidden[3][:, 0], hidden[3][:, 1:].mean(1)], 1)
    torch.testing.assert_close(model.features(pixels), expected)


def test_the_order_of_the_windows_does_not_matter_and_one_view_is_the_whole_alone():
    model, pixels = build(), values()
    torch.testing.assert_close(model(pixels).logits, model(pixels[:, [0, 3, 1, 2]]).logits, rtol=0, atol=1e-5)
    alone = model(pixels[:, :1]).logits[:, 1]
    torch.testing.assert_close(alone, model.whole(model.features(pixels[:, 0]))[:, 0])


def test_only_the_heads_train():
    model = build(hidden_units=4).train()
    model(values(), labels=torch.tensor([0, 1])).loss.backward()
    trained = {name for name, value in model.named_parameters() if value.grad is not None}
    assert trained == {name for name, _ in model.named_parameters() if name.startswith(("whole.", "window."))}
    assert not model.tower.training


def test_weights_of_eight_bits_are_exact_for_a_rounded_layer_and_close_for_others():
    linear = nn.Linear(64, 16)
    packed = Int8Linear.from_linear(linear)
    inputs = torch.randn(5, 64)
    torch.testing.assert_close(packed(inputs), linear(inputs), rtol=0, atol=0.02)
    with torch.no_grad():
        linear.weight.copy_(packed.weight * packed.scale)
    again = Int8Linear.from_linear(linear)
    torch.testing.assert_close(again(inputs), linear(inputs), rtol=0, atol=0)
    assert again.weight.dtype == torch.int8


def test_scales_stay_float32_in_a_copy_in_bfloat16():
    model = build()
    copy = build().to(torch.bfloat16)
    assert copy.tower.encoder.layers[0].mlp.fc1.scale.dtype == torch.float32
    change = model(values()).logits - copy(values().bfloat16()).logits.float()
    assert 0 < change.abs().max() < 0.05


@pytest.mark.parametrize("settings", [{}, {"hidden_units": 4}, {"bits": 32}], ids=["linear", "hidden", "floats"])
def test_a_saved_model_gives_the_same_scores_in_a_pipeline_and_a_detector(tmp_path, files, settings):
    folder = save(build(**settings), tmp_path)
    detector = Detector.from_pretrained(folder)
    assert type(detector.model) is MultiViewForImageClassification
    expected = detector.probabilities(files)
    classify = pipeline("image-classification", model=str(folder))
    scores = [{row["label"]: row["score"] for row in rows}["FAKE"] for rows in classify(files, batch_size=3)]
    np.testing.assert_allclose(scores, expected, atol=1e-6)
    assert len(set(expected.round(4))) == len(files)
    close = Detector.from_pretrained(folder, bf16=True).probabilities(files)
    np.testing.assert_allclose(close, expected, atol=0.03)


def test_the_head_of_the_windows_gives_the_embeddings(tmp_path, files):
    detector = Detector.from_pretrained(save(build(), tmp_path))
    assert list(head_modules(detector.model)) == ["window.1"]
    assert detector.embeddings(files).shape == (len(files), 2 * 2 * 32)


def test_a_missing_weight_is_refused(tmp_path):
    folder = save(build(), tmp_path)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"hidden_units": 4}))
    with pytest.raises(ValueError, match=r"expected all .* weights of a multiview classifier"):
        load_classifier(folder)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"feature_layers": (9,)}, "feature_layers from 1 to 8"),
        ({"feature_layers": ()}, "feature_layers from 1 to 8"),
        ({"bits": 4}, "8 or 32 bits"),
        ({"hidden_units": -1}, "no negative units"),
        ({"num_labels": 3}, "two labels"),
    ],
)
def test_a_config_that_cannot_be_built_is_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        MultiViewConfig(**settings)


@pytest.mark.parametrize("shape", [(2, 3, 32, 32), (2, 0, 3, 32, 32)])
def test_pixels_without_views_are_refused(shape):
    with pytest.raises(ValueError, match=r"expected pixel_values \(batch, views, 3, size, size\); found"):
        build()(torch.zeros(shape))


def test_the_config_names_the_code_that_travels_with_the_weights(tmp_path):
    folder = save(build(), tmp_path)
    assert sorted(file.name for file in folder.glob("*.py")) == ["multiview.py", "views.py"]
    assert set(AutoConfig.from_pretrained(folder).auto_map) == {
        "AutoConfig", "AutoImageProcessor", "AutoModelForImageClassification",
    }  # fmt: skip
    loaded = AutoModelForImageClassification.from_pretrained(folder)
    torch.testing.assert_close(loaded(values()).logits, build()(values()).logits, rtol=0, atol=1e-6)


@pytest.mark.slow
def test_without_the_package_the_saved_folder_gives_the_same_scores(tmp_path, files):
    folder = save(build(), tmp_path / "model")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "TRANSFORMERS_"))}
    environment = kept | {"HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1"}
    words = [sys.executable, "-c", WITHOUT_THE_PACKAGE, str(folder), *files]
    done = subprocess.run(words, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    *modules, scores = json.loads(done.stdout)
    assert all(module.startswith("transformers_modules.") for module in modules)
    np.testing.assert_allclose(scores, Detector.from_pretrained(folder).probabilities(files), atol=1e-6)


@pytest.mark.parametrize("temperature", [None, 4.0])
def test_views_that_contradict_each_other_make_a_verdict_unsure(picture_bytes, temperature):
    model, processor = build(), MultiViewImageProcessor(size=32, n_windows=2)
    images = [picture_bytes(seed, size=(100, 64)) for seed in range(3)]
    with torch.no_grad():
        model.whole[-1].bias.fill_(3.0)
        plain = Detector(model, processor)
        pixels = plain._pixel_values([Image.open(io.BytesIO(data)).convert("RGB") for data in images])
        views = model(pixel_values=pixels).view_scores
    assert views.shape == (3, 3)
    scores = (views[:, 0] + views[:, 1:].mean(1)) / 2
    ratio = scores.abs() / views.std(1, correction=0)
    widening = float(ratio.sort().values[1:].mean())  # the image with the highest ratio is sure
    band, limits = Band(0.5, 0.5, promised=0.1), Limits(widening=widening)
    point = OperatingPoint(0.5, "by hand", temperature=temperature, band=band, limits=limits)
    found = Detector(model, processor, point=point).predict(images)
    assert [one.p_fake for one in found] == pytest.approx((scores / (temperature or 1)).sigmoid().tolist(), abs=1e-6)
    expected = (ratio >= widening).tolist()
    assert [one.is_sure for one in found] == expected
    assert all(one.is_sure or one.reasons == ("views",) for one in found)
    calm = Detector(model, MultiViewImageProcessor(size=32, n_windows=0), point=point)
    assert all(one.is_sure for one in calm.predict(images))
    assert sorted(expected) == [False, False, True]


@pytest.mark.parametrize("name", ["multiview.py", "views.py"])
def test_the_kept_model_has_the_code_of_the_package(name):
    copy = Path(__file__).parents[1] / "space/models/wild" / name
    assert copy.read_text() == (Path(multiview.__file__).parent / name).read_text()
