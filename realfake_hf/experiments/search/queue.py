"""The study that workers share: who trains what, what came of it, and whose worker is gone."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import optuna
from filelock import FileLock, Timeout
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import FrozenTrial, Trial, TrialState

from realfake_hf.experiments.search.plan import Topology, Training

logger = logging.getLogger(__name__)

JOURNAL: Final = "study.journal"
TRIALS: Final = "trials"
TRAINING: Final = "training"  # attribute of a trial: its training's name
FACTS: Final = "facts"  # attribute of a trial: what its training left

Facts = dict[str, Any]


@dataclass(frozen=True)
class Job:
    """A training that this worker has taken.

    Attributes:
        training: what it is.
        trial: its entry in the study.
        folder: where it is trained.
    """

    training: Training
    trial: Trial
    folder: Path


class SharedStudy:
    """One stage of the search, in a journal below a folder that any number of workers see.

    A worker holds the lock of the training that it has taken. Where the lock is free and the training is said to be
    running, its worker is gone, and the training waits for another one, who goes on from its last checkpoint.

    Args:
        folder: of the search.
        stage: its name.
        trainings: of the stage; all workers name the same ones.
        prunes: whether trainings that fall behind the median are stopped.
    """

    def __init__(self, folder: Path, stage: str, trainings: Sequence[Training], *, prunes: bool = False) -> None:
        self.folder = folder
        self._trainings = {one.name: one for one in trainings}
        (folder / TRIALS).mkdir(parents=True, exist_ok=True)
        journal = str(folder / JOURNAL)
        storage = JournalStorage(JournalFileBackend(journal, lock_obj=JournalFileOpenLock(journal)))
        pruner = optuna.pruners.MedianPruner() if prunes else optuna.pruners.NopPruner()
        self._lock = FileLock(str(folder / "study.lock"))
        with self._lock:
            self._study = optuna.create_study(
                storage=storage, study_name=stage, direction="maximize", load_if_exists=True, pruner=pruner,
                sampler=optuna.samplers.RandomSampler(seed=0),
            )  # fmt: skip
            known = {trial.user_attrs[TRAINING] for trial in self._trials()}
            for name, training in self._trainings.items():
                if name not in known:
                    self._study.enqueue_trial(training.parameters, user_attrs={TRAINING: name})

    @contextmanager
    def job(self) -> Iterator[Job | None]:
        """Take a training that waits, and hold it; None where none does."""
        with ExitStack() as held:
            with self._lock:
                job = self._take()
                if job is not None:
                    held.enter_context(self._lock_of(job.training))
            yield job

    def _take(self) -> Job | None:
        self._revive()
        if not any(trial.state == TrialState.WAITING for trial in self._trials()):
            return None
        trial = self._study.ask()
        training = self._trainings[trial.user_attrs[TRAINING]]
        for name in training.parameters:  # the study's own record
            trial.suggest_categorical(name, sorted({one.parameters[name] for one in self._trainings.values()}))
        return Job(training, trial, self.folder_of(training))

    def tell(self, job: Job, facts: Facts | None, *, value: float | None = None, pruned: bool = False) -> None:
        """Say what came of a training: its facts and the value that counts, that it was stopped, or that it failed."""
        if facts is not None:
            job.trial.set_user_attr(FACTS, facts)
        if value is not None:
            self._study.tell(job.trial, value)
        else:
            self._study.tell(job.trial, state=TrialState.PRUNED if pruned else TrialState.FAIL)

    @property
    def is_done(self) -> bool:
        """Whether no training waits or runs."""
        return self.waiting == 0

    @property
    def waiting(self) -> int:
        """How many trainings wait or run."""
        return sum(trial.state in (TrialState.WAITING, TrialState.RUNNING) for trial in self._trials())

    def finished(self) -> list[tuple[Training, Facts]]:
        """The trainings that came to their end, in the order of the plan."""
        found = {
            trial.user_attrs[TRAINING]: trial.user_attrs[FACTS]
            for trial in self._trials()
            if trial.state == TrialState.COMPLETE
        }
        return [(training, found[name]) for name, training in self._trainings.items() if name in found]

    def folder_of(self, training: Training) -> Path:
        """Where a training takes place."""
        return self.folder / TRIALS / training.name

    def _lock_of(self, training: Training) -> FileLock:
        return FileLock(f"{self.folder_of(training)}.lock")

    def _revive(self) -> None:
        """Let trainings wait again whose worker is gone."""
        for trial in self._trials():
            if trial.state != TrialState.RUNNING:
                continue
            training = self._trainings[trial.user_attrs[TRAINING]]
            try:
                with self._lock_of(training).acquire(timeout=0):
                    self._study.tell(trial.number, state=TrialState.FAIL)
                    self._study.enqueue_trial(training.parameters, user_attrs={TRAINING: training.name})
                    logger.warning("the worker of %s is gone: it is taken up again", training.name)
            except Timeout:
                continue  # at work

    def _trials(self) -> list[FrozenTrial]:
        return self._study.get_trials(deepcopy=False)


def ranked(studies: Sequence[SharedStudy], value: Callable[[Facts], float]) -> list[Topology]:
    """The topologies of all finished trainings, the best first; of equals the one that was named first."""
    found = [pair for study in studies for pair in study.finished()]
    return [training.topology for training, _ in sorted(found, key=lambda pair: -value(pair[1]))]
