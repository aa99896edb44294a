"""A Gradio app in a process of its own, for benchmarks and tests that ask it over HTTP."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import httpx
import psutil

SPACE: Final = Path(__file__).resolve().parents[1] / "space"
_PATIENCE: Final = 180  # seconds until an app must be up


class Server:
    """A running app.

    Args:
        folder: where its log and temporary files go.
        script: what is run, with `--port`.
        python: that runs it.
        environment: of it, beside this process's; no Hub is asked unless it says so.

    Raises:
        RuntimeError: it did not come up; the message is its log.
    """

    def __init__(
        self,
        folder: Path,
        *,
        script: Path = SPACE / "app.py",
        python: str = sys.executable,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self.temporary, self.log = folder / "tmp", folder / "log.txt"
        self.temporary.mkdir(parents=True)
        given = {**os.environ, "HF_HUB_OFFLINE": "1", **(environment or {}), "TMPDIR": str(self.temporary)}
        given.pop("GRADIO_TEMP_DIR", None)
        began = time.perf_counter()
        with self.log.open("w") as log:
            words = [python, script.name, "--port", str(port)]
            self.process = subprocess.Popen(words, cwd=script.parent, env=given, stdout=log, stderr=log)
        self._wait()
        self.seconds_to_start = time.perf_counter() - began

    def _wait(self) -> None:
        deadline = time.monotonic() + _PATIENCE
        while time.monotonic() < deadline:
            try:
                httpx.get(f"{self.url}/config", timeout=5).raise_for_status()
            except httpx.HTTPError:
                if self.process.poll() is not None:
                    break
                time.sleep(0.1)
            else:
                return
        self.process.kill()
        self.process.wait()
        raise RuntimeError(f"the app did not come up: {self.log.read_text()}")

    def stop(self) -> None:
        """Stop it as a container is stopped, and wait until it is gone."""
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise

    def memory_mib(self) -> float:
        """Give the resident memory of its processes now; what they share is counted once for each."""
        app = psutil.Process(self.process.pid)
        return float(sum(one.memory_info().rss for one in [app, *app.children(recursive=True)]) / 2**20)

    def get(self, path: str) -> httpx.Response:
        """Ask a route of Gradio's API."""
        return httpx.get(f"{self.url}/gradio_api/{path}", timeout=60)

    def post(self, path: str, **settings: Any) -> httpx.Response:  # noqa: ANN401 - of httpx
        """Send to a route of Gradio's API."""
        return httpx.post(f"{self.url}/gradio_api/{path}", timeout=60, **settings)
