"""Callbacks of the Trainer: record validation, draw augmentation, write checksums, report each epoch."""

import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from datasets import Dataset
from numpy.typing import NDArray
from tqdm.auto import tqdm
from transformers import (
    EvalPrediction,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from realfake_hf.labels import FAKE
from realfake_hf.metrics.evaluate_metric import RealFakeMetric
from realfake_hf.run_folder import VALIDATION, ValidationRun
from realfake_hf.store import CHECKSUMS, write_checksums

_FILES_OF_MAIN_PROCESS: Final = (
    "model.safetensors", "adapter_model.safetensors", "averaged.safetensors", "optimizer.pt", "scheduler.pt",
    "rng_state.pth", "rng_state_0.pth", "stream-0.pt", "trainer_state.json",
)  # fmt: skip


class ValidationRecorder(TrainerCallback):
    """Record the validation probabilities of each epoch; pass `compute_metrics` to the same `Trainer`.

    The file, in the folder of the run, is that of a `ValidationRun`, to which a resumed run appends. Its probabilities
    are those before temperature scaling, because the temperature is fitted on them.
    """

    def __init__(self, images: Dataset, folder: Path) -> None:
        is_fake = np.asarray(images["label"][:]) == FAKE
        self.start = ValidationRun.begin(ids=images["id"][:], is_fake=is_fake, content=images["content"][:])
        self.file = folder / VALIDATION
        self._metric = RealFakeMetric()
        self._latest: NDArray[np.float32] | None = None

    def compute_metrics(self, prediction: EvalPrediction) -> dict[str, float]:
        """Compute the metrics of an evaluation, and keep its probabilities for `on_evaluate`."""
        self._latest = p_fake_of(prediction.predictions)
        metrics: dict[str, float] = self._metric.compute(predictions=self._latest, references=prediction.label_ids)
        return metrics

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Append the probabilities of the epoch to the file."""
        if self._latest is None or not state.is_world_process_zero:
            return
        run = ValidationRun.read(self.file) if self.file.exists() else self.start
        run.with_epoch(round(state.epoch or 0), self._latest).write(self.file)


class EpochAugmentation(TrainerCallback):
    """Set the epoch of the training data, which determines their augmentation."""

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Set the epoch, counted from 0."""
        kwargs["train_dataloader"].dataset.set_epoch(int(state.epoch or 0))


class CheckpointChecksums(TrainerCallback):
    """Write checksums into each checkpoint, to detect damaged checkpoints before resuming."""

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Cover the files of the main process; other processes may still be writing."""
        folder = checkpoint_folder(args, state)
        if state.is_world_process_zero and folder.is_dir():
            files = (folder / name for name in _FILES_OF_MAIN_PROCESS)
            write_checksums((file for file in files if file.is_file()), folder / CHECKSUMS)


class EpochLines(TrainerCallback):
    """Print one line per epoch on stderr, and log the duration of the epoch."""

    def __init__(self) -> None:
        self._train_loss = float("nan")
        self._began = time.monotonic()

    def on_epoch_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Start the timer."""
        self._began = time.monotonic()

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Keep the training loss."""
        self._train_loss = kwargs["logs"].get("loss", self._train_loss)

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Print losses, validation accuracy, AUC and seconds above the progress bar."""
        metrics: dict[str, float] = kwargs["metrics"]
        seconds = time.monotonic() - self._began
        state.log_history[-1]["seconds"] = seconds
        if not state.is_world_process_zero:
            return
        tqdm.write(
            f"epoch {state.epoch:.0f}/{args.num_train_epochs:.0f}: training loss {self._train_loss:.4f}, "
            f"validation loss {metrics['eval_loss']:.4f}, accuracy {metrics['eval_accuracy']:.2%}, "
            f"AUC {metrics.get('eval_roc_auc', float('nan')):.4f}  ({seconds:.0f} s)",
            file=sys.stderr,
        )


class Progress(TrainerCallback):
    """Show bars on a terminal: training with its epoch and the loss of the last batch, validation, measurement.

    Args:
        latest_loss: returns the loss of the last batch.
    """

    def __init__(self, latest_loss: Callable[[], float]) -> None:
        self._latest_loss = latest_loss
        self._training: tqdm[Any] | None = None
        self._evaluation: tqdm[Any] | None = None

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Begin at the first step, or where a resumed run begins."""
        if state.is_world_process_zero:
            self._training = _bar("training", state.max_steps, unit="step", initial=state.global_step)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Show the loss at the next update; it is not read more often, because that waits for an accelerator."""
        if self._training is not None and self._training.update(state.global_step - self._training.n):
            epoch = f"epoch {math.ceil(state.epoch or 0)}/{state.num_train_epochs}"
            self._training.set_postfix_str(f"{epoch}, loss {self._latest_loss():.4f}", refresh=False)

    def on_prediction_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Count a batch."""
        if state.is_world_process_zero:
            if self._evaluation is None:
                title = "measuring" if self._training is None else "validation"
                self._evaluation = _bar(title, len(kwargs["eval_dataloader"]), unit="batch", leave=False)
            self._evaluation.update()

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Remove the bar."""
        if self._evaluation is not None:
            self._evaluation.close()
        self._evaluation = None

    def on_predict(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, metrics: Any, **kwargs: Any
    ) -> None:
        """Remove the bar."""
        self.on_evaluate(args, state, control)

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Keep the bar as it is."""
        if self._training is not None:
            self._training.close()
        self._training = None


def _bar(title: str, total: int, *, unit: str, **settings: Any) -> "tqdm[Any]":
    return tqdm(desc=title, total=total, unit=unit, dynamic_ncols=True, disable=None, **settings)


def checkpoint_folder(args: TrainingArguments, state: TrainerState) -> Path:
    """Return the folder of the checkpoint at the current step."""
    return Path(str(args.output_dir)) / f"checkpoint-{state.global_step}"


def p_fake_of(logits: Any, *, temperature: float | None = None) -> NDArray[np.float32]:
    """Convert logits (n, 2), REAL first, to the probability of FAKE, (n,) float32 in [0, 1], calibrated if wanted."""
    return (torch.from_numpy(logits).float() / (temperature or 1.0)).softmax(dim=-1)[:, FAKE].numpy()
