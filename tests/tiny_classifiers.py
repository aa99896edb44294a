"""A tiny classifier with random weights for each class that transformers registers for image classification."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
import transformers
from PIL import Image
from torch.nn.modules.batchnorm import _BatchNorm
from transformers import BaseImageProcessor, PreTrainedModel

LABELS: Final = ("REAL", "FAKE")


@dataclass(frozen=True)
class Family:
    """One class of transformers, small enough for tests.

    Attributes:
        model: name of the model class.
        settings: of its configuration, which is named after the class.
        processor: name of its image processor without "ImageProcessorPil", and the settings of that.
    """

    model: str
    settings: Mapping[str, Any]
    processor: tuple[str, Mapping[str, Any]]

    def config(self, labels: Sequence[str] = LABELS) -> Any:
        """Its configuration for these labels."""
        name = self.model.partition("ForImage")[0]
        kind = getattr(transformers, f"{name}Config")
        names = dict(enumerate(labels))
        config = kind(**self.settings, id2label=names, label2id={label: index for index, label in names.items()})
        config.num_labels = len(labels)  # which PvtConfig does not count
        return config

    def build(self, labels: Sequence[str] = LABELS, *, seed: int = 0) -> PreTrainedModel:
        """Such a model in eval mode, the same for the same seed."""
        torch.manual_seed(seed)
        model: PreTrainedModel = getattr(transformers, self.model)(self.config(labels)).eval()
        _draw(model)
        _settle(model, self.image_processor())
        return model

    def image_processor(self) -> BaseImageProcessor:
        """Its image processor."""
        name, settings = self.processor
        processor: BaseImageProcessor = getattr(transformers, f"{name}ImageProcessorPil")(**settings)
        return processor

    def save(self, folder: Path, labels: Sequence[str] = LABELS, *, seed: int = 0) -> Path:
        """Write model and image processor to a folder as for the Hub, and return it."""
        self.build(labels, seed=seed).save_pretrained(folder)
        self.image_processor().save_pretrained(folder)
        return folder


def pictures(n: int = 4) -> list[Image.Image]:
    """Pictures of several sizes, the same each time: random colours in large squares."""
    random = np.random.default_rng(0)
    sizes = [(70, 50), (37, 91), (64, 64), (41, 33), (131, 75)]
    small = [Image.fromarray(random.integers(256, size=(5, 7, 3), dtype=np.uint8)) for _ in range(n)]
    return [each.resize(sizes[index % len(sizes)]) for index, each in enumerate(small)]


def _draw(model: PreTrainedModel) -> None:
    """Draw weights of a size at which images matter to the logits (He et al., 2015)."""
    for name, value in model.state_dict().items():
        if value.is_floating_point() and value.ndim > 1:
            value.normal_(std=value[0].numel() ** -0.5)
        elif name.endswith("bias"):
            value.normal_(std=0.1)
        elif name.endswith(("lambda1", "gamma", "lambda_1", "lambda_2")):
            value.fill_(0.5)


@torch.no_grad()
def _settle(model: PreTrainedModel, processor: BaseImageProcessor) -> None:
    """Give batch norms the statistics of some pictures, as a training does."""
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    if not norms:
        return
    size = processor(Image.new("RGB", (64, 64)), return_tensors="pt")["pixel_values"].shape[2:]
    values = processor([each.resize(tuple(size[::-1])) for each in pictures(16)], return_tensors="pt")
    before = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
        norm.weight.uniform_(0.5, 1.5)  # some families begin near zero
    model.train()(**values)
    model.eval()
    for norm, momentum in zip(norms, before, strict=True):
        norm.momentum = momentum


def _square(size: int) -> dict[str, Any]:
    return {"size": {"height": size, "width": size}}


def _cropped(edge: int, crop: int) -> dict[str, Any]:
    return {"size": {"shortest_edge": edge}, "crop_size": {"height": crop, "width": crop}}


_BLOCKS = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 32}
_VIT = {"image_size": 32, "patch_size": 8, **_BLOCKS}
_DINOV2 = {name: value for name, value in _VIT.items() if name != "intermediate_size"}
_SWIN = {"image_size": 32, "patch_size": 2, "embed_dim": 8, "depths": [1, 2], "num_heads": [1, 2], "window_size": 4}
_STAGES = {"hidden_sizes": [8, 12, 16, 24], "depths": [1, 2, 1, 1]}
_PYRAMID = {**_STAGES, "num_attention_heads": [1, 2, 2, 3], "mlp_ratios": [2, 2, 2, 2]}
_TOWERS = {
    "vision_config": _VIT,
    "text_config": {**_BLOCKS, "vocab_size": 30, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2},
}
_PERCEIVER = {
    "num_latents": 4, "d_latents": 16, "num_self_attends_per_block": 2, "num_self_attention_heads": 2,
    "num_cross_attention_heads": 1, "image_size": 32,
}  # fmt: skip
_LEVIT = {
    "image_size": 64, "hidden_sizes": [16, 24, 32], "num_attention_heads": [1, 2, 2], "depths": [1, 2, 1],
    "key_dim": [8, 8, 8],
}  # fmt: skip
_HGNET = {
    "embedding_size": 8, "depths": [1, 1, 1, 1], "hidden_sizes": [8, 12, 16, 24], "stem_channels": [3, 4, 8],
    "stage_in_channels": [8, 8, 12, 16], "stage_mid_channels": [4, 4, 8, 8], "stage_out_channels": [8, 12, 16, 24],
    "stage_num_blocks": [1, 2, 1, 1], "stage_numb_of_layers": [2, 2, 2, 2],
}  # fmt: skip
_EFFICIENTNET = {
    "image_size": 64, "width_coefficient": 0.5, "depth_coefficient": 0.5, "hidden_dim": 640, "kernel_sizes": [3, 5, 3],
    "in_channels": [32, 16, 24], "out_channels": [16, 24, 40], "strides": [1, 2, 2], "num_block_repeats": [1, 2, 2],
    "expand_ratios": [1, 2, 2],
}  # fmt: skip
_IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}

FAMILIES: Final[Mapping[str, Family]] = {
    "beit": Family("BeitForImageClassification", _VIT, ("Beit", _square(32))),
    "bit": Family(
        "BitForImageClassification", {**_STAGES, "embedding_size": 8, "num_groups": 4}, ("Bit", _cropped(72, 64))
    ),
    "clip": Family("CLIPForImageClassification", _TOWERS, ("CLIP", _cropped(36, 32))),
    "convnext": Family("ConvNextForImageClassification", _STAGES, ("ConvNext", {"size": {"shortest_edge": 64}})),
    "convnextv2": Family("ConvNextV2ForImageClassification", _STAGES, ("ConvNext", {"size": {"shortest_edge": 64}})),
    "cvt": Family(
        "CvtForImageClassification",
        {"embed_dim": [8, 12, 16], "num_heads": [1, 2, 2], "depth": [1, 2, 3]},
        ("ConvNext", {"size": {"shortest_edge": 64}}),
    ),
    "data2vec-vision": Family("Data2VecVisionForImageClassification", _VIT, ("Beit", _square(32))),
    "deit": Family(
        "DeiTForImageClassification", _VIT, ("DeiT", {**_square(36), "crop_size": {"height": 32, "width": 32}})
    ),
    "deit, two heads": Family(
        "DeiTForImageClassificationWithTeacher",
        _VIT,
        ("DeiT", {**_square(36), "crop_size": {"height": 32, "width": 32}}),
    ),
    "dinov2": Family("Dinov2ForImageClassification", _DINOV2, ("Bit", _cropped(36, 32))),
    "dinov2_with_registers": Family("Dinov2WithRegistersForImageClassification", _DINOV2, ("Bit", _cropped(36, 32))),
    "donut-swin": Family("DonutSwinForImageClassification", _SWIN, ("Donut", _square(32))),
    "efficientnet": Family(
        "EfficientNetForImageClassification",
        _EFFICIENTNET,
        ("EfficientNet", {**_square(64), "rescale_offset": True, "rescale_factor": 1 / 127.5, "include_top": True}),
    ),
    "focalnet": Family(
        "FocalNetForImageClassification",
        {"image_size": 64, "embed_dim": 8, "depths": [1, 2, 1, 1], "hidden_sizes": [8, 16, 32, 64]},
        ("Bit", _cropped(72, 64)),
    ),
    "hgnet_v2": Family("HGNetV2ForImageClassification", _HGNET, ("ViT", _square(64))),
    "hiera": Family(
        "HieraForImageClassification",
        {
            "image_size": [64, 64],
            "embed_dim": 8,
            "depths": [1, 2, 1, 1],
            "num_heads": [1, 1, 2, 2],
            "masked_unit_size": [8, 8],
        },
        ("Bit", _cropped(72, 64)),
    ),
    "ijepa": Family("IJepaForImageClassification", _VIT, ("ViT", _square(32))),
    "imagegpt": Family(
        "ImageGPTForImageClassification",
        {"vocab_size": 17, "n_positions": 64, "n_embd": 16, "n_layer": 2, "n_head": 2},
        ("ImageGPT", {**_square(8), "clusters": [[level / 8 - 1] * 3 for level in range(16)]}),
    ),
    "levit": Family("LevitForImageClassification", _LEVIT, ("Levit", _cropped(64, 64))),
    "levit, two heads": Family("LevitForImageClassificationWithTeacher", _LEVIT, ("Levit", _cropped(64, 64))),
    "metaclip_2": Family("MetaClip2ForImageClassification", _TOWERS, ("CLIP", _cropped(36, 32))),
    "mobilenet_v1": Family(
        "MobileNetV1ForImageClassification",
        {"image_size": 64, "depth_multiplier": 0.1, "classifier_dropout_prob": 0.1},
        ("MobileNetV1", _cropped(72, 64)),
    ),
    "mobilenet_v2": Family(
        "MobileNetV2ForImageClassification",
        {"image_size": 64, "depth_multiplier": 0.1, "classifier_dropout_prob": 0.1},
        ("MobileNetV2", _cropped(72, 64)),
    ),
    "mobilevit": Family(
        "MobileViTForImageClassification",
        {
            "image_size": 64,
            "hidden_sizes": [16, 16, 24],
            "neck_hidden_sizes": [8, 8, 12, 16, 16, 24, 32],
            "num_attention_heads": 2,
        },
        ("MobileViT", _cropped(72, 64)),
    ),
    "mobilevitv2": Family(
        "MobileViTV2ForImageClassification",
        {"image_size": 64, "width_multiplier": 0.125, "n_attn_blocks": [1, 1, 1], "base_attn_unit_dims": [64, 64, 64]},
        ("MobileViT", _cropped(72, 64)),
    ),
    "perceiver, learned": Family(
        "PerceiverForImageClassificationLearned",
        _PERCEIVER,
        ("Perceiver", {**_square(32), "crop_size": {"height": 32, "width": 32}}),
    ),
    "perceiver, Fourier": Family(
        "PerceiverForImageClassificationFourier",
        {**_PERCEIVER, "image_size": 64},
        ("Perceiver", {**_square(64), "crop_size": {"height": 64, "width": 64}}),
    ),
    "perceiver, convolution": Family(
        "PerceiverForImageClassificationConvProcessing",
        {**_PERCEIVER, "image_size": 64},
        ("Perceiver", {**_square(64), "crop_size": {"height": 64, "width": 64}}),
    ),
    "poolformer": Family("PoolFormerForImageClassification", _STAGES, ("PoolFormer", _cropped(64, 64))),
    "pp_lcnet": Family(
        "PPLCNetForImageClassification",
        {"scale": 0.125, "stem_channels": 8, "class_expand": 32},
        ("ViT", {**_square(64), **_IMAGENET}),
    ),
    "pvt": Family("PvtForImageClassification", {**_PYRAMID, "image_size": 64}, ("Pvt", _square(64))),
    "pvt_v2": Family("PvtV2ForImageClassification", {**_PYRAMID, "image_size": 64}, ("Pvt", _square(64))),
    "regnet": Family(
        "RegNetForImageClassification",
        {**_STAGES, "embedding_size": 8, "groups_width": 4},
        ("ConvNext", {"size": {"shortest_edge": 64}}),
    ),
    "resnet": Family(
        "ResNetForImageClassification", {**_STAGES, "embedding_size": 8}, ("ConvNext", {"size": {"shortest_edge": 64}})
    ),
    "segformer": Family(
        "SegformerForImageClassification", {**_PYRAMID, "decoder_hidden_size": 16}, ("Segformer", _square(64))
    ),
    "siglip": Family("SiglipForImageClassification", _TOWERS, ("Siglip", _square(32))),
    "siglip2": Family(
        "Siglip2ForImageClassification",
        {"vision_config": {**_BLOCKS, "patch_size": 8, "num_patches": 16}, "text_config": _TOWERS["text_config"]},
        ("Siglip2", {"patch_size": 8, "max_num_patches": 16}),
    ),
    "swiftformer": Family(
        "SwiftFormerForImageClassification",
        {"depths": [1, 2, 1, 1], "embed_dims": [8, 12, 16, 24]},
        ("ViT", _square(64)),
    ),
    "swin": Family("SwinForImageClassification", _SWIN, ("ViT", _square(32))),
    "swinv2": Family("Swinv2ForImageClassification", _SWIN, ("ViT", _square(32))),
    "textnet": Family(
        "TextNetForImageClassification",
        {"image_size": [64, 64], "stem_out_channels": 8, "hidden_sizes": [8, 8, 12, 16, 24]},
        ("TextNet", {"size": {"shortest_edge": 64}}),
    ),
    "vit": Family("ViTForImageClassification", _VIT, ("ViT", _square(32))),
    "vit_msn": Family("ViTMSNForImageClassification", _VIT, ("ViT", {**_square(32), **_IMAGENET})),
}
EXCLUDED: Final[Mapping[str, str]] = {
    "DinatForImageClassification": "needs the package natten",
    "ShieldGemma2ForImageClassification": "a language model that answers in words, and takes text with the image",
    "TimmWrapperForImageClassification": "needs the package timm, with which it predicts and is not fine-tuned",
}
