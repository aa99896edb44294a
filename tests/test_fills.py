import numpy as np
import pytest
from PIL import Image, ImageFilter

from realfake_hf.explain_study.fills import BLUR, FILLS, fill_in, filled


def pictures(n=3, height=32, width=32):
    return np.random.default_rng(0).integers(0, 256, (n, height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("fill", FILLS)
def test_only_hidden_pixels_change(fill):
    hidden = np.random.default_rng(1).random((3, 32, 32)) < 0.5
    found = fill_in(pictures(), hidden, fill=fill)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found[~hidden], pictures()[~hidden])
    np.testing.assert_array_equal(found[hidden], filled(pictures(), fill=fill)[hidden])
    assert (found[hidden] != pictures()[hidden]).any(axis=1).mean() > 0.9


@pytest.mark.parametrize("fill", FILLS)
def test_one_mask_is_laid_on_all_pictures(fill):
    hidden = np.zeros((32, 32), dtype=np.bool_)
    hidden[4:9, 10:] = True
    every = np.repeat(hidden[None], 3, axis=0)
    np.testing.assert_array_equal(fill_in(pictures(), hidden, fill=fill), fill_in(pictures(), every, fill=fill))


@pytest.mark.parametrize("fill", FILLS)
def test_a_picture_is_filled_with_its_own_colours_alone(fill):
    whole = filled(pictures(), fill=fill)
    for one, alone in zip(pictures(), whole, strict=True):
        np.testing.assert_array_equal(filled(one[None], fill=fill)[0], alone)
    plain = np.full((1, 8, 6, 3), (10, 20, 30), dtype=np.uint8)
    np.testing.assert_array_equal(filled(plain, fill=fill), plain)


def test_the_mean_is_that_of_each_channel():
    for one, found in zip(pictures(), filled(pictures(), fill="mean"), strict=True):
        assert found[5, 7].tolist() == [round(float(one[..., channel].mean())) for channel in range(3)]
        assert (found == found[0, 0]).all()


def test_the_blur_is_that_of_pillow_away_from_the_borders():
    wide = pictures(1, 96, 48)[0]
    sigma = (BLUR * 48, BLUR * 96)  # Pillow's order: across, down
    expected = np.asarray(Image.fromarray(wide).filter(ImageFilter.GaussianBlur(sigma)), dtype=int)
    found = filled(wide[None], fill="blur")[0].astype(int)
    assert np.abs(found - expected)[36:60, 18:30].max() <= 3


def test_an_unknown_fill_is_refused():
    with pytest.raises(ValueError, match=r"wanted a fill of blur, mean; found 'black'\."):
        fill_in(pictures(), np.zeros((32, 32), dtype=np.bool_), fill="black")


def test_a_mask_of_another_size_is_refused():
    with pytest.raises(ValueError, match=r"wanted a mask \(32, 32\) for all .* found \(8, 8\)\. Give one flag a pixe"):
        fill_in(pictures(), np.zeros((8, 8), dtype=np.bool_), fill="mean")
