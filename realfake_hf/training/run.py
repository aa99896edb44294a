"""Train a classifier with the Hugging Face `Trainer`, measure it, and save a folder that `pipeline` loads."""

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, cast

import numpy as np
from datasets import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
from transformers import Trainer, TrainerCallback
from transformers.trainer_utils import set_seed

from realfake_hf.data.pixels import PixelDataset
from realfake_hf.data.streaming import StreamedPixels
from realfake_hf.distributed import join_processes, report_lost_processes, this_process
from realfake_hf.environment import environment, peak_memory_gib
from realfake_hf.estimate import to_plain
from realfake_hf.labels import FAKE
from realfake_hf.metrics.calibration import choose_operating_point
from realfake_hf.metrics.operating_point import OPERATING_POINT, OperatingPoint
from realfake_hf.models.checkpoint import quiet_transformers
from realfake_hf.models.multiview import MultiViewForImageClassification
from realfake_hf.run_folder import (
    RECORD,
    Outcome,
    check_same_data,
    epoch_rows,
    resume_point,
    say_resumed,
    seconds_until,
    write_outcome,
)
from realfake_hf.store import write_json
from realfake_hf.training.arguments import DataArguments, ModelArguments, RunSettings
from realfake_hf.training.callbacks import ValidationRecorder, p_fake_of
from realfake_hf.training.data import (
    TrainingData,
    base_weights,
    build_model,
    input_sets,
    load_training_data,
    say_found,
    source_name,
)
from realfake_hf.training.distillation import Teacher
from realfake_hf.training.features import FeatureDataset, fit_heads
from realfake_hf.training.outcome import Predictions, make_outcome
from realfake_hf.training.run_arguments import RunArguments
from realfake_hf.training.streaming import StreamTrainer, resume_within_epoch
from realfake_hf.training.trainer import build_trainer, merge_lora, native_weight_names

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Fitted:
    """A trained model with the weights of its best epoch, its images and inputs, and run.json without the costs."""

    trainer: Trainer
    data: TrainingData
    sets: dict[str, PixelDataset | StreamedPixels | FeatureDataset]
    record: dict[str, Any]


@contextmanager
def _quiet_libraries() -> Iterator[None]:
    """Suppress what transformers and datasets print of their own; not if this package logs at the level DEBUG."""
    if logger.isEnabledFor(logging.DEBUG):
        yield
        return
    had_bars = not are_progress_bars_disabled()
    disable_progress_bars()
    try:
        with quiet_transformers():
            yield
    finally:
        if had_bars:
            enable_progress_bars()


@report_lost_processes()
@_quiet_libraries()
def train(
    data: DataArguments, model: ModelArguments, run: RunArguments, *, callbacks: Sequence[TrainerCallback] = ()
) -> Outcome:
    """Train, keep the epoch with the best validation metric, and measure it once on the test split.

    The output folder contains the model, its operating point chosen on validation, measurements and figures. An
    interrupted run with the same arguments is resumed.

    Raises:
        OSError: the data source or the model does not exist.
        ValueError: the model or the data cannot be used, or the output folder contains other files.
    """
    began = time.monotonic()
    join_processes()
    folder = Path(str(run.output_dir))
    checkpoint = resume_point(folder, _all_settings(data, model, run))
    earlier_seconds = seconds_until(checkpoint)
    if checkpoint and run.process_index == 0:
        logger.info("resuming %s from %s", folder, say_resumed(checkpoint))
    fitted = fit(data, model, run, checkpoint=checkpoint, callbacks=callbacks)
    trainer = fitted.trainer
    outcome, point = _measure(fitted, run)
    trainer.save_model(str(folder))
    if trainer.is_world_process_zero():
        write_json(folder / OPERATING_POINT, to_plain(point))
        write_outcome(folder, outcome, epoch_rows(trainer.state.log_history))
        seconds = earlier_seconds + time.monotonic() - began
        cost = {"seconds": seconds, "peak_memory_gib": peak_memory_gib(), "resumed": bool(checkpoint)}
        write_json(folder / RECORD, {**fitted.record, "finished": True, "processes": run.world_size, **cost})
    return outcome


def fit(
    data: DataArguments,
    model: ModelArguments,
    run: RunArguments,
    *,
    checkpoint: str | None = None,
    callbacks: Sequence[TrainerCallback] = (),
) -> Fitted:
    """Train or resume, and keep the epoch with the best validation metric; the test split is not used."""
    set_seed(run.seed)
    network, processor = build_model(model)
    teacher = Teacher.from_pretrained(model.teacher, weight=model.teacher_weight) if model.teacher else None
    images = load_training_data(data)
    record = {"finished": False, "arguments": _all_settings(data, model, run), **environment()}
    record |= {"base_weights": base_weights(model), "source": source_name(data), "data": images.fingerprint()}
    folder = Path(str(run.output_dir))
    check_same_data(folder, record["data"])
    _log_start(record, run)
    sets = input_sets(images, network, processor, model, run)
    if isinstance(network, MultiViewForImageClassification) and not checkpoint:
        fit_heads(
            network, cast("FeatureDataset", sets["train"]), inverse_penalty=model.head_c,
            shrinkage=model.head_shrinkage, weights=images.weights, seed=run.seed,
        )  # fmt: skip
    recorder = ValidationRecorder(images.images["validation"], folder)
    trainer = build_trainer(
        network, processor, sets, recorder=recorder, model=model, run=run, teacher=teacher, weights=images.weights
    )
    for callback in callbacks:
        trainer.add_callback(callback)
    if trainer.is_world_process_zero():
        write_json(folder / RECORD, record)
    if checkpoint and isinstance(trainer, StreamTrainer):
        resume_within_epoch(trainer, checkpoint)
    with native_weight_names(network):
        trainer.train(resume_from_checkpoint=run.resume_from_checkpoint or checkpoint)
    merge_lora(trainer, processor)
    trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False)  # measure without autocast, as saved
    return Fitted(trainer, images, sets, record)


def _log_start(record: Mapping[str, Any], run: RunArguments) -> None:
    if run.process_index == 0:
        logger.info(say_found(record["data"], source=record["source"]))
    if run.world_size > 1:
        n = run.train_batch_size
        logger.info("%s: %d of the %d images of each step", this_process(), n, n * run.world_size)


def _all_settings(data: DataArguments, model: ModelArguments, run: RunArguments) -> dict[str, Any]:
    """Return the settings of this project, and those of transformers that differ from their defaults.

    Settings without effect on the result are excluded: folders, progress, checkpoints and publication.
    """
    default, settings = RunArguments().to_dict(), run.to_dict()  # type: ignore[no-untyped-call]
    excluded = {"output_dir", "run_name", "disable_tqdm", "resume_from_checkpoint", "local_rank", "checkpoint_steps"}
    excluded |= {"report_to", "project"}
    excluded |= {name for name in settings if name.startswith(("hub_", "push_to_hub", "trackio_"))}
    known = {each.name for each in fields(RunSettings)}
    own = {
        name: value
        for name, value in settings.items()
        if name not in excluded and (name in known or value != default.get(name))
    }
    return {**asdict(data), **asdict(model), **own}


def _measure(fitted: Fitted, run: RunArguments) -> tuple[Outcome, OperatingPoint]:
    """Choose the operating point on validation, and measure validation and test once each with its temperature."""
    trainer, data = fitted.trainer, fitted.data
    trainer.compute_metrics = None  # the probabilities of the last epoch are recorded already
    splits = ("validation", "test")
    logits = {split: trainer.predict(fitted.sets[split]).predictions for split in splits}
    is_fake = {split: np.asarray(data.images[split]["label"][:]) == FAKE for split in splits}
    digest = fitted.record["data"]["validation"]["sha256"]
    point = choose_operating_point(is_fake["validation"], p_fake_of(logits["validation"]), sha256=digest)
    scored = {
        split: Predictions(
            is_fake[split],
            data.images[split]["content"][:],
            p_fake=p_fake_of(logits[split], temperature=point.temperature),
            p_before=p_fake_of(logits[split]),
        )
        for split in splits
    }
    best_step = trainer.state.best_global_step or trainer.state.global_step
    best_epoch = next(round(row["epoch"]) for row in trainer.state.log_history if row["step"] == best_step)
    far = data.near_duplicate_free() if run.near_duplicates else None
    parts = {"test_leak_free": data.leak_free(), "test_no_near_duplicate": far}
    draws: dict[str, Any] = {"bootstrap_samples": run.bootstrap_samples, "seed": run.seed}
    return make_outcome(scored["validation"], scored["test"], parts, best_epoch=best_epoch, **draws), point
