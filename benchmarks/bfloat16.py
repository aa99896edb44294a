"""Prediction in bfloat16 and in float32: speed, and differences of probabilities and verdicts on several data sets.

`python -m benchmarks.bfloat16 --datasets cifake=cifake art=FOLDER --output_file results/bfloat16.json`
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from benchmarks.comparison import (
    Pair,
    compare,
    images_per_second,
    measure_in_turn,
    number_of_rounds,
    report,
    results_file,
    run_benchmark,
)
from realfake_hf.cli import read_names
from realfake_hf.tables import markdown_table

if TYPE_CHECKING:
    from PIL import Image

    from realfake_hf.detector import Detector

PRECISIONS: Final = {"float32": False, "bfloat16": True}


@dataclass
class Settings:
    """What to predict, and how often."""

    datasets: list[str] = field(metadata={"help": "NAME=SOURCE of test images."})
    model: Path = field(default=Path("space/models/cifake-vit"), metadata={"help": "Folder of a trained model."})
    limit: int | None = field(default=None, metadata={"help": "Images of each data set; all by default."})
    n: int = field(default=2000, metadata={"help": "Timed images of the first data set."})
    rounds: int = number_of_rounds(3)
    output_file: Path = results_file("bfloat16")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return the exit status."""
    return run_benchmark(Settings, measure, to_markdown, argv, name="bfloat16", description=__doc__)


def measure(settings: Settings) -> dict[str, Any]:
    """Predict in both precisions.

    Raises:
        ValueError: this processor has no bfloat16.
    """
    from realfake_hf.data.decoding import to_rgb
    from realfake_hf.detector import Detector
    from realfake_hf.models.cpu import has_fast_bfloat16

    if not has_fast_bfloat16():
        raise ValueError("wanted a processor that multiplies in bfloat16 (AMX or AVX512-BF16); found one without.")
    sources = read_names("--datasets", settings.datasets, kind="SOURCE")
    images = {name: _images(name, source, settings.limit) for name, source in sources.items()}
    detectors = {name: Detector.from_pretrained(settings.model, bf16=bf16) for name, bf16 in PRECISIONS.items()}
    timed = [to_rgb(image) for image in next(iter(images.values()))[: settings.n]]
    ways = {
        name: partial(images_per_second, detector.predict, timed, warm_up=64) for name, detector in detectors.items()
    }
    values = measure_in_turn(ways, rounds=settings.rounds)
    return {
        "settings": {**asdict(settings), "datasets": list(sources)},  # without places on this machine
        "changes": {name: _differences(detectors, rows) for name, rows in images.items()},
        **compare(values, [Pair("bfloat16", "float32")], unit="images/s"),
    }


def to_markdown(content: Mapping[str, Any]) -> str:
    """Render the speed of both precisions, and one row of differences per data set."""
    header = ["bfloat16 - float32", "images", "largest difference of p_fake", "mean difference"]
    header += ["other labels", "other sure or unsure"]
    rows = [
        [
            name,
            f"{row['n']:,}",
            f"{row['largest_difference']:.3f}",
            f"{row['mean_difference']:.5f}",
            row["other_labels"],
            row["other_decisions"],
        ]
        for name, row in content["changes"].items()
    ]
    return report(content, markdown_table(header, rows))


def _images(name: str, source: str, limit: int | None) -> "Sequence[Image.Image]":
    from datasets import Dataset

    from realfake_hf.crosseval.datasets import load_dataset

    rows = cast("Dataset", load_dataset(name, source, limit=limit, seed=0).rows)
    images: Sequence[Image.Image] = rows["image"]
    return images


def _differences(detectors: "Mapping[str, Detector]", images: "Sequence[Image.Image]") -> dict[str, Any]:
    """Predict the same images in both precisions, and count what differs."""
    import numpy as np

    exact, rounded = (detectors[name].probabilities(images) for name in PRECISIONS)
    point = detectors["float32"].point
    verdicts = [(point.judge(a), point.judge(b)) for a, b in zip(exact.tolist(), rounded.tolist(), strict=True)]
    difference = np.abs(exact - rounded)
    return {
        "n": len(difference),
        "largest_difference": float(difference.max()),
        "mean_difference": float(difference.mean()),
        "other_labels": sum(a.label != b.label for a, b in verdicts),
        "other_decisions": sum(a.is_sure != b.is_sure for a, b in verdicts),
    }


if __name__ == "__main__":
    sys.exit(main())
