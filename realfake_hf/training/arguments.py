"""Settings of a training run: data, model, optimization. Each is a flag of `train.py` and a key of a recipe.

This module does not import torch, so `--help` is fast. `realfake_hf.training.run_arguments` combines `RunSettings`
with the `TrainingArguments` of transformers.
"""

import ast
from dataclasses import dataclass, fields
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import Any, Final

from realfake_hf.cli import default_of, setting
from realfake_hf.data.augment import Augmentation
from realfake_hf.data.splits import FoldArguments
from realfake_hf.sampling import BALANCED

CIFAKE_CNN: Final = "cifake-cnn"
MULTIVIEW: Final = "multiview"
MULTIVIEW_SHAPE: Final = ("tower", "tower_layers", "feature_layers", "hidden_units", "n_windows")

_NOT_STREAMED: Final = {
    "train_size": "Create shards of fewer images.",
    "labels": "Shards state REAL and FAKE.",
    "fold_column": "Create shards of these splits with the same flags.",
    "balance": "A stream reads every image once.",
}


@dataclass
class DataArguments(FoldArguments):
    """The data set."""

    data: str = setting(
        "cifake", "demo, cifake, a zip archive, a folder, a parquet file, a Hub id, or several with commas."
    )
    train_size: int | None = setting(
        None, "Train on this many images, balanced by label and content; by default on all."
    )
    balance: str | None = setting(
        None, "Draw training images evenly from label, group or label,group; by default each once in an epoch."
    )
    streaming: bool = setting(False, "Stream training images from parquet shards, in constant memory.")
    buffer_size: int = setting(8192, "With --streaming: images in the shuffle buffer of each worker.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.train_size is not None and self.train_size < 1:
            raise ValueError(f"expected --train_size of at least 1; found {self.train_size}.")
        if unknown := [name for name in self.balanced if name not in BALANCED]:
            raise ValueError(f"expected --balance label, group or label,group; found {unknown[0]!r}.")
        for name, remedy in _NOT_STREAMED.items():
            if self.streaming and getattr(self, name) is not None:
                raise ValueError(f"expected --streaming or --{name}; found both. {remedy}")
        if self.buffer_size < 1:
            raise ValueError(f"expected --buffer_size of at least 1; found {self.buffer_size}.")

    @property
    def balanced(self) -> tuple[str, ...]:
        """What the draw of the training images is balanced over."""
        return () if self.balance is None else tuple(name.strip() for name in self.balance.split(","))


@dataclass
class CnnSettings:
    """Only for --model cifake-cnn."""

    num_filters: int = setting(32, "Filters of each convolution.")
    num_conv_layers: int = setting(2, "Convolutions, each followed by pooling.")
    dense_units: int = setting(64, "Units of each dense layer.")
    num_dense_layers: int = setting(1, "Dense layers before the output unit.")


@dataclass
class MultiviewSettings:
    """Only for --model multiview."""

    tower: str = setting("openai/clip-vit-base-patch16", "A folder or Hub id of the vision tower.")
    tower_layers: int = setting(8, "Layers of the tower that are kept.")
    feature_layers: list[int] = setting([5, 6, 7, 8], "Layers whose tokens are the features.")
    hidden_units: int = setting(0, "Units of the hidden layer of a head; 0: a linear head.")
    n_windows: int = setting(3, "Windows of an image's own pixels, besides the whole image.")
    delivered_copies: int = setting(
        1, "Copies of each training image in a random chain of changes; an epoch draws a copy or the image."
    )
    compressed_copies: int = setting(
        0, "Copies of each training image that are rescaled and compressed, as platforms do."
    )
    head_c: float = setting(0.01, "C of the penalised logistic regression that fits the heads before the first epoch.")
    head_shrinkage: float | None = setting(
        None,
        "Shrinkage, in (0, 1), of the covariance within the labels: linear heads are discriminants, and a hidden "
        "layer is fitted on principal components. By default heads are fitted by regression.",
    )


@dataclass
class FineTuningSettings:
    """Only for a model to fine-tune."""

    image_size: int | None = setting(None, "Input height and width in pixels; by default the model's.")
    patch_size: int | None = setting(None, "Patch height and width in pixels; by default the model's.")
    attn_implementation: str | None = setting(
        None, "sdpa or eager (faster in bf16 on CPUs); by default as transformers chooses."
    )
    freeze_backbone: bool = setting(False, "Train the head only.")
    head_epochs: int = setting(0, "First epochs in which only the head is trained.")
    layer_decay: float = setting(1.0, "Learning rate of a layer relative to the layer above it.")
    patch_share: float = setting(1.0, "Share of an image's patches that a training step reads, drawn at random.")
    full_epochs: int = setting(0, "With --patch_share: last epochs in which all patches are read.")
    lora_rank: int = setting(0, "Rank of LoRA updates of the linear layers, merged on save; 0: off.")

    def check_fine_tuning(self) -> None:
        """Raise a `ValueError` if these settings are out of range or contradict each other."""
        for name in ("head_epochs", "lora_rank"):
            if self.freeze_backbone and getattr(self, name):
                raise ValueError(f"expected --freeze_backbone or --{name}; found both. Remove one of them.")
        if not 0 < self.patch_share <= 1:
            raise ValueError(f"expected --patch_share above 0 and at most 1; found {self.patch_share}.")
        if self.full_epochs < 0 or (self.full_epochs and self.patch_share == 1):
            raise ValueError(
                "expected --full_epochs of at least 0, and above 0 with --patch_share below 1 only; found "
                f"{self.full_epochs} with {self.patch_share}."
            )
        if not 0 < self.layer_decay <= 1:
            raise ValueError(f"expected --layer_decay above 0 and at most 1; found {self.layer_decay}.")


@dataclass
class ModelArguments(CnnSettings, MultiviewSettings, FineTuningSettings):
    """The model."""

    model: str = setting(
        CIFAKE_CNN,
        "cifake-cnn (trained from scratch), multiview (heads on a frozen tower), or a folder or Hub id to fine-tune.",
    )
    teacher: str | None = setting(None, "A folder or Hub id of a trained detector to distil from.")
    teacher_weight: float = setting(0.5, "Weight of the distillation loss; the labels have the rest.")

    def __post_init__(self) -> None:
        kinds: dict[str, Any] = {CIFAKE_CNN: CnnSettings, MULTIVIEW: MultiviewSettings}
        bases: tuple[Any, ...] = ModelArguments.__bases__
        others = (kind for kind in bases if kind is not kinds.get(self.model, FineTuningSettings))
        for each in chain.from_iterable(map(fields, others)):
            if getattr(self, each.name) != default_of(each):
                raise ValueError(
                    f"expected settings that apply to --model {self.model}; found --{each.name}. Remove it."
                )
        if self.head_shrinkage is not None and not 0 < self.head_shrinkage < 1:
            raise ValueError(f"expected --head_shrinkage in (0, 1); found {self.head_shrinkage}.")
        if self.head_c <= 0 or min(self.copies.values()) < 0:
            raise ValueError(
                "expected --head_c above 0, and --delivered_copies and --compressed_copies of at least 0; found "
                f"{self.head_c}, {self.delivered_copies} and {self.compressed_copies}."
            )
        self.check_fine_tuning()
        if not 0 < self.teacher_weight <= 1:
            raise ValueError(f"expected --teacher_weight above 0 and at most 1; found {self.teacher_weight}.")

    @property
    def copies(self) -> dict[str, int]:
        """Copies of each training image by the kind of change, see `data.delivery`."""
        return {"delivered": self.delivered_copies, "compressed": self.compressed_copies}


@dataclass
class EvaluationSettings:
    """Validation, checkpoints and the final report."""

    metric_for_best_model: str | None = setting("accuracy", "The validation metric that selects the best epoch.")
    greater_is_better: bool | None = setting(True, "Whether a higher value of that metric is better.")
    load_best_model_at_end: bool = setting(True, "Keep the epoch with the best validation metric.")
    early_stopping_patience: int | None = setting(
        None, "Stop after this many epochs without improvement; by default train all epochs."
    )
    eval_strategy: str = setting("epoch", "When to validate.")
    per_device_eval_batch_size: int = setting(500, "Images in an evaluation batch, on each device.")
    save_strategy: str = setting("epoch", "When to write a checkpoint.")
    save_total_limit: int | None = setting(2, "Checkpoints to keep: the best and the last.")
    checkpoint_steps: int | None = setting(
        None, "Also write a checkpoint after every N steps within an epoch; by default at its end only."
    )
    logging_strategy: str = setting("epoch", "When to log the training loss.")
    bootstrap_samples: int = setting(1000, "Bootstrap samples for each interval of the final report.")
    near_duplicates: bool = setting(
        True, "Also measure on the test images without a near-duplicate in another split, for which all are hashed."
    )
    remove_unused_columns: bool = setting(False, "Remove columns that the model does not take; batches have none.")


@dataclass
class RunSettings(EvaluationSettings):
    """The training loop and its output."""

    output_dir: str | None = setting("runs/cifake-cnn", "Folder of the model, its measurements and figures.")
    num_train_epochs: float = setting(12.0, "Passes over the training images.")
    per_device_train_batch_size: int = setting(128, "Images in a training batch, on each device.")
    learning_rate: float = setting(3e-3, "Peak learning rate.")
    lr_scheduler_type: str = setting("cosine", "Learning rate schedule.")
    warmup_steps: float = setting(0.2, "Warm-up steps; below 1, a share of all steps.")
    weight_decay: float = setting(0.01, "Weight decay of AdamW.")
    seed: int = setting(0, "Seed of weights, order and augmentation.")
    flip: bool = setting(True, "Flip training images horizontally at random.")
    crop_padding: int = setting(0, "Crop training images at random after padding them by this many pixels.")
    robust_share: float = setting(0.0, "Share of training images degraded by JPEG, blur, noise or rescaling.")
    hidden_share: float = setting(0.0, "Hide a random share of the cells of each training image, at most this.")
    cutmix: float = setting(0.0, "Share of training batches in which images exchange a rectangle, and labels with it.")
    ema_decay: float | None = setting(
        None, "Evaluate and save an exponential moving average of the weights, such as 0.999; by default the weights."
    )

    def __post_init__(self) -> None:
        self.augmentation()  # checks its settings
        if not 0 <= self.cutmix <= 1:
            raise ValueError(f"expected --cutmix in [0, 1]; found {self.cutmix}.")
        if self.checkpoint_steps is not None and self.checkpoint_steps < 1:
            raise ValueError(f"expected --checkpoint_steps of at least 1; found {self.checkpoint_steps}.")
        if self.ema_decay is not None and not 0 < self.ema_decay < 1:
            raise ValueError(f"expected --ema_decay between 0 and 1; found {self.ema_decay}.")

    def augmentation(self) -> Augmentation:
        """Return the augmentation of the training images."""
        names = ("flip", "crop_padding", "robust_share", "hidden_share", "seed")
        return Augmentation(**{name: getattr(self, name) for name in names})


@dataclass
class MachineSettings:
    """The machine, and where progress is logged."""

    bf16: bool = setting(
        False, "Compute in bfloat16 where that is accurate enough: faster on hardware that supports it."
    )
    use_cpu: bool = setting(False, "Compute on the CPU; always so without an accelerator.")
    dataloader_num_workers: int = setting(0, "Processes that read batches; 0: the training process.")
    dataloader_pin_memory: bool = setting(True, "Pin the memory of batches; never without an accelerator.")
    report_to: None | str | list[str] = setting("none", "Where to log losses and metrics, such as trackio.")  # noqa: RUF036
    project: str = setting("realfake", "Project of trackio that shows the run.")
    run_name: str | None = setting(None, "Name of the run there; by default trackio invents one.")


@dataclass
class PublicationSettings:
    """Publication of the finished run."""

    push_to_hub: bool = setting(False, "Publish the model, its card, measurements and figures on the Hub.")
    hub_model_id: str | None = setting(None, "user/name of the model on the Hub.")
    hub_revision: str | None = setting(None, "Branch of that model; by default main.")
    hub_private_repo: bool | None = setting(None, "Make a new model private; by default as the Hub does.")
    hub_token: str | None = setting(None, "Access token; by default that of `hf auth login`.")


def names_of_training_arguments() -> set[str]:
    """Return the names of the settings of transformers' `TrainingArguments`, parsed from its source without import."""
    spec = find_spec("transformers")
    assert spec is not None
    assert spec.origin is not None
    tree = ast.parse(Path(spec.origin).with_name("training_args.py").read_text(encoding="utf-8"))
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    assignments = [node for node in classes["TrainingArguments"].body if isinstance(node, ast.AnnAssign)]
    return {node.target.id for node in assignments if isinstance(node.target, ast.Name)}
