"""Cascading weight randomisation (Adebayo et al., 2018, *Sanity Checks for Saliency Maps*, NeurIPS).

A map that stays the same while the model loses what it learned, stage by stage from the classifier downwards, does not
show what the model learned.
"""

import copy
from collections.abc import Iterator, Sequence
from itertools import takewhile
from typing import Final

import numpy as np
from tqdm.auto import tqdm
from transformers import PreTrainedModel

from realfake_hf.attribution.methods import CLASS_METHODS
from realfake_hf.estimate import Estimate, to_plain
from realfake_hf.explain_study.agreement import spearman
from realfake_hf.explain_study.maps import GRID, Images, Plain, Sample, StudyModel, Values, maps_on_grid
from realfake_hf.labels import LabelName
from realfake_hf.metrics.intervals import Resampling
from realfake_hf.models.pretrained import random_weights

TARGET: Final[LabelName] = "FAKE"  # explained throughout, because the prediction changes with the weights


def measure_sanity(models: Sequence[StudyModel], sample: Sample, *, samples: int = 1000, seed: int = 0) -> Plain:
    """Compare the maps of each trained model with those after each stage of its randomisation.

    The seed is that of the weights and the bootstrap. The result is plain JSON: the settings, and for each of the
    `models` the names of its `stages` and, by method, the mean rank correlation with the trained model's map after
    each stage; undefined for images where either map is empty.
    """
    resampling = sample.resampling(samples=samples, seed=seed)
    results = {model.name: _cascade_maps(model, sample.images, resampling, seed=seed) for model in models}
    settings = {"n": len(sample), "grid": GRID, "target": TARGET, "class_methods": sorted(CLASS_METHODS)}
    return to_plain(settings | {"models": results})


def cascade(model: PreTrainedModel, *, seed: int) -> Iterator[tuple[str, PreTrainedModel]]:
    """Replace the weights of a copy of a model by random ones, stage by stage from the classifier downwards.

    Yield the name of each stage, and the model in which it and all earlier stages are random: one object that changes.
    """
    changed, new = copy.deepcopy(model), random_weights(model, seed=seed).state_dict()
    for stage, tensors in stages(model).items():
        changed.load_state_dict({name: new[name] for name in tensors}, strict=False)
        yield stage, changed


def stages(model: PreTrainedModel, *, max_stages: int = 6) -> dict[str, list[str]]:
    """Divide the tensors of a model into stages, from the classifier down to the layers next to the pixels.

    Blocks are derived from the tensor names, in the order in which the model defines them: a block ends with the first
    number of a name, as in `encoder.layer.3`, or with its first word, as in `embeddings`. Everything outside the base
    model is the head; the head of a model without a base is its last block. The head is a separate stage; the other
    blocks are joined to stages as equal in size as possible. A stage has the name of its lowest block.
    """
    blocks: dict[str, list[str]] = {}
    for name in model.state_dict():
        blocks.setdefault(_block(name, base=model.base_model_prefix), []).append(name)
    head, *body = reversed(blocks)
    groups = np.array_split(body, min(max_stages - 1, len(body))) if body else []
    joined = {str(group[-1]): [name for block in group for name in blocks[block]] for group in groups}
    return {head: blocks[head], **joined}


def _cascade_maps(model: StudyModel, images: Images, resampling: Resampling, *, seed: int) -> Plain:
    order = list(stages(model.detector.model))
    trained = _all_maps(model, images)
    methods: dict[str, list[Estimate]] = {method: [] for method in model.methods}
    steps = cascade(model.detector.model, seed=seed)
    for _, changed in tqdm(steps, total=len(order), desc=f"{model.name}: randomised", unit="stage", disable=None):
        maps = _all_maps(model.with_weights_of(changed), images)
        for method, means in methods.items():
            means.append(resampling.mean(spearman(trained[method], maps[method])))
    return {"stages": order, "methods": methods}


def _all_maps(model: StudyModel, images: Images) -> dict[str, Values]:
    return {method: maps_on_grid(model, images, method, target=TARGET) for method in model.methods}


def _block(name: str, *, base: str) -> str:
    if base and not name.startswith(f"{base}."):
        return "head"
    words = name.removeprefix(f"{base}.").split(".")
    before = list(takewhile(lambda word: not word.isdecimal(), words))
    return ".".join(words[: len(before) + 1]) if len(before) < len(words) else words[0]
