"""One explanation per image, whatever the method; planted evidence is found; what does not fit is refused."""

import inspect
from dataclasses import FrozenInstanceError

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    ConvNextConfig,
    ConvNextForImageClassification,
    SiglipConfig,
    SiglipForImageClassification,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessorPil,
)

from realfake_hf import CifakeCnnConfig, CifakeCnnForImageClassification, Detector, Explanation, Verdict
from realfake_hf.attribution.explain import FUNCTIONS, explain, scale
from realfake_hf.attribution.methods import ATTENTION_METHODS, CLASS_METHODS, METHODS
from realfake_hf.labels import id2label, label2id

WORDS = {"id2label": id2label(), "label2id": label2id()}
DEFAULTS = {
    "rollout": {"head_fusion": "mean", "discard_ratio": 0.0},
    "last_attention": {"head_fusion": "mean"},
    "gradient_rollout": {},
    "relevance": {},
    "legrad": {},
    "libragrad": {},
    "grad_cam": {"layer": None},
    "integrated_gradients": {"steps": 32, "grid": (8, 8)},
}
OF_THE_CNN = sorted(METHODS.keys() - ATTENTION_METHODS)


def build_vit(*, attention="eager", size=32, patch=8, layers=2, **settings):
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "num_hidden_layers": layers, "num_attention_heads": 2, "intermediate_size": 32}
    config = ViTConfig(image_size=size, patch_size=patch, **shape, **WORDS, attn_implementation=attention, **settings)
    return ViTForImageClassification(config).eval()


def build_cnn(**settings):
    torch.manual_seed(0)
    return CifakeCnnForImageClassification(CifakeCnnConfig(num_filters=16, dense_units=32, **settings)).eval()


def build_uneven_vit(**settings):
    return build_vit(initializer_range=0.4, **settings)


def pixels(n=4, *, size=32, seed=1):
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(seed))


def p_fake(model, values):
    with torch.no_grad():
        return model(pixel_values=values).logits.softmax(dim=1)[:, 1]


# Planted evidence: noise, and in one of the four corners a patch whose colour alone decides the class.


def planted(n, *, noise, seed):
    generator = torch.Generator().manual_seed(seed)
    is_fake, corner = (torch.randint(choices, (n,), generator=generator) for choices in (2, 4))
    values = noise * torch.randn(n, 3, 16, 16, generator=generator)
    for image, channel, place in zip(values, is_fake.tolist(), corner.tolist(), strict=True):
        row, column = 12 * (place // 2), 12 * (place % 2)
        image[channel, row : row + 4, column : column + 4] += 2
    return values, is_fake, corner


def trained(model, *, noise, steps):
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for step in range(steps):
        values, labels, _ = planted(64, noise=noise, seed=1000 + step)
        model(pixel_values=values, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model


def hits(explanations, corner):
    """Pointing game: the hottest cell lies within the planted quarter of a side; an empty map never hits."""
    for one, place in zip(explanations, corner.tolist(), strict=True):
        row, column = np.unravel_index(one.map.argmax(), one.map.shape)
        quarters = int(4 * row / one.map.shape[0]), int(4 * column / one.map.shape[1])
        yield quarters == (3 * (place // 2), 3 * (place % 2)) and not one.is_empty


@pytest.fixture(scope="module")
def planted_vit():
    return trained(build_vit(size=16, patch=4, hidden_dropout_prob=0.0), noise=1.0, steps=200)


@pytest.fixture(scope="module")
def planted_siglip():
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    config = SiglipConfig(vision_config={"image_size": 16, "patch_size": 4, **shape}, **WORDS)
    return trained(SiglipForImageClassification(config), noise=1.0, steps=200).eval()


@pytest.fixture(scope="module")
def planted_cnn():
    return trained(build_cnn(image_size=16), noise=0.5, steps=60)


@pytest.mark.parametrize(
    ("fixture", "method", "noise"),
    [
        ("vit", "relevance", 1.0),
        ("cnn", "grad_cam", 0.5),
        pytest.param("siglip", "relevance", 1.0, marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("label", ["REAL", "FAKE"])
def test_the_corner_that_decides_the_class_is_hit_in_95_percent_of_the_images(request, fixture, method, noise, label):
    model = request.getfixturevalue(f"planted_{fixture}")
    values, is_fake, corner = planted(400, noise=noise, seed=7)
    of_label = is_fake == (label == "FAKE")
    found = explain(model, values[of_label], method=method)
    assert np.mean([one.verdict.label == label for one in found]) > 0.98
    assert np.mean(list(hits(found, corner[of_label]))) >= 0.95


def test_evidence_for_the_other_class_lies_elsewhere(planted_cnn):
    values, is_fake, corner = planted(100, noise=0.5, seed=7)
    found = explain(planted_cnn, values[is_fake == 1], method="grad_cam", target="REAL")
    assert np.mean(list(hits(found, corner[is_fake == 1]))) < 0.25


@pytest.mark.parametrize("method", METHODS)
def test_every_method_gives_the_same_kind_of_result(method):
    model, values = build_uneven_vit(), pixels()
    found = explain(model, values, method=method)
    assert len(found) == 4
    for one, p in zip(found, p_fake(model, values).tolist(), strict=True):
        assert isinstance(one, Explanation)
        assert one.verdict.p_fake == pytest.approx(p, abs=1e-6)
        assert one.verdict.label == ("FAKE" if p > 0.5 else "REAL")
        assert (one.map.dtype, one.map.ndim, one.is_empty) == (np.float32, 2, False)
        assert (one.map.min(), one.map.max()) == (0, 1)
        assert (one.method, one.options) == (method, DEFAULTS[method])
        assert one.target == (one.verdict.label if method in CLASS_METHODS else None)
        assert one.layer == ("vit.layers.1.layernorm_before" if method == "grad_cam" else None)
        assert one.overlay(np.zeros((32, 32, 3), dtype=np.uint8)).shape == (256, 256, 3)
    assert {one.verdict.label for one in explain(model, pixels(20), method=method)} == {"REAL", "FAKE"}


def test_the_options_of_a_result_are_those_given_and_the_defaults():
    [one] = explain(build_uneven_vit(), pixels(1), method="rollout", options={"discard_ratio": 0.5})
    assert one.options == {"head_fusion": "mean", "discard_ratio": 0.5}
    [one] = explain(build_cnn(), pixels(1), method="grad_cam", options={"layer": "features.0"})
    assert (one.options, one.layer, one.map.shape) == ({"layer": "features.0"}, "features.0", (32, 32))
    assert METHODS == DEFAULTS


def test_the_table_of_methods_has_the_options_of_their_functions():
    parameters = {method: inspect.signature(function).parameters.values() for method, function in FUNCTIONS.items()}
    assert {
        method: {option.name: option.default for option in options if option.kind is option.KEYWORD_ONLY}
        for method, options in parameters.items()
    } == DEFAULTS


@pytest.mark.parametrize("method", sorted(CLASS_METHODS))
def test_a_named_target_is_explained_whatever_the_verdict(method):
    model, values = build_uneven_vit(), pixels(8)
    fake, real, predicted = (
        explain(model, values, method=method, target=target) for target in ("FAKE", "REAL", "predicted")
    )
    assert [one.target for one in fake + real] == ["FAKE"] * 8 + ["REAL"] * 8
    assert [one.verdict.label for one in fake] == [one.verdict.label for one in real]
    for one, other, expected in zip(fake, real, predicted, strict=True):
        assert not np.allclose(one.map, other.map)
        same = one if expected.verdict.label == "FAKE" else other
        np.testing.assert_allclose(expected.map, same.map, atol=1e-3)


def test_what_is_added_to_both_logits_alike_changes_no_map():
    model, values = build_uneven_vit(), pixels()
    before = explain(model, values, method="relevance", target="REAL")
    model.classifier.weight.data += 3 * torch.randn(16, generator=torch.Generator().manual_seed(0))
    for one, other in zip(before, explain(model, values, method="relevance", target="REAL"), strict=True):
        np.testing.assert_allclose(one.map, other.map, atol=1e-3)


def test_the_cnns_real_has_a_map_although_its_logit_is_always_0():
    found = explain(build_cnn(), pixels(8), method="grad_cam", target="REAL")
    assert not any(one.is_empty for one in found)


def test_maps_are_scaled_image_by_image_and_empty_ones_are_0():
    raw = torch.tensor(
        [[[2.0, 4], [3, 6]], [[-1, 0], [1, 3]], [[5, 5], [5, 5]], [[0, 0], [0, 0]], [[7, 7], [7, 7 + 2e-6]]]
    )
    scaled, empty = scale(raw)
    assert empty.tolist() == [False, False, True, True, True]
    torch.testing.assert_close(scaled[:2], torch.tensor([[[0, 0.5], [0.25, 1]], [[0, 0.25], [0.5, 1]]]))
    assert not scaled[2:].any()
    tiny, empty = scale(raw * 1e-20)
    torch.testing.assert_close(tiny, scaled)
    assert empty.tolist() == [False, False, True, True, True]


def test_a_model_that_sees_no_difference_gives_empty_maps():
    model = build_cnn()
    torch.nn.init.zeros_(model.output.weight)
    for method in OF_THE_CNN:
        for one in explain(model, pixels(2), method=method):
            assert one.is_empty
            assert not one.map.any()
            assert one.verdict == Verdict("REAL", 0.5)


def test_an_explanation_cannot_be_changed():
    [one] = explain(build_cnn(), pixels(1), method="grad_cam")
    with pytest.raises(FrozenInstanceError):
        one.is_empty = True


@pytest.mark.parametrize("method", sorted(ATTENTION_METHODS))
@pytest.mark.parametrize("kind", ["cnn", "convnext"])
def test_methods_on_attention_are_refused_for_models_without_it(method, kind):
    shape = {"num_stages": 1, "hidden_sizes": [8], "depths": [1]}
    model = build_cnn() if kind == "cnn" else ConvNextForImageClassification(ConvNextConfig(**shape, **WORDS)).eval()
    with pytest.raises(
        ValueError, match=f"{type(model).__name__}: none of its layers returns attention weights.*grad_cam"
    ):
        explain(model, pixels(1), method=method)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"method": "lime"}, f"method of {', '.join(DEFAULTS)}; found 'lime'"),
        ({"method": "grad_cam", "target": "fake"}, "target of predicted, FAKE, REAL; found 'fake'"),
        (
            {"method": "rollout", "options": {"fusion": "max", "discard_ratio": 0.5}},
            r"options of rollout \(head_fusion, discard_ratio\); found fusion",
        ),
        (
            {"method": "relevance", "options": {"layer": "x", "a": 1}},
            r"options of relevance \(none\); found a, layer",
        ),
    ],
)
def test_unknown_methods_targets_and_options_are_refused(settings, sentence):
    with pytest.raises(ValueError, match=sentence):
        explain(build_vit(), pixels(1), **settings)


def test_a_model_in_training_mode_is_refused():
    with pytest.raises(ValueError, match=r"eval mode; found one in training mode.*model\.eval\(\)"):
        explain(build_vit().train(), pixels(1), method="grad_cam")


def test_labels_that_do_not_say_real_and_fake_are_refused():
    model = build_vit()
    model.config.id2label = {0: "cat", 1: "dog"}
    for method in METHODS:
        with pytest.raises(ValueError, match="expected one label that means real and one that means fake"):
            explain(model, pixels(1), method=method)


def some_images(n):
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(256, size=(32, 32, 3), dtype=np.uint8)) for _ in range(n)]


def detector(model):
    return Detector(model, ViTImageProcessorPil(size={"height": 32, "width": 32}))


def assert_same(found, expected):
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one.map, other.map, atol=1e-3)
        assert one.verdict.p_fake == pytest.approx(other.verdict.p_fake, abs=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_a_detector_explains_its_verdicts_in_any_batches(method):
    door = detector(build_uneven_vit(attention="sdpa"))
    images = some_images(5)
    whole = door.explain(images, method=method)
    assert [one.verdict.label for one in whole] == [verdict.label for verdict in door.predict(images)]
    expected = door.probabilities(images)
    np.testing.assert_allclose([one.verdict.p_fake for one in whole], expected, atol=1e-6)
    assert_same(door.explain(iter(images), method=method, batch_size=2), whole)
    assert_same([one for image in images for one in door.explain(image, method=method)], whole)
    assert door.explain([], method=method) == []


@pytest.mark.parametrize("method", OF_THE_CNN)
def test_a_detector_explains_the_cnn(method):
    found = detector(build_cnn()).explain(some_images(3), method=method, target="FAKE", options=DEFAULTS[method])
    assert [one.map.shape for one in found] == [(16, 16) if method == "grad_cam" else (8, 8)] * 3


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("method", METHODS)
def test_a_detectors_model_is_as_it_was_after_explaining(attention, method):
    door = detector(build_vit(attention=attention))
    door.explain(some_images(1), method=method)  # which finds the layout
    seen = []
    door.model.register_forward_pre_hook(lambda *_: seen.append(door.model.config._attn_implementation))
    door.explain(some_images(2), method=method)
    own = "realfake_constant" if method == "libragrad" else "eager" if method in ATTENTION_METHODS else attention
    assert set(seen) == {attention, own}  # verdicts and maps
    with pytest.raises(ValueError, match="expected options of"):
        door.explain(some_images(1), method=method, options={"no": 1})
    assert door.model.config._attn_implementation == attention
    assert not door.model.training
    assert all(weight.grad is None and weight.requires_grad for weight in door.model.parameters())


def test_a_detector_can_be_loaded_with_eager_attention(tmp_path):
    model = build_vit(attention="sdpa")
    detector(model).processor.save_pretrained(tmp_path)
    model.save_pretrained(tmp_path)
    assert Detector.from_pretrained(tmp_path).model.config._attn_implementation == "sdpa"
    loaded = Detector.from_pretrained(tmp_path, attn_implementation="eager")
    assert loaded.model.config._attn_implementation == "eager"
    assert_same(
        loaded.explain(some_images(2), method="rollout"), detector(model).explain(some_images(2), method="rollout")
    )
