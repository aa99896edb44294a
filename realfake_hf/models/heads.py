"""What of a classifier is its head, and what its backbone."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn
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


@contextmanager
def caught_embeddings(model: PreTrainedModel) -> Iterator[list[Tensor]]:
    """Catch what a model's last linear layer is given in each forward pass: (batch, width), appended to the list.

    Passes of other threads are none of its business.

    Raises:
        ValueError: the model has no linear head.
    """
    heads = list(head_modules(model).values())
    if not heads:
        raise ValueError(f"wanted a classifier with a linear head; found none in {type(model).__name__}.")
    caught: list[Tensor] = []
    mine = threading.get_ident()

    def catch(_: nn.Module, given: tuple[Tensor, ...]) -> None:
        if threading.get_ident() == mine:
            caught.append(given[0].detach())

    handle = heads[-1].register_forward_pre_hook(catch)
    try:
        yield caught
    finally:
        handle.remove()
