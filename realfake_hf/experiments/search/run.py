"""A worker of the search: takes training after training until there are none left, and writes the table."""

import json
import logging
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import optuna
import yaml
from filelock import FileLock
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from realfake_hf.cli import parse
from realfake_hf.environment import environment
from realfake_hf.experiments.search.plan import (
    EXTRACTORS,
    HEADS,
    SEEDS,
    TOP,
    SearchArguments,
    Topology,
    Training,
    extractors,
    finalists,
    heads,
    settings_of,
    with_other_seeds,
)
from realfake_hf.experiments.search.queue import Facts, Job, SharedStudy, ranked
from realfake_hf.models.cifake_cnn import CifakeCnnConfig, CifakeCnnForImageClassification
from realfake_hf.run_folder import HISTORY, RECORD
from realfake_hf.run_folder import METRICS as MEASURED
from realfake_hf.store import begin_or_resume, write_text
from realfake_hf.training.arguments import DataArguments, ModelArguments
from realfake_hf.training.run import train
from realfake_hf.training.run_arguments import RunArguments

logger = logging.getLogger(__name__)

ASKED: Final = "search.json"
KEPT: Final = (MEASURED, HISTORY, RECORD)  # of a finished training
MEASURES: Final = ("accuracy", "precision", "recall", "f1", "roc_auc", "nll")
POLL: Final = 2.0  # seconds until a worker looks again whether others are done


def search(asked: SearchArguments, *, keep: Callable[[dict[str, Any]], None] = lambda _: None) -> dict[str, Any]:
    """Work on the search until it is done, beside any number of other workers; give its table.

    Args:
        asked: what is searched.
        keep: is given the table as it stands after each training of this worker; `waiting` is how many trainings of
            the stages that have begun are not at their end.

    Raises:
        OSError: there is no such recipe or data source.
        ValueError: a setting does not fit, or the folder holds another search.
    """
    _begin(asked)
    stages: list[SharedStudy] = []

    def go_through(name: str, trainings: Sequence[Training], *, prunes: bool = False) -> None:
        stages.append(SharedStudy(asked.output_dir, name, trainings, prunes=prunes))
        for _ in _worked_off(stages[-1], asked):
            keep(_table(asked, stages))

    go_through(EXTRACTORS, extractors(asked), prunes=asked.prune)
    go_through(HEADS, heads(asked, _best(stages, "No extractor came to its end")), prunes=asked.prune)
    go_through(TOP, finalists(asked, ranked(stages, _validation)))
    go_through(SEEDS, with_other_seeds(asked, ranked(stages[-1:], _validation)))
    return _table(asked, stages)


def _begin(asked: SearchArguments) -> None:
    """Make the folder, or make sure that it is that of the same search."""
    recipe = Path(asked.base)
    if not recipe.is_file():
        raise FileNotFoundError(f"wanted a recipe as --base; found none at {recipe}.")
    now = {**_plain(asked), "recipe": recipe.read_text(encoding="utf-8")}
    asked.output_dir.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{asked.output_dir}.lock"):  # workers may be started together
        begin_or_resume(asked.output_dir / ASKED, now, what="search")


def _plain(asked: SearchArguments) -> dict[str, Any]:
    of_a_worker = ("output_dir", "output_file", "figure_file", "bf16")  # each has its own places and its own hardware
    return {name: value for name, value in vars(asked).items() if name not in of_a_worker}


def _table(asked: SearchArguments, stages: Sequence[SharedStudy]) -> dict[str, Any]:
    rows = [
        {"stage": training.stage, "topology": training.topology.to_dict(), "seed": training.seed, **facts}
        for study in stages
        for training, facts in study.finished()
    ]
    best = ranked(stages[:1], _validation)[0].to_dict() if rows else None
    waiting = sum(study.waiting for study in stages)
    return {"settings": _plain(asked), **environment(), "best_extractor": best, "waiting": waiting, "rows": rows}


def _worked_off(study: SharedStudy, asked: SearchArguments) -> Iterator[None]:
    """Train what waits, and say so after each; wait for what other workers train."""
    while not study.is_done:
        with study.job() as job:
            if job is not None:
                _work(study, job, asked)
        if job is None:
            time.sleep(POLL)
        else:
            yield


def _work(study: SharedStudy, job: Job, asked: SearchArguments) -> None:
    began = time.monotonic()
    try:
        facts = _trained(job, asked)
    except optuna.TrialPruned:
        study.tell(job, None, pruned=True)
        logger.info("%s: stopped", job.training.name)
        return
    except ValueError as error:
        study.tell(job, None)
        logger.warning("%s cannot be trained: %s", job.training.name, error)
        return
    study.tell(job, facts, value=_validation(facts))
    logger.info(
        "%s: %.2f %% on validation, %.2f %% on test (%.0f s)",
        job.training.name, 100 * _validation(facts), 100 * facts["test"]["accuracy"], time.monotonic() - began,
    )  # fmt: skip


def _trained(job: Job, asked: SearchArguments) -> Facts:
    """Train as any training is, or read what is finished; keep measurements, and nothing that is large."""
    folder = job.folder
    if not _is_finished(folder):
        recipe = _recipe(job, asked)
        data, model, run = parse(DataArguments, ModelArguments, RunArguments, argv=["--config", str(recipe)])
        watching = [Reporting(job.trial)] if asked.prune and job.training.stage != TOP else []
        train(data, model, run, callbacks=watching)
    facts = _facts(folder, job.training)
    for place in folder.iterdir():
        if place.is_dir():
            shutil.rmtree(place)
        elif place.name not in KEPT:
            place.unlink()
    return facts


def _recipe(job: Job, asked: SearchArguments) -> Path:
    """Write what a training is told; where another worker has begun it, its precision stays."""
    recipe = job.folder.with_suffix(".yaml")
    settings = {**yaml.safe_load(Path(asked.base).read_text(encoding="utf-8")), **settings_of(job.training, asked)}
    settings |= {"bf16": asked.bf16, "output_dir": str(job.folder), "disable_tqdm": True}
    if recipe.is_file():
        settings["bf16"] = yaml.safe_load(recipe.read_text(encoding="utf-8"))["bf16"]
    write_text(recipe, yaml.safe_dump(settings))
    return recipe


def _is_finished(folder: Path) -> bool:
    passport = folder / RECORD
    return passport.is_file() and json.loads(passport.read_text(encoding="utf-8"))["finished"]


def _facts(folder: Path, training: Training) -> Facts:
    measured, passport = (json.loads((folder / name).read_text(encoding="utf-8")) for name in (MEASURED, RECORD))
    splits = {
        split: {name: measured[split][name]["value"] for name in MEASURES}
        for split in ("validation", "test", "test_leak_free")
    }
    return {
        **splits,
        "n": {split: facts["n"] for split, facts in passport["data"].items()},
        "best_epoch": measured["best_epoch"],
        "parameters": parameters_of(training.topology),
        "bf16": bool(passport["arguments"].get("bf16")),
        "seconds": passport["seconds"],
        "machine": passport["machine"],
        "commit": passport["commit"],
    }


def parameters_of(topology: Topology) -> int:
    """Count the parameters of a topology.

    >>> parameters_of(Topology(32, 2, 64, 1))
    141345
    """
    shape: dict[str, Any] = topology.to_dict()
    model = CifakeCnnForImageClassification(CifakeCnnConfig(**shape))
    return sum(weights.numel() for weights in model.parameters())


def _validation(facts: Facts) -> float:
    return float(facts["validation"]["accuracy"])


def _best(studies: Sequence[SharedStudy], lack: str) -> Topology:
    found = ranked(studies, _validation)
    if not found:
        raise ValueError(f"wanted a trained topology to go on with; found none. {lack}: the log says why.")
    return found[0]


class Reporting(TrainerCallback):
    """Tell the study each epoch's accuracy on validation, and stop a training that falls behind.

    Args:
        trial: of the training.
    """

    def __init__(self, trial: optuna.Trial) -> None:
        self.trial = trial

    def on_evaluate(
        self,
        args: TrainingArguments,  # noqa: ARG002  the Trainer fixes the signature
        state: TrainerState,
        control: TrainerControl,  # noqa: ARG002
        **kwargs: Any,  # noqa: ANN401
    ) -> None:
        """Report, and raise `optuna.TrialPruned` where the study says so."""
        epoch = round(state.epoch or 0)
        self.trial.report(kwargs["metrics"]["eval_accuracy"], epoch)
        if self.trial.should_prune():
            raise optuna.TrialPruned(f"behind the median after {epoch} epochs")
