"""Models of every kind that this project knows, small enough for tests, with random weights."""

import torch
from torch import Tensor
from transformers import (
    DeiTConfig,
    DeiTForImageClassification,
    DeiTForImageClassificationWithTeacher,
    Dinov2Config,
    Dinov2ForImageClassification,
    PreTrainedModel,
    SwinConfig,
    SwinForImageClassification,
    ViTConfig,
    ViTForImageClassification,
)

from realfake_hf import CifakeCnnConfig, CifakeCnnForImageClassification

_SMALL = {
    "image_size": 32, "patch_size": 8, "hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 2,
    "intermediate_size": 48, "initializer_range": 0.5, "num_labels": 2,
}  # fmt: skip
TRANSFORMERS = {  # whose blocks have query, key and value
    "vit": lambda: ViTForImageClassification(ViTConfig(**_SMALL)),
    "vit without biases": lambda: ViTForImageClassification(ViTConfig(**_SMALL, qkv_bias=False)),
    "vit with the other gelu": lambda: ViTForImageClassification(ViTConfig(**_SMALL, hidden_act="gelu_new")),
    "deit": lambda: DeiTForImageClassification(DeiTConfig(**_SMALL)),
    "distilled deit": lambda: DeiTForImageClassificationWithTeacher(DeiTConfig(**_SMALL)),
    "dinov2": lambda: Dinov2ForImageClassification(Dinov2Config(**_SMALL, layerscale_value=0.7)),
    "dinov2 with swiglu": lambda: Dinov2ForImageClassification(Dinov2Config(**_SMALL, use_swiglu_ffn=True)),
}
OTHERS = {
    "swin": lambda: SwinForImageClassification(
        SwinConfig(image_size=32, patch_size=4, embed_dim=16, depths=[1, 1], num_heads=[2, 2], window_size=4)
    ),
    "cnn": lambda: CifakeCnnForImageClassification(CifakeCnnConfig()),
}
MODELS = TRANSFORMERS | OTHERS


def make(name: str) -> PreTrainedModel:
    """A model of that name, the same each time, for evaluation."""
    torch.manual_seed(0)
    return MODELS[name]().eval()


def some_pixels() -> Tensor:
    """(5, 3, 32, 32) in [0, 1), the same each time."""
    return torch.rand(5, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def logits(model: PreTrainedModel, pixels: Tensor) -> Tensor:
    """What a model says where nobody asks for gradients."""
    with torch.inference_mode():
        return model(pixel_values=pixels).logits
