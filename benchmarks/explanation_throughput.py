"""Time and memory of explanations, beside the forward pass and beside the loop of common rollout scripts.

`python -m benchmarks.explanation_throughput --output_file results/benchmark_explanations.json`

Everything is in float32 with eager attention, whose weights are needed. The input is ready on the device, except for
"rollout, streamed", which reads images batch by batch, and whose memory is what counts.
"""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from benchmarks.comparison import (
    Pair,
    compare,
    comparison_tables,
    measure_in_turn,
    now,
    number_of_rounds,
    report,
    results_file,
    run_apart,
    run_benchmark,
)
from benchmarks.vit_throughput import MEMORY, parse_geometry

if TYPE_CHECKING:
    import numpy as np
    from datasets import Dataset
    from numpy.typing import NDArray
    from PIL import Image
    from torch import Tensor
    from transformers import PreTrainedModel

    from realfake_hf.detector import Detector

GEOMETRIES: Final = ("32/4", "224/16")  # image size / patch size
SPEEDUP_ON_CPU: Final = 2  # over a script
SPEEDUP_ON_GPU: Final = 10
FEW: Final = 64  # images with whose memory that of many is compared
DISTINCT: Final = 512  # images that are read; further ones are copies
DISCARDED: Final = 0.9  # share of the attention weights that common scripts set to 0 by default

FORWARD: Final = "eager forward"
STREAMED: Final = "rollout, streamed"
SCRIPT: Final = "script, one at a time"
SCRIPT_DISCARDING: Final = "script, discarding, one at a time"
RELEVANCE_SINGLY: Final = "relevance, one at a time"
SINGLY: Final = frozenset({SCRIPT, SCRIPT_DISCARDING, RELEVANCE_SINGLY})
UNPACKED: Final = frozenset({FORWARD, SCRIPT, SCRIPT_DISCARDING})  # ways with the model as transformers loads it

Way = Callable[["PreTrainedModel", "Tensor"], object]


@dataclass
class Settings:
    """What to explain, and how often."""

    model: str = field(default="WinKawaks/vit-tiny-patch16-224", metadata={"help": "Pretrained ViT."})
    data: str = field(default="cifake", metadata={"help": "Data source, as for train.py."})
    geometries: list[str] = field(
        default_factory=lambda: list(GEOMETRIES),
        metadata={"help": "Pairs of image size / patch size; memory is measured at the last."},
    )
    batch_size: int = field(default=16, metadata={"help": "Images in a batch."})
    steps: int = field(default=8, metadata={"help": "Timed batches in each way and round."})
    singles: int = field(default=128, metadata={"help": "Timed images of ways that take one image at a time."})
    many: int = field(default=1000, metadata={"help": f"Images whose memory is compared with that of {FEW}."})
    rounds: int = number_of_rounds(3)
    apart: bool = field(
        default=True,
        metadata={"help": "Run each way in a process of its own and measure its memory; false is faster."},
    )
    output_file: Path = results_file("benchmark_explanations")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return the exit status."""
    return run_benchmark(Settings, measure, to_markdown, argv, name="explanation_throughput", description=__doc__)


def measure(settings: Settings) -> dict[str, Any]:
    """Time every way at every geometry, and compare the memory of many images with that of few.

    Raises:
        ValueError: a geometry is not one, there are too few images, or a process failed.
    """
    if settings.many <= FEW:
        raise ValueError(f"wanted more than {FEW} images; found --many {settings.many}.")
    call = partial(run_apart, run) if settings.apart else run
    timed = settings.batch_size * settings.steps
    ways = {
        f"{geometry} {way}": partial(call, settings, geometry, way, settings.singles if way in SINGLY else timed)
        for geometry in settings.geometries
        for way in WAYS
    }
    many, few = (f"{settings.geometries[-1]} {STREAMED}, {n:,} pictures" for n in (settings.many, FEW))
    streams = {
        name: partial(call, settings, settings.geometries[-1], STREAMED, n)
        for name, n in ((many, settings.many), (few, FEW))
    }
    rows = measure_in_turn(ways | (streams if settings.apart else {}), rounds=settings.rounds)
    times = {name: [row["ms_per_picture"] for row in rows[name]] for name in ways}
    results = compare(times, _pairs(settings), unit="ms/image")
    if not settings.apart:
        return results
    mib = {name: [1024 * row["peak_memory_gib"] for row in rows[name]] for name in streams}
    return {
        **results,
        "memory": compare(mib, [Pair(many, few, limit=1.1)], unit="MiB"),
        "peaks": {name: {key: max(row[key] for row in part) for key in MEMORY} for name, part in rows.items()},
    }


def to_markdown(content: Mapping[str, Any]) -> str:
    """Render times and memory."""
    memory = [comparison_tables(content["memory"])] if "memory" in content else []
    note = f"Image size / patch size; batches of {content['settings']['batch_size']} unless one at a time."
    return report(content, *memory, digits=2, note=note)


def run(settings: Settings, geometry: str, way: str, n: int) -> dict[str, float]:
    """Run one way on n images in this process; return milliseconds per image and the peak memory in GiB."""
    import torch

    from realfake_hf.data.loading import load_images
    from realfake_hf.detector import Detector
    from realfake_hf.environment import peak_memory_gib
    from realfake_hf.models.cpu import pack
    from realfake_hf.models.pretrained import load_pretrained

    image_size, patch_size = parse_geometry(geometry)
    model: Any
    model, processor = load_pretrained(
        settings.model, image_size=image_size, patch_size=patch_size, attn_implementation="eager"
    )
    if way not in UNPACKED:
        pack(model)  # as `Detector.from_pretrained` does
    device = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    detector = Detector(model.to(device), processor, batch_size=settings.batch_size)
    rows = load_images(settings.data)["train"]
    seconds = _time_stream(detector, rows, n) if way == STREAMED else _time_batches(detector, rows, n, WAYS[way])
    return {
        "ms_per_picture": 1000 * seconds / n,
        "peak_memory_gib": peak_memory_gib(),
        "device_memory_gib": torch.cuda.max_memory_allocated() / 1024**3 if torch.cuda.is_available() else 0.0,
    }


def forward(model: "PreTrainedModel", pixels: "Tensor") -> None:
    """Run the forward pass alone, a lower bound of any explanation."""
    import torch

    with torch.no_grad():
        model(pixel_values=pixels)


def script_rollout(
    model: "PreTrainedModel", pixels: "Tensor", *, discard_ratio: float = 0.0
) -> "list[NDArray[np.float32]]":
    """Compute attention rollout as common scripts do.

    One image at a time: the attentions of all layers are returned, copied to the CPU, averaged over heads, their
    lowest weights set to 0, the identity added, rows normalized, and multiplied in a Python loop.

    Args:
        model: a ViT with a class token and a square grid of patches.
        pixels: (batch, 3, height, width), normalized.
        discard_ratio: share of the weights that is set to 0.

    Returns:
        A map (grid_h, grid_w) for each image, with maximum 1.
    """
    import torch

    maps = []
    for image in torch.split(pixels, 1):
        with torch.no_grad():
            attentions = [layer.cpu() for layer in model(pixel_values=image, output_attentions=True).attentions]
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


def _explain(model: "PreTrainedModel", pixels: "Tensor", **options: Any) -> None:  # noqa: ANN401 - of `explain`
    from realfake_hf.attribution.explain import explain

    explain(model, pixels, **options)


def _explain_singly(model: "PreTrainedModel", pixels: "Tensor", *, method: str) -> None:
    import torch

    for image in torch.split(pixels, 1):
        _explain(model, image, method=method)


WAYS: Final[dict[str, Way]] = {
    FORWARD: forward,
    **{
        method: partial(_explain, method=method)
        for method in ("rollout", "relevance", "legrad", "libragrad", "grad_cam")
    },
    "rollout, discarding": partial(_explain, method="rollout", options={"discard_ratio": DISCARDED}),
    SCRIPT: script_rollout,
    SCRIPT_DISCARDING: partial(script_rollout, discard_ratio=DISCARDED),
    RELEVANCE_SINGLY: partial(_explain_singly, method="relevance"),
}


def _pairs(settings: Settings) -> list[Pair]:
    import torch

    is_gpu = torch.accelerator.is_available()
    speedup = SPEEDUP_ON_GPU if is_gpu else SPEEDUP_ON_CPU
    pairs = [
        Pair("rollout", FORWARD, limit=1.3 if is_gpu else 1),
        Pair("relevance", FORWARD, limit=3),
        Pair("legrad", FORWARD, limit=2),
        Pair("libragrad", FORWARD),
        Pair("grad_cam", FORWARD),
        Pair(SCRIPT, "rollout", goal=speedup),
        Pair(SCRIPT_DISCARDING, "rollout, discarding", goal=speedup),
        Pair(SCRIPT_DISCARDING, "rollout", goal=speedup),  # each at its defaults
        Pair(RELEVANCE_SINGLY, "relevance"),
    ]
    return [
        replace(pair, over=f"{geometry} {pair.over}", under=f"{geometry} {pair.under}")
        for geometry in settings.geometries
        for pair in pairs
    ]


def _time_batches(detector: "Detector", rows: "Dataset", n: int, way: Way) -> float:
    """Return the seconds of a way on n images on the device, of which `DISTINCT` differ, after one untimed batch."""
    import torch

    from realfake_hf.data.pixels import Normalize, resize_images

    model, processor = detector.model, detector.processor
    pixels = torch.from_numpy(resize_images(list(_images(rows, min(n, DISTINCT))), processor)).to(model.device)
    order = torch.arange(n, device=model.device) % len(pixels)
    batches = torch.split(Normalize(processor)(pixels)[order], detector.batch_size)
    way(model, batches[0])
    began = now()
    for batch in batches:
        way(model, batch)
    return now() - began


def _time_stream(detector: "Detector", rows: "Dataset", n: int) -> float:
    """Return the seconds of a rollout of images that are read batch by batch."""
    began = now()
    detector.explain(_images(rows, n), method="rollout")
    return now() - began


def _images(rows: "Dataset", n: int) -> "Iterator[Image.Image]":
    from realfake_hf.data.decoding import to_rgb

    return (to_rgb(rows[row]["image"]) for row in islice(cycle(range(len(rows))), n))


if __name__ == "__main__":
    sys.exit(main())
