"""Train on a stream: the data loader, and checkpoints within an epoch that store the position of the stream."""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torchdata.stateful_dataloader import StatefulDataLoader
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from realfake_hf.data.pixels import identity_collate
from realfake_hf.data.streaming import StreamedPixels
from realfake_hf.training.callbacks import checkpoint_folder
from realfake_hf.training.distillation import DistillationTrainer


def make_loader(
    stream: StreamedPixels, *, workers: int, prefetch: int | None = None, pin_memory: bool = False
) -> "StatefulDataLoader[Any]":
    """Create a loader whose state is its position between two batches.

    The stream was created for the same number of workers, each of which loads some batches in advance.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "'set_vital' is deprecated")  # torchdata 0.11 with PyTorch 2.13
        return StatefulDataLoader(
            stream, batch_size=None, num_workers=workers, collate_fn=identity_collate, pin_memory=pin_memory,
            prefetch_factor=prefetch if workers else None,
        )  # fmt: skip


class StreamTrainer(DistillationTrainer):
    """A Trainer on `StreamedPixels` that resumes within an epoch without reading earlier batches again."""

    loader: StatefulDataLoader[Any] | None = None

    def get_train_dataloader(self) -> StatefulDataLoader[Any]:
        """Return the loader of this process for its part of the stream."""
        if self.loader is None:
            assert isinstance(self.train_dataset, StreamedPixels)
            self.train_dataset.skips_single = self.needs_two_images and self.args.train_batch_size > 1
            self.loader = make_loader(
                self.train_dataset,
                workers=self.args.dataloader_num_workers,
                prefetch=self.args.dataloader_prefetch_factor,
                pin_memory=self.args.dataloader_pin_memory,
            )
        return self.loader

    def num_examples(self, dataloader: DataLoader[dict[str, Tensor]]) -> int:
        """Return the number of images in an epoch, in all processes."""
        assert isinstance(self.train_dataset, StreamedPixels)
        return len(self.train_dataset.split)


class StreamEpoch(TrainerCallback):
    """Correct the epoch after resuming within one; add it before callbacks that read the epoch."""

    def __init__(self, trainer: StreamTrainer) -> None:
        self._trainer = trainer

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Set the number of epochs so far, an integer at the end of each epoch."""
        batches = len(self._trainer.get_train_dataloader())
        state.epoch = state.global_step / (batches // args.gradient_accumulation_steps)


class StreamPosition(TrainerCallback):
    """Store the position of the stream in checkpoints within an epoch; add it after callbacks that request them."""

    def __init__(self, trainer: StreamTrainer) -> None:
        self._trainer = trainer

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Write the position before the rest of the checkpoint, whose last file marks it as complete."""
        if control.should_save and _is_inside_epoch(state):
            folder = checkpoint_folder(args, state)
            folder.mkdir(parents=True, exist_ok=True)
            torch.save(_plain(self._trainer.get_train_dataloader().state_dict()), folder / _position_file(args))


class StepCheckpoints(TrainerCallback):
    """Write a checkpoint after every `steps` steps, in addition to one per epoch."""

    def __init__(self, steps: int) -> None:
        self._steps = steps

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Request a checkpoint, except at the last step of an epoch, which is evaluated before its checkpoint.

        A run resumed from a checkpoint before the evaluation would skip the evaluation.
        """
        if state.global_step % self._steps == 0 and _is_inside_epoch(state):
            control.should_save = True


def resume_within_epoch(trainer: StreamTrainer, checkpoint: str) -> None:
    """Restore the position of the stream from a checkpoint."""
    args = trainer.args
    files = sorted(Path(checkpoint).glob("stream-*.pt"))
    if not files:
        return  # a checkpoint at the end of an epoch
    file = Path(checkpoint) / _position_file(args)
    if file not in files or len(files) != args.world_size:
        raise ValueError(
            f"expected {len(files)} processes, as in the interrupted run, to resume within an epoch of its stream; "
            f"found {args.world_size}. Start {len(files)} processes, or use another --output_dir."
        )
    trainer.get_train_dataloader().load_state_dict(torch.load(file, weights_only=True))
    args.ignore_data_skip = True


def _is_inside_epoch(state: TrainerState) -> bool:
    return not float(state.epoch or 0).is_integer()


def _position_file(args: TrainingArguments) -> str:
    return f"stream-{args.process_index}.pt"


def _plain(state: Any) -> Any:
    """Convert to types that `torch.load` reads without running code."""
    if isinstance(state, Mapping):
        return {name: _plain(value) for name, value in state.items()}
    return [_plain(value) for value in state] if isinstance(state, list | tuple) else state
