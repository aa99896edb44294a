"""The trivial baseline against plain arithmetic."""

import numpy as np
import pytest
from PIL import Image
from threadpoolctl import threadpool_limits

from realfake_hf.crosseval.models import fit_trivial, shrink, trivial_features


def random_images(n=40, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, 32, 32, 3), dtype=np.uint8)


def test_the_features_are_channel_moments_and_mean_log_power_by_radius():
    [one] = random_images(1)
    [found] = trivial_features(one[None])
    assert found.shape == (74,)
    assert found[:3] == pytest.approx(one.mean(axis=(0, 1)) / 255)
    assert found[3:6] == pytest.approx(one.std(axis=(0, 1)) / 255)
    power = np.log(np.abs(np.fft.fft2(one[..., 0] / 255)) ** 2 + 1e-8)
    rings = {radius: [] for radius in range(17)}
    for row in range(32):
        for column in range(32):
            away = [min(place, 32 - place) for place in (row, column)]
            rings[min(round((away[0] ** 2 + away[1] ** 2) ** 0.5), 16)].append(power[row, column])
    assert found[6:23] == pytest.approx([np.mean(ring) for ring in rings.values()])


def weights(baseline):
    return baseline[-1].coef_.tobytes() + baseline[-1].intercept_.tobytes()


def test_it_tells_bright_from_dark_and_is_the_same_each_time():
    is_fake = np.arange(40) % 2 == 1
    given = (random_images() // 2 + is_fake[:, None, None, None] * 100).astype(np.uint8)
    baseline, again, other = (fit_trivial(given, labels) for labels in (is_fake, is_fake, ~is_fake))
    assert (baseline.predict(trivial_features(given)) == is_fake).all()
    assert weights(baseline) == weights(again) != weights(other)


@pytest.mark.slow
def test_what_is_learned_does_not_depend_on_the_number_of_cores():
    is_fake = np.arange(10_000) % 2 == 1  # fewer are not shared out
    given, digests = random_images(10_000), set()
    for cores in (1, 2):
        with threadpool_limits(cores):
            digests.add(weights(fit_trivial(given, is_fake)))
    assert len(digests) == 1


def test_images_of_any_size_become_small_ones():
    sizes = [(32, 32), (50, 20), (3, 3)]
    assert shrink([Image.new("RGB", size, "red") for size in sizes]).shape == (3, 32, 32, 3)
