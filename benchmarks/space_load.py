"""The Space under load: many clients at once, beside an app that only echoes; and a soak, with memory watched.

`python -m benchmarks.space_load --output_file results/benchmark_space.json`
"""

import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, Final

import httpx
import numpy as np
from gradio_client import Client, handle_file
from transformers.utils.logging import disable_progress_bar

from benchmarks.comparison import Comparison, Pair, measure_in_turn, refuse_in_vain, write_benchmark
from benchmarks.space_server import SPACE, Server
from realfake_hf.cli import parse
from realfake_hf.detector import Detector

ECHO: Final = "echo app"
BARE: Final = "bare ViT, batched"
EXAMPLE: Final = SPACE / "examples/rocket.jpg"
PICTURES: Final = tuple(sorted((SPACE / "examples").glob("*.jpg")))  # small ones, and a whole photograph
MODELS: Final = ("cifake-cnn", "cifake-vit")
GOAL: Final = 0.8
WARM_ANSWERS: Final = 20
WARM: Final = 5.0  # seconds that are not counted


@dataclass
class Settings:
    """How hard and how long."""

    clients: int = field(default=50, metadata={"help": "At once."})
    seconds: float = field(default=60, metadata={"help": "Of each measurement."})
    rounds: int = field(default=2, metadata={"help": "How often each app is measured, in turn."})
    soak_seconds: float = field(default=600, metadata={"help": "Of the soak."})
    output_file: Path = field(default=Path("results/benchmark_space.json"), metadata={"help": "Where the JSON goes."})


@dataclass
class Tally:
    """What clients saw.

    Attributes:
        latencies: seconds of each answer, upload included.
        wrong: answers that were errors, or others than the first.
        lost: questions without an answer.
        seconds: that were counted.
    """

    latencies: list[float]
    wrong: int
    lost: int
    seconds: float

    def to_dict(self) -> dict[str, float]:
        """The numbers that matter."""
        p50, p95 = np.percentile(self.latencies, [50, 95]).tolist()
        rate = len(self.latencies) / self.seconds
        return {
            "n": len(self.latencies),
            "per_second": rate,
            "p50": p50,
            "p95": p95,
            "wrong": self.wrong,
            "lost": self.lost,
        }


async def ask(client: httpx.AsyncClient, data: bytes, model: str) -> dict[str, Any]:
    """Upload a picture, ask for a verdict, wait for it, as a browser does."""
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
    """Let clients ask again and again, and count."""
    pictures = [file.read_bytes() for file in PICTURES]
    limits = httpx.Limits(max_connections=2 * clients)
    async with httpx.AsyncClient(base_url=url, timeout=60, limits=limits) as client:
        expected = [await ask(client, data, model) for data in pictures]
        tally = Tally([], 0, 0, seconds)
        began = time.perf_counter() + min(WARM, seconds / 4)

        async def one(start: int) -> None:
            turns = count(start)
            while (asked := time.perf_counter()) < began + seconds:
                turn = next(turns) % len(pictures)
                try:
                    found = await ask(client, pictures[turn], model)
                except (httpx.HTTPError, ValueError):
                    tally.lost += 1
                    continue
                tally.wrong += found != expected[turn]
                if began <= asked and time.perf_counter() < began + seconds:
                    tally.latencies.append(time.perf_counter() - asked)

        await asyncio.gather(*(one(start) for start in range(clients)))
    return tally


def _served(script: Path, model: str, settings: Settings, seen: dict[str, list[dict[str, float]]], name: str) -> float:
    with tempfile.TemporaryDirectory() as folder:
        server = Server(Path(folder) / "app", script=script)
        try:
            tally = asyncio.run(crowd(server.url, model, clients=settings.clients, seconds=settings.seconds))
        finally:
            server.stop()
    found = tally.to_dict()
    seen.setdefault(name, []).append(found)
    return found["per_second"]


def _bare(settings: Settings) -> float:
    detector = Detector.from_pretrained(SPACE / "models" / MODELS[1], batch_size=32)
    files = [*PICTURES] * 52
    detector.predict(files[:32])
    began = time.perf_counter()
    n = 0
    while time.perf_counter() < began + min(settings.seconds, 10):
        n += len(detector.predict(files))
    return n / (time.perf_counter() - began)


def _soak(settings: Settings) -> dict[str, Any]:
    """Keep all clients on one app, half of them on each model, and note its memory."""
    memory: list[tuple[float, float]] = []

    async def watched(server: Server) -> list[Tally]:
        async def note() -> None:
            began = time.perf_counter()
            while (now := time.perf_counter() - began) < settings.soak_seconds:
                memory.append((now, server.memory_mib()))
                await asyncio.sleep(settings.soak_seconds / 60)

        noting = asyncio.create_task(note())
        ask_half = partial(crowd, server.url, clients=settings.clients // 2, seconds=settings.soak_seconds)
        tallies = await asyncio.gather(*(ask_half(model) for model in MODELS))
        await noting
        return tallies

    with tempfile.TemporaryDirectory() as folder:
        server = Server(Path(folder) / "app")
        try:
            tallies = asyncio.run(watched(server))
        finally:
            server.stop()
    minute = min(60.0, settings.soak_seconds / 5)
    first = [mib for at, mib in memory if minute <= at < 2 * minute]  # after the first one, when all is loaded
    last = [mib for at, mib in memory if at >= settings.soak_seconds - minute]
    return {
        "models": {model: tally.to_dict() for model, tally in zip(MODELS, tallies, strict=True)},
        "memory_mib": {"second minute": float(np.mean(first)), "last minute": float(np.mean(last))},
        "growth": float(np.mean(last) / np.mean(first)),
        "samples": [[round(at), round(mib, 1)] for at, mib in memory],
    }


def _alone() -> dict[str, Any]:
    """How long the first answer takes from the start on, and what a warm answer with its map costs."""
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        server = Server(Path(folder) / "app")
        try:
            client = Client(server.url, verbose=False, download_files=False)
            client.predict(handle_file(str(EXAMPLE)), MODELS[1], api_name="/predict")
            first = time.perf_counter() - began
            asked = [MODELS[1], "rollout", 0.6]
            upload = {"path": server.post("upload", files={"files": ("a.jpg", EXAMPLE.read_bytes())}).json()[0]}
            file = {**upload, "meta": {"_type": "gradio.FileData"}}
            warm = [_seconds(partial(_explained, server, [file, *asked])) for _ in range(WARM_ANSWERS + 2)]
        finally:
            server.stop()
    return {
        "first_answer_seconds": first,
        "start_seconds": server.seconds_to_start,
        "explain_seconds": sorted(warm[2:]),
    }


def _explained(server: Server, data: list[Any]) -> None:
    event = server.post("call/explain", json={"data": data}).json()["event_id"]
    if "event: complete" not in server.get(f"call/explain/{event}").text:
        raise RuntimeError(f"no map came: {server.log.read_text()}")


def _seconds(call: Callable[[], None]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, measure, write, print the tables; give the exit status."""
    disable_progress_bar()  # type: ignore[no-untyped-call]
    (settings,) = parse(Settings, argv=argv, description=__doc__)
    try:
        refuse_in_vain(settings.output_file, rounds=settings.rounds)
    except ValueError as error:
        print(f"space_load: {error}", file=sys.stderr)
        return 1
    seen: dict[str, list[dict[str, float]]] = {}
    ways: Mapping[str, Callable[[], float]] = {
        ECHO: partial(_served, Path(__file__).with_name("echo_app.py"), MODELS[0], settings, seen, ECHO),
        **{model: partial(_served, SPACE / "app.py", model, settings, seen, model) for model in MODELS},
        BARE: partial(_bare, settings),
    }
    alone = _alone()
    taken = measure_in_turn(ways, rounds=settings.rounds)
    pairs = [Pair(MODELS[0], ECHO, goal=GOAL), Pair(MODELS[1], ECHO, goal=GOAL), Pair(MODELS[1], BARE, goal=GOAL)]
    found = Comparison("answers/s", taken, pairs, digits=1)
    results = {"alone": alone, "clients": seen, "soak": _soak(settings), **found.to_dict()}
    write_benchmark(settings.output_file, settings=asdict(settings), results=results)
    print(found.to_markdown())
    return 0


if __name__ == "__main__":
    sys.exit(main())
