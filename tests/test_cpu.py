import copy
import pickle

import pytest
import torch
from small_models import MODELS, OTHERS, TRANSFORMERS, logits, make, some_pixels
from tiny_classifiers import FAMILIES, pictures
from torch import nn
from transformers import ViTForImageClassification

from realfake_hf.models import cpu
from realfake_hf.models.cpu import FusedGelu, PackedLinear, in_bfloat16, pack

needs_bfloat16 = pytest.mark.skipif(
    not torch.ops.mkldnn._is_mkldnn_bf16_supported(), reason="oneDNN has no bfloat16 here"
)


@pytest.fixture
def pixels():
    return some_pixels()


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_a_packed_model_says_what_it_said(name, attention, pixels):
    model = make(name)
    if name != "cnn":
        model.set_attn_implementation(attention)
    before, names = logits(model, pixels), list(model.state_dict())
    pack(model)
    assert any(isinstance(module, PackedLinear) for module in model.modules())
    assert torch.allclose(logits(model, pixels), before, atol=1e-5)
    assert list(model.state_dict()) == names


@pytest.mark.parametrize(("name", "fuses"), [("segformer", False), ("vit", True), ("dinov2", True), ("clip", False)])
def test_a_gelu_is_fused_only_if_it_follows_its_layer(name, fuses):
    family = FAMILIES[name]  # SegFormer has a convolution between them, and CLIP another activation
    model, values = family.build(), family.image_processor()(pictures(1), return_tensors="pt")["pixel_values"]
    before = logits(model, values)
    pack(model)
    assert any(isinstance(module, FusedGelu) for module in model.modules()) == fuses
    torch.testing.assert_close(logits(model, values), before, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["vit", "distilled deit", "cnn"])
def test_gradients_are_those_of_the_plain_model(name, pixels):
    model = make(name)
    model(pixel_values=pixels).logits[:, 1].sum().backward()
    before = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    model.zero_grad()
    logits(model, pixels)
    pack(model)
    model(pixel_values=pixels).logits[:, 1].sum().backward()
    assert all(torch.equal(parameter.grad, before[key]) for key, parameter in model.named_parameters())


@pytest.mark.parametrize(
    "change",
    [
        lambda model: nn.init.normal_(model.vit.layers[1].mlp.fc1.weight),
        lambda model: model.load_state_dict({k: 0.5 * v for k, v in model.state_dict().items()}),
        lambda model: model.to(torch.bfloat16).to(torch.float32),
        lambda model: setattr(model.vit.layers[1].mlp.fc1, "weight", nn.Parameter(torch.ones(48, 24))),
    ],
)
def test_weights_that_change_are_laid_out_anew(change, pixels):
    model = make("vit")
    pack(model)
    before = logits(model, pixels)
    with torch.no_grad():
        change(model)
    plain = make("vit")
    plain.load_state_dict(model.state_dict())
    after = logits(model, pixels)
    assert not torch.allclose(after, before, atol=1e-3)
    assert torch.allclose(after, logits(plain, pixels), atol=1e-4)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_copy_has_weights_of_its_own(copied, pixels):
    model = make("vit")
    pack(model)
    before = logits(model, pixels)
    twin = copied(model)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.mul_(0.5)
    assert torch.equal(logits(model, pixels), before)
    assert not torch.allclose(logits(twin, pixels), before, atol=1e-3)


def test_a_packed_model_is_saved_as_it_was(tmp_path, pixels):
    model = make("vit")
    before = logits(model, pixels)
    pack(model)
    model.save_pretrained(tmp_path)
    assert torch.equal(logits(ViTForImageClassification.from_pretrained(tmp_path), pixels), before)


def test_bfloat16_is_left_to_pytorch(pixels):
    plain, model = make("vit").bfloat16(), make("vit")
    pack(model)
    assert torch.equal(logits(model.bfloat16(), pixels.bfloat16()), logits(plain, pixels.bfloat16()))


def test_without_onednn_a_model_stays_as_it_is(monkeypatch):
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    model = make("vit")
    pack(model)
    assert not any(isinstance(module, PackedLinear) for module in model.modules())


def packed(name):
    model = make(name)
    pack(model)
    return model


@needs_bfloat16
@pytest.mark.parametrize("name", TRANSFORMERS)
def test_a_rounding_copy_says_nearly_the_same_and_leaves_the_model_alone(name, pixels):
    model = packed(name)
    before, rough = logits(model, pixels), in_bfloat16(model)
    found = logits(rough, pixels)
    assert found.dtype == torch.float32
    assert 0 < (found - before).abs().max() < 0.03 * before.abs().max() + 0.02
    assert torch.equal(logits(model, pixels), before)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), rough.parameters(), strict=True))
    assert list(model.state_dict()) == list(rough.state_dict())


@needs_bfloat16
@pytest.mark.parametrize("name", ["vit", "distilled deit", "dinov2"])
def test_a_rounding_copy_is_the_model_where_somebody_asks_for_gradients(name, pixels):
    model = packed(name)
    rough = in_bfloat16(model)
    assert torch.equal(rough(pixel_values=pixels).logits, model(pixel_values=pixels).logits)


@needs_bfloat16
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
@pytest.mark.parametrize("name", ["vit", "dinov2"])
def test_a_copy_of_a_rounding_copy_says_the_same(name, copied, pixels):
    rough = in_bfloat16(packed(name))
    before = logits(rough, pixels)
    assert torch.equal(logits(copied(rough), pixels), before)


@pytest.mark.parametrize("name", OTHERS)
def test_a_copy_of_another_model_does_not_round(name, pixels):
    model = packed(name)
    assert torch.equal(logits(in_bfloat16(model), pixels), logits(model, pixels))


@needs_bfloat16
@pytest.mark.parametrize("name", TRANSFORMERS)
def test_few_tokens_and_many_are_attended_to_alike(name, pixels, monkeypatch):
    model = packed(name)
    few = logits(in_bfloat16(model), pixels)
    monkeypatch.setattr(cpu, "SHORT", 0)
    many = logits(in_bfloat16(model), pixels)
    assert (few - many).abs().max() < 0.03 * many.abs().max() + 0.02
