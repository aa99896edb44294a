"""Grad-CAM and integrated gradients equal references computed by hand, on feature maps and on tokens."""

from collections import OrderedDict

import numpy as np
import pytest
import torch
from torch import nn
from transformers import (
    ConvNextConfig,
    ConvNextForImageClassification,
    DeiTConfig,
    DeiTForImageClassification,
    SwinConfig,
    SwinForImageClassification,
    ViTConfig,
    ViTForImageClassification,
)

from realfake_hf import CifakeCnnConfig, CifakeCnnForImageClassification
from realfake_hf.attribution.maps import default_layer, grad_cam, integrated_gradients, log_odds
from realfake_hf.labels import id2label, label2id

WORDS = {"id2label": id2label(), "label2id": label2id()}
TOKENS = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 16}
STAGES = {"depths": [1, 2], "patch_size": 4}
BUILD = {
    "cnn": lambda: CifakeCnnForImageClassification(CifakeCnnConfig(num_filters=8)),
    "vit": lambda: ViTForImageClassification(ViTConfig(image_size=32, patch_size=8, **TOKENS, **WORDS)),
    "deit": lambda: DeiTForImageClassification(DeiTConfig(image_size=32, patch_size=8, **TOKENS, **WORDS)),
    "swin": lambda: SwinForImageClassification(
        SwinConfig(image_size=32, embed_dim=8, num_heads=[1, 2], window_size=4, **STAGES, **WORDS)
    ),
    "convnext": lambda: ConvNextForImageClassification(
        ConvNextConfig(num_stages=2, hidden_sizes=[8, 16], layer_scale_init_value=1.0, **STAGES, **WORDS)
    ),
}
LAYERS = {
    "cnn": ("features.3", (16, 16)),
    "vit": ("vit.layers.2.layernorm_before", (4, 4)),
    "deit": ("deit.layers.2.layernorm_before", (4, 4)),
    "swin": ("swin.encoder.layers.1.blocks.1.layernorm_before", (4, 4)),
    "convnext": ("convnext.encoder.stages.1", (4, 4)),
}


def build(kind):
    torch.manual_seed(0)
    model = BUILD[kind]().eval()
    if kind != "cnn":
        for weight in model.parameters():
            weight.data += 0.2 * torch.randn_like(weight)
    return model


def pixels(n=3, *, seed=1):
    return torch.randn(n, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


def seen_at(model, name, values):
    """A layer's output, and the gradient of each image's log-odds of FAKE with respect to it."""
    kept = []
    handle = model.get_submodule(name).register_forward_hook(lambda _module, _inputs, output: kept.append(output))
    logits = model(pixel_values=values).logits
    handle.remove()
    (gradient,) = torch.autograd.grad((logits[:, 1] - logits[:, 0]).sum(), kept[0])
    return kept[0].detach(), gradient


def by_hand(layer, gradient):
    """Grad-CAM from (batch, channels, h, w), a image and a channel at a time."""
    heat = torch.zeros(len(layer), *layer.shape[2:])
    for image in range(len(layer)):
        for channel in range(layer.shape[1]):
            heat[image] += gradient[image, channel].mean() * layer[image, channel]
    return heat.relu()


def on_grid(tokens, *, special, side):
    return tokens[:, special:].transpose(1, 2).reshape(len(tokens), -1, side, side)


@pytest.mark.parametrize(("kind", "special"), [("vit", 1), ("deit", 2), ("swin", 0)])
def test_the_map_of_tokens_is_that_of_their_grid_without_the_special_ones(kind, special):
    model, values = build(kind), pixels()
    layer, gradient = (on_grid(part, special=special, side=4) for part in seen_at(model, LAYERS[kind][0], values))
    torch.testing.assert_close(grad_cam(model, values, "FAKE").values, by_hand(layer, gradient), rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(grad_cam(model, values, "REAL").values, by_hand(layer, -gradient), rtol=1e-4, atol=1e-7)


def test_the_map_of_convnext_is_that_of_its_last_stage():
    model, values = build("convnext"), pixels()
    expected = by_hand(*seen_at(model, "convnext.encoder.stages.1", values))
    torch.testing.assert_close(grad_cam(model, values, "FAKE").values, expected, rtol=1e-4, atol=1e-7)


def test_the_map_of_the_cnn_is_that_of_its_last_convolution_after_relu_at_full_resolution():
    model, values = build("cnn"), pixels()
    first, last = model.features[0], model.features[3]
    relu_first = OrderedDict(a=first, b=nn.ReLU(), c=nn.MaxPool2d(2), d=last, e=nn.ReLU(), f=nn.MaxPool2d(2))
    found = grad_cam(model, values, "FAKE").values
    model.features = nn.Sequential(relu_first)  # the order of the paper, and the same logits
    expected = by_hand(*seen_at(model, "features.e", values))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-7)
    assert found.shape == (3, 16, 16)
    assert found.any()


@pytest.mark.parametrize("kind", BUILD)
def test_the_default_layer_is_named_in_the_result(kind):
    model = build(kind)
    name, grid = LAYERS[kind]
    found = grad_cam(model, pixels(2), "predicted")
    assert (default_layer(model), found.layer, tuple(found.values.shape)) == (name, name, (2, *grid))


@pytest.mark.parametrize(
    ("kind", "layer", "grid"),
    [
        ("cnn", "features.0", (32, 32)),
        ("cnn", "features.5", (8, 8)),
        ("vit", "vit.layers.0", (4, 4)),
        ("vit", "vit.embeddings", (4, 4)),
        ("vit", "vit.layers.1.attention", (4, 4)),
        ("vit", "vit.embeddings.patch_embeddings.projection", (4, 4)),
        ("swin", "swin.encoder.layers.0.blocks.0.layernorm_before", (8, 8)),
        ("convnext", "convnext.encoder.stages.0", (8, 8)),
    ],
)
def test_another_layer_can_be_named(kind, layer, grid):
    found = grad_cam(build(kind), pixels(2), "FAKE", layer=layer)
    assert (found.layer, tuple(found.values.shape[1:])) == (layer, grid)
    assert found.values.any()


def test_the_last_layer_of_a_vit_has_no_say_in_the_verdict_but_for_its_class_token():
    assert not grad_cam(build("vit"), pixels(), "FAKE", layer="vit.layers.2").values.any()


@pytest.mark.parametrize("kind", BUILD)
def test_looking_does_not_change_what_the_model_says(kind):
    model, values = build(kind), pixels()
    with torch.no_grad():
        expected = log_odds(model, values)
    for method in (grad_cam, integrated_gradients):
        torch.testing.assert_close(method(model, values, "FAKE").log_odds, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", BUILD)
def test_a_batch_is_its_images(kind):
    model, values = build(kind), pixels(5)
    for method, options in ((grad_cam, {}), (integrated_gradients, {"steps": 4})):
        one_by_one = torch.cat([method(model, image[None], "predicted", **options).values for image in values])
        torch.testing.assert_close(
            method(model, values, "predicted", **options).values, one_by_one, rtol=1e-4, atol=1e-6
        )


@pytest.mark.parametrize("kind", ["cnn", "vit"])
@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("method", [grad_cam, integrated_gradients])
def test_no_hooks_and_no_gradients_are_left_behind(kind, frozen, method):
    model, values = build(kind).requires_grad_(not frozen), pixels(2)
    found = method(model, values, "FAKE")
    assert not found.values.requires_grad
    assert not found.log_odds.requires_grad
    assert (values.requires_grad, values.grad) == (False, None)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert all(weight.grad is None and weight.requires_grad is not frozen for weight in model.parameters())
    assert not model.training


def test_hooks_are_removed_after_an_error_too():
    model = build("cnn")
    with pytest.raises(ValueError, match="expected pixel_values"):
        grad_cam(model, torch.zeros(1, 3, 48, 48), "FAKE")
    assert not any(module._forward_hooks for module in model.modules())


def test_a_layer_that_is_not_there_is_refused_with_the_nearest_names():
    with pytest.raises(ValueError, match=r"CifakeCnnForImageClassification; found 'feature\.3'.* features\.3, "):
        grad_cam(build("cnn"), pixels(1), "FAKE", layer="feature.3")


@pytest.mark.parametrize(
    ("kind", "layer", "found"),
    [
        ("cnn", "dense.0", r"the shape \(2, 64\)"),
        ("vit", "vit", "BaseModelOutputWithPooling"),
    ],
)
def test_a_layer_without_places_is_refused(kind, layer, found):
    with pytest.raises(ValueError, match=f"'{layer}', which returns {found}.*'{LAYERS[kind][0]}'"):
        grad_cam(build(kind), pixels(2), "FAKE", layer=layer)


def test_a_model_without_a_layer_in_space_is_refused():
    model = ViTForImageClassification(ViTConfig(image_size=8, patch_size=8, **TOKENS, **WORDS)).eval()
    with pytest.raises(ValueError, match=r"a grid whose cells.*found none in ViTForImageClassification"):
        default_layer(model)


@pytest.mark.parametrize("kind", ["cnn", "vit"])
def test_integrated_gradients_are_those_of_a_sum_by_hand(kind):
    model, values = build(kind), pixels()
    points, weights = np.polynomial.legendre.leggauss(8)
    mean = torch.zeros_like(values)
    for point, weight in zip(points, weights, strict=True):
        on_the_way = ((1 + point) / 2 * values).float().requires_grad_()  # from grey, which is 0
        (gradient,) = torch.autograd.grad(log_odds(model, on_the_way).sum(), on_the_way)
        mean += weight / 2 * gradient
    cells = (mean * values).abs().sum(dim=1).reshape(3, 4, 8, 4, 8).mean(dim=(2, 4))
    found = integrated_gradients(model, values, "FAKE", steps=8, grid=(4, 4)).values
    torch.testing.assert_close(found, cells, rtol=1e-4, atol=1e-6)
    assert torch.equal(found, integrated_gradients(model, values, "REAL", steps=8, grid=(4, 4)).values)


def test_a_grey_image_has_nothing_to_integrate():
    assert not integrated_gradients(build("cnn"), torch.zeros(1, 3, 32, 32), "FAKE").values.any()


@pytest.mark.parametrize("options", [{"steps": 0}, {"grid": (0, 4)}])
def test_no_steps_and_no_cells_are_refused(options):
    with pytest.raises(ValueError, match="at least one step and a grid with cells; found"):
        integrated_gradients(build("cnn"), pixels(1), "FAKE", **options)
