"""The blocks of a transformer: separated in the graph, or skipped with given states."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import accumulate
from typing import Any
from unittest.mock import patch

from torch import Tensor, nn

from realfake_hf.attribution.layout import first_tensor, with_first_tensor


def blocks_of(model: nn.Module, layers: Sequence[str]) -> list[nn.Module]:
    """Return the block around each of these layers: the outermost module around it that is in a list of modules."""
    blocks = []
    for layer in layers:
        names = accumulate(layer.split("."), "{}.{}".format)
        path = [model, *map(model.get_submodule, names)]
        blocks.append(next(inner for outer, inner in zip(path, path[1:]) if isinstance(outer, nn.ModuleList)))
    return blocks
