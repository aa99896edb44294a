"""Ways to train a model, each timed over the same number of steps of the same size.

All ways take the same model (the paper's CNN, if not told otherwise), flips, mean cross-entropy, gradients clipped at
norm 1, fused AdamW and a cosine schedule with warm-up. None evaluates or saves while the clock runs, and all drop the
short last batch of an epoch, so that every step has the same number of images. The clock starts after the warm-up
steps and stops at the end of the last step, so that building the model, the optimiser and the loader counts in none.
"""

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext, redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import DatasetDict
from PIL import Image, ImageOps
from torch import Tensor, nn
from transformers import BaseImageProcessor, Trainer, TrainerCallback, get_cosine_schedule_with_warmup
from transformers.trainer_utils import set_seed

from realfake_hf.data.pixels import ModelInput, PixelDataset
from realfake_hf.data.streaming import StreamedPixels
from realfake_hf.training.arguments import DataArguments, ModelArguments
from realfake_hf.training.callbacks import EpochAugmentation
from realfake_hf.training.data import TrainingData, build_model, load_splits, pixel_sets, validation_recorder
from realfake_hf.training.run_arguments import RunArguments
from realfake_hf.training.trainer import build_trainer

Transform = Callable[[Image.Image], Tensor]


@dataclass(frozen=True)
class Work:
    """What every way is given.

    Attributes:
        images: the source with all its splits, for the ways that decode in each epoch.
        sets: the same as cached pixels.
        model: which model.
        processor: of the model.
        run: settings of the project's training, cut to the benchmark's steps.
        warm_up_steps: steps before the clock starts.
    """

    images: DatasetDict
    sets: Mapping[str, PixelDataset | StreamedPixels]
    model: ModelArguments
    processor: BaseImageProcessor
    run: RunArguments
    warm_up_steps: int

    @property
    def timed_images(self) -> int:
        """Images that pass while the clock runs."""
        return (self.run.max_steps - self.warm_up_steps) * self.run.per_device_train_batch_size


def prepare(
    data: str,
    scratch: Path,
    *,
    batch_size: int,
    warm_up_steps: int,
    timed_steps: int,
    model: ModelArguments | None = None,
    bf16: bool = False,
    compiled: bool = False,
) -> Work:
    """Load the pictures and fill the pixel cache, which no way is timed for.

    Args:
        data: as `train.py` takes it.
        scratch: a folder for what a Trainer may write.
        batch_size: images in a step.
        warm_up_steps: steps before the clock starts.
        timed_steps: steps while it runs.
        model: which model; the paper's CNN by default.
        bf16: run the forward pass in bfloat16.
        compiled: let torch.compile translate the model, which takes a while in the first step.

    Raises:
        FileNotFoundError: there is no such data source.
        ValueError: its training split is smaller than one batch.
    """
    run = RunArguments(
        output_dir=str(scratch),
        max_steps=warm_up_steps + timed_steps,
        per_device_train_batch_size=batch_size,
        dataloader_drop_last=True,
        bf16=bf16,
        torch_compile=compiled,
        eval_strategy="no",
        save_strategy="no",
        load_best_model_at_end=False,
    )
    images = load_splits(DataArguments(data=data))
    if len(images["train"]) < batch_size:
        raise ValueError(
            f"wanted at least one batch of {batch_size} training pictures; found {len(images['train'])} in {data}. "
            "Lower --batch_size or name a larger source."
        )
    model = model or ModelArguments()
    processor = build_model(model)[1]
    return Work(images, pixel_sets(TrainingData(images), processor, run), model, processor, run, warm_up_steps)


def trainer(work: Work) -> float:
    """Time the project's own path: its `Trainer` on cached pixels, with its callbacks and its progress bar.

    Returns:
        Images a second.
    """
    return _timed(_project_trainer(work), work)


def bare_loop(
    work: Work, *, autocast: bool = False, channels_last: bool = False, random_tensors: bool = False
) -> float:
    """Time the shortest loop that learns the same: no Trainer, no DataLoader, no callbacks, no bar, no logging.

    An epoch's order is one permutation. A step copies its rows out of the cached pixels, flips half of them
    (`PixelDataset`, called with the row numbers), moves them to the device and normalises them there; then forward,
    backward, `clip_grad_norm_` at 1, `AdamW(fused=True)` over one group of parameters, scheduler, `zero_grad`. The
    loss is never read back.

    Args:
        work: what to train on.
        autocast: run the forward pass in bfloat16.
        channels_last: keep the weights, too, with channels last in memory; the pixels are so in any case.
        random_tensors: feed one batch of random numbers again and again, which lies ready on the device.

    Returns:
        Images a second.
    """
    run, device = work.run, work.run.device
    set_seed(run.seed)
    model: nn.Module = build_model(work.model)[0]
    model.to(device).train()
    if channels_last:
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs lack it
    optimizer = torch.optim.AdamW(model.parameters(), lr=run.learning_rate, weight_decay=run.weight_decay, fused=True)
    schedule = get_cosine_schedule_with_warmup(optimizer, int(run.warmup_steps * run.max_steps), run.max_steps)
    precision = torch.autocast(device.type, dtype=torch.bfloat16) if autocast else nullcontext()
    began = _now()
    for step, batch in enumerate(_ready(work) if random_tensors else _on_device(work), start=1):
        with precision:
            loss = model(**batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), run.max_grad_norm)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if step == work.warm_up_steps:
            began = _now()
    return work.timed_images / (_now() - began)


def hf_example(work: Work, *, workers: int = 0, processor_each: bool = False) -> float:
    """Time the way of transformers' `run_image_classification.py`: decode and transform a picture when it is fetched.

    A `datasets.Dataset` with `set_transform`, a list of transformed pictures stacked by the collator, and the same
    `Trainer` and callbacks otherwise. The transform is what that example composes from torchvision (to the processor's
    size, mirrored at random, to a tensor, normalised), written with Pillow and torch; its random crop is left out, as
    it would make this way slower and another augmentation.

    Args:
        work: what to train on.
        workers: processes of the loader; the example's default is none.
        processor_each: call the image processor for each picture instead, as many tutorials do.

    Returns:
        Images a second.
    """
    transform = _each_by_processor(work.processor) if processor_each else _each_by_tensor(work.processor)
    rows = work.images["train"].select_columns(["image", "label"])
    rows.set_transform(lambda batch: {**batch, "pixel_values": [transform(image) for image in batch["image"]]})
    other = _project_trainer(work)
    other.remove_callback(EpochAugmentation)  # the transform draws its own
    other.train_dataset, other.data_collator = rows, _stack
    other.args.dataloader_num_workers = workers
    try:
        return _timed(other, work)
    finally:
        other.args.dataloader_num_workers = 0


class StepClock(TrainerCallback):
    """Measure the seconds from the end of the warm-up to the end of the last step; add it last.

    Args:
        warm_up_steps: steps before the clock starts.
    """

    def __init__(self, warm_up_steps: int) -> None:
        self.warm_up_steps = warm_up_steps
        self.seconds = float("nan")
        self._began = float("nan")

    def on_train_begin(self, *_: Any, **__: Any) -> None:  # noqa: ANN401 - as the Trainer calls it
        """Start, for a run without warm-up."""
        self._began = _now()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ANN401, ARG002
        """Start or stop."""
        if state.global_step == self.warm_up_steps:
            self._began = _now()
        if state.global_step == state.max_steps:
            self.seconds = _now() - self._began


def _project_trainer(work: Work) -> Trainer:
    set_seed(work.run.seed)
    model, _ = build_model(work.model)
    recorder = validation_recorder(work.images, Path(str(work.run.output_dir)))
    return build_trainer(model, work.processor, work.sets, recorder=recorder, model=work.model, run=work.run)


def _timed(runner: Trainer, work: Work) -> float:
    clock = StepClock(work.warm_up_steps)
    runner.add_callback(clock)
    with Path(os.devnull).open("w") as nowhere, redirect_stderr(nowhere):  # the bar is drawn, and not shown
        runner.train()
    return work.timed_images / clock.seconds


def _on_device(work: Work) -> Iterator[dict[str, Tensor]]:
    convert, device = ModelInput(work.processor), work.run.device
    for batch in _batches(work):
        yield {"pixel_values": convert(batch["pixel_values"].to(device)), "labels": batch["labels"].to(device)}


def _ready(work: Work) -> Iterator[dict[str, Tensor]]:
    size, device = work.run.per_device_train_batch_size, work.run.device
    batch = next(_on_device(work))
    pixels = torch.randn(batch["pixel_values"].shape, device=device)
    labels = torch.randint(2, (size,), device=device)
    for _ in range(work.run.max_steps):
        yield {"pixel_values": pixels, "labels": labels}


def _batches(work: Work) -> Iterator[dict[str, Tensor]]:
    """Yield `max_steps` shuffled batches, epoch after epoch, without short ones."""
    pixels, size = work.sets["train"], work.run.per_device_train_batch_size
    assert isinstance(pixels, PixelDataset)
    each_epoch = len(pixels) // size
    for step in range(work.run.max_steps):
        if step % each_epoch == 0:
            pixels.set_epoch(step // each_epoch)
            order = torch.randperm(len(pixels)).tolist()
        start = step % each_epoch * size
        yield pixels.__getitems__(order[start : start + size])


def _each_by_processor(processor: BaseImageProcessor) -> Transform:
    def transform(picture: Image.Image) -> Tensor:
        values: Tensor = processor(_mirrored(picture.convert("RGB")), return_tensors="pt")["pixel_values"][0]
        return values

    return transform


def _each_by_tensor(processor: BaseImageProcessor) -> Transform:
    numbers: Mapping[str, Any] = processor.to_dict()
    size = (numbers["size"]["width"], numbers["size"]["height"])
    mean, deviation = (torch.tensor(numbers[name]).view(-1, 1, 1) for name in ("image_mean", "image_std"))

    def transform(picture: Image.Image) -> Tensor:
        resized = _mirrored(picture.convert("RGB").resize(size, Image.Resampling(numbers["resample"])))
        values = torch.from_numpy(np.array(resized)).permute(2, 0, 1).contiguous().float().div_(255)
        return values.sub_(mean).div_(deviation)

    return transform


def _mirrored(picture: Image.Image) -> Image.Image:
    return ImageOps.mirror(picture) if torch.rand(1) < 0.5 else picture  # noqa: PLR2004 - one half


def _stack(examples: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
    return {
        "pixel_values": torch.stack([example["pixel_values"] for example in examples]),
        "labels": torch.tensor([example["label"] for example in examples]),
    }


def _now() -> float:
    """Seconds, once the device has done what it was given."""
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()
    return time.perf_counter()
