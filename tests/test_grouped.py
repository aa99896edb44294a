"""Statistics of scored images with intervals over groups."""

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from realfake_hf.metrics.grouped import MIN_IMAGES, GroupedScores, by_column


def scored(n: int = 200, *, group_size: int = 1, seed: int = 0) -> GroupedScores:
    """Scores of groups with one label each, whose images deviate in the same way."""
    generator = np.random.default_rng(seed)
    is_fake = np.repeat(np.arange(n // group_size) % 2 == 1, group_size)
    shift = np.repeat(generator.normal(size=n // group_size), group_size)
    p_fake = 1 / (1 + np.exp(-(shift + is_fake - 0.5 + generator.normal(scale=0.1, size=n))))
    return GroupedScores(is_fake, p_fake.round(2), [f"g{number // group_size}" for number in range(n)])


def test_values_are_those_of_scikit_learn_with_ties():
    scores = scored()
    report = scores.report(samples=10)
    assert report["roc_auc"].value == pytest.approx(roc_auc_score(scores.is_fake, scores.p_fake))
    called = scores.p_fake >= 0.5
    assert report["balanced_accuracy"].value == pytest.approx(balanced_accuracy_score(scores.is_fake, called))
    assert report["accuracy_real"].value == pytest.approx((~called[~scores.is_fake]).mean())
    assert (report["roc_auc"].n, report["roc_auc"].k) == (200, 100)


def test_intervals_over_groups_are_wider_than_over_images():
    scores = scored(group_size=20)
    over_groups = scores.report()["roc_auc"]
    each = GroupedScores(scores.is_fake, scores.p_fake, [str(number) for number in range(200)])
    over_images = each.report()["roc_auc"]
    assert over_groups.value == over_images.value
    assert over_groups.high - over_groups.low > 2 * (over_images.high - over_images.low)


def test_the_interval_covers_the_truth_of_new_groups():
    truth = scored(200_000, group_size=5, seed=1)
    value = roc_auc_score(truth.is_fake, truth.p_fake)
    covered = 0
    for seed in range(40):
        estimate = scored(300, group_size=5, seed=seed + 2).report(samples=200)["roc_auc"]
        covered += estimate.low <= value <= estimate.high
    assert covered >= 34


def test_the_same_seed_gives_the_same_interval_and_another_another():
    first, same, other = (scored().report(samples=50, seed=seed)["roc_auc"] for seed in (0, 0, 1))
    assert first == same
    assert first.low != other.low


def test_the_threshold_decides_what_is_called_fake():
    scores = scored()
    strict = GroupedScores(scores.is_fake, scores.p_fake, scores.groups, threshold=1.1)
    assert strict.report(samples=5)["accuracy_real"].value == 1
    assert strict.report(samples=5)["accuracy_fake"].value == 0


def test_fakes_of_a_generator_are_compared_with_all_real_images_and_few_images_have_no_row():
    scores = scored()
    generator = np.where(scores.is_fake, "a", None)
    generator[np.flatnonzero(scores.is_fake)[: MIN_IMAGES - 1]] = "b"
    reports = by_column(scores, generator.tolist(), samples=5)
    assert list(reports) == ["a"]
    rows = (generator == "a") | ~scores.is_fake
    assert reports["a"]["roc_auc"].value == pytest.approx(roc_auc_score(scores.is_fake[rows], scores.p_fake[rows]))
    assert reports["a"]["accuracy_fake"].n == rows.sum()
