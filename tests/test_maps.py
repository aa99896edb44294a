import numpy as np
import pytest
from study_models import plain_and_striped, stripe_finder

from realfake_hf.explain_study.maps import is_empty, maps_on_grid, to_grid


def maps(n=6, side=8, seed=0):
    return np.random.default_rng(seed).random((n, side, side))


def test_finer_maps_are_averaged_and_coarser_maps_repeated():
    fine = maps(side=16)
    np.testing.assert_allclose(to_grid(fine), fine.reshape(6, 8, 2, 8, 2).mean(axis=(2, 4)), atol=1e-6)
    coarse = maps(side=4)
    np.testing.assert_allclose(to_grid(coarse), coarse.repeat(2, axis=1).repeat(2, axis=2), atol=1e-6)
    assert to_grid(maps()).dtype == np.float64


def test_constant_maps_are_empty():
    heat = maps()
    heat[1], heat[3] = 0.0, 1.0
    assert is_empty(heat).tolist() == [False, True, False, True, False, False]


def test_maps_on_the_grid_are_averaged_and_empty_maps_are_nan():
    sample = plain_and_striped(6, where=np.s_[:8, :8])
    maps = maps_on_grid(stripe_finder(), sample.images, "grad_cam", target="FAKE")
    assert maps.shape == (6, 8, 8)
    assert np.isnan(maps).all(axis=(1, 2)).tolist() == [True, False] * 3
    assert (maps[1, :2, :2] > 0).all()
    assert maps[1].sum() == pytest.approx(maps[1, :2, :3].sum())
