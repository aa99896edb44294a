"""The settings of `explain.py --study`: which models, on which pictures, how many for each part."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from realfake_hf.cli import read_names

PARTS: Final = ("agreement", "faithfulness", "sanity", "planted", "causal")


@dataclass
class StudyArguments:
    """Which models are studied on which pictures, and where the study goes."""

    output_dir: Path = field(
        metadata={"help": "Where maps and finished parts are kept; the same command goes on from there."}
    )
    compare: list[str] = field(
        default_factory=list, metadata={"help": "The models, one or more NAME=MODEL, folders of train.py or Hub ids."}
    )
    twins: list[str] = field(
        default_factory=list,
        metadata={"help": "NAME=MODEL: the same model of another training seed, the ceiling of agreement."},
    )
    data: str = field(default="cifake", metadata={"help": "The data set: what train.py takes."})
    split: str = field(default="test", metadata={"help": "Its split; none that was trained on."})
    parts: list[str] = field(default_factory=lambda: list(PARTS), metadata={"help": f"Of {', '.join(PARTS)}."})
    n: int = field(
        default=1000, metadata={"help": "Pictures of the agreement, drawn evenly by label, content and correctness."}
    )
    faithfulness_n: int = field(default=120, metadata={"help": "Pictures of deletion and insertion."})
    sanity_n: int = field(default=60, metadata={"help": "Pictures of the randomisation of weights."})
    planted_n: int = field(default=100, metadata={"help": "Pairs of pictures for each kind of planted evidence."})
    causal_n: int = field(default=2000, metadata={"help": "Pictures of the test with centre or rim hidden."})
    gallery: int = field(default=12, metadata={"help": "Pictures shown on the page."})
    bootstrap_samples: int = field(default=1000, metadata={"help": "Replicates behind each interval."})
    seed: int = field(default=0, metadata={"help": "Of every draw."})
    results_file: Path = field(
        default=Path("results/explanation_study.json"), metadata={"help": "Where the numbers go."}
    )
    page_file: Path = field(
        default=Path("results/explanation_study.html"), metadata={"help": "Where the report page goes."}
    )
    figure_file: Path = field(
        default=Path("results/figures/explanation_study.png"), metadata={"help": "Where the main figure goes."}
    )

    def __post_init__(self) -> None:
        """Refuse what is missing, unknown or out of range.

        Raises:
            ValueError: something is.
        """
        if not self.compare:
            raise ValueError("wanted --compare NAME=MODEL, for one model or more; found none.")
        models, twins = (
            read_names("--compare", self.compare, kind="MODEL"),
            read_names("--twins", self.twins, kind="MODEL"),
        )
        if lost := sorted(twins.keys() - models.keys()):
            raise ValueError(f"wanted --twins of {', '.join(models)}; found {', '.join(lost)}.")
        if unknown := sorted(set(self.parts) - set(PARTS)):
            raise ValueError(f"wanted --parts of {', '.join(PARTS)}; found {', '.join(unknown)}.")
        counts = {name: getattr(self, name) for name in _COUNTS}
        if small := [f"--{name} {count}" for name, count in counts.items() if count < _LEAST]:
            raise ValueError(f"wanted at least {_LEAST} pictures in each part; found {', '.join(small)}.")
        if self.bootstrap_samples < 1 or self.gallery < 0:
            raise ValueError(
                "wanted --bootstrap_samples of at least 1 and --gallery of at least 0; found "
                f"{self.bootstrap_samples} and {self.gallery}."
            )

    @property
    def models(self) -> dict[str, str]:
        """The folder or Hub id of each model, by its name."""
        return read_names("--compare", self.compare, kind="MODEL")

    @property
    def twin_places(self) -> dict[str, str]:
        """The folder or Hub id of each model of another seed, by the name of the model."""
        return read_names("--twins", self.twins, kind="MODEL")


_COUNTS: Final = ("n", "faithfulness_n", "sanity_n", "planted_n", "causal_n")
_LEAST: Final = 2  # one to pair the other with
