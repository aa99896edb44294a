"""Train a classifier with the Hugging Face `Trainer`, measure it, and leave a folder that `pipeline` loads."""

import logging
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from transformers import Trainer, TrainerCallback
from transformers.trainer_utils import set_seed

from realfake_hf.data.pixels import PixelDataset
from realfake_hf.data.streaming import StreamedPixels
from realfake_hf.distributed import join_processes, this_process, told_of_lost_processes
from realfake_hf.environment import environment, peak_memory_gib
from realfake_hf.labels import FAKE
from realfake_hf.metrics.calibration import choose_operating_point
from realfake_hf.metrics.operating_point import OPERATING_POINT, OperatingPoint
from realfake_hf.metrics.report import make_report
from realfake_hf.run_folder import (
    RECORD,
    Outcome,
    check_same_data,
    epoch_rows,
    resume_point,
    seconds_until,
    write_outcome,
)
from realfake_hf.store import write_json
from realfake_hf.training.arguments import DataArguments, ModelArguments, RunSettings
from realfake_hf.training.callbacks import p_fake_of
from realfake_hf.training.data import TrainingData, build_model, load_training_data, pixel_sets, validation_recorder
from realfake_hf.training.distillation import Teacher
from realfake_hf.training.run_arguments import RunArguments
from realfake_hf.training.streaming import StreamTrainer, go_on_inside_epoch
from realfake_hf.training.trainer import build_trainer, checkpoints_in_own_names, merge_lora

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Fitted:
    """A training that has ended, its best epoch in place, and what it was given."""

    trainer: Trainer
    data: TrainingData
    sets: dict[str, PixelDataset | StreamedPixels]
    record: dict[str, Any]


@told_of_lost_processes()
def train(
    data: DataArguments, model: ModelArguments, run: RunArguments, *, callbacks: Sequence[TrainerCallback] = ()
) -> Outcome:
    """Train, keep the epoch that is best on validation, and measure it once on the test split.

    The folder also gets the operating point, chosen on validation.

    Called again with the same arguments after an interruption, it goes on from the last checkpoint.

    Args:
        data: which pictures.
        model: which model.
        run: how it learns, and the output folder.
        callbacks: of the Trainer, beside its own.

    Raises:
        OSError: there is no such data source, or no such model.
        ValueError: the model or the data cannot be used, or the output folder holds something else.
    """
    began = time.monotonic()
    join_processes()
    folder = Path(str(run.output_dir))
    checkpoint = resume_point(folder, _all_settings(data, model, run))
    before = seconds_until(checkpoint)
    fitted = fit(data, model, run, checkpoint=checkpoint, callbacks=callbacks)
    trainer = fitted.trainer
    outcome, point = _measure(fitted, run)
    trainer.save_model(str(folder))
    if trainer.is_world_process_zero():
        write_json(folder / OPERATING_POINT, point.to_dict())
        write_outcome(folder, outcome, epoch_rows(trainer.state.log_history))
        seconds = before + time.monotonic() - began
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
    """Train and keep the epoch that is best on validation; the test split is not looked at.

    Args:
        data: which pictures.
        model: which model.
        run: how it learns, and the folder of its checkpoints.
        checkpoint: a folder to go on from.
        callbacks: of the Trainer, beside its own.

    Raises:
        OSError: there is no such data source, or no such model.
        ValueError: the model or the data cannot be used, or they are others than those of the checkpoint.
    """
    _refuse_dropping(run)
    folder = Path(str(run.output_dir))
    set_seed(run.seed)
    network, processor = build_model(model)
    teacher = Teacher.from_pretrained(model.teacher, weight=model.teacher_weight) if model.teacher else None
    pictures = load_training_data(data)
    record = {
        "finished": False,
        "arguments": _all_settings(data, model, run),
        **environment(),
        "data": pictures.fingerprint(),
    }
    check_same_data(folder, record["data"])
    sets = pixel_sets(pictures, processor, run)
    recorder = validation_recorder(pictures.images, folder)
    trainer = build_trainer(network, processor, sets, recorder=recorder, model=model, run=run, teacher=teacher)
    for callback in callbacks:
        trainer.add_callback(callback)
    if trainer.is_world_process_zero():
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / RECORD, record)
    if run.world_size > 1:
        share = run.train_batch_size
        logger.info("%s: %d of the %d pictures of each step", this_process(), share, share * run.world_size)
    if checkpoint and isinstance(trainer, StreamTrainer):
        go_on_inside_epoch(trainer, checkpoint)
    with checkpoints_in_own_names(network):
        trainer.train(resume_from_checkpoint=run.resume_from_checkpoint or checkpoint)
    merge_lora(trainer, processor)
    trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False)  # measured as it is saved: no autocast
    return Fitted(trainer, pictures, sets, record)


def _refuse_dropping(run: RunArguments) -> None:
    if run.dataloader_drop_last:
        raise ValueError(
            "wanted every validation and test picture measured; found --dataloader_drop_last, which drops the short "
            "last batch there, too. Leave it out."
        )


def _all_settings(data: DataArguments, model: ModelArguments, run: RunArguments) -> dict[str, Any]:
    return {**asdict(data), **asdict(model), **_run_settings(run)}


def _run_settings(run: RunArguments) -> dict[str, Any]:
    """The settings that `RunArguments` names, and those of `TrainingArguments` that are not at their defaults.

    Left out are those that do not change what is learnt: names of places, bars, the checkpoint to go on from, and
    where it is published.
    """
    default, chosen = RunArguments().to_dict(), run.to_dict()  # type: ignore[no-untyped-call]
    free = {"output_dir", "run_name", "disable_tqdm", "resume_from_checkpoint", "local_rank", "checkpoint_steps"}
    free |= {name for name in chosen if name.startswith(("hub_", "push_to_hub"))}
    named = set(RunSettings.__annotations__) - free
    return {
        name: value
        for name, value in chosen.items()
        if name in named or (name not in free and value != default.get(name))
    }


def _measure(fitted: Fitted, run: RunArguments) -> tuple[Outcome, OperatingPoint]:
    """Measure validation and test once each; what is chosen is chosen on validation."""
    trainer, images, sets = fitted.trainer, fitted.data.images, fitted.sets
    trainer.compute_metrics = None  # the last epoch's probabilities are recorded already
    settings = {"bootstrap_samples": run.bootstrap_samples, "seed": run.seed}
    p_fake = {split: p_fake_of(trainer.predict(sets[split]).predictions) for split in ("validation", "test")}
    is_fake = {split: np.asarray(images[split]["label"][:]) == FAKE for split in p_fake}
    content = {split: images[split]["content"][:] for split in p_fake}
    clean = np.flatnonzero(fitted.data.leak_free())
    whole = {split: make_report(is_fake[split], p_fake[split], content=content[split], **settings) for split in p_fake}
    test_leak_free = make_report(
        is_fake["test"][clean], p_fake["test"][clean], content=[content["test"][row] for row in clean], **settings
    )
    outcome = Outcome(_best_epoch(trainer), whole["validation"], whole["test"], test_leak_free)
    fingerprint = fitted.record["data"]["validation"]["sha256"]
    return outcome, choose_operating_point(is_fake["validation"], p_fake["validation"], sha256=fingerprint)


def _best_epoch(trainer: Trainer) -> int:
    state = trainer.state
    kept = state.best_global_step or state.global_step
    return next(round(row["epoch"]) for row in state.log_history if row["step"] == kept)
