"""Train on a stream: its loader, and checkpoints inside an epoch that hold its place."""

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
from realfake_hf.training.distillation import TaughtTrainer

Loader = DataLoader[dict[str, Tensor]]


def load_in_workers(
    stream: StreamedPixels, *, workers: int, ahead: int | None = None, pin_memory: bool = False
) -> "StatefulDataLoader[Any]":
    """A loader that knows its place between any two batches.

    Args:
        stream: what it loads, for so many workers.
        workers: processes that read and decode; 0 for this one.
        ahead: batches that each of them has ready.
        pin_memory: for copies to an accelerator.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "'set_vital' is deprecated")  # torchdata 0.11 with PyTorch 2.13
        return StatefulDataLoader(
            stream, batch_size=None, num_workers=workers, collate_fn=identity_collate, pin_memory=pin_memory,
            prefetch_factor=ahead if workers else None,
        )  # fmt: skip


class StreamTrainer(TaughtTrainer):
    """A Trainer whose batches come from `StreamedPixels`, and that goes on inside an epoch without reading anew."""

    loader: StatefulDataLoader[Any] | None = None

    def get_train_dataloader(self) -> StatefulDataLoader[Any]:
        """Load batches in workers; each process has its own part of the stream already."""
        if self.loader is None:
            assert isinstance(self.train_dataset, StreamedPixels)
            self.loader = load_in_workers(
                self.train_dataset,
                workers=self.args.dataloader_num_workers,
                ahead=self.args.dataloader_prefetch_factor,
                pin_memory=self.args.dataloader_pin_memory,
            )
        return self.loader

    def num_examples(self, dataloader: Loader) -> int:
        """Pictures of an epoch, in all processes."""
        assert isinstance(self.train_dataset, StreamedPixels)
        return self.train_dataset.split.n


class StreamEpoch(TrainerCallback):
    """Count epochs right after going on from a checkpoint inside one; before all that ask which epoch it is.

    Args:
        trainer: whose stream it is.
    """

    def __init__(self, trainer: StreamTrainer) -> None:
        self._trainer = trainer

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Say how many epochs are done, a whole number at the end of each."""
        state.epoch = state.global_step / (
            len(self._trainer.get_train_dataloader()) // args.gradient_accumulation_steps
        )


class StreamPlace(TrainerCallback):
    """Keep the stream's place in checkpoints inside an epoch; after all that ask for them.

    Args:
        trainer: whose stream it is.
    """

    def __init__(self, trainer: StreamTrainer) -> None:
        self._trainer = trainer

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Write the place before the rest of the checkpoint, whose last file says that it is whole."""
        if control.should_save and _is_inside_epoch(state):
            folder = Path(str(args.output_dir)) / f"checkpoint-{state.global_step}"
            folder.mkdir(parents=True, exist_ok=True)
            torch.save(_plain(self._trainer.get_train_dataloader().state_dict()), folder / _file(args))


class InnerCheckpoints(TrainerCallback):
    """Write a checkpoint after every so many steps, beside those of each epoch.

    Args:
        steps: after how many.
    """

    def __init__(self, steps: int) -> None:
        self._steps = steps

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Ask for it, but not at an epoch's last step: that checkpoint comes when the epoch has been evaluated.

        A training that went on from one before the evaluation would take the epoch for done, and never evaluate it.
        """
        if state.global_step % self._steps == 0 and _is_inside_epoch(state):
            control.should_save = True


def _is_inside_epoch(state: TrainerState) -> bool:
    return not float(state.epoch or 0).is_integer()


def go_on_inside_epoch(trainer: StreamTrainer, checkpoint: str) -> None:
    """Bring the stream to the place where a checkpoint was written; nothing is read over again.

    Raises:
        ValueError: the checkpoint is of another number of processes.
    """
    args = trainer.args
    places = sorted(Path(checkpoint).glob("stream-*.pt"))
    if not places:
        return  # at the end of an epoch
    place = Path(checkpoint) / _file(args)
    if place not in places or len(places) != args.world_size:
        raise ValueError(
            f"wanted the same number of processes as the interrupted run had, {len(places)}, to go on inside an epoch "
            f"of its stream; found {args.world_size}. Start as many, or give another --output_dir."
        )
    loader = trainer.get_train_dataloader()
    loader.load_state_dict(torch.load(place, weights_only=True))
    args.ignore_data_skip = True


def _file(args: TrainingArguments) -> str:
    return f"stream-{args.process_index}.pt"


def _plain(state: Any) -> Any:
    """The same in classes that `torch.load` takes without running code."""
    if isinstance(state, Mapping):
        return {name: _plain(value) for name, value in state.items()}
    return [_plain(one) for one in state] if isinstance(state, list | tuple) else state
