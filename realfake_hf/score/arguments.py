"""Settings of `python -m realfake_hf.score`."""

from dataclasses import dataclass, field
from pathlib import Path

from realfake_hf.cli import setting
from realfake_hf.labels import LabelArguments


@dataclass
class ScoreArguments(LabelArguments):
    """The model, the images to score, and the output folder."""

    data: list[str] = field(
        metadata={"help": "Image files, folders, globs; parquet shards; a Hub data set; or one source of train.py."}
    )
    output: Path = field(metadata={"help": "Folder of the scores. To resume, repeat the command."})
    model: str | None = setting(None, "A folder of train.py, or a Hub id; by default the model of the package.")
    batch_size: int = setting(32, "Images per forward pass, on each core.")
    part_size: int = setting(2048, "Images per file of scores; an interruption costs at most one part.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.batch_size < 1 or self.part_size < 1:
            raise ValueError(
                f"expected --batch_size and --part_size of at least 1; found {self.batch_size} and {self.part_size}."
            )
