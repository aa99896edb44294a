"""Noisy linear imputation: laws, and the equations of the paper solved densely, pixel by pixel."""

import numpy as np
import pytest

from realfake_hf.explain_study import imputation
from realfake_hf.explain_study.imputation import NOISE, impute

WEIGHTS = {
    (down, right): 1 / 6 if 0 in (down, right) else 1 / 12
    for down in (-1, 0, 1)
    for right in (-1, 0, 1)
    if (down, right) != (0, 0)
}


def images(n=3, height=16, width=24):
    return np.random.default_rng(0).integers(0, 256, (n, height, width, 3), dtype=np.uint8)


def cells(shape=(3, 16, 24), share=0.5):
    """A random share of the cells of 4 x 4 pixels."""
    n, height, width = shape
    hidden = np.random.default_rng(1).random((n, height // 4, width // 4)) < share
    return hidden.repeat(4, axis=1).repeat(4, axis=2)


@pytest.fixture
def no_noise(monkeypatch):
    monkeypatch.setattr(imputation, "NOISE", 0.0)


def solved_densely(image, hidden):
    """One equation for each pixel: it keeps its value, or is the weighted mean of the neighbours that exist."""
    height, width = hidden.shape
    system, known = np.eye(hidden.size), image.reshape(-1, 3).astype(float)
    for row, column in zip(*np.nonzero(hidden), strict=True):
        near = {
            (row + down) * width + column + right: weight
            for (down, right), weight in WEIGHTS.items()
            if 0 <= row + down < height and 0 <= column + right < width
        }
        place = row * width + column
        known[place] = 0
        for other, weight in near.items():
            system[place, other] -= weight / sum(near.values())
    return np.linalg.solve(system, known).reshape(image.shape)


@pytest.mark.usefixtures("no_noise")
@pytest.mark.parametrize("share", [0.3, 0.6])
def test_it_solves_the_equations_of_the_paper(share):
    hidden = np.random.default_rng(2).random((4, 5, 6)) < share
    hidden[0, 0, 0] = hidden[1, 4, 3] = hidden[2, 2, 5] = True  # corner and borders
    pictures = images(4, 5, 6)
    for found, image, mask in zip(impute(pictures, hidden, seed=0), pictures, hidden, strict=True):
        assert np.abs(found - solved_densely(image, mask)).max() <= 0.5 + 1e-9


def test_a_uniform_image_is_restored_up_to_the_noise():
    grey = np.full((3, 16, 24, 3), (100, 128, 150), dtype=np.uint8)
    hidden = cells()
    noise = (impute(grey, hidden, seed=0).astype(float) - grey)[hidden]
    assert abs(noise.std() - NOISE) < 0.15
    assert abs(noise.mean()) < 0.2


@pytest.mark.usefixtures("no_noise")
def test_a_ramp_is_restored_away_from_the_border():
    ramp = np.arange(16)[:, None, None] * np.array([10, 0, 5]) + np.arange(24)[None, :, None] * np.array([0, 8, 3])
    hidden = cells()
    hidden[:, [0, -1]] = hidden[:, :, [0, -1]] = False
    pictures = np.broadcast_to(ramp.astype(np.uint8), (3, 16, 24, 3))
    np.testing.assert_array_equal(impute(pictures, hidden, seed=0), pictures)


def test_visible_pixels_do_not_change():
    hidden = cells()
    found = impute(images(), hidden, seed=0)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found[~hidden], images()[~hidden])
    assert (found[hidden] != images()[hidden]).any(axis=1).mean() > 0.9
    np.testing.assert_array_equal(impute(images(), np.zeros_like(hidden), seed=0), images())


def test_an_image_without_visible_pixels_has_its_mean_colour_and_the_noise():
    found = impute(images(), np.ones((16, 24), dtype=bool), seed=0)
    noise = found - images().mean(axis=(1, 2), keepdims=True)
    assert abs(noise.std() - NOISE) < 0.15


def test_hidden_values_do_not_matter_unless_nothing_is_visible():
    hidden = cells()
    others = np.where(hidden[..., None], 255 - images(), images())
    np.testing.assert_array_equal(impute(images(), hidden, seed=0), impute(others, hidden, seed=0))


def test_the_noise_depends_on_the_seed_and_the_pixel_alone():
    grey, many = np.full((2, 16, 24, 3), 128, dtype=np.uint8), cells(share=0.8)[:2]
    fewer = many & cells()[:2]
    one, other = impute(grey, many, seed=0), impute(grey, fewer, seed=0)
    np.testing.assert_array_equal(one[fewer], other[fewer])
    np.testing.assert_array_equal(impute(grey[:1], many[:1], seed=0)[0], one[0])
    np.testing.assert_array_equal(impute(grey, many, seed=0), one)
    assert (impute(grey, many, seed=1) != one).any()
