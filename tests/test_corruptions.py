"""What each protocol changes and does not change in an image."""

import io
from zipfile import ZipFile

import numpy as np
import pytest
from PIL import Image
from PIL.JpegImagePlugin import get_sampling

from realfake_hf.data.corruptions import PROTOCOLS, center_square, matched, native


def picture(width, height, seed=0):
    random = np.random.default_rng(seed)
    return Image.fromarray(random.integers(0, 256, (height, width, 3), dtype=np.uint8))


def same(one, other):
    return one.size == other.size and one.mode == other.mode and one.tobytes() == other.tobytes()


@pytest.mark.parametrize("size", [(32, 32), (48, 20), (1, 1), (7, 300)])
@pytest.mark.parametrize("name", PROTOCOLS)
def test_every_protocol_returns_an_rgb_image_and_does_not_change_its_input(name, size):
    given = picture(*size)
    before = given.tobytes()
    made = PROTOCOLS[name](given)
    assert made.mode == "RGB"
    assert (given.size, given.tobytes()) == (size, before)
    assert same(PROTOCOLS[name](given), made)


def test_native_returns_the_image_itself():
    given = picture(48, 20)
    assert native(given) is given


def test_matched_is_a_32_pixel_jpeg_of_quality_75_with_chroma_subsampling():
    given = picture(100, 60)
    buffer = io.BytesIO()
    given.resize((32, 32), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=75, subsampling=2)
    assert same(matched(given), Image.open(buffer).convert("RGB"))


def test_matched_uses_the_quantization_tables_of_cifake(cifake_archive):

    with ZipFile(cifake_archive) as archive:
        name = next(name for name in archive.namelist() if "test/FAKE" in name and name.endswith(".jpg"))
        original = Image.open(io.BytesIO(archive.read(name)))
    buffer = io.BytesIO()
    original.convert("RGB").save(buffer, "JPEG", quality=75, subsampling="4:2:0")
    again = Image.open(buffer)
    assert original.size == (32, 32)
    assert original.quantization == again.quantization
    assert get_sampling(original) == get_sampling(again)


def test_a_second_compression_hardly_changes_the_image():
    smooth = np.add.outer(np.arange(32) * 4, np.arange(32) * 3)[..., None].repeat(3, axis=2).astype(np.uint8)
    once = matched(Image.fromarray(smooth))
    change = np.abs(np.asarray(matched(once), dtype=int) - np.asarray(once, dtype=int))
    assert change.mean() < 1


def test_crop_returns_the_largest_centred_square():
    given = picture(9, 4)
    assert np.array_equal(np.asarray(center_square(given)), np.asarray(given)[:, 2:6])
    tall = picture(4, 9)
    assert np.array_equal(np.asarray(center_square(tall)), np.asarray(tall)[2:6])


def test_crop_does_not_change_a_square():
    given = picture(16, 16)
    assert same(center_square(given), given)
