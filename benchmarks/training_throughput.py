"""Images a second in training: the project's Trainer, a bare PyTorch loop, and the way of the Hugging Face example.

`python -m benchmarks.training_throughput --output_file results/benchmark_training.json`
"""

import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

import torch

from benchmarks.comparison import Comparison, Pair, measure_in_turn, refuse_in_vain, write_benchmark
from benchmarks.ways_to_train import Work, bare_loop, hf_example, prepare, trainer
from realfake_hf.cli import parse

PAIRS = (
    Pair("trainer", "bare loop", goal=0.85),
    Pair("trainer", "HF example's way", goal=2.0),
    Pair("trainer", "HF example's way, 2 workers"),
    Pair("trainer", "processor for each image", goal=2.0),
    Pair("bare loop, bf16 autocast", "bare loop"),
    Pair("bare loop, channels-last weights", "bare loop"),
)


@dataclass
class Settings:
    """How much is measured."""

    data: str = field(default="cifake", metadata={"help": "Source of the pictures, as train.py takes it."})
    images: int = field(default=25_600, metadata={"help": "Images timed in each way and round, in whole batches."})
    batch_size: int = field(default=128, metadata={"help": "Images in a training step."})
    rounds: int = field(default=5, metadata={"help": "How often each way is measured, in turn."})
    warm_up_steps: int = field(default=20, metadata={"help": "Steps of each way and round before the clock starts."})
    threads: int | None = field(default=None, metadata={"help": "Threads of torch; its own choice by default."})
    output_file: Path = field(
        default=Path("results/benchmark_training.json"), metadata={"help": "Where the JSON goes."}
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, measure, write, print the tables; give the exit status."""
    (settings,) = parse(Settings, argv=argv, description=__doc__)
    try:
        refuse_in_vain(settings.output_file, rounds=settings.rounds)
        comparison = measure(settings)
    except (FileNotFoundError, ValueError) as error:
        print(f"training_throughput: {error}", file=sys.stderr)
        return 1
    facts = {**asdict(settings), "threads": torch.get_num_threads()}
    write_benchmark(settings.output_file, settings=facts, results=comparison.to_dict())
    print(comparison.to_markdown())
    return 0


def measure(settings: Settings) -> Comparison:
    """Time every way in turn.

    Raises:
        FileNotFoundError: there is no such data source.
        ValueError: a setting asks for less than one batch, or the source holds less than one.
    """
    steps = settings.images // settings.batch_size
    if steps < 1:
        raise ValueError(
            f"wanted images for at least one batch of {settings.batch_size}; found {settings.images}. Raise --images."
        )
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    with tempfile.TemporaryDirectory() as scratch:
        work = prepare(
            settings.data,
            Path(scratch),
            batch_size=settings.batch_size,
            warm_up_steps=settings.warm_up_steps,
            timed_steps=steps,
        )
        return Comparison("images/s", measure_in_turn(_ways(work), rounds=settings.rounds), PAIRS)


def _ways(work: Work) -> dict[str, Callable[[], float]]:
    return {
        "trainer": partial(trainer, work),
        "bare loop": partial(bare_loop, work),
        "HF example's way": partial(hf_example, work),
        "HF example's way, 2 workers": partial(hf_example, work, workers=2),
        "processor for each image": partial(hf_example, work, processor_each=True),
        "bare loop, bf16 autocast": partial(bare_loop, work, autocast=True),
        "bare loop, channels-last weights": partial(bare_loop, work, channels_last=True),
    }


if __name__ == "__main__":
    sys.exit(main())
