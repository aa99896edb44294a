import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ttest_1samp

from realfake_hf.estimate import Difference, Estimate, to_plain
from realfake_hf.metrics.intervals import Resampling, bootstrap_p
from realfake_hf.metrics.significance import correct_differences

COUNTS = st.lists(st.integers(1, 9), min_size=1, max_size=5)


def test_the_mean_of_the_whole_population_is_its_mean():
    values = np.random.default_rng(0).normal(size=50)
    mean = Resampling(np.ones(50)).mean(values)
    assert mean.value == pytest.approx(values.mean())
    assert (mean.n, mean.undefined) == (50, 0)
    assert mean.low < mean.value < mean.high


def test_the_interval_of_a_mean_is_about_two_standard_errors_to_each_side():
    values = np.random.default_rng(1).normal(size=2000)
    mean = Resampling(np.ones(2000), samples=2000).mean(values)
    assert mean.high - mean.low == pytest.approx(2 * 1.96 / 2000**0.5, rel=0.1)


@given(COUNTS, st.integers(0, 9))
def test_strata_sampled_unevenly_count_as_in_the_population(counts, seed):
    """One image per stratum, weighted with its size, has the mean of a population with constant strata."""
    heights = np.random.default_rng(seed).normal(size=len(counts))
    whole = np.repeat(heights, counts).mean()
    stratum = np.arange(len(counts))
    mean = Resampling(np.array(counts, dtype=float), stratum=stratum, samples=20).mean(heights)
    assert mean.value == pytest.approx(whole)
    assert (mean.low, mean.high) == pytest.approx((whole, whole))  # a stratum of one is always drawn


def test_images_without_a_value_are_left_out_and_counted():
    values = np.array([1.0, np.nan, 3.0, 100.0])
    mean = Resampling(np.ones(4), samples=50).mean(values, where=np.array([True, True, True, False]))
    assert (mean.value, mean.n, mean.undefined) == (2.0, 2, 1)


def test_a_mean_of_nothing_is_undefined():
    mean = Resampling(np.ones(2)).mean(np.full(2, np.nan))
    assert mean == Estimate(None, n=0, undefined=2)
    assert str(mean) == "undefined"


def test_without_replicates_there_is_no_interval():
    assert Resampling(np.ones(2), samples=0).mean(np.array([1.0, 3.0])) == Estimate(2.0, n=2, undefined=0)


def test_a_difference_is_that_of_two_means_over_the_same_replicates():
    values = np.array([1.0, 3.0, 10.0, 20.0, np.nan])
    of, less = np.array([False, False, True, True, True]), np.array([True, True, False, False, False])
    difference = Resampling(np.ones(5)).difference(values, of=of, less=less)
    assert (difference.value, difference.n, difference.undefined) == (13.0, 4, 1)


def test_a_statistic_that_is_a_mean_has_its_interval():
    values, weight = np.random.default_rng(3).normal(size=(2, 30))
    resampling = Resampling(np.exp(weight), stratum=np.arange(30) % 3, samples=100)
    found = resampling.statistic(lambda weights: weights @ values / weights.sum(axis=1))
    assert [found.value, found.low, found.high] == pytest.approx(
        [getattr(resampling.mean(values), name) for name in ("value", "low", "high")]
    )
    assert (found.n, found.undefined) == (30, 0)


def test_the_same_seed_gives_the_same_interval():
    values = np.random.default_rng(2).normal(size=30)
    one, same, other = (Resampling(np.ones(30), samples=100, seed=seed).mean(values) for seed in (0, 0, 1))
    assert one == same
    assert one != other


@pytest.mark.parametrize("shift", [0.0, 0.1, 0.2, 0.3])
def test_the_p_value_of_a_change_is_about_that_of_a_paired_t_test(shift):
    values = np.random.default_rng(5).normal(size=200) + shift
    change = Resampling(np.ones(200), samples=20_000).change(values)
    assert change.p_value == pytest.approx(ttest_1samp(values, 0).pvalue, rel=0.25, abs=0.005)
    assert (change.value, change.n) == (pytest.approx(values.mean()), 200)


def test_the_p_value_counts_replicates_at_0_on_both_sides_and_leaves_out_undefined_ones():
    assert bootstrap_p(np.array([0.1, 0.2, -0.1, 0.0, np.nan])) == min(1, 2 * 3 / 5)
    assert bootstrap_p(np.full(99, 0.5)) == 0.02
    assert bootstrap_p(np.zeros(99)) == 1


def test_an_undefined_difference_has_no_p_value():
    assert Resampling(np.ones(2)).change(np.full(2, np.nan)) == Difference(None, n=0, undefined=2)
    assert Resampling(np.ones(2), samples=0).change(np.ones(2)).p_value is None


def test_a_difference_of_statistics_is_tested_on_the_same_replicates():
    values = np.random.default_rng(3).normal(size=30)
    resampling = Resampling(np.ones(30), samples=500)
    found = resampling.statistic_change(lambda weights: weights @ values / weights.sum(axis=1))
    assert to_plain(found) == pytest.approx(to_plain(resampling.change(values)))


def test_only_the_p_values_that_exist_are_corrected_together():
    differences = [{"p_value": 0.01}, {"value": None}, {"p_value": 0.04}, {"p_value": None}]
    correct_differences(differences)
    assert [each.get("p_holm") for each in differences] == [0.02, None, 0.04, None]


@pytest.mark.parametrize(
    ("difference", "side"),
    [
        (Difference(0.1, 0.05, 0.15, p_value=0.01, p_holm=0.04), 1),
        (Difference(-0.1, -0.15, -0.05, p_value=0.01, p_holm=0.04), -1),
        (Difference(0.1, 0.05, 0.15, p_value=0.01, p_holm=0.06), 0),
        (Difference(0.1, 0.05, 0.15, p_value=0.01), 1),
        (Difference(None), 0),
    ],
)
def test_the_corrected_p_value_decides_the_side_of_a_difference(difference, side):
    assert difference.side == Difference.from_dict(to_plain(difference)).side == side
