"""What judging in bfloat16 buys, and what it changes: speed, probabilities, verdicts; on several data sets.

`python -m benchmarks.bfloat16 --datasets cifake=cifake art=PLACE --output_file results/bfloat16.json`
"""

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
from datasets import Dataset
from PIL import Image
from transformers.utils.logging import disable_progress_bar

from benchmarks.comparison import Comparison, Pair, measure_in_turn, refuse_in_vain, write_benchmark
from realfake_hf.cli import parse, read_names
from realfake_hf.crosseval.datasets import load_test_set
from realfake_hf.data.decoding import to_rgb
from realfake_hf.detector import Detector
from realfake_hf.models.cpu import has_fast_bfloat16

PRECISIONS: Final = {"float32": False, "bfloat16": True}


@dataclass
class Settings:
    """What is judged, and how often."""

    datasets: list[str] = field(metadata={"help": "NAME=SOURCE of test pictures."})
    model: Path = field(default=Path("space/models/cifake-vit"), metadata={"help": "A folder of train.py."})
    limit: int | None = field(default=None, metadata={"help": "Pictures of each data set; all by default."})
    n: int = field(default=2000, metadata={"help": "Pictures of the first one that are timed."})
    rounds: int = field(default=3, metadata={"help": "How often each precision is timed, in turn."})
    output_file: Path = field(default=Path("results/bfloat16.json"), metadata={"help": "Where the JSON goes."})


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, judge, time, write, print; give the exit status."""
    disable_progress_bar()  # type: ignore[no-untyped-call]
    (settings,) = parse(Settings, argv=argv, description=__doc__)
    try:
        refuse_in_vain(settings.output_file, rounds=settings.rounds)
        if not has_fast_bfloat16():
            raise ValueError("wanted a processor that multiplies in bfloat16 (AMX or AVX512-BF16); found one without.")
        sources = read_names("--datasets", settings.datasets, kind="SOURCE")
        images = {name: _images(name, source, settings.limit) for name, source in sources.items()}
    except (OSError, ValueError) as error:
        print(f"bfloat16: {error}", file=sys.stderr)
        return 1
    detectors = {name: Detector.from_pretrained(settings.model, bf16=bf16) for name, bf16 in PRECISIONS.items()}
    changes = {name: _change(detectors, some) for name, some in images.items()}
    pictures = [to_rgb(one) for one in next(iter(images.values()))[: settings.n]]
    ways = {name: partial(_images_per_second, one, pictures) for name, one in detectors.items()}
    found = Comparison("images/s", measure_in_turn(ways, rounds=settings.rounds), [Pair("bfloat16", "float32")])
    said = {**asdict(settings), "datasets": list(sources)}  # where they lie is of this machine
    write_benchmark(settings.output_file, settings=said, results={"changes": changes, **found.to_dict()})
    print(found.to_markdown(), *(f"{name}: {row}" for name, row in changes.items()), sep="\n")
    return 0


def _images(name: str, source: str, limit: int | None) -> Sequence[Image.Image]:
    rows = cast("Dataset", load_test_set(name, source, limit=limit, seed=0).rows)
    images: Sequence[Image.Image] = rows["image"]
    return images


def _change(detectors: Mapping[str, Detector], images: Sequence[Image.Image]) -> dict[str, Any]:
    """Judge the same pictures in both precisions, and count what differs."""
    exact, rough = (detectors[name].probabilities(images) for name in PRECISIONS)
    point = detectors["float32"].point
    before, after = ([point.judge(p) for p in some.tolist()] for some in (exact, rough))
    apart = np.abs(exact - rough)
    return {
        "n": len(apart),
        "largest_difference": float(apart.max()),
        "mean_difference": float(apart.mean()),
        "other_labels": sum(a.label != b.label for a, b in zip(before, after, strict=True)),
        "other_decisions": sum(a.is_sure != b.is_sure for a, b in zip(before, after, strict=True)),
    }


def _images_per_second(detector: Detector, pictures: Sequence[Image.Image]) -> float:
    detector.predict(pictures[:64])
    began = time.perf_counter()
    detector.predict(pictures)
    return len(pictures) / (time.perf_counter() - began)


if __name__ == "__main__":
    sys.exit(main())
