"""Activation patching equals a slow loop, keeps its laws, and finds planted evidence."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from study_models import is_plain_json, sample_of, stripe_finder, tiny_vit
from test_attention import build, pixels
from test_multiview import build as build_multiview
from tiny_classifiers import FAMILIES

from realfake_hf.attribution.maps import default_layer, log_odds
from realfake_hf.attribution.patching import patch_cells, patched_log_odds, patching_layer, read_layer
from realfake_hf.detector import Detector
from realfake_hf.explain_study.patching import draw_twins, measure_patching, top_share
from realfake_hf.metrics.significance import holm
from realfake_hf.models import MultiViewImageProcessor
from realfake_hf.models.view_maps import OneView

MIDDLE = "vit.layers.1"


def of_size(name, n, *, seed=1):
    side = 64 if name == "resnet" else 32
    return torch.randn(n, 3, side, side, generator=torch.Generator().manual_seed(seed))


def slow_effects(model, image, donor):
    """The effects of one image, a cell at a time, computed without hooks."""
    own, other = (
        model.vit.layers[1](model.vit.layers[0](model.vit.embeddings(each[None]))) for each in (image, donor)
    )

    def odds(states):
        logits = model.classifier(model.vit.layernorm(model.vit.layers[2](states))[:, 0])[0]
        return (logits[1] - logits[0]).item()

    effects = []
    for token in range(17):
        states = own.clone()
        states[0, token] = other[0, token]
        effects.append(odds(states) - odds(own))
    return effects


def test_effects_are_those_of_a_loop_over_single_cells():
    model, images, donors = build(), pixels(2), pixels(2, seed=2)
    found = patch_cells(model, images, donors, MIDDLE)
    with torch.no_grad():
        slow = torch.tensor([slow_effects(model, *pair) for pair in zip(images, donors, strict=True)])
        total = log_odds(model, donors) - log_odds(model, images)
    torch.testing.assert_close(found.special, slow[:, 0], rtol=0, atol=1e-5)
    torch.testing.assert_close(found.cells, slow[:, 1:].reshape(2, 4, 4), rtol=0, atol=1e-5)
    torch.testing.assert_close(found.total, total)
    assert found.cells.abs().min() > 1e-4


@pytest.mark.parametrize("name", ["vit", "deit", "siglip", "dinov2_with_registers", "resnet"])
def test_replacing_everything_gives_the_log_odds_of_the_donor(name):
    model, images, donors = FAMILIES[name].build(), of_size(name, 2), of_size(name, 2, seed=2)
    layer = patching_layer(model, images)
    with torch.no_grad():
        expected, activations = read_layer(model, donors, layer)
        cells = patch_cells(model, images, donors, layer).cells
        everything = torch.ones(2, 1 + cells[0].numel(), dtype=torch.bool)
        found = patched_log_odds(model, images, activations, layer, everything)
        nothing = patched_log_odds(model, images, activations, layer, ~everything)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
        torch.testing.assert_close(nothing, log_odds(model, images), rtol=0, atol=1e-5)
    assert (found - nothing).abs().min() > 1e-3


@pytest.mark.parametrize("name", ["vit", "resnet"])
def test_an_image_patched_with_itself_does_not_change(name):
    model, images = FAMILIES[name].build(), of_size(name, 2)
    found = patch_cells(model, images, images, patching_layer(model, images))
    for changes in (found.cells, found.special, found.total):
        torch.testing.assert_close(changes, torch.zeros_like(changes), rtol=0, atol=1e-5)


def test_effects_add_up_where_the_model_is_linear_in_the_mean_of_the_cells():
    model, images, donors = FAMILIES["resnet"].build(), of_size("resnet", 3), of_size("resnet", 3, seed=2)
    found = patch_cells(model, images, donors, default_layer(model, images))
    torch.testing.assert_close(found.cells.sum(dim=(1, 2)), found.total, rtol=1e-3, atol=1e-5)
    assert found.cells.abs().min() > 0
    assert found.total.abs().min() > 1e-3


def test_the_layer_is_the_block_at_half_depth_or_that_of_grad_cam():
    assert patching_layer(build()) == MIDDLE
    assert patching_layer(FAMILIES["clip"].build()) == "vision_model.encoder.layers.0"
    assert patching_layer(FAMILIES["resnet"].build()) == "resnet.encoder.stages.3"


def test_a_layer_without_cells_is_refused_and_no_hook_is_left():
    model, images = build(), pixels(1)
    with pytest.raises(ValueError, match=rf"ViTForImageClassification.*found 'classifier'.*'{MIDDLE}'"):
        patch_cells(model, images, images, "classifier")
    patch_cells(model, images, images, MIDDLE)
    assert not any(module._forward_hooks for module in model.modules() if type(module).__name__ == "Linear")


def test_a_model_of_several_views_is_patched_in_the_view_of_the_whole_image():
    detector = Detector(build_multiview(), MultiViewImageProcessor(size=32))
    images = np.random.default_rng(0).integers(256, size=(2, 40, 50, 3), dtype=np.uint8)
    model, values = detector.single_view(images)
    assert isinstance(model, OneView)
    expected = detector.processor(list(images), return_tensors="pt")["pixel_values"][:, 0]
    torch.testing.assert_close(values, expected)
    assert patch_cells(model, values[:1], values[1:], patching_layer(model, values)).cells.any()


def test_a_twin_has_the_other_label_and_the_same_content_and_both_are_right():
    n, content = 40, ["cat", "dog", "dog", "frog"] * 10
    right = np.arange(n) % 5 > 0
    is_fake = np.array([(row // 4) % 2 == 1 or name == "frog" for row, name in enumerate(content)])
    sample = sample_of(np.zeros((n, 2, 2, 3), dtype=np.uint8), is_fake, right=right, content=content)
    twin, same, other = (draw_twins(sample, model="vit", seed=seed) for seed in (0, 0, 1))
    assert twin.tolist() == same.tolist() != other.tolist()
    expected = right & (np.array(content) != "frog")  # which are all fake
    np.testing.assert_array_equal(twin >= 0, expected)
    for row in np.flatnonzero(expected):
        assert (content[twin[row]], is_fake[twin[row]], right[twin[row]]) == (content[row], not is_fake[row], True)


def test_the_share_of_the_top_cells_counts_positive_effects_alone():
    effects = np.full((3, 2, 5), 1.0)
    effects[1], effects[2] = -1.0, np.nan
    np.testing.assert_array_equal(top_share(effects), [0.2, np.nan, np.nan])
    effects[0] = 0.0
    effects[0, 1, 4], effects[0, 0, 0] = 3.0, -3.0
    assert top_share(effects)[0] == 1


@pytest.fixture(scope="module")
def measured():
    """A CNN that calls images with bright dots in one corner FAKE, and misclassifies one image; and a ViT."""
    images = np.full((8, 32, 32, 3), 128, dtype=np.uint8)
    images[1::2, :16, :16] = 0
    images[1::2, :16:2, :16:2] = 255
    sample = sample_of(images, np.arange(8) % 2 == 1)
    sample = replace(sample, is_right={"cnn": np.arange(8) != 6, "vit": np.ones(8, dtype=bool)})
    models = [stripe_finder(), tiny_vit("rollout", "grad_cam")]
    return measure_patching(models, sample, samples=50), sample


def test_the_effects_lie_where_the_evidence_is_and_lead_to_the_label_of_the_twin(measured):
    cnn = measured[0]["models"]["cnn"]
    assert (measured[0]["n"], cnn["n"], cnn["native_grid"]) == (8, 7, [16, 16])
    assert cnn["top_share"]["value"] > 0.8  # 51 of about 64 cells with dots
    assert cnn["total"]["low"] == pytest.approx(4, abs=0.3)  # for images of both labels
    assert cnn["cells"]["value"] == pytest.approx(cnn["total"]["value"], rel=1e-4)
    assert cnn["special"]["value"] == pytest.approx(0, abs=1e-5)


def test_a_faithful_map_agrees_with_the_effects_more_than_the_centre_and_as_on_images_of_its_kind(measured):
    row = measured[0]["models"]["cnn"]["maps"]["grad_cam"]["iou_top_20"]
    assert (row["same"]["value"], row["same"]["n"], row["same"]["undefined"]) == (pytest.approx(1), 4, 4)
    assert row["less_centre"]["low"] > 0.5
    assert row["less_other"]["value"] == pytest.approx(0)


def test_results_are_json_and_all_differences_are_one_family(measured):
    rows = [
        row
        for tested in measured[0]["models"].values()
        for by_measure in tested["maps"].values()
        for row in by_measure.values()
    ]
    tests = [row[name] for row in rows for name in ("less_other", "less_centre") if name in row]
    defined = [test for test in tests if "p_value" in test]
    assert len(tests) == 2 * (3 * 2 + 2)
    assert [test["p_holm"] for test in defined] == holm([test["p_value"] for test in defined])
    assert is_plain_json(measured[0])


def test_a_sample_without_twins_is_refused(measured):
    wrong = replace(measured[1], is_right={"cnn": measured[1].is_fake})
    with pytest.raises(ValueError, match=r"both labels.*cnn classifies correctly; found none.*--patching_n"):
        measure_patching([stripe_finder()], wrong)
