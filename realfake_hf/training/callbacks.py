"""Callbacks of the Trainer: record validation, draw augmentation, write checksums, report each epoch."""

import sys
import time
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from datasets import Dataset
from numpy.typing import NDArray
from tqdm.auto import tqdm
from transformers import (
    EvalPrediction,
    ProgressCallback,
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


class QuietProgress(ProgressCallback):
    """The progress bar of the Trainer without its logs, which `EpochLines` prints."""

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """Print nothing."""


def checkpoint_folder(args: TrainingArguments, state: TrainerState) -> Path:
    """Return the folder of the checkpoint at the current step."""
    return Path(str(args.output_dir)) / f"checkpoint-{state.global_step}"


def p_fake_of(logits: Any, *, temperature: float | None = None) -> NDArray[np.float32]:
    """Convert logits (n, 2), REAL first, to the probability of FAKE, (n,) float32 in [0, 1], calibrated if wanted."""
    return (torch.from_numpy(logits).float() / (temperature or 1.0)).softmax(dim=-1)[:, FAKE].numpy()
