"""The head of a classifier is what depends on the number of labels, whatever a family names it."""

import json
from importlib.util import find_spec

import pytest
import torch
from safetensors.torch import save_file
from small_models import make
from tiny_classifiers import FAMILIES, pictures
from transformers import CLIPImageProcessorPil, ViTImageProcessorPil

from realfake_hf.detector import Detector
from realfake_hf.models.heads import backbone_parameters, collect_embeddings, head_modules
from realfake_hf.models.pretrained import load_pretrained
from realfake_hf.training.optimization import layer_depths, with_lora

LABELS = {
    "num_classes": 2,
    "label_names": ["REAL", "FAKE"],
    "id2label": {0: "REAL", 1: "FAKE"},
    "label2id": {"REAL": 0, "FAKE": 1},
}
REFUSED = {"imagegpt": "returns input_ids", "siglip2": "returns pixel_values (1, 16, 192)", "pp_lcnet": "found none"}
TWO_HEADS = {"deit, two heads", "levit, two heads", "swiftformer"}
EVERY = [name if name == "clip" else pytest.param(name, marks=pytest.mark.slow) for name in FAMILIES]
ACCEPTED = [name for name in EVERY if getattr(name, "values", [name])[0] not in REFUSED]
OTHER_LABELS = {
    "five labels": tuple("abcde"),
    "two other labels": ("cat", "dog"),
}


def in_head(model, name):
    return name.startswith(tuple(f"{head}." for head in head_modules(model)))


@pytest.mark.parametrize("name", EVERY)
def test_the_head_is_one_linear_layer_or_two_and_the_rest_is_the_backbone(name):
    model = FAMILIES[name].build()
    heads = head_modules(model)
    assert len(heads) == (2 if name in TWO_HEADS else 1)
    n_head = sum(len(list(head.parameters())) for head in heads.values())
    assert len(backbone_parameters(model)) == len(list(model.parameters())) - n_head
    assert all(len(value) == 2 for head in heads.values() for value in head.parameters())
    depths = layer_depths(model)
    assert {key for key, depth in depths.items() if depth == max(depths.values())} == {
        key for key in depths if in_head(model, key)
    }
    assert len(set(depths.values())) > 3


@pytest.mark.parametrize("name", EVERY)
def test_low_rank_updates_of_the_backbone_train_beside_the_whole_head(name):
    model = FAMILIES[name].build()
    heads = [f".{head}." for head in head_modules(model)]
    n_head = len(list(model.parameters())) - len(backbone_parameters(model))
    if not any(
        isinstance(module, torch.nn.Linear) for module in set(model.modules()) - set(head_modules(model).values())
    ):
        with pytest.raises(ValueError, match="expected linear layers in the backbone for --lora_rank"):
            with_lora(model, rank=2)
        return
    learner = with_lora(model, rank=2)
    trained = [key for key, value in learner.named_parameters() if value.requires_grad]
    of_head = [key for key in trained if any(head in key for head in heads)]
    assert len(of_head) == n_head
    assert all("lora_" in key for key in set(trained) - set(of_head))
    depths = layer_depths(learner)
    assert all(depths[key] == max(depths.values()) for key in of_head)
    assert set(learner.merge_and_unload().state_dict()) == set(FAMILIES[name].build().state_dict())


@pytest.mark.parametrize("labels", OTHER_LABELS.values(), ids=OTHER_LABELS)
@pytest.mark.parametrize("name", ACCEPTED)
def test_only_the_head_is_drawn_anew_for_other_labels(name, labels, tmp_path):
    family = FAMILIES[name]
    before = family.build(labels).state_dict()
    after, _ = load_pretrained(str(family.save(tmp_path / "model", labels)))
    state = after.state_dict()
    changed = {
        key for key in before if before[key].shape != state[key].shape or not torch.equal(before[key], state[key])
    }
    assert changed == {key for key in before if in_head(after, key)}
    assert after.config.id2label == {0: "REAL", 1: "FAKE"}


@pytest.mark.parametrize("name", ACCEPTED)
def test_only_the_rows_of_the_head_are_swapped_for_the_opposite_order(name, tmp_path):
    family = FAMILIES[name]
    before = family.build(("Fake", "Real")).state_dict()
    after, _ = load_pretrained(str(family.save(tmp_path / "model", ("Fake", "Real"))))
    for key, value in after.state_dict().items():
        assert torch.equal(value, before[key].flip(0) if in_head(after, key) else before[key]), key


@pytest.mark.parametrize("name", REFUSED)
def test_a_model_that_pixels_cannot_be_given_to_is_refused(name, tmp_path):
    folder = FAMILIES[name].save(tmp_path / "model")
    with pytest.raises(ValueError, match="expected a") as error:
        load_pretrained(str(folder))
    assert REFUSED[name] in str(error.value)


@pytest.mark.parametrize(("model_type", "package"), [("timm_wrapper", "timm"), ("dinat", "natten")])
def test_a_model_that_needs_another_package_is_refused_with_its_name(model_type, package, tmp_path):
    if find_spec(package):
        pytest.skip(f"{package} is installed")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type, **LABELS}))
    ViTImageProcessorPil().save_pretrained(tmp_path)
    save_file({"weight": torch.ones(1)}, tmp_path / "model.safetensors", metadata={"format": "pt"})
    for load in (load_pretrained, Detector.from_pretrained):
        with pytest.raises(ValueError, match=rf"{package}.* library"):
            load(str(tmp_path))


@pytest.mark.parametrize("name", ACCEPTED)
def test_an_embedding_is_the_input_of_the_last_head(name):
    family = FAMILIES[name]
    model = family.build()
    values = family.image_processor()([each.resize((64, 64)) for each in pictures(3)], return_tensors="pt")
    with torch.no_grad(), collect_embeddings(model) as embeddings:
        logits = model(**values).logits
    heads = list(head_modules(model).values())
    [embedding] = embeddings
    assert embedding.shape == (3, heads[-1].in_features)
    if len(heads) == 1:
        torch.testing.assert_close(heads[0](embedding).detach(), logits)


def test_finding_the_head_draws_no_random_number():
    model = make("vit")
    state = torch.get_rng_state()
    head_modules(model)
    assert torch.equal(torch.get_rng_state(), state)


def test_the_single_unit_of_a_cifake_cnn_is_its_head_and_changes_sign_for_the_opposite_order(tmp_path):
    model = make("cnn")
    assert list(head_modules(model)) == ["output"]
    pixels = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    expected = model(pixel_values=pixels).logits.softmax(1)
    model.config.id2label, model.config.label2id = {0: "FAKE", 1: "REAL"}, {"FAKE": 0, "REAL": 1}
    model.save_pretrained(tmp_path)
    CLIPImageProcessorPil(
        size={"height": 32, "width": 32}, do_center_crop=False, crop_size={"height": 32, "width": 32}
    ).save_pretrained(tmp_path)
    again, _ = load_pretrained(str(tmp_path))
    torch.testing.assert_close(again(pixel_values=pixels).logits.softmax(1), expected.flip(1))
