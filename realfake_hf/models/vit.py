"""Fit a pretrained vision transformer to another image and patch size, as an ordinary model of its class."""

import copy
from typing import Any, Final, cast

import torch
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel

_KERNEL: Final = "embeddings.patch_embeddings.projection.weight"
_POSITIONS: Final = "embeddings.position_embeddings"


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


def _fitted(name: str, value: Tensor, *, old_grid: int, grid: int, patch_size: int) -> Tensor:
    if name.endswith(_KERNEL):
        return resize_patch_kernel(value, patch_size)
    return resize_positions(value, old_grid=old_grid, grid=grid) if name.endswith(_POSITIONS) else value
