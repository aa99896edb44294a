"""The folder of the Space carries what it needs, as it is now."""

import json
import tomllib
import zipfile
from pathlib import Path

import yaml

from realfake_hf.detector import Detector
from realfake_hf.hub.readme import render
from realfake_hf.hub.space import ARCHIVE, measured, package_files
from realfake_space.answers import read_measured
from realfake_space.lineup import MODELS

ROOT = Path(__file__).resolve().parents[1]
SPACE = ROOT / "space"


def test_the_folder_carries_this_package_and_these_results():
    with zipfile.ZipFile(SPACE / ARCHIVE) as stream:
        carried = {name: stream.read(name) for name in stream.namelist()}
    stale = [name for name, data in package_files() if carried.pop(name, None) != data]
    assert (stale, list(carried)) == ([], []), "run: make space-folder"
    assert json.loads((SPACE / "measured.json").read_text()) == measured(ROOT / "results"), "run: make space-folder"
    text = (SPACE / "measured.md").read_text()
    assert render(text, ROOT / "results") == text, "run: make space-folder"
    digests = {Detector.from_pretrained(folder).digest() for folder in MODELS.iterdir()}
    assert set(read_measured()) == digests


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
