"""A worker of the search, which runs waiting trainings stage by stage."""

import logging
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import optuna
import yaml
from filelock import FileLock
from optuna.trial import TrialState
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from realfake_hf.environment import environment
from realfake_hf.experiments.search import plan
from realfake_hf.experiments.search.plan import SearchArguments, Topology, Training
from realfake_hf.experiments.search.queue import Facts, Job, SharedStudy
from realfake_hf.experiments.trainings import parse_recipe, write_recipe
from realfake_hf.models.cifake_cnn import CifakeCnnConfig, CifakeCnnForImageClassification
from realfake_hf.run_folder import HISTORY, METRICS, RECORD
from realfake_hf.store import begin_or_resume, read_json
from realfake_hf.training.run import train

logger = logging.getLogger(__name__)

SETTINGS: Final = "search.json"
KEPT: Final = (METRICS, HISTORY, RECORD)  # files of a finished training that are not deleted
MEASURES: Final = ("accuracy", "precision", "recall", "f1", "roc_auc", "nll")
POLL: Final = 2.0  # seconds between reads of the study while other workers run its last trainings


def search(arguments: SearchArguments) -> Iterator[dict[str, Any]]:
    """Run trainings of the search, beside any number of other workers, until all are finished.

    Yields:
        The results so far as plain JSON, after each training of this worker and at the end. `waiting` is the number of
        unfinished trainings of the stages that have begun.

    Raises:
        OSError: the recipe or the data source does not exist.
        ValueError: a setting is invalid, or the folder contains another search.
    """
    _begin(arguments)
    stages: list[SharedStudy] = []

    def run_stage(name: str, trainings: Sequence[Training]) -> Iterator[dict[str, Any]]:
        stages.append(SharedStudy(arguments.output_dir, name, trainings))
        for _ in _run_waiting(stages[-1], arguments):
            yield _results(arguments, stages)

    yield from run_stage(plan.EXTRACTORS, plan.extractors(arguments))
    best = ranked(stages)
    if not best:
        raise ValueError("expected one or more trained extractors; found none. The log names the reasons.")
    yield from run_stage(plan.HEADS, plan.heads(arguments, best[0]))
    yield from run_stage(plan.TOP, plan.finalists(arguments, ranked(stages)))
    yield from run_stage(plan.SEEDS, plan.with_other_seeds(arguments, ranked(stages[-1:])))
    yield _results(arguments, stages)


def ranked(stages: Sequence[SharedStudy]) -> list[Topology]:
    """Return the topologies of all completed trainings, the best on validation first; ties keep the plan's order."""
    completed = [pair for study in stages for pair in study.completed()]
    return [training.topology for training, _ in sorted(completed, key=lambda pair: -_validation_accuracy(pair[1]))]


def _begin(arguments: SearchArguments) -> None:
    """Record the settings of the search in its folder, or check them against the recorded ones."""
    recipe = Path(arguments.base)
    if not recipe.is_file():
        raise FileNotFoundError(f"expected a recipe as --base; found none at {recipe}.")
    settings = {**_settings(arguments), "recipe": recipe.read_text(encoding="utf-8")}
    arguments.output_dir.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{arguments.output_dir}.lock"):  # several workers may start at once
        begin_or_resume(arguments.output_dir / SETTINGS, settings, what="search")


def _settings(arguments: SearchArguments) -> dict[str, Any]:
    """Return the settings that all workers share."""
    own = ("output_dir", "output_file", "figure_file", "bf16")
    return {name: value for name, value in vars(arguments).items() if name not in own}


def _results(arguments: SearchArguments, stages: Sequence[SharedStudy]) -> dict[str, Any]:
    rows = [
        {"stage": training.stage, "topology": asdict(training.topology), "seed": training.seed, **facts}
        for study in stages
        for training, facts in study.completed()
    ]
    return {
        "settings": _settings(arguments),
        **environment(),
        "best_extractor": asdict(ranked(stages[:1])[0]) if rows else None,
        "waiting": sum(study.n_unfinished for study in stages),
        "rows": rows,
    }


def _run_waiting(study: SharedStudy, arguments: SearchArguments) -> Iterator[None]:
    """Run waiting trainings, yielding after each, and wait for those of other workers."""
    while study.n_unfinished:
        with study.job() as job:
            if job is not None:
                _run(study, job, arguments)
        if job is None:
            time.sleep(POLL)
        else:
            yield


def _run(study: SharedStudy, job: Job, arguments: SearchArguments) -> None:
    began = time.monotonic()
    try:
        facts = _train(job, arguments)
    except (optuna.TrialPruned, ValueError) as error:
        is_pruned = isinstance(error, optuna.TrialPruned)
        study.abandon(job, TrialState.PRUNED if is_pruned else TrialState.FAIL)
        logger.warning("%s %s: %s", job.training.name, "is pruned" if is_pruned else "cannot be trained", error)
        return
    accuracy = _validation_accuracy(facts)
    study.finish(job, facts, value=accuracy)
    logger.info(
        "%s: %.2f %% on validation, %.2f %% on test (%.0f s)",
        job.training.name, 100 * accuracy, 100 * facts["test"]["accuracy"], time.monotonic() - began,
    )  # fmt: skip


def _train(job: Job, arguments: SearchArguments) -> Facts:
    """Run or resume a training unless it is finished, return its measurements, and delete its large files."""
    if not _is_finished(job.folder):
        callbacks = [PruningCallback(job.trial)] if arguments.prune and job.training.stage != plan.TOP else []
        train(*parse_recipe(_write_recipe(job, arguments)), callbacks=callbacks)
    facts = _read_facts(job.folder, job.training)
    for path in job.folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name not in KEPT:
            path.unlink()
    return facts


def _write_recipe(job: Job, arguments: SearchArguments) -> Path:
    """Write the recipe of a training; a resumed training keeps the precision with which it began."""
    recipe, bf16 = job.folder.with_suffix(".yaml"), arguments.bf16
    if recipe.is_file():
        bf16 = yaml.safe_load(recipe.read_text(encoding="utf-8"))["bf16"]
    changes = {**plan.changes_of(job.training, arguments), "bf16": bf16, "output_dir": str(job.folder)}
    return write_recipe(recipe, base=arguments.base, changes=changes)


def _is_finished(folder: Path) -> bool:
    return (folder / RECORD).is_file() and read_json(folder / RECORD)["finished"]


def _read_facts(folder: Path, training: Training) -> Facts:
    metrics, record = (read_json(folder / name) for name in (METRICS, RECORD))
    return {
        **{
            split: {name: metrics[split][name]["value"] for name in MEASURES}
            for split in ("validation", "test", "test_leak_free")
        },
        "n": {split: facts["n"] for split, facts in record["data"].items()},
        "best_epoch": metrics["best_epoch"],
        "parameters": n_parameters(training.topology),
        "bf16": bool(record["arguments"].get("bf16")),
        **{name: record[name] for name in ("seconds", "machine", "commit")},
    }


def _validation_accuracy(facts: Facts) -> float:
    return float(facts["validation"]["accuracy"])


def n_parameters(topology: Topology) -> int:
    """Count the parameters of a topology.

    >>> n_parameters(Topology(32, 2, 64, 1))
    141345
    """
    shape: dict[str, Any] = asdict(topology)
    return CifakeCnnForImageClassification(CifakeCnnConfig(**shape)).num_parameters()


class PruningCallback(TrainerCallback):
    """Report the validation accuracy of each epoch to a trial, and stop a training that falls behind the median."""

    def __init__(self, trial: optuna.Trial) -> None:
        self.trial = trial

    def on_evaluate(
        self,
        args: TrainingArguments,  # noqa: ARG002 - the Trainer's signature
        state: TrainerState,
        control: TrainerControl,  # noqa: ARG002
        **kwargs: Any,  # noqa: ANN401
    ) -> None:
        """Report the accuracy; raise `optuna.TrialPruned` if it is below the median."""
        epoch = round(state.epoch or 0)
        self.trial.report(kwargs["metrics"]["eval_accuracy"], epoch)
        if self.trial.should_prune():
            raise optuna.TrialPruned(f"below the median after {epoch} epochs")
