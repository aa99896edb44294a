"""The band for new sources: bad groups widen it, large ones do not hide them, and new groups keep its promise."""

import json

import numpy as np
import pytest
from scipy.special import expit, logit
from scipy.stats import binomtest

from realfake_hf.estimate import from_plain, to_plain
from realfake_hf.metrics.group_band import choose_for_groups, fit_threshold, outcome
from realfake_hf.metrics.operating_point import Band, Limits, OperatingPoint


def planted(n_good=40, size=20, bad=0, bad_size=20, *, offset=0.0, seed=0):
    """Scores of groups, each with both labels; `offset` shifts the log-odds of all images of the bad groups."""
    random = np.random.default_rng(seed)
    sizes = [size] * n_good + [bad_size] * bad
    groups = np.repeat(np.arange(len(sizes)), sizes)
    is_fake = random.random(len(groups)) < 0.5
    shift = np.where(groups >= n_good, offset, 0) + random.normal(0, 0.5, len(sizes))[groups]
    log_odds = np.where(is_fake, 2.5, -2.5) + random.normal(0, 1.5, len(groups)) + shift
    return is_fake, expit(log_odds), groups, groups % 5


def width(point):
    return float(logit(point.band.high) - logit(point.band.low))


def test_the_promise_holds_on_the_groups_of_the_choice_and_the_point_judges_as_counted():
    is_fake, p_fake, groups, folds = planted(bad=10, offset=2.0)
    point = choose_for_groups(is_fake, p_fake, groups, folds, error=0.08, false_alarms=0.02)
    found = outcome(point, is_fake, p_fake, groups)
    assert found.worst_wrong <= 0.08
    assert found.worst_false_alarms <= 0.02
    assert found.groups == 50
    assert found.decided.value > 0.5
    low, high = point.band.low, point.band.high
    assert found.decided.k == ((p_fake <= low) | (p_fake >= high)).sum()
    assert found.wrong.k == (is_fake & (p_fake <= low)).sum() + (~is_fake & (p_fake >= high)).sum()
    assert found.false_alarms.k == (~is_fake & (p_fake >= high)).sum()
    assert low <= point.threshold <= high
    assert point.band.promised == 0.08
    assert from_plain(OperatingPoint, json.loads(json.dumps(to_plain(point)))) == point


@pytest.mark.parametrize("size", [20, 200])
def test_a_fifth_of_bad_groups_widens_the_band_and_larger_good_groups_do_not_hide_them(size):
    good = choose_for_groups(*planted(n_good=54, size=size))
    found = choose_for_groups(*planted(size=size, bad=14, offset=2.5))  # whose real images look AI-generated
    assert width(found) > width(good) + 0.3
    assert logit(found.band.high) > logit(good.band.high) + 0.5


def test_a_real_image_called_fake_weighs_more():
    data = planted(n_good=60)
    even = choose_for_groups(*data, false_alarms=1)
    strict = choose_for_groups(*data, false_alarms=0.005)
    assert strict.band.high > even.band.high
    assert outcome(strict, *data[:3]).false_alarms.value < outcome(even, *data[:3]).false_alarms.value


def test_threshold_and_temperature_undo_a_distortion_of_the_log_odds_whatever_the_sizes_of_groups():
    is_fake, p_fake, groups, folds = planted(n_good=300)
    plain = choose_for_groups(is_fake, p_fake, groups, folds)
    distorted = choose_for_groups(is_fake, expit(3 * logit(p_fake) + 1.2), groups, folds)
    assert distorted.temperature == pytest.approx(3 * plain.temperature, rel=0.05)
    assert logit(distorted.threshold) == pytest.approx(3 * logit(plain.threshold) + 1.2, abs=0.05)
    repeated = np.concatenate([np.arange(len(groups)), np.repeat(np.flatnonzero(is_fake), 2)])
    unbalanced = choose_for_groups(*(each[repeated] for each in (is_fake, p_fake, groups, folds)))
    assert logit(unbalanced.threshold) == pytest.approx(logit(plain.threshold), abs=0.1)


def test_a_group_of_most_images_moves_the_threshold_by_the_root_of_its_size():
    thresholds = [
        fit_threshold(*planted(n_good=60, bad=1, bad_size=size, offset=2.0)[:3])[0] for size in (20, 5000)
    ]  # of which the large group weighs a fifth
    moved = np.diff(logit(thresholds))
    assert 0.1 < moved < 0.8


def worst_wrong(n_wrong):
    """The worst share of wrong verdicts, of groups of a hundred images with these numbers of errors."""
    groups, image = np.divmod(np.arange(100 * len(n_wrong)), 100)
    point = OperatingPoint(0.5, "here", band=Band(0.5, 0.5, 0.1))
    return outcome(point, image >= np.array(n_wrong)[groups], np.full(len(groups), 0.9), groups).worst_wrong


def test_the_worst_share_is_an_upper_bound_of_the_share_in_four_of_five_groups_and_at_least_the_mean():
    rank = next(k for k in range(40) if binomtest(k, 40, 0.8, alternative="less").pvalue >= 0.95)
    assert worst_wrong(range(40)) == pytest.approx((rank + 2 * 0.195) / 102)
    assert worst_wrong([0] * 37 + [100] * 3) == pytest.approx(0.075)


def test_groups_of_one_image_or_one_label_or_without_verdict_are_counted():
    is_fake, p_fake, groups, folds = planted()
    single = np.arange(1000, 1020)
    data = (
        np.concatenate([is_fake, single % 2 == 0]), np.concatenate([p_fake, np.full(20, 0.5)]),
        np.concatenate([groups, single]), np.concatenate([folds, single % 5]),
    )  # fmt: skip
    found = outcome(choose_for_groups(*data), *data[:3])
    assert found.groups == 60
    assert found.worst_wrong <= 0.1


def test_widening_by_the_views_is_part_of_the_choice():
    is_fake, p_fake, groups, folds = planted()
    spread = np.random.default_rng(1).exponential(1, len(groups))
    point = choose_for_groups(is_fake, p_fake, groups, folds, spread=spread, limits=Limits(widening=1.5))
    found = outcome(point, is_fake, p_fake, groups, spread=spread)
    assert found.worst_wrong <= 0.1
    assert found.worst_false_alarms <= 0.03
    assert found.decided.k < outcome(point, is_fake, p_fake, groups).decided.k


def test_the_promise_holds_in_each_variant_not_in_all_together():
    is_fake, p_fake, groups, folds = planted(n_good=60, size=40)
    variant = np.arange(len(groups)) % 10 == 0  # a tenth of the images, of each group
    noise = np.random.default_rng(2).normal(0, 2, len(groups)) * variant
    p_fake = expit(logit(p_fake) + noise)
    together = choose_for_groups(is_fake, p_fake, groups, folds)
    apart, swapped = (choose_for_groups(is_fake, p_fake, groups, folds, variants=kind) for kind in (variant, ~variant))
    assert swapped.band == apart.band
    found = [outcome(point, is_fake[variant], p_fake[variant], groups[variant]) for point in (together, apart)]
    assert found[0].worst_wrong > 0.1 >= found[1].worst_wrong
    assert found[1].worst_false_alarms <= 0.03
    assert outcome(apart, is_fake[~variant], p_fake[~variant], groups[~variant]).worst_wrong <= 0.1


def test_the_order_and_the_names_of_the_groups_change_nothing():
    is_fake, p_fake, groups, folds = planted(bad=8, offset=1.5)
    order = np.random.default_rng(0).permutation(len(groups))
    names = np.array([f"owner {group}" for group in groups])
    found = choose_for_groups(is_fake[order], p_fake[order], names[order], folds[order])
    expected = choose_for_groups(is_fake, p_fake, groups, folds)
    assert found.band == expected.band
    assert found.threshold == pytest.approx(expected.threshold, abs=1e-6)


def test_scores_that_were_not_judged_out_of_fold_or_too_few_groups_are_refused():
    is_fake, p_fake, groups, folds = planted(n_good=20)
    with pytest.raises(ValueError, match=r"one fold.*found 0"):
        choose_for_groups(is_fake, p_fake, groups, np.arange(len(groups)) % 5)
    with pytest.raises(ValueError, match="of 4 groups"):
        choose_for_groups(*(each[groups < 4] for each in (is_fake, p_fake, groups, folds)))
    with pytest.raises(ValueError, match="two folds"):
        choose_for_groups(is_fake, p_fake, groups, np.zeros(len(groups)))
    with pytest.raises(ValueError, match="found 0 real"):
        choose_for_groups(np.ones(len(groups)), p_fake, groups, folds)
    with pytest.raises(ValueError, match="slope"):
        choose_for_groups(~is_fake, p_fake, groups, folds)


def test_scores_that_say_nothing_decide_nothing():
    is_fake, _, groups, folds = planted(size=50)
    p_fake = expit(np.random.default_rng(5).normal(0, 1, len(groups)) + 0.2 * is_fake)
    with pytest.raises(ValueError, match="decided with at most 1%"):
        choose_for_groups(is_fake, p_fake, groups, folds, error=0.01)


@pytest.mark.slow
def test_the_promise_holds_for_new_groups_of_the_same_kind():
    """At least four of five new groups keep each promise, in nearly all of forty choices."""
    kept = []
    for seed in range(40):
        is_fake, p_fake, groups, folds = _exchangeable(120, seed)
        band = choose_for_groups(is_fake, p_fake, groups, folds).band
        is_fake, p_fake, groups, _ = _exchangeable(1000, 1000 + seed)
        called_real, called_fake = p_fake <= band.low, p_fake >= band.high
        wrong = np.bincount(groups, (is_fake & called_real) | (~is_fake & called_fake))
        alarms, n_real = np.bincount(groups, ~is_fake & called_fake), np.bincount(groups, ~is_fake)
        decided = np.bincount(groups, called_real | called_fake)
        kept.append([np.mean(wrong <= 0.1 * decided), np.mean(alarms <= 0.03 * n_real)])
    assert np.all(np.mean(np.array(kept) >= 0.8, axis=0) >= 0.9)


def _exchangeable(n_groups, seed):
    """Groups of 5 to 100 images with offsets of their own."""
    random = np.random.default_rng(seed)
    groups = np.repeat(np.arange(n_groups), random.integers(5, 101, n_groups))
    is_fake = random.random(len(groups)) < random.choice([0.0, 0.5, 1.0], n_groups)[groups]
    offsets = random.normal(0, 1.2, n_groups)[groups]
    log_odds = np.where(is_fake, 2.4, -2.4) + offsets + random.normal(0, 1.6, len(groups))
    return is_fake, expit(log_odds), groups, groups % 5
