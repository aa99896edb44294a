"""Load a pretrained image classifier for fine-tuning: found, given a head for REAL and FAKE, fitted, tried once."""

import copy
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModelForImageClassification,
    BaseImageProcessor,
    PreTrainedModel,
    ViTImageProcessorPil,
)
from transformers.utils import logging

from realfake_hf.data.pixels import resize_target
from realfake_hf.labels import LABEL_NAMES, id2label, label2id, parse_label
from realfake_hf.models.heads import head_modules

WEIGHTS: Final = "weights"  # the folder, here or below REALFAKE_SHARED, where downloaded checkpoints may lie
_KERNEL: Final = "embeddings.patch_embeddings.projection.weight"
_POSITIONS: Final = "embeddings.position_embeddings"


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


def find_checkpoint(name: str) -> str:
    """Give the folder of a checkpoint where one lies here, or else the name itself, for the Hub.

    >>> find_checkpoint("user/no-such-model")
    'user/no-such-model'
    """
    if Path(name).expanduser().is_dir():
        return str(Path(name).expanduser())
    roots = [Path(), *([Path(shared)] if (shared := os.environ.get("REALFAKE_SHARED")) else [])]
    places = [root / WEIGHTS / name.rpartition("/")[2] for root in roots]
    return next((str(place) for place in places if (place / "config.json").is_file()), name)


def fits(model: PreTrainedModel) -> bool:
    """Say whether `fit_to_images` can change a model: a ViT, DeiT or DINOv2 has a patch kernel and position table."""
    names = [name for name, _ in model.named_parameters()]
    return all(any(name.endswith(part) for name in names) for part in (_KERNEL, _POSITIONS))


def fit_to_images(
    model: PreTrainedModel, *, image_size: int | None = None, patch_size: int | None = None
) -> PreTrainedModel:
    """Give a new model of the same class for images and patches of other sizes, with the weights carried over.

    The position table is resized over its grid, the patch kernel by its pseudo-inverse; all else is copied. Sizes are
    in pixels, and None keeps the model's own.

    Raises:
        ValueError: the patches do not divide the image, or the weights are not in this process.
    """
    if any(value.is_meta for value in model.parameters()):
        raise ValueError(
            "wanted the weights of the model in each process, to fit it to the pictures; found them in the first one "
            "alone. Launch with fsdp_cpu_ram_efficient_loading: false, as recipes/accelerate/fsdp.yaml does."
        )
    config: Any = copy.deepcopy(model.config)
    image_size, patch_size = image_size or config.image_size, patch_size or config.patch_size
    if image_size % patch_size:
        raise ValueError(
            f"wanted an image size that the patch size divides; found {image_size} and {patch_size} pixels. "
            f"Give --image_size {image_size // patch_size * patch_size or patch_size}, or another --patch_size."
        )
    old_grid, grid = config.image_size // config.patch_size, image_size // patch_size
    config.image_size, config.patch_size = image_size, patch_size
    weights = {
        name: _fitted(name, value, old_grid=old_grid, grid=grid, patch_size=patch_size)
        for name, value in model.state_dict().items()
    }
    fitted: Any = type(model)(config)
    fitted.to(model.dtype).load_state_dict(weights)
    return cast("PreTrainedModel", fitted)


def resize_patch_kernel(kernel: Tensor, size: int) -> Tensor:
    """Resize a patch kernel so that it answers a resized patch as it answered the patch (FlexiViT).

    Beyer et al. (2023), *FlexiViT: One Model for All Patch Sizes*, section 3.4. With B the bilinear resize of a patch
    as a matrix, the new kernel is w pinv(B): exact where patches grow, the least squares for white noise where they
    shrink.

    Args:
        kernel: (hidden, channels, height, width).
        size: the new height and width in pixels.

    Returns:
        (hidden, channels, size, size) of the same dtype.
    """
    height, width = kernel.shape[-2:]
    if (height, width) == (size, size):
        return kernel
    pixels = torch.eye(height * width, dtype=torch.float64).view(-1, 1, height, width)
    resize = functional.interpolate(pixels, (size, size), mode="bilinear", antialias=True).flatten(1).T
    resized: Tensor = kernel.flatten(2).double() @ torch.linalg.pinv(resize)
    return resized.view(*kernel.shape[:2], size, size).to(kernel.dtype)


def resize_positions(table: Tensor, *, old_grid: int, grid: int) -> Tensor:
    """Resize the grid part of a position table by bicubic interpolation; special tokens keep their rows.

    Args:
        table: (1, special tokens + old_grid * old_grid, hidden).
        old_grid: patches along a side of the images that the table was made for.
        grid: patches along a side of the new ones.

    Returns:
        (1, special tokens + grid * grid, hidden) of the same dtype.
    """
    if old_grid == grid:
        return table
    special = table.shape[1] - old_grid**2
    cells = table[:, special:].reshape(1, old_grid, old_grid, -1).permute(0, 3, 1, 2)
    resized = functional.interpolate(cells.float(), (grid, grid), mode="bicubic", antialias=True).to(table.dtype)
    return torch.cat([table[:, :special], resized.permute(0, 2, 3, 1).flatten(1, 2)], dim=1)


def random_weights(model: PreTrainedModel, *, seed: int) -> PreTrainedModel:
    """Return an untrained model of the same configuration.

    Args:
        model: any model that initialises itself.
        seed: of the weights; the global state of PyTorch's generator is restored afterwards.

    Returns:
        A new model in eval mode, on the same device and with the same dtype.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would also reseed accelerators, for good
        twin = type(model)(copy.deepcopy(model.config))
    return twin.to(device=model.device, dtype=model.dtype).eval()  # type: ignore[call-arg,no-any-return]


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
    if resize_target(processor):
        return type(processor).from_dict({**numbers, "size": square})  # type: ignore[no-any-return]
    kept = ("do_rescale", "rescale_factor", "do_normalize", "image_mean", "image_std", "resample")
    return ViTImageProcessorPil(size=square, **{name: numbers[name] for name in kept if name in numbers})


def _refuse_misfit(model: PreTrainedModel, processor: BaseImageProcessor, name: str) -> None:
    """Try the model on one empty picture of its processor's size."""
    size = resize_target(processor) or _crop_size(processor)
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


def _fitted(name: str, value: Tensor, *, old_grid: int, grid: int, patch_size: int) -> Tensor:
    if name.endswith(_KERNEL):
        return resize_patch_kernel(value, patch_size)
    return resize_positions(value, old_grid=old_grid, grid=grid) if name.endswith(_POSITIONS) else value
