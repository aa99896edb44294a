"""Maps of a classifier of several views, computed for each view and stitched over the whole image."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from test_multiview import TOWER, build

from realfake_hf.attribution.attention import attention_rollout, gradient_rollout, relevance
from realfake_hf.attribution.explain import explain
from realfake_hf.attribution.layout import layout_of
from realfake_hf.attribution.libragrad import contributions
from realfake_hf.attribution.methods import METHODS
from realfake_hf.attribution.stitching import MAX_CELLS, MAX_WINDOWS, combine, stitch, stitched_grid, tile
from realfake_hf.detector import Detector
from realfake_hf.metrics.operating_point import Band, Limits, OperatingPoint
from realfake_hf.metrics.out_of_distribution import Familiarity
from realfake_hf.models import MultiViewForImageClassification, MultiViewImageProcessor
from realfake_hf.models.view_maps import OneView
from realfake_hf.models.views import window_box

FAST = ("rollout", "last_attention", "gradient_rollout", "relevance", "grad_cam")
KINDS = ("real", "fake")
NOISY = (np.s_[:0], np.s_[:64, :64], np.s_[:64, 64:], np.s_[64:, :64], np.s_[64:, 64:], np.s_[:])
SIDES = st.integers(1, 20_000)


def detector(model: MultiViewForImageClassification, **settings) -> Detector:
    return Detector(model, MultiViewImageProcessor(size=32, **settings))


def smooth(width: int, height: int) -> np.ndarray:
    """A grey ramp."""
    ramp = np.linspace(60, 200, width)[None] * np.linspace(0.8, 1, height)[:, None]
    return np.repeat(ramp[..., None], 3, axis=2).astype(np.uint8)


def with_noise(pixels: np.ndarray, where: tuple[slice, slice], seed: int = 0) -> Image.Image:
    planted = pixels.copy()
    planted[where] = np.random.default_rng(seed).integers(256, size=planted[where].shape, dtype=np.uint8)
    return Image.fromarray(planted)


@pytest.fixture(scope="module")
def noise_finder() -> Detector:
    """A tiny model with views of 128 pixels, whose heads have learnt that noise in half of a view or more is FAKE."""
    model = build(tower={**TOWER, "image_size": 128, "patch_size": 16})
    processor = MultiViewImageProcessor(size=128)
    plain = processor.views(Image.fromarray(smooth(512, 512)), tile(512, 512, 128))
    views = [np.asarray(with_noise(view, where, n)) for n, view in enumerate(plain) for where in NOISY]
    target = torch.tensor([where != NOISY[0] for _ in plain for where in NOISY], dtype=torch.float32)
    with torch.no_grad():
        features = model.features(torch.from_numpy(processor.normalize_views(np.stack(views))))
    for head in (model.whole, model.window):
        head[0].fit(features)
        optimizer = torch.optim.Adam(head.parameters(), lr=0.03)
        for _ in range(50):
            optimizer.zero_grad()
            torch.nn.functional.binary_cross_entropy_with_logits(head(features)[:, 0], target).backward()
            optimizer.step()
    return Detector(model, processor)


@pytest.mark.parametrize("quadrant", range(4))
@pytest.mark.parametrize("method", ["relevance", "gradient_rollout", "grad_cam"])
def test_noise_in_a_quadrant_of_512_pixels_has_the_highest_values(noise_finder, method, quadrant):
    rows, columns = (slice(256 * half, 256 * half + 256) for half in divmod(quadrant, 2))
    image = with_noise(smooth(512, 512), (rows, columns))
    [explanation] = noise_finder.explain(image, method=method, target="FAKE")
    high, wide = (side // 2 for side in explanation.map.shape)
    means = [np.nanmean(explanation.map[y : y + high, x : x + wide]) for y in (0, high) for x in (0, wide)]
    peak = np.unravel_index(np.nanargmax(explanation.map), explanation.map.shape)
    assert np.argmax(means) == quadrant
    assert divmod(quadrant, 2) == (peak[0] >= high, peak[1] >= wide)


@pytest.mark.slow
def test_the_kept_model_finds_a_generated_quadrant_in_a_photograph_of_512_pixels(shared_data):
    """The parts are at native resolution, and of a data set that the model was not trained on."""
    images = shared_data / "second/diffusiondb-coco-imagenet"
    real, fake = (
        [file for file in sorted((images / kind).rglob("*.*")) if is_large(file)] for kind in ("real", "fake")
    )
    wild = Detector.from_pretrained(Path(__file__).parents[1] / "space/models/wild")
    hits = []
    for number, (host, donor) in enumerate(zip(real[::7][:8], fake[::7], strict=False)):
        mosaic = Image.open(host).convert("RGB").crop((0, 0, 512, 512))
        row, column = divmod(number % 4, 2)
        mosaic.paste(Image.open(donor).convert("RGB").crop((0, 0, 256, 256)), (256 * column, 256 * row))
        [explanation] = wild.explain(mosaic, method="relevance", target="FAKE")
        high, wide = (side // 2 for side in explanation.map.shape)
        means = [np.nanmean(explanation.map[y : y + high, x : x + wide]) for y in (0, high) for x in (0, wide)]
        hits.append(np.argmax(means) == number % 4)
    assert sum(hits) >= 7  # of 8; by chance, with probability 0.0004


def is_large(file: Path) -> bool:
    with Image.open(file) as image:
        return min(image.size) >= 512


@pytest.mark.parametrize("method", FAST)
def test_the_map_of_an_image_of_one_views_size_is_the_ordinary_map(method):
    model = build()
    image = with_noise(smooth(32, 32), np.s_[:, :16])
    [stitched] = detector(model, n_windows=0).explain(image, method=method)
    values = MultiViewImageProcessor(size=32, n_windows=0)(image, return_tensors="pt")["pixel_values"][0]
    [ordinary] = explain(OneView(model, "whole"), values, method=method)
    np.testing.assert_allclose(stitched.map, ordinary.map, atol=1e-5)
    assert stitched.verdict.p_fake == pytest.approx(ordinary.verdict.p_fake)
    assert stitched.map.max() == 1


@pytest.mark.parametrize("method", METHODS)
def test_every_method_covers_the_image_and_explains_the_verdict(method):
    found = detector(build())
    images = [Image.fromarray(smooth(*size)) for size in ((100, 64), (9, 20))]
    options = {"steps": 2, "grid": (4, 4)} if method == "integrated_gradients" else {}
    before = {name: value.clone() for name, value in found.model.state_dict().items()}
    verdicts = found.predict(images)  # unpacks weights, through which gradients pass later
    explanations = found.explain(images, method=method, options=options)
    for image, explanation, verdict in zip(images, explanations, verdicts, strict=True):
        assert explanation.verdict.p_fake == pytest.approx(verdict.p_fake, abs=1e-6)
        height, width = explanation.map.shape
        assert len(explanation.to_rows()) == height
        assert height / width == pytest.approx(image.height / image.width, rel=0.2)
        assert np.isfinite(explanation.map).all()
        assert explanation.overlay(found.view(image)).shape[:2] == tuple(
            side * -(-256 // max(image.size)) for side in (image.height, image.width)
        )
    assert all(torch.equal(value, before[name]) for name, value in found.model.state_dict().items())
    assert found.model.config._attn_implementation == found.model.tower.config._attn_implementation == "sdpa"


def test_parts_that_no_view_covers_are_nan_and_keep_their_pixels():
    found = detector(build())
    image = Image.fromarray(smooth(1200, 300))
    [explanation] = found.explain(image, method="rollout")
    unknown = np.isnan(explanation.map)
    height, width = unknown.shape
    columns = np.arange(width) * 1200 / width
    assert 0 < unknown.mean() < 0.75
    assert not unknown[:, (columns >= 450) & (columns < 740)].any()  # of the whole view
    assert not unknown[[0, -1], [0, -1]].any()  # windows lie in the corners
    overlay = explanation.overlay(np.asarray(image))
    assert explanation.to_rows()[0].count(None) == unknown[0].sum()
    grey = overlay[np.ix_(np.arange(300) * height // 300 == 0, np.arange(1200) * width // 1200 == unknown[0].argmax())]
    np.testing.assert_array_equal(grey[..., 0], grey[..., 2])


def test_a_view_counts_as_much_as_it_speaks_for_the_label():
    model = build()
    with torch.no_grad():
        model.window[1].weight.zero_()
        model.window[1].bias.fill_(-9)
    image = Image.fromarray(smooth(64, 64))
    [explanation] = detector(model).explain(image, method="relevance", target="FAKE")
    [whole] = detector(model, n_windows=0).explain(image, method="relevance", target="FAKE")
    np.testing.assert_allclose(explanation.map, np.repeat(np.repeat(whole.map, 2, 0), 2, 1), atol=0.01)


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        ({"method": "saliency"}, "a method of .*'saliency'"),
        ({"method": "relevance", "target": "fake"}, "a target of .*'fake'"),
        ({"method": "rollout", "options": {"steps": 2}}, "options of rollout .*steps"),
        ({"method": "grad_cam", "options": {"layer": "head"}}, "a layer of MultiViewForImageClassification; found"),
        ({"method": "grad_cam", "options": {"layer": "view_head"}}, "'view_head', which returns the shape"),
    ],
)
def test_what_cannot_be_explained_is_refused(settings, found):
    with pytest.raises(ValueError, match=found):
        detector(build()).explain(Image.new("RGB", (40, 40)), **settings)


def test_methods_begin_with_relevance_and_leave_out_what_takes_minutes():
    attention = ("rollout", "last_attention", "gradient_rollout", "legrad", "libragrad")
    assert detector(build()).methods() == ("relevance", *attention, "grad_cam")


def test_the_layout_names_the_layers_that_the_heads_read():
    layout = layout_of(OneView(build(), "window"))
    assert layout.refusal is None
    assert layout.read == (2, 3)
    assert layout.grid == (4, 4)
    torch.testing.assert_close(layout.pooling, torch.tensor([0.5, *[0.5 / 16] * 16]), rtol=0.3, atol=0)
    assert layout.pooling[1:].std() < 1e-6
    assert layout.last == "tower.encoder.layers.1.layer_norm1"


def test_layers_after_the_last_feature_are_ignored():
    model = build()
    model.config.feature_layers = (1, 2)
    layout = layout_of(OneView(model, "whole"))
    assert layout.read == (1, 2)
    assert len(layout.attention) == 2


def test_rows_of_several_layers_are_the_mean_of_the_rows_of_each():
    generator = torch.Generator().manual_seed(0)
    layers = [torch.rand(2, 3, 5, 5, generator=generator).softmax(-1) for _ in range(4)]
    gradients = [torch.randn(2, 3, 5, 5, generator=generator) for _ in range(4)]
    pooling = torch.tensor([0.5, *[0.125] * 4])
    folds = (
        lambda n, **read: attention_rollout([layer.mean(1) for layer in layers[:n]], pooling=pooling, **read),
        lambda n, **read: relevance(layers[:n], gradients[:n], pooling=pooling, **read),
        lambda n, **read: gradient_rollout(layers[:n], gradients[:n], pooling=pooling, **read),
    )
    for fold in folds:
        expected = torch.stack([fold(2), fold(3), fold(4)]).mean(0)
        torch.testing.assert_close(fold(4, read=(2, 3, 4)), expected)


@given(width=SIDES, height=SIDES, size=st.integers(1, 300))
def test_windows_are_bounded_and_tile_an_image_that_they_can_cover(width, height, size):
    positions = tile(width, height, size)
    boxes = [window_box(width, height, size, place) for place in positions]
    assert 1 <= len(boxes) <= MAX_WINDOWS
    assert max(stitched_grid((width, height), boxes, (14, 14))) <= MAX_CELLS + 1
    side = min(size, width, height)
    if -(-width // side) * -(-height // side) <= MAX_WINDOWS:
        grid = min(height, 40), min(width, 40)
        values = stitch(torch.ones(len(boxes), 2, 2), boxes, size=(width, height), grid=grid)
        torch.testing.assert_close(values, torch.ones(grid))


def test_stitched_maps_are_averaged_by_area():
    maps = torch.tensor([[[1.0, 2.0], [3.0, 4.0]], [[10.0, 20.0], [30.0, 40.0]]])
    boxes = [(0, 0, 4, 4), (2, 0, 6, 4)]
    found = stitch(maps, boxes, size=(8, 4), grid=(2, 4))
    expected = torch.tensor([[1, 6, 20, torch.nan], [3, 17, 40, torch.nan]])
    torch.testing.assert_close(found, expected, equal_nan=True)


def test_the_border_of_a_view_does_not_show_where_kinds_are_combined():
    whole, windows = torch.full((2, 4), torch.nan), torch.tensor([[1.0, 3, 1, torch.nan], [1, 3, 1, torch.nan]])
    whole[:, 1:3] = 5
    expected = torch.tensor([[3.0, 4, 3, torch.nan], [3, 4, 3, torch.nan]])
    torch.testing.assert_close(combine([whole, windows]), expected, equal_nan=True)


@pytest.mark.parametrize("factor", [1, 1000])
def test_the_scale_of_a_head_has_no_part_in_the_map(factor):
    model = build()
    image = with_noise(smooth(96, 64), np.s_[:, :32])
    with torch.no_grad():
        model.whole[1].bias.fill_(9)  # both kinds speak for the label
        model.window[1].bias.fill_(9)
        [expected] = detector(model).explain(image, method="rollout")
        model.whole[1].weight.mul_(factor)
    [found] = detector(model).explain(image, method="rollout")
    np.testing.assert_allclose(found.map, expected.map, atol=1e-3)


def test_an_explanation_has_the_verdict_of_the_prediction():
    found = detector(build(), n_windows=3)
    image = with_noise(smooth(96, 64), np.s_[:, :32])
    [before] = found.predict(image)
    far = Familiarity(np.zeros((2, 128)), np.eye(128), 0, 0.01, 9, 9, "0")
    found.point = OperatingPoint(0.5, "test", band=Band(before.p_fake, before.p_fake, 0.1), limits=Limits(widening=9))
    found.familiarity = far
    [verdict], [explanation] = found.predict(image), found.explain(image, method="relevance")
    assert explanation.verdict == verdict
    assert (verdict.is_far, verdict.reasons) == (True, ("views",))


@pytest.mark.slow
def test_a_map_of_89_megapixels_takes_as_many_views_as_any_other():
    image = Image.new("RGB", (11_000, 8_100), (90, 120, 150))
    [explanation] = detector(build()).explain(image, method="relevance")
    assert max(explanation.map.shape) == MAX_CELLS


@pytest.mark.parametrize("hidden_units", [0, 8])
def test_contributions_sum_to_the_log_odds_through_fitted_heads(hidden_units):
    model = build(hidden_units=hidden_units)
    values = torch.randn(5, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        features = model.features(values)
    for name in ("whole", "window"):
        head = model.get_submodule(name)
        head[0].fit(features + 3)  # so that what is subtracted matters
        for weight in head.parameters():
            torch.nn.init.normal_(weight, std=0.3)
        view = OneView(model, name)
        first = layout_of(view, values).attention[0]
        at_tokens, elsewhere, odds = contributions(view, values, first=first)
        torch.testing.assert_close(odds, head(features).squeeze(-1).detach(), rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(at_tokens.sum(dim=1) + elsewhere, odds, rtol=1e-3, atol=1e-3)
    assert "libragrad" in detector(model).methods()
