"""The views of an image: the whole and windows of its own pixels, as the saved processor cuts them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from realfake_hf.models import MultiViewImageProcessor
from realfake_hf.models.views import cut_view, whole_box, window_box

SIDES = st.integers(1, 3000)


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(256, size=(height, width, 3), dtype=np.uint8))


def test_values_are_batch_views_channels_height_width_with_the_numbers_of_clip():
    processor = MultiViewImageProcessor(size=32, n_windows=2)
    values = processor([Image.new("RGB", (64, 48), (255, 0, 0)), noise(40, 90)], return_tensors="pt")["pixel_values"]
    assert values.shape == (2, 3, 3, 32, 32)
    expected = (np.array([1, 0, 0]) - processor.image_mean) / processor.image_std
    np.testing.assert_allclose(values[0].numpy(), np.broadcast_to(expected[:, None, None], (3, 3, 32, 32)), atol=1e-6)


def test_the_whole_is_the_centred_square_and_windows_are_the_images_own_pixels():
    image = noise(600, 300)
    whole, *windows = MultiViewImageProcessor(size=64).views(image)
    np.testing.assert_array_equal(windows[0], np.asarray(image)[118:182, 268:332])
    resized = image.resize((128, 64), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(whole, resized.crop((32, 0, 96, 64)))
    positions = [window_box(600, 300, 64, place)[:2] for place in ((0, 0), (1, 1))]
    assert positions == [(0, 0), (536, 236)]


@given(width=SIDES, height=SIDES, x=st.floats(0, 1), y=st.floats(0, 1), size=st.integers(1, 300))
def test_a_window_is_a_square_inside_the_image_and_never_larger_than_asked(width, height, x, y, size):
    for box in (window_box(width, height, size, (x, y)), whole_box(width, height)):
        left, top, right, bottom = box
        assert 0 <= left < right <= width
        assert 0 <= top < bottom <= height
        assert right - left == bottom - top
    assert window_box(width, height, size, (x, y))[2] - window_box(width, height, size, (x, y))[0] <= size


@pytest.mark.parametrize("size", [(1, 1), (20_000, 1), (3, 9000), (30, 31)])
def test_small_images_and_panoramas_are_enlarged_to_one_view_at_most(size):
    views = MultiViewImageProcessor(size=32).views(noise(*size))
    assert views.shape == (4, 32, 32, 3)


def test_a_window_of_the_views_size_is_not_resampled():
    image = noise(64, 64)
    np.testing.assert_array_equal(cut_view(image, (0, 0, 64, 64), 64), np.asarray(image))


@pytest.mark.parametrize("settings", [{"n_windows": 6}, {"n_windows": -1}, {"size": 0}])
def test_views_that_cannot_be_cut_are_refused(settings):
    with pytest.raises(ValueError, match="expected views of at least 1 pixel and 0 to 5 windows; found"):
        MultiViewImageProcessor(**settings)


def test_grey_arrays_and_images_with_alpha_are_read_as_rgb():
    processor = MultiViewImageProcessor(size=32)
    grey = np.full((40, 40), 7, np.uint8)
    expected = processor(Image.fromarray(grey).convert("RGB"))["pixel_values"]
    np.testing.assert_array_equal(processor(grey)["pixel_values"], expected)
    np.testing.assert_array_equal(processor(Image.fromarray(grey).convert("RGBA"))["pixel_values"], expected)
