"""Launch a script in several processes of this machine, or on two simulated machines.

The two machines are network namespaces joined by a virtual cable, which requires root and iproute2. Without them, both
are this machine and meet on loopback.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
CONFIG: Final = ROOT / "recipes/accelerate/two_nodes.yaml"
NAMES: Final = (f"realfake-a-{os.getpid()}", f"realfake-b-{os.getpid()}")
ADDRESSES: Final = ("10.77.0.1", "10.77.0.2")
CABLE: Final = ("cable-a", "cable-b")
_ACCELERATE: Final = str(Path(sys.executable).with_name("accelerate"))


def launcher(processes: int, *options: str) -> list[str]:
    """Return the words that precede a script to run it in several processes, which meet on a free port."""
    return [_ACCELERATE, "launch", "--num_processes", str(processes), "--main_process_port", "0", *options]


@contextmanager
def two_nodes() -> Iterator["Nodes"]:
    """Set up two machines; whatever still runs on them at the end is killed."""
    is_apart = os.geteuid() == 0 and shutil.which("ip") is not None and _add_namespace(NAMES[0])
    nodes = Nodes(are_apart=is_apart)
    try:
        if is_apart:
            _connect()
        yield nodes
    finally:
        nodes.kill()
        for name in NAMES if is_apart else ():
            _ip("netns", "del", name, check=False)


class Nodes:
    """Two machines.

    Args:
        are_apart: whether each has a network of its own.
    """

    def __init__(self, *, are_apart: bool) -> None:
        self.are_apart = are_apart
        self._started: list[subprocess.Popen[bytes]] = []

    def start(self, words: Sequence[str | Path], folder: Path) -> list[subprocess.Popen[bytes]]:
        """Start `accelerate launch` with a script on both machines.

        Args:
            words: the script and its arguments.
            folder: folder of the logs, `node-0.log` and `node-1.log`.

        Returns:
            The two launchers.
        """
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        return [self._start(rank, words, folder, port) for rank in (0, 1)]

    @contextmanager
    def cut(self) -> Iterator[None]:
        """Disconnect the cable, as if the other machine had lost power; requires machines that are apart."""
        _ip("-n", NAMES[1], "link", "set", CABLE[1], "down")
        try:
            yield
        finally:
            _ip("-n", NAMES[1], "link", "set", CABLE[1], "up")

    def kill(self) -> None:
        """Kill everything that was started."""
        for process in self._started:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def _start(self, rank: int, words: Sequence[str | Path], folder: Path, port: int) -> subprocess.Popen[bytes]:
        command = [_ACCELERATE, "launch", "--config_file", str(CONFIG), "--machine_rank", str(rank)]
        command += ["--main_process_ip", ADDRESSES[0] if self.are_apart else "127.0.0.1"]
        command += ["--main_process_port", str(port), *map(str, words)]
        interface = CABLE[rank] if self.are_apart else "lo"
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "GLOO_SOCKET_IFNAME": interface}
        if self.are_apart:
            command = ["ip", "netns", "exec", NAMES[rank], *command]
        with (folder / f"node-{rank}.log").open("w") as log:
            process = subprocess.Popen(
                command, cwd=ROOT, env=environment, stdout=log, stderr=log, start_new_session=True
            )
        self._started.append(process)
        return process


def _add_namespace(name: str) -> bool:
    return _ip("netns", "add", name, check=False).returncode == 0


def _connect() -> None:
    _ip("netns", "add", NAMES[1])
    _ip("link", "add", CABLE[0], "netns", NAMES[0], "type", "veth", "peer", "name", CABLE[1], "netns", NAMES[1])
    for name, end, address in zip(NAMES, CABLE, ADDRESSES, strict=True):
        _ip("-n", name, "addr", "add", f"{address}/24", "dev", end)
        for link in (end, "lo"):
            _ip("-n", name, "link", "set", link, "up")


def _ip(*words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["ip", *words], check=check, capture_output=True, text=True)
