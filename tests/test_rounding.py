import copy
import pickle

import pytest
import torch
from transformers import (
    DeiTConfig,
    DeiTForImageClassificationWithTeacher,
    Dinov2Config,
    Dinov2ForImageClassification,
    SwinConfig,
    SwinForImageClassification,
    ViTConfig,
    ViTForImageClassification,
)

from realfake_hf import CifakeCnnConfig, CifakeCnnForImageClassification
from realfake_hf.models.packed import pack
from realfake_hf.models.rounding import in_bfloat16

needs_bfloat16 = pytest.mark.skipif(
    not torch.ops.mkldnn._is_mkldnn_bf16_supported(), reason="oneDNN has no bfloat16 here"
)
SMALL = {
    "image_size": 32, "patch_size": 8, "hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 2,
    "intermediate_size": 48, "initializer_range": 0.5, "num_labels": 2,
}  # fmt: skip
ROUNDING = {
    "vit": lambda: ViTForImageClassification(ViTConfig(**SMALL)),
    "vit without biases": lambda: ViTForImageClassification(ViTConfig(**SMALL, qkv_bias=False)),
    "vit with the other gelu": lambda: ViTForImageClassification(ViTConfig(**SMALL, hidden_act="gelu_new")),
    "distilled deit": lambda: DeiTForImageClassificationWithTeacher(DeiTConfig(**SMALL)),
    "dinov2": lambda: Dinov2ForImageClassification(Dinov2Config(**SMALL, layerscale_value=0.7)),
    "dinov2 with swiglu": lambda: Dinov2ForImageClassification(Dinov2Config(**SMALL, use_swiglu_ffn=True)),
}
OTHERS = {
    "swin": lambda: SwinForImageClassification(
        SwinConfig(image_size=32, patch_size=4, embed_dim=16, depths=[1, 1], num_heads=[2, 2], window_size=4)
    ),
    "cnn": lambda: CifakeCnnForImageClassification(CifakeCnnConfig()),
}


@pytest.fixture
def pixels():
    return torch.rand(5, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def make(name):
    torch.manual_seed(0)
    model = (ROUNDING | OTHERS)[name]().eval()
    pack(model)
    return model


def logits(model, pixels):
    with torch.inference_mode():
        return model(pixel_values=pixels).logits


@needs_bfloat16
@pytest.mark.parametrize("name", ROUNDING)
def test_a_rounding_copy_says_nearly_the_same_and_leaves_the_model_alone(name, pixels):
    model = make(name)
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
    model = make(name)
    rough = in_bfloat16(model)
    assert torch.equal(rough(pixel_values=pixels).logits, model(pixel_values=pixels).logits)


@needs_bfloat16
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
@pytest.mark.parametrize("name", ["vit", "dinov2"])
def test_a_copy_of_a_rounding_copy_says_the_same(name, copied, pixels):
    rough = in_bfloat16(make(name))
    before = logits(rough, pixels)
    assert torch.equal(logits(copied(rough), pixels), before)


@pytest.mark.parametrize("name", OTHERS)
def test_a_copy_of_another_model_does_not_round(name, pixels):
    model = make(name)
    assert torch.equal(logits(in_bfloat16(model), pixels), logits(model, pixels))
