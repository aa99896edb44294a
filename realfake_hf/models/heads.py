"""What of a classifier is its head, and what its backbone."""

from torch import nn
from transformers import PreTrainedModel


def head_modules(model: PreTrainedModel) -> dict[str, nn.Linear]:
    """The linear layers outside of a model's backbone: one head, or the two of a distilled DeiT."""
    backbone = f"{model.base_model_prefix}."
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and not name.startswith(backbone)
    }


def backbone_parameters(model: PreTrainedModel) -> list[nn.Parameter]:
    """All parameters that are not those of `head_modules`."""
    heads = {id(parameter) for head in head_modules(model).values() for parameter in head.parameters()}
    return [parameter for parameter in model.parameters() if id(parameter) not in heads]
