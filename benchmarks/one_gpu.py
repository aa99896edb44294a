"""A training on one GPU as `recipes/accelerate/one_gpu.yaml` and as `fsdp.yaml` launch it: accuracy, seconds, memory.

`python -m benchmarks.one_gpu --output_dir runs/one-gpu`

With one GPU the pieces of FSDP are whole; what is shown is that the recipe runs, and learns the same.
"""

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import torch

from benchmarks.comparison import write_benchmark
from benchmarks.launch import launcher
from benchmarks.processes import Subject, batch_size_each, compare, training_found, training_words
from realfake_hf.cli import parse

RECIPES: Final = ("one_gpu", "fsdp")
_ROOT: Final = Path(__file__).resolve().parents[1]


@dataclass
class Settings(Subject):
    """What is trained twice."""

    output_file: Path = field(default=Path("results/one_gpu.json"), metadata={"help": "Where the JSON goes."})


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, train twice, write, print; give the exit status."""
    (settings,) = parse(Settings, argv=argv, description=__doc__)
    if not torch.cuda.is_available():
        print("one_gpu: wanted a CUDA device; found none.", file=sys.stderr)
        return 1
    try:
        plain, pieces = (_train(settings, recipe) for recipe in RECIPES)
    except ValueError as error:
        print(f"one_gpu: {error}", file=sys.stderr)
        return 1
    results = compare(plain, pieces)
    write_benchmark(settings.output_file, settings=asdict(settings), results=results)
    print(json.dumps(results, indent=1))
    return 0


def _train(settings: Settings, recipe: str) -> dict[str, Any]:
    """Train as a recipe for `accelerate launch` says, but in one process."""
    folder = settings.output_dir / recipe
    launch = launcher(1, "--config_file")
    words = training_words(settings, folder, batch_size=batch_size_each(settings.recipe, 1))
    command = [*launch, str(_ROOT / f"recipes/accelerate/{recipe}.yaml"), str(_ROOT / "train.py"), *words]
    done = subprocess.run([*command, "--attn_implementation", "sdpa"], check=False)
    if done.returncode:
        raise ValueError(f"wanted the training of {recipe}.yaml to end; found status {done.returncode}.")
    return {"recipe": recipe, **training_found(folder)}


if __name__ == "__main__":
    sys.exit(main())
