"""Weights are randomised from the head down to the pixels, and maps that depend on them change."""

import pytest
import torch
from study_models import is_plain_json, noise, plain_and_striped, stripe_finder, tiny_vit
from transformers import (
    ConvNextConfig,
    ConvNextForImageClassification,
    DeiTConfig,
    DeiTForImageClassificationWithTeacher,
    ResNetConfig,
    ResNetForImageClassification,
    ViTConfig,
    ViTForImageClassification,
)

from realfake_hf import CifakeCnnConfig, CifakeCnnForImageClassification
from realfake_hf.attribution.explain import explain
from realfake_hf.explain_study.sanity import cascade, measure_sanity, stages
from realfake_hf.labels import id2label, label2id
from realfake_hf.models.pretrained import random_weights

WORDS = {"id2label": id2label(), "label2id": label2id()}
TOKENS = {"image_size": 32, "patch_size": 8, "hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 16}
BUILD = {
    "cnn": lambda: CifakeCnnForImageClassification(CifakeCnnConfig(num_filters=4)),
    "vit": lambda: ViTForImageClassification(ViTConfig(num_hidden_layers=12, **TOKENS, **WORDS)),
    "deit": lambda: DeiTForImageClassificationWithTeacher(DeiTConfig(num_hidden_layers=2, **TOKENS, **WORDS)),
    "convnext": lambda: ConvNextForImageClassification(
        ConvNextConfig(num_stages=2, depths=[1, 2], hidden_sizes=[8, 16], patch_size=4, **WORDS)
    ),
    "resnet": lambda: ResNetForImageClassification(
        ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", **WORDS)
    ),
}
ORDER = {
    "cnn": ["output", "dense.0", "features.3", "features.0"],
    "vit": ["head", "layers.10", "layers.7", "layers.4", "layers.1", "embeddings"],
    "deit": ["head", "layernorm", "layers.1", "layers.0", "embeddings"],
    "convnext": ["head", "layernorm", "encoder.stages.1", "encoder.stages.0", "embeddings"],
    "resnet": ["head", "encoder.stages.1", "encoder.stages.0", "embedder"],
}


def build(kind, *, shake=0.3):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = BUILD[kind]().eval()
        for weight in model.parameters():
            weight.data += shake * torch.randn_like(weight)  # nothing is as it was initialised, as after training
    return model


def same(a, b):
    return {name for name, tensor in a.state_dict().items() if torch.equal(tensor, b.state_dict()[name])}


@pytest.mark.parametrize("kind", BUILD)
def test_stages_lead_from_the_head_down_to_the_pixels(kind):
    assert list(stages(build(kind))) == ORDER[kind]


@pytest.mark.parametrize("most", [2, 3, 6, 100])
@pytest.mark.parametrize("kind", BUILD)
def test_every_tensor_is_in_exactly_one_stage(kind, most):
    model = build(kind)
    found = stages(model, max_stages=most)
    names = [name for tensors in found.values() for name in tensors]
    assert sorted(names) == sorted(model.state_dict())
    assert 2 <= len(found) <= most
    assert all(found.values())


def test_the_head_is_a_stage_of_its_own_even_with_two_classifiers():
    heads = {kind: next(iter(stages(build(kind)).values())) for kind in ("vit", "cnn", "deit")}
    assert set(heads["vit"]) == {"classifier.weight", "classifier.bias"}
    assert set(heads["cnn"]) == {"output.weight", "output.bias"}
    assert {name.split(".")[0] for name in heads["deit"]} == {"cls_classifier", "distillation_classifier"}


@pytest.mark.parametrize("kind", BUILD)
def test_random_weights_equal_a_fresh_initialisation(kind):
    model, before = build(kind), torch.get_rng_state()
    twin = random_weights(model, seed=3)
    assert torch.equal(torch.get_rng_state(), before)
    assert not twin.training
    assert not any(name.endswith("weight") for name in same(model, twin))
    torch.manual_seed(3)
    fresh = BUILD[kind]()
    assert same(twin, fresh) == set(fresh.state_dict())
    assert same(random_weights(model, seed=3), twin) == set(twin.state_dict())
    assert same(random_weights(model, seed=4), twin) != set(twin.state_dict())


@pytest.mark.parametrize("kind", BUILD)
def test_a_cascade_ends_with_random_weights_and_leaves_the_model_unchanged(kind):
    model, untouched, twin = build(kind), build(kind), random_weights(build(kind), seed=0)
    random = set()
    for stage, changed in cascade(model, seed=0):
        random.update(stages(model)[stage])
        assert same(changed, twin) >= random
        assert same(changed, model) >= set(model.state_dict()) - random
    assert same(changed, twin) == set(twin.state_dict())
    assert same(model, untouched) == set(model.state_dict())


def test_random_weights_keep_the_attention_implementation():
    model = build("vit")
    model.set_attn_implementation("eager")
    assert random_weights(model, seed=0).config._attn_implementation == "eager"


@pytest.mark.parametrize("method", ["rollout", "last_attention"])
def test_attention_maps_depend_on_every_stage_but_the_classifier(method):
    model = build("vit")
    model.set_attn_implementation("eager")
    pixels = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    trained = explain(model, pixels, method=method)
    for stage, changed in cascade(model, seed=0):
        equal = [
            (one.map == other.map).all()
            for one, other in zip(trained, explain(changed, pixels, method=method), strict=True)
        ]
        assert equal == [stage == "head"] * 2


@pytest.mark.parametrize("method", ["relevance", "gradient_rollout", "grad_cam", "integrated_gradients"])
def test_gradient_maps_depend_on_the_classifier(method):
    model = build("vit")
    model.set_attn_implementation("eager")
    pixels = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    trained = explain(model, pixels, method=method, target="FAKE")
    head = next(cascade(model, seed=0))[1]
    for one, other in zip(trained, explain(head, pixels, method=method, target="FAKE"), strict=True):
        assert (one.map != other.map).any()


class TestSanity:
    def study(self, model=None, **settings):
        return measure_sanity([model or tiny_vit()], noise(), samples=20, **settings)

    def test_attention_maps_do_not_depend_on_the_classifier(self):
        found = self.study()["models"]["vit"]
        assert found["stages"][0] == "head"
        assert found["stages"][-1] == "embeddings"
        for method in ("rollout", "last_attention"):
            first, *later = found["methods"][method]
            assert first["value"] == pytest.approx(1, abs=1e-12)
            assert later[-1]["value"] < 0.9
        assert found["methods"]["relevance"][0]["value"] < 0.99

    def test_every_method_has_one_mean_per_stage(self):
        study = self.study()
        found = study["models"]["vit"]
        assert {len(means) for means in found["methods"].values()} == {len(found["stages"])} == {6}
        assert all(mean["n"] + mean["undefined"] == 6 for means in found["methods"].values() for mean in means)
        assert study["class_methods"] == ["grad_cam", "gradient_rollout", "legrad", "libragrad", "relevance"]
        assert is_plain_json(study)

    def test_empty_maps_are_counted_as_undefined(self):
        silent = measure_sanity([stripe_finder()], plain_and_striped(8), samples=0)
        [head, _] = silent["models"]["cnn"]["methods"]["grad_cam"]
        assert (head["n"], head["undefined"]) in ((4, 4), (0, 8))  # plain images, and all where the new head says REAL

    def test_the_model_is_unchanged_and_the_same_seed_gives_the_same_numbers(self):
        model = tiny_vit("rollout", "relevance")
        before = model.detector.digest()
        first = self.study(model, seed=1)
        assert model.detector.digest() == before
        assert first == self.study(model, seed=1)
        assert first != self.study(model, seed=2)
