import copy
import pickle

import pytest
import torch
from small_models import OTHERS, TRANSFORMERS, logits, make, some_pixels

from realfake_hf.models import rounding
from realfake_hf.models.cpu import pack
from realfake_hf.models.rounding import in_bfloat16

needs_bfloat16 = pytest.mark.skipif(
    not torch.ops.mkldnn._is_mkldnn_bf16_supported(), reason="oneDNN has no bfloat16 here"
)


@pytest.fixture
def pixels():
    return some_pixels()


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
    monkeypatch.setattr(rounding, "SHORT", 0)
    many = logits(in_bfloat16(model), pixels)
    assert (few - many).abs().max() < 0.03 * many.abs().max() + 0.02
