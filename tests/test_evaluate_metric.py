from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from realfake_hf.metrics.evaluate_metric import RealFakeMetric
from realfake_hf.metrics.intervals import STATISTICS
from realfake_hf.metrics.report import make_report

P_FAKE = [0.1, 0.6, 0.7, 0.9, 0.4]
LABELS = [0, 0, 1, 1, 1]


@pytest.fixture
def make_metric(tmp_path: Path) -> Callable[..., RealFakeMetric]:
    return lambda **settings: RealFakeMetric(cache_dir=str(tmp_path), **settings)


def test_the_metric_gives_the_point_values_of_the_report(make_metric: Callable[..., RealFakeMetric]) -> None:
    scores = make_metric().compute(predictions=P_FAKE, references=LABELS)
    assert scores == make_report(np.array(LABELS) == 1, P_FAKE, bootstrap_samples=0).point_values()
    assert list(scores) == list(STATISTICS)
    assert {type(value) for value in scores.values()} == {float}


def test_the_metric_takes_float32_arrays_and_the_threshold(make_metric: Callable[..., RealFakeMetric]) -> None:
    predictions, references = np.array(P_FAKE, dtype=np.float32), np.array(LABELS)
    assert make_metric().compute(predictions=predictions, references=references, threshold=0.35)["recall"] == 1


def test_batches_give_what_the_whole_gives(make_metric: Callable[..., RealFakeMetric]) -> None:
    metric = make_metric()
    metric.add_batch(predictions=P_FAKE[:2], references=LABELS[:2])
    metric.add_batch(predictions=P_FAKE[2:4], references=LABELS[2:4])
    metric.add(prediction=P_FAKE[4], reference=LABELS[4])
    assert metric.compute() == make_metric().compute(predictions=P_FAKE, references=LABELS)


def test_a_metric_can_be_used_again(make_metric: Callable[..., RealFakeMetric]) -> None:
    metric = make_metric()
    first, again = (metric.compute(predictions=P_FAKE, references=LABELS) for _ in range(2))
    assert first == again


def test_undefined_statistics_are_left_out(make_metric: Callable[..., RealFakeMetric]) -> None:
    scores = make_metric().compute(predictions=[0.1, 0.2], references=[0, 0])
    assert set(scores) == {"accuracy", "accuracy_real", "ece", "brier", "nll"}


def test_other_labels_are_refused(make_metric: Callable[..., RealFakeMetric]) -> None:
    with pytest.raises(ValueError, match=r"references.*found \[-1, 2\]"):
        make_metric().compute(predictions=[0.1, 0.2, 0.3], references=[2, 0, -1])


def test_the_metric_leaves_no_file_behind(make_metric: Callable[..., RealFakeMetric], tmp_path: Path) -> None:
    make_metric().compute(predictions=P_FAKE, references=LABELS)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_two_metrics_with_files_in_one_cache_do_not_meet(make_metric: Callable[..., RealFakeMetric]) -> None:
    one, other = (make_metric(keep_in_memory=False, experiment_id=name) for name in ("one", "other"))
    one.add_batch(predictions=[0.9], references=[1])
    other.add_batch(predictions=[0.9], references=[0])
    assert (one.compute()["accuracy"], other.compute()["accuracy"]) == (1, 0)


def test_the_metric_describes_itself(make_metric: Callable[..., RealFakeMetric]) -> None:
    metric = make_metric()
    assert set(metric.features) == {"predictions", "references"}
    assert "ROC AUC" in metric.description
    assert "naeini2015calibrated" in metric.citation
    assert "1 for FAKE" in metric.inputs_description
