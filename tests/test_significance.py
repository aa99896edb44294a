from dataclasses import asdict
from itertools import product
from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import fisher_exact, norm
from sklearn.metrics import roc_auc_score

from realfake_hf.metrics.report import make_report
from realfake_hf.metrics.significance import (
    Gap,
    McNemar,
    compare_auc,
    holm,
    mcnemar,
    paired_bootstrap,
    rate_gap,
)

cells = st.tuples(*[st.integers(0, 40)] * 4).filter(any)


def compare(both_right: int, only_a: int, only_b: int, both_wrong: int) -> McNemar:
    """Compare two classifiers, given the number of images in each of the four cells."""
    counts = [both_right, only_a, only_b, both_wrong]
    return mcnemar(np.repeat([True, True, False, False], counts), np.repeat([True, False, True, False], counts))


def plain_p_value(only_a: int, only_b: int) -> float:
    """Sum the probabilities of all splits that are at most as likely as the observed one, under fair coins."""
    n = only_a + only_b
    return sum(comb(n, k) for k in range(n + 1) if comb(n, k) <= comb(n, only_a)) / 2**n


@pytest.mark.parametrize(
    ("only_a", "only_b", "p_value"),
    [(0, 0, 1), (1, 0, 1), (3, 3, 1), (5, 0, 2 / 2**5), (1, 9, 2 * (1 + 10) / 2**10), (2, 6, 2 * (1 + 8 + 28) / 2**8)],
)
def test_the_p_value_is_that_of_a_calculation_by_hand(only_a: int, only_b: int, p_value: float) -> None:
    assert compare(7, only_a, only_b, 4).p_value == pytest.approx(p_value)


@given(cells)
def test_the_p_value_is_that_of_plain_python(counts: tuple[int, int, int, int]) -> None:
    assert compare(*counts).p_value == pytest.approx(plain_p_value(*counts[1:3]))


@given(cells)
def test_images_on_which_both_are_right_or_both_wrong_do_not_change_the_p_value(
    counts: tuple[int, int, int, int],
) -> None:
    assert compare(*counts).p_value == compare(1, *counts[1:3], 0).p_value


@given(cells)
def test_swapping_the_classifiers_leaves_p_and_turns_the_difference(counts: tuple[int, int, int, int]) -> None:
    both_right, only_a, only_b, both_wrong = counts
    one, other = compare(*counts), compare(both_right, only_b, only_a, both_wrong)
    assert other.p_value == pytest.approx(one.p_value)
    assert other.difference == -one.difference
    assert other.difference_low == pytest.approx(-one.difference_high, abs=1e-12)
    assert other.difference_high == pytest.approx(-one.difference_low, abs=1e-12)


@given(cells)
def test_the_interval_holds_the_difference_of_the_accuracies_and_stays_in_range(
    counts: tuple[int, int, int, int],
) -> None:
    both_right, only_a, only_b, _ = counts
    result = compare(*counts)
    accuracies = [(both_right + only) / sum(counts) for only in (only_a, only_b)]
    assert result.difference == pytest.approx(accuracies[0] - accuracies[1])
    assert -1 - 1e-12 <= result.difference_low <= result.difference <= result.difference_high <= 1 + 1e-12


@pytest.mark.parametrize(
    ("counts", "low", "high", "digits"),
    [
        ((36, 12, 2, 0), 0.0569, 0.3404, 4),  # Newcombe (1998), method 10
        ((14, 5, 0, 22), 0.011, 0.226, 3),  # Altman et al. (2000), Statistics with Confidence, table 6.2
    ],
)
def test_the_interval_is_the_published_one(
    counts: tuple[int, int, int, int], low: float, high: float, digits: int
) -> None:
    result = compare(*counts)
    assert (round(result.difference_low, digits), round(result.difference_high, digits)) == (low, high)


def test_nineteen_of_twenty_intervals_hold_the_true_difference() -> None:
    chances = [0.93, 0.035, 0.015, 0.02]
    draws = np.random.default_rng(0).multinomial(500, chances, size=200)
    results = [compare(*counts) for counts in draws.tolist()]
    held = np.mean([result.difference_low <= 0.02 <= result.difference_high for result in results])
    assert 0.93 < held < 0.98


def test_the_four_cells_count_every_image_once() -> None:
    right_a = np.array([True, True, True, False, False, False])
    right_b = np.array([True, True, False, True, False, False])
    result = mcnemar(right_a, right_b)
    assert (result.n, result.both_right, result.only_a, result.only_b, result.both_wrong) == (6, 2, 1, 1, 2)


def test_only_plain_numbers_are_in_the_dictionary_and_they_make_the_result_again() -> None:
    result = compare(50, 9, 2, 4)
    assert {type(value) for value in asdict(result).values()} == {int, float}
    assert McNemar(**asdict(result)) == result


def test_the_words_name_the_classifiers_and_give_counts_difference_and_p() -> None:
    assert compare(18_000, 1_000, 200, 800).to_words(a="vit", b="cnn") == (
        "only vit is right on 1,000 of 20,000 images, only cnn on 200: vit minus cnn +4.00 points (+3.67 to +4.34), "
        "p < 0.0001"
    )


def test_a_p_value_that_is_not_tiny_is_printed_with_two_digits() -> None:
    assert compare(50, 9, 2, 4).to_words(a="a", b="b").endswith("p = 0.065")


@pytest.mark.parametrize(
    ("right_a", "right_b", "found"),
    [
        ([], [], r"found \(0,\) of float64 and \(0,\) of float64"),
        ([True], [True, False], r"found \(1,\) of bool and \(2,\) of bool"),
        ([1, 0], [True, False], r"found \(2,\) of int64 and \(2,\) of bool"),
        ([[True]], [[True]], r"found \(1, 1\) of bool and \(1, 1\) of bool"),
    ],
)
def test_other_arrays_are_refused_with_their_shapes_and_types(
    right_a: list[object], right_b: list[object], found: str
) -> None:
    with pytest.raises(ValueError, match=found):
        mcnemar(right_a, right_b)


def flags(n=60, seed=0):
    random = np.random.default_rng(seed)
    return random.random(n) < 0.7, random.random(n) < 0.4, random.random(n) < 0.5


def plain_exact(tables):
    """Sum the probabilities of all outcomes that are at most as likely as the observed one."""

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


def test_the_interval_equals_that_of_drawing_images():
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


def test_a_gap_prints_points() -> None:
    assert str(Gap(1, 1, 0.5, 0.75, -0.25, -0.5, 0.0, 1.0)) == "-25.0 points (-50.0 to +0.0)"


def test_holm_never_lets_a_smaller_p_value_overtake_a_larger_one():
    assert holm([0.001, 0.5, 0.02, 0.9]) == pytest.approx([0.004, 1.0, 0.06, 1.0])
    assert holm([]) == []


def test_intervals_of_differences_draw_the_same_groups():
    generator = np.random.default_rng(0)
    is_fake, groups = np.tile([False, True], 60), np.repeat(np.arange(30), 4)
    good, bad = is_fake + generator.normal(size=120), is_fake + 3 * generator.normal(size=120)
    found = compare_auc(is_fake, {"wild": good, "other": bad, "same": good}, groups)
    assert (found["n"], found["n_fake"], found["n_groups"]) == (120, 60, 30)
    assert found["roc_auc"]["wild"]["value"] == pytest.approx(roc_auc_score(is_fake, good))
    gap, none = (found["roc_auc"][f"wild less {name}"] for name in ("other", "same"))
    assert gap["value"] == pytest.approx(roc_auc_score(is_fake, good) - roc_auc_score(is_fake, bad))
    assert 0 < gap["low"] < gap["value"] < gap["high"]
    assert none["low"] == none["high"] == 0
    assert (found["p_values"]["other"] < 0.05, found["p_values"]["same"]) == (True, 1)
    deviation = (gap["high"] - gap["low"]) / (2 * norm.isf(0.025))
    assert norm.isf(found["p_values"]["other"] / 2) == pytest.approx(gap["value"] / deviation, rel=0.1)


def test_copies_of_an_image_in_its_group_narrow_no_interval_of_a_difference():
    generator = np.random.default_rng(0)
    is_fake, groups = np.arange(60) % 2 == 1, np.arange(60) // 2
    scores = {name: is_fake + generator.normal(0, 2, 60) for name in ("one", "other")}
    alone = compare_auc(is_fake, scores, groups)
    copied = {name: np.repeat(each, 5) for name, each in scores.items()}
    found = compare_auc(np.repeat(is_fake, 5), copied, np.repeat(groups, 5))
    assert (found["roc_auc"], found["p_values"]) == (alone["roc_auc"], alone["p_values"])


def scorings(n=400, *, change=0.0, noise=0.0, seed=0):
    """Labels, scores, and the same scores with noise, those of the fakes also lower by `change`."""
    generator = np.random.default_rng(seed)
    is_fake = np.arange(n) % 2 == 1
    first = np.clip(generator.normal(0.4 + 0.2 * is_fake, 0.15), 0, 1)
    second = np.clip(first + generator.normal(0, noise, n) - change * is_fake, 0, 1)
    return is_fake, first, second


def test_a_small_change_of_all_images_is_found_where_the_intervals_of_both_overlap():
    is_fake, first, second = scorings(change=0.02, noise=0.005)
    found = paired_bootstrap(is_fake, first, second, threshold=0.5, samples=2000, seed=0)
    reports = [make_report(is_fake, scores, bootstrap_samples=500) for scores in (first, second)]
    for name, statistic in (("roc_auc", "roc_auc"), ("recall", "recall")):
        before, after = (getattr(report, statistic) for report in reports)
        assert after.high > before.low  # they overlap
        assert (found[name].first, found[name].second) == (pytest.approx(before.value), pytest.approx(after.value))
        assert found[name].difference.value == pytest.approx(after.value - before.value)
        assert found[name].difference.high < 0
        assert found[name].p_value < 0.01
    alarms = [1 - report.accuracy_real.value for report in reports]
    assert [found["false_positive_rate"].first, found["false_positive_rate"].second] == pytest.approx(alarms)
    assert found["false_positive_rate"].p_value > 0.05


def test_rates_are_those_at_the_threshold():
    is_fake, first, second = scorings(noise=0.1)
    for threshold in (0.3, 0.6):
        found = paired_bootstrap(is_fake, first, second, threshold=threshold, samples=10, seed=0)
        for name, among in (("recall", is_fake), ("false_positive_rate", ~is_fake)):
            expected = [(scores[among] > threshold).mean() for scores in (first, second)]
            assert [found[name].first, found[name].second] == pytest.approx(expected)


def test_equal_scores_do_not_differ():
    is_fake, first, _ = scorings()
    for each in paired_bootstrap(is_fake, first, first, threshold=0.5, samples=200, seed=0).values():
        assert (each.difference.value, each.difference.low, each.difference.high, each.p_value) == (0, 0, 0, 1)


def test_the_smallest_p_value_is_that_of_the_number_of_replicates():
    is_fake, first, _ = scorings()
    found = paired_bootstrap(is_fake, first, 1 - first, threshold=0.5, samples=120, seed=0)  # not a multiple of 50
    assert found["roc_auc"].p_value == pytest.approx(2 / 121)
    assert found["recall"].p_value == pytest.approx(2 / 121)


def test_a_seed_draws_its_own_replicates():
    is_fake, first, second = scorings(noise=0.1)
    drawn = [paired_bootstrap(is_fake, first, second, threshold=0.5, samples=50, seed=seed) for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1]
    assert drawn[0]["roc_auc"].difference != drawn[2]["roc_auc"].difference


@pytest.mark.parametrize("label", [False, True])
def test_with_one_label_only_its_rate_is_compared(label):
    is_fake, first, second = scorings(noise=0.1)
    own = is_fake == label
    found = paired_bootstrap(is_fake[own], first[own], second[own], threshold=0.5, samples=100, seed=0)
    assert set(found) == {"recall" if label else "false_positive_rate"}


def test_without_a_change_one_of_twenty_p_values_is_below_one_twentieth():
    def p_value(seed):
        is_fake, scores, first = scorings(n=200, noise=0.1, seed=seed)
        second = np.clip(scores + np.random.default_rng(1000 + seed).normal(0, 0.1, len(scores)), 0, 1)
        return paired_bootstrap(is_fake, first, second, threshold=0.5, samples=400, seed=seed)["roc_auc"].p_value

    p_values = np.array([p_value(seed) for seed in range(200)])
    assert (p_values < 0.05).mean() < 0.1
    assert 0.35 < (p_values < 0.5).mean() < 0.65


def test_the_interval_of_a_paired_difference_is_that_of_drawing_both_scores_of_an_image_together():
    is_fake, first, second = scorings(n=100, change=0.05, noise=0.05)
    found = paired_bootstrap(is_fake, first, second, threshold=0.5, samples=4000, seed=0)["recall"].difference
    generator, fakes = np.random.default_rng(1), np.flatnonzero(is_fake)
    drawn = generator.choice(fakes, (4000, len(fakes)))
    replicates = (second > 0.5)[drawn].mean(axis=1) - (first > 0.5)[drawn].mean(axis=1)
    assert [found.low, found.high] == pytest.approx(np.percentile(replicates, [2.5, 97.5]), abs=0.015)
