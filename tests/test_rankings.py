"""Rankings of methods by several tests, and their rank correlation with intervals."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kendalltau
from study_models import is_plain_json

from realfake_hf.explain_study.rankings import compare_tests, kendall_tau
from realfake_hf.metrics.intervals import Resampling

N = 60
ROWS = st.lists(st.integers(0, 3), min_size=5, max_size=5)


def scored(*means, noise=0.01, seed=0):
    """Scores of methods a, b, ... with these means."""
    rng = np.random.default_rng(seed)
    return {name: mean + rng.normal(0, noise, N) for name, mean in zip("abcdef", means, strict=False)}


def compared(samples=200, **tests):
    found = compare_tests(tests, Resampling(np.ones(N), samples=samples))
    assert is_plain_json(found)
    return found


def taus_of(found):
    return {(pair["a"], pair["b"]): pair["tau"] for pair in found["pairs"]}


@given(st.lists(ROWS, min_size=2, max_size=6), st.integers(0, 9))
def test_tau_is_that_of_scipy_in_each_row_also_with_ties(rows, seed):
    a = np.array(rows, dtype=float)
    b = np.random.default_rng(seed).integers(0, 3, a.shape).astype(float)
    expected = [kendalltau(x, y).statistic for x, y in zip(a, b, strict=True)]
    np.testing.assert_allclose(kendall_tau(a, b), expected)


def test_equal_scores_have_a_tau_of_1_and_reversed_ones_of_minus_1():
    one = scored(0.3, 0.1, 0.2, 0.4)
    found = compared(deletion=one, insertion=one, other={name: -values for name, values in one.items()})
    taus = taus_of(found)
    assert [taus[pair]["value"] for pair in taus] == pytest.approx([1, -1, -1])
    assert all(tau["low"] == tau["value"] == tau["high"] for tau in taus.values())  # far apart, compared to the noise
    assert found["mean_tau"]["value"] == pytest.approx(-1 / 3)
    assert {name: rank["value"] for name, rank in found["ranks"]["deletion"].items()} == {
        "a": 2,
        "b": 4,
        "c": 3,
        "d": 1,
    }
    assert {name: rank["value"] for name, rank in found["ranks"]["other"].items()} == {"a": 3, "b": 1, "c": 2, "d": 4}


def test_the_interval_of_a_rank_contains_the_ranks_that_images_leave_open():
    scores = scored(0.5, 0.30001, 0.3, 0.1, noise=0.05)
    found = compared(deletion=scores, insertion=scores)["ranks"]["deletion"]
    ends = {name: (rank["low"], rank["high"]) for name, rank in found.items()}
    assert (ends["a"], ends["d"]) == ((1, 1), (4, 4))
    assert ends["b"] == ends["c"] == (2, 3)


def test_the_interval_of_tau_contains_the_true_value():
    """Both tests rank three methods alike; a fourth one is last in one test, and its place in the other is open."""
    intervals = []
    for seed in range(20):
        one = scored(0.4, 0.3, 0.2, 0.1, noise=0.05, seed=seed)
        other = scored(0.4, 0.3, 0.2, 0.195, noise=0.05, seed=seed + 100)
        [tau] = taus_of(compared(one=one, other=other)).values()
        intervals.append((tau["low"], tau["high"]))
    low, high = np.transpose(intervals)
    assert (high == 1).mean() >= 0.9
    assert (low < 1).mean() > 0.5


def test_equal_methods_share_their_rank_and_leave_tau_undefined_if_nothing_else_is_ranked():
    same = scored(0.3)["a"]
    found = compared(deletion={"a": same, "b": same}, insertion=scored(0.1, 0.2))
    assert [rank["value"] for rank in found["ranks"]["deletion"].values()] == [1.5, 1.5]
    assert taus_of(found)["deletion", "insertion"]["value"] is None


def test_methods_are_compared_on_the_images_that_all_of_them_score():
    one = scored(0.3, 0.2, 0.25)
    one["a"][:20] = -9.0
    one["b"][:20] = np.nan
    found = compared(deletion=one, insertion=scored(0.3, 0.2, 0.25))
    assert found["ranks"]["deletion"]["a"]["value"] == 1
    assert {(rank["n"], rank["undefined"]) for rank in found["ranks"]["insertion"].values()} == {(40, 20)}
    assert (found["mean_tau"]["value"], found["mean_tau"]["n"]) == (1, 40)


def test_a_method_without_any_score_is_left_out():
    one, other = scored(0.3, 0.2, 0.25), scored(0.3, 0.2, 0.25)
    one["c"][:] = np.nan
    found = compared(deletion=one, insertion=other)
    assert [*found["ranks"]["insertion"]] == ["a", "b"]
    assert found["mean_tau"]["n"] == N
    for name in "ab":
        other[name][:] = np.nan
    found = compared(deletion=one, insertion=other)
    assert found["ranks"] == {"deletion": {}, "insertion": {}}
    assert found["mean_tau"]["value"] is None
