"""Ways to explain a vision transformer's verdicts, each run in a process of its own, so that its memory is its own.

`python -m benchmarks.ways_to_explain '{"way": "rollout", "image_size": 32, ...}'` prints what it took as one line of
JSON. All in float32 with attention computed eagerly, as its weights are needed. The clock sees tensors that lie ready
on the device; only "rollout, streamed" begins with pictures, as its memory is what counts.
"""

import json
import resource
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from itertools import cycle, islice
from typing import Any, Final

import numpy as np
import torch
from datasets import Dataset
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from transformers import PreTrainedModel

from benchmarks.ways_to_data import gib
from realfake_hf.attribution.explain import explain
from realfake_hf.data.decoding import to_rgb
from realfake_hf.data.loading import load_images
from realfake_hf.data.pixels import Normalize, resize_images
from realfake_hf.detector import Detector
from realfake_hf.models.cpu import pack
from realfake_hf.models.pretrained import load_pretrained

STREAMED: Final = "rollout, streamed"
DISCARDED: Final = 0.9  # share of the weights, where some are discarded
SCRIPT: Final = "script, one at a time"
SCRIPT_DISCARDING: Final = "script, discarding, one at a time"
DISTINCT: Final = 512  # pictures that are read where tensors are to lie ready; more than these are copies of them
RELEVANCE_SINGLY: Final = "relevance, one at a time"
SINGLY: Final = frozenset({SCRIPT, SCRIPT_DISCARDING, RELEVANCE_SINGLY})
PLAIN: Final = ("eager forward", SCRIPT, SCRIPT_DISCARDING)  # of these the model is as transformers loads it

Way = Callable[[PreTrainedModel, Tensor], object]


@dataclass(frozen=True)
class Task:
    """One way to go.

    Attributes:
        way: a name of `WAYS`, or `STREAMED`.
        model: the pretrained ViT.
        image_size: pixels along a side of its input.
        patch_size: pixels along a side of a patch.
        data: source of the pictures, as train.py takes it; they come again where there are too few.
        batch_size: pictures in a batch.
        pictures: how many are timed, after one batch that is not.
    """

    way: str
    model: str
    image_size: int
    patch_size: int
    data: str
    batch_size: int
    pictures: int


@dataclass(frozen=True)
class Taken:
    """What one way took: milliseconds a picture, and the peak memory of its process and of its accelerator in GiB."""

    ms_per_picture: float
    peak_memory_gib: float
    device_memory_gib: float


def take(task: Task) -> Taken:
    """Go one way to the end in this process."""
    geometry = {"image_size": task.image_size, "patch_size": task.patch_size}
    model: Any
    model, processor = load_pretrained(task.model, **geometry, attn_implementation="eager")
    if task.way not in PLAIN:
        pack(model)  # as `Detector.from_pretrained` does
    detector = Detector(model.to(_device()), processor, batch_size=task.batch_size)
    rows = load_images(task.data)["train"]
    go = _streamed if task.way == STREAMED else _batched
    seconds = go(task, detector, rows)
    device = torch.cuda.max_memory_allocated() / 1024**3 if torch.cuda.is_available() else 0.0
    peak = gib(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    return Taken(1000 * seconds / task.pictures, peak, device)


def eager_forward(model: PreTrainedModel, pixels: Tensor) -> None:
    """Run the forward pass alone: what no explanation can do without."""
    with torch.no_grad():
        model(pixel_values=pixels)


def script_rollout(model: PreTrainedModel, pixels: Tensor, *, discard_ratio: float = 0.0) -> list[NDArray[np.float32]]:
    """Roll attention out as scripts that are passed around do it.

    One picture at a time; all layers' attentions are returned and kept, brought to the CPU, and fused, their lowest
    weights set to 0, mixed with the identity, made distributions again and multiplied in a Python loop.

    Args:
        model: a ViT with one class token and a square grid.
        pixels: (batch, 3, height, width), normalised.
        discard_ratio: share of the weights that is set to 0; 0.9 is the usual default of such scripts.

    Returns:
        A map for each picture, (grid_h, grid_w), its highest value 1.
    """
    maps = []
    for picture in torch.split(pixels, 1):
        with torch.no_grad():
            attentions = [one.cpu() for one in model(pixel_values=picture, output_attentions=True).attentions]
        product = torch.eye(attentions[0].shape[-1])
        for attention in attentions:
            fused = attention[0].mean(dim=0)
            if discard_ratio:
                flat = fused.view(-1)
                flat[flat.topk(int(discard_ratio * len(flat)), largest=False).indices] = 0
            mixed = fused + torch.eye(len(product))
            product = (mixed / mixed.sum(dim=-1, keepdim=True)) @ product
        patches = product[0, 1:]
        side = round(len(patches) ** 0.5)
        maps.append((patches / patches.max()).reshape(side, side).numpy())
    return maps


def one_at_a_time(model: PreTrainedModel, pixels: Tensor, *, method: str) -> None:
    """Ask the library for one picture after the other."""
    for picture in torch.split(pixels, 1):
        explain(model, picture, method=method)


WAYS: Final[dict[str, Way]] = {
    "eager forward": eager_forward,
    **{method: partial(explain, method=method) for method in ("rollout", "relevance", "grad_cam")},
    "rollout, discarding": partial(explain, method="rollout", options={"discard_ratio": DISCARDED}),
    SCRIPT: script_rollout,
    SCRIPT_DISCARDING: partial(script_rollout, discard_ratio=DISCARDED),
    RELEVANCE_SINGLY: partial(one_at_a_time, method="relevance"),
}


def _batched(task: Task, detector: Detector, rows: Dataset) -> float:
    """Time a way on tensors that lie ready: seconds."""
    model, processor, way = detector.model, detector.processor, WAYS[task.way]
    distinct = min(task.pictures, DISTINCT)
    pixels = torch.from_numpy(resize_images(list(_pictures(rows, distinct)), processor)).to(model.device)
    chosen = torch.arange(task.pictures, device=model.device) % distinct
    batches = torch.split(Normalize(processor)(pixels)[chosen], task.batch_size)
    way(model, batches[0])
    return _seconds(lambda: [way(model, batch) for batch in batches])


def _streamed(task: Task, detector: Detector, rows: Dataset) -> float:
    """Roll out pictures that are read when their batch comes up: seconds."""
    return _seconds(lambda: detector.explain(_pictures(rows, task.pictures), method="rollout"))


def _pictures(rows: Dataset, n: int) -> Iterator[Image.Image]:
    return (to_rgb(rows[row]["image"]) for row in islice(cycle(range(len(rows))), n))


def _seconds(go: Callable[[], Any]) -> float:
    _wait()
    began = time.perf_counter()
    go()
    _wait()
    return time.perf_counter() - began


def _device() -> torch.device:
    return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")


def _wait() -> None:
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()


if __name__ == "__main__":
    print(json.dumps(asdict(take(Task(**json.loads(sys.argv[1]))))))
