"""The settings of a training: which pictures, which model, how it learns. Each is a flag and a key of a recipe."""

from dataclasses import dataclass, field
from typing import Any, Final

import torch
from transformers import TrainingArguments

from realfake_hf.data.augment import Augmentation

CIFAKE_CNN: Final = "cifake-cnn"
CNN_SHAPE: Final = ("num_filters", "num_conv_layers", "dense_units", "num_dense_layers")

_PRETRAINED_ONLY: Final = (
    "image_size", "patch_size", "attn_implementation", "freeze_backbone", "head_epochs", "layer_decay", "lora_rank",
)  # fmt: skip


def _setting(default: Any, help_text: str) -> Any:  # noqa: ANN401 - as dataclasses.field
    return field(default=default, metadata={"help": help_text})


@dataclass
class DataArguments:
    """Which pictures, and how they are split."""

    data: str = _setting("cifake", "demo, cifake, a zip archive, a folder, a parquet file, or a Hub id.")
    validation_share: float = _setting(0.05, "Share of the training pictures set aside where there is no validation.")
    test_share: float = _setting(0.2, "Share of the training pictures set aside where the source has no test split.")
    split_seed: int = _setting(0, "Seed of these cuts; the same for all seeds of a model, so that runs compare.")
    train_size: int | None = _setting(None, "Train on so many pictures only, even in labels and contents; None: all.")
    streaming: bool = _setting(False, "Read training pictures as they come from parquet shards; memory stays small.")
    buffer_size: int = _setting(
        8192, "With --streaming: training pictures that are shuffled at once, for each worker."
    )

    def __post_init__(self) -> None:
        """Refuse an empty training set, and a stream of which a part is wanted.

        Raises:
            ValueError: it is asked for.
        """
        if self.train_size is not None and self.train_size < 1:
            raise ValueError(f"wanted --train_size of at least 1; found {self.train_size}.")
        if self.streaming and self.train_size is not None:
            raise ValueError("wanted --streaming or --train_size; found both. Write shards of fewer pictures.")
        if self.buffer_size < 1:
            raise ValueError(f"wanted --buffer_size of at least 1; found {self.buffer_size}.")


@dataclass
class ModelArguments:
    """Which model is trained, and which of its weights learn how fast."""

    model: str = _setting(CIFAKE_CNN, "cifake-cnn (new weights), or a folder or Hub id to fine-tune.")
    num_filters: int = _setting(32, "cifake-cnn: filters of each convolution.")
    num_conv_layers: int = _setting(2, "cifake-cnn: convolutions, each followed by pooling.")
    dense_units: int = _setting(64, "cifake-cnn: units of each dense layer.")
    num_dense_layers: int = _setting(1, "cifake-cnn: dense layers before the output unit.")
    image_size: int | None = _setting(None, "Fine-tuning: pixels along a side of the model's input; None: its own.")
    patch_size: int | None = _setting(None, "Fine-tuning: pixels along a side of a patch; None: the model's own.")
    attn_implementation: str | None = _setting(
        None, "Fine-tuning: sdpa or eager, which is faster in bf16 on CPUs; None: transformers' choice."
    )
    freeze_backbone: bool = _setting(False, "Fine-tuning: only the head learns.")
    head_epochs: int = _setting(0, "Fine-tuning: epochs in the beginning in which only the head learns.")
    layer_decay: float = _setting(1.0, "Fine-tuning: learning rate of a layer as a share of that of the next one.")
    lora_rank: int = _setting(0, "Fine-tuning: rank of LoRA's updates of the linear layers, merged on save; 0: off.")

    teacher: str | None = _setting(None, "A folder or Hub id of a trained detector to learn from beside the labels.")
    teacher_weight: float = _setting(0.5, "Share of the teacher in the loss.")

    def __post_init__(self) -> None:
        """Refuse settings that contradict each other.

        Raises:
            ValueError: they do.
        """
        wrong = CNN_SHAPE if self.model != CIFAKE_CNN else _PRETRAINED_ONLY
        for name in wrong:
            if getattr(self, name) != type(self).__dataclass_fields__[name].default:
                raise ValueError(f"wanted settings that go with --model {self.model}; found --{name}. Leave it out.")
        for name in ("head_epochs", "lora_rank"):
            if self.freeze_backbone and getattr(self, name):
                raise ValueError(
                    f"wanted --freeze_backbone or --{name}; found both. A frozen backbone never learns: leave one out."
                )
        if not 0 < self.layer_decay <= 1:
            raise ValueError(f"wanted --layer_decay above 0 and at most 1; found {self.layer_decay}.")
        if not 0 < self.teacher_weight <= 1:
            raise ValueError(f"wanted --teacher_weight above 0 and at most 1; found {self.teacher_weight}.")


@dataclass
class RunArguments(TrainingArguments):
    """The `TrainingArguments` of transformers with defaults that suit this work, and a few settings more."""

    output_dir: str | None = _setting("runs/cifake-cnn", "Where model, measurements and figures go.")
    num_train_epochs: float = _setting(12.0, "Passes over the training pictures.")
    per_device_train_batch_size: int = _setting(128, "Pictures in a training step, on each device.")
    per_device_eval_batch_size: int = _setting(500, "Pictures in an evaluation step, on each device.")
    learning_rate: float = _setting(3e-3, "The highest learning rate.")
    lr_scheduler_type: str = _setting("cosine", "How the learning rate falls.")
    warmup_steps: float = _setting(0.2, "Steps of rising learning rate; below 1, a share of all steps.")
    weight_decay: float = _setting(0.01, "AdamW's weight decay.")
    eval_strategy: str = _setting("epoch", "When to validate.")
    save_strategy: str = _setting("epoch", "When to write a checkpoint.")
    logging_strategy: str = _setting("epoch", "When to note the training loss.")
    save_total_limit: int | None = _setting(2, "Checkpoints kept: the best and the last.")
    load_best_model_at_end: bool = _setting(True, "Keep the epoch that is best on validation.")
    metric_for_best_model: str | None = _setting("accuracy", "What best means, measured on validation.")
    greater_is_better: bool | None = _setting(True, "Whether more of it is better.")
    remove_unused_columns: bool = _setting(False, "Batches hold just what the model takes.")
    seed: int = _setting(0, "Seed of weights, order and augmentation.")
    flip: bool = _setting(True, "Mirror training pictures left to right at random.")
    crop_padding: int = _setting(0, "Cut training pictures at random out of themselves with so many pixels around.")
    robust_share: float = _setting(0.0, "Share of training pictures degraded by JPEG, blur, noise or rescaling.")
    ema_decay: float | None = _setting(None, "Measure and keep a running mean of the weights with this memory: 0.999.")
    early_stopping_patience: int | None = _setting(None, "Stop after so many epochs without improvement.")
    checkpoint_steps: int | None = _setting(None, "A checkpoint after every so many steps, too, inside an epoch.")
    bootstrap_samples: int = _setting(1000, "Replicates behind each interval of the final report.")

    def __post_init__(self) -> None:
        """Without an accelerator say so: processes then find each other over gloo, and no memory is pinned.

        Raises:
            ValueError: a setting is out of its range.
        """
        Augmentation(crop_padding=self.crop_padding, robust_share=self.robust_share)  # checks them
        if self.checkpoint_steps is not None and self.checkpoint_steps < 1:
            raise ValueError(f"wanted --checkpoint_steps of at least 1; found {self.checkpoint_steps}.")
        if self.ema_decay is not None and not 0 < self.ema_decay < 1:
            raise ValueError(f"wanted --ema_decay between 0 and 1; found {self.ema_decay}.")
        self.use_cpu = self.use_cpu or not torch.accelerator.is_available()
        self.dataloader_pin_memory = self.dataloader_pin_memory and not self.use_cpu
        super().__post_init__()  # type: ignore[no-untyped-call]
