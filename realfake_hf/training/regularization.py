"""Regularization of training steps: rectangles exchanged between images, and patches that are left out."""

from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot
from transformers import PreTrainedModel, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from realfake_hf.attribution.layout import block_of, layout_of

BLOCK: Final = 8  # pixels of a block of JPEG


def cutmix(pixels: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Exchange a random rectangle between the images of a batch (Yun et al., 2019, *CutMix*, ICCV).

    It is the same rectangle in all images, of whole blocks of JPEG, so that compression leaves the same traces inside
    and outside.

    Args:
        pixels: (batch, height, width, 3).
        labels: (batch,) 0 or 1.

    Returns:
        The mixed pixels, and the share of the area that each label has, (batch, 2) float32.

    Raises:
        ValueError: the images are smaller than two blocks.
    """
    top, height = _interval(pixels.shape[1])
    left, width = _interval(pixels.shape[2])
    order = torch.randperm(len(pixels)).to(pixels.device)
    mixed = pixels.clone()
    mixed[:, top : top + height, left : left + width] = pixels[order, top : top + height, left : left + width]
    target = one_hot(labels, 2).float()
    share = height * width / (pixels.shape[1] * pixels.shape[2])
    return mixed, target.lerp(target[order], share)


def _interval(side: int) -> tuple[int, int]:
    """Draw the start and length of an interval of whole blocks, shorter than the side."""
    blocks = side // BLOCK
    if blocks < 2:  # noqa: PLR2004
        raise ValueError(f"expected images of at least {2 * BLOCK} pixels for --cutmix; found {side}. Omit --cutmix.")
    length = int(torch.randint(1, blocks, ()))
    return BLOCK * int(torch.randint(blocks - length + 1, ())), BLOCK * length


class PatchDropout(TrainerCallback):
    """Let a transformer read a random share of the patches of each training image (Liu et al., 2023, WACV).

    A step takes about that share of the time. In the last epochs it reads all patches, as in evaluation.

    Args:
        model: a classifier whose tokens attend to all others.
        share: of the patches of an image that are read, in (0, 1).
        full_epochs: last epochs in which all patches are read.

    Raises:
        ValueError: the model is not such a classifier.
    """

    def __init__(self, model: PreTrainedModel, *, share: float, full_epochs: int) -> None:
        layout = layout_of(model)
        if layout.refusal:
            raise ValueError(
                f"expected a transformer for --patch_share; found {type(model).__name__}: {layout.refusal}. Omit it."
            )
        self.share, self.full_epochs = share, full_epochs
        self.is_active = False
        self._patches = layout.grid[0] * layout.grid[1]
        self._hook = block_of(model, layout.attention[0]).register_forward_pre_hook(self._drop)

    def on_epoch_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Leave patches out, or not, in the coming epoch."""
        self.is_active = int(state.epoch or 0) < args.num_train_epochs - self.full_epochs

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Leave the model as it was."""
        self._hook.remove()

    def _drop(self, block: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:
        if not (self.is_active and block.training):
            return None
        states: Tensor = inputs[0]  # (batch, tokens, width)
        special = states.shape[1] - self._patches
        order = torch.rand(len(states), self._patches).argsort(dim=1)[:, : round(self.share * self._patches)]
        kept = states[:, special:].gather(1, order.to(states.device)[..., None].expand(-1, -1, states.shape[2]))
        return (torch.cat([states[:, :special], kept], dim=1), *inputs[1:])
