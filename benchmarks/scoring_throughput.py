"""How fast pictures are scored, decoded and written and all, beside the model alone on tensors that lie ready.

`python -m benchmarks.scoring_throughput --output_file results/benchmark_scoring.json`
"""

import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, Final

import torch
from datasets import Dataset, Image
from torch import Tensor
from transformers import AutoModelForImageClassification
from transformers.utils.logging import disable_progress_bar

from benchmarks.comparison import Comparison, Pair, measure_in_turn, refuse_in_vain, write_benchmark
from realfake_hf.cli import parse
from realfake_hf.crosseval.datasets import load_test_set
from realfake_hf.data.decoding import to_rgb
from realfake_hf.data.pixels import Normalize, resize_images
from realfake_hf.detector import Detector
from realfake_hf.parallel import map_in_threads
from realfake_hf.score.arguments import ScoreArguments
from realfake_hf.score.run import score

FILES: Final = "score, files"
SHARDS: Final = "score, shards"
PLAIN: Final = "model alone, ready tensors"
OWN: Final = "model alone as Detector has it, a batch on each core"
BATCH: Final = 32


@dataclass
class Settings:
    """How much is measured."""

    model: str = field(default="space/models/cifake-vit", metadata={"help": "A folder of train.py."})
    data: str = field(default="cifake", metadata={"help": "Whose test pictures."})
    n: int = field(default=4000, metadata={"help": "Pictures."})
    rounds: int = field(default=3, metadata={"help": "How often each way is measured, in turn."})
    output_file: Path = field(
        default=Path("results/benchmark_scoring.json"), metadata={"help": "Where the JSON goes."}
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, measure, write, print the table; give the exit status."""
    disable_progress_bar()  # type: ignore[no-untyped-call]
    (settings,) = parse(Settings, argv=argv, description=__doc__)
    try:
        refuse_in_vain(settings.output_file, rounds=settings.rounds)
        rows = load_test_set("data", settings.data, limit=settings.n, seed=0).rows
    except (OSError, ValueError) as error:
        print(f"scoring_throughput: {error}", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as folder:
        taken = measure_in_turn(_ways(settings.model, rows, Path(folder)), rounds=settings.rounds)
    pairs = [Pair(way, PLAIN, goal=0.9) for way in (FILES, SHARDS)] + [Pair(way, OWN) for way in (FILES, SHARDS)]
    found = Comparison("pictures/s", taken, pairs)
    write_benchmark(settings.output_file, settings=asdict(settings), results={"n": len(rows), **found.to_dict()})
    print(found.to_markdown())
    return 0


def _ways(place: str, rows: Dataset, folder: Path) -> dict[str, Callable[[], float]]:
    files, shard = folder / "files", folder / "rows.parquet"
    files.mkdir()
    for number, row in enumerate(rows.cast_column("image", Image(decode=False))):
        (files / f"{number:06d}.jpg").write_bytes(row["image"]["bytes"])
    rows.to_parquet(shard)
    detector = Detector.from_pretrained(place)
    plain = AutoModelForImageClassification.from_pretrained(place).eval()
    tensors = _tensors(detector, rows)
    turns = count()
    return {
        **{way: partial(_scored, place, data, folder, turns) for way, data in ((FILES, files), (SHARDS, shard))},
        PLAIN: lambda: _alone(lambda batches: [_forward(plain, batch) for batch in batches], tensors),
        OWN: lambda: _alone(lambda batches: list(map_in_threads(partial(_forward, detector.model), batches)), tensors),
    }


def _tensors(detector: Detector, rows: Dataset) -> list[Tensor]:
    normalize = Normalize(detector.processor)
    batches = (rows[start : start + BATCH]["image"] for start in range(0, len(rows), BATCH))
    return [
        normalize(torch.from_numpy(resize_images([to_rgb(one) for one in batch], detector.processor)))
        for batch in batches
    ]


@torch.inference_mode()
def _forward(model: Any, batch: Tensor) -> None:  # noqa: ANN401 - any of transformers' classes
    model(pixel_values=batch)


def _alone(run: Callable[[list[Tensor]], object], batches: list[Tensor]) -> float:
    began = time.perf_counter()
    run(batches)
    return sum(map(len, batches)) / (time.perf_counter() - began)


def _scored(place: str, data: Path, folder: Path, turns: "count[int]") -> float:
    output = folder / f"scores-{next(turns)}"
    found = score(ScoreArguments(model=place, data=[str(data)], output=output, batch_size=BATCH))
    return found.new / found.seconds


if __name__ == "__main__":
    sys.exit(main())
