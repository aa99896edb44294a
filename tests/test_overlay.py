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


def middle(found, row, column, grid):
    return found[(2 * row + 1) * found.shape[0] // (2 * grid[0]), (2 * column + 1) * found.shape[1] // (2 * grid[1])]


def test_each_cell_has_more_of_the_colour_of_its_heat_the_hotter_it_is():
    heat = np.arange(12, dtype=np.float32).reshape(3, 4) / 11
    found = overlay(random_image(32, 24), heat, strength=1)
    assert (found.shape, found.dtype) == ((256, 192, 3), np.uint8)
    colors = 255 * mpl.colormaps[COLOR_MAP](heat)[..., :3]
    far = [np.abs(middle(found, row, column, (3, 4)) - colors[row, column]).max() for row, column in np.ndindex(3, 4)]
    assert far[-1] <= 1
    assert max(far[6:]) < min(far[:3])


@pytest.mark.parametrize("shade", [5, 128, 240])
def test_the_picture_shows_through_every_cell_and_most_where_the_map_is_low(shade):
    image = np.full((256, 256, 3), shade, dtype=np.uint8)
    image[::2] += 8
    found = overlay(image, np.array([[0.0, 1.0]])).astype(int)
    low, high = (np.abs(np.diff(found[100:110, column, 0])).min() for column in (60, 190))
    assert 1 <= high < low


@pytest.mark.parametrize("shade", [0, 128, 255])
def test_the_hottest_cell_is_the_brightest_on_any_picture(shade):
    found = overlay(np.full((32, 32, 3), shade, dtype=np.uint8), np.array([[0.0, 0.3, 0.6, 1.0]]))
    light = [middle(found, 0, column, (1, 4)) @ [0.2126, 0.7152, 0.0722] for column in range(4)]
    assert max(light[:3]) < light[3] - 10


def test_lines_enclose_the_cells_of_at_least_half_of_the_highest_value_and_no_others():
    heat = np.array([[0.0, 0.49, 0.1], [0.2, 1.0, 0.5], [0.0, np.nan, 0.3]])
    found = overlay(np.full((300, 300, 3), 90, dtype=np.uint8), heat)
    white, black = ((found == value).all(axis=-1) for value in (255, 0))
    assert white[150, 100:].nonzero()[0].tolist() == [0, 199]  # the left edge of the region, and that of the picture
    assert black[150, :100].nonzero()[0].tolist() == [99]
    assert not white[:100].any()
    assert not white[200:].any()


def test_a_map_of_one_value_has_no_lines():
    assert (overlay(np.full((256, 256, 3), 90, dtype=np.uint8), np.zeros((4, 4))) == 82).all()


def test_cells_without_a_value_are_the_grey_picture():
    image = random_image(256, 256)
    found = overlay(image, np.array([[np.nan, 0.2]]))
    grey = np.rint(image @ [0.299, 0.587, 0.114])
    assert np.abs(found[:, :128] - grey[:, :128, None]).max() <= 1


def test_at_no_strength_the_image_is_grey():
    image = random_image()
    found = overlay(image, np.ones((8, 8)), strength=0)
    assert (found == found[..., :1]).all()
    white = overlay(np.full_like(image, 255), np.ones((8, 8)), strength=0)
    assert (white == 255).all()


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
