"""Ways to train and to ask a vision transformer, each run in a process of its own, so that its memory is its own.

`python -m benchmarks.ways_to_vit '{"way": "training: trainer", "image_size": 32, ...}'` prints what it took as one
line of JSON. Training is in bfloat16 with the attention that suits the device; asking is in float32, as the detector
does it.
"""

import json
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForImageClassification, BaseImageProcessor, pipeline

from benchmarks.ways_to_data import gib
from benchmarks.ways_to_train import Work, bare_loop, hf_example, prepare, trainer
from realfake_hf.detector import Detector
from realfake_hf.training.arguments import ModelArguments
from realfake_hf.training.data import build_model

WARM_UP_STEPS: Final = 2
COMPILED: Final = "training: trainer, compiled"


@dataclass(frozen=True)
class Task:
    """One way to go.

    Attributes:
        way: a name of `WAYS`.
        model: the pretrained ViT.
        image_size: pixels along a side of its input.
        patch_size: pixels along a side of a patch.
        data: source of the pictures, as train.py takes it.
        batch_size: pictures in a step.
        steps: steps that are timed, after two that are not.
    """

    way: str
    model: str
    image_size: int
    patch_size: int
    data: str
    batch_size: int
    steps: int


@dataclass(frozen=True)
class Taken:
    """What one way took: pictures a second, and the peak memory of its process and of its accelerator in GiB."""

    images_per_s: float
    peak_memory_gib: float
    device_memory_gib: float


def take(task: Task) -> Taken:
    """Go one way to the end in this process."""
    with tempfile.TemporaryDirectory() as scratch:
        model = ModelArguments(
            model=task.model,
            image_size=task.image_size,
            patch_size=task.patch_size,
            attn_implementation="sdpa" if torch.accelerator.is_available() else "eager",
        )
        settings = {"batch_size": task.batch_size, "warm_up_steps": WARM_UP_STEPS, "timed_steps": task.steps}
        learns, compiled = task.way.startswith("training"), task.way == COMPILED
        work = prepare(task.data, Path(scratch), **settings, model=model, bf16=learns, compiled=compiled)
        speed = WAYS[task.way](work)
    device = torch.cuda.max_memory_allocated() / 1024**3 if torch.cuda.is_available() else 0.0
    return Taken(speed, gib(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss), device)


def ask_detector(work: Work) -> float:
    """Ask the project's detector about a list of pictures."""
    model, processor = _built(work)
    detector = Detector(model, processor, batch_size=work.run.per_device_train_batch_size)
    return _asked(work, lambda pictures: detector.probabilities(pictures))


def ask_random_tensors(work: Work) -> float:
    """Run the forward pass alone, again and again on one batch of random numbers that lies ready on the device."""
    model, _ = _built(work)
    size = work.run.per_device_train_batch_size
    pixels = torch.randn(size, 3, model.config.image_size, model.config.image_size, device=work.run.device)

    @torch.inference_mode()
    def ask(pictures: list[Image.Image]) -> None:
        for _ in range(len(pictures) // size):
            model(pixel_values=pixels)

    return _asked(work, ask)


def ask_pipeline(work: Work, *, batched: bool) -> float:
    """Ask `pipeline("image-classification")`, with batches as large as the others' or picture by picture."""
    with tempfile.TemporaryDirectory() as folder:
        for part in build_model(work.model):
            part.save_pretrained(folder)
        model = AutoModelForImageClassification.from_pretrained(folder)
        processor = AutoImageProcessor.from_pretrained(folder)  # type: ignore[no-untyped-call]
    ask = pipeline("image-classification", model=model, image_processor=processor, device=work.run.device)
    size = work.run.per_device_train_batch_size if batched else 1
    return _asked(work, lambda pictures: ask(pictures, batch_size=size))


WAYS: Final[dict[str, Callable[[Work], float]]] = {
    "training: trainer": trainer,
    COMPILED: trainer,
    "training: random tensors": partial(bare_loop, autocast=True, random_tensors=True),
    "training: HF example's way": hf_example,
    "asking: detector": ask_detector,
    "asking: random tensors": ask_random_tensors,
    "asking: pipeline, batches": partial(ask_pipeline, batched=True),
    "asking: pipeline, one by one": partial(ask_pipeline, batched=False),
}


def _built(work: Work) -> tuple[Any, BaseImageProcessor]:
    model: Any
    model, processor = build_model(work.model)
    return model.to(work.run.device), processor


def _asked(work: Work, ask: Callable[[list[Image.Image]], object]) -> float:
    size = work.run.per_device_train_batch_size
    rows = work.images["train"].select(range(min(work.timed_images + size, len(work.images["train"]))))
    pictures = [picture.convert("RGB") for picture in rows["image"]]
    ask(pictures[:size])
    timed = pictures[size:]
    began = time.perf_counter()
    ask(timed)
    return len(timed) / (time.perf_counter() - began)


if __name__ == "__main__":
    print(json.dumps(asdict(take(Task(**json.loads(sys.argv[1]))))))
