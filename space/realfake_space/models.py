"""The models of the page. They run in a process of their own, and are loaded on first use."""

import json
import logging
import os
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import cached_property
from multiprocessing import get_context
from multiprocessing.context import BaseContext
from pathlib import Path
from tempfile import gettempdir
from typing import Any, Final, TypeVar

from realfake_space import worker
from realfake_space.uploads import RejectedError
from realfake_space.worker import ModelFacts, Prediction, Source

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

MODELS: Final = Path(__file__).resolve().parents[1] / "models"
PINNED: Final = MODELS.with_name("pinned.json")
ATTEMPTS: Final = 2  # processes that may die on a file before it is rejected
PRELOADED: Final = ("captum.attr", "datasets", "sklearn.covariance", "transformers.modeling_utils")  # slow to import
MAX_TEMPORARY: Final = 75  # bytes of the path of the temporary folder; a socket's path in it may have 107


class ModelProcess:
    """The process that holds all models and takes one call at a time; it starts with the first call.

    In the process of the page, a forward pass would compete for the interpreter with the threads of the page, and a
    crash of a decoder or a model would end the page.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pool: ProcessPoolExecutor | None = None
        self._is_closed = False

    def call(self, function: Callable[..., Result], *arguments: Any) -> Result:  # noqa: ANN401 - of the function
        """Call a function of `worker` there, in a new process if the previous one died.

        Raises:
            RejectedError: each process died in this call.
        """
        for _ in range(ATTEMPTS):
            pool = self._running()
            try:
                return pool.submit(function, *arguments).result()
            except BrokenProcessPool:
                logger.warning("the process of the models died; it is started again")
                self._forget(pool)
        raise RejectedError(f"No verdict: the process of the models died {ATTEMPTS} times on this file.")

    def close(self) -> None:
        """End the process at once; must be called before the interpreter shuts down."""
        with self._lock:
            pool, self._pool, self._is_closed = self._pool, None, True
        if pool is not None:
            for process in list((pool._processes or {}).values()):
                process.kill()
            pool.shutdown(cancel_futures=True)

    def _running(self) -> ProcessPoolExecutor:
        with self._lock:
            if self._is_closed:
                raise RejectedError("No verdict: the page is being closed.")
            if self._pool is None:
                self._pool = ProcessPoolExecutor(1, _context(), initializer=worker.begin)
            return self._pool

    def _forget(self, pool: ProcessPoolExecutor) -> None:
        with self._lock:
            if self._pool is pool:
                self._pool = None


class Model:
    """One model of the page.

    Args:
        name: displayed on the page.
        source: source of the model.
        process: the process that holds it.
    """

    def __init__(self, name: str, source: Source, process: ModelProcess) -> None:
        self.name = name
        self.source = source
        self._process = process

    def close(self) -> None:
        """End the process that holds it."""
        self._process.close()

    @cached_property
    def facts(self) -> ModelFacts:
        """What the page needs to know about the model, which is loaded.

        Raises:
            OSError: there is no such model, or its weights are not safetensors.
            ValueError: its labels are not real and fake.
        """
        return self._process.call(worker.facts_of, self.source)

    def predict(self, paths: Sequence[str | None]) -> list[Prediction | str | None]:
        """Predict uploads in order; a message for a rejected file, None for no file."""
        try:
            return self._process.call(worker.predict, self.source, paths)
        except RejectedError as error:
            if len(paths) == 1:
                return [str(error)]
            return [self.predict([path])[0] for path in paths]  # find the file on which the process dies

    def explain(self, path: str, method: str | None, strength: float) -> tuple[bytes, dict[str, Any]]:
        """Return a map over an upload as the bytes of a PNG, and its description; None means the default method.

        Raises:
            RejectedError: the file is rejected.
            ValueError: the model does not support the method.
        """
        png, about = self._process.call(worker.explain, self.source, path, method, strength)
        return png, {"model": self.name, **about}


def _context() -> BaseContext:
    """Return how to start the process: where possible, forked from a server that has imported the libraries.

    A process that dies is then replaced without waiting for imports. If the folder runs by itself, the server does not
    find the package, which each new process imports.
    """
    if sys.platform != "linux" or len(os.fsencode(gettempdir())) > MAX_TEMPORARY:
        return get_context("spawn")
    context = get_context("forkserver")
    context.set_forkserver_preload([*PRELOADED, "realfake_hf.detector"])
    return context


def find_models(places: Sequence[str], *, trust_remote_code: bool = False, float32: bool = False) -> dict[str, Model]:
    """Return the models of the page by name, without loading them: the name of a folder, or a Hub id.

    Args:
        places: folders or Hub ids; by default those in `pinned.json`, with their revisions, or else all folders in
            `models/`.
        trust_remote_code: whether code that comes with them may run.
        float32: predict in float32 also where bfloat16 is faster.

    Raises:
        ValueError: two models have the same name.
    """
    pinned = json.loads(PINNED.read_text(encoding="utf-8")) if PINNED.is_file() and not places else {}
    chosen = list(places) or list(pinned) or [str(folder) for folder in sorted(MODELS.iterdir()) if folder.is_dir()]
    names = [Path(place).resolve().name if Path(place).is_dir() else place for place in chosen]
    if len(set(names)) < len(names):
        raise ValueError(f"wanted models with different names; found {', '.join(names)}. Rename a folder.")
    process = ModelProcess()
    return {
        name: Model(name, Source(place, trust_remote_code, pinned.get(place, "main"), float32), process)
        for name, place in zip(names, chosen, strict=True)
    }
