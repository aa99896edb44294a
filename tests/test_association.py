"""Gaps between groups against plain references."""

from itertools import product
from math import comb

import numpy as np
import pytest
from scipy.stats import fisher_exact

from realfake_hf.metrics.association import Gap, holm, rate_gap


def flags(n=60, seed=0):
    random = np.random.default_rng(seed)
    return random.random(n) < 0.7, random.random(n) < 0.4, random.random(n) < 0.5


def plain_exact(tables):
    """Sum, over all ways to place the right verdicts, those that are as likely as what was found or less."""

    def chance(hits):
        ways = [
            comb(n, k) * comb(m, a + b - k) / comb(n + m, a + b) for k, (a, b, n, m) in zip(hits, tables, strict=True)
        ]
        return float(np.prod(ways))

    by_sum = {}
    for hits in product(*(range(min(n, a + b) + 1) for a, b, n, _ in tables)):
        by_sum[sum(hits)] = by_sum.get(sum(hits), 0) + chance(hits)
    found = by_sum[sum(table[0] for table in tables)]
    return sum(value for value in by_sum.values() if value <= found * (1 + 1e-7))


@pytest.mark.parametrize("seed", range(5))
def test_with_one_label_the_test_is_fishers(seed):
    right, inside, _ = flags(seed=seed)
    table = [[np.sum(right & side), np.sum(~right & side)] for side in (inside, ~inside)]
    gap = rate_gap(right, inside, np.ones(60, dtype=bool), samples=0)
    assert gap.p_value == pytest.approx(fisher_exact(table).pvalue, abs=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_with_two_labels_the_test_is_that_of_plain_counting(seed):
    right, inside, is_fake = flags(24, seed)
    tables = [
        [
            int(np.sum(chosen & part))
            for chosen in (right, np.ones(24, dtype=bool))
            for part in (inside & of, ~inside & of)
        ]
        for of in (is_fake, ~is_fake)
    ]
    assert rate_gap(right, inside, is_fake, samples=0).p_value == pytest.approx(plain_exact(tables), abs=1e-12)


def test_the_rates_are_means_over_the_labels():
    right, inside, is_fake = flags()
    gap = rate_gap(right, inside, is_fake, samples=0)
    rates = [np.mean([right[side & of].mean() for of in (is_fake, ~is_fake)]) for side in (inside, ~inside)]
    assert (gap.rate, gap.rate_rest) == pytest.approx(rates)
    assert gap.value == pytest.approx(rates[0] - rates[1])
    assert (gap.n, gap.n_rest) == (inside.sum(), (~inside).sum())


def test_a_group_of_one_label_is_compared_with_the_rest_of_that_label():
    right, inside, is_fake = flags()
    inside &= is_fake
    gap = rate_gap(right, inside, is_fake, samples=0)
    assert gap.rate_rest == pytest.approx(right[~inside & is_fake].mean())
    assert gap.n + gap.n_rest == is_fake.sum()


def test_without_a_rest_the_gap_is_undefined():
    gap = rate_gap(np.ones(4, dtype=bool), np.ones(4, dtype=bool), np.array([True, False] * 2))
    assert gap == Gap(0, 0, None, None, None, None, None, 1.0)
    assert str(gap) == "undefined"


def test_the_interval_is_that_of_drawing_pictures():
    right, inside, is_fake = flags(400)
    gap = rate_gap(right, inside, is_fake, samples=4000, seed=1)
    random = np.random.default_rng(0)
    parts = [[right[side & of] for of in (is_fake, ~is_fake)] for side in (inside, ~inside)]
    drawn = [
        np.subtract(*(np.mean([random.choice(part, len(part)).mean() for part in side]) for side in parts))
        for _ in range(1000)
    ]
    assert (gap.low, gap.high) == pytest.approx(np.percentile(drawn, [2.5, 97.5]), abs=0.02)
    assert rate_gap(right, inside, is_fake, samples=4000, seed=1) == gap


def test_a_gap_survives_its_dictionary_and_says_itself():
    right, inside, is_fake = flags()
    gap = rate_gap(right, inside, is_fake, samples=20)
    assert Gap.from_dict(gap.to_dict()) == gap
    assert str(Gap(1, 1, 0.5, 0.75, -0.25, -0.5, 0.0, 1.0)) == "-25.0 points (-50.0 to +0.0)"


def test_holm_never_lets_a_smaller_p_value_overtake_a_larger_one():
    assert holm([0.001, 0.5, 0.02, 0.9]) == pytest.approx([0.004, 1.0, 0.06, 1.0])
    assert holm([]) == []
