"""Build the `Trainer`: trainable weights, batches, loss, optimizer and callbacks."""

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from peft import PeftModel
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.modules.batchnorm import _BatchNorm
from transformers import (
    BaseImageProcessor,
    EarlyStoppingCallback,
    PreTrainedModel,
    PrinterCallback,
    ProgressCallback,
    Trainer,
)

from realfake_hf.data.pixels import ModelInput, PixelDataset, identity_collate
from realfake_hf.data.streaming import StreamedPixels
from realfake_hf.models.heads import backbone_parameters
from realfake_hf.training.arguments import ModelArguments
from realfake_hf.training.callbacks import (
    CheckpointChecksums,
    EpochAugmentation,
    EpochLines,
    Progress,
    ValidationRecorder,
)
from realfake_hf.training.distillation import DistillationTrainer, Teacher
from realfake_hf.training.features import FeatureDataset
from realfake_hf.training.optimization import HeadFirst, WeightAverage, parameter_groups, with_lora
from realfake_hf.training.regularization import PatchDropout
from realfake_hf.training.run_arguments import RunArguments
from realfake_hf.training.streaming import StepCheckpoints, StreamEpoch, StreamPosition, StreamTrainer


def build_trainer(
    network: PreTrainedModel,
    processor: BaseImageProcessor,
    sets: Mapping[str, PixelDataset | StreamedPixels | FeatureDataset],
    *,
    recorder: ValidationRecorder,
    model: ModelArguments,
    run: RunArguments,
    teacher: Teacher | None = None,
    weights: NDArray[np.float64] | None = None,
) -> Trainer:
    """Build a trainer of a model from `build_model`, with freezing, weight averaging and LoRA as in the settings.

    The sets are the pixels or features of the splits train and validation. The weights are the probabilities of the
    training images in a balanced draw.
    """
    if teacher:
        teacher.check_student(processor)
    takes_labels = "labels" in inspect.signature(network.forward).parameters
    learner = _learner(network, model)
    if not isinstance(sets["train"], FeatureDataset):
        ModelInput(processor).attach(learner)
    run.label_names = ["labels"]
    is_stream = isinstance(sets["train"], StreamedPixels)
    trainer = (StreamTrainer if is_stream else DistillationTrainer)(
        teacher=teacher,
        needs_two_images=bool(_batch_norms(network)),
        cutmix=run.cutmix,
        weights=weights,
        model=learner,
        args=run,
        train_dataset=sets["train"],
        eval_dataset=sets["validation"],
        data_collator=identity_collate,  # the data sets return whole batches
        processing_class=processor,
        compute_loss_func=None if takes_labels else partial(_loss_of_logits, smoothing=run.label_smoothing_factor),
        compute_metrics=recorder.compute_metrics,
        preprocess_logits_for_metrics=lambda logits, _: logits[0] if isinstance(logits, tuple) else logits,
        callbacks=[recorder, EpochAugmentation(), EpochLines(), CheckpointChecksums()],
    )
    if model.layer_decay < 1:
        trainer.optimizer = _layered_optimizer(trainer, learner, model, run)
    _set_callbacks(trainer, network, model, run)
    return trainer


def _learner(network: PreTrainedModel, model: ModelArguments) -> PreTrainedModel | PeftModel:
    """Return the model that trains: the network, frozen or with LoRA as in the settings."""
    learner = with_lora(network, rank=model.lora_rank) if model.lora_rank else network
    if model.freeze_backbone:
        freeze_backbone(network)
    return learner


def freeze_backbone(network: PreTrainedModel) -> None:
    """Freeze the weights outside the head, and the statistics of batch norms."""
    for parameter in backbone_parameters(network):
        parameter.requires_grad_(False)
    for norm in _batch_norms(network):
        norm.eval()
        norm.train = lambda mode=True, norm=norm: norm  # type: ignore[misc,method-assign] # noqa: ARG005


@contextmanager
def native_weight_names(network: PreTrainedModel) -> Iterator[None]:
    """Write checkpoints with the model's own weight names.

    transformers saves a ViT with the names of earlier versions, which its Trainer loads without conversion: the best
    epoch and a resumed run would silently lose their weights (transformers issue 48805).
    """
    network.save_pretrained = partial(network.save_pretrained, save_original_format=False)  # type: ignore[method-assign]
    try:
        yield
    finally:
        del network.save_pretrained


def merge_lora(trainer: Trainer, processor: BaseImageProcessor) -> None:
    """Merge LoRA updates into the weights, to measure and save an ordinary model."""
    if isinstance(trainer.model, PeftModel):
        merged: Any = trainer.model.merge_and_unload()
        ModelInput(processor).attach(merged)
        trainer.model = trainer.model_wrapped = merged


def _batch_norms(network: PreTrainedModel) -> list[nn.Module]:
    return [module for module in network.modules() if isinstance(module, _BatchNorm)]


def _set_callbacks(trainer: Trainer, network: PreTrainedModel, model: ModelArguments, run: RunArguments) -> None:
    for verbose in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(verbose)
    if not run.disable_tqdm and isinstance(trainer, DistillationTrainer):
        trainer.add_callback(Progress(lambda: trainer.latest_loss.item()))
    if isinstance(trainer, StreamTrainer):
        trainer.add_callback(StreamEpoch(trainer))
    if run.checkpoint_steps is not None:
        trainer.add_callback(StepCheckpoints(run.checkpoint_steps))  # before callbacks that write into checkpoints
    if model.head_epochs:
        trainable = [parameter for parameter in backbone_parameters(network) if parameter.requires_grad]
        trainer.add_callback(HeadFirst(trainable, epochs=model.head_epochs))
    if model.patch_share < 1:
        trainer.add_callback(PatchDropout(network, share=model.patch_share, full_epochs=model.full_epochs))
    if run.ema_decay is not None:
        trainer.add_callback(WeightAverage(run.ema_decay))
    if run.early_stopping_patience is not None:
        trainer.add_callback(EarlyStoppingCallback(run.early_stopping_patience))
    if isinstance(trainer, StreamTrainer):
        trainer.add_callback(StreamPosition(trainer))


def _layered_optimizer(
    trainer: Trainer, learner: PreTrainedModel | PeftModel, model: ModelArguments, run: RunArguments
) -> torch.optim.Optimizer:
    optimizer_class, settings = Trainer.get_optimizer_cls_and_kwargs(run)
    groups = parameter_groups(
        learner,
        learning_rate=run.learning_rate,
        weight_decay=run.weight_decay,
        layer_decay=model.layer_decay,
        decayed=trainer.get_decay_parameter_names(learner),
    )
    optimizer: torch.optim.Optimizer = optimizer_class(groups, **settings)
    return optimizer


def _loss_of_logits(
    outputs: Any,  # noqa: ANN401 - a model's own output class
    labels: Tensor,
    *,
    smoothing: float,
    num_items_in_batch: int | None = None,  # noqa: ARG001 - passed by the Trainer
) -> Tensor:
    """Return the loss of a model that computes none: a distilled DeiT, whose logits are the mean of two heads."""
    return cross_entropy(outputs.logits, labels, label_smoothing=smoothing)
