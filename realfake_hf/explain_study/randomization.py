"""Cascading weight randomisation (Adebayo et al., 2018, *Sanity Checks for Saliency Maps*, NeurIPS).

A map that stays the same while the model loses what it has learnt, stage by stage from the classifier downward, does
not show what the model has learnt.
"""

import copy
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import takewhile

import numpy as np
from transformers import PreTrainedModel

from realfake_hf.models.pretrained import random_weights


@dataclass(frozen=True)
class Stage:
    """A part of a model that is randomised at once.

    Attributes:
        name: of the lowest of its blocks: where the randomisation has come to.
        tensors: names in the model's `state_dict`.
    """

    name: str
    tensors: tuple[str, ...]


def cascade(model: PreTrainedModel, *, seed: int, most: int = 6) -> Iterator[tuple[Stage, PreTrainedModel]]:
    """Replace a model's weights by those of its random twin, stage by stage from the classifier downward.

    Args:
        model: it stays as it is; a copy of it is randomised.
        seed: of the random weights.
        most: stages, as of `stages`.

    Yields:
        Each stage, and the model in which it and all stages before it are random. It is one model that changes.
    """
    order = stages(model, most=most)
    changed, new = copy.deepcopy(model), random_weights(model, seed=seed).state_dict()
    for stage in order:
        changed.load_state_dict({name: new[name] for name in stage.tensors}, strict=False)
        yield stage, changed


def stages(model: PreTrainedModel, *, most: int = 6) -> tuple[Stage, ...]:
    """Divide all tensors of a model into stages, the classifier first and the layers next to the pixels last.

    Blocks come from the names, in the order in which the model defines them: a block ends with the first number of a
    name, as in `encoder.layer.3`, or with its first word, as in `embeddings`. What lies outside the base model is the
    head; a model without a base has its last block as its head. The head is a stage of its own, neighbours among the
    other blocks are joined as evenly as can be.

    Raises:
        ValueError: fewer than two stages are allowed.
    """
    if most < 2:  # noqa: PLR2004
        raise ValueError(f"wanted two stages or more, as the head is one of its own; found {most}.")
    blocks: dict[str, list[str]] = {}
    for name in model.state_dict():
        blocks.setdefault(_block(name, base=model.base_model_prefix), []).append(name)
    head, *body = reversed([Stage(name, tuple(names)) for name, names in blocks.items()])
    groups = np.array_split(np.arange(len(body)), min(most - 1, len(body))) if body else []
    return head, *(_joined(body[row] for row in rows) for rows in groups)


def _block(name: str, *, base: str) -> str:
    if base and not name.startswith(f"{base}."):
        return "head"
    words = name.removeprefix(f"{base}.").split(".")
    before = list(takewhile(lambda word: not word.isdecimal(), words))
    return ".".join(words[: len(before) + 1]) if len(before) < len(words) else words[0]


def _joined(blocks: Iterable[Stage]) -> Stage:
    parts = list(blocks)
    return Stage(parts[-1].name, tuple(name for part in parts for name in part.tensors))
