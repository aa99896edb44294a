"""Memory of a stream of shards against how much has passed: `python -m benchmarks.streaming_memory --data shards/`.

Real shards are cycled, as files of other names, until there are as many pictures as are asked for.
"""

import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from tqdm.auto import tqdm
from transformers import ViTImageProcessorPil

from benchmarks.comparison import write_benchmark
from realfake_hf.cli import parse
from realfake_hf.data.shards import main as write_shards
from realfake_hf.data.streaming import ShardedSplit, StreamedPixels, find_shards
from realfake_hf.training.streaming import load_in_workers


@dataclass
class Settings:
    """Which shards, and how many pictures pass."""

    data: str = field(default="cifake", metadata={"help": "A folder of shards, or a source that becomes one."})
    images: int = field(default=2_000_000, metadata={"help": "Pictures that pass."})
    buffer_size: int = field(default=8192, metadata={"help": "Pictures that are shuffled at once, for each worker."})
    batch_size: int = field(default=128, metadata={"help": "Pictures of a batch."})
    workers: int = field(default=2, metadata={"help": "Processes that read, decode and resize."})
    side: int = field(default=32, metadata={"help": "Pixels along a side of what comes out."})
    samples: int = field(default=100, metadata={"help": "How often memory is looked at."})
    output_file: Path = field(default=Path("results/benchmark_streaming.json"), metadata={"help": "Where it goes."})


def memory_mib() -> float:
    """What this process and its workers hold in memory, in MiB; what they share is counted once."""
    own = psutil.Process(os.getpid())
    return float(sum(one.memory_full_info().pss for one in [own, *own.children(recursive=True)]) / 2**20)


def cycled(split: ShardedSplit, images: int, folder: Path) -> ShardedSplit:
    """The shards of a split under ever new names, until there are so many pictures."""
    times = -(-images // split.n)
    files = []
    for turn in range(times):
        for place, file in enumerate(split.files):
            link = folder / f"train-{turn:05d}-{place:05d}.parquet"
            link.symlink_to(Path(file).resolve())
            files.append(str(link))
    return ShardedSplit("train", tuple(files), split.groups * times, split.groups_of_files * times)


def measure(split: ShardedSplit, settings: Settings) -> dict[str, Any]:
    """Let a stream pass, and look at memory now and then."""
    processor = ViTImageProcessorPil(size={"height": settings.side, "width": settings.side})
    stream = StreamedPixels(
        split, processor, batch_size=settings.batch_size, buffer_size=settings.buffer_size, workers=settings.workers
    )
    samples: list[tuple[int, float]] = []
    n, began = 0, time.perf_counter()
    with tqdm(total=min(settings.images, split.n), unit="image", disable=None) as bar:
        for batch in load_in_workers(stream, workers=settings.workers):
            n += len(batch["labels"])
            bar.update(len(batch["labels"]))
            if n >= len(samples) * settings.images / settings.samples:
                samples.append((n, round(memory_mib(), 1)))
            if n >= settings.images:
                break
    seconds = time.perf_counter() - began
    tenth = max(1, len(samples) // 10)
    early, late = (float(np.mean([mib for _, mib in some])) for some in (samples[tenth : 2 * tenth], samples[-tenth:]))
    return {
        "n": n,
        "images_per_second": n / seconds,
        "memory_mib": {"second tenth": early, "last tenth": late},
        "growth": late / early,
        "samples": samples,
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, measure, write, print; give the exit status."""
    (settings,) = parse(Settings, argv=argv, description=__doc__)
    with tempfile.TemporaryDirectory() as folder:
        place = settings.data
        try:
            if not Path(place).is_dir():
                place = f"{folder}/shards"
                if write_shards(["--data", settings.data, "--output_dir", place, "--shard_mib", "16"]):
                    return 1
            train = find_shards(place)["train"]
        except (OSError, ValueError) as error:
            print(f"streaming_memory: {error}", file=sys.stderr)
            return 1
        (Path(folder) / "links").mkdir()
        found = measure(cycled(train, settings.images, Path(folder) / "links"), settings)
    write_benchmark(settings.output_file, settings=asdict(settings), results=found)
    memory = found["memory_mib"]
    print(
        f"{found['n']:,} pictures, {found['images_per_second']:,.0f}/s; memory {memory['second tenth']:.0f} MiB, "
        f"later {memory['last tenth']:.0f} MiB: {found['growth']:.2f} times"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
