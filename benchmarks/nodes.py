"""Two machines in one: network namespaces joined by a virtual cable, or, where the system forbids that, loopback."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[1]
CONFIG = ROOT / "recipes/accelerate/two_nodes.yaml"
NAMES = ("realfake-a", "realfake-b")
ADDRESSES = ("10.77.0.1", "10.77.0.2")


def ip(*words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Call iproute2."""
    return subprocess.run(["ip", *words], check=check, capture_output=True, text=True)


@contextmanager
def two_nodes() -> Iterator["Nodes"]:
    """Two namespaces and a cable between them; loopback twice where there is no `ip`, or no right to use it."""
    if os.geteuid() or shutil.which("ip") is None or ip("netns", "add", NAMES[0], check=False).returncode:
        yield Nodes(are_apart=False)
        return
    try:
        ip("netns", "add", NAMES[1])
        ip("link", "add", "cable-a", "netns", NAMES[0], "type", "veth", "peer", "name", "cable-b", "netns", NAMES[1])
        for name, end, address in zip(NAMES, ("cable-a", "cable-b"), ADDRESSES, strict=True):
            ip("-n", name, "addr", "add", f"{address}/24", "dev", end)
            for link in (end, "lo"):
                ip("-n", name, "link", "set", link, "up")
        yield Nodes(are_apart=True)
    finally:
        for name in NAMES:
            ip("netns", "del", name, check=False)


class Nodes:
    """Where a script is started on both machines.

    Args:
        are_apart: each has a network of its own.
    """

    root = ROOT

    def __init__(self, *, are_apart: bool) -> None:
        self.are_apart = are_apart

    def start(self, words: Sequence[str | Path], folder: Path, *, port: int = 29500) -> list[subprocess.Popen[bytes]]:
        """Start `accelerate launch` on each; give the two processes, each with a log in the folder."""
        return [self._start(rank, words, folder, port) for rank in (0, 1)]

    def _start(self, rank: int, words: Sequence[str | Path], folder: Path, port: int) -> subprocess.Popen[bytes]:
        accelerate = str(Path(sys.executable).with_name("accelerate"))
        command = [accelerate, "launch", "--config_file", str(CONFIG), "--machine_rank", str(rank)]
        command += ["--main_process_ip", ADDRESSES[0] if self.are_apart else "127.0.0.1"]
        command += ["--main_process_port", str(port), *map(str, words)]
        end = ("cable-a", "cable-b")[rank] if self.are_apart else "lo"
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "GLOO_SOCKET_IFNAME": end}
        if self.are_apart:
            command = ["ip", "netns", "exec", NAMES[rank], *command]
        with (folder / f"node-{rank}.log").open("w") as log:
            return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log, start_new_session=True)
