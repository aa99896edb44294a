"""Distinguish real photographs from AI-generated images, and measure how and where a detector fails.

Names are imported on first use, so `import realfake_hf` is fast. Loading a model or importing `realfake_hf.models`
registers the CIFAKE CNN with the `Auto*` classes of transformers.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from realfake_hf.attribution.methods import Explanation as Explanation
    from realfake_hf.data.duplicates import DuplicateReport as DuplicateReport
    from realfake_hf.data.duplicates import find_duplicates as find_duplicates
    from realfake_hf.data.duplicates import leak_free_mask as leak_free_mask
    from realfake_hf.data.loading import load_images as load_images
    from realfake_hf.data.splits import add_missing_splits as add_missing_splits
    from realfake_hf.detector import Detector as Detector
    from realfake_hf.labels import Verdict as Verdict
    from realfake_hf.metrics.evaluate_metric import RealFakeMetric as RealFakeMetric
    from realfake_hf.metrics.report import Report as Report
    from realfake_hf.metrics.report import make_report as make_report
    from realfake_hf.models.cifake_cnn import CifakeCnnConfig as CifakeCnnConfig
    from realfake_hf.models.cifake_cnn import CifakeCnnForImageClassification as CifakeCnnForImageClassification

__version__ = "0.1.0"

_MODULES: Final = {
    "CifakeCnnConfig": "models.cifake_cnn",
    "CifakeCnnForImageClassification": "models.cifake_cnn",
    "Detector": "detector",
    "DuplicateReport": "data.duplicates",
    "Explanation": "attribution.methods",
    "RealFakeMetric": "metrics.evaluate_metric",
    "Report": "metrics.report",
    "Verdict": "labels",
    "find_duplicates": "data.duplicates",
    "leak_free_mask": "data.duplicates",
    "load_images": "data.loading",
    "make_report": "metrics.report",
    "add_missing_splits": "data.splits",
}
__all__ = list(_MODULES)


def __getattr__(name: str) -> Any:  # noqa: ANN401 - classes and functions
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
