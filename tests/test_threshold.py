import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from realfake_hf.metrics.threshold import best_threshold

IMAGES = st.lists(st.tuples(st.booleans(), st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0])), min_size=1)


def right(truth, scores, threshold):
    return int(((scores > threshold) == truth).sum())


@given(IMAGES)
def test_no_threshold_is_right_more_often(images):
    truth, scores = (np.array(column) for column in zip(*images, strict=True))
    found = best_threshold(truth, scores)
    assert 0 <= found <= 1
    assert right(truth, scores, found) == max(right(truth, scores, other) for other in np.linspace(0, 1, 201))


def test_one_half_is_kept_where_nothing_is_better():
    assert best_threshold([False, True], [0.2, 0.8]) == 0.5
    assert best_threshold([False, True], [0.5, 0.5]) in (0.0, 1.0)


def test_it_follows_the_scores():
    generator = np.random.default_rng(0)
    truth = generator.random(2000) < 0.5
    scores = np.clip(0.2 + 0.1 * truth + 0.02 * generator.standard_normal(2000), 0, 1)
    assert abs(best_threshold(truth, scores) - 0.25) < 0.02
