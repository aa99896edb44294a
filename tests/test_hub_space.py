"""The folder of the Space has the present package, results and requirements."""

import json
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from itertools import chain
from pathlib import Path
from urllib.parse import urlsplit

import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from realfake_hf.detector import Detector
from realfake_hf.hub.push import ARCHIVE, package_files, write_package
from realfake_space.answers import read_measured
from realfake_space.models import MODELS
from tools.space_folder import insert_tables, measured, requirements

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


PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCKED = tomllib.loads((ROOT / "uv.lock").read_text())["package"]
WANTED = [Requirement(text) for text in chain(PROJECT["dependencies"], *PROJECT["optional-dependencies"].values())]


def test_requirements_are_those_of_the_package_at_their_locked_versions():
    text = (SPACE / "requirements.txt").read_text()
    assert text == requirements(ROOT / "uv.lock"), "run: make space-folder"
    pinned = dict(line.split("==") for line in text.split())
    extras = PROJECT["optional-dependencies"]
    texts = (*PROJECT["dependencies"], *extras["train"], *extras["provenance"], *extras["space"])
    needed = [each for each in map(Requirement, texts) if each.name != PROJECT["name"]]
    assert [one.name for one in needed if not one.specifier.contains(pinned.get(one.name, "0"))] == []
    assert len(pinned) == len(needed)


def test_the_lock_is_that_of_the_project():
    """Also `uv lock --check` compares these requirements; after a change of pyproject.toml, run `uv lock`."""
    [own] = [package for package in LOCKED if package["source"] == {"editable": "."}]
    locked = {(one["name"], SpecifierSet(one.get("specifier", ""))) for one in own["metadata"]["requires-dist"]}
    assert locked == {(canonicalize_name(one.name), one.specifier) for one in WANTED}
    versions = {(package["name"], package["version"]) for package in LOCKED}
    outside = [one for one in WANTED for name, version in versions
               if name == canonicalize_name(one.name) and not one.specifier.contains(version)]  # fmt: skip
    assert outside == []
    assert {canonicalize_name(one.name) for one in WANTED} <= {name for name, _ in versions}


def test_the_lock_names_public_addresses_and_a_digest_of_each_file():
    others = [package for package in LOCKED if package["source"] != {"editable": "."}]
    assert {*chain(*(package["source"].items() for package in others))} == {("registry", "https://pypi.org/simple")}
    files = [
        file for package in others for file in (*package.get("wheels", ()), *filter(None, [package.get("sdist")]))
    ]
    assert len(files) > len(others) > 100
    assert {urlsplit(file["url"]).netloc for file in files} == {"files.pythonhosted.org"}
    assert [file["url"] for file in files if not re.fullmatch("sha256:[0-9a-f]{64}", file["hash"])] == []


def test_the_version_of_gradio_is_the_locked_one():
    front = yaml.safe_load((SPACE / "README.md").read_text().split("---\n", 2)[1])
    assert f"gradio=={front['sdk_version']}" in (SPACE / "requirements.txt").read_text().split()
    assert front["python_version"] == "3.11"


def test_the_front_matter_is_that_of_a_space():
    _, front, _ = (SPACE / "README.md").read_text().split("---\n", 2)
    found = yaml.safe_load(front)
    assert (found["sdk"], found["app_file"], found["license"]) == ("gradio", "app.py", "mit")
    assert (SPACE / found["app_file"]).is_file()
    assert len(found["short_description"]) <= 60
