"""Files that are no pictures, among pictures, through every loader and script: is each named, without a traceback?"""

import importlib.util
import io
import json
import logging
import re
from collections.abc import Callable, Iterator
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
from benchmarks.jobs import MODELS, some_of_cifake
from realfake_hf.detector import Detector
from realfake_hf.score import __main__ as score

CORPUS: Final = Path(__file__).resolve().parents[1] / "tests/bad_files.py"
GOOD: Final = 2000  # pictures of each label, so that what is bad is less than a hundredth

Way = Callable[[Path, list[Path]], object]


def corpus() -> Iterator[tuple[str, bytes, bool]]:
    """The files of the tests: name, bytes, and whether a picture is in them."""
    spec = importlib.util.spec_from_file_location("bad_files", CORPUS)
    if spec is None or spec.loader is None:
        raise FileNotFoundError(f"wanted the tests' files at {CORPUS}; found none.")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield from module.corpus()


def lay_out(folder: Path) -> list[Path]:
    """Write real pictures and bad files as a data set, as a folder, an archive and parquet; give the bad files."""
    bad: list[Path] = []
    for name, data in some_of_cifake({"train": GOOD}):
        file = folder / name.replace("train/", "pictures/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    for number, (_, data, is_picture) in enumerate(corpus()):
        if not is_picture:
            bad.append(folder / "pictures" / ("REAL" if number % 2 else "FAKE") / f"bad{number:03d}.jpg")
            bad[-1].write_bytes(data)
    files = sorted((folder / "pictures").rglob("*.jpg"))
    with ZipFile(folder / "pictures.zip", "w") as archive:
        for file in files:
            archive.write(file, file.relative_to(folder / "pictures"))
    rows = {
        "image": [{"bytes": file.read_bytes(), "path": file.name} for file in files],
        "label": [file.parent.name for file in files],
        "id": [file.name for file in files],
    }
    (folder / "parquet").mkdir()
    pq.write_table(pa.table(rows), folder / "parquet/pictures.parquet")
    return bad


def ways(out: Path) -> dict[str, Way]:
    """Every loader and script, each given the folder of `lay_out`, and the bad files."""
    model = str(MODELS / "cifake-cnn")

    def training(source: str) -> Way:
        words = ["--num_train_epochs", "1", "--num_filters", "4", "--bootstrap_samples", "0", "--disable_tqdm", "true"]
        return lambda folder, _: train.main(
            ["--data", str(folder / source), *words, "--output_dir", str(out / source)]
        )

    def scoring(source: str) -> Way:
        place = str(out / f"scores of {source}")
        return lambda folder, _: score.main(["--model", model, "--data", str(folder / source), "--output", place])

    grid = ["--models", f"cnn={model}", "--bootstrap_samples", "5", "--protocols", "native"]
    return {
        "train.py, folder": training("pictures"),
        "train.py, archive": training("pictures.zip"),
        "crosseval.py, folder": lambda folder, _: crosseval.main(
            [*grid, "--datasets", f"own={folder / 'pictures'}", "--output_dir", str(out / "grid")]
        ),
        "explain.py, files": lambda _, bad: explain.main(
            ["--model", model, "--images", *map(str, bad), "--output_dir", str(out / "explained")]
        ),
        "score, folder": scoring("pictures"),
        "score, archive": scoring("pictures.zip"),
        "score, parquet": scoring("parquet"),
        "Detector, files": lambda _, bad: _verdicts(model, bad),
    }


def _verdicts(model: str, files: list[Path]) -> None:
    detector = Detector.from_pretrained(model)
    for file in files:
        try:
            detector.predict(str(file))
        except ValueError as error:
            print(error)


def through_everything(folder: Path) -> dict[str, Any]:
    """Count, for each way, how many of the bad files were named, and the tracebacks."""
    datasets.config.HF_DATASETS_CACHE = str(folder / "cache")
    bad = lay_out(folder)
    rows = {}
    for name, way in ways(folder / "out").items():
        said = io.StringIO()
        listening = logging.StreamHandler(said)
        logging.getLogger("realfake_hf").addHandler(listening)
        with redirect_stdout(said), redirect_stderr(said):
            way(folder, bad)
        logging.getLogger("realfake_hf").removeHandler(listening)
        named = {*re.findall(r"bad\d{3}", said.getvalue()), *_noted(folder / "out", folder / "cache", name)}
        rows[name] = {"n": len(bad), "named": len(named), "tracebacks": said.getvalue().count("Traceback")}
    return rows


def _noted(out: Path, cache: Path, name: str) -> set[str]:
    """The bad files that a way's own output names: rows with an error, or the list beside the rows of a source."""
    kind = name.partition(", ")[2]
    if name.startswith("score"):
        source = {"folder": "pictures", "archive": "pictures.zip", "parquet": "parquet"}[kind]
        tables = [pq.read_table(file).to_pylist() for file in (out / f"scores of {source}").glob("part-*.parquet")]
        return {
            match for table in tables for row in table if row["error"] for match in re.findall(r"bad\d{3}", row["id"])
        }
    lists = cache.rglob("unreadable.json") if name.startswith(("train", "crosseval")) else ()
    if name.startswith("explain"):
        noted = json.loads((out / "explained/explanations.json").read_text(encoding="utf-8"))["unreadable"]
        return set(re.findall(r"bad\d{3}", json.dumps(noted)))
    return {match for file in lists for match in re.findall(r"bad\d{3}", file.read_text(encoding="utf-8"))}
