"""Knowledge distillation: learn from labels and from the predictions of a teacher."""

import os
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import BaseImageProcessor, Trainer

from realfake_hf.data.pixels import ModelInput
from realfake_hf.labels import FAKE
from realfake_hf.models.checkpoint import fake_output, load_classifier, load_processor
from realfake_hf.models.pretrained import find_checkpoint


class Teacher:
    """A trained detector that predicts the same augmented images as its student.

    Args:
        model: a two-class image classifier whose labels mean real and fake.
        processor: the image processor saved with it.
        weight: weight of the distillation loss, in (0, 1]; the loss of the labels has the rest.
    """

    def __init__(self, model: Any, processor: BaseImageProcessor, *, weight: float) -> None:  # noqa: ANN401
        self.model: Any = model.eval().requires_grad_(False)
        self.convert = ModelInput(processor)
        self.weight = weight
        self._fake = fake_output(model.config)

    @classmethod
    def from_pretrained(cls, name: str | os.PathLike[str], *, weight: float) -> "Teacher":
        """Load a teacher from a folder or the Hub.

        Raises:
            OSError: the model does not exist.
            ValueError: its labels do not mean real and fake.
        """
        place = find_checkpoint(os.fspath(name))
        try:
            model = load_classifier(place, dtype=torch.float32)
            return cls(model, load_processor(place, model.config), weight=weight)
        except OSError as error:
            raise OSError(f"--teacher: {error}") from error

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
    """A `Trainer` that adds the loss of a teacher, if any, to the training loss; evaluation uses labels only."""

    def __init__(self, *, teacher: Teacher | None, **settings: Any) -> None:  # noqa: ANN401 - the Trainer's own
        super().__init__(**settings)
        self.teacher = teacher

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:  # noqa: ANN401 - as the Trainer's
        """Interpolate between the loss of the labels and the distillation loss."""
        loss, outputs = super().compute_loss(model, inputs, return_outputs=True, num_items_in_batch=num_items_in_batch)
        if self.teacher and model.training:
            loss = loss.lerp(self.teacher.loss(outputs, inputs["pixel_values"]), self.teacher.weight)
        return (loss, outputs) if return_outputs else loss
