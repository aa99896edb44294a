"""Grids, effects and pooling are read from any classifier of transformers, and refusals of methods are true."""

from dataclasses import replace

import pytest
import torch
from tiny_classifiers import FAMILIES, pictures

from realfake_hf.attribution.explain import FUNCTIONS, default_method, explain, fitting_methods
from realfake_hf.attribution.layout import attention_function, first_tensor, layout_of, read_cells
from realfake_hf.attribution.maps import default_layer
from realfake_hf.attribution.methods import ATTENTION_METHODS, METHODS

POOLING = {  # what the classifier reads: weights of special tokens, and of all patches together
    "vit": ([1], 0),
    "vit_msn": ([1], 0),
    "deit": ([1, 0], 0),
    "deit, two heads": ([0.5, 0.5], 0),
    "beit": ([0], 1),
    "clip": ([0], 1),
    "metaclip_2": ([0], 1),
    "siglip": ([], 1),
    "ijepa": ([], 1),
    "dinov2": ([0.5], 0.5),
    "dinov2_with_registers": ([0.5, 0, 0, 0, 0], 0.5),
}
WINDOWS = {"swin", "swinv2", "donut-swin", "hiera"}
MERGED = {"pvt", "pvt_v2", "segformer", "perceiver, learned", "perceiver, Fourier", "perceiver, convolution"}
SEQUENCES = {"imagegpt", "siglip2"}  # whose pixel values are no images
EXPLAINED = sorted(FAMILIES.keys() - SEQUENCES - {"pp_lcnet"})  # which returns no logits
LAYERS = {  # that Grad-CAM reads, and their grids
    "clip": ("vision_model.encoder.layers.1.layer_norm1", (4, 4)),
    "siglip": ("vision_model.encoder.layers.1.layer_norm1", (4, 4)),
    "ijepa": ("ijepa.layers.1.layernorm_before", (4, 4)),
    "dinov2": ("dinov2.encoder.layer.1.norm1", (4, 4)),
    "data2vec-vision": ("data2vec_vision.encoder.layer.1.layernorm_before", (4, 4)),
    "swinv2": ("swinv2.encoder.layers.1.blocks.0", (8, 8)),
    "segformer": ("segformer.stages.3.blocks.0.layernorm_before", (2, 2)),
    "pvt": ("pvt.encoder.block.3.0.layer_norm_1", (2, 2)),
    "mobilevit": ("mobilevit.conv_1x1_exp", (2, 2)),
    "efficientnet": ("efficientnet.encoder.top_activation", (8, 8)),
    "resnet": ("resnet.encoder.stages.3", (2, 2)),
}


def pixels(name, n=2):
    return FAMILIES[name].image_processor()(pictures(n)[:1] * n, return_tensors="pt")["pixel_values"]


def built(name, **settings):
    family = FAMILIES[name]
    return replace(family, settings={**family.settings, **settings}).build()


def reason(name):
    """Why attention methods are refused, None if they are not."""
    if name in POOLING:
        return None
    if name == "data2vec-vision":
        return "loaded with attn_implementation='eager'"
    return "inside windows" if name in WINDOWS else "merged between layers" if name in MERGED else "none of its layers"


@pytest.mark.parametrize("name", POOLING)
def test_the_tokens_that_a_classifier_reads_are_found(name):
    special, patches = POOLING[name]
    layout = layout_of(FAMILIES[name].build(), pixels(name))
    expected = torch.tensor([*special, *[patches / 16] * 16], dtype=torch.float32)
    torch.testing.assert_close(layout.pooling, expected, rtol=1e-4, atol=0)
    assert (layout.grid, layout.refusal, len(layout.attention)) == ((4, 4), None, 2)


def test_the_weights_of_the_classifier_do_not_matter():
    model = FAMILIES["dinov2"].build()
    torch.nn.init.zeros_(model.classifier.weight)
    layout, other = layout_of(model), layout_of(FAMILIES["dinov2"].build())
    torch.testing.assert_close(layout.pooling, other.pooling)
    assert layout.last == other.last


def test_data2vec_has_attention_if_loaded_with_it():
    model = built("data2vec-vision", attn_implementation="eager")
    layout = layout_of(model, pixels("data2vec-vision"))
    torch.testing.assert_close(layout.pooling, torch.tensor([0, *[1 / 16] * 16]))
    assert default_method(model) == "relevance"


@pytest.mark.parametrize("name", LAYERS)
def test_grad_cam_reads_the_input_of_the_last_attention_or_the_last_grid(name):
    model, values = FAMILIES[name].build(), pixels(name)
    layout = layout_of(model, values)
    assert (default_layer(model, values), layout.layers[layout.last]) == LAYERS[name]


def test_grids_follow_the_size_of_the_images():
    model = FAMILIES["dinov2"].build()
    assert layout_of(model, torch.randn(1, 3, 32, 48)).grid == (4, 6)
    assert layout_of(model, torch.randn(1, 3, 48, 32)).grid == (6, 4)
    [wide] = explain(FAMILIES["resnet"].build(), torch.randn(1, 3, 64, 96), method="grad_cam")
    assert wide.map.shape == (2, 3)


def attend_to_red(model):
    """Let each token attend only to red patches, whose values alone are not 0."""
    for name, weight in model.named_parameters():
        if "norm" not in name:
            weight.data.zero_()
        if "patch_embedding.weight" in name:
            weight.data[0, 0] = 1
        if "q_proj.bias" in name:
            weight.data.fill_(3)
        if "k_proj.weight" in name:
            weight.data[:, 0] = 1
        if "v_proj.weight" in name or "out_proj.weight" in name:
            weight.data = 0.1 * torch.eye(len(weight))
        if name == "classifier.weight":
            weight.data[1, 0] = 1
    return model


@pytest.mark.parametrize("method", sorted(ATTENTION_METHODS))
@pytest.mark.parametrize("name", ["clip", "siglip"])
def test_the_only_patch_that_matters_is_the_hottest_of_pooled_maps(name, method):
    model, values = attend_to_red(FAMILIES[name].build()), torch.zeros(16, 3, 32, 32)
    for patch, image in enumerate(values):
        row, column = 8 * (patch // 4), 8 * (patch % 4)
        image[0, row : row + 8, column : column + 8] = 1
    with attention_function(model, "eager"):
        maps = [FUNCTIONS[method](model, values, target).values.flatten(1) for target in ("FAKE", "REAL")]
    heat = max(maps, key=lambda each: each.std())  # red speaks for one label
    assert heat.argmax(dim=1).tolist() == list(range(16))


@pytest.mark.parametrize("name", sorted(SEQUENCES))
def test_a_model_whose_pixels_are_no_image_is_refused_by_every_method(name):
    model = FAMILIES[name].build()
    for method in METHODS:
        with pytest.raises(ValueError, match=f"pixel_values .*found {type(model).__name__}"):
            explain(model, torch.zeros(1, 3, 32, 32), method=method)


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPLAINED)
def test_each_method_gives_a_map_or_says_truly_why_not(name):
    model, values = FAMILIES[name].build(), pixels(name)
    layout, before, fitting = layout_of(model, values), model.config._attn_implementation, fitting_methods(model)
    reasons = dict.fromkeys(ATTENTION_METHODS, reason(name)) if reason(name) else {}
    if name == "perceiver, Fourier":
        reasons["grad_cam"] = "found none"
    assert fitting == tuple(method for method in METHODS if method not in reasons)
    assert default_method(model) in fitting
    for method in METHODS:
        options = {"steps": 1} if method == "integrated_gradients" else {}
        if method in reasons:
            with pytest.raises(ValueError, match=reasons[method]) as refusal:
                explain(model, values, method=method, options=options)
            assert type(model).__name__ in str(refusal.value)
            continue
        one, other = explain(model, values, method=method, target="FAKE", options=options)
        grids = {"grad_cam": layout.last and layout.layers[layout.last], "integrated_gradients": (8, 8)}
        assert one.map.shape == grids.get(method, layout.grid)
        torch.testing.assert_close(torch.from_numpy(one.map), torch.from_numpy(other.map), rtol=0, atol=1e-3)
    assert model.config._attn_implementation == before
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def read(model, name, values):
    """The cells of a layer: (batch, channels, grid_h, grid_w)."""
    outputs = []
    hook = model.get_submodule(name).register_forward_hook(lambda _module, _inputs, output: outputs.append(output))
    with torch.no_grad():
        model(pixel_values=values)
    hook.remove()
    return read_cells(first_tensor(outputs[0]), layout_of(model, values).layers[name])


IN_ORDER = sorted(POOLING.keys() | WINDOWS | {"data2vec-vision", "focalnet", "pvt", "pvt_v2", "segformer"})


@pytest.mark.slow
@pytest.mark.parametrize("name", [*IN_ORDER, "hiera, two last layers"])
def test_the_cells_of_tokens_lie_where_an_image_changes(name):
    model = built("hiera", depths=[1, 1, 1, 2]) if name == "hiera, two last layers" else FAMILIES[name].build()
    height, width = pixels(name.partition(",")[0]).shape[2:]
    coarse = torch.randn(4, 3, 9, 9, generator=torch.Generator().manual_seed(0))
    values = torch.nn.functional.interpolate(coarse, size=(height, width), mode="bilinear")
    layer = default_layer(model, values)
    before = read(model, layer, values)
    for top, left in ((True, True), (True, False), (False, True), (False, False)):
        changed = values.clone()
        rows, columns = (
            slice(None, n // 2) if first else slice(n // 2, None) for n, first in ((height, top), (width, left))
        )
        changed[:, :, rows, columns] *= -1
        change = (read(model, layer, changed) - before).norm(dim=1).sum(dim=0)
        quarters = torch.nn.functional.adaptive_avg_pool2d(change[None], 2)[0]
        assert int(quarters.argmax()) == 2 * (not top) + (not left)
