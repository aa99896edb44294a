"""Work shared out: a function over much of it, in order, among processes or cores; and the processes of a launch."""

import os
import platform
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Generic, TypeVar

import torch
import torch.distributed
from accelerate import PartialState
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm

from realfake_hf.threads import cores

Work = TypeVar("Work")
Result = TypeVar("Result")

_CHUNK = 50  # items a worker takes at a time: few enough that large pictures fit into memory
_WORTH_A_PROCESS = 5_000  # items below which starting workers costs more than it saves
_MOST_WORKERS = 8


def in_chunks(
    function: Callable[[Sequence[Work]], Result], work: Sequence[Work], *, description: str
) -> Iterator[tuple[range, Result]]:
    """Yield `(positions, function(work[positions]))` chunk by chunk, in order.

    Long work is shared out among processes (a `DataLoader`'s workers), so `function` and `work` must pickle where
    processes are spawned. The bar on stderr counts items.
    """
    chunks = [range(start, min(start + _CHUNK, len(work))) for start in range(0, len(work), _CHUNK)]
    workers = min(cores(), _MOST_WORKERS) if len(work) >= _WORTH_A_PROCESS else 0
    calls = _Calls(function, work, chunks)
    own = torch.Generator()  # the loader draws a seed; the caller's random state is not touched
    loader = DataLoader(calls, batch_size=None, num_workers=workers, collate_fn=_as_is, generator=own)
    with tqdm(total=len(work), desc=description, unit="image", disable=None) as bar:
        for positions, result in zip(chunks, loader, strict=True):
            yield positions, result
            bar.update(len(positions))


def join_processes() -> PartialState:
    """Meet the other processes of `accelerate launch`, if any, before anything else asks who is the main one.

    Where there is no accelerator that has to be said: otherwise each of several processes takes itself for the only
    one.
    """
    return PartialState(cpu=not torch.accelerator.is_available())


def this_process() -> str:
    """Name this process of a launch, and its machine, for the log."""
    state = PartialState()
    return f"process {state.process_index} of {state.num_processes} on {platform.node()}"


class LostProcessError(OSError):
    """Another process of the job is gone, or cannot be reached any more."""


@contextmanager
def told_of_lost_processes() -> Iterator[None]:
    """Turn what PyTorch raises where another process has died into a sentence.

    Raises:
        LostProcessError: another process of the job is gone.
    """
    try:
        yield
    except RuntimeError as error:
        several = torch.distributed.is_available() and torch.distributed.is_initialized()
        reason = str(error).partition("\n")[0]
        if not several or not (isinstance(error, torch.distributed.DistError) or "gloo" in reason.lower()):
            raise
        raise LostProcessError(
            f"{this_process()} has lost another one ({reason.rpartition('] ')[2]}). What is finished is kept: start "
            "the same command on all machines again."
        ) from error


def cores_each(state: PartialState) -> int:
    """How many threads a process may put to a model: its share of the cores, or one beside an accelerator."""
    beside = int(os.environ.get("LOCAL_WORLD_SIZE", state.num_processes))  # set where there are several machines
    return max(1, cores() // beside) if state.device.type == "cpu" else 1


class _Calls(Dataset[Result], Generic[Work, Result]):
    def __init__(
        self, function: Callable[[Sequence[Work]], Result], work: Sequence[Work], chunks: Sequence[range]
    ) -> None:
        self.function, self.work, self.chunks = function, work, chunks

    def __len__(self) -> int:
        return len(self.chunks)

    def __getitem__(self, index: int) -> Result:
        positions = self.chunks[index]
        return self.function(self.work[positions.start : positions.stop])


def _as_is(result: Result) -> Result:
    return result
