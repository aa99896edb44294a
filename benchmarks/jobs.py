"""Long work on a few real pictures, as jobs for `faults` to break: each leaves its result."""

import hashlib
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from difflib import unified_diff
from itertools import islice
from pathlib import Path
from typing import Any, Final
from zipfile import ZipFile

import datasets
import pyarrow.parquet as pq
import yaml
from transformers import ViTImageProcessorPil

import crosseval
import train
from benchmarks.data_ready import find_archive
from realfake_hf.data.loading import load_images
from realfake_hf.data.pixels import cached_pixels
from realfake_hf.experiments.search import __main__ as search
from realfake_hf.labels import LABEL_NAMES
from realfake_hf.score import __main__ as score

MODELS: Final = Path(__file__).resolve().parents[1] / "space/models"
RESULT: Final = "result.json"
PICTURES: Final = "pictures.zip"
EACH: Final = {"train": 700, "test": 200}  # pictures of each label

Words = list[str]


@dataclass(frozen=True)
class Job:
    """Something that takes time.

    Attributes:
        name: what it is.
        work: does it, or goes on with it, below a folder beside the pictures' archive; gives the exit status.
        result: all of what came of it that an interruption must not change.
    """

    name: str
    work: Callable[[Path, Path], int]
    result: Callable[[Path, Path], object]

    def run(self, pictures: Path, folder: Path) -> int:
        """Do it to the end, and write its result, a value on a line."""
        datasets.config.HF_DATASETS_CACHE = str(folder / "cache")
        try:
            status = self.work(pictures, folder)
        except (OSError, ValueError) as error:  # as a script has it
            print(f"{self.name}: {error}", file=sys.stderr)
            status = 1
        if status == 0:
            found = json.dumps(self.result(pictures, folder), sort_keys=True, default=str, indent=1)
            (folder / RESULT).write_text(found, encoding="utf-8")
        return status


def take_pictures(file: Path) -> None:
    """Write some of CIFAKE's pictures as an archive that is laid out as theirs.

    Raises:
        FileNotFoundError: CIFAKE is not there.
    """
    with ZipFile(file, "w") as some:
        for name, data in some_of_cifake(EACH):
            some.writestr(name, data)


def result_of(place: Path) -> str:
    """Read what a job that came to its end left."""
    return (place / RESULT).read_text(encoding="utf-8")


def difference(wanted: str, found: str) -> list[str]:
    """Give the first lines in which two results differ."""
    lines = unified_diff(wanted.splitlines(), found.splitlines(), "unbroken", "broken", n=0, lineterm="")
    return list(islice(lines, 12))


def some_of_cifake(each: Mapping[str, int]) -> Iterator[tuple[str, bytes]]:
    """Give names and bytes of so many pictures of each label, by split.

    Raises:
        FileNotFoundError: CIFAKE is not there.
    """
    with ZipFile(find_archive("cifake", Path())) as archive:
        for split, n in each.items():
            for label in LABEL_NAMES:
                names = [name for name in archive.namelist() if name.startswith(f"{split}/{label}/")]
                yield from ((name, archive.read(name)) for name in names[:n])


def _cache(pictures: Path, _: Path) -> int:
    for rows in load_images(pictures).values():
        cached_pixels(rows, _processor())
    return 0


def _cached(pictures: Path, folder: Path) -> object:
    images = load_images(pictures)
    pixels = {split: hashlib.sha256(cached_pixels(rows, _processor()).tobytes()) for split, rows in images.items()}
    left = sorted(file.name for file in (folder / "cache").rglob("*") if ".part-" not in file.name)
    return {
        "rows": {split: rows["sha256"][:] for split, rows in images.items()},
        "pixels": {split: digest.hexdigest() for split, digest in pixels.items()},
        "files": [name for name in left if name.endswith((".arrow", ".npy"))],
    }


def _processor() -> ViTImageProcessorPil:
    return ViTImageProcessorPil(size={"height": 48, "width": 48})


def _train(pictures: Path, folder: Path) -> int:
    passport = folder / "run/run.json"
    if passport.is_file() and _read(passport)["finished"]:
        return 0  # the kill came after all was done
    words = ["--data", pictures, "--num_train_epochs", 3, "--num_filters", 8, "--per_device_train_batch_size", 32]
    words += ["--checkpoint_steps", 9, "--bootstrap_samples", 50, "--disable_tqdm", "true", "--save_total_limit", 4]
    return train.main(_words(*words, "--output_dir", folder / "run"))


def _trained(_: Path, folder: Path) -> object:
    rows = _read(folder / "run/history.json")
    history = [{name: value for name, value in row.items() if _is_kept(name)} for row in rows]
    weights = hashlib.sha256((folder / "run/model.safetensors").read_bytes()).hexdigest()
    return [weights, _read(folder / "run/metrics.json"), history]


def _is_kept(name: str) -> bool:
    """Whether a value is of the training, not of the time that it took or of how much of an epoch one process saw."""
    return not name.endswith(("seconds", "runtime", "per_second", "train_loss"))


def _grid(pictures: Path, folder: Path) -> int:
    models = [f"{name}={MODELS / f'cifake-{name}'}" for name in ("cnn", "vit")]
    words = ["--models", *models, "--datasets", f"cifake={pictures}", "--bootstrap_samples", 20, "--protocols"]
    return crosseval.main(_words(*words, "native", "--output_dir", folder / "grid"))


def _in_grid(_: Path, folder: Path) -> object:
    return _read(folder / "grid/grid.json")["cells"]


def _search(pictures: Path, folder: Path) -> int:
    recipe = {"data": str(pictures), "model": "cifake-cnn", "num_train_epochs": 1, "bootstrap_samples": 0}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    words = ["--base", folder / "recipe.yaml", "--num_filters", 4, 8, "--num_conv_layers", 1, "--dense_units", 8, 16]
    words += ["--num_dense_layers", 1, "--first_units", 8, "--train_size", 600, "--top", 1, "--seeds", 0]
    return search.main(_words(*words, "--output_dir", folder / "search", "--output_file", folder / "search.json"))


def _found(_: Path, folder: Path) -> object:
    rows = _read(folder / "search.json")["rows"]
    return [{name: value for name, value in row.items() if name not in ("seconds", "machine")} for row in rows]


def _score(pictures: Path, folder: Path) -> int:
    words = ["--model", MODELS / "cifake-vit", "--data", pictures, "--part_size", 128, "--output", folder / "scores"]
    return score.main(_words(*words))


def _scored(_: Path, folder: Path) -> object:
    files = sorted((folder / "scores").glob("part-*.parquet"))
    return [row for file in files for row in pq.read_table(file).to_pylist()]  # one that is there twice is seen


def _words(*words: object) -> Words:
    return [str(word) for word in words]


def _read(file: Path) -> Any:  # noqa: ANN401 - JSON
    return json.loads(file.read_text(encoding="utf-8"))


JOBS: Final = (
    Job("cache building", _cache, _cached),
    Job("training", _train, _trained),
    Job("grid", _grid, _in_grid),
    Job("search", _search, _found),
    Job("scoring", _score, _scored),
)
