"""The processes of a distributed launch: join them, share the cores, and report when another one is lost."""

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

TIMEOUT: Final = 30  # seconds without an answer after which a machine counts as lost


class LostProcessError(OSError):
    """Another process of the launch has died or cannot be reached."""


def join_processes(*, timeout: int = TIMEOUT) -> PartialState:
    """Join the other processes of `accelerate launch`, if any; call it before any other use of accelerate.

    Without an accelerator, each of several processes would otherwise act as the main process. A machine counts as
    lost after `timeout` seconds without an answer. The kernels exchange these messages, so the duration of a
    computation is not limited.
    """
    state = PartialState(cpu=not torch.accelerator.is_available())
    if state.num_processes > 1:
        _enable_keepalive(timeout)
    return state


def this_process() -> str:
    """Return the name of this process and its machine for logs."""
    state = PartialState()
    return f"process {state.process_index} of {state.num_processes} on {platform.node()}"


@contextmanager
def report_lost_processes() -> Iterator[None]:
    """Convert the exceptions of PyTorch after the loss of another process of the launch to `LostProcessError`."""
    try:
        yield
    except RuntimeError as error:
        is_distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
        reason = str(error).partition("\n")[0]
        is_connection_error = isinstance(error, torch.distributed.DistError) or "gloo" in reason.lower()
        if not is_distributed or not is_connection_error:
            raise
        raise LostProcessError(
            f"{this_process()} lost another process ({reason.rpartition('] ')[2]}). Finished work is kept: to resume, "
            "repeat the command on all machines."
        ) from error


def cores_each(state: PartialState) -> int:
    """Return the number of threads of a process for its model: its share of the cores, or 1 with an accelerator."""
    local_processes = int(os.environ.get("LOCAL_WORLD_SIZE", state.num_processes))  # set if there are several machines
    return max(1, available_cores() // local_processes) if state.device.type == "cpu" else 1


def _enable_keepalive(timeout: int) -> None:
    """Let the kernel check the other machine of every open connection.

    The connections of a dead process are closed, which the other processes detect immediately. A machine without power
    or network closes nothing, and PyTorch would wait for half an hour.
    """
    options = {  # some systems lack some of them
        "TCP_KEEPIDLE": max(1, timeout // 3),
        "TCP_KEEPINTVL": max(1, timeout // 6),
        "TCP_KEEPCNT": 4,
        "TCP_USER_TIMEOUT": timeout * 1000,  # milliseconds for which sent data may remain unacknowledged
    }
    for connection in psutil.Process().net_connections("tcp"):
        if connection.status == psutil.CONN_ESTABLISHED:
            with (
                suppress(OSError),  # the connection may have been closed
                socket.fromfd(connection.fd, connection.family, connection.type) as other,
            ):
                other.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                for name in options.keys() & vars(socket).keys():
                    other.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), options[name])
