"""Models and samples for tests of the explanation study: a CNN that sees nothing but stripes, and random models."""

import json
from dataclasses import replace

import numpy as np
import torch
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessorPil

from realfake_hf import CifakeCnnConfig, CifakeCnnForImageClassification
from realfake_hf.attribution.explain import fitting_methods
from realfake_hf.detector import Detector
from realfake_hf.explain_study.maps import Sample, StudyModel
from realfake_hf.labels import id2label, label2id


def study_model(name, model, methods=None):
    detector = Detector(model, ViTImageProcessorPil(size={"height": 32, "width": 32}))
    return StudyModel(name=name, place=name, detector=detector, methods=methods or fitting_methods(model))


def stripe_finder():
    """A CNN that calls an image FAKE by its amount of vertical stripes; plain areas of any colour leave it at 0.05."""
    model = CifakeCnnForImageClassification(CifakeCnnConfig(num_filters=1, num_conv_layers=1, num_dense_layers=0))
    with torch.no_grad():
        model.features[0].weight.zero_()
        model.features[0].weight[0, :, 1] = torch.tensor([-0.25, 0.5, -0.25])
        model.features[0].bias.fill_(-1.0)
        model.output.weight.fill_(8 / 256)
        model.output.bias.fill_(-3.0)
    return study_model("cnn", model, ("grad_cam",))


def tiny_vit(*methods):
    """A ViT with random weights, explained by some or by all of its methods."""
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 16}
    words = {"id2label": id2label(), "label2id": label2id()}
    model = ViTForImageClassification(ViTConfig(image_size=32, patch_size=8, **shape, **words))
    for weight in model.parameters():
        weight.data += 0.2 * torch.randn_like(weight)
    vit = study_model("vit", model)
    return replace(vit, methods=methods) if methods else vit


def sample_of(images, is_fake, *, right=True, content="cat"):
    n = len(images)
    names = (content,) * n if isinstance(content, str) else tuple(content)
    return Sample(
        images=images,
        is_fake=np.asarray(is_fake),
        content=names,
        ids=tuple(map(str, range(n))),
        is_right={name: np.broadcast_to(right, n) for name in ("cnn", "vit")},
        stratum=np.asarray(is_fake, dtype=np.intp),
        weight=np.ones(n),
    )


def plain_and_striped(n=24, *, where=np.s_[:, :]):
    """Images of which half are plain grey, REAL, and the others have stripes in some place, FAKE."""
    images = np.full((n, 32, 32, 3), 128, dtype=np.uint8)
    is_fake = np.arange(n) % 2 == 1
    striped = np.broadcast_to(np.array([0, 255] * 16, dtype=np.uint8)[:, None], (32, 32, 3))
    for row in np.flatnonzero(is_fake):
        images[row][where] = striped[where]
    return sample_of(images, is_fake)


def noise(n=6):
    return sample_of(np.random.default_rng(0).integers(0, 256, (n, 32, 32, 3), dtype=np.uint8), np.arange(n) % 2 == 1)


def is_plain_json(study):
    return json.loads(json.dumps(study, allow_nan=False)) == study
