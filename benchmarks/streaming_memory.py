"""Memory of a stream of shards while millions of images pass: `python -m benchmarks.streaming_memory --data shards/`.

Real shards are repeated under new file names until there are enough images.
"""

import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.comparison import machine_note, results_file, run_benchmark
from benchmarks.scaling import extrapolation_table
from realfake_hf.tables import markdown_table

if TYPE_CHECKING:
    from realfake_hf.data.streaming import ShardedSplit


@dataclass
class Settings:
    """Which shards, and how many images."""

    data: str = field(default="cifake", metadata={"help": "Folder of shards, or a data source to make shards of."})
    images: int = field(default=2_000_000, metadata={"help": "Images that pass."})
    buffer_size: int = field(default=8192, metadata={"help": "Images in the shuffle buffer of each worker."})
    batch_size: int = field(default=128, metadata={"help": "Images in a batch."})
    workers: int = field(default=2, metadata={"help": "Processes that read, decode and resize."})
    side: int = field(default=32, metadata={"help": "Height and width of the output in pixels."})
    samples: int = field(default=100, metadata={"help": "Measurements of the memory."})
    output_file: Path = results_file("benchmark_streaming")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return the exit status."""
    return run_benchmark(Settings, measure, to_markdown, argv, name="streaming_memory", description=__doc__)


def measure(settings: Settings) -> dict[str, Any]:
    """Stream the images, and sample the memory.

    Raises:
        ValueError: there are no shards, and none can be made.
    """
    from realfake_hf.data.shards import main as write_shards
    from realfake_hf.data.streaming import find_shards

    with tempfile.TemporaryDirectory() as folder:
        shards, links = settings.data, Path(folder) / "links"
        if not Path(shards).is_dir():
            shards = f"{folder}/shards"
            if write_shards(["--data", settings.data, "--output_dir", shards, "--shard_mib", "16"]):
                raise ValueError(f"wanted a data source to make shards of; found --data {settings.data}.")
        links.mkdir()
        return _stream(_repeated(find_shards(shards)["train"], settings.images, links), settings)


def to_markdown(content: Mapping[str, Any]) -> str:
    """Render the speed and the memory of the stream."""
    settings, memory = content["settings"], content["memory_mib"]
    header = ["images", "images/s", *(f"MiB, {part}" for part in memory), "ratio", "goal"]
    values = [f"{content['n']:,}", f"{content['images_per_second']:,.0f}", *(f"{mib:,.0f}" for mib in memory.values())]
    table = markdown_table(header, [[*values, f"{content['growth']:.2f}", "at most 1.1"]], align="r")
    note = (
        f"Memory of all processes; {settings['workers']} workers, each with a buffer of {settings['buffer_size']:,}."
    )
    row = (
        "one pass over a stream, without training",
        1e6 / content["images_per_second"],
        0,
        memory["last tenth"] / 1024,
    )
    needs = extrapolation_table([row], cores=content["machine"]["cores"])
    return "\n\n".join([table, needs, f"{note} {machine_note(content)}"])


def _repeated(split: "ShardedSplit", images: int, folder: Path) -> "ShardedSplit":
    """Repeat the shards of a split as links with new names, until there are enough images."""
    from realfake_hf.data.streaming import ShardedSplit

    row_groups: list[tuple[str, int, int]] = []
    for turn in range(-(-images // len(split))):
        links = {file: folder / f"train-{turn:05d}-{number:05d}.parquet" for number, file in enumerate(split.files)}
        for file, link in links.items():
            link.symlink_to(Path(file).resolve())
        row_groups += [(str(links[file]), position, rows) for file, position, rows in split.row_groups]
    return ShardedSplit("train", tuple(row_groups))


def _stream(split: "ShardedSplit", settings: Settings) -> dict[str, Any]:
    import numpy as np
    from tqdm.auto import tqdm
    from transformers import ViTImageProcessorPil

    from realfake_hf.data.streaming import StreamedPixels
    from realfake_hf.training.streaming import make_loader

    processor = ViTImageProcessorPil(size={"height": settings.side, "width": settings.side})
    stream = StreamedPixels(
        split, processor, batch_size=settings.batch_size, buffer_size=settings.buffer_size, workers=settings.workers
    )
    samples: list[tuple[int, float]] = []
    n, began = 0, time.perf_counter()
    with tqdm(total=min(settings.images, len(split)), unit="image", disable=None) as bar:
        for batch in make_loader(stream, workers=settings.workers):
            n += len(batch["labels"])
            bar.update(len(batch["labels"]))
            if n >= len(samples) * settings.images / settings.samples:
                samples.append((n, round(_memory_mib(), 1)))
            if n >= settings.images:
                break
    seconds = time.perf_counter() - began
    tenth = max(1, len(samples) // 10)
    early, late = (float(np.mean([mib for _, mib in part])) for part in (samples[tenth : 2 * tenth], samples[-tenth:]))
    return {
        "n": n,
        "images_per_second": n / seconds,
        "memory_mib": {"second tenth": early, "last tenth": late},
        "growth": late / early,
        "samples": samples,
    }


def _memory_mib() -> float:
    """Return the memory of this process and its workers in MiB; shared pages count once."""
    import psutil

    process = psutil.Process()
    return float(sum(each.memory_full_info().pss for each in [process, *process.children(recursive=True)]) / 2**20)


if __name__ == "__main__":
    sys.exit(main())
