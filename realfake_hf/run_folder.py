"""What a run leaves behind: passport, measurements, history and figures; and whether it can be resumed."""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from realfake_hf import figures
from realfake_hf.metrics.report import Report
from realfake_hf.store import CHECKSUMS, damaged_files, foreign_files, write_json
from realfake_hf.validation_run import ValidationRun

logger = logging.getLogger(__name__)

PASSPORT: Final = "run.json"
METRICS: Final = "metrics.json"
HISTORY: Final = "history.json"
VALIDATION: Final = "validation_probabilities.npz"
FIGURES: Final = "figures"

_SIDE_BY_SIDE: Final = (
    "accuracy", "accuracy_real", "accuracy_fake", "precision", "recall", "f1", "roc_auc", "average_precision", "ece",
    "brier",
)  # fmt: skip


@dataclass(frozen=True)
class Outcome:
    """The measurements of a finished run.

    Attributes:
        best_epoch: the epoch that was kept, counted from 1.
        validation: of that epoch.
        test: on the whole test split.
        test_leak_free: on the test pictures that occur in no other split.
    """

    best_epoch: int
    validation: Report
    test: Report
    test_leak_free: Report

    def to_dict(self) -> dict[str, Any]:
        """The measurements as plain numbers and dictionaries."""
        reports = {name: getattr(self, name).to_dict() for name in ("validation", "test", "test_leak_free")}
        return {"best_epoch": self.best_epoch, **reports}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Outcome":
        """Read back what `to_dict` wrote."""
        reports = {name: Report.from_dict(data[name]) for name in ("validation", "test", "test_leak_free")}
        return cls(best_epoch=data["best_epoch"], **reports)

    def to_markdown(self) -> str:
        """Render the test figures, official and leak-free side by side."""
        whole, clean = self.test, self.test_leak_free
        rows = [f"| {name} | {getattr(whole, name)} | {getattr(clean, name)} |" for name in _SIDE_BY_SIDE]
        head = f"| test, epoch {self.best_epoch} | official, n = {whole.n:,} | leak-free, n = {clean.n:,} |"
        return "\n".join([head, "|---|--:|--:|", *rows])


def resume_point(folder: Path, arguments: Mapping[str, Any]) -> str | None:
    """Find the checkpoint from which a run goes on, or None for a start from the beginning.

    Args:
        folder: the output folder.
        arguments: of the run that is to go on.

    Raises:
        ValueError: the folder holds a finished run, an interrupted one with other arguments, or something else.
    """
    if not (folder / PASSPORT).exists():
        if not foreign_files(folder, PASSPORT):
            return None
        raise ValueError(f"wanted an empty output folder; found files in {folder}. Name another with --output_dir.")
    earlier = json.loads((folder / PASSPORT).read_text())
    if earlier["finished"]:
        raise ValueError(
            f"wanted an empty output folder; found a finished run in {folder}. Name another with --output_dir, or "
            "delete it."
        )
    before = earlier["arguments"]
    changed = sorted(name for name in {*before, *arguments} if before.get(name) != arguments.get(name))
    if changed:
        raise ValueError(
            f"wanted the arguments of the interrupted run in {folder} to go on with it; found other values of "
            f"{', '.join(changed)}. Give the same ones, or another --output_dir."
        )
    return _last_checkpoint(folder)


def seconds_until(checkpoint: str | None) -> float:
    """How long the epochs before a checkpoint took; 0 without one."""
    if checkpoint is None:
        return 0.0
    state = json.loads((Path(checkpoint) / "trainer_state.json").read_text())
    return float(sum(entry.get("seconds", 0.0) for entry in state["log_history"]))


def refuse_other_data(folder: Path, data: Mapping[str, Any]) -> None:
    """Make sure that the run begun in a folder, if any, had the same pictures, by their fingerprint.

    Raises:
        ValueError: the pictures are others than when it was interrupted.
    """
    if not (folder / PASSPORT).exists():
        return
    before = json.loads((folder / PASSPORT).read_text())["data"]
    changed = [split for split in data if before.get(split) != data[split]]
    if changed:
        raise ValueError(
            f"wanted the pictures of the interrupted run in {folder} to go on with it; found others in "
            f"{', '.join(changed)}. Bring the data back, or give another --output_dir."
        )


def epoch_rows(log_history: Sequence[Mapping[str, float]]) -> list[dict[str, float]]:
    """Gather a Trainer's log into one row an epoch: `epoch`, `train_loss`, `learning_rate`, `eval_...`, `seconds`."""
    rows: dict[int, dict[str, float]] = {}
    for entry in log_history:
        row = rows.setdefault(round(entry["epoch"]), {"epoch": round(entry["epoch"])})
        if "loss" in entry:
            row |= {"train_loss": entry["loss"], "learning_rate": entry["learning_rate"]}
        row |= {name: value for name, value in entry.items() if name.startswith("eval_") or name == "seconds"}
    return [row for _, row in sorted(rows.items()) if len(row) > 1]


def write_results(folder: Path, outcome: Outcome, history: Sequence[Mapping[str, float]]) -> None:
    """Write the measurements, the history and every figure of a run whose validation is already on disk."""
    write_json(folder / METRICS, outcome.to_dict())
    write_json(folder / HISTORY, history)
    run = ValidationRun.read(folder / VALIDATION)
    drawn = {
        "learning_curves": figures.learning_curves(history, best_epoch=outcome.best_epoch),
        "confusion_matrix": figures.confusion_matrix(_confusion(outcome.test), title="test"),
        "difficulty_map": figures.difficulty_map(run.p_true(), is_fake=run.is_fake),
    }
    accuracy = run.content_accuracy()
    if accuracy:
        drawn["content_accuracy"] = figures.content_accuracy(accuracy, epochs=run.epoch.tolist())
    for name, figure in drawn.items():
        figures.save_figure(figure, folder / FIGURES / f"{name}.png")


def _last_checkpoint(folder: Path) -> str | None:
    """The latest checkpoint that is whole: its checksums are noted when all else is written."""
    written = [note.parent for note in folder.glob(f"checkpoint-*/{CHECKSUMS}")]
    for checkpoint in sorted(written, key=lambda one: int(one.name.split("-")[-1]), reverse=True):
        damaged = damaged_files(checkpoint / CHECKSUMS)
        if not damaged:
            return str(checkpoint)
        logger.warning("%s is not as its checksum says: an earlier checkpoint is used", checkpoint / damaged[0])
    return None


def _confusion(report: Report) -> np.ndarray[Any, np.dtype[np.int64]]:
    return np.array([[report.true_negatives, report.false_positives], [report.false_negatives, report.true_positives]])
