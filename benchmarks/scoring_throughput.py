"""Speed of `python -m realfake_hf.score`, decoding and writing included, beside the model alone on ready tensors.

`python -m benchmarks.scoring_throughput --output_file results/benchmark_scoring.json`

For the model of large images: `--model space/models/wild --data DATA --n 64 --output_file
results/benchmark_scoring_wild.json`. The tensors of all images are in memory: 2.4 MB for an image of four views.
"""

import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from benchmarks.comparison import (
    Pair,
    compare,
    measure_in_turn,
    number_of_rounds,
    report,
    results_file,
    run_benchmark,
    save_images,
)

if TYPE_CHECKING:
    from datasets import Dataset
    from torch import Tensor

    from realfake_hf.detector import Detector

FILES: Final = "score, files"
SHARDS: Final = "score, shards"
PLAIN: Final = "model alone, ready tensors"
PACKED: Final = "model alone as Detector has it, a batch on each core"
BATCH: Final = 32
FAST: Final = 10  # images/s, from which decimals are left out


@dataclass
class Settings:
    """What to score, and how often."""

    model: str = field(default="space/models/cifake-vit", metadata={"help": "Folder of a trained model."})
    data: str = field(default="cifake", metadata={"help": "Data source of the test images."})
    n: int = field(default=4000, metadata={"help": "Images."})
    rounds: int = number_of_rounds(3)
    output_file: Path = results_file("benchmark_scoring")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return the exit status."""
    return run_benchmark(Settings, measure, to_markdown, argv, name="scoring_throughput", description=__doc__)


def measure(settings: Settings) -> dict[str, Any]:
    """Time every way."""
    from realfake_hf.crosseval.datasets import load_dataset

    rows = load_dataset("data", settings.data, limit=settings.n, seed=0).rows
    with tempfile.TemporaryDirectory() as folder:
        values = measure_in_turn(_ways(settings.model, rows, Path(folder)), rounds=settings.rounds)
    pairs = [Pair(way, PLAIN, goal=0.9) for way in (FILES, SHARDS)]
    pairs += [Pair(way, PACKED) for way in (FILES, SHARDS)]
    return {"n": len(rows), **compare(values, pairs, unit="images/s")}


def to_markdown(content: Mapping[str, Any]) -> str:
    """Render the speeds."""
    slowest = min(row["median"] for row in content["rows"].values())
    note = f"{content['n']:,} images, model {content['settings']['model']}."
    return report(content, digits=0 if slowest >= FAST else 2, note=note)


def _ways(place: str, rows: "Dataset", folder: Path) -> dict[str, Callable[[], float]]:
    from transformers import AutoModelForImageClassification

    from realfake_hf.detector import Detector
    from realfake_hf.parallel import map_in_threads

    images, shard = folder / "images", folder / "rows.parquet"
    save_images(rows, images)
    rows.to_parquet(shard)
    detector = Detector.from_pretrained(place)
    plain = AutoModelForImageClassification.from_pretrained(place, trust_remote_code=False).eval()
    batches = _batches(detector, rows)
    outputs = (folder / f"scores-{number}" for number in count())
    return {
        FILES: lambda: _score(place, images, next(outputs)),
        SHARDS: lambda: _score(place, shard, next(outputs)),
        PLAIN: partial(_forward_all, partial(map, partial(_forward, plain)), batches),
        PACKED: partial(_forward_all, partial(map_in_threads, partial(_forward, detector.model)), batches),
    }


def _batches(detector: "Detector", rows: "Dataset") -> "list[Tensor]":
    from realfake_hf.data.decoding import to_rgb

    batches = (rows[start : start + BATCH]["image"] for start in range(0, len(rows), BATCH))
    prepare: Any = detector.processor
    return [prepare([to_rgb(image) for image in batch], return_tensors="pt")["pixel_values"] for batch in batches]


def _forward(model: Any, batch: "Tensor") -> None:  # noqa: ANN401 - any class of transformers
    import torch

    with torch.inference_mode():
        model(pixel_values=batch)


def _forward_all(forward: "Callable[[list[Tensor]], Iterable[None]]", batches: "list[Tensor]") -> float:
    began = time.perf_counter()
    list(forward(batches))
    return sum(map(len, batches)) / (time.perf_counter() - began)


def _score(place: str, data: Path, output: Path) -> float:
    from realfake_hf.score.arguments import ScoreArguments
    from realfake_hf.score.run import score

    summary = score(ScoreArguments(model=place, data=[str(data)], output=output, batch_size=BATCH))
    return summary.new / summary.seconds


if __name__ == "__main__":
    sys.exit(main())
