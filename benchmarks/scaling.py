"""Time and peak memory against the number of pictures: `python -m benchmarks.scaling`.

Each job is done on growing parts of CIFAKE, each time in a fresh process with an empty cache, and a power of n is
fitted to what it took: a slope of 1 means that twice the pictures take twice as long.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import cycle
from pathlib import Path
from typing import Any, Final

import datasets
import numpy as np
from datasets import DatasetDict, concatenate_datasets
from matplotlib.figure import Figure
from tqdm.auto import tqdm

import crosseval
import train
from benchmarks.comparison import write_benchmark
from benchmarks.jobs import MODELS
from benchmarks.launch import launcher
from realfake_hf.cli import parse
from realfake_hf.data.loading import load_images
from realfake_hf.data.shards import write_shards
from realfake_hf.environment import peak_memory_gib
from realfake_hf.explain_study.arguments import StudyArguments
from realfake_hf.explain_study.run import run_study
from realfake_hf.figures import save_figure
from realfake_hf.figures.comparison import MARKERS
from realfake_hf.figures.style import COLORS, style_axes
from realfake_hf.score import __main__ as score
from realfake_hf.store import write_json

Row = dict[str, Any]

SHARDS: Final = "shards"
TRAIN: Final = "training, one pass"
GRID: Final = "grid, one model"
SCORE: Final = "scoring"
STUDY: Final = "study of explanations, one model"
SHARED: Final = (TRAIN, GRID, SCORE)  # what several processes share
_BATCH: Final = 128  # pictures of a training step, over all processes


@dataclass
class Settings:
    """How many pictures, and which jobs."""

    sizes: list[int] = field(
        default_factory=lambda: [1000, 4000, 16_000, 40_000, 120_000], metadata={"help": "Numbers of pictures."}
    )
    jobs: list[str] = field(default_factory=lambda: [*JOBS], metadata={"help": "Which."})
    study_most: int = field(
        default=16_000, metadata={"help": "The study's largest number: it takes far longer than verdicts."}
    )
    processes: int = field(
        default=2, metadata={"help": "Training, grid and scoring are also done by so many, on the most pictures."}
    )
    output_file: Path = field(default=Path("results/scaling.json"), metadata={"help": "Where the JSON goes."})
    figure_file: Path | None = field(default=Path("results/figures/scaling.png"), metadata={"help": "The figure."})
    one: str | None = field(default=None, metadata={"help": "Do this job alone, in --folder, and write what it took."})
    folder: Path | None = field(default=None, metadata={"help": "With --one: a folder with shards."})


def _train(folder: Path) -> int:
    words = ["--num_train_epochs", "1", "--test_share", "0.05", "--bootstrap_samples", "100", "--disable_tqdm", "true"]
    words += ["--per_device_train_batch_size", str(_BATCH // int(os.environ.get("WORLD_SIZE", "1")))]
    return train.main(["--data", str(folder / SHARDS), *words, "--output_dir", str(folder / "run")])


def _grid(folder: Path) -> int:
    words = ["--models", f"cnn={MODELS / 'cifake-cnn'}", "--datasets", f"cifake={folder / SHARDS}", "--protocols"]
    return crosseval.main([*words, "native", "--bootstrap_samples", "100", "--output_dir", str(folder / "grid")])


def _score(folder: Path) -> int:
    words = ["--model", str(MODELS / "cifake-cnn"), "--data", str(folder / SHARDS / "data")]
    return score.main([*words, "--output", str(folder / "scores")])


def _study(folder: Path) -> int:
    """Maps of all pictures by each method that fits the CNN, and whether they agree."""
    run_study(
        StudyArguments(
            output_dir=folder / "study", compare=[f"cnn={MODELS / 'cifake-cnn'}"], data=str(folder / SHARDS),
            split="train", parts=["agreement"], n=10**9, gallery=0, bootstrap_samples=100,
        )
    )  # fmt: skip
    return 0


JOBS: Final[Mapping[str, Callable[[Path], int]]] = {TRAIN: _train, GRID: _grid, SCORE: _score, STUDY: _study}


def lay_out(n: int, folder: Path) -> None:
    """Write so many of CIFAKE's pictures as shards.

    Raises:
        ValueError: there are not so many.
    """
    images = load_images("cifake")
    rows = concatenate_datasets([images["train"], images["test"]])
    if n > len(rows):
        raise ValueError(f"wanted at most {len(rows):,} pictures, as many as CIFAKE has; found {n:,} in --sizes.")
    write_shards(DatasetDict({"train": rows.select(range(n))}), folder / SHARDS, shard_bytes=2**24)


def measure(name: str, folder: Path, *, processes: int = 1) -> Row:
    """Do a job in a fresh process, or several, and give the seconds of its work and the peak memory of the largest."""
    words = launcher(processes, "--multi_gpu") if processes > 1 else [sys.executable]
    command = [*words, "-m", "benchmarks.scaling", "--one", name, "--folder", str(folder)]
    given = {**os.environ, "HF_HOME": str(folder / "home")}
    given.pop("HF_DATASETS_CACHE", None)
    if processes > 1:
        given["OMP_NUM_THREADS"] = "1"
    done = subprocess.run(command, env=given, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{name} failed: {done.stderr[-2000:]}")
    took: Row = json.loads((folder / "took.json").read_text(encoding="utf-8"))
    return {"job": name, "processes": processes, **took}


def _one(name: str, folder: Path) -> int:
    began = time.perf_counter()
    status = JOBS[name](folder)
    took = {"seconds": time.perf_counter() - began, "memory_gib": peak_memory_gib()}
    if status == 0 and int(os.environ.get("RANK", "0")) == 0:
        write_json(folder / "took.json", took)
    return status


def fitted(rows: Sequence[Row]) -> Row:
    """Fit what a job took: the power of n, and the cost of one more picture from the two largest."""
    n, seconds, memory = (
        np.array([row[name] for row in rows], dtype=float) for name in ("n", "seconds", "memory_gib")
    )
    return {
        "slope_seconds": float(np.polyfit(np.log(n), np.log(seconds), 1)[0]),
        "slope_memory": float(np.polyfit(np.log(n), np.log(memory), 1)[0]),
        "seconds_per_million": float((seconds[-1] - seconds[-2]) / (n[-1] - n[-2]) * 1e6),
        "memory_gib_per_million": float((memory[-1] - memory[-2]) / (n[-1] - n[-2]) * 1e6),
    }


def draw(rows: Sequence[Row]) -> Figure:
    """Draw seconds and memory against n."""
    figure = Figure(figsize=(9, 3.8), layout="constrained")
    axes = figure.subplots(1, 2)
    jobs = dict.fromkeys(row["job"] for row in rows)
    for name, marker, color in zip(jobs, cycle(MARKERS), cycle(COLORS), strict=False):
        some = [row for row in rows if row["job"] == name and row["processes"] == 1]
        for place, value in zip(axes, ("seconds", "memory_gib"), strict=True):
            n, values = [row["n"] for row in some], [row[value] for row in some]
            place.plot(n, values, marker=marker, color=color, label=name)
    for place, title in zip(axes, ("seconds", "peak memory, GiB"), strict=True):
        style_axes(place)
        place.set(xscale="log", xlabel="pictures", title=title)
    axes[0].set_yscale("log")
    axes[1].set_ylim(bottom=0)
    axes[1].legend(frameon=False, loc="lower right")  # below all memory: imports alone take half a GiB
    return figure


def _measure_all(settings: Settings) -> dict[str, Any]:
    rows: list[Row] = []
    work = [
        (n, name)
        for n in sorted(settings.sizes)
        for name in settings.jobs
        if name != STUDY or n <= settings.study_most
    ]
    with tempfile.TemporaryDirectory() as place:
        for n, name in tqdm(work, desc="measuring", disable=None):
            folder = Path(place) / f"{n}"
            if not folder.exists():
                lay_out(n, folder)
            rows.append({"n": n, **measure(name, folder)})
        shared = [name for name in settings.jobs if name in SHARED and settings.processes > 1]
        for name in tqdm(shared, desc="measuring several processes", disable=None):
            several = Path(place) / f"several-{name}"
            lay_out(max(settings.sizes), several)
            rows.append({"n": max(settings.sizes), **measure(name, several, processes=settings.processes)})
    alone = {name: [row for row in rows if row["job"] == name and row["processes"] == 1] for name in settings.jobs}
    return {"rows": rows, "fits": {name: fitted(some) for name, some in alone.items()}}


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, measure, write, draw, print; give the exit status."""
    (settings,) = parse(Settings, argv=argv, description=__doc__)
    if settings.one is not None and settings.folder is not None:
        datasets.disable_progress_bars()
        return _one(settings.one, settings.folder)
    try:
        if len(settings.sizes) < 2:  # noqa: PLR2004
            raise ValueError(f"wanted two --sizes or more, to see a slope; found {settings.sizes}.")
        found = _measure_all(settings)
    except (OSError, ValueError, RuntimeError) as error:
        print(f"scaling: {error}", file=sys.stderr)
        return 1
    write_benchmark(settings.output_file, settings=asdict(settings), results=found)
    if settings.figure_file is not None:
        save_figure(draw(found["rows"]), settings.figure_file)
    for row in found["rows"]:
        print(row)
    print(found["fits"])
    return 0


if __name__ == "__main__":
    sys.exit(main())
