"""How a script is started in several processes of this machine."""

import socket
import sys
from pathlib import Path

ACCELERATE = str(Path(sys.executable).with_name("accelerate"))


def launcher(processes: int, *options: str) -> list[str]:
    """What a command line begins with to run a script in so many processes, that meet on a port nobody else has."""
    return [ACCELERATE, "launch", "--num_processes", str(processes), "--main_process_port", "0", *options]


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port
