"""Seconds of whole processes from the command line to verdicts: ONNX Runtime against PyTorch, and each further image.

`python -m benchmarks.first_verdict --output_file results/benchmark_first_verdict.json`
"""

import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from benchmarks.comparison import Pair, compare, measure_in_turn, now, number_of_rounds, report, results_file
from benchmarks.comparison import run_benchmark as run
from benchmarks.launch import ROOT

MODEL: Final = ROOT / "space/models/wild"
SIZE: Final = (1152, 864)  # a megapixel
N: Final = 11  # images of the second command
ONE, SEVERAL, FURTHER = "realfake, 1 image", f"realfake, {N} images", "realfake, each further image"
PYTORCH: Final = "PyTorch, 1 image"
SCRIPT: Final = """
import sys
from realfake_hf import Detector
Detector.from_pretrained(sys.argv[1], bf16=True).predict(sys.argv[2:])
"""


@dataclass
class Settings:
    """What to judge, and how often."""

    image: Path = field(default=Path("space/examples/rocket.jpg"), metadata={"help": "Photograph to resize."})
    rounds: int = number_of_rounds(10)
    output_file: Path = results_file("benchmark_first_verdict")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return the exit status."""
    return run(Settings, measure, to_markdown, argv, name="first_verdict", description=__doc__)


def measure(settings: Settings) -> dict[str, Any]:
    """Time the commands, in turn; the first run of each is not counted."""
    from PIL import Image

    with TemporaryDirectory() as folder:
        files = [str(Path(folder) / f"{number}.jpg") for number in range(N)]
        with Image.open(settings.image) as image:
            for file in files:
                image.convert("RGB").resize(SIZE).save(file)
        python = [sys.executable, "-P"]
        ways = {
            ONE: partial(_seconds, [*python, "-m", "realfake_hf", files[0]]),
            SEVERAL: partial(_seconds, [*python, "-m", "realfake_hf", *files]),
            PYTORCH: partial(_seconds, [*python, "-c", SCRIPT, str(MODEL), files[0]]),
        }
        for way in ways.values():
            way()
        values = measure_in_turn(ways, rounds=settings.rounds)
    further = [(several - one) / (N - 1) for one, several in zip(values[ONE], values[SEVERAL], strict=True)]
    return compare({**values, FURTHER: further}, [Pair(PYTORCH, ONE)], unit="s")


def to_markdown(content: Mapping[str, Any]) -> str:
    """Render the times."""
    note = (
        "Model wild, images of a megapixel; the start of Python and the loading of the model, whose files are in "
        "memory, are included."
    )
    return report(content, digits=2, note=note)


def _seconds(words: Sequence[str]) -> float:
    began = now()
    subprocess.run(words, check=True, capture_output=True, cwd=ROOT)
    return now() - began


if __name__ == "__main__":
    sys.exit(main())
