"""The models of the page. They run in a process of their own, which opens no upload, and are loaded on first use."""

import json
import logging
import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import cached_property
from multiprocessing import get_context
from multiprocessing.context import BaseContext
from pathlib import Path
from tempfile import gettempdir
from typing import TYPE_CHECKING, Any, Final, TypeVar

from realfake_hf.labels import Verdict
from realfake_space import worker
from realfake_space.reader import LimitError, Readers
from realfake_space.uploads import RejectedError, Upload
from realfake_space.worker import BATCH, ModelFacts, Prediction, Source

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

MODELS: Final = Path(__file__).resolve().parents[1] / "models"
FIRST: Final = "wild"  # the model that answers if none is named
PINNED: Final = MODELS.with_name("pinned.json")
ATTEMPTS: Final = 2  # processes that may die on an image before it is rejected
SLOW_FILES: Final = 3  # of one request
PRELOADED: Final = (
    "captum.attr", "datasets", "sklearn.covariance", "transformers.modeling_utils", "realfake_hf.detector",
    "realfake_hf.data.metadata", "PIL.AvifImagePlugin", "PIL.BmpImagePlugin", "PIL.GifImagePlugin",
    "PIL.JpegImagePlugin", "PIL.PngImagePlugin", "PIL.TiffImagePlugin", "PIL.WebPImagePlugin",
)  # fmt: skip  # slow to import
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
        raise RejectedError(f"No verdict: the process of the models died {ATTEMPTS} times on this image.")

    def close(self) -> None:
        """End the process at once; must be called before the interpreter shuts down."""
        with self._lock:
            pool, self._pool, self._is_closed = self._pool, None, True
        if pool is not None:
            for process in list((pool._processes or {}).values()):
                process.kill()
            pool.shutdown(wait=False, cancel_futures=True)

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
        readers: the processes that read uploads.
    """

    def __init__(self, name: str, source: Source, process: ModelProcess, readers: Readers) -> None:
        self.name = name
        self.source = source
        self.readers = readers
        self._process = process
        self._queue: deque[tuple[NDArray[np.uint8], Future[Verdict]]] = deque()
        self._batch = threading.Lock()
        self._whole = threading.Lock()

    def close(self) -> None:
        """End all processes at once, those of other models as well."""
        self.readers.close()
        self._process.close()

    @cached_property
    def facts(self) -> ModelFacts:
        """What the page needs to know about the model, which is loaded.

        Raises:
            OSError: there is no such model, or its weights are not safetensors.
            ValueError: its labels are not real and fake.
        """
        return self._process.call(worker.facts_of, self.source)

    def predict(self, paths: Sequence[str | None], *, slow: set[str] | None = None) -> list[Prediction | str | None]:
        """Predict uploads in order; a message for a rejected file, None for no file.

        Args:
            paths: of the uploads.
            slow: files of the same request that passed a limit; after `SLOW_FILES` of them no others are read.
        """
        slow = set() if slow is None else slow
        opened = [None if path is None else self._read(path, slow) for path in paths]
        geometry = self.facts.geometry
        verdicts: Iterator[Verdict | str]
        if geometry:
            verdicts = iter(self._judge([item.resized[geometry] for item in opened if isinstance(item, Upload)]))
        else:
            readable = (path for path, item in zip(paths, opened, strict=True) if isinstance(item, Upload) and path)
            verdicts = map(self._judge_whole, readable)
        results: list[Prediction | str | None] = []
        for item in opened:
            if not isinstance(item, Upload):
                results.append(item)
                continue
            verdict = next(verdicts)
            results.append(Prediction(verdict, item.size, item.metadata) if isinstance(verdict, Verdict) else verdict)
        return results

    def explain(self, path: str, method: str | None, strength: float) -> tuple[bytes, dict[str, Any]]:
        """Return a map over an upload as the bytes of a PNG, and its description; None means the default method.

        Raises:
            RejectedError: the file is rejected.
            ValueError: the model does not support the method.
        """
        geometry = self.facts.geometry
        upload = self.readers.read(path, geometry, view=True)
        if geometry:
            image, view = upload.resized[geometry], upload.view
            png, about = self._process.call(worker.explain, self.source, image, view, method, strength)
        else:
            with self._whole:
                whole = self.readers.read(path, whole=True).whole
                png, about = self._process.call(worker.explain, self.source, whole, None, method, strength)
        return png, {"model": self.name, **about}

    def _read(self, path: str, slow: set[str]) -> Upload | str:
        """Read a file that the model can predict; return a message if it is rejected."""
        if len(slow) >= SLOW_FILES and path not in slow:
            return f"No verdict: {SLOW_FILES} files before this one took too much time or memory. Upload it by itself."
        try:
            return self.readers.read(path, self.facts.geometry)
        except RejectedError as error:
            if isinstance(error, LimitError):
                slow.add(path)
            return str(error)

    def _judge(self, images: "Sequence[NDArray[np.uint8]]") -> list[Verdict | str]:
        """Predict images of the model's geometry, in batches with those of threads that wait; or return a message."""
        own = [(image, Future[Verdict]()) for image in images]
        self._queue.extend(own)
        with self._batch:
            while not all(future.done() for _, future in own):
                self._predict([self._queue.popleft() for _ in range(min(BATCH, len(self._queue)))])
        rejected = [isinstance(future.exception(), RejectedError) for _, future in own]
        return [str(each.exception()) if bad else each.result() for bad, (_, each) in zip(rejected, own, strict=True)]

    def _predict(self, batch: "Sequence[tuple[NDArray[np.uint8], Future[Verdict]]]") -> None:
        try:
            verdicts = self._process.call(worker.predict, self.source, [image for image, _ in batch])
        except Exception as error:  # noqa: BLE001 - for the threads that wait
            if isinstance(error, RejectedError) and len(batch) > 1:
                for item in batch:  # find the image on which the process dies
                    self._predict([item])
                return
            for _, future in batch:
                future.set_exception(error)
            return
        for (_, future), verdict in zip(batch, verdicts, strict=True):
            future.set_result(verdict)

    def _judge_whole(self, path: str) -> Verdict | str:
        """Predict a file whose processor needs the whole image; one at a time, as an image may take 256 MiB."""
        try:
            with self._whole:
                whole = self.readers.read(path, whole=True).whole
                [verdict] = self._process.call(worker.predict, self.source, [whole])
        except RejectedError as error:
            return str(error)
        return verdict


def _context() -> BaseContext:
    """Return how to start the process: where possible, forked from a server that has imported the libraries.

    A process that dies is then replaced without waiting for imports. If the folder runs by itself, the server does not
    find the package, which each new process imports.
    """
    if sys.platform != "linux" or len(os.fsencode(gettempdir())) > MAX_TEMPORARY:
        return get_context("spawn")
    context = get_context("forkserver")
    context.set_forkserver_preload([*PRELOADED])
    return context


def find_models(places: Sequence[str], *, trust_remote_code: bool = False, float32: bool = False) -> dict[str, Model]:
    """Return the models of the page by name, without loading them: the name of a folder, or a Hub id.

    Args:
        places: folders or Hub ids; by default those in `pinned.json`, with their revisions, or else all folders in
            `models/`, `FIRST` before the others.
        trust_remote_code: whether code that comes with them may run.
        float32: predict in float32 also where bfloat16 is faster.

    Raises:
        ValueError: two models have the same name.
    """
    pinned = json.loads(PINNED.read_text(encoding="utf-8")) if PINNED.is_file() and not places else {}
    folders = sorted(filter(Path.is_dir, MODELS.glob("*")), key=lambda folder: (folder.name != FIRST, folder.name))
    chosen = list(places) or list(pinned) or [str(folder) for folder in folders]
    names = [Path(place).resolve().name if Path(place).is_dir() else place for place in chosen]
    if len(set(names)) < len(names):
        raise ValueError(f"wanted models with different names; found {', '.join(names)}. Rename a folder.")
    process, readers = ModelProcess(), Readers(_context())
    return {
        name: Model(name, Source(place, trust_remote_code, pinned.get(place, "main"), float32), process, readers)
        for name, place in zip(names, chosen, strict=True)
    }
