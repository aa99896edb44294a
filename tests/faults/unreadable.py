"""Pass files that are not images through every loader and script: is each named, without a traceback?"""

import io
import logging
import re
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, Final
from zipfile import ZipFile

import datasets
import pyarrow as pa
import pyarrow.parquet as pq

import crosseval
import explain
import train
from benchmarks.comparison import MODELS
from realfake_hf.detector import Detector
from realfake_hf.score import __main__ as score
from realfake_hf.store import read_json
from tests.bad_files import corpus
from tests.faults.jobs import cifake_images

GOOD: Final = {"train": 2000}  # valid images of each label: more than 99% of all files
NAME: Final = re.compile(r"bad\d{3}")
MODEL: Final = str(MODELS / "cifake-cnn")

Way = Callable[[], object]


def write_files(folder: Path) -> list[Path]:
    """Write images and unreadable files as a folder, an archive and a parquet file; return the unreadable files."""
    for name, data in cifake_images(GOOD):
        file = folder / name.replace("train/", "pictures/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    unreadable = [data for _, data, is_image in corpus() if not is_image]
    bad = [
        folder / "pictures" / ("REAL" if number % 2 else "FAKE") / f"bad{number:03d}.jpg"
        for number in range(len(unreadable))
    ]
    for file, data in zip(bad, unreadable, strict=True):
        file.write_bytes(data)
    files = sorted((folder / "pictures").rglob("*.jpg"))
    with ZipFile(folder / "pictures.zip", "w") as archive:
        for file in files:
            archive.write(file, file.relative_to(folder / "pictures"))
    (folder / "parquet").mkdir()
    rows = {
        "image": [{"bytes": file.read_bytes(), "path": file.name} for file in files],
        "label": [file.parent.name for file in files],
        "id": [file.name for file in files],
    }
    pq.write_table(pa.table(rows), folder / "parquet/pictures.parquet")
    return bad


def ways(folder: Path, bad: list[Path]) -> dict[str, tuple[Way, Path]]:
    """Return each loader and script on the files of `write_files`, and where it may record unreadable files."""
    out = folder / "out"
    small = ["--num_train_epochs", "1", "--num_filters", "4", "--bootstrap_samples", "0", "--disable_tqdm", "true"]
    grid = ["--models", f"cnn={MODEL}", "--bootstrap_samples", "5", "--protocols", "native"]
    grid += ["--datasets", f"own={folder / 'pictures'}", "--output_dir", str(out / "grid")]
    images = ["--model", MODEL, "--images", *map(str, bad), "--output_dir", str(out / "explained")]

    def training(source: str) -> tuple[Way, Path]:
        words = ["--data", str(folder / source), *small, "--output_dir", str(out / source)]
        return lambda: train.main(words), folder / "cache"

    def scoring(source: str) -> tuple[Way, Path]:
        scores = out / f"scores of {source}"
        return lambda: score.main(["--model", MODEL, "--data", str(folder / source), "--output", str(scores)]), scores

    return {
        "train.py, folder": training("pictures"),
        "train.py, archive": training("pictures.zip"),
        "crosseval.py, folder": (lambda: crosseval.main(grid), folder / "cache"),
        "explain.py, files": (lambda: explain.main(images), out / "explained"),
        "score, folder": scoring("pictures"),
        "score, archive": scoring("pictures.zip"),
        "score, parquet": scoring("parquet"),
        "Detector, files": (lambda: _predict_each(bad), out / "detector"),
    }


def _predict_each(files: list[Path]) -> None:
    detector = Detector.from_pretrained(MODEL)
    for file in files:
        try:
            detector.predict(str(file))
        except ValueError as error:
            print(error)


def count_named(folder: Path) -> dict[str, Any]:
    """Count for each way how many of the unreadable files it names, and its tracebacks."""
    datasets.config.HF_DATASETS_CACHE = str(folder / "cache")
    bad = write_files(folder)
    rows = {}
    for name, (way, record) in ways(folder, bad).items():
        printed = io.StringIO()
        handler = logging.StreamHandler(printed)
        logging.getLogger("realfake_hf").addHandler(handler)
        with redirect_stdout(printed), redirect_stderr(printed):
            way()
        logging.getLogger("realfake_hf").removeHandler(handler)
        named = {*NAME.findall(printed.getvalue()), *_recorded(record)}
        rows[name] = {"n": len(bad), "named": len(named), "tracebacks": printed.getvalue().count("Traceback")}
    return rows


def _recorded(folder: Path) -> set[str]:
    """Return the unreadable files that a way recorded in its output or in the cache."""
    rows = [row for file in folder.glob("part-*.parquet") for row in pq.read_table(file).to_pylist()]
    texts = [row["id"] for row in rows if row["error"]]
    texts += [file.read_text(encoding="utf-8") for file in folder.rglob("unreadable.json")]
    texts += [str(read_json(file)["unreadable"]) for file in folder.glob("explanations.json")]
    return {name for text in texts for name in NAME.findall(text)}
