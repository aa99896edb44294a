"""Hub data sets over HTTP, from a local server that imitates the Hub."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Dataset, Features, Image

from realfake_hf.data.decoding import decode_image, pixel_hash
from realfake_hf.data.loading import CIFAKE_MIRROR

PictureBytes = Callable[..., bytes]
pytestmark = pytest.mark.slow

# Each source is asked for in a process of its own settings, because the client reads its endpoint once, at import.
ASK = """
import json, sys
from realfake_hf.data.loading import load_images

def ask(source):
    try:
        images = load_images(source)
    except Exception as error:
        return {"error": type(error).__name__, "message": str(error)}
    return {split: [{k: v for k, v in row.items() if k != "image"} for row in rows] for split, rows in images.items()}

print(json.dumps({source: ask(source) for source in sys.argv[1:]}))
"""


def parquet(picture_bytes: PictureBytes, folder: Path, seeds: range) -> bytes:
    rows = {"image": [{"bytes": picture_bytes(n), "path": f"{n}.png"} for n in seeds], "label": [n % 2 for n in seeds]}
    features = Features({"image": Image(), "label": ClassLabel(names=["FAKE", "REAL"])})  # in the mirror's order
    Dataset.from_dict(rows, features=features).to_parquet(folder / "rows.parquet")
    return (folder / "rows.parquet").read_bytes()


def paths(folder: Path) -> bytes:
    """Rows that name an image of the reader's machine instead of containing one."""
    (folder / "secret.png").write_bytes(b"-")
    rows = {"image": [{"bytes": None, "path": str(folder / "secret.png")}] * 2, "label": [0, 1]}
    schema = Features({"image": Image(), "label": ClassLabel(names=["FAKE", "REAL"])}).arrow_schema
    pq.write_table(pa.Table.from_pydict(rows, schema=schema), folder / "paths.parquet")
    return (folder / "paths.parquet").read_bytes()


def ask(*sources: str, folder: Path, **environment: str) -> dict[str, Any]:
    (folder / "empty").mkdir(exist_ok=True)
    own = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "REALFAKE_"))}
    own |= {
        "HF_HOME": str(folder / "home"),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "NO_PROXY": "*",
    }
    own["PYTHONPATH"] = str(Path(__file__).parents[1])
    call = [sys.executable, "-c", ASK, *sources]
    done = subprocess.run(
        call, env=own | environment, cwd=folder / "empty", capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def repositories(picture_bytes: PictureBytes, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, bytes]]:
    folder = tmp_path_factory.mktemp("repositories")
    splits = {
        f"data/{split}-00000-of-00001.parquet": parquet(picture_bytes, folder, seeds)
        for split, seeds in (("train", range(6)), ("test", range(6, 10)))
    }
    return {
        "user/name": {"README.md": b"---\nlicense: mit\n---\n", **splits},
        "user/broken": {"data/train-00000-of-00001.parquet": b"PAR1 no PAR1"},
        "user/script": {"script.py": b"print()"},
        "user/capital": {f"{split}.parquet": parquet(picture_bytes, folder, range(4)) for split in ("Train", "Test")},
        "user/files": {
            f"{split}/{label}/{n}.png": picture_bytes(f"{split} {label} {n}")
            for split in ("train", "test")
            for label in ("real", "fake")
            for n in range(2)
        },
        "user/paths": {"data/train-00000-of-00001.parquet": paths(folder)},
        CIFAKE_MIRROR: splits,
    }


@pytest.fixture(scope="module")
def answers(
    hub_stand_in: ModuleType, repositories: dict[str, dict[str, bytes]], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """Load all sources over HTTP in one process, since starting it dominates the time."""
    names = ("broken", "capital", "files", "gated", "name", "nothing", "paths", "private", "script")
    asked = ("cifake", *(f"user/{name}" for name in names))
    with hub_stand_in.serve(repositories) as address:
        return ask(*asked, folder=tmp_path_factory.mktemp("hub"), HF_ENDPOINT=address)


def label_of(picture_bytes: PictureBytes, seeds: range) -> dict[str, int]:
    return {pixel_hash(decode_image(picture_bytes(n))): 1 - n % 2 for n in seeds}


def test_labels_of_a_hub_data_set_are_mapped_to_real_0_and_fake_1(
    answers: dict[str, Any], picture_bytes: PictureBytes
) -> None:
    for split, seeds in (("train", range(6)), ("test", range(6, 10))):
        rows = answers["user/name"][split]
        assert {row["sha256"]: row["label"] for row in rows} == label_of(picture_bytes, seeds)
        assert {(row["content"], row["generator"], row["source"]) for row in rows} == {(None, None, "user/name")}


def test_without_a_local_archive_cifake_is_downloaded_from_the_mirror(
    answers: dict[str, Any], picture_bytes: PictureBytes
) -> None:
    assert {split: len(rows) for split, rows in answers["cifake"].items()} == {"train": 6, "test": 4}
    assert {row["sha256"]: row["label"] for row in answers["cifake"]["train"]} == label_of(picture_bytes, range(6))
    for row in answers["cifake"]["train"]:
        assert row["source"] == "cifake"
        assert row["generator"] == ("stable-diffusion-1.4" if row["label"] else None)


@pytest.mark.parametrize("name", ["nothing", "private", "gated"])
def test_a_missing_private_or_gated_data_set_is_rejected_in_one_line(answers: dict[str, Any], name: str) -> None:
    error = answers[f"user/{name}"]
    assert error["error"] == "FileNotFoundError"
    assert f"'user/{name}'" in error["message"]
    assert "Hugging Face Hub" in error["message"]
    assert "`hf auth login`" in error["message"]
    assert "\n" not in error["message"]


@pytest.mark.parametrize(
    ("name", "found"),
    [("broken", "Parquet file size is 12 bytes"), ("script", "Dataset scripts are no longer supported")],
)
def test_a_data_set_that_cannot_be_loaded_is_rejected(answers: dict[str, Any], name: str, found: str) -> None:
    error = answers[f"user/{name}"]
    assert error["error"] == "ValueError"
    assert f"loading 'user/{name}' failed" in error["message"]
    assert found in error["message"]


def test_files_of_a_test_split_that_datasets_takes_for_training_images_are_refused(answers: dict[str, Any]) -> None:
    assert answers["user/capital"]["error"] == "ValueError"
    assert "in the split train of user/capital; found Test.parquet" in answers["user/capital"]["message"]


def test_image_files_of_a_repository_are_read_but_no_path_in_a_row_is_opened(answers: dict[str, Any]) -> None:
    assert {split: len(rows) for split, rows in answers["user/files"].items()} == {"train": 4, "test": 4}
    assert answers["user/paths"]["error"] == "ValueError"
    assert "found 2 of 2" in answers["user/paths"]["message"]
    assert "secret.png" in answers["user/paths"]["message"]


def test_without_network_cached_data_sets_load_and_others_are_rejected(
    hub_stand_in: ModuleType, repositories: dict[str, dict[str, bytes]], tmp_path: Path
) -> None:
    with hub_stand_in.serve(repositories) as address:
        before = ask("user/name", folder=tmp_path, HF_ENDPOINT=address)
    with ThreadPoolExecutor() as both:  # the client tries for 20 s
        asked = [both.submit(ask, name, folder=tmp_path, HF_ENDPOINT=address) for name in ("user/name", "user/other")]
    known, unknown = (one.result() for one in asked)
    assert known["user/name"] == before["user/name"]
    assert unknown["user/other"]["error"] == "FileNotFoundError"
    assert "Check the name and the network" in unknown["user/other"]["message"]
