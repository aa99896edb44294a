"""The models of the page, in a process of their own: loaded when first asked for, one question at a time."""

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

from realfake_space import model_process
from realfake_space.model_process import Judged, ModelFacts, Source
from realfake_space.pictures import RefusedError

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

MODELS: Final = Path(__file__).resolve().parents[1] / "models"
PINNED: Final = MODELS.with_name("pinned.json")
ATTEMPTS: Final = 2  # with a process that ends, before a picture is refused
LIBRARIES: Final = ("captum.attr", "datasets", "sklearn.covariance", "transformers.modeling_utils")  # the slow ones
ROOM: Final = 75  # bytes at most of the temporary folder's path, in which a socket is made; its own has 107 at most


class ModelProcess:
    """The process that holds the page's models and takes one call after the other; it starts with the first one.

    A forward pass beside the page's threads would wait for the interpreter between any two operations; and what kills
    a decoder or a model does not kill the page.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pool: ProcessPoolExecutor | None = None

    def work(self, call: Callable[..., Result], *arguments: Any) -> Result:  # noqa: ANN401 - those of the call
        """Call there; in a fresh process where the one before has ended.

        Raises:
            RefusedError: each process ended in this call.
        """
        for _ in range(ATTEMPTS):
            pool = self._running()
            try:
                return pool.submit(call, *arguments).result()
            except BrokenProcessPool:
                logger.warning("the models' process ended; another one is started")
                self._forget(pool)
        raise RefusedError("No verdict: the models' process ended each time that it came to this file.")

    def close(self) -> None:
        """Let it end before this process does: while an interpreter ends, the one may trip over the other."""
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown(cancel_futures=True)

    def _running(self) -> ProcessPoolExecutor:
        with self._lock:
            if self._pool is None:
                self._pool = ProcessPoolExecutor(1, _fresh(), initializer=model_process.begin)
            return self._pool

    def _forget(self, pool: ProcessPoolExecutor) -> None:
        with self._lock:
            if self._pool is pool:
                self._pool = None


class Contestant:
    """One model of the page.

    Args:
        name: what the page calls it.
        source: where it comes from.
        process: that holds it.
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
        """What the page needs to know of the model, which is loaded for it.

        Raises:
            OSError: there is no such model, or its weights are not safetensors.
            ValueError: its labels do not say real and fake.
        """
        return self._process.work(model_process.facts_of, self.source)

    def judge(self, paths: Sequence[str | None]) -> list[Judged | str | None]:
        """Judge uploads in order; a sentence for a file that gets no verdict, None where there is no file."""
        try:
            return self._process.work(model_process.judge, self.source, paths)
        except RefusedError as error:
            if len(paths) == 1:
                return [str(error)]
            return [self.judge([path])[0] for path in paths]  # one of them ends the process: the others get answers

    def explain(self, path: str, method: str | None, strength: float) -> tuple[bytes, dict[str, Any]]:
        """Lay a map over an upload, as the bytes of a PNG, and say what it is; the usual method where none is named.

        Raises:
            RefusedError: the file gets no verdict.
            ValueError: the method does not fit the model.
        """
        shown, about = self._process.work(model_process.explain, self.source, path, method, strength)
        return shown, {"model": self.name, **about}


def _fresh() -> BaseContext:
    """How a process begins that knows nothing of the page: where that works, forked with the libraries imported.

    A process that ends is then replaced without waiting for imports. The package itself is not found there where the
    folder runs by itself: then each new process imports it.
    """
    if sys.platform != "linux" or len(os.fsencode(gettempdir())) > ROOM:
        return get_context("spawn")
    context = get_context("forkserver")
    context.set_forkserver_preload([*LIBRARIES, "realfake_hf.detector"])
    return context


def line_up(places: Sequence[str], *, trust_remote_code: bool = False, float32: bool = False) -> dict[str, Contestant]:
    """Name the models of the page, without loading them: a folder by its last part, a Hub id by itself.

    Args:
        places: folders or Hub ids; none for those that `pinned.json` names with their revisions, and where there is no
            such file for all folders of `models/`.
        trust_remote_code: whether code that comes with them may run.
        float32: whether they judge in float32 whatever the processor has.

    Raises:
        ValueError: two have one name.
    """
    pinned = json.loads(PINNED.read_text(encoding="utf-8")) if PINNED.is_file() and not places else {}
    found = list(places) or list(pinned) or [str(folder) for folder in sorted(MODELS.iterdir()) if folder.is_dir()]
    names = [Path(place).resolve().name if Path(place).is_dir() else place for place in found]
    if len(set(names)) < len(names):
        raise ValueError(f"wanted models of different names; found {', '.join(names)}. Rename a folder.")
    process = ModelProcess()
    return {
        name: Contestant(name, Source(place, trust_remote_code, pinned.get(place, "main"), float32), process)
        for name, place in zip(names, found, strict=True)
    }
