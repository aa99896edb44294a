"""What happens in each epoch: its augmentation is drawn, a line is printed, its validation is kept."""

import sys
import time
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
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
from realfake_hf.run_folder import ValidationRun
from realfake_hf.store import CHECKSUMS, write_checksums

_OF_THE_MAIN_PROCESS: Final = (
    "model.safetensors", "adapter_model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth",
    "rng_state_0.pth", "stream-0.pt", "trainer_state.json",
)  # fmt: skip


class ValidationRecorder(TrainerCallback):
    """Keep each epoch's validation probabilities in a file; give `compute_metrics` to the same `Trainer`.

    Args:
        file: a `.npz` file that `ValidationRun` reads; a resumed run goes on from what it holds.
        start: the validation images, and no epochs.
    """

    def __init__(self, file: Path, start: ValidationRun) -> None:
        self.file, self.start = file, start
        self._metric = RealFakeMetric()
        self._latest: NDArray[np.float32] | None = None

    def compute_metrics(self, prediction: EvalPrediction) -> dict[str, float]:
        """Measure an evaluation of the `Trainer`, and remember its probabilities until the epoch is known."""
        self._latest = p_fake_of(prediction.predictions)
        scores: dict[str, float] = self._metric.compute(predictions=self._latest, references=prediction.label_ids)
        return scores

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Write the probabilities of the epoch that just ended."""
        if self._latest is None or not state.is_world_process_zero:
            return
        run = ValidationRun.read(self.file) if self.file.exists() else self.start
        run.with_epoch(round(state.epoch or 0), self._latest).write(self.file)


class EpochAugmentation(TrainerCallback):
    """Tell the training data which epoch it is, so that its augmentation is drawn anew."""

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Set the epoch, counted from 0."""
        kwargs["train_dataloader"].dataset.set_epoch(int(state.epoch or 0))


class CheckpointSums(TrainerCallback):
    """Note the checksums of each checkpoint, so that a damaged one is found before a run goes on from it."""

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Note those of the files that the main process wrote; others may still be at work on theirs."""
        folder = Path(str(args.output_dir)) / f"checkpoint-{state.global_step}"
        if state.is_world_process_zero and folder.is_dir():
            write_checksums(
                (folder / name for name in _OF_THE_MAIN_PROCESS if (folder / name).is_file()), folder / CHECKSUMS
            )


class EpochLines(TrainerCallback):
    """Print one line an epoch on stderr: losses, validation accuracy and AUC, seconds; note the seconds in the log."""

    def __init__(self) -> None:
        self._train_loss = float("nan")
        self._began = time.monotonic()

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start the epoch's clock."""
        self._began = time.monotonic()

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Remember the training loss for the epoch's line."""
        self._train_loss = kwargs["logs"].get("loss", self._train_loss)

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Print the line, above the progress bar."""
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
    """The Trainer's progress bar without its printed dictionaries; `EpochLines` says it in words."""

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """Print nothing."""


def p_fake_of(logits: Any) -> NDArray[np.float32]:
    """Turn an array of logits (n, 2), REAL first, into the probability of FAKE, (n,) float32 in [0, 1]."""
    return torch.from_numpy(logits).float().softmax(dim=-1)[:, FAKE].numpy()
