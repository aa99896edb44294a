"""The settings of `crosseval.py`: which models on which data sets, under which protocols."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from realfake_hf.cli import read_names
from realfake_hf.data.corruptions import PROTOCOLS


@dataclass
class CrossevalArguments:
    """Which models are measured on which data sets, and where the cells go."""

    output_dir: Path = field(
        metadata={"help": "Where finished cells are kept; the same command goes on from there."},
    )
    models: list[str] = field(
        default_factory=list, metadata={"help": "One or more NAME=MODEL, folders of train.py or Hub ids."}
    )
    datasets: list[str] = field(
        default_factory=list, metadata={"help": "One or more NAME=SOURCE, each what train.py takes as --data."}
    )
    split: str | None = field(
        default=None, metadata={"help": "The split of all data sets; by default test, or the only one there is."}
    )
    protocols: list[str] = field(
        default_factory=lambda: ["native", "matched"], metadata={"help": f"Of {', '.join(PROTOCOLS)}."}
    )
    limit: int | None = field(
        default=None, metadata={"help": "Pictures of each data set, even by label and content; by default all."}
    )
    baseline_data: str | None = field(
        default=None,
        metadata={"help": "Fit the logistic regression on the training split of this source; by default no such row."},
    )
    baseline_n: int = field(default=10_000, metadata={"help": "Pictures that it is fitted on, even by label."})
    bootstrap_samples: int = field(default=1000, metadata={"help": "Replicates behind each interval."})
    seed: int = field(default=0, metadata={"help": "Of every draw."})
    bf16: bool = field(
        default=False,
        metadata={
            "help": "Compute in bfloat16: faster where the processor has it, scores moved by a hundredth or so."
        },
    )
    streaming: bool = field(
        default=False,
        metadata={"help": "Read all data sets as they come from parquet shards; memory and disk stay small."},
    )
    fresh: bool = field(default=False, metadata={"help": "Do finished cells again."})
    robustness: list[str] = field(
        default_factory=list, metadata={"help": "Names of --datasets whose pictures are also changed step by step."}
    )
    robustness_n: int = field(
        default=2000, metadata={"help": "Leak-free pictures of each, even by label and content."}
    )
    errors: int = field(
        default=0, metadata={"help": "Show so many of each model's surest errors of each kind on each data set."}
    )
    training_data: str | None = field(
        default=None, metadata={"help": "Show the nearest training pictures of this source beside each error."}
    )
    neighbours_n: int = field(default=5000, metadata={"help": "Training pictures among which they are looked for."})
    duplicates_of: str | None = field(
        default=None,
        metadata={"help": "Look for near-duplicates of the training pictures of this source; by default not."},
    )

    def __post_init__(self) -> None:
        """Refuse what is missing, unknown, double or out of range.

        Raises:
            ValueError: something is.
        """
        for flag, words in (("--models", self.models), ("--datasets", self.datasets)):
            _named(flag, words)
        if TRIVIAL in self.places:
            raise ValueError(f"wanted --models under other names than {TRIVIAL}, which is the baseline's; found it.")
        if unknown := sorted(set(self.protocols) - set(PROTOCOLS)):
            raise ValueError(f"wanted --protocols of {', '.join(PROTOCOLS)}; found {', '.join(unknown)}.")
        if not self.protocols or len(set(self.protocols)) < len(self.protocols):
            raise ValueError(f"wanted --protocols, each once; found {' '.join(self.protocols) or 'none'}.")
        if unknown := sorted(set(self.robustness) - set(self.sources)):
            raise ValueError(
                f"wanted --robustness of --datasets ({', '.join(self.sources)}); found {', '.join(unknown)}."
            )
        counts = {
            "limit": self.limit or 2,
            "baseline_n": self.baseline_n,
            "robustness_n": self.robustness_n,
            "neighbours_n": self.neighbours_n,
        }
        if small := [f"--{name} {count}" for name, count in counts.items() if count < 2]:  # noqa: PLR2004 - a pair
            raise ValueError(f"wanted at least 2 pictures; found {', '.join(small)}.")
        if self.streaming and self.duplicates_of:
            raise ValueError(
                "wanted --streaming or --duplicates_of; found both. Near-duplicates are looked for among pictures "
                "that are at hand: run once more without --streaming, on fewer of them."
            )
        if self.errors < 0:
            raise ValueError(f"wanted --errors of at least 0; found {self.errors}.")
        if self.bootstrap_samples < 1:
            raise ValueError(f"wanted --bootstrap_samples of at least 1; found {self.bootstrap_samples}.")

    @property
    def places(self) -> dict[str, str]:
        """The folder or Hub id of each model, by its name."""
        return _named("--models", self.models)

    @property
    def sources(self) -> dict[str, str]:
        """The source of each data set, by its name."""
        return _named("--datasets", self.datasets)


TRIVIAL = "trivial"  # what the logistic regression is called


def _named(flag: str, words: Sequence[str]) -> dict[str, str]:
    if not words:
        raise ValueError(f"wanted {flag} NAME=PLACE, one or more; found none.")
    return read_names(flag, words, kind="PLACE")
