import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageFilter

from realfake_hf.explain_study.maps import Sample
from realfake_hf.explain_study.occlusion import (
    BLUR,
    FILLS,
    centre_mask,
    corner_masks,
    fill_in,
    filled,
    map_shares,
    mass_share,
    measure_occlusion,
    rim_mask,
)
from realfake_hf.metrics.intervals import Resampling
from realfake_hf.metrics.significance import holm

SIDE = 16
MIDDLE, CORNER = (8, 8), (0, 0)  # where a bright pixel says FAKE; opposite, it says REAL
SIDES = st.integers(1, 12)
SHARES = st.floats(0, 1)


def images(n=3, height=32, width=32):
    return np.random.default_rng(0).integers(0, 256, (n, height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("fill", FILLS)
def test_only_hidden_pixels_change(fill):
    hidden = np.random.default_rng(1).random((3, 32, 32)) < 0.5
    found = fill_in(images(), hidden, fill=fill)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found[~hidden], images()[~hidden])
    np.testing.assert_array_equal(found[hidden], filled(images(), fill=fill)[hidden])
    assert (found[hidden] != images()[hidden]).any(axis=1).mean() > 0.9


@pytest.mark.parametrize("fill", FILLS)
def test_one_mask_applies_to_all_images(fill):
    hidden = np.zeros((32, 32), dtype=np.bool_)
    hidden[4:9, 10:] = True
    every = np.repeat(hidden[None], 3, axis=0)
    np.testing.assert_array_equal(fill_in(images(), hidden, fill=fill), fill_in(images(), every, fill=fill))


@pytest.mark.parametrize("fill", FILLS)
def test_an_image_is_filled_with_its_own_colours(fill):
    whole = filled(images(), fill=fill)
    for one, alone in zip(images(), whole, strict=True):
        np.testing.assert_array_equal(filled(one[None], fill=fill)[0], alone)
    plain = np.full((1, 8, 6, 3), (10, 20, 30), dtype=np.uint8)
    np.testing.assert_array_equal(filled(plain, fill=fill), plain)


def test_the_mean_colour_is_computed_by_channel():
    for one, found in zip(images(), filled(images(), fill="mean"), strict=True):
        assert found[5, 7].tolist() == [round(float(one[..., channel].mean())) for channel in range(3)]
        assert (found == found[0, 0]).all()


def test_the_blur_equals_that_of_pillow_away_from_the_borders():
    wide = images(1, 96, 48)[0]
    sigma = (BLUR * 48, BLUR * 96)  # Pillow's order: across, down
    expected = np.asarray(Image.fromarray(wide).filter(ImageFilter.GaussianBlur(sigma)), dtype=int)
    found = filled(wide[None], fill="blur")[0].astype(int)
    assert np.abs(found - expected)[36:60, 18:30].max() <= 3


@given(SIDES, SIDES, SHARES)
def test_centre_and_rim_have_the_same_area_to_the_pixel(height, width, share):
    area = round(share * height * width)
    assert centre_mask((height, width), share).sum() == rim_mask((height, width), share).sum() == area


@given(SIDES, SIDES, SHARES)
def test_the_centre_contains_the_innermost_pixels(height, width, share):
    down, right = np.mgrid[:height, :width]
    out = np.maximum(
        abs(2 * down - height + 1) * width, abs(2 * right - width + 1) * height
    )  # twice the relative Chebyshev distance, in whole numbers
    centre, rim = centre_mask((height, width), share), rim_mask((height, width), share)
    assert out[centre].max(initial=0) <= out[~centre].min(initial=10**6)
    assert out[rim].min(initial=10**6) >= out[~rim].max(initial=0)


@given(SIDES, SIDES, st.integers(0, 20))
def test_a_region_of_an_even_number_of_pixels_is_symmetric(height, width, pairs):
    count = 2 * min(pairs, height * width // 2) + height * width % 2  # with the very middle, where there is one
    for mask in (
        centre_mask((height, width), count / (height * width)),
        ~rim_mask((height, width), 1 - count / (height * width)),
    ):
        assert mask.sum() == count
        assert np.array_equal(mask, mask[::-1, ::-1])


def test_centre_and_rim_of_one_half_are_complementary():
    assert np.array_equal(centre_mask((32, 32), 0.5), ~rim_mask((32, 32), 0.5))


@given(SIDES, SIDES, SHARES)
def test_corners_have_the_area_of_the_centre_and_are_mirror_images(height, width, share):
    masks = corner_masks((height, width), share, np.arange(4))
    assert masks.sum(axis=(1, 2)).tolist() == [centre_mask((height, width), share).sum()] * 4
    upper_left, upper_right, lower_left, lower_right = masks
    np.testing.assert_array_equal(upper_left, upper_right[:, ::-1])
    np.testing.assert_array_equal(upper_left, lower_left[::-1])
    np.testing.assert_array_equal(upper_left, lower_right[::-1, ::-1])
    assert not share * height * width >= 1 or upper_left[0, 0]


def test_a_corner_of_a_quarter_does_not_reach_the_middle():
    masks = corner_masks((32, 32), 0.25, np.arange(4))
    assert masks.sum(axis=0).max() == 1  # together they are the image
    assert (masks[0, :16, :16].sum(), masks[3, 16:, 16:].sum()) == (256, 256)


def test_a_quarter_of_the_image_is_a_central_square_and_corners_come_last():
    square = np.zeros((32, 32), dtype=bool)
    square[8:24, 8:24] = True
    assert np.array_equal(centre_mask((32, 32), 0.25), square)
    corners = rim_mask((32, 32), 4 / 1024)
    assert corners[[0, 0, -1, -1], [0, -1, 0, -1]].all()


@given(st.integers(0, 99), st.sampled_from([(8, 8), (4, 2), (5, 3)]), SHARES)
def test_the_share_of_a_map_equals_that_of_its_drawn_pixels(seed, grid, share):
    maps = np.random.default_rng(seed).random((2, *grid))
    mask = centre_mask((8, 10), share)
    for one, found in zip(maps, mass_share(maps, mask), strict=True):
        drawn = [[one[row * grid[0] // 8, column * grid[1] // 10] for column in range(10)] for row in range(8)]
        assert found == pytest.approx(np.array(drawn)[mask].sum() / np.sum(drawn))


def test_a_nearly_uniform_map_has_the_share_of_the_area():
    maps = np.ones((1, 8, 8)) + 1e-9 * np.arange(64).reshape(8, 8)
    assert mass_share(maps, rim_mask((32, 32), 0.25)) == pytest.approx(0.25)


def test_an_empty_map_has_no_share():
    maps = np.stack([np.zeros((4, 4)), np.ones((4, 4)), np.eye(4)])
    assert np.isnan(mass_share(maps, centre_mask((8, 8), 0.5))).tolist() == [True, True, False]


class Reader:
    """A model that scores an image by the brightness of one pixel."""

    def __init__(self, name, pixel):
        self.name, self.pixel = name, pixel

    def probabilities(self, images):
        return images[:, *self.pixel, 0].astype(np.float32) / 255


@pytest.fixture(scope="module")
def sample():
    """Images, half of them FAKE, whose label can be read in the centre as well as in a corner."""
    n = 24
    is_fake = np.arange(n) % 2 == 0
    images = np.random.default_rng(0).integers(0, 60, (n, SIDE, SIDE, 3), dtype=np.uint8)
    for down, right in (MIDDLE, CORNER):
        images[is_fake, down, right] = images[~is_fake, SIDE - 1 - down, SIDE - 1 - right] = 255
    return Sample(
        images=images,
        is_fake=is_fake,
        content=tuple("ship" if number < 9 else "frog" for number in range(n)),
        ids=tuple(map(str, range(n))),
        is_right={},
        stratum=is_fake.astype(np.intp),
        weight=np.where(is_fake, 3.0, 1.0),
    )


@pytest.fixture(scope="module")
def causal(sample):
    models = [Reader("middle", MIDDLE), Reader("rim", CORNER)]
    return measure_occlusion(models, sample, samples=50)


@pytest.mark.parametrize(("name", "sign"), [("middle", -1), ("rim", 1)])
def test_a_model_loses_most_when_the_region_that_it_uses_is_hidden(causal, name, sign):
    found = causal["models"][name]
    assert found["untouched"]["accuracy"]["value"] == found["untouched"]["roc_auc"]["value"] == 1
    assert [(one["area"], one["fill"]) for one in found["hiding"]] == [
        (area, fill) for area in (0.25, 0.5, 0.75) for fill in ("blur", "mean")
    ]
    for one in found["hiding"]:
        difference = one["centre_less"]["rim"]
        assert difference["accuracy"]["value"] == pytest.approx(sign * 0.75)  # all FAKE, three quarters, are missed
        assert difference["accuracy"]["n"] == 24
        assert one["fill"] == "blur" or sign * difference["roc_auc"]["value"] > 0.2  # a blur lets some through
        regions = ("rim", "centre") if sign < 0 else ("centre", "rim")
        kept, lost = (one["hidden"][region] for region in regions)
        assert kept["accuracy"]["value"] == 1
        assert (lost["accuracy_fake"]["value"], lost["accuracy_real"]["value"]) == (0, 1)
        assert lost["called_fake"]["value"] == 0


def test_a_corner_costs_the_images_whose_corner_is_hidden(causal):
    for one in causal["models"]["rim"]["hiding"][:2]:
        missed = 1 - one["hidden"]["corner"]["accuracy_fake"]["value"]
        assert 0 < missed < 0.7  # the evidence is in one of four corners
    for one in causal["models"]["middle"]["hiding"][:2]:
        less = one["centre_less"]["corner"]["accuracy"]  # the pixel in the middle is also in one of four corners
        assert less["value"] < -0.5
        assert less["p_value"] < 0.05


def test_each_difference_is_that_of_the_two_regions_that_it_names(causal):
    for tested in causal["models"].values():
        for one in tested["hiding"]:
            for other, less in one["centre_less"].items():
                for measure in ("accuracy", "roc_auc"):
                    centre, rest = (one["hidden"][region][measure]["value"] for region in ("centre", other))
                    assert less[measure]["value"] == pytest.approx(centre - rest)


def test_the_comparisons_of_all_models_areas_fills_and_measures_are_corrected_together(causal):
    rows = [row for tested in causal["models"].values() for row in tested["hiding"]]
    tests = [
        less[measure] for row in rows for less in row["centre_less"].values() for measure in ("accuracy", "roc_auc")
    ]
    assert len(tests) == 48
    assert [test["p_holm"] for test in tests] == holm([test["p_value"] for test in tests])


def test_estimates_equal_those_of_a_weighted_loop_over_the_images(sample):
    reader = Reader("some", MIDDLE)
    hiding = measure_occlusion([reader], sample, samples=20)["models"]["some"]["hiding"]
    [one] = [one for one in hiding if (one["area"], one["fill"]) == (0.5, "blur")]
    sums = {"all": 0.0, "ship": 0.0, "called": 0.0}
    weights = {"all": 0.0, "ship": 0.0, "called": 0.0}
    for number, picture in enumerate(sample.images):
        right = []
        for hidden in (centre_mask((SIDE, SIDE), 0.5), rim_mask((SIDE, SIDE), 0.5)):
            shown = fill_in(picture[None], hidden, fill="blur")
            called = reader.probabilities(shown)[0] > 0.5
            right.append(float(called == sample.is_fake[number]))
            if len(right) == 1:
                sums["called"] += sample.weight[number] * called
                weights["called"] += sample.weight[number]
        for kind in {"all", sample.content[number]} & set(sums):
            sums[kind] += sample.weight[number] * (right[0] - right[1])
            weights[kind] += sample.weight[number]
    less = one["centre_less"]["rim"]
    assert less["accuracy"]["value"] == pytest.approx(sums["all"] / weights["all"])
    assert less["by_content"]["ship"]["value"] == pytest.approx(sums["ship"] / weights["ship"])
    assert one["hidden"]["centre"]["called_fake"]["value"] == pytest.approx(sums["called"] / weights["called"])
    assert sum(mean["n"] for mean in less["by_content"].values()) == less["accuracy"]["n"] == 24


def test_the_results_are_json_without_nan(causal):
    assert json.loads(json.dumps(causal, allow_nan=False))["n"] == 24


def test_central_maps_have_their_mass_in_the_centre_and_uniform_maps_by_area():
    middle = np.tile(centre_mask((8, 8), 0.25).astype(float), (5, 1, 1))
    even = np.ones((5, 8, 8)) - 1e-9 * middle
    empty = np.zeros((5, 8, 8))
    maps = {"middle": middle, "even": even, "empty": empty}
    found = map_shares(maps, Resampling(np.ones(5), samples=10), shape=(32, 32))
    assert [row["area"] for row in found["middle"]] == [0.25, 0.5]
    assert [(row["centre"]["value"], row["rim"]["value"]) for row in found["middle"]] == [(1, 0), (1, 0)]
    for row in found["even"]:
        assert (row["centre"]["value"], row["rim"]["value"]) == pytest.approx((row["area"], row["area"]))
    assert (found["empty"][0]["centre"]["value"], found["empty"][0]["centre"]["undefined"]) == (None, 5)
    assert json.loads(json.dumps(found, allow_nan=False))["even"][0]["rim"]["n"] == 5


def test_with_everything_hidden_only_the_fill_remains(causal):
    for found in causal["models"].values():
        assert found["all_hidden"]["mean"]["accuracy"]["value"] == 0.25  # nothing is bright any more
        assert abs(found["all_hidden"]["mean"]["roc_auc"]["value"] - 0.5) < 0.3
