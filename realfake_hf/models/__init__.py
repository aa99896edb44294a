"""Models of this project. Importing the package registers them with the `Auto*` classes of transformers."""

from transformers import AutoConfig, AutoImageProcessor, AutoModelForImageClassification

from realfake_hf.models.cifake_cnn import CifakeCnnConfig, CifakeCnnForImageClassification
from realfake_hf.models.multiview import MultiViewConfig, MultiViewForImageClassification
from realfake_hf.models.views import MultiViewImageProcessor

for _config, _model in (
    (CifakeCnnConfig, CifakeCnnForImageClassification),
    (MultiViewConfig, MultiViewForImageClassification),
):
    AutoConfig.register(_config.model_type, _config, exist_ok=True)
    AutoModelForImageClassification.register(_config, _model, exist_ok=True)
    _config.register_for_auto_class()  # type: ignore[no-untyped-call]
    _model.register_for_auto_class("AutoModelForImageClassification")  # type: ignore[no-untyped-call]
AutoImageProcessor.register(MultiViewConfig, slow_image_processor_class=MultiViewImageProcessor, exist_ok=True)
MultiViewImageProcessor.register_for_auto_class()  # type: ignore[no-untyped-call]
