"""The wheel works in a fresh environment, elsewhere, and contains what judging needs."""

import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROCKET = ROOT / "space/examples/rocket.jpg"
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheels")
    words = ["wheel", "--no-deps", "--wheel-dir", str(folder), str(ROOT)]
    subprocess.run([sys.executable, "-m", "pip", *words], check=True, capture_output=True, timeout=280)
    [file] = folder.glob("*.whl")
    return file


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """The scripts of a fresh environment with the wheel; its dependencies are those of this environment."""
    folder = tmp_path_factory.mktemp("elsewhere") / "env"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    python = folder / "bin/python"
    site = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], check=True, capture_output=True,
        text=True,
    ).stdout.strip()  # fmt: skip
    words = ["--python", str(python), "install", "--no-deps", "--no-index", str(wheel)]
    subprocess.run([sys.executable, "-m", "pip", *words], check=True, capture_output=True)
    Path(site, "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    return folder / "bin"


def run(words, folder):
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "REALFAKE_", "PYTHON"))}
    return subprocess.run(words, cwd=folder, env=kept, capture_output=True, text=True, check=False, timeout=200)


def test_the_command_judges_with_the_model_in_the_wheel(installed, tmp_path):
    done = run([str(installed / "realfake"), str(ROCKET)], tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"{ROCKET}: Likely real.")
    place = run([str(installed / "python"), "-c", "import realfake_hf; print(realfake_hf.__file__)"], tmp_path)
    assert place.stdout.startswith(str(installed.parent))


def test_every_command_answers_help(installed, tmp_path):
    for name in ("check", "report", "explain", "score", "train", "crosseval", "publish", "space"):
        done = run([str(installed / "realfake"), name, "--help"], tmp_path)
        assert done.returncode == 0, done.stderr
        assert f"realfake {name}" in done.stdout or "--config" in done.stdout


def test_the_wheel_contains_the_model_the_templates_and_no_tests(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {"realfake_hf/wild/model.onnx", "realfake_hf/check/report.html.j2", "realfake_hf/py.typed"} <= set(names)
    assert not [name for name in names if name.startswith(("tests/", "space/"))]
