"""A function over much work in threads, one item on one core."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain, islice
from typing import TypeVar

import torch

Work = TypeVar("Work")
Result = TypeVar("Result")


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


def in_threads(
    function: Callable[[Work], Result], work: Iterable[Work], *, workers: int | None = None
) -> Iterator[Result]:
    """Yield `function(item)` of each item, in order, one item on one core: for batches that go through a model.

    Two cores with a batch each do more than two that share one. PyTorch computes an item with one thread, so that its
    sums do not depend on how many cores there are. Items are taken in the caller's thread, as many ahead as there are
    workers.

    Args:
        function: any number of threads may call it together.
        work: as long as one likes.
        workers: threads; by default one for each core, but the caller's own and all of PyTorch's for an item that is
            alone.
    """
    items = iter(work)
    first = list(islice(items, 2))
    if workers is None and len(first) < 2:  # noqa: PLR2004
        yield from map(function, first)
        return
    threads = torch.get_num_threads()
    many = workers or cores()
    results: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(many, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        try:
            for item in chain(first, items):
                results.append(pool.submit(function, item))
                if len(results) > many:
                    yield results.popleft().result()
            while results:
                yield results.popleft().result()
        finally:
            torch.set_num_threads(threads)  # a worker's setting is its own, but also what new threads begin with
            pool.shutdown(cancel_futures=True)
