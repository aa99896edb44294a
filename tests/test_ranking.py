import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from realfake_hf.measure.ranking import roc_auc


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
