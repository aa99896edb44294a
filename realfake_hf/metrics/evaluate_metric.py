"""The report as a metric of Hugging Face `evaluate`."""

from collections.abc import Sequence
from typing import Final

import datasets
import evaluate
import numpy as np

from realfake_hf.labels import FAKE, REAL
from realfake_hf.metrics.report import make_report

_DESCRIPTION: Final = """\
How well the probability of FAKE separates FAKE from REAL images: accuracy, in total, balanced and by class;
precision, recall and F1 of FAKE; ROC AUC and average precision; true positive rates at fixed false positive rates;
expected calibration error, Brier score and log loss."""

_INPUTS: Final = """
Predictions are probabilities of FAKE in [0, 1]; references are labels, 0 for REAL and 1 for FAKE. An image is called
FAKE if its probability is greater than `threshold`, by default 0.5.
"""

_CITATION: Final = """\
@inproceedings{naeini2015calibrated,
  title = {Obtaining Well Calibrated Probabilities Using {Bayesian} Binning},
  author = {Naeini, Mahdi Pakdaman and Cooper, Gregory F. and Hauskrecht, Milos},
  booktitle = {Proceedings of the AAAI Conference on Artificial Intelligence},
  year = {2015},
}"""


class RealFakeMetric(evaluate.Metric):  # type: ignore[misc]  # evaluate is not typed
    """The point values of `make_report`, with the `compute`, `add` and `add_batch` of `evaluate`.

    Undefined statistics, such as the ROC AUC of a single class, are left out, since a `Trainer` and its loggers accept
    numbers only. References other than the two labels raise ValueError.

    Create the metric directly, which works offline, since `evaluate.load` would download a script. Predictions are
    kept in memory, so that concurrent processes do not interfere. To distribute one computation over processes, which
    exchange files under `HF_HOME/metrics`, pass the same new `experiment_id` to each of them:
    `RealFakeMetric(keep_in_memory=False, num_process=..., process_id=..., experiment_id=...)`.

    >>> metric = RealFakeMetric()
    >>> metric.compute(predictions=[0.1, 0.6, 0.7, 0.9], references=[0, 0, 1, 1])["accuracy"]
    0.75
    """

    def __init__(self, *, keep_in_memory: bool = True, **settings: object) -> None:
        super().__init__(keep_in_memory=keep_in_memory, **settings)

    def _info(self) -> evaluate.MetricInfo:
        features = {"predictions": datasets.Value("float64"), "references": datasets.Value("int64")}
        return evaluate.MetricInfo(
            description=_DESCRIPTION, citation=_CITATION, inputs_description=_INPUTS,
            features=datasets.Features(features),
        )  # fmt: skip

    def _compute(
        self, *, predictions: Sequence[float], references: Sequence[int], threshold: float = 0.5
    ) -> dict[str, float]:
        labels = np.asarray(references)
        unknown = sorted(set(labels.tolist()) - {REAL, FAKE})
        if unknown:
            raise ValueError(
                f"expected references of {REAL} (REAL) and {FAKE} (FAKE); found {unknown}. Map the labels."
            )
        return make_report(labels == FAKE, predictions, threshold=threshold, bootstrap_samples=0).point_values()
