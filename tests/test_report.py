import json
from collections.abc import Callable, Iterator
from dataclasses import fields
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn import metrics

from realfake_hf.estimate import Estimate
from realfake_hf.metrics import report as report_module
from realfake_hf.metrics.intervals import STATISTICS
from realfake_hf.metrics.report import ContentReport, Report, estimate_roc_auc, make_report, roc_auc

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
TPR = ("tpr_at_5_fpr", "tpr_at_1_fpr")
CONTENTS = ("ship", "frog", "deer", "cat")


def scores(n: int = 400, *, seed: int = 0, decimals: int | None = None) -> tuple[Bools, Floats]:
    """Return scores that are better than chance; few decimals make many ties."""
    generator = np.random.default_rng(seed)
    is_fake = generator.random(n) < 0.4
    p_fake = 1 / (1 + np.exp(-generator.normal(np.where(is_fake, 1.0, -1.0), 2.0)))
    return is_fake, p_fake if decimals is None else p_fake.round(decimals)


def point(is_fake: object, p_fake: object, *, threshold: float = 0.5) -> Report:
    return make_report(np.asarray(is_fake), np.asarray(p_fake), threshold=threshold, bootstrap_samples=0)


def plain_ece(is_fake: Bools, p_fake: Floats) -> float:
    bins: list[list[tuple[float, float]]] = [[] for _ in range(15)]
    for fake, p in zip(is_fake.tolist(), p_fake.tolist(), strict=True):
        bins[min(int(p * 15), 14)].append((fake, p))
    total = 0.0
    for members in filter(None, bins):
        share, mean = (sum(column) / len(members) for column in zip(*members, strict=True))
        total += len(members) * abs(mean - share)
    return total / len(is_fake)


OF_CALLS: dict[str, Callable[[Bools, Bools], float]] = {
    "accuracy": metrics.accuracy_score,
    "accuracy_real": lambda is_fake, called: metrics.recall_score(is_fake, called, pos_label=False),
    "accuracy_fake": lambda is_fake, called: metrics.recall_score(is_fake, called, pos_label=True),
    "balanced_accuracy": metrics.balanced_accuracy_score,
    "precision": lambda *both: metrics.precision_recall_fscore_support(*both, average="binary")[0],
    "recall": lambda *both: metrics.precision_recall_fscore_support(*both, average="binary")[1],
    "f1": lambda *both: metrics.precision_recall_fscore_support(*both, average="binary")[2],
}


def tpr_at(is_fake: Bools, p_fake: Floats, *, fpr: float) -> float:
    false_positives, true_positives, _ = metrics.roc_curve(is_fake, p_fake, drop_intermediate=False)
    return max(tpr for tpr, found in zip(true_positives, false_positives, strict=True) if found <= fpr)


OF_SCORES: dict[str, Callable[[Bools, Floats], float]] = {
    "roc_auc": metrics.roc_auc_score,
    "average_precision": metrics.average_precision_score,
    "ece": plain_ece,
    "brier": metrics.brier_score_loss,
    "tpr_at_5_fpr": partial(tpr_at, fpr=0.05),
    "tpr_at_1_fpr": partial(tpr_at, fpr=0.01),
    "nll": metrics.log_loss,
}


@pytest.mark.parametrize("threshold", [0.5, 0.3])
@pytest.mark.parametrize("decimals", [None, 1, 0], ids=["no ties", "many ties", "only ties"])
def test_every_statistic_is_that_of_scikit_learn_or_of_plain_python(decimals: int | None, threshold: float) -> None:
    is_fake, p_fake = scores(decimals=decimals)
    expected = {name: reference(is_fake, p_fake > threshold) for name, reference in OF_CALLS.items()}
    expected |= {name: reference(is_fake, p_fake) for name, reference in OF_SCORES.items()}
    assert list(expected) == list(STATISTICS)
    assert point(is_fake, p_fake, threshold=threshold).point_values() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("decimals", [None, 1], ids=["no ties", "ties"])
def test_a_replicate_is_the_report_of_the_images_that_were_drawn(decimals: int | None) -> None:
    is_fake, p_fake = scores(50, decimals=decimals)
    drawn = np.random.default_rng(3).integers(50, size=50)  # as a bootstrap of seed 3 draws its first replicate
    replicate, expected = (
        make_report(is_fake, p_fake, bootstrap_samples=1, seed=3),
        point(is_fake[drawn], p_fake[drawn]),
    )
    for name in set(STATISTICS) - {"ece"}:  # its replicates are shifted
        assert getattr(replicate, name).low == pytest.approx(getattr(expected, name).value, abs=1e-12)


def test_the_confusion_counts_are_those_of_scikit_learn() -> None:
    is_fake, p_fake = scores()
    report = point(is_fake, p_fake)
    ours = [[report.true_negatives, report.false_positives], [report.false_negatives, report.true_positives]]
    assert ours == metrics.confusion_matrix(is_fake, p_fake > 0.5).tolist()
    assert (report.n, report.n_real, report.n_fake) == (400, int((~is_fake).sum()), int(is_fake.sum()))


def test_a_tie_at_one_half_is_called_real_as_argmax_does() -> None:
    assert np.argmax([0.5, 0.5]) == 0
    assert point([False], [0.5]).true_negatives == 1


def test_a_score_of_one_falls_into_the_last_bin() -> None:
    assert point([False, True], [1.0, 0.95]).ece.value == pytest.approx(0.475)


eighths = st.lists(st.tuples(st.booleans(), st.integers(0, 8)), min_size=2, max_size=40).filter(
    lambda pairs: len({fake for fake, _ in pairs}) == 2
)


increasing = st.lists(st.floats(0, 1), min_size=9, max_size=9, unique=True).map(sorted)


@given(eighths, increasing)
def test_auc_survives_any_increasing_map_of_the_scores(pairs: list[tuple[bool, int]], image: list[float]) -> None:
    is_fake = [fake for fake, _ in pairs]
    before, after = (
        point(is_fake, [score / 8 for _, score in pairs]),
        point(is_fake, [image[score] for _, score in pairs]),
    )
    assert (after.roc_auc, after.average_precision) == (before.roc_auc, before.average_precision)


@given(eighths)
def test_swapping_the_two_classes_and_their_scores_leaves_auc_and_accuracy(pairs: list[tuple[bool, int]]) -> None:
    is_fake = np.array([fake for fake, _ in pairs])
    p_fake = np.array([(2 * score + 1) / 32 + (score > 4) / 4 for _, score in pairs])  # exact, and never one half
    before, after = point(is_fake, p_fake), point(~is_fake, 1 - p_fake)
    assert after.roc_auc.value == pytest.approx(before.roc_auc.value, abs=1e-12)
    assert after.accuracy == before.accuracy
    assert after.accuracy_real == before.accuracy_fake


def test_the_order_of_the_images_does_not_matter() -> None:
    is_fake, p_fake = scores(decimals=2)
    forwards, backwards = point(is_fake, p_fake).point_values(), point(is_fake[::-1], p_fake[::-1]).point_values()
    assert forwards == pytest.approx(backwards, abs=1e-12)


def test_the_same_seed_gives_the_same_intervals_and_another_seed_others() -> None:
    is_fake, p_fake = scores()
    first, again, other = (make_report(is_fake, p_fake, bootstrap_samples=50, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert first.roc_auc.value == other.roc_auc.value
    assert first.roc_auc.low != other.roc_auc.low


def estimates(report: Report) -> Iterator[Estimate]:
    yield from (getattr(report, name) for name in STATISTICS)
    for row in report.by_content.values():
        yield from (row.accuracy, row.accuracy_real, row.accuracy_fake)


@pytest.mark.parametrize("calibrated", [True, False])
def test_every_interval_contains_its_value(calibrated: bool) -> None:
    generator = np.random.default_rng(0)
    p_fake = generator.random(2000)
    is_fake = generator.random(2000) < (p_fake if calibrated else p_fake**2)
    report = make_report(is_fake, p_fake, content=generator.choice(CONTENTS, 2000).tolist(), bootstrap_samples=300)
    for estimate in estimates(report):
        assert 0 <= estimate.low < estimate.value < estimate.high <= 1


def test_the_interval_of_the_calibration_error_is_centred_on_its_value() -> None:
    generator = np.random.default_rng(0)
    p_fake = generator.random(2000)
    ece = make_report(generator.random(2000) < p_fake, p_fake, bootstrap_samples=300).ece
    assert (ece.low + ece.high) / 2 == pytest.approx(ece.value, rel=0.05)


def test_the_intervals_of_shares_are_as_wide_as_the_normal_approximation() -> None:
    is_fake, p_fake = scores(4000)
    report = make_report(is_fake, p_fake, content=["ship", "frog"] * 2000)
    ship = report.by_content["ship"]
    pairs = [(report.accuracy, 4000), (report.accuracy_fake, report.n_fake), (ship.accuracy, ship.n)]
    for estimate, n in pairs:
        normal = 2 * 1.96 * np.sqrt(estimate.value * (1 - estimate.value) / n)
        assert estimate.high - estimate.low == pytest.approx(normal, rel=0.15)


def test_the_interval_of_auc_is_as_wide_as_hanley_and_mcneil_say() -> None:
    is_fake, p_fake = scores(4000)
    report = make_report(is_fake, p_fake)
    auc, more_real, more_fake = report.roc_auc.value, report.n_real - 1, report.n_fake - 1
    spread = more_fake * (auc / (2 - auc) - auc**2) + more_real * (2 * auc**2 / (1 + auc) - auc**2)
    error = np.sqrt((auc * (1 - auc) + spread) / (report.n_real * report.n_fake))
    assert report.roc_auc.high - report.roc_auc.low == pytest.approx(2 * 1.96 * error, rel=0.15)


def grouped_scores(n: int, *, size: int, seed: int) -> tuple[Bools, Floats, list[str]]:
    """Return scores of groups with one label each, whose images deviate from their label in the same way."""
    generator = np.random.default_rng(seed)
    is_fake = np.repeat(np.arange(n // size) % 2 == 1, size)
    shift = np.repeat(generator.normal(size=n // size), size)
    p_fake = 1 / (1 + np.exp(-(shift + is_fake - 0.5 + generator.normal(scale=0.1, size=n))))
    return is_fake, p_fake, [f"group {number // size}" for number in range(n)]


def test_intervals_over_groups_are_wider_and_groups_of_one_image_are_images() -> None:
    is_fake, p_fake, groups = grouped_scores(200, size=20, seed=0)
    over_images = make_report(is_fake, p_fake, bootstrap_samples=300).roc_auc
    over_groups = make_report(is_fake, p_fake, groups=groups, bootstrap_samples=300).roc_auc
    assert over_groups.value == over_images.value
    assert over_groups.high - over_groups.low > 2 * (over_images.high - over_images.low)
    alone = make_report(is_fake, p_fake, groups=[f"{row:03}" for row in range(200)], bootstrap_samples=300).roc_auc
    assert alone == over_images


def test_the_interval_over_groups_covers_the_value_of_new_groups() -> None:
    is_fake, p_fake, _ = grouped_scores(200_000, size=5, seed=0)
    truth, covered = metrics.roc_auc_score(is_fake, p_fake), 0
    for seed in range(1, 41):
        is_fake, p_fake, groups = grouped_scores(300, size=5, seed=seed)
        auc = make_report(is_fake, p_fake, groups=groups, bootstrap_samples=100).roc_auc
        covered += auc.low <= truth <= auc.high
    assert covered >= 34


def test_without_a_bootstrap_there_are_values_and_no_intervals() -> None:
    assert all(estimate.low is estimate.high is None for estimate in estimates(point(*scores())))


@pytest.mark.parametrize(
    ("is_fake", "p_fake", "undefined"),
    [
        (
            [False] * 3,
            [0.1, 0.6, 0.7],
            {"accuracy_fake", "balanced_accuracy", "recall", "roc_auc", "average_precision", *TPR},
        ),
        ([True] * 3, [0.1, 0.6, 0.7], {"accuracy_real", "balanced_accuracy", "roc_auc", *TPR}),
        ([True, False], [0.1, 0.2], {"precision"}),
        ([False] * 2, [0.1, 0.2], set(STATISTICS) - {"accuracy", "accuracy_real", "ece", "brier", "nll"}),
    ],
    ids=["only REAL", "only FAKE", "nothing called FAKE", "only REAL, all called REAL"],
)
def test_what_is_undefined_is_none_and_has_no_interval(
    is_fake: list[bool], p_fake: list[float], undefined: set[str]
) -> None:
    report = make_report(is_fake, p_fake, bootstrap_samples=20)
    none = {name for name in STATISTICS if getattr(report, name) == Estimate(None)}
    assert none == undefined == set(STATISTICS) - set(report.point_values())
    assert "NaN" not in json.dumps(report.to_dict())


def test_replicates_in_which_a_statistic_is_undefined_are_dropped_from_its_interval() -> None:
    report = make_report([True, False], [0.9, 0.1], bootstrap_samples=200)  # half the replicates have one class
    assert report.roc_auc == Estimate(1.0, 1.0, 1.0)


def test_the_contents_are_sorted_and_sum_to_the_whole() -> None:
    is_fake, p_fake = scores()
    content = np.random.default_rng(1).choice(CONTENTS, 400).tolist()
    report = make_report(is_fake, p_fake, content=content, bootstrap_samples=0)
    rows = report.by_content.values()
    assert list(report.by_content) == sorted(CONTENTS)
    for total in ("n", "n_real", "n_fake"):
        assert sum(getattr(row, total) for row in rows) == getattr(report, total)
    correct = sum(row.n * row.accuracy.value for row in rows)
    assert correct == pytest.approx(report.true_negatives + report.true_positives)


def test_a_row_of_a_content_is_the_report_of_its_images_alone() -> None:
    is_fake, p_fake = scores()
    content = np.random.default_rng(1).choice(CONTENTS, 400)
    row = make_report(is_fake, p_fake, content=content.tolist(), bootstrap_samples=0).by_content["deer"]
    alone = point(is_fake[content == "deer"], p_fake[content == "deer"])
    assert row == ContentReport(**{field.name: getattr(alone, field.name) for field in fields(ContentReport)})


def test_images_of_unknown_content_count_in_the_whole_and_in_no_row() -> None:
    is_fake, p_fake = scores(4)
    report = make_report(is_fake, p_fake, content=["cat", None, None, "cat"], bootstrap_samples=0)
    assert (report.n, list(report.by_content), report.by_content["cat"].n) == (4, ["cat"], 2)
    assert make_report(is_fake, p_fake, content=[None] * 4) == make_report(is_fake, p_fake)
    assert make_report(is_fake, p_fake).by_content == {}


@pytest.mark.parametrize("samples", [0, 20])
def test_a_report_survives_json(samples: int) -> None:
    is_fake, p_fake = scores(40)
    report = make_report(
        is_fake, p_fake, content=["cat", "dog"] * 20, bootstrap_samples=samples, threshold=np.float32(0.4)
    )
    assert Report.from_dict(json.loads(json.dumps(report.to_dict(), allow_nan=False))) == report


def test_a_report_of_an_older_version_is_read_with_what_it_knew() -> None:
    report = make_report(*scores(40), bootstrap_samples=0)
    older = {name: value for name, value in report.to_dict().items() if name not in (*TPR, "nll")}
    read = Report.from_dict(older)
    assert (read.tpr_at_5_fpr, read.tpr_at_1_fpr, read.nll) == (Estimate(None),) * 3
    assert (read.brier, read.n) == (report.brier, report.n)


def test_a_certain_error_has_a_finite_loss() -> None:
    assert point([True, False], [0.0, 0.0]).nll.value == pytest.approx(-np.log(np.finfo(np.float64).eps) / 2)


@pytest.mark.parametrize(
    ("is_fake", "p_fake", "content", "found"),
    [
        ([True, False], [0.5], None, ["is_fake (2,)", "p_fake (1,)"]),
        ([True, False], [0.5, 0.1], ["cat"], ["is_fake (2,)", "p_fake (2,)", "content (1,)"]),
        ([[True], [False]], [[0.5], [0.1]], None, ["is_fake (2, 1)", "p_fake (2, 1)"]),
        ([], [], None, ["found none"]),
        ([0, 1], [0.5, 0.1], None, ["is_fake", "int64"]),
        ([True] * 3, [0.5, 1.5, -2.0], None, ["p_fake in [0, 1]", "2 of 3", "1.5 at index 1"]),
        ([True], [float("nan")], None, ["p_fake in [0, 1]", "1 of 1", "nan at index 0"]),
    ],
    ids=["lengths", "content", "columns", "empty", "labels", "logits", "nan"],
)
def test_an_error_names_what_cannot_be_measured(
    is_fake: list[bool], p_fake: list[float], content: list[str | None] | None, found: list[str]
) -> None:
    with pytest.raises(ValueError, match="expected") as refusal:
        make_report(is_fake, p_fake, content=content)
    assert all(part in str(refusal.value) for part in found)


@pytest.mark.parametrize("threshold", [-0.1, float("inf"), float("nan")])
def test_a_threshold_outside_the_unit_interval_is_refused(threshold: float) -> None:
    with pytest.raises(ValueError, match=rf"threshold in \[0, 1\].*found {threshold}"):
        point([True], [0.5], threshold=threshold)


@given(st.integers(0, 999), st.integers(1, 9))
def test_roc_auc_equals_scikit_learns_under_each_weighting_ties_included(seed, distinct):
    random = np.random.default_rng(seed)
    is_fake = np.array([True, False, *random.integers(0, 2, 10).astype(bool)])
    p_fake = random.integers(0, distinct, 12) / 10
    weights = random.uniform(0.1, 3, (3, 12)) * random.integers(0, 2, (3, 12))
    weights[:, :2] += 1  # one of each counts
    expected = [metrics.roc_auc_score(is_fake, p_fake, sample_weight=row) for row in weights]
    assert roc_auc(is_fake, p_fake, weights) == pytest.approx(expected)


def test_roc_auc_without_one_of_the_labels_is_undefined():
    is_fake, p_fake = np.array([True, False]), np.array([0.2, 0.1], dtype=np.float32)
    assert roc_auc(is_fake, p_fake, np.array([[1.0, 0.0], [0.0, 1.0], [2.0, 1.0]])).tolist() == [
        pytest.approx(np.nan, nan_ok=True),
        pytest.approx(np.nan, nan_ok=True),
        1.0,
    ]


def test_the_interval_of_roc_auc_contains_the_value_and_narrows_with_more_images():
    random = np.random.default_rng(0)
    found = []
    for n in (100, 10_000):
        is_fake = np.arange(n) % 2 == 1
        found.append(estimate_roc_auc(is_fake, random.normal(is_fake, 1.0), samples=200, seed=0))
    small, large = found
    assert small.low < small.value < small.high
    assert large.high - large.low < (small.high - small.low) / 5
    assert large.value == pytest.approx(0.76, abs=0.02)  # of normal scores one deviation apart


def test_the_bootstrap_of_roc_auc_draws_each_label_as_often_as_it_occurs():
    is_fake = np.array([True, False, False, True, False])
    weights = report_module.draw_by_label(is_fake, 7, np.random.default_rng(0))
    assert (weights[:, is_fake].sum(axis=1) == 2).all()
    assert (weights[:, ~is_fake].sum(axis=1) == 3).all()
    assert len(np.unique(weights, axis=0)) > 1


def test_a_single_label_has_no_roc_auc():
    assert estimate_roc_auc(np.ones(3, dtype=bool), np.arange(3.0), samples=10, seed=0).value is None
    assert estimate_roc_auc(np.array([True, False]), np.arange(2.0), samples=0, seed=0).low is None
