"""A training measures validation, test and the parts of test, each by the scores of its own images."""

import numpy as np

from realfake_hf.metrics.report import make_report
from realfake_hf.training.outcome import Predictions, make_outcome

N = 40


def predictions(seed: int) -> Predictions:
    p_fake = np.random.default_rng(seed).random(N)
    return Predictions(np.arange(N) % 2 == 1, ["frog", "ship", None, "cat"] * (N // 4), p_fake, p_before=p_fake**3)


def test_the_parts_of_the_test_split_are_the_images_of_their_masks() -> None:
    validation, test = predictions(0), predictions(1)
    free = np.random.default_rng(2).random(N) < 0.7
    draws = {"bootstrap_samples": 20, "seed": 3}
    found = make_outcome(
        validation, test, {"test_leak_free": free, "test_no_near_duplicate": None}, best_epoch=2, **draws
    )
    whole = np.ones(N, dtype=bool)
    expected = {"validation": (validation, whole), "test": (test, whole), "test_leak_free": (test, free)}
    for name, (split, rows) in expected.items():
        content = np.array(split.content)[rows].tolist()
        assert getattr(found, name) == make_report(split.is_fake[rows], split.p_fake[rows], content=content, **draws)
        assert found.ece_before[name] == make_report(split.is_fake[rows], split.p_before[rows], **draws).ece
    assert (found.best_epoch, found.test_no_near_duplicate) == (2, None)
