import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from realfake_hf.explain_study.regions import centre_mask, mass_share, rim_mask

SIDES = st.integers(1, 12)
SHARES = st.floats(0, 1)


@given(SIDES, SIDES, SHARES)
def test_centre_and_rim_have_the_same_area_to_the_pixel(height, width, share):
    area = round(share * height * width)
    assert centre_mask((height, width), share).sum() == rim_mask((height, width), share).sum() == area


@given(SIDES, SIDES, SHARES)
def test_no_pixel_of_the_centre_is_further_out_than_one_that_is_not(height, width, share):
    down, right = np.mgrid[:height, :width]
    out = np.maximum(
        abs(2 * down - height + 1) * width, abs(2 * right - width + 1) * height
    )  # twice the relative Chebyshev distance, in whole numbers
    centre, rim = centre_mask((height, width), share), rim_mask((height, width), share)
    assert out[centre].max(initial=0) <= out[~centre].min(initial=10**6)
    assert out[rim].min(initial=10**6) >= out[~rim].max(initial=0)


@given(SIDES, SIDES, st.integers(0, 20))
def test_an_even_count_of_pixels_has_the_middle_of_the_picture_as_its_centre(height, width, pairs):
    count = 2 * min(pairs, height * width // 2) + height * width % 2  # with the very middle, where there is one
    for mask in (
        centre_mask((height, width), count / (height * width)),
        ~rim_mask((height, width), 1 - count / (height * width)),
    ):
        assert mask.sum() == count
        assert np.array_equal(mask, mask[::-1, ::-1])


def test_half_of_the_picture_and_the_rest_are_centre_and_rim():
    assert np.array_equal(centre_mask((32, 32), 0.5), ~rim_mask((32, 32), 0.5))


def test_a_quarter_of_cifake_is_a_square_in_the_middle_and_corners_come_last():
    square = np.zeros((32, 32), dtype=bool)
    square[8:24, 8:24] = True
    assert np.array_equal(centre_mask((32, 32), 0.25), square)
    corners = rim_mask((32, 32), 4 / 1024)
    assert corners[[0, 0, -1, -1], [0, -1, 0, -1]].all()


@given(st.integers(0, 99), st.sampled_from([(8, 8), (4, 2), (5, 3)]), SHARES)
def test_the_share_of_a_map_is_that_of_its_pixels_as_drawn(seed, grid, share):
    maps = np.random.default_rng(seed).random((2, *grid))
    mask = centre_mask((8, 10), share)
    for one, found in zip(maps, mass_share(maps, mask), strict=True):
        drawn = [[one[row * grid[0] // 8, column * grid[1] // 10] for column in range(10)] for row in range(8)]
        assert found == pytest.approx(np.array(drawn)[mask].sum() / np.sum(drawn))


def test_an_almost_even_map_has_the_share_of_the_area():
    maps = np.ones((1, 8, 8)) + 1e-9 * np.arange(64).reshape(8, 8)
    assert mass_share(maps, rim_mask((32, 32), 0.25)) == pytest.approx(0.25)


def test_an_empty_map_has_no_share():
    maps = np.stack([np.zeros((4, 4)), np.ones((4, 4)), np.eye(4)])
    assert np.isnan(mass_share(maps, centre_mask((8, 8), 0.5))).tolist() == [True, True, False]


@pytest.mark.parametrize("share", [-0.1, 1.5, float("nan")])
def test_a_share_that_is_none_is_refused(share):
    with pytest.raises(
        ValueError, match=r"wanted a share of the picture in \[0, 1\]; found .*\. Half of it is 0\.5\."
    ):
        centre_mask((8, 8), share)


@pytest.mark.parametrize(
    "maps", [np.zeros((8, 8)), -np.ones((1, 8, 8)), np.zeros((1, 9, 8)), np.full((1, 2, 2), np.nan)]
)
def test_maps_that_cannot_be_laid_over_the_region_are_refused(maps):
    with pytest.raises(
        ValueError, match=r"wanted maps \(n, grid_h, grid_w\) of 0 or more, no finer than the \(8, 8\)"
    ):
        mass_share(maps, np.ones((8, 8), dtype=bool))
