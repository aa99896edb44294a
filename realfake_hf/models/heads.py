"""Split a classifier into head and backbone."""

import copy
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Final
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

_KNOWN: Final[WeakKeyDictionary[PreTrainedModel, tuple[str, ...]]] = WeakKeyDictionary()


def head_modules(model: PreTrainedModel) -> dict[str, nn.Module]:
    """Return the modules that map features to logits by name: one head, or two in a distilled model.

    They are the modules with parameters whose shapes depend on the number of labels. In a model for a fixed number of
    labels, such as the CIFAKE CNN, the head is the last linear layer.
    """
    if model not in _KNOWN:
        shapes, others = (_shapes(model, n_labels) for n_labels in (2, 3))
        names = dict.fromkeys(name.rpartition(".")[0] for name, shape in shapes.items() if shape != others[name])
        linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
        _KNOWN[model] = tuple(names) or tuple(linear[-1:])
    return {name: model.get_submodule(name) for name in _KNOWN[model]}


def backbone_parameters(model: PreTrainedModel) -> list[nn.Parameter]:
    """Return all parameters outside `head_modules`."""
    heads = {id(parameter) for head in head_modules(model).values() for parameter in head.parameters()}
    return [parameter for parameter in model.parameters() if id(parameter) not in heads]


def collect_embeddings(model: PreTrainedModel) -> AbstractContextManager[list[Tensor]]:
    """Collect the inputs of the last head in each forward pass of this thread, averaged over positions if it has any.

    Each is (batch, width).
    """
    heads = list(head_modules(model).values())
    if not heads:
        raise ValueError(f"expected a classifier with a linear head; found none in {type(model).__name__}.")

    def read(head: nn.Module, inputs: tuple[Tensor, ...]) -> Tensor:
        values = inputs[0]  # (batch, width, height, width) of a map, or (batch, ..., width)
        is_map = isinstance(head, nn.Conv2d)
        return values.flatten(2).mean(2) if is_map else values.unsqueeze(1).flatten(1, -2).mean(1)

    return _collect(heads[-1].register_forward_pre_hook, read)


def collect_view_scores(model: PreTrainedModel) -> AbstractContextManager[list[Tensor]]:
    """Collect the `view_scores` (batch, views) of each forward pass of this thread, if the model returns them."""
    return _collect(model.register_forward_hook, lambda _, __, output: getattr(output, "view_scores", None))


@contextmanager
def _collect(register: Callable[..., Any], read: Callable[..., Tensor | None]) -> Iterator[list[Tensor]]:
    """Collect what `read` returns of each call of a hook in this thread, unless it is None."""
    found: list[Tensor] = []
    thread = threading.get_ident()

    def hook(*call: Any) -> None:  # noqa: ANN401 - module, inputs and perhaps output
        value = read(*call) if threading.get_ident() == thread else None
        if value is not None:
            found.append(value.detach())

    handle = register(hook)
    try:
        yield found
    finally:
        handle.remove()


def _shapes(model: PreTrainedModel, n_labels: int) -> Mapping[str, torch.Size]:
    """Return the shapes of the parameters of a model of this class for that many labels, without memory for them."""
    config: Any = copy.deepcopy(model.config)
    config.num_labels = n_labels
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        return {name: value.shape for name, value in type(model)(config).named_parameters()}
