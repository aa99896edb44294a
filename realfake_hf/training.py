"""Train a classifier with the Hugging Face `Trainer`, measure it, and leave a folder that `pipeline` loads."""

import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from accelerate import PartialState
from datasets import DatasetDict
from transformers import (
    AutoImageProcessor,
    AutoModelForImageClassification,
    BaseImageProcessor,
    EarlyStoppingCallback,
    PreTrainedModel,
    PrinterCallback,
    ProgressCallback,
    Trainer,
    TrainingArguments,
    ViTImageProcessorPil,
)
from transformers.trainer_utils import set_seed

from realfake_hf.callbacks import EpochAugmentation, EpochLines, QuietProgress, ValidationRecorder, p_fake_of
from realfake_hf.data.audit import leak_free
from realfake_hf.data.pixels import Normalize, PixelDataset, as_batch, cached_pixels
from realfake_hf.data.sources import load_images
from realfake_hf.data.splits import with_all_splits
from realfake_hf.labels import FAKE, LABEL_NAMES, id2label, label2id
from realfake_hf.measure.report import make_report
from realfake_hf.measure.validation_run import ValidationRun
from realfake_hf.models.cifake_cnn import CifakeCnnConfig, CifakeCnnForImageClassification
from realfake_hf.passport import data_fingerprint, environment, peak_memory_gib
from realfake_hf.run_folder import (
    PASSPORT,
    VALIDATION,
    Outcome,
    epoch_rows,
    refuse_other_data,
    resume_point,
    write_json,
    write_results,
)

CIFAKE_CNN: Final = "cifake-cnn"


def _setting(default: Any, help_text: str) -> Any:  # noqa: ANN401 - as dataclasses.field
    return field(default=default, metadata={"help": help_text})


@dataclass
class DataArguments:
    """Which pictures, and how they are split."""

    data: str = _setting("cifake", "demo, cifake, a zip archive, a folder, a parquet file, or a Hub id.")
    validation_share: float = _setting(0.05, "Share of the training pictures set aside where there is no validation.")
    test_share: float = _setting(0.2, "Share of the training pictures set aside where the source has no test split.")
    split_seed: int = _setting(0, "Seed of these cuts; the same for all seeds of a model, so that runs compare.")


@dataclass
class ModelArguments:
    """Which model is trained."""

    model: str = _setting(CIFAKE_CNN, "cifake-cnn (new weights), or a folder or Hub id to fine-tune.")
    num_filters: int = _setting(32, "cifake-cnn: filters of each convolution.")
    num_conv_layers: int = _setting(2, "cifake-cnn: convolutions, each followed by pooling.")
    dense_units: int = _setting(64, "cifake-cnn: units of each dense layer.")
    num_dense_layers: int = _setting(1, "cifake-cnn: dense layers before the output unit.")


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
    early_stopping_patience: int | None = _setting(None, "Stop after so many epochs without improvement.")
    bootstrap_samples: int = _setting(1000, "Replicates behind each interval of the final report.")

    def __post_init__(self) -> None:
        """Without an accelerator say so: processes then find each other over gloo, and no memory is pinned."""
        self.use_cpu = self.use_cpu or not torch.accelerator.is_available()
        self.dataloader_pin_memory = self.dataloader_pin_memory and not self.use_cpu
        super().__post_init__()  # type: ignore[no-untyped-call]


def train(data: DataArguments, model: ModelArguments, run: RunArguments) -> Outcome:
    """Train, keep the epoch that is best on validation, and measure it once on the test split.

    Called again with the same arguments after an interruption, it goes on from the last checkpoint.

    Raises:
        FileNotFoundError: there is no such data source.
        ValueError: the data cannot be used, or the output folder holds something else.
    """
    began = time.monotonic()
    folder = Path(str(run.output_dir))
    arguments = {**asdict(data), **asdict(model), **_run_settings(run)}
    checkpoint = resume_point(folder, arguments)
    images = _load(data)
    passport = {"finished": False, "arguments": arguments, **environment(), "data": data_fingerprint(images)}
    refuse_other_data(folder, passport["data"])
    set_seed(run.seed)
    network, processor = build_model(model)
    sets = _pixel_sets(images, processor, run)
    trainer = _trainer(network, processor, sets, _recorder(images, folder), run)
    if trainer.is_world_process_zero():
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / PASSPORT, passport)
    trainer.train(resume_from_checkpoint=run.resume_from_checkpoint or checkpoint)
    outcome = _measure(trainer, images, sets, run)
    trainer.save_model(str(folder))
    if trainer.is_world_process_zero():
        write_results(folder, outcome, epoch_rows(trainer.state.log_history))
        cost = {"seconds": time.monotonic() - began, "peak_memory_gib": peak_memory_gib(), "resumed": bool(checkpoint)}
        write_json(folder / PASSPORT, {**passport, "finished": True, "processes": run.world_size, **cost})
    return outcome


def build_model(arguments: ModelArguments) -> tuple[PreTrainedModel, BaseImageProcessor]:
    """Build a new CIFAKE CNN, or load a pretrained classifier and give it a head for REAL and FAKE.

    Returns:
        The model, and the image processor that will be saved with it.
    """
    names: dict[str, Any] = {"id2label": id2label(), "label2id": label2id()}
    if arguments.model == CIFAKE_CNN:
        shape = {name: value for name, value in asdict(arguments).items() if name != "model"}
        config = CifakeCnnConfig(**shape, **names)
        size = {"height": config.image_size, "width": config.image_size}
        return CifakeCnnForImageClassification(config), ViTImageProcessorPil(size=size)
    network = AutoModelForImageClassification.from_pretrained(
        arguments.model, num_labels=len(LABEL_NAMES), ignore_mismatched_sizes=True, **names
    )
    processor = AutoImageProcessor.from_pretrained(arguments.model, backend="pil")  # type: ignore[no-untyped-call]
    return network, processor


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
    return with_all_splits(images, **shares, seed=arguments.split_seed)


def _pixel_sets(images: DatasetDict, processor: BaseImageProcessor, run: RunArguments) -> dict[str, PixelDataset]:
    normalize = Normalize(processor)
    return {
        split: PixelDataset(
            cached_pixels(rows, processor),
            rows["label"][:],
            normalize=normalize,
            flip=run.flip and split == "train",
            seed=run.seed,
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
    recorder: ValidationRecorder,
    run: RunArguments,
) -> Trainer:
    trainer = Trainer(
        model=network,
        args=run,
        train_dataset=sets["train"],
        eval_dataset=sets["validation"],
        data_collator=as_batch,  # type: ignore[arg-type]  # batches come whole
        processing_class=processor,
        compute_metrics=recorder.compute_metrics,
        callbacks=[recorder, EpochAugmentation(), EpochLines()],
    )
    for talkative in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(talkative)
    if not run.disable_tqdm:
        trainer.add_callback(QuietProgress)
    if run.early_stopping_patience is not None:
        trainer.add_callback(EarlyStoppingCallback(run.early_stopping_patience))
    return trainer


def _measure(trainer: Trainer, images: DatasetDict, sets: dict[str, PixelDataset], run: RunArguments) -> Outcome:
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
