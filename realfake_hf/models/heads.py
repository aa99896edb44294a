"""Split a classifier into head and backbone."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn
from transformers import PreTrainedModel


def head_modules(model: PreTrainedModel) -> dict[str, nn.Linear]:
    """Return the linear layers outside the backbone by name: one head, or two in a distilled DeiT."""
    backbone = f"{model.base_model_prefix}."
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and not name.startswith(backbone)
    }


def backbone_parameters(model: PreTrainedModel) -> list[nn.Parameter]:
    """Return all parameters outside `head_modules`."""
    heads = {id(parameter) for head in head_modules(model).values() for parameter in head.parameters()}
    return [parameter for parameter in model.parameters() if id(parameter) not in heads]


@contextmanager
def collect_embeddings(model: PreTrainedModel) -> Iterator[list[Tensor]]:
    """Collect the inputs of the last linear head in each forward pass of this thread, (batch, width) each.

    Raises:
        ValueError: the model has no linear head.
    """
    heads = list(head_modules(model).values())
    if not heads:
        raise ValueError(f"expected a classifier with a linear head; found none in {type(model).__name__}.")
    embeddings: list[Tensor] = []
    thread = threading.get_ident()

    def hook(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if threading.get_ident() == thread:
            embeddings.append(inputs[0].detach())

    handle = heads[-1].register_forward_pre_hook(hook)
    try:
        yield embeddings
    finally:
        handle.remove()
