"""Load a pretrained image classifier for fine-tuning: found, given a head for REAL and FAKE, fitted, tried once."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModelForImageClassification,
    BaseImageProcessor,
    PreTrainedModel,
    ViTImageProcessorPil,
)
from transformers.utils import logging

from realfake_hf.data.pixels import plain_size
from realfake_hf.labels import LABEL_NAMES, id2label, label2id, parse_label
from realfake_hf.models.checkpoint import find_checkpoint
from realfake_hf.models.heads import head_modules
from realfake_hf.models.vit import fit_to_images, fits


def load_pretrained(
    name: str, *, image_size: int | None = None, patch_size: int | None = None, attn_implementation: str | None = None
) -> tuple[PreTrainedModel, BaseImageProcessor]:
    """Load any image classifier of transformers, to be fine-tuned on REAL and FAKE.

    A head that tells REAL from FAKE is kept, with its outputs in our order; any other is replaced by a new one.

    Args:
        name: a folder or a Hub id. A folder of the id's last part below `weights` or `REALFAKE_SHARED/weights` saves
            the download.
        image_size: pixels; the position table is resized (ViT, DeiT, DINOv2), and the processor gives this size.
        patch_size: pixels; the patch kernel is resized (ViT, DeiT, DINOv2).
        attn_implementation: `sdpa` or `eager`; by default transformers chooses.

    Returns:
        The model in float32, and the image processor that will be saved with it.

    Raises:
        OSError: there is no such model.
        ValueError: it is no image classifier, or cannot take such images or patches.
    """
    place = find_checkpoint(name)
    model = _load_model(place, name, attn_implementation)
    processor = _load_processor(place, name)
    if patch_size and not fits(model):
        raise ValueError(
            f"wanted a model with a table of positions (ViT, DeiT, DINOv2) for --patch_size; found "
            f"{model.config.model_type} in {name}. Leave --patch_size out."
        )
    if (image_size or patch_size) and fits(model):
        model = fit_to_images(model, image_size=image_size, patch_size=patch_size)
    if image_size:
        processor = _with_size(processor, image_size)
    _refuse_misfit(model, processor, name)
    return model, processor


def _load_model(place: str, name: str, attn_implementation: str | None) -> PreTrainedModel:
    try:
        config = AutoConfig.from_pretrained(place)
        before: dict[int, str] = config.id2label
        names: dict[str, Any] = {"id2label": id2label(), "label2id": label2id()}
        with _without_load_report():
            model: PreTrainedModel = AutoModelForImageClassification.from_pretrained(
                place,
                **names,
                attn_implementation=attn_implementation,
                ignore_mismatched_sizes=True,
                dtype=torch.float32,
            )
    except OSError as error:
        raise OSError(
            f"wanted a model folder or a Hub id; found none at {name!r} ({_first_line(error)}). Check the name and "
            "the network, or log in with `hf auth login` if it is private."
        ) from error
    except (KeyError, ValueError) as error:
        raise ValueError(
            f"wanted an image classifier of transformers; found another thing at {name!r} ({_first_line(error)})."
        ) from error
    _set_head(model, before)
    return model


@contextmanager
def _without_load_report() -> Iterator[None]:
    """Keep transformers from tabling the head that is replaced, as it is meant to be."""
    before = logging.get_verbosity()
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        logging.set_verbosity(before)


def _load_processor(place: str, name: str) -> BaseImageProcessor:
    try:
        processor: BaseImageProcessor = AutoImageProcessor.from_pretrained(place, backend="pil")  # type: ignore[no-untyped-call]
    except (OSError, ValueError) as error:
        raise OSError(
            f"wanted a preprocessor_config.json beside the model; found none at {name!r} ({_first_line(error)}). Add "
            "the one that the model was trained with."
        ) from error
    return processor


def _set_head(model: PreTrainedModel, before: dict[int, str]) -> None:
    """Bring the outputs of a two-class head into our order; start it anew where its labels say something else."""
    if len(before) != len(LABEL_NAMES):
        return  # another number of outputs: transformers has made a new head
    meant = [parse_label(before[index]) for index in range(len(LABEL_NAMES))]
    for head in head_modules(model).values():
        if meant == list(reversed(LABEL_NAMES)):
            head.weight.data, head.bias.data = head.weight.data.flip(0), head.bias.data.flip(0)
        elif meant != list(LABEL_NAMES):
            nn.init.zeros_(head.bias)
            nn.init.trunc_normal_(head.weight, std=0.02)


def _with_size(processor: BaseImageProcessor, size: int) -> BaseImageProcessor:
    """The same processor for another size, or a plain one with its numbers where it would also crop."""
    numbers = processor.to_dict()
    square = {"height": size, "width": size}
    if plain_size(processor):
        return type(processor).from_dict({**numbers, "size": square})  # type: ignore[no-any-return]
    kept = ("do_rescale", "rescale_factor", "do_normalize", "image_mean", "image_std", "resample")
    return ViTImageProcessorPil(size=square, **{name: numbers[name] for name in kept if name in numbers})


def _refuse_misfit(model: PreTrainedModel, processor: BaseImageProcessor, name: str) -> None:
    """Try the model on one empty picture of its processor's size."""
    size = plain_size(processor) or _crop_size(processor)
    if size is None:
        return  # the size follows the picture: the pixel cache refuses it
    try:
        with torch.inference_mode():
            model(pixel_values=torch.zeros(1, 3, size[1], size[0]))
    except (RuntimeError, ValueError, TypeError) as error:
        raise ValueError(
            f"wanted a model that takes pictures of {size[0]}x{size[1]} pixels, as its image processor gives; "
            f"{name!r} does not ({_first_line(error)}). Give another --image_size."
        ) from error


def _crop_size(processor: BaseImageProcessor) -> tuple[int, int] | None:
    numbers = processor.to_dict()
    crop = numbers.get("crop_size") or {}
    return (crop["width"], crop["height"]) if numbers.get("do_center_crop") and "height" in crop else None


def _first_line(error: Exception) -> str:
    return re.split(r"\n|\. ", str(error).strip(), maxsplit=1)[0].rstrip(".") or type(error).__name__
