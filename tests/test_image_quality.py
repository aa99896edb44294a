"""The quality of an image from its pixels: JPEG quality and enlargement are recovered, on real photographs."""

import io

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_images

from realfake_hf.data.decoding import decode_image
from realfake_hf.metrics.image_quality import UNCOMPRESSED, measure_quality


@pytest.fixture(scope="module")
def photographs():
    """Two photographs of 384 x 256 pixels, reduced so that no trace of their own compression is left."""
    return [
        Image.fromarray(pixels).resize((384, 256), Image.Resampling.LANCZOS) for pixels in load_sample_images().images
    ]


def encoded(image, quality, format="JPEG", **settings):
    stream = io.BytesIO()
    image.save(stream, format, quality=quality, **settings)
    return decode_image(stream.getvalue())


def enlarged(image, factor):
    size = round(image.width / factor), round(image.height / factor)
    return image.resize(size, Image.Resampling.LANCZOS).resize(image.size, Image.Resampling.BICUBIC)


@pytest.mark.parametrize("subsampling", [0, 2])
def test_the_jpeg_quality_is_recovered_from_the_pixels(photographs, subsampling):
    for photograph in photographs:
        assert measure_quality(photograph).jpeg == UNCOMPRESSED
        for quality in (20, 40, 60, 80, 90):
            found = measure_quality(encoded(photograph, quality, subsampling=subsampling))
            assert found.jpeg == pytest.approx(quality, abs=3)


def test_the_lower_quality_of_two_compressions_counts_and_a_crop_hides_nothing(photographs):
    for photograph in photographs:
        once = encoded(photograph, 40)
        assert measure_quality(once.crop((3, 5, 380, 250))).jpeg == pytest.approx(40, abs=3)
        assert measure_quality(encoded(once, 92)).jpeg == pytest.approx(40, abs=4)
        assert measure_quality(once.transpose(Image.Transpose.ROTATE_90)).jpeg == pytest.approx(40, abs=4)


def test_blockiness_rises_with_compression(photographs):
    for photograph in photographs:
        found = [measure_quality(encoded(photograph, quality)).blockiness for quality in (90, 60, 30, 10)]
        assert found == sorted(found)
        assert measure_quality(photograph).blockiness < 0.1 < found[-1]


def test_detail_falls_with_the_factor_of_an_enlargement(photographs):
    for photograph in photographs:
        found = [measure_quality(enlarged(photograph, factor)).detail for factor in (1, 2, 3, 4)]
        assert found == sorted(found, reverse=True)
        assert found[0] > 0.8
        assert found[1:] == pytest.approx([1 / 2, 1 / 3, 1 / 4], abs=0.16)


@pytest.mark.parametrize("size", [(1, 1), (1, 4000), (9000, 7), (8, 8), (17, 17), (16, 600), (700, 600)])
def test_any_size_and_flat_images_are_measured(size):
    flat = measure_quality(Image.new("RGB", size, (90, 80, 200)))
    assert (flat.short_side, flat.jpeg, flat.blockiness, flat.detail) == (min(size), UNCOMPRESSED, 0, 0)
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    noise = measure_quality(Image.fromarray(pixels))
    assert noise.jpeg == UNCOMPRESSED
    assert 0 <= noise.detail <= 1
    assert noise == measure_quality(Image.fromarray(pixels))


@pytest.mark.slow
def test_quality_and_scale_are_recovered_on_real_photographs(shared_data):
    folder = shared_data / "second/diffusiondb-coco-imagenet/real"
    files = sorted(folder.rglob("*.jpg"))[:60]
    originals = [decode_image(file.read_bytes()) for file in files]
    reduced = [image.resize((image.width // 2, image.height // 2), Image.Resampling.LANCZOS) for image in originals]
    for quality in (30, 50, 70):
        found = [measure_quality(encoded(image, quality)).jpeg for image in reduced]
        assert np.mean(np.abs(np.subtract(found, quality)) <= 4) >= 0.9
    details = [[measure_quality(enlarged(image, factor)).detail for image in reduced] for factor in (1, 2, 4)]
    assert np.all(np.diff(np.median(details, axis=1)) < -0.15)
