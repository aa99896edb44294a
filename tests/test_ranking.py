import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from realfake_hf.metrics import ranking
from realfake_hf.metrics.ranking import estimate_roc_auc, roc_auc


@settings(deadline=None)  # the first call imports
@given(st.integers(0, 999), st.integers(1, 9))
def test_it_is_that_of_scikit_learn_under_each_weighting_ties_included(seed, distinct):
    random = np.random.default_rng(seed)
    is_fake = np.array([True, False, *random.integers(0, 2, 10).astype(bool)])
    p_fake = random.integers(0, distinct, 12) / 10
    weights = random.uniform(0.1, 3, (3, 12)) * random.integers(0, 2, (3, 12))
    weights[:, :2] += 1  # one of each counts
    expected = [roc_auc_score(is_fake, p_fake, sample_weight=row) for row in weights]
    assert roc_auc(is_fake, p_fake, weights) == pytest.approx(expected)


def test_without_one_of_the_two_it_is_undefined():
    is_fake, p_fake = np.array([True, False]), np.array([0.2, 0.1], dtype=np.float32)
    assert roc_auc(is_fake, p_fake, np.array([[1.0, 0.0], [0.0, 1.0], [2.0, 1.0]])).tolist() == [
        pytest.approx(np.nan, nan_ok=True),
        pytest.approx(np.nan, nan_ok=True),
        1.0,
    ]


def test_an_interval_holds_the_value_and_narrows_with_the_number_of_pictures():
    random = np.random.default_rng(0)
    found = []
    for n in (100, 10_000):
        is_fake = np.arange(n) % 2 == 1
        found.append(estimate_roc_auc(is_fake, random.normal(is_fake, 1.0), samples=200, seed=0))
    small, large = found
    assert small.low < small.value < small.high
    assert large.high - large.low < (small.high - small.low) / 5
    assert large.value == pytest.approx(0.76, abs=0.02)  # of normal scores one deviation apart


def test_each_label_is_drawn_as_often_as_it_occurs():
    is_fake = np.array([True, False, False, True, False])
    weights = ranking._weights(is_fake, 7, np.random.default_rng(0))
    assert (weights[:, is_fake].sum(axis=1) == 2).all()
    assert (weights[:, ~is_fake].sum(axis=1) == 3).all()
    assert len(np.unique(weights, axis=0)) > 1


def test_one_label_has_no_roc_auc():
    assert estimate_roc_auc(np.ones(3, dtype=bool), np.arange(3.0), samples=10, seed=0).value is None
    assert estimate_roc_auc(np.array([True, False]), np.arange(2.0), samples=0, seed=0).low is None
