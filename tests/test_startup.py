"""What a fresh process imports: help and wrong settings are answered before PyTorch is loaded."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import realfake_hf

ROOT = Path(__file__).parents[1]
HEAVY = {"captum", "datasets", "matplotlib", "pandas", "scipy", "sklearn", "torch"}
REPORTS = {f"realfake_hf.{name}" for name in ("crosseval", "explain", "explain_study", "hub", "pages")}
SLOW = {
    "realfake_hf.data.credentials",  # no parser: `verify_credentials` runs it
    "realfake_hf.models.deit",  # its package registers a model class
    "benchmarks.echo_app",  # no parser: the Space's server runs it
}


def is_command(file):
    """Whether a file runs something as `__main__`."""
    tests = [node.test for node in ast.parse(file.read_text(encoding="utf-8")).body if isinstance(node, ast.If)]
    return "__name__ == '__main__'" in map(ast.unparse, tests)


FILES = [file for place in ("realfake_hf", "benchmarks", "tools") for file in sorted((ROOT / place).rglob("*.py"))]
MODULES = [".".join(file.relative_to(ROOT).with_suffix("").parts) for file in FILES if is_command(file)]
COMMANDS = ["train", "explain", "crosseval", *(name.removesuffix(".__main__") for name in MODULES)]

RUN = """
import contextlib, io, os, runpy, sys

def run(name, *words):
    sys.argv = [name, *words]
    output = io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
        try:
            runpy.run_module(name, run_name="__main__")
        except SystemExit as stop:
            return stop.code, output.getvalue()
"""


def after(code):
    """The value of `result` after some lines of code, and the names of the modules that their process has imported."""
    lines = f"import json, sys\n{code}\nprint(json.dumps([result, sorted(sys.modules)]))"
    command = [sys.executable, "-W", "ignore", "-c", lines]  # runpy warns of a module that another one imported
    process = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    result, modules = json.loads(process.stdout.splitlines()[-1])
    return result, set(modules)


def test_importing_the_package_imports_nothing_heavy_until_a_name_is_used():
    for code in ("import realfake_hf; result = dir(realfake_hf)", "from realfake_hf import Verdict; result = None"):
        _, modules = after(code)
        assert not modules & {*HEAVY, "numpy", "transformers"}
    with pytest.raises(AttributeError, match="no_such_name"):
        realfake_hf.no_such_name  # noqa: B018


def test_every_public_name_of_the_package_exists():
    assert set(realfake_hf.__all__) <= set(dir(realfake_hf))
    assert all(getattr(realfake_hf, name).__name__ == name for name in realfake_hf.__all__)


def test_every_command_answers_help_in_short_lines_before_anything_heavy_is_imported():
    assert set(COMMANDS) >= SLOW
    names = [name for name in COMMANDS if name not in SLOW]
    code = f"""{RUN}
result = {{}}
os.environ["COLUMNS"] = "300"
for name in {names}:
    before = set(sys.modules)
    status, output = run(name, "--help")
    heavy = sorted({HEAVY} & (set(sys.modules) - before))
    result[name] = status, "usage:" in output, "None" in output, max(map(len, output.splitlines())) > 100, heavy
"""
    result, _ = after(code)
    assert len(names) >= 20
    assert result == {name: [0, True, False, False, []] for name in names}


@pytest.mark.parametrize(
    ("command", "wrong", "right"),
    [
        ("train", "--lerning_rate", "--learning_rate"),
        ("explain", "--imags", "--images"),
        ("crosseval", "--dataset", "--datasets"),
        ("realfake_hf.score", "--outputs", "--output"),
        ("realfake_hf.experiments.search", "--number_filters", "--num_filters"),
        ("realfake_hf.hub", "--hub_model", "--hub_model_id"),
    ],
)
def test_a_misspelt_flag_is_answered_before_anything_heavy_is_imported(command, wrong, right):
    (status, output), modules = after(f"{RUN}\nresult = run({command!r}, {wrong!r}, '1')")
    assert status == 2
    assert f"unknown setting {wrong}; did you mean {right}?" in output
    assert not modules & HEAVY


def test_a_misspelt_key_of_a_recipe_is_answered_before_anything_heavy_is_imported(tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("max_steps: 3\nadam_bta1: 0.8\n")
    (status, output), modules = after(f"{RUN}\nresult = run('train', '--config', {str(recipe)!r})")
    assert status == 2
    assert "unknown setting adam_bta1" in output
    assert "did you mean adam_beta1?" in output
    assert not modules & HEAVY


@pytest.mark.slow
def test_training_loads_no_report_and_no_hub():
    _, modules = after("import train, realfake_hf.training.run; result = None")
    assert "realfake_hf.training.trainer" in modules
    assert not modules & REPORTS
