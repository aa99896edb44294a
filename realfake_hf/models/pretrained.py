"""Load a pretrained image classifier for fine-tuning, with a head for REAL and FAKE, at any image size."""

import copy
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, cast

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional
from transformers import BaseImageProcessor, PreTrainedModel, ViTImageProcessorPil

from realfake_hf.data.pixels import processed, resize_target
from realfake_hf.labels import LABEL_NAMES, id2label, label2id, parse_label
from realfake_hf.metrics.operating_point import find_beside
from realfake_hf.models.checkpoint import (
    SOFTMAX,
    WEIGHT_SUFFIXES,
    first_sentence,
    load_classifier,
    load_config,
    load_processor,
    load_tower,
)
from realfake_hf.models.heads import head_modules
from realfake_hf.models.multiview import MultiViewConfig, MultiViewForImageClassification
from realfake_hf.models.views import MultiViewImageProcessor
from realfake_hf.store import sha256_of

WEIGHTS: Final = "weights"  # folder of downloaded checkpoints, in the working directory or in REALFAKE_SHARED
_KERNELS: Final = ("embeddings.patch_embeddings.projection.weight", "embeddings.patch_embedding.weight")
_POSITIONS: Final = ("embeddings.position_embeddings", "embeddings.position_embedding.weight")
_MOST_SPECIAL: Final = 2  # positions of special tokens: those of a class token and a distillation token
_BLANK: Final = Image.new("RGB", (64, 64))


def load_pretrained(
    name: str,
    *,
    image_size: int | None = None,
    patch_size: int | None = None,
    attn_implementation: str | None = None,
) -> tuple[PreTrainedModel, BaseImageProcessor]:
    """Load an image classifier of transformers, from a folder or the Hub, for fine-tuning on REAL and FAKE.

    An existing head for REAL and FAKE is kept, with its outputs in the order of this project; any other head is
    replaced by a new one. The image size, in pixels, resizes the position table (ViT, DeiT, DINOv2, CLIP, SigLIP) and
    sets the size of the processor; the patch size resizes the patch kernel of these models. Return the model in
    float32, and the image processor to save with it.

    Raises:
        OSError: the model or its image processor does not exist.
        ValueError: the model is not an image classifier, or does not support the image or patch size.
    """
    place = find_checkpoint(name)
    model = _load_model(place, attn_implementation)
    processor = load_processor(place, model.config)
    processed(_BLANK, processor)  # raises an error if the model does not take images
    if (image_size or patch_size) and is_resizable(model):
        model = resize_model(model, image_size=image_size, patch_size=patch_size)
    elif patch_size:
        raise ValueError(
            f"expected a model with a position table (ViT, DeiT, DINOv2, CLIP, SigLIP) for --patch_size; found "
            f"{model.config.model_type} at {name!r}. Omit --patch_size."
        )
    if image_size:
        processor = _with_size(processor, image_size)
    _check_forward(model, processor, name)
    return model, processor


def build_multiview(
    tower: str, *, tower_layers: int, feature_layers: Sequence[int], hidden_units: int = 0, n_windows: int = 3
) -> tuple[MultiViewForImageClassification, MultiViewImageProcessor]:
    """Build a classifier of several views with new heads on the first layers of a pretrained vision tower.

    Args:
        tower: a folder or a Hub id of a vision transformer, or of a model with one, such as CLIP.
        tower_layers: layers to keep.
        feature_layers: see `MultiViewConfig`.
        hidden_units: see `MultiViewConfig`.
        n_windows: see `MultiViewImageProcessor`.

    Returns:
        The model, with the tower's weights in 8 bits, and its image processor.
    """
    place = find_checkpoint(tower)
    config: Any = load_config(place)
    source = load_processor(place, config)
    config = getattr(config, "vision_config", config)
    if not 1 <= tower_layers <= config.num_hidden_layers:
        raise ValueError(f"expected --tower_layers from 1 to {config.num_hidden_layers}; found {tower_layers}.")
    config.num_hidden_layers = tower_layers
    if hasattr(config, "vision_use_head"):
        config.vision_use_head = False  # the pooling of SigLIP: it follows the layers, and reads float weights
    settings = MultiViewConfig(
        tower_config=config, feature_layers=list(feature_layers), hidden_units=hidden_units, id2label=id2label(),
        label2id=label2id(),
    )  # fmt: skip
    model = MultiViewForImageClassification(settings)
    model.set_tower(load_tower(place, config))
    size = getattr(source, "crop_size", None) or source.size  # type: ignore[attr-defined]
    numbers = {name: getattr(source, name) for name in ("image_mean", "image_std")}
    return model, MultiViewImageProcessor(size=dict(size), n_windows=n_windows, **numbers)


def find_checkpoint(name: str) -> str:
    """Return the local folder of a checkpoint, or the name itself as a Hub id.

    The folder is `name`, `weights/LAST` or `$REALFAKE_SHARED/weights/LAST`; LAST is the last part of the name.

    >>> find_checkpoint("user/no-such-model")
    'user/no-such-model'
    """
    if Path(name).expanduser().is_dir():
        return str(Path(name).expanduser())
    roots = [Path(), *([Path(shared)] if (shared := os.environ.get("REALFAKE_SHARED")) else [])]
    places = [root / WEIGHTS / name.rpartition("/")[2] for root in roots]
    return next((str(place) for place in places if (place / "config.json").is_file()), name)


def weight_files(name: str) -> dict[str, Any]:
    """Return what identifies the weights of a checkpoint that `load_pretrained` loads.

    The result has the `name`, the `revision`, which is the commit on the Hub or None for a folder, and `files`, the
    SHA-256 of each file of weights by name.
    """
    place = find_checkpoint(name)
    config = find_beside(place, "config.json")
    if config is None:
        raise OSError(f"expected the config.json of a model at {name!r}; found none.")
    files = sorted(file for file in config.parent.iterdir() if file.suffix in WEIGHT_SUFFIXES)
    revision = None if Path(place).is_dir() else config.parent.name  # the folder of a snapshot
    return {"name": name, "revision": revision, "files": {file.name: sha256_of(file) for file in files}}


def is_resizable(model: PreTrainedModel) -> bool:
    """Return whether `resize_model` applies: the model has one kernel of patches and a position for each patch."""
    weights = list(model.named_parameters())
    has_kernel = any(name.endswith(_KERNELS) for name, _ in weights)
    table = next((value for name, value in weights if name.endswith(_POSITIONS)), None)
    image_size, patch_size = (getattr(_vision(model.config), name, None) for name in ("image_size", "patch_size"))
    if not has_kernel or table is None or not isinstance(image_size, int) or not isinstance(patch_size, int):
        return False
    special = table.shape[-2] - (image_size // patch_size) ** 2
    return 0 <= special <= _MOST_SPECIAL


def resize_model(
    model: PreTrainedModel, *, image_size: int | None = None, patch_size: int | None = None
) -> PreTrainedModel:
    """Return a new model of the same class for another image or patch size, in pixels; None keeps the size.

    The position table is interpolated over its grid, the patch kernel is resized by its pseudo-inverse, and all other
    weights are copied. `is_resizable` must be true.

    Raises:
        ValueError: the image size is not divisible by the patch size, or this process does not have the weights.
    """
    if any(value.is_meta for value in model.parameters()):
        raise ValueError(
            "expected the weights in each process, to resize them; found them in the first process only. Launch with "
            "fsdp_cpu_ram_efficient_loading: false, as in recipes/accelerate/fsdp.yaml."
        )
    whole: Any = copy.deepcopy(model.config)
    config = _vision(whole)
    image_size, patch_size = image_size or config.image_size, patch_size or config.patch_size
    if image_size % patch_size:
        raise ValueError(
            f"expected an image size that is divisible by the patch size; found {image_size} and {patch_size} pixels. "
            f"Use --image_size {image_size // patch_size * patch_size or patch_size}, or another --patch_size."
        )
    old_grid, grid = config.image_size // config.patch_size, image_size // patch_size
    config.image_size, config.patch_size = image_size, patch_size
    weights = model.state_dict()
    for name, value in list(weights.items()):
        if name.endswith(_KERNELS):
            weights[name] = resize_patch_kernel(value, patch_size)
        elif name.endswith(_POSITIONS):
            weights[name] = resize_positions(value, old_grid=old_grid, grid=grid)
    resized: Any = type(model)(whole)
    resized.to(model.dtype).load_state_dict(weights)
    return cast("PreTrainedModel", resized)


def resize_patch_kernel(kernel: Tensor, size: int) -> Tensor:
    """Resize a patch kernel such that its response to a resized patch equals the response to the original patch.

    Beyer et al. (2023), *FlexiViT: One Model for All Patch Sizes*, section 3.4. If the matrix B resizes a patch
    bilinearly, the new kernel is w pinv(B): exact for larger patches, the least-squares solution under white noise for
    smaller ones. The kernel, (hidden, channels, height, width), becomes (hidden, channels, size, size) of the same
    dtype.
    """
    height, width = kernel.shape[-2:]
    if (height, width) == (size, size):
        return kernel
    pixels = torch.eye(height * width, dtype=torch.float64).view(-1, 1, height, width)
    resize = functional.interpolate(pixels, (size, size), mode="bilinear", antialias=True).flatten(1).T
    resized: Tensor = kernel.flatten(2).double() @ torch.linalg.pinv(resize)
    return resized.view(*kernel.shape[:2], size, size).to(kernel.dtype)


def resize_positions(table: Tensor, *, old_grid: int, grid: int) -> Tensor:
    """Resize the grid part of a position table by bicubic interpolation; rows of special tokens are copied.

    The table, (special tokens + old_grid * old_grid, hidden) or (1, ...), becomes one of special tokens + grid * grid
    rows of the same dtype.
    """
    if old_grid == grid:
        return table
    special = table.shape[-2] - old_grid**2
    cells = table[..., special:, :].reshape(1, old_grid, old_grid, -1).permute(0, 3, 1, 2)
    resized = functional.interpolate(cells.float(), (grid, grid), mode="bicubic", antialias=True).to(table.dtype)
    rows = resized.permute(0, 2, 3, 1).reshape(*table.shape[:-2], grid * grid, -1)
    return torch.cat([table[..., :special, :], rows], dim=-2)


def _vision(config: Any) -> Any:  # noqa: ANN401 - any class of config
    """Return the part of a config that describes the vision tower."""
    return getattr(config, "vision_config", config)


def random_weights(model: PreTrainedModel, *, seed: int) -> PreTrainedModel:
    """Return an untrained model of the same configuration, device and dtype, in eval mode.

    The global random state of PyTorch is restored afterwards.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would also reseed accelerators, permanently
        untrained = type(model)(copy.deepcopy(model.config))
    return untrained.to(device=model.device, dtype=model.dtype).eval()  # type: ignore[call-arg,no-any-return]


def _load_model(place: str, attn_implementation: str | None) -> PreTrainedModel:
    config: Any = load_config(place)
    saved_names: dict[int, str] = dict(config.id2label)
    config.num_labels = len(LABEL_NAMES)  # PVT does not count the labels
    if hasattr(config, "label_names"):
        config.label_names = list(LABEL_NAMES)  # timm saves these
    config.id2label, config.label2id, config.problem_type = id2label(), label2id(), SOFTMAX
    model = load_classifier(
        place, config=config, attn_implementation=attn_implementation, dtype=torch.float32, allow_new_head=True
    )
    _set_head(model, saved_names)
    return model


def _set_head(model: PreTrainedModel, saved_names: dict[int, str]) -> None:
    """Swap the outputs of a head for FAKE and REAL; re-initialise a two-class head with other labels."""
    if len(saved_names) != len(LABEL_NAMES):
        return  # transformers has made a new head
    labels = [parse_label(saved_names[index]) for index in range(len(LABEL_NAMES))]
    for head in head_modules(model).values():
        for value in head.parameters():
            if labels == list(reversed(LABEL_NAMES)):
                value.data = value.data.flip(0) if len(value) > 1 else -value.data  # (0, z) of the CIFAKE CNN
            elif labels != list(LABEL_NAMES):
                nn.init.trunc_normal_(value, std=0.02) if value.ndim > 1 else nn.init.zeros_(value)


def _with_size(processor: BaseImageProcessor, size: int) -> BaseImageProcessor:
    """Return the processor for another size; one that crops or pads is replaced by one that only resizes."""
    settings = processor.to_dict()
    square = {"height": size, "width": size}
    if resize_target(processor):
        return type(processor).from_dict({**settings, "size": square})  # type: ignore[no-any-return]
    if settings.get("do_flip_channel_order"):  # MobileViT
        return type(processor).from_dict({**settings, "size": square, "do_center_crop": False})  # type: ignore[no-any-return]
    if "do_rescale" not in settings:
        raise ValueError(
            f"expected an image processor of transformers for --image_size; found {type(processor).__name__}."
        )
    names = ("do_rescale", "rescale_factor", "do_normalize", "image_mean", "image_std", "resample")
    return ViTImageProcessorPil(size=square, **{name: settings[name] for name in names if name in settings})


def _check_forward(model: PreTrainedModel, processor: BaseImageProcessor, name: str) -> None:
    """Pass one blank image through the processor and the model."""
    values = processed(_BLANK, processor)
    size = f"{values.shape[3]}x{values.shape[2]}"
    try:
        with torch.inference_mode():
            logits = getattr(model(pixel_values=values), "logits", None)
    except (RuntimeError, ValueError, TypeError) as error:
        raise ValueError(
            f"expected a model that accepts images of {size} pixels, the size of its image processor; "
            f"{name!r} does not ({first_sentence(error)}). Omit --image_size, or use another."
        ) from error
    if logits is None or logits.shape != (1, len(LABEL_NAMES)):
        found = "none" if logits is None else f"logits of shape {tuple(logits.shape)}"
        raise ValueError(
            f"expected a classifier that returns logits of shape (1, 2) for one image and two labels; found {found} "
            f"from {type(model).__name__} at {name!r}. Use another model."
        )
