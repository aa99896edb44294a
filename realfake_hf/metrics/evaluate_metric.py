"""The report as a Hugging Face metric, for code that speaks `evaluate`."""

from collections.abc import Sequence
from typing import Final

import datasets
import evaluate
import numpy as np

from realfake_hf.labels import FAKE, LABEL_NAMES, REAL
from realfake_hf.metrics.report import make_report

_DESCRIPTION: Final = """\
How well the probability of FAKE tells FAKE images from REAL ones: accuracy, in total, balanced and by class;
precision, recall and F1 of FAKE; ROC AUC and average precision; expected calibration error and Brier score."""

_INPUTS: Final = """
Predictions are probabilities of FAKE in [0, 1], references are labels: 0 for REAL and 1 for FAKE. An image is called
FAKE when its probability is greater than `threshold` (0.5).
"""

_CITATION: Final = """\
@inproceedings{naeini2015calibrated,
  title = {Obtaining Well Calibrated Probabilities Using {Bayesian} Binning},
  author = {Naeini, Mahdi Pakdaman and Cooper, Gregory F. and Hauskrecht, Milos},
  booktitle = {Proceedings of the AAAI Conference on Artificial Intelligence},
  year = {2015},
}"""


class RealFakeMetric(evaluate.Metric):  # type: ignore[misc]  # evaluate is not typed
    """The point values of `make_report` behind `compute`, `add` and `add_batch` of `evaluate`.

    `evaluate.load` would ask the Hub for a script, so the metric is created directly and works offline. It keeps what
    it is given in memory: processes that share a cache then share nothing but an empty folder, which `evaluate`
    makes under `HF_HOME/metrics` in any case. Spreading one computation over processes goes through files there:
    `RealFakeMetric(keep_in_memory=False, num_process=..., process_id=..., experiment_id=...)`, with the same new
    `experiment_id` in each of them.

    >>> metric = RealFakeMetric()
    >>> metric.compute(predictions=[0.1, 0.6, 0.7, 0.9], references=[0, 0, 1, 1])["accuracy"]
    0.75
    """

    def __init__(self, *, keep_in_memory: bool = True, **settings: object) -> None:
        super().__init__(keep_in_memory=keep_in_memory, **settings)

    def _info(self) -> evaluate.MetricInfo:
        features = {"predictions": datasets.Value("float64"), "references": datasets.Value("int64")}
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=datasets.Features(features),
        )

    def _compute(
        self, *, predictions: Sequence[float], references: Sequence[int], threshold: float = 0.5
    ) -> dict[str, float]:
        return real_fake_scores(predictions, references, threshold=threshold)


def real_fake_scores(
    predictions: Sequence[float], references: Sequence[int], *, threshold: float = 0.5
) -> dict[str, float]:
    """Compute the point values of `make_report` from labels.

    Args:
        predictions: (n,) probabilities of FAKE in [0, 1].
        references: (n,) labels, `REAL` or `FAKE`.
        threshold: called FAKE above it.

    Returns:
        Statistics by name. Those that are undefined, such as ROC AUC with one class only, are left out: a `Trainer`
        and its loggers take nothing but numbers.

    Raises:
        ValueError: a reference is neither label, or `make_report` refuses the numbers.
    """
    labels = np.asarray(references)
    unknown = sorted(set(labels.tolist()) - {REAL, FAKE})
    if unknown:
        raise ValueError(
            f"wanted references of {REAL} ({LABEL_NAMES[REAL]}) and {FAKE} ({LABEL_NAMES[FAKE]}); found {unknown}. "
            "Map the labels of the data set to these two first."
        )
    return make_report(labels == FAKE, predictions, threshold=threshold, bootstrap_samples=0).point_values()
