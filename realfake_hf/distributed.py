"""The processes of one launch, on one machine or several: how they meet, and how each hears that another is gone."""

import os
import platform
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

import psutil
import torch
import torch.distributed
from accelerate import PartialState

from realfake_hf.parallel import available_cores

SILENCE: Final = 30  # seconds without an answer from a machine after which it counts as lost


class LostProcessError(OSError):
    """Another process of the job is gone, or cannot be reached any more."""


def join_processes(*, silence: int = SILENCE) -> PartialState:
    """Meet the other processes of `accelerate launch`, if any, before anything else asks who is the main one.

    Where there is no accelerator that has to be said: otherwise each of several processes takes itself for the only
    one.

    Args:
        silence: seconds without an answer from a machine after which it counts as lost, from here on. The kernels ask
            and answer: a process may be busy for as long as it likes.
    """
    state = PartialState(cpu=not torch.accelerator.is_available())
    if state.num_processes > 1:
        _ask_whether_others_live(silence)
    return state


def this_process() -> str:
    """Name this process of a launch, and its machine, for the log."""
    state = PartialState()
    return f"process {state.process_index} of {state.num_processes} on {platform.node()}"


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
    return max(1, available_cores() // beside) if state.device.type == "cpu" else 1


def _ask_whether_others_live(silence: int) -> None:
    """Have the kernel ask, on every open connection, whether the other end is still there.

    A process that dies closes its connections, and those that wait for it hear of that at once. A machine without
    power, or without network, closes nothing: PyTorch would wait for half an hour.
    """
    questions = {  # not every system has each
        "TCP_KEEPIDLE": max(1, silence // 3),
        "TCP_KEEPINTVL": max(1, silence // 6),
        "TCP_KEEPCNT": 4,
        "TCP_USER_TIMEOUT": silence * 1000,  # milliseconds that what was sent may lie unacknowledged
    }
    for connection in psutil.Process().net_connections("tcp"):
        if connection.status == psutil.CONN_ESTABLISHED:
            with (
                suppress(OSError),  # it may be closed since
                socket.fromfd(connection.fd, connection.family, connection.type) as other,
            ):
                other.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                for name in questions.keys() & vars(socket).keys():
                    other.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), questions[name])
