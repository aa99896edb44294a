"""Training speed of the project's Trainer, of a bare PyTorch loop, and of the Hugging Face example.

`python -m benchmarks.training_throughput --output_file results/benchmark_training.json`
"""

import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from benchmarks.comparison import Pair, compare, measure_in_turn, number_of_rounds, report, results_file, run_benchmark

if TYPE_CHECKING:
    from benchmarks.ways_to_train import Work

PAIRS: Final = (
    Pair("trainer", "bare loop", goal=0.85),
    Pair("trainer", "HF example's way", goal=2.0),
    Pair("trainer", "HF example's way, 2 workers"),
    Pair("trainer", "processor for each image", goal=2.0),
    Pair("bare loop, bf16 autocast", "bare loop"),
    Pair("bare loop, channels-last weights", "bare loop"),
)


@dataclass
class Settings:
    """What to train, and how often."""

    data: str = field(default="cifake", metadata={"help": "Data source, as for train.py."})
    images: int = field(default=25_600, metadata={"help": "Images timed in each way and round, in whole batches."})
    batch_size: int = field(default=128, metadata={"help": "Images in a training step."})
    rounds: int = number_of_rounds(5)
    warm_up_steps: int = field(default=20, metadata={"help": "Untimed steps of each way and round."})
    threads: int | None = field(default=None, metadata={"help": "Threads of PyTorch; its own default if not given."})
    output_file: Path = results_file("benchmark_training")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return the exit status."""
    return run_benchmark(Settings, measure, to_markdown, argv, name="training_throughput", description=__doc__)


def measure(settings: Settings) -> dict[str, Any]:
    """Time every way.

    Raises:
        ValueError: there is less than one batch.
    """
    import torch

    from benchmarks.ways_to_train import prepare

    steps = settings.images // settings.batch_size
    if steps < 1:
        raise ValueError(
            f"wanted at least one batch of {settings.batch_size} images; found --images {settings.images}."
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
        values = measure_in_turn(_ways(work), rounds=settings.rounds)
    return {
        "settings": {**asdict(settings), "threads": torch.get_num_threads()},
        **compare(values, PAIRS, unit="images/s"),
    }


def to_markdown(content: Mapping[str, Any]) -> str:
    """Render the speeds."""
    settings = content["settings"]
    return report(content, note=f"{settings['images']:,} images in batches of {settings['batch_size']}.")


def _ways(work: "Work") -> dict[str, Callable[[], float]]:
    from benchmarks.ways_to_train import bare_loop, hf_example, trainer

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
