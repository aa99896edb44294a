"""Settings of `explain.py --study`: models, data, and the number of images in each part."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from realfake_hf.cli import read_names, setting
from realfake_hf.explain_study.names import TARGETS
from realfake_hf.labels import LabelArguments

PARTS: Final = (
    "agreement", "faithfulness", "sanity", "planted", "grids", "causal", "entity", "patching", "sinks",
)  # fmt: skip


@dataclass
class StudyArguments(LabelArguments):
    """Models, data and output files of a study."""

    output_dir: Path = field(
        metadata={"help": "Folder of the maps and finished parts. To resume, repeat the command."}
    )
    compare: list[str] = setting(
        [], "One or more models as NAME=MODEL, each an output folder of train.py or a Hub id."
    )
    twins: list[str] = setting([], "NAME=MODEL: the same model from another training seed, the ceiling of agreement.")
    hardened: list[str] = setting(
        [], "NAME=FOLDER: the same model fine-tuned by train.py with --hidden_share, for the fidelity of maps."
    )
    data: str = setting("cifake", "The data set, as for train.py.")
    split: str | None = setting(None, "Split not used for training; by default test, or the only split.")
    parts: list[str] = setting(list(PARTS), f"Parts to measure: {', '.join(PARTS)}.")
    targets: list[str] = setting(
        list(TARGETS), f"Labels that maps explain in the agreement part, the main one first: {', '.join(TARGETS)}."
    )
    entity_masks: Path | None = setting(None, "Masks of entities, as `make masks` writes; without, no part entity.")
    n: int = setting(1000, "Images of the agreement part, balanced by label, content and correctness.")
    faithfulness_n: int = setting(120, "Images of the deletion and insertion tests.")
    sanity_n: int = setting(60, "Images of the weight randomisation.")
    planted_n: int = setting(100, "Image pairs for each kind of planted evidence, and grids of images for each label.")
    causal_n: int = setting(2000, "Images of the occlusion test of centre, rim and corner.")
    patching_n: int = setting(100, "Images whose cells are patched one by one.")
    sinks_n: int = setting(200, "Images whose tokens are measured.")
    gallery: int = setting(12, "Images shown on the page.")
    bootstrap_samples: int = setting(10_000, "Bootstrap replicates of each interval and p-value.")
    seed: int = setting(0, "Seed of all random draws.")
    results_file: Path = setting(
        Path("results/explanation_study.json"), "JSON file of the results; their table goes beside it as Markdown."
    )
    page_file: Path = setting(Path("results/explanation_study.html"), "HTML file of the report page.")
    figure_file: Path = setting(Path("results/figures/explanation_study.png"), "PNG file of the main figure.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.compare:
            raise ValueError("expected one or more models, --compare NAME=MODEL; found none.")
        for name, places in (("twins", self.twin_places), ("hardened", self.hardened_places)):
            if unknown := sorted(places.keys() - self.models.keys()):
                raise ValueError(f"expected --{name} of {', '.join(self.models)}; found {', '.join(unknown)}.")
        for name, given, known in (("parts", self.parts, PARTS), ("targets", self.targets, TARGETS)):
            if unknown := sorted(set(given) - set(known)):
                raise ValueError(f"expected --{name} among {', '.join(known)}; found {', '.join(unknown)}.")
        if not self.targets:
            raise ValueError("expected one or more --targets; found none.")
        if small := [f"--{name} {n}" for name in _COUNTS if (n := getattr(self, name)) < _LEAST]:
            raise ValueError(f"expected at least {_LEAST} images in each part; found {', '.join(small)}.")
        if self.bootstrap_samples < 1 or self.gallery < 0:
            raise ValueError(
                "expected --bootstrap_samples of at least 1 and --gallery of at least 0; found "
                f"{self.bootstrap_samples} and {self.gallery}."
            )

    @property
    def measured_parts(self) -> list[str]:
        """The parts to measure, in the order of `PARTS`."""
        return [part for part in PARTS if part in self.parts and (part != "entity" or self.entity_masks)]

    @property
    def models(self) -> dict[str, str]:
        """The folder or Hub id of each model, by name."""
        return read_names("--compare", self.compare, kind="MODEL")

    @property
    def twin_places(self) -> dict[str, str]:
        """The folder or Hub id of each model from another training seed, by the name of the model."""
        return read_names("--twins", self.twins, kind="MODEL")

    @property
    def hardened_places(self) -> dict[str, str]:
        """The run folder of each model that was fine-tuned on hidden cells, by the name of the model."""
        return read_names("--hardened", self.hardened, kind="FOLDER")


_COUNTS: Final = ("n", "faithfulness_n", "sanity_n", "planted_n", "causal_n", "patching_n", "sinks_n")
_LEAST: Final = 2  # to pair one image with another
