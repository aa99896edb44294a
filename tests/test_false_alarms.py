"""Who is wronged stands in order, and what an accusation is worth follows from Bayes' rule."""

import numpy as np
import pytest

from realfake_hf.crosseval.cell import UNKNOWN, false_alarms_by_content, false_discovery_rate
from realfake_hf.metrics.intervals import share


def test_people_come_first_then_what_is_surely_wrong_most_often():
    content = ["frog"] * 3 + ["ship"] * 40 + ["woman"] * 10 + [None] * 5 + ["frog"] * 4
    is_fake = np.array([False] * 58 + [True] * 4)
    called = np.zeros(62, dtype=bool)
    called[:3] = True  # all three frogs
    called[3:33] = True  # 30 of 40 ships: surely more than 0.5, where three frogs may be 0.3
    called[43] = True
    found = false_alarms_by_content(is_fake, called, content)
    assert [one.content for one in found] == ["woman", "ship", "frog", UNKNOWN]
    assert [(one.called_fake.k, one.called_fake.n) for one in found] == [(1, 10), (30, 40), (3, 3), (0, 5)]
    assert [one.shows_people for one in found] == [True, False, False, False]


def test_fakes_alone_wrong_nobody():
    assert false_alarms_by_content(np.ones(4, dtype=bool), np.ones(4, dtype=bool), ["frog"] * 4) == ()


def test_rare_fakes_make_most_accusations_wrong():
    found = false_discovery_rate(share(100, 1000), share(900, 1000), prevalence=0.01)
    assert found.value == pytest.approx(0.99 * 0.1 / (0.99 * 0.1 + 0.01 * 0.9))
    assert found.low < found.value < found.high
    assert found.format(".0%") == "92% (90% to 93%)"


def test_a_detector_that_accuses_nobody_is_not_wrong_about_them():
    assert str(false_discovery_rate(share(0, 50), share(0, 50), prevalence=0.1)) == "undefined"
    sure = false_discovery_rate(share(0, 50), share(50, 50), prevalence=0.1)
    assert sure.value == 0
    assert sure.high > 0.05  # 50 images do not show that no real one is ever called FAKE
