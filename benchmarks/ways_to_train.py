"""Ways to train a model, each timed over the same number of steps.

All ways use the same model, horizontal flips, cross-entropy, gradients clipped at norm 1, fused AdamW and a cosine
schedule with warm-up. None evaluates or saves, and all drop the incomplete last batch of an epoch. The clock starts
after the warm-up steps and stops after the last step: building model, optimizer and loader is not included.
"""

import os
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

from benchmarks.comparison import now
from realfake_hf.data.pixels import ModelInput, PixelDataset
from realfake_hf.data.streaming import StreamedPixels
from realfake_hf.training.arguments import DataArguments, ModelArguments
from realfake_hf.training.callbacks import EpochAugmentation, ValidationRecorder
from realfake_hf.training.data import TrainingData, build_model, load_splits, pixel_sets
from realfake_hf.training.run_arguments import RunArguments
from realfake_hf.training.trainer import build_trainer

Transform = Callable[[Image.Image], Tensor]


@dataclass(frozen=True)
class Work:
    """The input of every way.

    Attributes:
        images: all splits of the data source, for ways that decode in each epoch.
        sets: the same as cached pixels.
        model: the model to build.
        processor: processor of the model.
        run: settings of the project's training, limited to the benchmark's steps.
        warm_up_steps: untimed steps.
    """

    images: DatasetDict
    sets: Mapping[str, PixelDataset | StreamedPixels]
    model: ModelArguments
    processor: BaseImageProcessor
    run: RunArguments
    warm_up_steps: int

    @property
    def timed_images(self) -> int:
        """Number of images in the timed steps."""
        return (self.run.max_steps - self.warm_up_steps) * self.batch_size

    @property
    def batch_size(self) -> int:
        """Images in a step."""
        return self.run.per_device_train_batch_size


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
    """Load the images and fill the pixel cache, which is not timed.

    Args:
        data: a data source, as for `train.py`.
        scratch: output folder of the Trainer.
        batch_size: images in a step.
        warm_up_steps: untimed steps.
        timed_steps: steps after them.
        model: the model to build; the paper's CNN by default.
        bf16: run the forward pass in bfloat16.
        compiled: compile the model with torch.compile.

    Raises:
        FileNotFoundError: there is no such data source.
        ValueError: its training split is smaller than one batch.
    """
    run = RunArguments(
        output_dir=str(scratch),
        max_steps=warm_up_steps + timed_steps,
        per_device_train_batch_size=batch_size,
        bf16=bf16,
        torch_compile=compiled,
        eval_strategy="no",
        save_strategy="no",
        load_best_model_at_end=False,
    )
    run.dataloader_drop_last = True  # nothing is evaluated: all steps have one size
    images = load_splits(DataArguments(data=data))
    if len(images["train"]) < batch_size:
        raise ValueError(
            f"wanted at least one batch of {batch_size} training images; found {len(images['train'])} in {data}. "
            "Lower --batch_size or choose a larger --data."
        )
    model = model or ModelArguments()
    processor = build_model(model)[1]
    return Work(images, pixel_sets(TrainingData(images), processor, run), model, processor, run, warm_up_steps)


def trainer(work: Work) -> float:
    """Time the project's `Trainer` on cached pixels, with its callbacks and progress bar; return images per second."""
    return _timed(_project_trainer(work), work)


def bare_loop(
    work: Work, *, autocast: bool = False, channels_last: bool = False, random_tensors: bool = False
) -> float:
    """Time the shortest loop that learns the same: no Trainer, DataLoader, callbacks, progress bar or logging.

    A step copies rows of the cached pixels, flips half of them, moves them to the device and normalizes them there;
    then forward, backward, gradient clipping, fused AdamW over one parameter group, and scheduler. The loss is never
    read back.

    Args:
        work: the input.
        autocast: run the forward pass in bfloat16.
        channels_last: store the weights in channels-last memory format, as the pixels are.
        random_tensors: repeat one batch of random numbers on the device.

    Returns:
        Images per second.
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
    began = now()
    for step, batch in enumerate(_ready(work) if random_tensors else _on_device(work), start=1):
        with precision:
            loss = model(**batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), run.max_grad_norm)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if step == work.warm_up_steps:
            began = now()
    return work.timed_images / (now() - began)


def hf_example(work: Work, *, workers: int = 0, processor_each: bool = False) -> float:
    """Time the method of transformers' `run_image_classification.py`: decode and transform each image when fetched.

    A `datasets.Dataset` with `set_transform`, a collator that stacks tensors, and otherwise the same `Trainer` and
    callbacks. The transform repeats the example's torchvision pipeline (resize, random flip, tensor, normalize) with
    Pillow and PyTorch, without its random crop, which would slow this way down and change the augmentation.

    Args:
        work: the input.
        workers: processes of the loader; the example's default is none.
        processor_each: call the image processor for each image instead, as many tutorials do.

    Returns:
        Images per second.
    """
    transform = _with_processor(work.processor) if processor_each else _with_tensors(work.processor)
    rows = work.images["train"].select_columns(["image", "label"])
    rows.set_transform(lambda batch: {**batch, "pixel_values": [transform(image) for image in batch["image"]]})
    runner = _project_trainer(work)
    runner.remove_callback(EpochAugmentation)  # the transform draws its own flips
    runner.train_dataset, runner.data_collator = rows, _stack
    runner.args.dataloader_num_workers = workers
    try:
        return _timed(runner, work)
    finally:
        runner.args.dataloader_num_workers = 0


class StepClock(TrainerCallback):
    """Measure the seconds from the end of the warm-up to the end of the last step; must be the last callback.

    Args:
        warm_up_steps: untimed steps.
    """

    def __init__(self, warm_up_steps: int) -> None:
        self.warm_up_steps = warm_up_steps
        self.seconds = float("nan")
        self._start = float("nan")

    def on_train_begin(self, *_: Any, **__: Any) -> None:  # noqa: ANN401 - as the Trainer calls it
        """Start, for a run without warm-up."""
        self._start = now()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ANN401, ARG002
        """Start or stop."""
        if state.global_step == self.warm_up_steps:
            self._start = now()
        if state.global_step == state.max_steps:
            self.seconds = now() - self._start


def _project_trainer(work: Work) -> Trainer:
    set_seed(work.run.seed)
    model, _ = build_model(work.model)
    recorder = ValidationRecorder(work.images["validation"], Path(str(work.run.output_dir)))
    return build_trainer(model, work.processor, work.sets, recorder=recorder, model=work.model, run=work.run)


def _timed(runner: Trainer, work: Work) -> float:
    clock = StepClock(work.warm_up_steps)
    runner.add_callback(clock)
    with Path(os.devnull).open("w") as sink, redirect_stderr(sink):  # the progress bar is drawn but not shown
        runner.train()
    return work.timed_images / clock.seconds


def _on_device(work: Work) -> Iterator[dict[str, Tensor]]:
    convert, device = ModelInput(work.processor), work.run.device
    for batch in _batches(work):
        yield {"pixel_values": convert(batch["pixel_values"].to(device)), "labels": batch["labels"].to(device)}


def _ready(work: Work) -> Iterator[dict[str, Tensor]]:
    device = work.run.device
    batch = next(_on_device(work))
    pixels = torch.randn(batch["pixel_values"].shape, device=device)
    labels = torch.randint(2, (work.batch_size,), device=device)
    for _ in range(work.run.max_steps):
        yield {"pixel_values": pixels, "labels": labels}


def _batches(work: Work) -> Iterator[dict[str, Tensor]]:
    """Yield `max_steps` shuffled complete batches, over as many epochs as necessary."""
    pixels, size = work.sets["train"], work.batch_size
    assert isinstance(pixels, PixelDataset)
    per_epoch = len(pixels) // size
    for step in range(work.run.max_steps):
        if step % per_epoch == 0:
            pixels.set_epoch(step // per_epoch)
            order = torch.randperm(len(pixels)).tolist()
        start = step % per_epoch * size
        yield pixels.__getitems__(order[start : start + size])


def _with_processor(processor: BaseImageProcessor) -> Transform:
    def transform(image: Image.Image) -> Tensor:
        values: Tensor = processor(_flipped(image.convert("RGB")), return_tensors="pt")["pixel_values"][0]
        return values

    return transform


def _with_tensors(processor: BaseImageProcessor) -> Transform:
    settings: Mapping[str, Any] = processor.to_dict()
    size = (settings["size"]["width"], settings["size"]["height"])
    mean, deviation = (torch.tensor(settings[name]).view(-1, 1, 1) for name in ("image_mean", "image_std"))

    def transform(image: Image.Image) -> Tensor:
        resized = _flipped(image.convert("RGB").resize(size, Image.Resampling(settings["resample"])))
        values = torch.from_numpy(np.array(resized)).permute(2, 0, 1).contiguous().float().div_(255)
        return values.sub_(mean).div_(deviation)

    return transform


def _flipped(image: Image.Image) -> Image.Image:
    return ImageOps.mirror(image) if torch.rand(1) < 0.5 else image  # noqa: PLR2004 - one half


def _stack(examples: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
    return {
        "pixel_values": torch.stack([example["pixel_values"] for example in examples]),
        "labels": torch.tensor([example["label"] for example in examples]),
    }
