"""Overlays keep their pixels sharp, their cells in place, and colour for heat alone."""

import matplotlib as mpl
import numpy as np
import pytest

from realfake_hf.attribution.overlay import COLOR_MAP, enlarge, overlay


def random_image(height=32, width=32, *, seed=0):
    return np.random.default_rng(seed).integers(256, size=(height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("size", "large"),
    [
        ((32, 32), (256, 256)),
        ((32, 20), (256, 160)),
        ((100, 30), (300, 90)),
        ((256, 256), (256, 256)),
        ((400, 300),) * 2,
    ],
)
def test_small_images_are_enlarged_a_whole_number_of_times_with_sharp_pixels(size, large):
    image = random_image(*size)
    found = enlarge(image)
    times = large[0] // size[0]
    assert found.shape == (*large, 3)
    assert np.array_equal(found, np.kron(image, np.ones((times, times, 1), dtype=np.uint8)))


def test_at_full_strength_each_cell_has_the_colour_of_its_heat():
    heat = np.arange(12, dtype=np.float32).reshape(3, 4) / 11
    found = overlay(random_image(32, 24), heat, strength=1)
    assert (found.shape, found.dtype) == ((256, 192, 3), np.uint8)
    expected = np.round(255 * mpl.colormaps[COLOR_MAP](heat)[..., :3]).astype(np.uint8)
    for row in range(3):
        for column in range(4):
            middle = found[(2 * row + 1) * 256 // 6, (2 * column + 1) * 192 // 8]
            assert np.array_equal(middle, expected[row, column])


def test_at_no_strength_the_image_is_grey():
    image = random_image()
    found = overlay(image, np.ones((8, 8)), strength=0)
    assert (found == found[..., :1]).all()
    white = overlay(np.full_like(image, 255), np.ones((8, 8)), strength=0)
    assert (white == 255).all()


def test_hotter_is_lighter_whatever_the_image_below():
    shades = mpl.colormaps[COLOR_MAP](np.linspace(0, 1, 256))[:, :3] @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(shades) > 0).all()


def test_the_image_is_not_written_to():
    image = random_image(256, 256)
    before = image.copy()
    overlay(image, np.ones((8, 8)))
    assert np.array_equal(image, before)


@pytest.mark.parametrize(
    ("heat", "strength", "found"),
    [
        (np.full((8, 8), 1.1), 0.5, r"shape \(8, 8\) and the strength 0\.5"),
        (np.full((8, 8), np.nan), 0.5, r"shape \(8, 8\) and the strength 0\.5"),
        (np.ones((2, 8, 8)), 0.5, r"shape \(2, 8, 8\) and the strength 0\.5"),
        (np.ones((0, 8)), 0.5, r"shape \(0, 8\) and the strength 0\.5"),
        (np.ones((8, 8)), 2, r"shape \(8, 8\) and the strength 2"),
    ],
)
def test_what_is_no_map_and_a_strength_out_of_range_are_refused(heat, strength, found):
    with pytest.raises(ValueError, match=rf"values in \[0, 1\].*{found}"):
        overlay(random_image(), heat, strength=strength)


@pytest.mark.parametrize(
    "image", [np.zeros((8, 8), dtype=np.uint8), np.zeros((8, 8, 3)), np.zeros((0, 8, 3), np.uint8)]
)
def test_what_is_no_image_is_refused(image):
    sentence = rf"expected an image \(height, width, 3\) of uint8; found .* of {image.dtype}\. Use np\.asarray"
    with pytest.raises(ValueError, match=sentence):
        enlarge(image)
