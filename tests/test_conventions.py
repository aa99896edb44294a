"""What other tools read: the script metadata of train.py, the dev container, and the notebook."""

import json
import re
import tomllib
from pathlib import Path

import nbformat
import pytest
from huggingface_hub.cli._uv_script_header import parse_uv_script_header
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
NOTEBOOK = ROOT / "docs/first_steps.ipynb"


def script_metadata(text):
    """The metadata of a script, by the reference implementation of PEP 723."""
    block = r"(?m)^# /// (?P<type>[a-zA-Z0-9-]+)$\s(?P<content>(^#(| .*)$\s)+)^# ///$"
    [found] = [match for match in re.finditer(block, text) if match["type"] == "script"]
    return tomllib.loads("".join(line[2:] or "\n" for line in found["content"].splitlines(keepends=True)))


def test_the_metadata_of_train_name_this_package_in_this_folder():
    metadata = script_metadata((ROOT / "train.py").read_text(encoding="utf-8"))
    [requirement] = map(Requirement, metadata["dependencies"])
    assert requirement.name == PROJECT["name"]
    assert requirement.extras <= PROJECT["optional-dependencies"].keys()
    assert metadata["requires-python"] == PROJECT["requires-python"]
    assert metadata["tool"]["uv"]["sources"] == {PROJECT["name"]: {"path": ".", "editable": True}}


def test_a_job_of_the_hub_does_not_look_for_the_package_in_its_folder():
    header = parse_uv_script_header((ROOT / "train.py").read_text(encoding="utf-8"))
    assert header.env == {"UV_NO_SOURCES": "1"}


def test_the_dev_container_has_a_python_of_the_package_and_runs_a_target_of_make():
    container = json.loads((ROOT / ".devcontainer/devcontainer.json").read_text(encoding="utf-8"))
    assert container["image"].rpartition(":")[2] == PROJECT["requires-python"].removeprefix(">=")
    target = container["postCreateCommand"].removeprefix("make ")
    assert f"\n{target}:" in (ROOT / "Makefile").read_text(encoding="utf-8")


@pytest.fixture
def notebook():
    return nbformat.read(NOTEBOOK, as_version=4)


def test_the_notebook_is_valid_and_holds_no_outputs(notebook):
    nbformat.validate(notebook)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.id for cell in cells if cell.outputs or cell.execution_count] == []


def test_the_notebook_installs_what_training_needs(notebook):
    [install] = [cell.source for cell in notebook.cells if cell.id == "install"]
    assert install.startswith("%pip install")
    assert Requirement(f"package{install.partition('..')[2].rstrip(chr(34))}").extras == {"train"}


@pytest.mark.slow
def test_the_notebook_trains_a_model_and_shows_its_map(notebook, tmp_path):
    from nbclient import NotebookClient  # loads native code, which only this test needs

    cells = {cell.id: cell for cell in notebook.cells}
    notebook.cells.remove(cells.pop("install"))
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert (tmp_path / "first-model/model.safetensors").is_file()
    shown = {name: [output.get("data", {}) for output in cell.get("outputs", ())] for name, cell in cells.items()}
    assert "accuracy" in shown["train"][-1]["text/markdown"]
    assert "image/png" in shown["curves"][-1]
    assert "image/png" in shown["map"][-1]
    assert "(probability of FAKE 0." in cells["judge"].outputs[-1].text
