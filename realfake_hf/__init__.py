"""Tell real photographs from AI-generated images, and see how and where such a detector fails.

Importing the package makes the CIFAKE CNN known to the `Auto*` classes of transformers.
"""

from transformers import AutoConfig, AutoModelForImageClassification

from realfake_hf.attribution.methods import Explanation
from realfake_hf.data.duplicates import DuplicateReport, find_duplicates, leak_free
from realfake_hf.data.loading import load_images
from realfake_hf.data.splits import with_all_splits
from realfake_hf.detector import Detector
from realfake_hf.labels import Verdict
from realfake_hf.metrics.evaluate_metric import RealFakeMetric
from realfake_hf.metrics.report import Report, make_report
from realfake_hf.models.cifake_cnn import CifakeCnnConfig, CifakeCnnForImageClassification

__version__ = "0.1.0"
__all__ = [
    "CifakeCnnConfig",
    "CifakeCnnForImageClassification",
    "Detector",
    "DuplicateReport",
    "Explanation",
    "RealFakeMetric",
    "Report",
    "Verdict",
    "find_duplicates",
    "leak_free",
    "load_images",
    "make_report",
    "with_all_splits",
]

AutoConfig.register(CifakeCnnConfig.model_type, CifakeCnnConfig, exist_ok=True)
AutoModelForImageClassification.register(CifakeCnnConfig, CifakeCnnForImageClassification, exist_ok=True)
CifakeCnnConfig.register_for_auto_class()  # type: ignore[no-untyped-call]
CifakeCnnForImageClassification.register_for_auto_class(  # type: ignore[no-untyped-call]
    "AutoModelForImageClassification"
)
