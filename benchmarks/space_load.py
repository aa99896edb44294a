"""The Space under load: many clients beside an app that only echoes, and a soak test of its memory.

`python -m benchmarks.space_load --output_file results/benchmark_space.json`
"""

import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from benchmarks.comparison import (
    MODELS,
    Pair,
    compare,
    measure_in_turn,
    number_of_rounds,
    report,
    results_file,
    run_benchmark,
)
from benchmarks.space_server import SPACE, Server
from realfake_hf.tables import markdown_table

if TYPE_CHECKING:
    import httpx

ECHO: Final = "echo app"
BARE: Final = "bare ViT, batched"
CNN, VIT = "cifake-cnn", "cifake-vit"
IMAGES: Final = tuple(sorted((SPACE / "examples").glob("*.jpg")))  # small ones, and a photograph of 640 x 427 pixels
PHOTOGRAPH: Final = SPACE / "examples/rocket.jpg"
GOAL: Final = 0.8
WARM_ANSWERS: Final = 20
WARM_UP: Final = 5.0  # seconds that are not counted


@dataclass
class Settings:
    """How many clients, and how long."""

    clients: int = field(default=50, metadata={"help": "Concurrent clients."})
    seconds: float = field(default=60, metadata={"help": "Duration of each measurement."})
    rounds: int = number_of_rounds(2)
    soak_seconds: float = field(default=600, metadata={"help": "Duration of the soak test."})
    output_file: Path = results_file("benchmark_space")


@dataclass
class Tally:
    """What clients received.

    Attributes:
        latencies: seconds of each answer, upload included.
        wrong: answers that were errors, or that differed from the first answer to the same image.
        lost: requests without an answer.
        seconds: duration that was counted.
    """

    latencies: list[float]
    wrong: int
    lost: int
    seconds: float

    def to_dict(self) -> dict[str, float]:
        """Return counts, rate and percentiles of the latency in seconds."""
        import numpy as np

        p50, p95 = np.percentile(self.latencies, [50, 95]).tolist()
        n = len(self.latencies)
        rates = {"n": n, "per_second": n / self.seconds, "p50": p50, "p95": p95}
        return {**rates, "wrong": self.wrong, "lost": self.lost}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return the exit status."""
    return run_benchmark(Settings, measure, to_markdown, argv, name="space_load", description=__doc__)


def measure(settings: Settings) -> dict[str, Any]:
    """Measure one client alone, many clients on each app, and the soak test."""
    tallies: dict[str, list[dict[str, float]]] = {}

    def serve(name: str, script: Path, model: str) -> float:
        with _running(script) as server:
            tally = asyncio.run(crowd(server.url, model, clients=settings.clients, seconds=settings.seconds))
        tallies.setdefault(name, []).append(tally.to_dict())
        return tally.to_dict()["per_second"]

    ways: Mapping[str, Callable[[], float]] = {
        ECHO: partial(serve, ECHO, Path(__file__).with_name("echo_app.py"), CNN),
        **{model: partial(serve, model, SPACE / "app.py", model) for model in (CNN, VIT)},
        BARE: partial(_predict_without_server, min(settings.seconds, 10)),
    }
    alone = _one_client()
    values = measure_in_turn(ways, rounds=settings.rounds)
    pairs = [Pair(CNN, ECHO, goal=GOAL), Pair(VIT, ECHO, goal=GOAL), Pair(VIT, BARE, goal=GOAL)]
    soak = _soak(settings)
    return {"alone": alone, "clients": tallies, "soak": soak, **compare(values, pairs, unit="answers/s")}


def to_markdown(content: Mapping[str, Any]) -> str:
    """Render speeds, latencies and the soak test."""
    alone, settings, soak = content["alone"], content["settings"], content["soak"]
    rounds = [
        (f"{name}, round {i}", row) for name, rows in content["clients"].items() for i, row in enumerate(rows, 1)
    ]
    rounds += [(f"{name}, soak", row) for name, row in soak["models"].items()]
    rows = [
        [name, f"{row['n']:,}", f"{row['p50']:.2f}", f"{row['p95']:.2f}", row["wrong"], row["lost"]]
        for name, row in rounds
    ]
    facts = [
        ["first answer after the start", f"{alone['first_answer_seconds']:.1f} s"],
        ["warm ViT answer with its map, median", f"{1000 * statistics.median(alone['explain_seconds']):.0f} ms"],
        ["memory in the last minute of the soak test / in the second", f"{soak['growth']:.2f}"],
    ]
    note = (
        f"{settings['clients']} clients for {settings['seconds']:.0f} s, uploads included; soak test of "
        f"{settings['soak_seconds']:.0f} s. The ViT has to reach the lower of its two goals."
    )
    latencies = markdown_table(["app", "answers", "p50, s", "p95, s", "wrong", "lost"], rows)
    return report(content, latencies, markdown_table(["one app", "value"], facts), digits=1, note=note)


async def request(client: "httpx.AsyncClient", data: bytes, model: str) -> dict[str, Any]:
    """Upload an image, request a verdict and wait for it, as a browser does."""
    upload = await client.post("/gradio_api/upload", files={"files": ("photo.jpg", data)})
    file = {"path": upload.json()[0], "meta": {"_type": "gradio.FileData"}}
    event = await client.post("/gradio_api/call/predict", json={"data": [file, model]})
    async with client.stream("GET", f"/gradio_api/call/predict/{event.json()['event_id']}") as answer:
        kind = ""
        async for line in answer.aiter_lines():
            if line.startswith("event: "):
                kind = line.removeprefix("event: ")
            elif line.startswith("data: ") and kind in ("complete", "error"):
                return {"kind": kind, "answer": json.loads(line.removeprefix("data: "))}
    return {"kind": "lost", "answer": None}


async def crowd(url: str, model: str, *, clients: int, seconds: float) -> Tally:
    """Let clients request verdicts continuously, and count the answers."""
    import httpx

    images = [file.read_bytes() for file in IMAGES]
    limits = httpx.Limits(max_connections=2 * clients)
    async with httpx.AsyncClient(base_url=url, timeout=60, limits=limits) as client:
        expected = [await request(client, data, model) for data in images]
        tally = Tally([], 0, 0, seconds)
        began = time.perf_counter() + min(WARM_UP, seconds / 4)

        async def repeat(start: int) -> None:
            turns = count(start)
            while (sent := time.perf_counter()) < began + seconds:
                turn = next(turns) % len(images)
                try:
                    answer = await request(client, images[turn], model)
                except (httpx.HTTPError, ValueError):
                    tally.lost += 1
                    continue
                tally.wrong += answer != expected[turn]
                if began <= sent and time.perf_counter() < began + seconds:
                    tally.latencies.append(time.perf_counter() - sent)

        await asyncio.gather(*(repeat(start) for start in range(clients)))
    return tally


@contextmanager
def _running(script: Path = SPACE / "app.py") -> Iterator[Server]:
    with tempfile.TemporaryDirectory() as folder:
        server = Server(Path(folder) / "app", script=script)
        try:
            yield server
        finally:
            server.stop()


def _predict_without_server(seconds: float) -> float:
    from realfake_hf.detector import Detector

    detector = Detector.from_pretrained(MODELS / VIT, batch_size=32)
    files = [*IMAGES] * 52
    detector.predict(files[:32])
    began = time.perf_counter()
    n = 0
    while time.perf_counter() < began + seconds:
        n += len(detector.predict(files))
    return n / (time.perf_counter() - began)


def _soak(settings: Settings) -> dict[str, Any]:
    """Keep half of the clients on each model of one app, and sample its memory."""
    import numpy as np

    samples: list[tuple[float, float]] = []  # seconds, MiB

    async def sample(server: Server) -> None:
        began = time.perf_counter()
        while (now := time.perf_counter() - began) < settings.soak_seconds:
            samples.append((now, server.memory_mib()))
            await asyncio.sleep(settings.soak_seconds / 60)

    async def run(server: Server) -> list[Tally]:
        half = partial(crowd, server.url, clients=settings.clients // 2, seconds=settings.soak_seconds)
        *tallies, _ = await asyncio.gather(half(CNN), half(VIT), sample(server))
        return tallies

    with _running() as server:
        tallies = asyncio.run(run(server))
    minute = min(60.0, settings.soak_seconds / 5)
    early = float(np.mean([mib for at, mib in samples if minute <= at < 2 * minute]))  # models are loaded by then
    late = float(np.mean([mib for at, mib in samples if at >= settings.soak_seconds - minute]))
    return {
        "models": {model: tally.to_dict() for model, tally in zip((CNN, VIT), tallies, strict=True)},
        "memory_mib": {"second minute": early, "last minute": late},
        "growth": late / early,
        "samples": [[round(at), round(mib, 1)] for at, mib in samples],
    }


def _one_client() -> dict[str, Any]:
    """Measure the time from the start to the first answer, and that of a warm answer with its map."""
    from gradio_client import Client, handle_file

    began = time.perf_counter()
    with _running() as server:
        client = Client(server.url, verbose=False, download_files=False)
        client.predict(handle_file(str(PHOTOGRAPH)), VIT, api_name="/predict")
        first = time.perf_counter() - began
        upload = server.post("upload", files={"files": ("a.jpg", PHOTOGRAPH.read_bytes())}).json()[0]
        data = [{"path": upload, "meta": {"_type": "gradio.FileData"}}, VIT, "rollout", 0.6]
        seconds = [_time_explanation(server, data) for _ in range(WARM_ANSWERS + 2)]
    return {
        "first_answer_seconds": first,
        "start_seconds": server.seconds_to_start,
        "explain_seconds": sorted(seconds[2:]),
    }


def _time_explanation(server: Server, data: list[Any]) -> float:
    began = time.perf_counter()
    event = server.post("call/explain", json={"data": data}).json()["event_id"]
    if "event: complete" not in server.get(f"call/explain/{event}").text:
        raise ValueError(f"wanted a map from /explain; the log of the app is:\n{server.log.read_text()}")
    return time.perf_counter() - began


if __name__ == "__main__":
    sys.exit(main())
