"""Command-line arguments of `crosseval.py`."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from realfake_hf.cli import read_names, setting
from realfake_hf.data.corruptions import PROTOCOLS
from realfake_hf.labels import LabelArguments

TRIVIAL: Final = "trivial"  # name of the baseline

_MINIMA: Final = {
    "limit": 2, "baseline_n": 2, "robustness_n": 2, "neighbours_n": 2, "errors": 0, "bootstrap_samples": 1,
}  # fmt: skip


@dataclass(kw_only=True)
class FurtherMeasurements:
    """Further measurements."""

    baseline_data: str | None = setting(None, "Source of the training images of a baseline, a logistic regression.")
    baseline_n: int = setting(10_000, "Training images of the logistic regression, balanced by label.")
    robustness: list[str] = setting([], "Names from --datasets on which to measure robustness to corruptions.")
    robustness_n: int = setting(2000, "Leak-free images per robustness test, balanced by label and content.")
    errors: int = setting(0, "Number of most confident errors of each kind to show per model and data set.")
    training_data: str | None = setting(
        None, "Source of training images, the nearest of which are shown beside each error."
    )
    neighbours_n: int = setting(5000, "Training images to search for nearest neighbours.")
    duplicates_of: str | None = setting(
        None, "Source of training images whose near-duplicates are counted, and left out in further rows."
    )


@dataclass
class CrossevalArguments(FurtherMeasurements, LabelArguments):
    """Models, data sets and protocols of a grid, and its output folder."""

    output_dir: Path = field(metadata={"help": "Output folder with finished cells; repeat the command to resume."})
    models: list[str] = field(metadata={"help": "One or more NAME=MODEL: output folders of train.py or Hub ids."})
    datasets: list[str] = field(metadata={"help": "One or more NAME=SOURCE, as for train.py --data."})
    split: str | None = setting(None, "Split of all data sets; by default test, or the only split.")
    protocols: list[str] = setting(
        ["native", "matched"], f"Preprocessing before the model's own processor: {', '.join(PROTOCOLS)}."
    )
    limit: int | None = setting(None, "Maximum images per data set, balanced by label and content; by default all.")
    bootstrap_samples: int = setting(1000, "Bootstrap replicates of each interval.")
    seed: int = setting(0, "Seed of all random draws.")
    bf16: bool = setting(
        False, "Compute in bfloat16: faster on hardware that supports it; scores change by about 0.01."
    )
    streaming: bool = setting(False, "Stream data sets from Parquet shards, with little memory and no local copy.")
    fresh: bool = setting(False, "Delete finished cells and start over.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if TRIVIAL in self.places:
            raise ValueError(f"expected --models with other names than the baseline; found {TRIVIAL}. Rename it.")
        if unknown := sorted(set(self.protocols) - set(PROTOCOLS)):
            raise ValueError(f"expected --protocols from {', '.join(PROTOCOLS)}; found {', '.join(unknown)}.")
        if not self.protocols or len(set(self.protocols)) < len(self.protocols):
            raise ValueError(f"expected distinct --protocols; found {' '.join(self.protocols) or 'none'}.")
        if unknown := sorted(set(self.robustness) - set(self.sources)):
            raise ValueError(
                f"expected --robustness from --datasets ({', '.join(self.sources)}); found {', '.join(unknown)}."
            )
        for name, minimum in _MINIMA.items():
            number = getattr(self, name)
            if number is not None and number < minimum:
                raise ValueError(f"expected --{name} of at least {minimum}; found {number}.")
        if self.streaming and self.labels:
            raise ValueError("expected --streaming or --labels; found both. Shards state REAL and FAKE.")
        if self.streaming and self.duplicates_of:
            raise ValueError(
                "expected --streaming or --duplicates_of; found both. Search for near-duplicates in a second run "
                "without --streaming, on fewer images."
            )

    @property
    def places(self) -> dict[str, str]:
        """The folder or Hub id of each model, by name."""
        return read_names("--models", self.models, kind="PLACE")

    @property
    def sources(self) -> dict[str, str]:
        """The source of each data set, by name."""
        return read_names("--datasets", self.datasets, kind="PLACE")
