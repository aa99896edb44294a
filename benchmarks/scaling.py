"""Time and peak memory against the number of images: `python -m benchmarks.scaling`.

Each job runs on growing subsets of CIFAKE, each time in a fresh process with an empty cache. A power of n is fitted to
the results: a slope of 1 means that twice the images take twice as long.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from benchmarks.comparison import MODELS, machine_note, results_file, run_benchmark
from benchmarks.launch import launcher
from realfake_hf.cli import parse
from realfake_hf.store import read_json, write_json
from realfake_hf.tables import markdown_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Row = dict[str, Any]

TRAIN: Final = "training, one pass"
GRID: Final = "grid, one model"
SCORE: Final = "scoring"
STUDY: Final = "study of explanations, one model"
DISTRIBUTED: Final = (TRAIN, GRID, SCORE)  # jobs that also run in several processes
BATCH: Final = 128  # images of a training step, over all processes
PRICE_PER_HOUR: Final = 0.1  # USD for a machine with two cores; an assumption
KIB_PER_IMAGE: Final = 100  # of a photograph on the web; an assumption


@dataclass
class Settings:
    """Which jobs, and how many images."""

    sizes: list[int] = field(
        default_factory=lambda: [1000, 4000, 16_000, 40_000, 120_000], metadata={"help": "Numbers of images."}
    )
    jobs: list[str] = field(default_factory=lambda: [TRAIN, GRID, SCORE, STUDY], metadata={"help": "Jobs to measure."})
    study_most: int = field(
        default=16_000, metadata={"help": "Largest number of images for the study, which is slow."}
    )
    processes: int = field(
        default=2, metadata={"help": "Processes in which training, grid and scoring run again on the most images."}
    )
    output_file: Path = results_file("scaling")
    figure_file: Path | None = field(
        default=Path("results/figures/scaling.png"), metadata={"help": "PNG file of the figure."}
    )
    one: str | None = field(default=None, metadata={"help": "Run this job alone, on the shards in --folder."})
    folder: Path | None = field(default=None, metadata={"help": "With --one: a folder with shards."})


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return the exit status."""
    (settings,) = parse(Settings, argv=argv, description=__doc__)
    if settings.one is not None and settings.folder is not None:
        return _run_job(settings.one, settings.folder)
    return run_benchmark(Settings, measure, to_markdown, argv, name="scaling", description=__doc__)


def measure(settings: Settings) -> dict[str, Any]:
    """Run every job on every number of images, and draw the figure.

    Raises:
        ValueError: there are fewer than two sizes, CIFAKE has fewer images, or a job failed.
    """
    from tqdm.auto import tqdm

    sizes = sorted(settings.sizes)
    if len(sizes) < 2:  # noqa: PLR2004
        raise ValueError(f"wanted at least two --sizes to fit a slope; found {sizes}.")
    work = [(n, job, 1) for n in sizes for job in settings.jobs if job != STUDY or n <= settings.study_most]
    if settings.processes > 1:
        work += [(sizes[-1], job, settings.processes) for job in settings.jobs if job in DISTRIBUTED]
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as scratch:
        for n, job, processes in tqdm(work, desc="measuring", disable=None):
            folder = Path(scratch) / (f"{n}" if processes == 1 else f"several-{job}")
            if not folder.exists():
                _write_images(n, folder)
            rows.append({"n": n, "job": job, "processes": processes, **_measure_job(job, folder, processes)})
    if settings.figure_file is not None:
        from realfake_hf.figures.style import save_figure

        save_figure(draw(rows), settings.figure_file)
    return {"rows": rows, "fits": {job: fit(_in_one_process(rows, job)) for job in settings.jobs}}


def to_markdown(content: Mapping[str, Any]) -> str:
    """Render what each job took, and the fits."""
    rows = [
        [
            row["job"] if row["processes"] == 1 else f"{row['job']}, {row['processes']} processes",
            f"{row['n']:,}",
            f"{row['seconds']:,.1f}",
            f"{row['memory_gib']:.2f}",
        ]
        for row in sorted(content["rows"], key=lambda row: (row["job"], row["processes"], row["n"]))
    ]
    fits = [
        [
            job,
            f"{fitted['slope_seconds']:.2f}",
            f"{fitted['slope_memory']:.2f}",
            f"{fitted['seconds_per_million']:,.0f}",
            f"{fitted['memory_gib_per_million']:.2f}",
        ]
        for job, fitted in content["fits"].items()
    ]
    header = [
        "job",
        "power of n, seconds",
        "power of n, memory",
        "seconds per further million",
        "GiB per further million",
    ]
    tables = [markdown_table(["job", "images", "seconds", "peak memory, GiB"], rows), markdown_table(header, fits)]
    return "\n\n".join([*tables, _extrapolation(content), machine_note(content)])


def extrapolation_table(rows: Sequence[tuple[str, float, float, float]], *, cores: int) -> str:
    """Render what 10 million and a billion images would take, with the assumptions on price and image size.

    Args:
        rows: job, seconds per million images, GiB per million images, constant GiB.
        cores: cores of the machine.
    """
    cells = []
    for job, seconds, gib, constant_gib in rows:
        for millions in (10, 1000):
            hours = seconds * millions / 3600
            memory, machines = f"{constant_gib + max(0.0, gib) * millions:,.1f}", f"{-(-hours // 24):,.0f}"
            price = f"{hours * PRICE_PER_HOUR:,.2f} USD"
            cells.append([job, f"{millions:,} million", f"{hours:,.1f}", machines, memory, price])
    table = markdown_table(["job", "images", "machine-hours", "machines for a day", "memory, GiB", "price"], cells)
    note = (
        f"Extrapolated, for {PRICE_PER_HOUR:.2f} USD per hour of a machine with {cores} cores. Storage at "
        f"{KIB_PER_IMAGE} KiB per image: {KIB_PER_IMAGE * 10e6 / 2**30:,.1f} TiB for 10 million images, "
        f"{KIB_PER_IMAGE * 1e9 / 2**30:,.0f} TiB for a billion."
    )
    return f"{table}\n\n{note}"


def _extrapolation(content: Mapping[str, Any]) -> str:
    rows = [
        (
            job,
            fitted["seconds_per_million"],
            fitted["memory_gib_per_million"],
            max(row["memory_gib"] for row in _in_one_process(content["rows"], job)),
        )
        for job, fitted in content["fits"].items()
    ]
    return extrapolation_table(rows, cores=content["machine"]["cores"])


def fit(rows: Sequence[Row]) -> Row:
    """Fit a power of n to seconds and memory, and derive the cost of one more image from the two largest sizes."""
    import numpy as np

    n, seconds, memory = (
        np.array([row[name] for row in rows], dtype=float) for name in ("n", "seconds", "memory_gib")
    )
    return {
        "slope_seconds": float(np.polyfit(np.log(n), np.log(seconds), 1)[0]),
        "slope_memory": float(np.polyfit(np.log(n), np.log(memory), 1)[0]),
        "seconds_per_million": float((seconds[-1] - seconds[-2]) / (n[-1] - n[-2]) * 1e6),
        "memory_gib_per_million": float((memory[-1] - memory[-2]) / (n[-1] - n[-2]) * 1e6),
    }


def draw(rows: Sequence[Row]) -> "Figure":
    """Plot seconds and memory against n."""
    from matplotlib.figure import Figure

    from realfake_hf.figures.style import COLORS, MARKERS, style_axes

    figure = Figure(figsize=(9, 3.8), layout="constrained")
    seconds, memory = figure.subplots(1, 2)
    jobs = dict.fromkeys(row["job"] for row in rows)
    for axes, key, title in ((seconds, "seconds", "seconds"), (memory, "memory_gib", "peak memory, GiB")):
        for job, marker, color in zip(jobs, cycle(MARKERS), cycle(COLORS), strict=False):
            points = _in_one_process(rows, job)
            axes.plot(
                [row["n"] for row in points], [row[key] for row in points], marker=marker, color=color, label=job
            )
        style_axes(axes)
        axes.set(xscale="log", xlabel="images", title=title)
    seconds.set_yscale("log")
    memory.set_ylim(bottom=0)
    memory.legend(frameon=False, loc="lower right")  # imports alone take half a GiB, so that nothing is plotted there
    return figure


def _in_one_process(rows: Sequence[Row], job: str) -> list[Row]:
    return [row for row in rows if row["job"] == job and row["processes"] == 1]


def _write_images(n: int, folder: Path) -> None:
    """Write n of CIFAKE's images as shards.

    Raises:
        ValueError: CIFAKE has fewer.
    """
    from datasets import DatasetDict, concatenate_datasets

    from realfake_hf.data.loading import load_images
    from realfake_hf.data.shards import write_shards

    images = load_images("cifake")
    rows = concatenate_datasets([images["train"], images["test"]])
    if n > len(rows):
        raise ValueError(f"wanted --sizes of at most {len(rows):,}, the size of CIFAKE; found {n:,}.")
    write_shards(DatasetDict({"train": rows.select(range(n))}), folder / "shards", shard_bytes=2**24)


def _measure_job(job: str, folder: Path, processes: int) -> Row:
    """Run a job in a fresh process, or several; return its seconds without imports and the peak memory of rank 0."""
    words = launcher(processes, "--multi_gpu") if processes > 1 else [sys.executable]
    command = [*words, "-m", "benchmarks.scaling", "--one", job, "--folder", str(folder)]
    environment = {**os.environ, "HF_HOME": str(folder / "home")}
    environment.pop("HF_DATASETS_CACHE", None)
    if processes > 1:
        environment["OMP_NUM_THREADS"] = "1"
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise ValueError(f"wanted {job} to finish; it failed:\n{ended.stderr[-2000:]}")
    row: Row = read_json(folder / "took.json")
    return row


def _run_job(job: str, folder: Path) -> int:
    import datasets

    from realfake_hf.environment import peak_memory_gib

    datasets.disable_progress_bars()
    began = time.perf_counter()
    status = JOBS[job](folder)
    if status == 0 and int(os.environ.get("RANK", "0")) == 0:
        write_json(folder / "took.json", {"seconds": time.perf_counter() - began, "memory_gib": peak_memory_gib()})
    return status


def _train(folder: Path) -> int:
    import train

    words = ["--num_train_epochs", "1", "--test_share", "0.05", "--bootstrap_samples", "100", "--disable_tqdm", "true"]
    words += ["--per_device_train_batch_size", str(BATCH // int(os.environ.get("WORLD_SIZE", "1")))]
    return train.main(["--data", str(folder / "shards"), *words, "--output_dir", str(folder / "run")])


def _grid(folder: Path) -> int:
    import crosseval

    words = ["--models", f"cnn={MODELS / 'cifake-cnn'}", "--datasets", f"cifake={folder / 'shards'}", "--protocols"]
    return crosseval.main([*words, "native", "--bootstrap_samples", "100", "--output_dir", str(folder / "grid")])


def _score(folder: Path) -> int:
    from realfake_hf.score.__main__ import main as score

    words = ["--model", str(MODELS / "cifake-cnn"), "--data", str(folder / "shards/data")]
    return score([*words, "--output", str(folder / "scores")])


def _study(folder: Path) -> int:
    """Explain all images by each method that fits the CNN, and measure whether the maps agree."""
    from realfake_hf.explain_study.arguments import StudyArguments
    from realfake_hf.explain_study.run import run_study

    run_study(
        StudyArguments(
            output_dir=folder / "study", compare=[f"cnn={MODELS / 'cifake-cnn'}"], data=str(folder / "shards"),
            split="train", parts=["agreement"], n=10**9, gallery=0, bootstrap_samples=100,
        )
    )  # fmt: skip
    return 0


JOBS: Final[Mapping[str, Callable[[Path], int]]] = {TRAIN: _train, GRID: _grid, SCORE: _score, STUDY: _study}


if __name__ == "__main__":
    sys.exit(main())
