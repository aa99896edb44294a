"""Speed and memory of a ViT-Tiny at several image and patch sizes, beside the Hugging Face example and `pipeline`.

`python -m benchmarks.vit_throughput --output_file results/benchmark_vit.json`

Each way runs in a process of its own. Training is in bfloat16, prediction in float32 as in the detector.
"""

import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from benchmarks.comparison import (
    Pair,
    compare,
    images_per_second,
    measure_in_turn,
    number_of_rounds,
    report,
    results_file,
    run_apart,
    run_benchmark,
)
from realfake_hf.tables import markdown_table

if TYPE_CHECKING:
    from PIL import Image

    from benchmarks.ways_to_train import Work

GEOMETRIES: Final = ("32/4", "128/16", "224/16")  # image size / patch size
WARM_UP_STEPS: Final = 2
COMPILED: Final = "training: trainer, compiled"
MEMORY: Final = ("peak_memory_gib", "device_memory_gib")

Call = Callable[["list[Image.Image]"], object]


@dataclass
class Settings:
    """What to train and predict, and how often."""

    model: str = field(default="WinKawaks/vit-tiny-patch16-224", metadata={"help": "Pretrained ViT."})
    data: str = field(default="cifake", metadata={"help": "Data source, as for train.py."})
    geometries: list[str] = field(
        default_factory=lambda: list(GEOMETRIES), metadata={"help": "Pairs of image size / patch size."}
    )
    compiled: list[str] = field(
        default_factory=lambda: ["32/4"], metadata={"help": "Geometries that are also trained with torch.compile."}
    )
    batch_size: int = field(default=64, metadata={"help": "Images in a step."})
    steps: int = field(default=8, metadata={"help": "Timed steps in each way and round."})
    rounds: int = number_of_rounds(2)
    output_file: Path = results_file("benchmark_vit")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return the exit status."""
    return run_benchmark(Settings, measure, to_markdown, argv, name="vit_throughput", description=__doc__)


def measure(settings: Settings) -> dict[str, Any]:
    """Time every way at every geometry.

    Raises:
        ValueError: a geometry is not one, or a process failed.
    """
    ways = {
        f"{geometry} {way}": partial(run_apart, run, settings, geometry, way)
        for geometry in settings.geometries
        for way in WAYS
        if way != COMPILED or geometry in settings.compiled
    }
    rows = measure_in_turn(ways, rounds=settings.rounds)
    speeds = {name: [row["images_per_s"] for row in part] for name, part in rows.items()}
    memory = {name: {key: max(row[key] for row in part) for key in MEMORY} for name, part in rows.items()}
    return {**compare(speeds, _pairs(settings), unit="images/s"), "memory": memory}


def to_markdown(content: Mapping[str, Any]) -> str:
    """Render the speeds and the peak memory."""
    rows = [[name, *(f"{gib:.2f}" for gib in row.values())] for name, row in content["memory"].items()]
    memory = markdown_table(["way", "peak GiB of the process", "peak GiB of the accelerator"], rows)
    note = f"Image size / patch size; batches of {content['settings']['batch_size']}."
    return report(content, memory, digits=1, note=note)


def parse_geometry(geometry: str) -> tuple[int, int]:
    """Parse an image size and a patch size, such as 32/4.

    Raises:
        ValueError: it is something else.
    """
    image_size, _, patch_size = geometry.partition("/")
    if not (image_size.isdecimal() and patch_size.isdecimal()):
        raise ValueError(f"wanted --geometries like 32/4; found {geometry!r}.")
    return int(image_size), int(patch_size)


def run(settings: Settings, geometry: str, way: str) -> dict[str, float]:
    """Run one way in this process; return images per second and the peak memory in GiB."""
    import torch

    from benchmarks.ways_to_train import prepare
    from realfake_hf.environment import peak_memory_gib
    from realfake_hf.training.arguments import ModelArguments

    image_size, patch_size = parse_geometry(geometry)
    with tempfile.TemporaryDirectory() as scratch:
        work = prepare(
            settings.data,
            Path(scratch),
            batch_size=settings.batch_size,
            warm_up_steps=WARM_UP_STEPS,
            timed_steps=settings.steps,
            model=ModelArguments(
                model=settings.model,
                image_size=image_size,
                patch_size=patch_size,
                attn_implementation="sdpa" if torch.accelerator.is_available() else "eager",
            ),
            bf16=way.startswith("training"),
            compiled=way == COMPILED,
        )
        speed = WAYS[way](work)
    device = torch.cuda.max_memory_allocated() / 1024**3 if torch.cuda.is_available() else 0.0
    return {"images_per_s": speed, "peak_memory_gib": peak_memory_gib(), "device_memory_gib": device}


def _train(work: "Work", *, way: str, **options: bool) -> float:
    from benchmarks import ways_to_train

    speed: float = getattr(ways_to_train, way)(work, **options)
    return speed


def _predict_with_detector(work: "Work") -> float:
    from realfake_hf.detector import Detector

    detector = Detector(*_built(work), batch_size=work.batch_size)
    return _time(work, lambda images: detector.probabilities(images))


def _predict_random_tensors(work: "Work") -> float:
    """Repeat the forward pass on one batch of random numbers on the device."""
    import torch

    model, _ = _built(work)
    pixels = torch.randn(work.batch_size, 3, model.config.image_size, model.config.image_size, device=work.run.device)

    @torch.inference_mode()
    def forward(images: "list[Image.Image]") -> None:
        for _ in range(len(images) // work.batch_size):
            model(pixel_values=pixels)

    return _time(work, forward)


def _predict_with_pipeline(work: "Work", *, batched: bool) -> float:
    """Predict with `pipeline("image-classification")`, in batches or image by image."""
    from transformers import AutoImageProcessor, AutoModelForImageClassification, pipeline

    with tempfile.TemporaryDirectory() as folder:
        for part in _built(work):
            part.save_pretrained(folder)
        model = AutoModelForImageClassification.from_pretrained(folder, trust_remote_code=False)
        processor = AutoImageProcessor.from_pretrained(folder, trust_remote_code=False)  # type: ignore[no-untyped-call]
    parts = {"model": model, "image_processor": processor, "device": work.run.device}
    pipe: Any = pipeline("image-classification", trust_remote_code=False, **parts)
    return _time(work, lambda images: pipe(images, batch_size=work.batch_size if batched else 1))


WAYS: Final[dict[str, Callable[["Work"], float]]] = {
    "training: trainer": partial(_train, way="trainer"),
    COMPILED: partial(_train, way="trainer"),
    "training: random tensors": partial(_train, way="bare_loop", autocast=True, random_tensors=True),
    "training: HF example's way": partial(_train, way="hf_example"),
    "asking: detector": _predict_with_detector,
    "asking: random tensors": _predict_random_tensors,
    "asking: pipeline, batches": partial(_predict_with_pipeline, batched=True),
    "asking: pipeline, one by one": partial(_predict_with_pipeline, batched=False),
}


def _pairs(settings: Settings) -> list[Pair]:
    pairs = [
        ("training: trainer", "training: random tensors", 0.9),
        ("training: trainer", "training: HF example's way", None),
        ("asking: detector", "asking: random tensors", None),
        ("asking: detector", "asking: pipeline, batches", None),
        ("asking: detector", "asking: pipeline, one by one", None),
    ]
    compiled = [geometry for geometry in settings.geometries if geometry in settings.compiled]
    return [
        Pair(f"{geometry} {over}", f"{geometry} {under}", goal=goal)
        for geometry in settings.geometries
        for over, under, goal in pairs
    ] + [Pair(f"{geometry} {COMPILED}", f"{geometry} training: trainer") for geometry in compiled]


def _built(work: "Work") -> tuple[Any, Any]:
    from realfake_hf.training.data import build_model

    model: Any
    model, processor = build_model(work.model)
    return model.to(work.run.device), processor


def _time(work: "Work", call: Call) -> float:
    n = work.timed_images + work.batch_size
    rows = work.images["train"]
    images = [image.convert("RGB") for image in rows.select(range(min(n, len(rows))))["image"]]
    call(images[: work.batch_size])
    return images_per_second(call, images[work.batch_size :])


if __name__ == "__main__":
    sys.exit(main())
