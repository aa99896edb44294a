"""Long jobs on a few real images. Each writes its result, which an interruption must not change."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from zipfile import ZipFile

import datasets
import pyarrow.parquet as pq
import yaml
from transformers import ViTImageProcessorPil

import crosseval
import train
from benchmarks.comparison import MODELS
from realfake_hf.console import run_command
from realfake_hf.data.loading import find_local_cifake, load_images
from realfake_hf.data.pixels import cached_pixels
from realfake_hf.experiments.search import __main__ as search
from realfake_hf.labels import LABEL_NAMES
from realfake_hf.score import __main__ as score
from realfake_hf.store import read_json

IMAGES_PER_LABEL: Final = {"train": 700, "test": 200}


@dataclass(frozen=True)
class Job:
    """A job.

    Attributes:
        name: name of the job.
        work: starts or resumes the job on an archive of images, in a folder; returns the exit status.
        result: returns everything that an interruption must not change, given the same arguments.
    """

    name: str
    work: Callable[[Path, Path], int]
    result: Callable[[Path, Path], object]

    def run(self, images: Path, folder: Path) -> int:
        """Run the job and write its result, one value per line; return the exit status."""
        datasets.config.HF_DATASETS_CACHE = str(folder / "cache")
        status = run_command(lambda: self.work(images, folder), name=self.name)
        if status == 0:
            result = json.dumps(self.result(images, folder), sort_keys=True, default=str, indent=1)
            (folder / "result.json").write_text(result, encoding="utf-8")
        return status


def result_of(folder: Path) -> str:
    """Return the result that a finished job left in its folder."""
    return (folder / "result.json").read_text(encoding="utf-8")


def write_images(archive: Path) -> None:
    """Write a subset of CIFAKE as an archive with the same layout.

    Raises:
        FileNotFoundError: CIFAKE's archive was not found.
    """
    with ZipFile(archive, "w") as subset:
        for name, data in cifake_images(IMAGES_PER_LABEL):
            subset.writestr(name, data)


def cifake_images(per_label: Mapping[str, int]) -> Iterator[tuple[str, bytes]]:
    """Yield names and bytes of CIFAKE's first images of each label.

    Args:
        per_label: number of images of each label, by split.

    Raises:
        FileNotFoundError: CIFAKE's archive was not found.
    """
    place = find_local_cifake()
    if place is None or place.is_dir():
        raise FileNotFoundError(
            "wanted CIFAKE's archive.zip; found none. Set REALFAKE_SHARED to the folder above data/."
        )
    with ZipFile(place) as archive:
        for split, n in per_label.items():
            for label in LABEL_NAMES:
                names = [name for name in archive.namelist() if name.startswith(f"{split}/{label}/")]
                yield from ((name, archive.read(name)) for name in names[:n])


def _build_cache(images: Path, _: Path) -> int:
    for rows in load_images(images).values():
        cached_pixels(rows, _processor())
    return 0


def _cache(images: Path, folder: Path) -> object:
    splits = load_images(images)
    pixels = {split: hashlib.sha256(cached_pixels(rows, _processor()).tobytes()) for split, rows in splits.items()}
    files = sorted(file.name for file in (folder / "cache").rglob("*") if ".part-" not in file.name)
    return {
        "rows": {split: rows["sha256"][:] for split, rows in splits.items()},
        "pixels": {split: digest.hexdigest() for split, digest in pixels.items()},
        "files": [name for name in files if name.endswith((".arrow", ".npy"))],
    }


def _processor() -> ViTImageProcessorPil:
    return ViTImageProcessorPil(size={"height": 48, "width": 48})


def _train(images: Path, folder: Path) -> int:
    run = folder / "run/run.json"
    if run.is_file() and read_json(run)["finished"]:
        return 0  # killed after the last write
    words = ["--data", images, "--num_train_epochs", 3, "--num_filters", 8, "--per_device_train_batch_size", 32]
    words += ["--checkpoint_steps", 9, "--bootstrap_samples", 50, "--disable_tqdm", "true", "--save_total_limit", 4]
    return train.main(_words(*words, "--output_dir", folder / "run"))


def _trained(_: Path, folder: Path) -> object:
    ignored = ("seconds", "runtime", "per_second", "train_loss")  # time, and what one process saw of an epoch
    rows = read_json(folder / "run/history.json")
    history = [{name: value for name, value in row.items() if not name.endswith(ignored)} for row in rows]
    weights = hashlib.sha256((folder / "run/model.safetensors").read_bytes()).hexdigest()
    return [weights, read_json(folder / "run/metrics.json"), history]


def _evaluate_grid(images: Path, folder: Path) -> int:
    models = [f"{name}={MODELS / f'cifake-{name}'}" for name in ("cnn", "vit")]
    words = ["--models", *models, "--datasets", f"cifake={images}", "--bootstrap_samples", 20, "--protocols"]
    return crosseval.main(_words(*words, "native", "--output_dir", folder / "grid"))


def _grid(_: Path, folder: Path) -> object:
    return read_json(folder / "grid/grid.json")["cells"]


def _search(images: Path, folder: Path) -> int:
    recipe = {"data": str(images), "model": "cifake-cnn", "num_train_epochs": 1, "bootstrap_samples": 0}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    words = ["--base", folder / "recipe.yaml", "--num_filters", 4, 8, "--num_conv_layers", 1, "--dense_units", 8, 16]
    words += ["--num_dense_layers", 1, "--first_units", 8, "--train_size", 600, "--top", 1, "--seeds", 0]
    return search.main(_words(*words, "--output_dir", folder / "search", "--output_file", folder / "search.json"))


def _search_results(_: Path, folder: Path) -> object:
    rows = read_json(folder / "search.json")["rows"]
    return [{name: value for name, value in row.items() if name not in ("seconds", "machine")} for row in rows]


def _score(images: Path, folder: Path) -> int:
    words = ["--model", MODELS / "cifake-vit", "--data", images, "--part_size", 128, "--output", folder / "scores"]
    return score.main(_words(*words))


def _scores(_: Path, folder: Path) -> object:
    files = sorted((folder / "scores").glob("part-*.parquet"))
    return [
        row for file in files for row in pq.read_table(file).to_pylist()
    ]  # a duplicated row counts as a difference


def _words(*words: object) -> list[str]:
    return [str(word) for word in words]


JOBS: Final = {
    job.name: job
    for job in (
        Job("cache building", _build_cache, _cache),
        Job("training", _train, _trained),
        Job("grid", _evaluate_grid, _grid),
        Job("search", _search, _search_results),
        Job("scoring", _score, _scores),
    )
}
