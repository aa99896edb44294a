"""Time and memory from an archive to arrays that a training loop can index, beside `load_dataset("imagefolder")`.

`python -m benchmarks.data_ready --output_file results/benchmark_data.json`

Each way runs in a process of its own, with a cache of its own. The clock starts after the imports. Both ways produce
training, validation and test rows, and all images as uint8 arrays (n, height, width, 3).
"""

import io
import os
import resource
import shutil
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from benchmarks.comparison import (
    Pair,
    compare,
    measure_in_turn,
    number_of_rounds,
    report,
    results_file,
    run_apart,
    run_benchmark,
)
from realfake_hf.tables import markdown_table

if TYPE_CHECKING:
    from transformers import BaseImageProcessor

TARGETS: Final = {"cold_s": 30.0, "warm_s": 3.0, "training_peak_memory_gib": 2.5}  # on 2 cores
TARGET_NAMES: Final = dict(
    zip(TARGETS, ("realfake, cold, seconds", "realfake, warm, seconds", "training, peak GiB"), strict=True)
)
STATES: Final = ("cold", "warm")  # an empty cache, or that of the process before
PAIRS: Final = tuple(
    Pair(f"imagefolder, {state}: {stage}", f"realfake, {state}: {stage}")
    for stage in ("pixels", "rows")
    for state in STATES
)
MEMORY: Final = ("peak_memory_gib", "worker_memory_gib")
VALIDATION_SHARE: Final = 0.05
SIDE: Final = 32  # pixels


@dataclass
class Settings:
    """What to load, and how often."""

    data: str = field(default="cifake", metadata={"help": "A zip archive; `cifake` is found, `demo` is created."})
    rounds: int = number_of_rounds(3)
    train_epochs: int = field(
        default=0, metadata={"help": "Epochs of a run of train.py whose memory is measured; 0 for none."}
    )
    output_file: Path = results_file("benchmark_data")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return the exit status."""
    return run_benchmark(Settings, measure, to_markdown, argv, name="data_ready", description=__doc__)


def measure(settings: Settings) -> dict[str, Any]:
    """Time both ways with a cold and a warm cache, and a training if requested.

    Raises:
        FileNotFoundError: there is no such archive.
        ValueError: the source is not a zip archive, or a process failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        archive = find_archive(settings.data, scratch)
        began = time.perf_counter()
        with zipfile.ZipFile(archive) as packed:
            packed.extractall(scratch / "unpacked")
        unpacking_s = time.perf_counter() - began
        sources = {"realfake": archive, "imagefolder": scratch / "unpacked"}
        ways = {
            f"{way}, {state}": partial(_load_apart, way, source, scratch / f"cache-{way}", cold=state == "cold")
            for way, source in sources.items()
            for state in STATES
        }
        rows = measure_in_turn(ways, rounds=settings.rounds)
        training = _train_apart(archive, settings.train_epochs, scratch) if settings.train_epochs else None
    seconds = {
        f"{name}: {stage}": [row[f"{stage}_s"] for row in part]
        for stage in ("pixels", "rows")
        for name, part in rows.items()
    }
    return {
        **compare(seconds, PAIRS, unit="seconds"),
        "n": rows["realfake, cold"][0]["n"],
        "unpacking_s": unpacking_s,
        "targets": TARGETS,
        "memory": {name: {key: max(row[key] for row in part) for key in MEMORY} for name, part in rows.items()},
        "training": training,
    }


def to_markdown(content: Mapping[str, Any]) -> str:
    """Render the seconds, the targets and the peak memory."""
    measured = {f"{state}_s": content["rows"][f"realfake, {state}: pixels"]["median"] for state in STATES}
    measured |= {"training_peak_memory_gib": content["training"]["peak_memory_gib"]} if content["training"] else {}
    targets = [[TARGET_NAMES[key], f"{value:.2f}", f"{content['targets'][key]:g}"] for key, value in measured.items()]
    memory = [[name, *(f"{row[key]:.2f}" for key in MEMORY)] for name, row in content["memory"].items()]
    tables = [
        markdown_table(["on 2 cores", "measured", "at most"], targets),
        markdown_table(["way", "peak GiB", "peak GiB of the largest worker"], memory),
    ]
    note = f"Unpacking the archive for imagefolder took another {content['unpacking_s']:.1f} s."
    return report(content, *tables, digits=2, note=note)


def find_archive(data: str, scratch: Path) -> Path:
    """Return the zip archive of a data source; the demo images are packed into one in a scratch folder.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not a zip archive.
    """
    from realfake_hf.data.loading import find_local_cifake

    if data == "demo":
        return _pack_demo(scratch / "demo.zip")
    path = find_local_cifake() if data == "cifake" else Path(data)
    if path is None or not path.exists():
        raise FileNotFoundError(f"wanted a zip archive; found nothing at --data {data}.")
    if not zipfile.is_zipfile(path):
        raise ValueError(f"wanted a zip archive; found {path}, which is not one.")
    return path.resolve()


def load(way: str, source: str) -> dict[str, Any]:
    """Load and decode a source in this process; return seconds, peak memory in GiB and the sample sizes."""
    from transformers import ViTImageProcessorPil

    from realfake_hf.environment import peak_memory_gib

    stages = WAYS[way](source, ViTImageProcessorPil(size={"height": SIDE, "width": SIDE}))
    began = time.perf_counter()
    next(stages)
    rows_s = time.perf_counter() - began
    pixels = next(stages)
    return {
        "rows_s": rows_s,
        "pixels_s": time.perf_counter() - began,
        "peak_memory_gib": peak_memory_gib(),
        "worker_memory_gib": _peak_memory_of_children_gib(),
        "n": {split: len(array) for split, array in sorted(pixels.items())},
    }


def _realfake(source: str, processor: "BaseImageProcessor") -> Iterator[Mapping[str, Any]]:
    """The project's way: `load_images`, `add_missing_splits`, then `cached_pixels`."""
    from realfake_hf.data.loading import load_images
    from realfake_hf.data.pixels import cached_pixels
    from realfake_hf.data.splits import add_missing_splits

    images = add_missing_splits(load_images(source), validation_share=VALIDATION_SHARE)
    yield images
    yield {split: cached_pixels(rows, processor) for split, rows in images.items()}


def _imagefolder(source: str, processor: "BaseImageProcessor") -> Iterator[Mapping[str, Any]]:
    """The way of the `datasets` documentation: `load_dataset("imagefolder")`, `train_test_split`, then decoding."""
    import numpy as np
    from datasets import load_dataset

    images = load_dataset("imagefolder", data_dir=source)
    if "validation" not in images:
        parts = images["train"].train_test_split(VALIDATION_SHARE, seed=0)
        images = {**images, "train": parts["train"], "validation": parts["test"]}
    yield images
    settings = processor.to_dict()
    size = (settings["size"]["width"], settings["size"]["height"])
    yield {
        split: np.stack([np.asarray(image.convert("RGB").resize(size)) for image in rows["image"]])
        for split, rows in images.items()
    }


WAYS: Final = {"realfake": _realfake, "imagefolder": _imagefolder}


def _load_apart(way: str, source: Path, cache: Path, *, cold: bool) -> dict[str, Any]:
    """Run a way in a process of its own, on an empty cache or on that of the process before."""
    if cold:
        shutil.rmtree(cache, ignore_errors=True)
    return run_apart(load, way, str(source), environment=_environment(cache))


def _train_apart(archive: Path, epochs: int, scratch: Path) -> dict[str, float]:
    """Run `train.py` on an empty cache; return its duration, and the peak memory of its largest process."""
    words = ["--data", str(archive), "--num_train_epochs", str(epochs), "--disable_tqdm", "true"]
    words += ["--output_dir", str(scratch / "run")]
    began = time.perf_counter()
    peak = run_apart(train_and_measure, words, environment=_environment(scratch / "cache-train"))
    return {"epochs": epochs, "seconds": time.perf_counter() - began, "peak_memory_gib": peak}


def train_and_measure(words: Sequence[str]) -> float:
    """Run `train.py` in this process; return the peak memory of the largest process in GiB.

    Raises:
        ValueError: it failed.
    """
    import train
    from realfake_hf.environment import peak_memory_gib

    with redirect_stdout(sys.stderr):
        status = train.main(words)
    if status:
        raise ValueError("wanted train.py to finish; it failed.")
    return max(peak_memory_gib(), _peak_memory_of_children_gib())


def _environment(cache: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    return {**kept, "HF_HOME": str(cache), "HF_HUB_OFFLINE": "1"}


def _peak_memory_of_children_gib() -> float:
    unit = 1 if sys.platform == "darwin" else 1024  # bytes on macOS, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * unit / 1024**3


def _pack_demo(archive: Path) -> Path:
    from realfake_hf.data.loading import load_images
    from realfake_hf.labels import LABEL_NAMES

    with zipfile.ZipFile(archive, "w") as packed:
        for split, rows in load_images("demo").items():
            for row in rows:
                buffer = io.BytesIO()
                row["image"].save(buffer, format="PNG")
                packed.writestr(f"{split}/{LABEL_NAMES[row['label']]}/{row['id']}.png", buffer.getvalue())
    return archive


if __name__ == "__main__":
    sys.exit(main())
