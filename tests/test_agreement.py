import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import pearsonr, spearmanr

from realfake_hf.explain_study.map_agreement import (
    MEASURES,
    agreement,
    centre_distance,
    centre_gaussian,
    chance_iou,
    is_empty,
    pearson,
    shuffled,
    spearman,
    ssim,
    to_grid,
    top_iou,
)


def maps(n=6, side=8, seed=0):
    return np.random.default_rng(seed).random((n, side, side))


TIED = arrays(np.float64, (2, 4, 5), elements=st.sampled_from([0.0, 0.25, 0.5, 1.0]))


def test_a_map_agrees_with_itself():
    found = agreement(maps(), maps())
    for name, value in found.items():
        np.testing.assert_allclose(value, 0 if name == "centre_distance" else 1, atol=1e-9, err_msg=name)


@given(TIED, TIED)
@settings(max_examples=50)
def test_agreement_does_not_care_which_map_comes_first(a, b):
    for name, value in agreement(a, b).items():
        np.testing.assert_allclose(value, agreement(b, a)[name], atol=1e-12)


def test_correlations_are_those_of_scipy():
    a, b = np.round(maps(), 1), np.round(maps(seed=1), 1)  # with ties
    for one, other, linear, ranked in zip(a, b, pearson(a, b), spearman(a, b), strict=True):
        assert linear == pytest.approx(pearsonr(one.ravel(), other.ravel()).statistic)
        assert ranked == pytest.approx(spearmanr(one.ravel(), other.ravel()).statistic)


def test_ssim_is_that_of_scikit_image():
    metrics = pytest.importorskip("skimage.metrics")
    a, b = maps(side=9), maps(side=9, seed=1)
    expected = [
        metrics.structural_similarity(one, other, win_size=3, data_range=1, use_sample_covariance=False)
        for one, other in zip(a, b, strict=True)
    ]
    np.testing.assert_allclose(ssim(a, b), expected, atol=1e-9)


@pytest.mark.parametrize("share", [0.1, 0.2])
def test_overlap_is_that_of_sets_where_nothing_ties(share):
    a, b = maps(), maps(seed=1)
    count = round(share * 64)
    for one, other, found in zip(a, b, top_iou(a, b, share=share), strict=True):
        first, second = (set(np.argsort(cells.ravel())[-count:].tolist()) for cells in (one, other))
        assert found == pytest.approx(len(first & second) / len(first | second))


@given(TIED, st.sampled_from([0.1, 0.2, 0.5]))
@settings(max_examples=50)
def test_cells_that_tie_share_the_places_that_are_left(a, share):
    places = max(1, round(share * 20))
    alone = np.zeros((2, 4, 5))
    alone[:, 0, 0] = 1.0  # one certain cell, the others tie for the rest
    found = top_iou(a, a, share=share)
    np.testing.assert_allclose(found, 1.0)
    shared = top_iou(alone, np.roll(alone, 1, axis=2), share=share)
    left = (places - 1) / 19
    inside = 2 * min(1.0, left) + 18 * left if places > 1 else 0.0
    np.testing.assert_allclose(shared, inside / (2 * places - inside))


def test_overlap_at_chance_is_what_random_maps_have_on_average():
    for share in (0.1, 0.2):
        found = top_iou(maps(4000), maps(4000, seed=1), share=share)
        assert found.mean() == pytest.approx(chance_iou(64, share=share), abs=3 * found.std() / 4000**0.5)


def test_empty_maps_are_said_and_have_no_agreement():
    a, b = maps(), maps(seed=1)
    a[1], b[2], a[3] = 0.0, 0.4, 1.0
    assert is_empty(a).tolist() == [False, True, False, True, False, False]
    for value in agreement(a, b).values():
        assert np.isnan(value).tolist() == [False, True, True, True, False, False]


def test_distance_of_centres_is_a_share_of_the_diagonal():
    corners = np.zeros((2, 5, 5))
    corners[0, 0, 0] = corners[1, 4, 4] = 1
    assert centre_distance(corners[:1], corners[1:]).item() == pytest.approx(1)
    middle = np.zeros((1, 5, 5))
    middle[0, 2, 2] = 1
    assert centre_distance(corners[:1], middle).item() == pytest.approx(0.5)
    np.testing.assert_allclose(centre_distance(np.ones((1, 5, 5)), middle), 0, atol=1e-12)


def test_a_finer_map_is_averaged_and_a_coarser_one_repeated():
    fine = maps(side=16)
    np.testing.assert_allclose(to_grid(fine, (8, 8)), fine.reshape(6, 8, 2, 8, 2).mean(axis=(2, 4)), atol=1e-6)
    coarse = maps(side=4)
    np.testing.assert_allclose(to_grid(coarse, (8, 8)), coarse.repeat(2, axis=1).repeat(2, axis=2), atol=1e-6)
    assert to_grid(maps(), (8, 8)).dtype == np.float64


def test_the_centre_map_is_highest_in_the_middle_and_even_on_all_sides():
    centre = centre_gaussian((8, 8))
    np.testing.assert_allclose(centre, centre[::-1])
    np.testing.assert_allclose(centre, centre.T)
    assert centre.argmax() in (27, 28, 35, 36)
    assert 0 < centre.min() < centre.max() <= 1


@pytest.mark.parametrize("n", [2, 3, 100])
def test_shuffled_pairs_are_never_a_picture_with_itself(n):
    partner = shuffled(n, seed=0)
    assert sorted(partner.tolist()) == list(range(n))
    assert (partner != np.arange(n)).all()
    assert shuffled(n, seed=0).tolist() == partner.tolist()


def test_measures_have_their_names():
    assert list(MEASURES) == ["iou_top_10", "iou_top_20", "spearman", "pearson", "ssim", "centre_distance"]


@pytest.mark.parametrize(
    ("a", "b"), [(maps(), maps(side=7)), (maps(), maps(n=5)), (maps() * 2, maps()), (maps()[0], maps()[0])]
)
def test_maps_that_cannot_be_compared_are_refused(a, b):
    with pytest.raises(ValueError, match=r"wanted maps in \[0, 1\] of the same pictures on one grid"):
        agreement(a, b)


def test_one_picture_cannot_be_paired_with_another():
    with pytest.raises(ValueError, match="wanted two pictures or more to pair one with another; found 1"):
        shuffled(1, seed=0)
