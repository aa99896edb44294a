"""The trainings of the search: extractors, then heads on the best extractor, then the best topologies on all data."""

from collections.abc import Sequence
from dataclasses import asdict, astuple, dataclass, field, fields
from pathlib import Path
from typing import Any, Final

from realfake_hf.cli import setting

EXTRACTORS: Final = "extractors"
HEADS: Final = "heads"
TOP: Final = "top"
SEEDS: Final = "seeds"  # study of the remaining seeds; its trainings have the stage `TOP`
PAPER_ACCURACY: Final = 0.9298  # of the best network on the CIFAKE test split; Bird & Lotfi (2024), abstract


@dataclass
class SearchArguments:
    """The topologies, their data, and the folder of the study."""

    output_dir: Path = field(metadata={"help": "Folder of the study, shared by all workers."})
    output_file: Path = field(metadata={"help": "JSON file of the results; the Markdown table is written beside it."})
    figure_file: Path | None = setting(None, "PNG file: accuracy by topology and parameters.")
    base: str = setting("recipes/cifake_cnn.yaml", "Recipe of every training.")
    num_filters: list[int] = setting([16, 32, 64, 128], "Extractors: filters of each convolution.")
    num_conv_layers: list[int] = setting([1, 2, 3], "Extractors: convolutions.")
    dense_units: list[int] = setting([32, 64, 128, 256, 512, 1024, 2048, 4096], "Heads: units of each dense layer.")
    num_dense_layers: list[int] = setting([1, 2, 3], "Heads: dense layers.")
    first_units: int = setting(64, "Units of the single dense layer on every extractor.")
    train_size: int | None = setting(None, "Extractors and heads: images; by default all.")
    num_train_epochs: float | None = setting(None, "Extractors and heads: epochs; by default those of the recipe.")
    top: int = setting(5, "Number of best topologies to train with the full recipe.")
    reference: list[int] = setting(
        [], "Filters, convolutions, units and dense layers of a topology to train beside the best."
    )
    seeds: list[int] = setting([0], "The first for all top topologies; the others for the best one and the reference.")
    bf16: bool = setting(False, "Train in bfloat16 in this worker.")
    prune: bool = setting(False, "Stop extractors and heads that fall behind the median.")

    def __post_init__(self) -> None:
        if self.reference and len(self.reference) != len(fields(Topology)):
            raise ValueError(
                "expected filters, convolutions, units and dense layers as --reference; found "
                f"{' '.join(map(str, self.reference))}."
            )
        if self.top < 0:
            raise ValueError(f"expected --top of at least 0; found {self.top}.")


@dataclass(frozen=True)
class Topology:
    """The shape of a CNN, in the names of `CifakeCnnConfig`.

    >>> print(Topology(32, 2, 64, 1))
    2 x 32 filters, 1 x 64 units
    """

    num_filters: int
    num_conv_layers: int
    dense_units: int
    num_dense_layers: int

    def __str__(self) -> str:
        filters, layers, units, dense = astuple(self)
        return f"{layers} x {filters} filters, {dense} x {units} units"


@dataclass(frozen=True)
class Training:
    """A training of the search; its stage is `EXTRACTORS`, `HEADS` or `TOP`."""

    stage: str
    topology: Topology
    seed: int = 0

    @property
    def name(self) -> str:
        """Name of the output folder.

        >>> Training("heads", Topology(32, 2, 64, 1)).name
        'heads-32x2-64x1-seed0'
        """
        filters, layers, units, dense = astuple(self.topology)
        return f"{self.stage}-{filters}x{layers}-{units}x{dense}-seed{self.seed}"

    @property
    def parameters(self) -> dict[str, int]:
        """Topology and seed, which are settings of the recipe and parameters of the Optuna study."""
        return {**asdict(self.topology), "seed": self.seed}


def extractors(arguments: SearchArguments) -> list[Training]:
    """Return the trainings of all feature extractors, each with the same small head."""
    return [
        Training(EXTRACTORS, Topology(filters, layers, arguments.first_units, 1))
        for filters in arguments.num_filters
        for layers in arguments.num_conv_layers
    ]


def heads(arguments: SearchArguments, best: Topology) -> list[Training]:
    """Return the trainings of all heads on the best extractor."""
    return [
        Training(HEADS, Topology(best.num_filters, best.num_conv_layers, units, layers))
        for units in arguments.dense_units
        for layers in arguments.num_dense_layers
    ]


def finalists(arguments: SearchArguments, ranked: Sequence[Topology]) -> list[Training]:
    """Return the trainings of the best topologies and the reference on all images."""
    best = list(dict.fromkeys(ranked))[: arguments.top]
    return [Training(TOP, topology, arguments.seeds[0]) for topology in _add_reference(arguments, best)]


def with_other_seeds(arguments: SearchArguments, ranked: Sequence[Topology]) -> list[Training]:
    """Return the trainings of the best finalist and the reference with the remaining seeds, seed by seed."""
    best = _add_reference(arguments, ranked[:1])
    return [Training(TOP, topology, seed) for seed in arguments.seeds[1:] for topology in best]


def _add_reference(arguments: SearchArguments, best: Sequence[Topology]) -> list[Topology]:
    reference = [Topology(*arguments.reference)] if arguments.reference else []
    return list(dict.fromkeys([*best, *reference]))


def changes_of(training: Training, arguments: SearchArguments) -> dict[str, Any]:
    """Return the settings in which a training differs from the recipe."""
    reduced = {"train_size": arguments.train_size, "num_train_epochs": arguments.num_train_epochs}
    changes = {name: value for name, value in reduced.items() if value is not None and training.stage != TOP}
    return {**changes, **training.parameters}
