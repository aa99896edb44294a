"""Learn from a teacher beside the labels: its probabilities, or, in a DeiT with two heads, its verdicts."""

import os
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import AutoImageProcessor, AutoModelForImageClassification, BaseImageProcessor, Trainer

from realfake_hf.data.pixels import ModelInput
from realfake_hf.labels import FAKE, fake_index
from realfake_hf.models.pretrained import find_checkpoint


class Teacher:
    """A trained detector that tells a student what it sees in the same augmented pictures.

    Args:
        model: any two-class image classifier whose labels say real and fake.
        processor: the image processor saved with it.
        weight: share of the teacher in the loss, in (0, 1]; the labels have the rest.
    """

    def __init__(self, model: Any, processor: BaseImageProcessor, *, weight: float) -> None:  # noqa: ANN401
        self.model: Any = model.eval().requires_grad_(False)
        self.convert = ModelInput(processor)
        self.weight = weight
        self._fake = fake_index(model.config.id2label)

    @classmethod
    def from_pretrained(cls, name: str | os.PathLike[str], *, weight: float) -> "Teacher":
        """Load a teacher from a folder or the Hub.

        Raises:
            OSError: there is no model of that name.
            ValueError: its labels do not say which of its outputs means fake.
        """
        try:
            place = find_checkpoint(os.fspath(name))
            model = AutoModelForImageClassification.from_pretrained(place, dtype=torch.float32)
            processor = AutoImageProcessor.from_pretrained(place, backend="pil")  # type: ignore[no-untyped-call]
        except OSError as error:
            raise OSError(f"wanted a trained detector as --teacher; found none at {os.fspath(name)!r}.") from error
        return cls(model, processor, weight=weight)

    @torch.no_grad()
    def probabilities(self, pixels: Tensor) -> Tensor:
        """Judge stored pixels (batch, height, width, 3) uint8: (batch, 2), REAL first."""
        self.model.to(pixels.device)
        odds: Tensor = self.model(pixel_values=self.convert(pixels)).logits.float().softmax(dim=-1)
        return odds if self._fake == FAKE else odds.flip(1)

    def loss(self, outputs: Any, pixels: Tensor) -> Tensor:  # noqa: ANN401 - a model's own output class
        """How far the student is from the teacher, in nats.

        A student with a distillation head is held to the teacher's verdict there (Touvron et al., 2021), any other to
        its probabilities (Hinton et al., 2015).
        """
        wanted = self.probabilities(pixels)
        second: Tensor | None = getattr(outputs, "distillation_logits", None)
        if second is not None:
            return cross_entropy(second.float(), wanted.argmax(dim=-1))
        return cross_entropy(outputs.logits.float(), wanted)


class TaughtTrainer(Trainer):
    """A `Trainer` whose loss is shared between the labels and a teacher, if any; evaluation knows the labels only."""

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
        """Mix the loss of the labels with the teacher's."""
        loss, outputs = super().compute_loss(model, inputs, return_outputs=True, num_items_in_batch=num_items_in_batch)
        if self.teacher and model.training:
            loss = loss.lerp(self.teacher.loss(outputs, inputs["pixel_values"]), self.teacher.weight)
        return (loss, outputs) if return_outputs else loss
