"""Train a classifier with the Hugging Face `Trainer`, measure it, and leave a folder that `pipeline` loads."""

import inspect
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from datasets import DatasetDict
from peft import PeftModel
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import (
    BaseImageProcessor,
    EarlyStoppingCallback,
    PreTrainedModel,
    PrinterCallback,
    ProgressCallback,
    Trainer,
    ViTImageProcessorPil,
)
from transformers.trainer_utils import set_seed

from realfake_hf.arguments import CIFAKE_CNN, CNN_SHAPE, DataArguments, ModelArguments, RunArguments
from realfake_hf.callbacks import EpochAugmentation, EpochLines, QuietProgress, ValidationRecorder, p_fake_of
from realfake_hf.data.audit import leak_free
from realfake_hf.data.augment import Augmentation
from realfake_hf.data.model_input import ModelInput
from realfake_hf.data.pixels import PixelDataset, as_batch, cached_pixels
from realfake_hf.data.sources import load_images
from realfake_hf.data.splits import cut, with_all_splits
from realfake_hf.labels import FAKE, id2label, label2id
from realfake_hf.measure.report import make_report
from realfake_hf.measure.validation_run import ValidationRun
from realfake_hf.models.cifake_cnn import CifakeCnnConfig, CifakeCnnForImageClassification
from realfake_hf.models.heads import backbone_parameters
from realfake_hf.models.pretrained import load_pretrained
from realfake_hf.optimization import HeadFirst, WeightAverage, parameter_groups, with_lora
from realfake_hf.passport import data_fingerprint, environment, peak_memory_gib
from realfake_hf.run_folder import (
    PASSPORT,
    VALIDATION,
    Outcome,
    epoch_rows,
    refuse_other_data,
    resume_point,
    seconds_until,
    write_json,
    write_results,
)


@dataclass(frozen=True, eq=False)
class Fitted:
    """A training that has ended, its best epoch in place, and what it was given."""

    trainer: Trainer
    images: DatasetDict
    sets: dict[str, PixelDataset]
    passport: dict[str, Any]


def train(data: DataArguments, model: ModelArguments, run: RunArguments) -> Outcome:
    """Train, keep the epoch that is best on validation, and measure it once on the test split.

    Called again with the same arguments after an interruption, it goes on from the last checkpoint.

    Raises:
        OSError: there is no such data source, or no such model.
        ValueError: the model or the data cannot be used, or the output folder holds something else.
    """
    began = time.monotonic()
    folder = Path(str(run.output_dir))
    checkpoint = resume_point(folder, _all_settings(data, model, run))
    before = seconds_until(checkpoint)
    fitted = fit(data, model, run, checkpoint=checkpoint)
    trainer = fitted.trainer
    outcome = _measure(fitted, run)
    trainer.save_model(str(folder))
    if trainer.is_world_process_zero():
        write_results(folder, outcome, epoch_rows(trainer.state.log_history))
        seconds = before + time.monotonic() - began
        cost = {"seconds": seconds, "peak_memory_gib": peak_memory_gib(), "resumed": bool(checkpoint)}
        write_json(folder / PASSPORT, {**fitted.passport, "finished": True, "processes": run.world_size, **cost})
    return outcome


def fit(data: DataArguments, model: ModelArguments, run: RunArguments, *, checkpoint: str | None = None) -> Fitted:
    """Train and keep the epoch that is best on validation; the test split is not looked at.

    Args:
        data: which pictures.
        model: which model.
        run: how it learns, and the folder of its checkpoints.
        checkpoint: a folder to go on from.

    Raises:
        OSError: there is no such data source, or no such model.
        ValueError: the model or the data cannot be used, or they are others than those of the checkpoint.
    """
    _refuse_dropping(run)
    folder = Path(str(run.output_dir))
    set_seed(run.seed)
    network, processor = build_model(model)
    images = _load(data)
    passport = {
        "finished": False,
        "arguments": _all_settings(data, model, run),
        **environment(),
        "data": data_fingerprint(images),
    }
    refuse_other_data(folder, passport["data"])
    sets = _pixel_sets(images, processor, run)
    trainer = _trainer(network, processor, sets, recorder=_recorder(images, folder), model=model, run=run)
    if trainer.is_world_process_zero():
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / PASSPORT, passport)
    with _checkpoints_in_own_names(network):
        trainer.train(resume_from_checkpoint=run.resume_from_checkpoint or checkpoint)
    _merge_lora(trainer, processor)
    trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False)  # measured as it is saved: no autocast
    return Fitted(trainer, images, sets, passport)


def _refuse_dropping(run: RunArguments) -> None:
    if run.dataloader_drop_last:
        raise ValueError(
            "wanted every validation and test picture measured; found --dataloader_drop_last, which drops the short "
            "last batch there, too. Leave it out."
        )


def _all_settings(data: DataArguments, model: ModelArguments, run: RunArguments) -> dict[str, Any]:
    return {**asdict(data), **asdict(model), **_run_settings(run)}


def build_model(arguments: ModelArguments) -> tuple[PreTrainedModel, BaseImageProcessor]:
    """Build a new CIFAKE CNN, or load a pretrained classifier and give it a head for REAL and FAKE.

    Returns:
        The model, and the image processor that will be saved with it.

    Raises:
        OSError: there is no such model.
        ValueError: it cannot take such images or patches.
    """
    if arguments.model != CIFAKE_CNN:
        names = ("image_size", "patch_size", "attn_implementation")
        return load_pretrained(arguments.model, **{name: getattr(arguments, name) for name in names})
    shape = {name: getattr(arguments, name) for name in CNN_SHAPE}
    config = CifakeCnnConfig(**shape, id2label=id2label(), label2id=label2id())
    size = {"height": config.image_size, "width": config.image_size}
    return CifakeCnnForImageClassification(config), ViTImageProcessorPil(size=size)


def _run_settings(run: RunArguments) -> dict[str, Any]:
    """The settings that `RunArguments` names, and those of `TrainingArguments` that are not at their defaults.

    Left out are those that do not change what is learnt: names of places, bars, the checkpoint to go on from.
    """
    default, chosen = RunArguments().to_dict(), run.to_dict()  # type: ignore[no-untyped-call]
    free = {"output_dir", "run_name", "disable_tqdm", "resume_from_checkpoint", "local_rank"}
    named = set(RunArguments.__annotations__) - free
    return {
        name: value
        for name, value in chosen.items()
        if name in named or (name not in free and value != default.get(name))
    }


def _load(arguments: DataArguments) -> DatasetDict:
    with PartialState().main_process_first():  # one process reads the source, the others find its cache
        images = load_images(arguments.data)
    shares = {"validation_share": arguments.validation_share, "test_share": arguments.test_share}
    splits = with_all_splits(images, **shares, seed=arguments.split_seed)
    if arguments.train_size is not None and arguments.train_size < len(splits["train"]):
        share = arguments.train_size / len(splits["train"])
        splits["train"] = cut(splits["train"], share=share, seed=arguments.split_seed)[1]
    return splits


def _pixel_sets(images: DatasetDict, processor: BaseImageProcessor, run: RunArguments) -> dict[str, PixelDataset]:
    augment = Augmentation(flip=run.flip, crop_padding=run.crop_padding, robust_share=run.robust_share, seed=run.seed)
    return {
        split: PixelDataset(
            cached_pixels(rows, processor), rows["label"][:], augment=augment if split == "train" else None
        )
        for split, rows in images.items()
    }


def _recorder(images: DatasetDict, folder: Path) -> ValidationRecorder:
    rows = images["validation"]
    is_fake = np.asarray(rows["label"][:]) == FAKE
    start = ValidationRun.begin(ids=rows["id"][:], is_fake=is_fake, content=rows["content"][:])
    return ValidationRecorder(folder / VALIDATION, start)


def _trainer(
    network: PreTrainedModel,
    processor: BaseImageProcessor,
    sets: dict[str, PixelDataset],
    *,
    recorder: ValidationRecorder,
    model: ModelArguments,
    run: RunArguments,
) -> Trainer:
    takes_labels = "labels" in inspect.signature(network.forward).parameters
    learner = with_lora(network, rank=model.lora_rank) if model.lora_rank else network
    if model.freeze_backbone:
        for parameter in backbone_parameters(network):
            parameter.requires_grad_(False)
    ModelInput(processor).attach(learner)
    run.label_names = ["labels"]
    trainer = Trainer(
        model=learner,
        args=run,
        train_dataset=sets["train"],
        eval_dataset=sets["validation"],
        data_collator=as_batch,  # type: ignore[arg-type]  # batches come whole
        processing_class=processor,
        compute_loss_func=None if takes_labels else partial(_loss_of_logits, smoothing=run.label_smoothing_factor),
        compute_metrics=recorder.compute_metrics,
        preprocess_logits_for_metrics=_first_logits,
        callbacks=[recorder, EpochAugmentation(), EpochLines()],
    )
    if model.layer_decay < 1:
        trainer.optimizer = _layered_optimizer(trainer, learner, model, run)
    _set_callbacks(trainer, network, model, run)
    return trainer


def _set_callbacks(trainer: Trainer, network: PreTrainedModel, model: ModelArguments, run: RunArguments) -> None:
    for talkative in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(talkative)
    if not run.disable_tqdm:
        trainer.add_callback(QuietProgress)
    if model.head_epochs:
        learning = [parameter for parameter in backbone_parameters(network) if parameter.requires_grad]
        trainer.add_callback(HeadFirst(learning, epochs=model.head_epochs))
    if run.ema_decay is not None:
        trainer.add_callback(WeightAverage(run.ema_decay))
    if run.early_stopping_patience is not None:
        trainer.add_callback(EarlyStoppingCallback(run.early_stopping_patience))


def _layered_optimizer(
    trainer: Trainer, learner: PreTrainedModel | PeftModel, model: ModelArguments, run: RunArguments
) -> torch.optim.Optimizer:
    kind, settings = Trainer.get_optimizer_cls_and_kwargs(run)
    groups = parameter_groups(
        learner,
        learning_rate=run.learning_rate,
        weight_decay=run.weight_decay,
        layer_decay=model.layer_decay,
        decayed=trainer.get_decay_parameter_names(learner),
    )
    optimizer: torch.optim.Optimizer = kind(groups, **settings)
    return optimizer


def _loss_of_logits(
    outputs: Any,  # noqa: ANN401 - a model's own output class
    labels: Tensor,
    *,
    smoothing: float,
    num_items_in_batch: int | None = None,  # noqa: ARG001 - the Trainer gives it
) -> Tensor:
    """The loss of a model that computes none itself: a distilled DeiT, whose logits are the mean of its two heads'."""
    return cross_entropy(outputs.logits, labels, label_smoothing=smoothing)


def _first_logits(logits: Any, _: Tensor) -> Tensor:  # noqa: ANN401 - a tensor, or a tuple with the logits first
    return logits[0] if isinstance(logits, tuple) else logits  # type: ignore[no-any-return]


@contextmanager
def _checkpoints_in_own_names(network: PreTrainedModel) -> Iterator[None]:
    """Let checkpoints hold the weights by the names that the model has for them.

    transformers writes a ViT by the names that earlier versions had, and its Trainer reads them back as they are: the
    best epoch and a resumed run would silently be without their weights (transformers issue 48805).
    """
    network.save_pretrained = partial(network.save_pretrained, save_original_format=False)  # type: ignore[method-assign]
    try:
        yield
    finally:
        del network.save_pretrained


def _merge_lora(trainer: Trainer, processor: BaseImageProcessor) -> None:
    """Fold LoRA's updates into the weights they belong to, so that an ordinary model is measured and saved."""
    if isinstance(trainer.model, PeftModel):
        merged: Any = trainer.model.merge_and_unload()
        ModelInput(processor).attach(merged)
        trainer.model = trainer.model_wrapped = merged


def _measure(fitted: Fitted, run: RunArguments) -> Outcome:
    trainer, images, sets = fitted.trainer, fitted.images, fitted.sets
    trainer.compute_metrics = None  # the last epoch's probabilities are recorded already
    settings = {"bootstrap_samples": run.bootstrap_samples, "seed": run.seed}
    p_fake = {split: p_fake_of(trainer.predict(sets[split]).predictions) for split in ("validation", "test")}
    is_fake = {split: np.asarray(images[split]["label"][:]) == FAKE for split in p_fake}
    content = {split: images[split]["content"][:] for split in p_fake}
    clean = np.flatnonzero(leak_free(images))
    whole = {split: make_report(is_fake[split], p_fake[split], content=content[split], **settings) for split in p_fake}
    test_leak_free = make_report(
        is_fake["test"][clean], p_fake["test"][clean], content=[content["test"][row] for row in clean], **settings
    )
    return Outcome(_best_epoch(trainer), whole["validation"], whole["test"], test_leak_free)


def _best_epoch(trainer: Trainer) -> int:
    state = trainer.state
    kept = state.best_global_step or state.global_step
    return next(round(row["epoch"]) for row in state.log_history if row["step"] == kept)
