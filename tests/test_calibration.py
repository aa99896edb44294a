"""Threshold, temperature, reliability, risk-coverage and the abstention band, each against a plain reference."""

import json
from dataclasses import asdict
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit
from scipy.stats import binomtest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score

from realfake_hf.estimate import from_plain
from realfake_hf.labels import Verdict
from realfake_hf.metrics.calibration import (
    best_threshold,
    choose_band,
    choose_operating_point,
    choose_threshold,
    confidence_histogram,
    fit_temperature,
    log_odds,
    reliability,
    risk_coverage,
    scale,
)
from realfake_hf.metrics.intervals import share
from realfake_hf.metrics.operating_point import Band, OperatingPoint
from realfake_hf.metrics.report import make_report


def scored(n=4000, temperature=1.0, shift=0.0, seed=0):
    """Return labels drawn from true log-odds, and probabilities with these log-odds times a temperature."""
    random = np.random.default_rng(seed)
    odds = random.normal(shift, 3, n)
    return random.random(n) < expit(odds), expit(odds * temperature)


SCORES = st.lists(st.tuples(st.booleans(), st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0])), min_size=1)


def count_right(truth, scores, threshold):
    return int(((scores > threshold) == truth).sum())


@given(SCORES)
def test_no_threshold_is_more_accurate_than_the_best_one(scored_images):
    truth, scores = (np.array(column) for column in zip(*scored_images, strict=True))
    found = best_threshold(truth, scores)
    assert 0 <= found <= 1
    assert count_right(truth, scores, found) == max(
        count_right(truth, scores, other) for other in np.linspace(0, 1, 201)
    )


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 1, width=32)), min_size=1, max_size=40))
def test_the_best_threshold_is_that_of_all_midpoints_by_scikit_learn(scored_images):
    truth, scores = (np.array(column) for column in zip(*scored_images, strict=True))
    values = sorted(set(scores.tolist()))
    midpoints = [0.0, *((low + high) / 2 for low, high in pairwise(values)), 1.0]
    accuracy = {middle: accuracy_score(truth, scores > middle) for middle in midpoints}
    best = [middle for middle in midpoints if accuracy[middle] == max(accuracy.values())]
    assert best_threshold(truth, scores) == min(best, key=lambda middle: abs(middle - 0.5))


def test_one_half_is_kept_where_another_threshold_is_better_by_chance_only():
    others, p_others = scored(n=200_000, seed=99)
    gains, gains_elsewhere, choices = [], [], []
    for seed in range(20):  # the scores are calibrated, so that one half is the best threshold on other images
        is_fake, p_fake = scored(n=5000, seed=seed)
        found = best_threshold(is_fake, p_fake)
        gains.append(count_right(is_fake, p_fake, found) - count_right(is_fake, p_fake, 0.5))
        gains_elsewhere.append(count_right(others, p_others, found) - count_right(others, p_others, 0.5))
        choices.append(choose_threshold(is_fake, p_fake))
    assert min(gains) > 0 > np.mean(gains_elsewhere)
    kept = [chosen for threshold, chosen in choices if threshold == 0.5]
    assert len(kept) >= 19  # in one of forty cases chance is significant
    assert all(chosen.startswith("one half: a cross-fitted threshold changes the accuracy by ") for chosen in kept)
    assert all("points on 5,000 validation images, p = " in chosen for chosen in kept)


@pytest.mark.parametrize("seed", range(4))
def test_the_threshold_moves_where_the_scores_are_shifted(seed):
    is_fake, p_fake = scored(n=5000, seed=seed)
    shifted = expit(log_odds(p_fake) + 1.5)
    threshold, chosen = choose_threshold(is_fake, shifted)
    assert threshold == best_threshold(is_fake, shifted)
    assert threshold == pytest.approx(expit(1.5), abs=0.1)
    assert chosen.startswith("most accurate on validation instead of one half: a cross-fitted threshold changes ")
    assert ", p < 0.0001" in chosen


def test_a_threshold_that_is_significantly_worse_is_not_chosen(monkeypatch):
    is_fake, p_fake = scored(n=5000)
    monkeypatch.setattr("realfake_hf.metrics.calibration.best_threshold", lambda *_: 0.9)
    threshold, chosen = choose_threshold(is_fake, p_fake)
    assert threshold == 0.5
    assert "changes the accuracy by -" in chosen
    assert "p < 0.0001" in chosen


def test_the_choice_of_a_threshold_is_the_same_each_time_and_needs_few_images():
    is_fake, p_fake = scored(n=30)
    assert choose_threshold(is_fake, p_fake) == choose_threshold(is_fake, p_fake)
    assert choose_threshold([False, True], [0.2, 0.8])[0] == 0.5


def test_one_half_is_kept_where_nothing_is_better():
    assert best_threshold([False, True], [0.2, 0.8]) == 0.5
    assert best_threshold([False, True], [0.5, 0.5]) in (0.0, 1.0)


def test_the_best_threshold_follows_the_scores():
    generator = np.random.default_rng(0)
    truth = generator.random(2000) < 0.5
    scores = np.clip(0.2 + 0.1 * truth + 0.02 * generator.standard_normal(2000), 0, 1)
    assert abs(best_threshold(truth, scores) - 0.25) < 0.02


@pytest.mark.parametrize("spread", [0.02, 0.1, 0.5, 0.9])
def test_scores_without_an_error_do_not_become_certain(spread):
    is_fake = np.arange(40) % 2 == 1
    p_fake = np.where(is_fake, 0.5 + spread / 2, 0.5 - spread / 2)
    scaled = scale(p_fake, fit_temperature(is_fake, p_fake))
    assert scaled == pytest.approx(np.where(is_fake, 21 / 22, 1 / 22), abs=1e-6)  # Platt's targets for 20 images each


def regression_temperature(is_fake, p_fake):
    """Fit the temperature by a logistic regression on the smoothed labels."""
    n = np.where(is_fake, is_fake.sum(), (~is_fake).sum())
    target = np.where(is_fake, (n + 1) / (n + 2), 1 / (n + 2))
    odds = np.tile(log_odds(p_fake), 2)[:, None]
    labels, weights = np.repeat([True, False], len(n)), np.concatenate([target, 1 - target])
    slope = LogisticRegression(C=np.inf, fit_intercept=False, tol=1e-10).fit(odds, labels, sample_weight=weights)
    return 1 / slope.coef_[0, 0]


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_temperature_is_that_of_a_logistic_regression_on_the_smoothed_labels(temperature):
    is_fake, p_fake = scored(temperature=temperature)
    found = fit_temperature(is_fake, p_fake)
    assert found == pytest.approx(regression_temperature(is_fake, p_fake), rel=1e-4)
    assert found == pytest.approx(temperature, rel=0.1)


@pytest.mark.parametrize("shift", [-4, 4])
def test_each_label_is_smoothed_by_its_own_number_of_images(shift):
    is_fake, p_fake = scored(n=200, shift=shift)
    assert 0 < min(is_fake.sum(), (~is_fake).sum()) < 40
    assert fit_temperature(is_fake, p_fake) == pytest.approx(regression_temperature(is_fake, p_fake), rel=1e-4)


def test_scaling_with_the_reciprocal_undoes_a_temperature():
    p_fake = expit(np.linspace(-10, 10, 41))
    assert scale(scale(p_fake, 2.5), 1 / 2.5) == pytest.approx(p_fake, abs=1e-12)


def test_an_operating_point_is_on_the_scale_of_the_calibrated_scores():
    is_fake, p_fake = scored(n=5000, temperature=3.0)
    moved = expit(log_odds(p_fake) + 3.0)  # shifted and overconfident
    point = choose_operating_point(is_fake, moved, promised=0.05)
    scaled = scale(moved, point.temperature)
    assert point.temperature > 2
    right = count_right(is_fake, scaled, point.threshold)
    assert right == max(count_right(is_fake, scaled, other) for other in np.linspace(0, 1, 501))
    assert point.threshold < 0.8 < best_threshold(is_fake, moved)
    decided = np.array([point.band.decides(p) for p in scaled])
    assert 0.3 < decided.mean() < 0.95
    assert ((scaled > point.threshold) != is_fake)[decided].mean() <= 0.05
    before, after = (make_report(is_fake, p, bootstrap_samples=0).ece.value for p in (moved, scaled))
    assert after < before


def test_scaling_improves_the_calibration_and_keeps_the_order():
    is_fake, p_fake = scored(temperature=3.0)
    scaled = scale(p_fake, fit_temperature(is_fake, p_fake))
    before, after = (make_report(is_fake, p, bootstrap_samples=0) for p in (p_fake, scaled))
    assert after.ece.value < before.ece.value / 3
    assert after.nll.value < before.nll.value
    assert after.roc_auc.value == pytest.approx(before.roc_auc.value, abs=1e-4)


def test_certainty_has_finite_log_odds_of_both_signs():
    zero, one = log_odds(np.array([0.0, 1.0], dtype=np.float32))
    assert -20 < zero == -one < -10


def test_a_single_label_has_no_temperature():
    with pytest.raises(ValueError, match="found 3 real and 0 fake"):
        fit_temperature([False] * 3, [0.1, 0.2, 0.3])


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 1)), min_size=1, max_size=60))
def test_the_bins_add_up_to_the_calibration_error_of_the_report(rows):
    is_fake, p_fake = np.array([row[0] for row in rows]), np.array([row[1] for row in rows])
    bins = reliability(is_fake, p_fake)
    gaps = [one.n * abs(one.mean_p_fake - one.share_fake) for one in bins if one.n]
    assert sum(one.n for one in bins) == len(rows)
    assert sum(gaps) / len(rows) == pytest.approx(
        make_report(is_fake, p_fake, bootstrap_samples=0).ece.value, abs=1e-9
    )


def test_an_empty_bin_has_no_shares():
    assert reliability([True], [0.99])[0].mean_p_fake is None


def test_the_histogram_counts_every_verdict_once_by_the_probability_of_its_label():
    is_fake, p_fake = np.array([True, False, True, False]), np.array([0.97, 0.01, 0.4, 0.55])
    found = confidence_histogram(is_fake, p_fake, threshold=0.3)
    assert (sum(found.right), sum(found.wrong)) == (3, 1)
    assert found.right[-1] == 2  # 0.97 and 0.99
    assert (found.right[0], found.wrong[1]) == (1, 1)  # FAKE at 0.4 lies below the first edge


def test_risk_and_coverage_against_a_loop():
    is_fake, p_fake = scored(n=200, shift=1)
    p_fake = p_fake.round(2)  # ties
    threshold = 0.4
    distance = np.abs(log_odds(p_fake) - log_odds(threshold))
    is_wrong = (p_fake > threshold) != is_fake
    risks = [is_wrong[distance >= own].mean() for own in distance]
    found = risk_coverage(is_fake, p_fake, threshold=threshold)
    assert found.area == pytest.approx(np.mean(risks))
    expected = {round(float((distance >= own).mean()), 9): is_wrong[distance >= own].mean() for own in distance}
    assert {round(one, 9): risk for one, risk in zip(found.coverage, found.risk, strict=True)} == pytest.approx(
        expected
    )
    assert found.coverage[-1] == 1


def test_a_random_detector_gains_nothing_by_abstention():
    random = np.random.default_rng(0)
    is_fake, p_fake = random.random(20_000) < 0.5, random.random(20_000)
    assert risk_coverage(is_fake, p_fake, threshold=0.5).area == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("promised", [0.02, 0.05])
def test_the_band_keeps_its_promise_with_a_margin_on_the_images_it_was_chosen_on(promised):
    is_fake, p_fake = scored()
    band = choose_band(is_fake, p_fake, threshold=0.5, promised=promised)
    decided = np.array([band.decides(p) for p in p_fake])
    wrong = ((p_fake > 0.5) != is_fake)[decided]
    bound = binomtest(int(wrong.sum()), len(wrong), alternative="less").proportion_ci(0.95).high
    assert 0.1 < decided.mean() < 0.99
    assert wrong.mean() < bound <= promised
    assert log_odds(band.low) == pytest.approx(-log_odds(band.high), abs=1e-6)


@pytest.mark.slow
def test_the_promise_holds_on_other_images_of_the_same_kind_in_nineteen_of_twenty_cases():
    """The error rate outside the chosen band, on very many images, exceeds the promise in few of 200 runs."""
    is_fake, p_fake = scored(n=200_000, seed=99)
    broken = nones = 0
    for seed in range(200):
        own_fake, own_p = scored(n=1000, seed=seed)
        band = choose_band(own_fake, own_p, threshold=0.5, promised=0.05)
        if band is None:  # no promise was made
            nones += 1
            continue
        decided = (p_fake <= band.low) | (p_fake >= band.high)
        broken += ((p_fake > 0.5) != is_fake)[decided].mean() > 0.05
    assert nones < 10
    assert broken <= 18  # 10 expected at most; more than 18 of 200 would happen by chance once in a hundred


def test_a_detector_that_always_keeps_the_promise_never_abstains():
    is_fake = np.arange(2000) % 2 == 1
    band = choose_band(is_fake, np.where(is_fake, 0.9, 0.1), threshold=0.4)
    assert band == Band(0.4, 0.4, promised=0.01)
    assert str(band) == "never unsure"
    assert band.decides(0.4)


def test_a_random_detector_gets_no_band():
    random = np.random.default_rng(0)
    assert choose_band(random.random(2000) < 0.5, random.random(2000), threshold=0.5) is None


def test_a_promise_is_a_share():
    with pytest.raises(ValueError, match=r"promised error rate.*found 2"):
        choose_band([True, False], [0.9, 0.1], threshold=0.5, promised=2)


def test_a_band_has_its_ends_in_order():
    with pytest.raises(ValueError, match=r"band.*found 0\.7 and 0\.3"):
        Band(0.7, 0.3, promised=0.02)


def test_an_operating_point_with_band_survives_json_and_judges():
    is_fake, p_fake = scored(temperature=2)
    point = choose_operating_point(is_fake, p_fake, sha256="ab", promised=0.05)
    assert from_plain(OperatingPoint, json.loads(json.dumps(asdict(point)))) == point
    inside = (point.band.low + point.threshold) / 2
    assert point.judge(inside) == Verdict("REAL", inside, is_sure=False, reasons=("score",))
    assert point.judge(inside).words == "unsure, rather REAL"
    assert point.judge(1.0) == Verdict("FAKE", 1.0, is_sure=True)
    assert OperatingPoint(0.7, "by hand").judge(0.6) == Verdict("REAL", 0.6, is_sure=None)


def test_a_rate_of_nothing_is_undefined_and_of_something_has_the_exact_interval():
    assert str(share(0, 0)) == "undefined"
    found = share(0, 100)
    assert (found.value, found.low) == (0, 0)
    assert found.high == pytest.approx(1 - 0.025 ** (1 / 100))  # closed form for no case
