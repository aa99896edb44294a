"""Models of this project. Importing the package registers the CIFAKE CNN with the `Auto*` classes of transformers."""

from transformers import AutoConfig, AutoModelForImageClassification

from realfake_hf.models.cifake_cnn import CifakeCnnConfig, CifakeCnnForImageClassification

AutoConfig.register(CifakeCnnConfig.model_type, CifakeCnnConfig, exist_ok=True)
AutoModelForImageClassification.register(CifakeCnnConfig, CifakeCnnForImageClassification, exist_ok=True)
CifakeCnnConfig.register_for_auto_class()  # type: ignore[no-untyped-call]
CifakeCnnForImageClassification.register_for_auto_class(  # type: ignore[no-untyped-call]
    "AutoModelForImageClassification"
)
