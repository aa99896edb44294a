"""The folder space/ by itself: copied elsewhere, installed from its own requirements, started, asked once."""

import shutil
import subprocess
import venv

import pytest
from gradio_client import Client, handle_file

from benchmarks.space_server import SPACE, Server
from realfake_hf.hub.push import ARCHIVE, write_package


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_folder_runs_by_itself(tmp_path):
    alone = shutil.copytree(SPACE, tmp_path / "somewhere/else", ignore=shutil.ignore_patterns("__pycache__"))
    write_package(alone / ARCHIVE)
    venv.create(tmp_path / "venv", with_pip=True)
    python = str(tmp_path / "venv/bin/python")
    pip = [python, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run(
        [*pip, "install", "--no-compile", "--requirement", str(alone / "requirements.txt")], check=True, timeout=800
    )
    subprocess.run([*pip, "check"], check=True)
    found = subprocess.run([python, "-c", "import realfake_hf"], capture_output=True, check=False, cwd=tmp_path)
    assert found.returncode != 0  # nothing of this checkout is installed there
    server = Server(tmp_path, script=alone / "app.py", python=python)
    try:
        answer = Client(server.url, verbose=False).predict(
            handle_file(str(SPACE / "examples/rocket.jpg")), "cifake-vit", api_name="/predict"
        )
    finally:
        server.stop()
    assert answer["verdict"] == "Unsure, possibly AI-generated"
    assert "Traceback" not in server.log.read_text()
