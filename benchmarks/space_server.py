"""Run a Gradio app in a process of its own, for benchmarks and tests over HTTP."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from benchmarks.launch import ROOT

if TYPE_CHECKING:
    import httpx

SPACE: Final = ROOT / "space"
_TIMEOUT: Final = 180  # seconds until an app must have started


class Server:
    """A running app.

    Args:
        folder: folder of its log and temporary files.
        script: to run, with `--port`.
        python: interpreter that runs it.
        environment: additional environment variables; the app is offline unless they say otherwise.

    Raises:
        RuntimeError: it did not start; the message is its log.
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
        variables = {**os.environ, "HF_HUB_OFFLINE": "1", **(environment or {}), "TMPDIR": str(self.temporary)}
        variables.pop("GRADIO_TEMP_DIR", None)
        began = time.perf_counter()
        with self.log.open("w") as log:
            words = [python, script.name, "--port", str(port)]
            self.process = subprocess.Popen(words, cwd=script.parent, env=variables, stdout=log, stderr=log)
        self._wait()
        self.seconds_to_start = time.perf_counter() - began

    def _wait(self) -> None:
        import httpx

        deadline = time.monotonic() + _TIMEOUT
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                httpx.get(f"{self.url}/config", timeout=5).raise_for_status()
            except httpx.HTTPError:
                time.sleep(0.1)
            else:
                return
        self.process.kill()
        self.process.wait()
        raise RuntimeError(f"the app did not start: {self.log.read_text()}")

    def stop(self) -> None:
        """Terminate it as a container does, and wait for its end."""
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise

    def memory_mib(self) -> float:
        """Return the resident memory of its processes; shared pages count once for each."""
        import psutil

        app = psutil.Process(self.process.pid)
        return float(sum(each.memory_info().rss for each in [app, *app.children(recursive=True)]) / 2**20)

    def get(self, path: str) -> "httpx.Response":
        """Send a GET request to Gradio's API."""
        import httpx

        return httpx.get(f"{self.url}/gradio_api/{path}", timeout=60)

    def post(self, path: str, **settings: Any) -> "httpx.Response":  # noqa: ANN401 - of httpx
        """Send a POST request to Gradio's API."""
        import httpx

        return httpx.post(f"{self.url}/gradio_api/{path}", timeout=60, **settings)
