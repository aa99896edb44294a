"""A worker of the search. The workers divide the trainings of each stage among them, in an Optuna study."""

import logging
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import optuna
import yaml
from filelock import FileLock, Timeout
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import FrozenTrial, Trial, TrialState
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from realfake_hf.environment import environment
from realfake_hf.experiments.search import plan
from realfake_hf.experiments.search.plan import SearchArguments, Topology, Training
from realfake_hf.experiments.trainings import write_recipe
from realfake_hf.models.cifake_cnn import CifakeCnnConfig, CifakeCnnForImageClassification
from realfake_hf.run_folder import HISTORY, METRICS, RECORD
from realfake_hf.store import begin_or_resume, read_json
from realfake_hf.training.run import train

logger = logging.getLogger(__name__)

TRAINING: Final = "training"  # user attribute of a trial: the name of its training
FACTS: Final = "facts"  # user attribute of a trial: the measurements of its training
KEPT: Final = (METRICS, HISTORY, RECORD)  # files of a finished training that are not deleted
MEASURES: Final = ("accuracy", "precision", "recall", "f1", "roc_auc", "nll")
POLL: Final = 2.0  # seconds between reads of the study while other workers run its last trainings

Facts = dict[str, Any]


def search(arguments: SearchArguments) -> Iterator[dict[str, Any]]:
    """Run trainings of the search, beside any number of other workers, until all are finished.

    Yield the results so far as plain JSON, after each training of this worker and at the end. `waiting` is the number
    of unfinished trainings of the stages that have begun.
    """
    settings = {**_settings(arguments), "recipe": Path(arguments.base).read_text(encoding="utf-8")}
    arguments.output_dir.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{arguments.output_dir}.lock"):  # several workers may start at once
        begin_or_resume(arguments.output_dir / "search.json", settings, what="search")
    stages: list[SharedStudy] = []

    def run(stage: str, trainings: Sequence[Training]) -> Iterator[dict[str, Any]]:
        study = SharedStudy(arguments.output_dir, stage, trainings)
        stages.append(study)
        while study.n_unfinished:
            if study.run_next(lambda job: _train(job, arguments)):
                yield _results(arguments, stages)
            else:
                time.sleep(POLL)

    yield from run(plan.EXTRACTORS, plan.extractors(arguments))
    best = ranked(stages)
    if not best:
        raise ValueError("expected one or more trained extractors; found none. The log names the reasons.")
    yield from run(plan.HEADS, plan.heads(arguments, best[0]))
    yield from run(plan.TOP, plan.finalists(arguments, ranked(stages)))
    yield from run(plan.SEEDS, plan.with_other_seeds(arguments, ranked(stages[-1:])))
    yield _results(arguments, stages)


def _settings(arguments: SearchArguments) -> dict[str, Any]:
    """Return the settings that all workers share."""
    own = ("output_dir", "output_file", "figure_file", "bf16")
    return {name: value for name, value in vars(arguments).items() if name not in own}


def ranked(stages: "Sequence[SharedStudy]") -> list[Topology]:
    """Return the topologies of all completed trainings, the best on validation first; ties keep the plan's order."""
    completed = [pair for study in stages for pair in study.completed()]
    completed.sort(key=lambda pair: pair[1]["validation"]["accuracy"], reverse=True)
    return [training.topology for training, _ in completed]


def _results(arguments: SearchArguments, stages: "Sequence[SharedStudy]") -> dict[str, Any]:
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


@dataclass(frozen=True)
class Job:
    """A training that this worker has claimed, its trial in the study, and its output folder."""

    training: Training
    trial: Trial
    folder: Path


class SharedStudy:
    """A stage of the search, stored in an Optuna journal in a folder that all workers see.

    A worker holds the file lock of the training that it runs. If a trial is running and its lock is free, its worker
    has died; the trial is enqueued again and resumes from its last checkpoint. All workers give the same trainings.
    """

    def __init__(self, folder: Path, stage: str, trainings: Sequence[Training]) -> None:
        self._folder = folder / "trials"
        self._folder.mkdir(parents=True, exist_ok=True)
        self._trainings = {training.name: training for training in trainings}
        self._lock = FileLock(folder / "study.lock")
        journal = str(folder / "study.journal")
        with self._lock:
            self._study = optuna.create_study(
                storage=JournalStorage(JournalFileBackend(journal, lock_obj=JournalFileOpenLock(journal))),
                study_name=stage,
                direction="maximize",
                load_if_exists=True,
                pruner=optuna.pruners.MedianPruner(),
                sampler=optuna.samplers.RandomSampler(seed=0),
            )
            for training in trainings:
                self._enqueue(training, skip_if_exists=True)

    def run_next(self, work: Callable[[Job], Facts]) -> bool:
        """Claim a waiting training, run it, and record its measurements; return whether there was one.

        A training that fails with a `ValueError` or is pruned is not repeated.
        """
        with ExitStack() as locks:
            with self._lock:
                job = self._claim()
                if job is None:
                    return False
                locks.enter_context(self._lock_of(job.training))
            try:
                facts = work(job)
            except (optuna.TrialPruned, ValueError) as error:
                is_pruned = isinstance(error, optuna.TrialPruned)
                state, fate = (TrialState.PRUNED, "is pruned") if is_pruned else (TrialState.FAIL, "cannot be trained")
                self._study.tell(job.trial, state=state)
                logger.warning("%s %s: %s", job.training.name, fate, error)
                return True
            job.trial.set_user_attr(FACTS, facts)
            self._study.tell(job.trial, facts["validation"]["accuracy"])
        validation, test = (100 * facts[split]["accuracy"] for split in ("validation", "test"))
        logger.info("%s: %.2f %% on validation, %.2f %% on test", job.training.name, validation, test)
        return True

    @property
    def n_unfinished(self) -> int:
        """The number of trainings that are waiting or running."""
        return len(self._trials(TrialState.WAITING, TrialState.RUNNING))

    def completed(self) -> list[tuple[Training, Facts]]:
        """Return the completed trainings with their measurements, in the order of the plan."""
        facts = {trial.user_attrs[TRAINING]: trial.user_attrs[FACTS] for trial in self._trials(TrialState.COMPLETE)}
        return [(training, facts[name]) for name, training in self._trainings.items() if name in facts]

    def _claim(self) -> Job | None:
        self._requeue_orphans()
        if not self._trials(TrialState.WAITING):
            return None
        trial = self._study.ask()
        training = self._trainings[trial.user_attrs[TRAINING]]
        for name in training.parameters:  # recorded in the study
            choices = {other.parameters[name] for other in self._trainings.values()}
            trial.suggest_categorical(name, sorted(choices))
        return Job(training, trial, self._folder / training.name)

    def _requeue_orphans(self) -> None:
        """Enqueue the running trainings whose worker has died."""
        for trial in self._trials(TrialState.RUNNING):
            training = self._trainings[trial.user_attrs[TRAINING]]
            try:
                with self._lock_of(training).acquire(timeout=0):
                    self._study.tell(trial.number, state=TrialState.FAIL)
                    self._enqueue(training)
                    logger.warning("the worker of %s has died; the training is resumed", training.name)
            except Timeout:
                continue  # its worker is alive

    def _enqueue(self, training: Training, *, skip_if_exists: bool = False) -> None:
        name = {TRAINING: training.name}
        self._study.enqueue_trial(training.parameters, user_attrs=name, skip_if_exists=skip_if_exists)

    def _lock_of(self, training: Training) -> FileLock:
        return FileLock(self._folder / f"{training.name}.lock")

    def _trials(self, *states: TrialState) -> list[FrozenTrial]:
        return self._study.get_trials(deepcopy=False, states=states)


def _train(job: Job, arguments: SearchArguments) -> Facts:
    """Run or resume a training unless it is finished, return its measurements, and delete its large files."""
    record = job.folder / RECORD
    if not (record.is_file() and read_json(record)["finished"]):
        callbacks = [PruningCallback(job.trial)] if arguments.prune and job.training.stage != plan.TOP else []
        train(*_training_arguments(job, arguments), callbacks=callbacks)
    facts = _read_facts(job.folder, job.training.topology)
    for path in job.folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name not in KEPT:
            path.unlink()
    return facts


def _training_arguments(job: Job, arguments: SearchArguments) -> tuple[Any, ...]:
    """Write and parse the recipe of a training; a resumed training keeps the precision with which it began."""
    recipe, bf16 = job.folder.with_suffix(".yaml"), arguments.bf16
    if recipe.is_file():
        bf16 = yaml.safe_load(recipe.read_text(encoding="utf-8"))["bf16"]
    changes = {**plan.changes_of(job.training, arguments), "bf16": bf16, "output_dir": str(job.folder)}
    return write_recipe(recipe, base=arguments.base, changes=changes)


def _read_facts(folder: Path, topology: Topology) -> Facts:
    metrics, record = (read_json(folder / name) for name in (METRICS, RECORD))
    splits = ("validation", "test", "test_leak_free")
    return {
        **{split: {name: metrics[split][name]["value"] for name in MEASURES} for split in splits},
        "n": {split: facts["n"] for split, facts in record["data"].items()},
        "best_epoch": metrics["best_epoch"],
        "parameters": n_parameters(topology),
        "bf16": bool(record["arguments"].get("bf16")),
        **{name: record[name] for name in ("seconds", "machine", "commit")},
    }


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

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **logs: Any) -> None:  # noqa: ARG002, ANN401
        """Report the accuracy; raise `optuna.TrialPruned` if it is below the median."""
        epoch = round(state.epoch or 0)
        self.trial.report(logs["metrics"]["eval_accuracy"], epoch)
        if self.trial.should_prune():
            raise optuna.TrialPruned(f"below the median after {epoch} epochs")
