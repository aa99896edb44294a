"""A stage of the search as an Optuna study, whose trainings several workers divide among them."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import optuna
from filelock import FileLock, Timeout
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import FrozenTrial, Trial, TrialState

from realfake_hf.experiments.search.plan import Training

logger = logging.getLogger(__name__)

JOURNAL: Final = "study.journal"
TRIALS: Final = "trials"
TRAINING: Final = "training"  # user attribute of a trial: the name of its training
FACTS: Final = "facts"  # user attribute of a trial: the measurements of its training

Facts = dict[str, Any]


@dataclass(frozen=True)
class Job:
    """A training that this worker has claimed, its trial in the study, and its output folder."""

    training: Training
    trial: Trial
    folder: Path


class SharedStudy:
    """A stage of the search, stored in an Optuna journal in a folder that all workers see.

    A worker holds the file lock of the training that it runs. If a trial is running and its lock is free, its worker
    has died; the trial is enqueued again and resumes from its last checkpoint.

    Args:
        folder: folder of the search.
        stage: name of the study.
        trainings: all trainings of the stage; the same for all workers.
    """

    def __init__(self, folder: Path, stage: str, trainings: Sequence[Training]) -> None:
        self._folder = folder / TRIALS
        self._folder.mkdir(parents=True, exist_ok=True)
        self._trainings = {training.name: training for training in trainings}
        self._lock = FileLock(folder / "study.lock")
        journal = str(folder / JOURNAL)
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

    @contextmanager
    def job(self) -> Iterator[Job | None]:
        """Claim a waiting training for the duration of the context; None if none is waiting."""
        with ExitStack() as locks:
            with self._lock:
                job = self._claim()
                if job is not None:
                    locks.enter_context(self._lock_of(job.training))
            yield job

    def finish(self, job: Job, facts: Facts, *, value: float) -> None:
        """Record the measurements of a finished training, and the value by which trainings are ranked."""
        job.trial.set_user_attr(FACTS, facts)
        self._study.tell(job.trial, value)

    def abandon(self, job: Job, state: TrialState) -> None:
        """Record that a training failed or was pruned; it is not repeated."""
        self._study.tell(job.trial, state=state)

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
        training = self._training_of(trial)
        for name in training.parameters:  # recorded in the study
            choices = {other.parameters[name] for other in self._trainings.values()}
            trial.suggest_categorical(name, sorted(choices))
        return Job(training, trial, self._folder / training.name)

    def _requeue_orphans(self) -> None:
        """Enqueue the running trainings whose worker has died."""
        for trial in self._trials(TrialState.RUNNING):
            training = self._training_of(trial)
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

    def _training_of(self, trial: Trial | FrozenTrial) -> Training:
        return self._trainings[trial.user_attrs[TRAINING]]

    def _lock_of(self, training: Training) -> FileLock:
        return FileLock(self._folder / f"{training.name}.lock")

    def _trials(self, *states: TrialState) -> list[FrozenTrial]:
        return self._study.get_trials(deepcopy=False, states=states)
