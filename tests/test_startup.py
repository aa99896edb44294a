"""What a fresh process imports: help and wrong settings are answered before PyTorch is loaded."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import realfake_hf

ROOT = Path(__file__).parents[1]
HEAVY = {"captum", "datasets", "matplotlib", "scipy", "sklearn", "torch"}
REPORTS = {f"realfake_hf.{name}" for name in ("crosseval", "hub", "pages")}

RUN = """
import runpy, sys
sys.argv = {words}
try:
    runpy.run_{kind}({name!r}, run_name="__main__")
except SystemExit as stop:
    print("status", stop.code)
"""
COMMANDS = {
    "train": ("path", "train.py", "--learning_rate"),
    "explain": ("path", "explain.py", "--output_dir"),
    "crosseval": ("path", "crosseval.py", "--output_dir"),
    "score": ("module", "realfake_hf.score", "--model"),
    "ablation": ("module", "realfake_hf.experiments.ablation", "--plan"),
    "compare": ("module", "realfake_hf.experiments.compare", "--models"),
    "data_audit": ("module", "realfake_hf.experiments.data_audit", "--file_facts"),
    "seeds": ("module", "realfake_hf.experiments.seeds", "--runs"),
    "search": ("module", "realfake_hf.experiments.search", "--num_filters"),
    "transfer": ("module", "realfake_hf.experiments.transfer", "--plan"),
    "results_page": ("module", "realfake_hf.experiments.results_page", "--results"),
    "hub": ("module", "realfake_hf.hub", "--hub_model_id"),
    "model_card": ("module", "realfake_hf.hub.model_card", "--repo_id"),
    "onnx": ("module", "realfake_hf.hub.onnx", "--int8"),
    "space": ("module", "realfake_hf.hub.space", "--space"),
}
SLOW = {"explain", "score"}  # commands that still import PyTorch first


def modules_after(code):
    """What some lines of code print, and the names of the modules that a fresh process then has imported."""
    lines = f"{code}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"
    command = [sys.executable, "-c", lines]
    process = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    *output, modules = process.stdout.splitlines()
    return "\n".join(output) + process.stderr, set(json.loads(modules))


def test_importing_the_package_imports_nothing_heavy_until_a_name_is_used():
    assert not modules_after("import realfake_hf; dir(realfake_hf)")[1] & {*HEAVY, "numpy", "transformers"}
    assert not modules_after("from realfake_hf import Verdict")[1] & {*HEAVY, "numpy", "transformers"}
    with pytest.raises(AttributeError, match="no_such_name"):
        realfake_hf.no_such_name  # noqa: B018


def test_every_public_name_of_the_package_exists():
    assert set(realfake_hf.__all__) <= set(dir(realfake_hf))
    assert all(getattr(realfake_hf, name).__name__ == name for name in realfake_hf.__all__)


@pytest.mark.parametrize("command", sorted({*COMMANDS} - SLOW))
def test_help_and_a_misspelt_flag_are_answered_before_anything_heavy_is_imported(command):
    kind, name, flag = COMMANDS[command]
    output, modules = modules_after(RUN.format(kind=kind, name=name, words=[name, "--help"]))
    assert "status 0" in output
    assert flag in output
    assert not modules & HEAVY
    output, modules = modules_after(RUN.format(kind=kind, name=name, words=[name, f"{flag}x", "1"]))
    assert "status 2" in output
    assert f"unknown setting {flag}x 1; did you mean {flag}?" in output
    assert not modules & HEAVY


def test_a_misspelt_key_of_a_recipe_is_answered_before_anything_heavy_is_imported(tmp_path):
    (tmp_path / "recipe.yaml").write_text("max_steps: 3\nadam_bta1: 0.8\n")
    words = ["train.py", "--config", str(tmp_path / "recipe.yaml")]
    output, modules = modules_after(RUN.format(kind="path", name="train.py", words=words))
    assert "status 2" in output
    assert "unknown setting adam_bta1" in output
    assert "did you mean adam_beta1?" in output
    assert not modules & HEAVY


def test_training_loads_no_report_and_no_hub():
    _, modules = modules_after("import train, realfake_hf.training.run")
    assert "realfake_hf.training.trainer" in modules
    assert not modules & REPORTS
