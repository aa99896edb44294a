"""Map a function over items on all cores of this machine, in threads or processes, in order."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain, islice
from typing import Final, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

_CHUNK: Final = 50  # items per call of the function: few enough for large images to fit into memory
_MIN_ITEMS: Final = 5_000  # below this, starting workers costs more than it saves
_MAX_WORKERS: Final = 8


def available_cores() -> int:
    """Return the number of cores available to this process."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


def map_in_threads(
    function: Callable[[Item], Result], items: Iterable[Item], *, workers: int | None = None
) -> Iterator[Result]:
    """Yield `function(item)` for each item of an iterable of any length, in order, each computed on one core.

    For the batches of a model this is faster than all cores on one batch. PyTorch uses one thread per item, so results
    do not depend on the number of cores. Items are drawn in the caller's thread, at most one more than workers. By
    default there is one worker per core, but a single item is computed in the caller's thread with all threads of
    PyTorch.
    """
    import torch

    rest = iter(items)
    first = list(islice(rest, 2))
    if workers is None and len(first) < 2:  # noqa: PLR2004
        yield from map(function, first)
        return
    threads = torch.get_num_threads()
    limit = workers or available_cores()
    results: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(limit, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        try:
            for item in chain(first, rest):
                results.append(pool.submit(function, item))
                if len(results) > limit:
                    yield results.popleft().result()
            while results:
                yield results.popleft().result()
        finally:
            torch.set_num_threads(threads)  # new threads inherit the setting of a worker
            pool.shutdown(cancel_futures=True)


def map_in_processes(
    function: Callable[[Sequence[Item]], Result], items: Sequence[Item], *, description: str
) -> Iterator[tuple[range, Result]]:
    """Yield `(positions, function(items[positions]))` chunk by chunk, in order, with a progress bar on stderr.

    Many items are distributed over the workers of a `DataLoader`, so `function` and `items` must be picklable if
    processes are spawned.
    """
    import torch
    from torch.utils.data import DataLoader
    from tqdm.auto import tqdm

    chunks = [range(start, min(start + _CHUNK, len(items))) for start in range(0, len(items), _CHUNK)]
    workers = min(available_cores(), _MAX_WORKERS) if len(items) >= _MIN_ITEMS else 0
    generator = torch.Generator()  # for the seed of the loader, instead of the global random state
    loader: DataLoader[Item] = DataLoader(
        items,  # type: ignore[arg-type]  # a map-style data set
        batch_sampler=chunks,  # type: ignore[arg-type]  # sequences of indices
        num_workers=workers,
        collate_fn=function,
        generator=generator,
    )
    with tqdm(total=len(items), desc=description, unit="image", disable=None) as bar:
        for positions, result in zip(chunks, loader, strict=True):
            yield positions, result
            bar.update(len(positions))
