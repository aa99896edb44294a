"""Knowledge distillation: learn from labels and from the predictions of a teacher."""

import logging
import os
from collections.abc import Sized
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader
from transformers import BaseImageProcessor, Trainer

from realfake_hf.data.pixels import ModelInput, geometry, is_reproducible
from realfake_hf.labels import FAKE
from realfake_hf.models.checkpoint import fake_output, load_classifier, load_processor
from realfake_hf.models.pretrained import find_checkpoint
from realfake_hf.sampling import WeightedRows
from realfake_hf.training.regularization import cutmix

logger = logging.getLogger(__name__)


class Teacher:
    """A trained detector that predicts the same augmented images as its student.

    The weight of the distillation loss is in (0, 1]; the loss of the labels has the rest.
    """

    def __init__(self, model: Any, processor: BaseImageProcessor, *, weight: float) -> None:  # noqa: ANN401
        self.model: Any = model.eval().requires_grad_(False)
        if not is_reproducible(processor):
            raise ValueError(
                "expected a teacher whose image processor only resizes, crops, rescales and normalizes; found "
                f"{type(processor).__name__}, which does more. Use another --teacher."
            )
        self.processor, self.convert = processor, ModelInput(processor)
        self.weight = weight
        self._fake = fake_output(model.config)

    @classmethod
    def from_pretrained(cls, name: str | os.PathLike[str], *, weight: float) -> "Teacher":
        """Load a teacher from a folder or the Hub."""
        place = find_checkpoint(os.fspath(name))
        try:
            model = load_classifier(place, dtype=torch.float32)
            return cls(model, load_processor(place, model.config), weight=weight)
        except OSError as error:
            raise OSError(f"--teacher: {error}") from error

    def check_student(self, processor: BaseImageProcessor) -> None:
        """Raise a `ValueError` if images in the geometry of the student's processor are none for the teacher."""
        flips = getattr(processor, "do_flip_channel_order", None)
        if geometry(processor) != geometry(self.processor) and (flips or self.convert.size is None):
            raise ValueError(
                "expected a teacher with the image processor of the student, or two processors that keep the colours "
                f"and a teacher's that only resizes; found {type(self.processor).__name__} for the teacher and "
                f"{type(processor).__name__} for the student. Use another --teacher."
            )

    @torch.no_grad()
    def probabilities(self, pixels: Tensor) -> Tensor:
        """Predict from pixels (batch, height, width, 3) uint8: (batch, 2) in [0, 1], REAL first."""
        self.model.to(pixels.device)
        probabilities: Tensor = self.model(pixel_values=self.convert(pixels)).logits.float().softmax(dim=-1)
        return probabilities if self._fake == FAKE else probabilities.flip(1)

    def loss(self, outputs: Any, pixels: Tensor) -> Tensor:  # noqa: ANN401 - a model's own output class
        """Return the distillation loss of a student, in nats.

        A distillation head is trained on the teacher's labels (Touvron et al., 2021), a student without one on the
        teacher's probabilities (Hinton et al., 2015).
        """
        target = self.probabilities(pixels)
        distillation_logits: Tensor | None = getattr(outputs, "distillation_logits", None)
        if distillation_logits is not None:
            return cross_entropy(distillation_logits.float(), target.argmax(dim=-1))
        return cross_entropy(outputs.logits.float(), target)


class DistillationTrainer(Trainer):
    """A `Trainer` that adds the loss of a teacher, if any, to the training loss; evaluation uses labels only.

    Args:
        teacher: the teacher, or None.
        needs_two_images: whether to skip training batches of a single image, whose batch statistics are undefined.
        cutmix: share of the training batches that are mixed by `cutmix`.
        weights: (n,) probabilities of the training images in a draw with replacement; None to train on each once.
    """

    def __init__(
        self,
        *,
        teacher: Teacher | None,
        needs_two_images: bool = False,
        cutmix: float = 0.0,
        weights: NDArray[np.float64] | None = None,
        **settings: Any,  # noqa: ANN401
    ) -> None:
        super().__init__(**settings)
        self.teacher = teacher
        self.needs_two_images = needs_two_images
        self.cutmix = cutmix
        self.weights = weights
        self.latest_loss = torch.tensor(float("nan"))  # of the last training batch

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:  # noqa: ANN401 - as the Trainer's
        if self.weights is None:
            return super()._get_train_sampler(train_dataset)
        return WeightedRows(self.weights, self.train_dataset, seed=self.args.seed)

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Return the loader of the training split, without a last batch of a single image if it needs two."""
        n, batch_size = len(cast("Sized", self.train_dataset)), self.args.train_batch_size
        is_single = self.args.world_size == 1 and n > batch_size > 1 and n % batch_size == 1
        if not (self.needs_two_images and is_single):
            return super().get_train_dataloader()
        logger.warning("leaving out one image in each epoch: the last batch needs two for its batch norms")
        self.args.dataloader_drop_last = True
        try:
            return super().get_train_dataloader()
        finally:
            self.args.dataloader_drop_last = False  # an evaluation measures every image

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:  # noqa: ANN401 - as the Trainer's
        """Interpolate between the loss of the labels and the distillation loss."""
        if self.cutmix and model.training and torch.rand(()) < self.cutmix:
            inputs["pixel_values"], target = cutmix(inputs["pixel_values"], inputs["labels"])
            outputs = model(pixel_values=inputs["pixel_values"])
            loss = cross_entropy(outputs.logits, target, label_smoothing=self.args.label_smoothing_factor)
        else:
            loss, outputs = super().compute_loss(
                model, inputs, return_outputs=True, num_items_in_batch=num_items_in_batch
            )
        if self.teacher and model.training:
            loss = loss.lerp(self.teacher.loss(outputs, inputs["pixel_values"]), self.teacher.weight)
        if model.training:
            self.latest_loss = loss.detach()
        return (loss, outputs) if return_outputs else loss
