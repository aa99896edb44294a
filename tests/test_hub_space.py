"""The folder of the Space has the present package, results and requirements."""

import json
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import yaml

from realfake_hf.detector import Detector
from realfake_hf.hub.space import ARCHIVE, insert_tables, measured, package_files, write_package
from realfake_space.answers import read_measured
from realfake_space.models import MODELS

ROOT = Path(__file__).resolve().parents[1]
SPACE = ROOT / "space"


def test_the_archive_holds_the_package_and_python_imports_from_it(tmp_path):
    write_package(tmp_path / ARCHIVE)
    with zipfile.ZipFile(tmp_path / ARCHIVE) as stream:
        assert {name: stream.read(name) for name in stream.namelist()} == dict(package_files())
    lines = (
        f"import sys; sys.path.insert(0, {str(tmp_path / ARCHIVE)!r}); import realfake_hf; print(realfake_hf.__file__)"
    )
    found = subprocess.run([sys.executable, "-c", lines], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert found.stdout.startswith(str(tmp_path / ARCHIVE))


def test_the_folder_has_the_present_results():
    assert json.loads((SPACE / "measured.json").read_text()) == measured(ROOT / "results"), "run: make space-folder"
    text = (SPACE / "measured.md").read_text()
    assert insert_tables(text, ROOT / "results") == text, "run: make space-folder"
    digests = {Detector.from_pretrained(folder).digest() for folder in MODELS.iterdir()}
    assert set(read_measured()) == digests


def test_the_page_opens_from_a_checkout_without_the_archive_and_without_an_installation(tmp_path):
    lines = "import runpy; runpy.run_path('space/app.py'); import realfake_hf; print(realfake_hf.__file__)"
    checkout = shutil.copytree(SPACE, tmp_path / "space", ignore=shutil.ignore_patterns("models", ARCHIVE))
    package = checkout.parent / "realfake_hf"
    package.mkdir()
    (package / "__init__.py").touch()
    found = subprocess.run(
        [sys.executable, "-I", "-S", "-c", lines], cwd=tmp_path, capture_output=True, text=True, check=True
    )  # without site-packages
    assert found.stdout.strip() == str(package / "__init__.py")


def test_requirements_are_those_of_the_package():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = {*project["dependencies"], *project["optional-dependencies"]["space"]}
    assert set((SPACE / "requirements.txt").read_text().split()) == wanted


def test_the_front_matter_is_that_of_a_space():
    _, front, _ = (SPACE / "README.md").read_text().split("---\n", 2)
    found = yaml.safe_load(front)
    assert (found["sdk"], found["app_file"], found["license"]) == ("gradio", "app.py", "mit")
    assert (SPACE / found["app_file"]).is_file()
    assert len(found["short_description"]) <= 60
