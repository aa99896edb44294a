"""The folder of a training run: its record, measurements, history, figures and last checkpoint."""

import logging
import math
import shlex
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from realfake_hf.estimate import Estimate, from_plain, to_plain
from realfake_hf.metrics.operating_point import OPERATING_POINT
from realfake_hf.metrics.out_of_distribution import FAMILIARITY
from realfake_hf.metrics.report import Report
from realfake_hf.store import (
    CHECKSUMS,
    changed_settings,
    damaged_files,
    foreign_files,
    read_json,
    read_object,
    without_local_paths,
    write_json,
)
from realfake_hf.tables import markdown_table

logger = logging.getLogger(__name__)

RECORD: Final = "run.json"  # arguments, code, machine, data, cost, and whether the run is finished
METRICS: Final = "metrics.json"
HISTORY: Final = "history.json"
VALIDATION: Final = "validation_probabilities.npz"
FIGURES: Final = "figures"
MODEL_FILES: Final = ("config.json", "model.safetensors", "preprocessor_config.json")

_CODE: Final = ("cifake_cnn.py", "multiview.py", "views.py")  # that transformers saves with a model
_COPIED: Final = (*MODEL_FILES, *_CODE, OPERATING_POINT, FAMILIARITY, METRICS, HISTORY, RECORD)
_STATISTICS: Final = (
    "accuracy", "accuracy_real", "accuracy_fake", "precision", "recall", "f1", "roc_auc", "average_precision", "ece",
    "brier",
)  # fmt: skip


class Titles(NamedTuple):
    """The titles of a report on the test split or a part of it: `short` beside the word test, and `full` alone."""

    short: str
    full: str


TESTS: Final = {  # reports of an outcome
    "test": Titles("official", "test"),
    "test_leak_free": Titles("leak-free", "leak-free test"),
    "test_no_near_duplicate": Titles("no near-duplicate", "test without near-duplicates"),
}


@dataclass(frozen=True)
class Outcome:
    """The measurements of a finished run: calibrated probabilities at a threshold of one half.

    Attributes:
        best_epoch: counted from 1.
        validation: the validation split.
        test: the whole test split.
        test_leak_free: the test images that occur in no other split.
        test_no_near_duplicate: the test images without a near-duplicate in another split; None if not measured.
        ece_before: the calibration error before temperature scaling, by the name of the report; empty in runs of
            version 0.1, whose reports are of these probabilities.
    """

    best_epoch: int
    validation: Report
    test: Report
    test_leak_free: Report
    test_no_near_duplicate: Report | None = None
    ece_before: dict[str, Estimate] = field(default_factory=dict)

    @property
    def tests(self) -> dict[str, Report]:
        """The reports on the test split and its parts, by name: keys of `TESTS`."""
        return {name: report for name in TESTS if (report := getattr(self, name)) is not None}

    def to_markdown(self) -> str:
        """Render the test results side by side: official, leak-free, and without near-duplicates."""
        titles = [f"{TESTS[name].short}, n = {report.n:,}" for name, report in self.tests.items()]
        rows = [[name, *(getattr(report, name) for report in self.tests.values())] for name in _STATISTICS]
        if self.ece_before:
            before = ["ece before temperature scaling", *(self.ece_before[name] for name in self.tests)]
            rows.insert(_STATISTICS.index("ece"), before)
        return markdown_table([f"test, epoch {self.best_epoch}", *titles], rows)


@dataclass(frozen=True)
class Run:
    """A finished run: its folder, the content of its run.json, and its measurements."""

    folder: Path
    record: Mapping[str, Any]
    outcome: Outcome

    @property
    def seed(self) -> int:
        """The seed of weights, order and augmentation."""
        return int(self.record["arguments"].get("seed", 0))


@dataclass(frozen=True, eq=False)
class ValidationRun:
    """The predictions for n validation images after each of k epochs, before temperature scaling."""

    id: NDArray[np.str_]
    is_fake: NDArray[np.bool_]
    content: NDArray[np.str_]  # (n,) content of each image, "" if unknown
    epoch: NDArray[np.int64]  # (k,) epochs, counted from 1
    p_fake: NDArray[np.float32]  # (k, n) float32 in [0, 1]

    @classmethod
    def begin(cls, *, ids: Sequence[str], is_fake: NDArray[np.bool_], content: Sequence[str | None]) -> Self:
        """Start without epochs."""
        content_names = np.array([name or "" for name in content])
        p_fake = np.empty((0, len(ids)), dtype=np.float32)
        return cls(np.array(ids), np.asarray(is_fake, dtype=np.bool_), content_names, np.empty(0, np.int64), p_fake)

    @classmethod
    def read(cls, file: Path) -> Self:
        """Read a file written by `write`."""
        with np.load(file) as stored:
            return cls(**{column.name: stored[column.name] for column in fields(cls)})

    def write(self, file: Path) -> None:
        """Write a `.npz` file atomically."""
        part = file.with_name(f"{file.stem}.part.npz")
        np.savez(part, **{column.name: getattr(self, column.name) for column in fields(self)})
        part.replace(file)

    def with_epoch(self, epoch: int, p_fake: NDArray[np.float32]) -> Self:
        """Append an epoch, and remove this and later epochs of an interrupted run."""
        earlier = self.epoch < epoch
        return type(self)(
            self.id,
            self.is_fake,
            self.content,
            np.append(self.epoch[earlier], epoch),
            np.vstack([self.p_fake[earlier], p_fake.astype(np.float32)]),
        )

    def p_true(self) -> NDArray[np.float32]:
        """Return the probability of each image's true label: (k, n) in [0, 1]."""
        return np.where(self.is_fake, self.p_fake, 1 - self.p_fake)

    def content_accuracy(self) -> dict[str, list[float]]:
        """Return the accuracy in [0, 1] by content and epoch, at a threshold of 0.5; unknown content is omitted."""
        is_correct = (self.p_fake > 1 / 2) == self.is_fake  # (k, n)
        names = sorted({str(name) for name in self.content} - {""})
        return {name: is_correct[:, self.content == name].mean(axis=1).tolist() for name in names}


def read_run(folder: Path) -> Run:
    """Read a finished run from its folder; a `ValueError` is raised if there is none."""
    record = read_record(folder)
    if not record.get("finished"):
        raise ValueError(f"expected a finished run of train.py in {folder}; found none. Finish the training.")
    return Run(folder, record, from_plain(Outcome, read_json(folder / METRICS)))


def read_record(folder: Path) -> dict[str, Any]:
    """Read the run.json of a folder of train.py; empty if there is none."""
    file = folder / RECORD
    if not file.exists():
        return {}
    record = read_object(file)
    if not isinstance(record.get("arguments"), dict):
        raise ValueError(f"expected the record of a run of train.py in {file}; found no arguments in it.")
    return record


def copy_model(run: Run, folder: Path) -> None:
    """Copy the model of a run with its measurements and figures, without local paths, checkpoints and optimizer."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in _COPIED:
        if (run.folder / name).is_file():
            shutil.copy(run.folder / name, folder / name)
    write_json(folder / RECORD, without_local_paths(run.record))
    config = read_json(folder / "config.json") if (folder / "config.json").is_file() else {}
    if config.pop("_name_or_path", None) is not None:  # written by earlier versions of transformers
        write_json(folder / "config.json", config)
    if (run.folder / FIGURES).is_dir():
        shutil.copytree(run.folder / FIGURES, folder / FIGURES, dirs_exist_ok=True)


def resume_point(folder: Path, arguments: Mapping[str, Any]) -> str | None:
    """Return the checkpoint from which to resume a run with these arguments, or None to start from the beginning.

    A `ValueError` is raised if the folder contains a finished run, an interrupted run with other arguments, or other
    files.
    """
    record = read_record(folder)
    if not record:
        if not foreign_files(folder, RECORD):
            return None
        raise ValueError(f"expected an empty output folder; found files in {folder}. Use another --output_dir.")
    if record.get("finished"):
        raise ValueError(
            f"expected an empty output folder; found a finished run in {folder}. Use another --output_dir, or "
            "delete it."
        )
    changed = changed_settings(record["arguments"], arguments)
    if changed:
        raise ValueError(
            f"expected the same arguments to resume the run in {folder}; found other values of {', '.join(changed)}. "
            "Repeat the original arguments, or use another --output_dir."
        )
    return _last_checkpoint(folder)


def seconds_until(checkpoint: str | None) -> float:
    """Return the duration of the epochs before a checkpoint, in seconds; 0 without a checkpoint."""
    history = _state(checkpoint)["log_history"] if checkpoint else []
    return float(sum(entry.get("seconds", 0.0) for entry in history))


def say_resumed(checkpoint: str) -> str:
    """Say from which epoch a run is resumed, such as `epoch 3 of 10`."""
    state = _state(checkpoint)
    n = state["num_train_epochs"]
    done = state["global_step"] >= state["max_steps"]
    return f"the end of epoch {n} of {n}" if done else f"epoch {math.floor(state['epoch']) + 1} of {n}"


def _state(checkpoint: str) -> dict[str, Any]:
    return read_object(Path(checkpoint) / "trainer_state.json")


def say_next(folder: Path) -> str:
    """Return commands for the model of a finished run."""
    model, maps, grid = (shlex.quote(f"{folder}{end}") for end in ("", "-explained", "-grid"))
    steps = {
        "judge an image": f"realfake photo.jpg --model {model}",
        "see where it looks": f"python explain.py --model {model} --images photo.jpg --output_dir {maps}",
        "test it elsewhere": f"python crosseval.py --models mine={model} --datasets other=FOLDER --output_dir {grid}",
        "publish it": f"python -m realfake_hf.hub --model_dir {model} --hub_model_id USER/NAME",
    }
    return "\n".join(f"{step + ':':<20}{command}" for step, command in steps.items())


def check_same_data(folder: Path, data: Mapping[str, Any]) -> None:
    """Check by their fingerprint that the images of a resumed run are the same as before."""
    before = read_record(folder).get("data", data)
    changed = [split for split in data if before.get(split) != data[split]]
    if changed:
        raise ValueError(
            f"expected the same images to resume the run in {folder}; found others in {', '.join(changed)}. Restore "
            "the data, or use another --output_dir."
        )


def epoch_rows(log_history: Sequence[Mapping[str, float]]) -> list[dict[str, float]]:
    """Merge a Trainer's log into one row per epoch: `epoch`, `train_loss`, `learning_rate`, `eval_...`, `seconds`."""
    rows: dict[int, dict[str, float]] = {}
    for entry in log_history:
        row = rows.setdefault(round(entry["epoch"]), {"epoch": round(entry["epoch"])})
        if "loss" in entry:
            row |= {"train_loss": entry["loss"], "learning_rate": entry["learning_rate"]}
        row |= {name: value for name, value in entry.items() if name.startswith("eval_") or name == "seconds"}
    return [row for _, row in sorted(rows.items()) if len(row) > 1]


def write_outcome(folder: Path, outcome: Outcome, history: Sequence[Mapping[str, float]]) -> None:
    """Write the measurements, the history and the figures of a run whose validation file is complete."""
    from realfake_hf.figures import training as figures
    from realfake_hf.figures.style import save_figure

    write_measurements(folder, outcome)
    write_json(folder / HISTORY, history)
    validation = ValidationRun.read(folder / VALIDATION)
    drawings = {
        "learning_curves": figures.learning_curves(history, best_epoch=outcome.best_epoch),
        "difficulty_map": figures.difficulty_map(validation.p_true(), is_fake=validation.is_fake),
    }
    accuracy = validation.content_accuracy()
    if accuracy:
        drawings["content_accuracy"] = figures.content_accuracy(accuracy, epochs=validation.epoch.tolist())
    for name, figure in drawings.items():
        save_figure(figure, folder / FIGURES / f"{name}.png")


def write_measurements(folder: Path, outcome: Outcome) -> None:
    """Write the measurements of a run and the figure of its confusion matrix."""
    from realfake_hf.figures.style import save_figure
    from realfake_hf.figures.training import confusion_matrix

    write_json(folder / METRICS, to_plain(outcome))
    test = outcome.test
    counts = [[test.true_negatives, test.false_positives], [test.false_negatives, test.true_positives]]
    save_figure(confusion_matrix(np.array(counts), title="test"), folder / FIGURES / "confusion_matrix.png")


def _last_checkpoint(folder: Path) -> str | None:
    """Return the last complete checkpoint; its checksum file is written after all other files."""
    checkpoints = [file.parent for file in folder.glob(f"checkpoint-*/{CHECKSUMS}")]
    for checkpoint in sorted(checkpoints, key=lambda path: int(path.name.split("-")[-1]), reverse=True):
        damaged = damaged_files(checkpoint / CHECKSUMS)
        if not damaged:
            return str(checkpoint)
        logger.warning("%s does not match its checksum; using an earlier checkpoint", checkpoint / damaged[0])
    return None
