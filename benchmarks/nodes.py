"""Two machines in one: network namespaces joined by a virtual cable, or, where the system forbids that, loopback."""

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from benchmarks.launch import ACCELERATE, free_port

ROOT = Path(__file__).parents[1]
CONFIG = ROOT / "recipes/accelerate/two_nodes.yaml"
NAMES = (f"realfake-a-{os.getpid()}", f"realfake-b-{os.getpid()}")
ADDRESSES = ("10.77.0.1", "10.77.0.2")


def ip(*words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Call iproute2."""
    return subprocess.run(["ip", *words], check=check, capture_output=True, text=True)


@contextmanager
def two_nodes() -> Iterator["Nodes"]:
    """Two namespaces and a cable between them; loopback twice where there is no `ip`, or no right to use it."""
    if os.geteuid() or shutil.which("ip") is None or ip("netns", "add", NAMES[0], check=False).returncode:
        with Nodes(are_apart=False) as nodes:
            yield nodes
        return
    try:
        ip("netns", "add", NAMES[1])
        ip("link", "add", "cable-a", "netns", NAMES[0], "type", "veth", "peer", "name", "cable-b", "netns", NAMES[1])
        for name, end, address in zip(NAMES, ("cable-a", "cable-b"), ADDRESSES, strict=True):
            ip("-n", name, "addr", "add", f"{address}/24", "dev", end)
            for link in (end, "lo"):
                ip("-n", name, "link", "set", link, "up")
        with Nodes(are_apart=True) as nodes:
            yield nodes
    finally:
        for name in NAMES:
            ip("netns", "del", name, check=False)


class Nodes:
    """Where a script is started on both machines; what still runs at the end of the `with` is killed.

    Args:
        are_apart: each has a network of its own.
    """

    root = ROOT

    def __init__(self, *, are_apart: bool) -> None:
        self.are_apart = are_apart
        self._started: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> "Nodes":
        return self

    def __exit__(self, *_: object) -> None:
        for one in self._started:
            with suppress(ProcessLookupError):
                os.killpg(one.pid, signal.SIGKILL)
            one.wait()

    def start(self, words: Sequence[str | Path], folder: Path) -> list[subprocess.Popen[bytes]]:
        """Start `accelerate launch` on each; give the two processes, each with a log in the folder."""
        port = free_port()
        return [self._start(rank, words, folder, port) for rank in (0, 1)]

    @contextmanager
    def cut(self) -> Iterator[None]:
        """Without the cable, as if the other machine had lost its power; wants machines that are apart."""
        ip("-n", NAMES[1], "link", "set", "cable-b", "down")
        try:
            yield
        finally:
            ip("-n", NAMES[1], "link", "set", "cable-b", "up")

    def _start(self, rank: int, words: Sequence[str | Path], folder: Path, port: int) -> subprocess.Popen[bytes]:
        command = [ACCELERATE, "launch", "--config_file", str(CONFIG), "--machine_rank", str(rank)]
        command += ["--main_process_ip", ADDRESSES[0] if self.are_apart else "127.0.0.1"]
        command += ["--main_process_port", str(port), *map(str, words)]
        end = ("cable-a", "cable-b")[rank] if self.are_apart else "lo"
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "GLOO_SOCKET_IFNAME": end}
        if self.are_apart:
            command = ["ip", "netns", "exec", NAMES[rank], *command]
        with (folder / f"node-{rank}.log").open("w") as log:
            one = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log, start_new_session=True)
        self._started.append(one)
        return one
