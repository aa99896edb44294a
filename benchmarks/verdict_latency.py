"""Seconds from the bytes of one JPEG file to its verdict, in bfloat16 and in float32, for images of two sizes.

`python -m benchmarks.verdict_latency --output_file results/benchmark_verdict.json`
"""

import io
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from benchmarks.comparison import (
    Pair,
    compare,
    measure_in_turn,
    now,
    number_of_rounds,
    report,
    results_file,
    run_benchmark,
)

if TYPE_CHECKING:
    from realfake_hf.detector import Detector

SIZES: Final = {"1 megapixel": (1152, 864), "12 megapixels": (4000, 3000)}
DTYPES: Final = {"bfloat16": True, "float32": False}
QUALITY: Final = 92


@dataclass
class Settings:
    """What to predict, and how often."""

    model: str = field(default="space/models/wild", metadata={"help": "Folder of a trained model."})
    image: Path = field(default=Path("space/examples/rocket.jpg"), metadata={"help": "Photograph to resize."})
    rounds: int = number_of_rounds(20)
    output_file: Path = results_file("benchmark_verdict")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return the exit status."""
    return run_benchmark(Settings, measure, to_markdown, argv, name="verdict_latency", description=__doc__)


def measure(settings: Settings) -> dict[str, Any]:
    """Time every size and dtype."""
    from realfake_hf.detector import Detector

    detectors = {name: Detector.from_pretrained(settings.model, bf16=bf16) for name, bf16 in DTYPES.items()}
    ways: dict[str, Callable[[], float]] = {}
    for size, pixels in SIZES.items():
        data = _jpeg(settings.image, pixels)
        ways |= {f"{size}, {name}": partial(_seconds, detector, data) for name, detector in detectors.items()}
    for way in ways.values():
        way()  # unpacks weights
    values = measure_in_turn(ways, rounds=settings.rounds)
    return compare(values, [Pair(f"{size}, float32", f"{size}, bfloat16") for size in SIZES], unit="s")


def to_markdown(content: Mapping[str, Any]) -> str:
    """Render the times."""
    note = f"Model {content['settings']['model']}; decoding and image quality are included."
    return report(content, digits=3, note=note)


def _jpeg(file: Path, size: tuple[int, int]) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    with Image.open(file) as image:
        image.convert("RGB").resize(size).save(buffer, format="JPEG", quality=QUALITY)
    return buffer.getvalue()


def _seconds(detector: "Detector", data: bytes) -> float:
    began = now()
    detector.predict(data)
    return now() - began


if __name__ == "__main__":
    sys.exit(main())
