"""Work shared out among processes of one machine: a function over much of it, in order."""

from collections.abc import Callable, Iterator, Sequence
from typing import Generic, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm

from realfake_hf.parallel import cores

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
