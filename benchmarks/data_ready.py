"""Seconds and memory from an archive to data that a training loop can index, beside `load_dataset("imagefolder")`.

`python -m benchmarks.data_ready --output_file results/benchmark_data.json`
"""

import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

from benchmarks.comparison import Comparison, Pair, measure_in_turn, refuse_in_vain, write_benchmark
from benchmarks.ways_to_data import Taken, gib
from realfake_hf.cli import parse
from realfake_hf.data.loading import find_local_cifake, load_images
from realfake_hf.labels import LABEL_NAMES

TARGETS: Final = {"cold_s": 30.0, "warm_s": 3.0, "training_peak_memory_gib": 2.5}  # on 2 cores

PAIRS: Final = tuple(
    Pair(f"imagefolder, {state}: {stage}", f"realfake, {state}: {stage}")
    for stage in ("pixels", "rows")
    for state in ("cold", "warm")
)

_ROOT: Final = Path(__file__).resolve().parents[1]  # of the checkout, where the new processes start
_MEMORY: Final = ("peak_memory_gib", "worker_memory_gib")


@dataclass
class Settings:
    """How much is measured."""

    data: str = field(default="cifake", metadata={"help": "A zip archive; cifake finds its own, demo is packed."})
    rounds: int = field(default=3, metadata={"help": "How often each way is measured, in turn."})
    train_epochs: int = field(default=0, metadata={"help": "Epochs of a run of train.py for its memory; 0 for none."})
    output_file: Path = field(default=Path("results/benchmark_data.json"), metadata={"help": "Where the JSON goes."})


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, measure, write, print the tables; give the exit status."""
    (settings,) = parse(Settings, argv=argv, description=__doc__)
    try:
        refuse_in_vain(settings.output_file, rounds=settings.rounds)
        with tempfile.TemporaryDirectory() as scratch:
            comparison, facts = measure(settings, Path(scratch))
    except (FileNotFoundError, ValueError) as error:
        print(f"data_ready: {error}", file=sys.stderr)
        return 1
    write_benchmark(settings.output_file, settings=asdict(settings), results={**comparison.to_dict(), **facts})
    print(comparison.to_markdown())
    print(f"\n{_facts_table(comparison, facts)}")
    return 0


def measure(settings: Settings, scratch: Path) -> tuple[Comparison, dict[str, Any]]:
    """Time both ways in turn, cold and warm, each in a new process.

    Returns:
        Seconds by way, state and stage; and the other facts: pictures, memory, unpacking, targets.

    Raises:
        FileNotFoundError: there is no such archive.
        ValueError: the source is not a zip archive, or a process failed.
    """
    archive = find_archive(settings.data, scratch)
    began = time.perf_counter()
    with zipfile.ZipFile(archive) as packed:
        packed.extractall(scratch / "unpacked")
    unpacking_s = time.perf_counter() - began
    sources = {"realfake": archive, "imagefolder": scratch / "unpacked"}
    taken = measure_in_turn(_ways(sources, scratch), rounds=settings.rounds)
    memory = {name: {key: max(asdict(one)[key] for one in row) for key in _MEMORY} for name, row in taken.items()}
    facts: dict[str, Any] = {"n": taken["realfake, cold"][0].n, "unpacking_s": unpacking_s, "targets": TARGETS}
    facts |= {"memory": memory, "training": _training(archive, settings.train_epochs, scratch)}
    return Comparison("seconds", _by_stage(taken), PAIRS, digits=2), facts


def find_archive(data: str, scratch: Path) -> Path:
    """Find the zip archive of a source; pack the demo pictures into one.

    Raises:
        FileNotFoundError: nothing is there.
        ValueError: it is not a zip archive.
    """
    if data == "demo":
        return _packed_demo(scratch / "demo.zip")
    path = find_local_cifake() if data == "cifake" else Path(data)
    if path is None or not path.exists():
        raise FileNotFoundError(f"wanted a zip archive; found nothing for {data!r}. Give --data its path.")
    if not zipfile.is_zipfile(path):
        raise ValueError(
            f"wanted a zip archive; found {path}, which is none. Pack it, or name an archive with --data."
        )
    return path.resolve()


def _packed_demo(archive: Path) -> Path:
    with zipfile.ZipFile(archive, "w") as packed:
        for split, rows in load_images("demo").items():
            for row in rows:
                buffer = io.BytesIO()
                row["image"].save(buffer, format="PNG")
                packed.writestr(f"{split}/{LABEL_NAMES[row['label']]}/{row['id']}.png", buffer.getvalue())
    return archive


def _ways(sources: Mapping[str, Path], scratch: Path) -> dict[str, Callable[[], Taken]]:
    return {
        f"{way}, {state}": partial(_take, way, source, scratch / f"cache-{way}", anew=state == "cold")
        for way, source in sources.items()
        for state in ("cold", "warm")
    }


def _take(way: str, source: Path, cache: Path, *, anew: bool) -> Taken:
    """Run one way in a new process on an empty cache, or on the one that the last process left."""
    if anew:
        shutil.rmtree(cache, ignore_errors=True)
    words = [sys.executable, "-m", "benchmarks.ways_to_data", way, str(source)]
    done = subprocess.run(words, cwd=_ROOT, env=_environment(cache), capture_output=True, text=True, check=False)
    if done.returncode:
        raise ValueError(f"wanted {way} to read {source}; its process failed:\n{done.stderr[-2000:]}")
    return Taken(**json.loads(done.stdout.splitlines()[-1]))


def _environment(cache: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    return {**kept, "HF_HOME": str(cache), "HF_HUB_OFFLINE": "1"}


def _by_stage(taken: Mapping[str, Sequence[Taken]]) -> dict[str, list[float]]:
    rows = {f"{name}: rows": [one.rows_s for one in row] for name, row in taken.items()}
    pixels = {f"{name}: pixels": [one.pixels_s for one in row] for name, row in taken.items()}
    return {**pixels, **rows}


def _training(archive: Path, epochs: int, scratch: Path) -> dict[str, float] | None:
    """Run `train.py` on an empty cache and give seconds and the peak memory of its largest process."""
    if not epochs:
        return None
    words = ["train.py", "--data", str(archive), "--num_train_epochs", str(epochs), "--disable_tqdm", "true"]
    words += ["--output_dir", str(scratch / "run")]
    began = time.perf_counter()
    with (scratch / "training.log").open("w") as log:
        child = subprocess.Popen(
            [sys.executable, *words], cwd=_ROOT, env=_environment(scratch / "cache-train"), stdout=log, stderr=log
        )
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise ValueError(f"wanted train.py to finish; it failed:\n{(scratch / 'training.log').read_text()[-2000:]}")
    return {
        "epochs": epochs,
        "seconds": time.perf_counter() - began,
        "peak_memory_gib": gib(usage.ru_maxrss),
    }


def _facts_table(comparison: Comparison, facts: Mapping[str, Any]) -> str:
    medians = {name: row["median"] for name, row in comparison.to_dict()["rows"].items()}
    ready = {state: medians[f"realfake, {state}: pixels"] for state in ("cold", "warm")}
    lines = ["| on 2 cores | measured | at most |", "|---|--:|--:|"]
    lines += [f"| {state}, s | {seconds:.2f} | {TARGETS[f'{state}_s']:g} |" for state, seconds in ready.items()]
    if facts["training"]:
        peak = facts["training"]["peak_memory_gib"]
        lines.append(f"| training, peak GiB | {peak:.2f} | {TARGETS['training_peak_memory_gib']:g} |")
    lines.append(f"| unpacking for imagefolder, s | {facts['unpacking_s']:.2f} | |")
    return "\n".join(lines + [_memory_line(name, row) for name, row in facts["memory"].items()])


def _memory_line(name: str, row: Mapping[str, float]) -> str:
    return f"| {name}, peak GiB (+ largest worker) | {row[_MEMORY[0]]:.2f} (+ {row[_MEMORY[1]]:.2f}) | |"


if __name__ == "__main__":
    sys.exit(main())
