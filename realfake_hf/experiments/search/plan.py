"""Which topologies are trained, in which order: extractors, heads on the best of them, the best of all on all data."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

EXTRACTORS: Final = "extractors"
HEADS: Final = "heads"
TOP: Final = "top"
SEEDS: Final = "seeds"  # of the best of the top; its trainings stand among these
_PARTS: Final = 4  # of a topology


@dataclass
class SearchArguments:
    """Which topologies are searched, on which pictures, and where the study lies."""

    output_dir: Path = field(metadata={"help": "The study that all workers share, and what is left of each training."})
    output_file: Path = field(metadata={"help": "The table, a JSON file of results/."})
    figure_file: Path | None = field(default=None, metadata={"help": "Draw accuracies and their price here."})
    base: str = field(default="recipes/cifake_cnn.yaml", metadata={"help": "The recipe of every training."})
    num_filters: list[int] = field(
        default_factory=lambda: [16, 32, 64, 128], metadata={"help": "Filters of an extractor's convolutions."}
    )
    num_conv_layers: list[int] = field(default_factory=lambda: [1, 2, 3], metadata={"help": "Its convolutions."})
    dense_units: list[int] = field(
        default_factory=lambda: [32, 64, 128, 256, 512, 1024, 2048, 4096],
        metadata={"help": "Units of a head's layers."},
    )
    num_dense_layers: list[int] = field(default_factory=lambda: [1, 2, 3], metadata={"help": "Its dense layers."})
    first_units: int = field(default=64, metadata={"help": "Units of the one dense layer while extractors compete."})
    train_size: int | None = field(
        default=None, metadata={"help": "Pictures that extractors and heads are trained on; by default all."}
    )
    num_train_epochs: float | None = field(
        default=None, metadata={"help": "Their passes over these; by default the recipe's."}
    )
    top: int = field(
        default=5, metadata={"help": "So many of the best are trained on all pictures, as the recipe says."}
    )
    reference: list[int] = field(
        default_factory=list,
        metadata={"help": "Filters, convolutions, units and dense layers of a topology that is trained beside those."},
    )
    seeds: list[int] = field(
        default_factory=lambda: [0],
        metadata={"help": "Those are trained with the first; the best of them and the reference with each."},
    )
    bf16: bool = field(
        default=False,
        metadata={"help": "This worker computes with bfloat16 while learning, faster where there is hardware for it."},
    )
    prune: bool = field(
        default=False, metadata={"help": "Stop trainings of extractors and heads that fall behind the median."}
    )

    def __post_init__(self) -> None:
        """Refuse a search for nothing.

        Raises:
            ValueError: a list is empty, or a number below its least.
        """
        for name in ("num_filters", "num_conv_layers", "dense_units", "num_dense_layers", "seeds"):
            if not getattr(self, name):
                raise ValueError(f"wanted one value of --{name} or more; found none.")
        if self.reference and len(self.reference) != _PARTS:
            raise ValueError(
                "wanted filters, convolutions, units and dense layers as --reference; found "
                f"{' '.join(map(str, self.reference))}."
            )
        if self.top < 0:
            raise ValueError(f"wanted --top of at least 0; found {self.top}.")


@dataclass(frozen=True)
class Topology:
    """A CNN's shape, by the names of its config.

    Attributes:
        num_filters: of each convolution.
        num_conv_layers: convolutions.
        dense_units: of each dense layer.
        num_dense_layers: dense layers.
    """

    num_filters: int
    num_conv_layers: int
    dense_units: int
    num_dense_layers: int

    def to_dict(self) -> dict[str, int]:
        """Its parts by name."""
        return asdict(self)

    @property
    def words(self) -> str:
        """As people write it.

        >>> Topology(32, 2, 64, 1).words
        '2 x 32 filters, 1 x 64 units'
        """
        return f"{self.body_words}, {self.head_words}"

    @property
    def body_words(self) -> str:
        """The feature extractor as people write it."""
        return f"{self.num_conv_layers} x {self.num_filters} filters"

    @property
    def head_words(self) -> str:
        """The dense layers as people write them."""
        return f"{self.num_dense_layers} x {self.dense_units} units"


PAPERS_WINNER: Final = Topology(num_filters=32, num_conv_layers=2, dense_units=64, num_dense_layers=1)
PAPER_ACCURACY: Final = 0.9298  # of the best network on CIFAKE's test; Bird & Lotfi (2024), abstract


@dataclass(frozen=True)
class Training:
    """One training of the search.

    Attributes:
        stage: to which it belongs.
        topology: what is trained.
        seed: of weights, order and augmentation.
    """

    stage: str
    topology: Topology
    seed: int = 0

    @property
    def name(self) -> str:
        """Names its folder.

        >>> Training("heads", Topology(32, 2, 64, 1)).name
        'heads-32x2-64x1-seed0'
        """
        shape = self.topology
        return (
            f"{self.stage}-{shape.num_filters}x{shape.num_conv_layers}-{shape.dense_units}x{shape.num_dense_layers}"
            f"-seed{self.seed}"
        )

    @property
    def parameters(self) -> dict[str, int]:
        """What the study knows it by."""
        return {**self.topology.to_dict(), "seed": self.seed}


def extractors(asked: SearchArguments) -> list[Training]:
    """The feature extractors, each with the same small head."""
    return [
        Training(EXTRACTORS, Topology(filters, layers, asked.first_units, 1))
        for filters in asked.num_filters
        for layers in asked.num_conv_layers
    ]


def heads(asked: SearchArguments, best: Topology) -> list[Training]:
    """The heads, on the best extractor."""
    return [
        Training(HEADS, Topology(best.num_filters, best.num_conv_layers, units, layers))
        for units in asked.dense_units
        for layers in asked.num_dense_layers
    ]


def finalists(asked: SearchArguments, ranked: Sequence[Topology]) -> list[Training]:
    """The best of all and the reference, on all pictures."""
    best = list(dict.fromkeys(ranked))[: asked.top]
    return [Training(TOP, topology, asked.seeds[0]) for topology in _with_reference(asked, best)]


def with_other_seeds(asked: SearchArguments, ranked: Sequence[Topology]) -> list[Training]:
    """The best finalist and the reference once more; seed by seed, so that a broken-off search is even."""
    best = _with_reference(asked, ranked[:1])
    return [Training(TOP, topology, seed) for seed in asked.seeds[1:] for topology in best]


def _with_reference(asked: SearchArguments, best: Sequence[Topology]) -> list[Topology]:
    return list(dict.fromkeys([*best, *([Topology(*asked.reference)] if asked.reference else [])]))


def settings_of(training: Training, asked: SearchArguments) -> dict[str, Any]:
    """What a training changes in the recipe."""
    smaller = {"train_size": asked.train_size, "num_train_epochs": asked.num_train_epochs}
    chosen = {} if training.stage == TOP else {name: value for name, value in smaller.items() if value is not None}
    return {**chosen, **training.topology.to_dict(), "seed": training.seed}
