"""The container of the page: the Dockerfile is built where there is an engine; its claims are checked elsewhere."""

import json
import shlex
import shutil
import subprocess
import time
import urllib.request
from fnmatch import fnmatch
from pathlib import Path

import pytest

from realfake_hf.cli import parse
from realfake_space.gate import HEALTH
from realfake_space.serve import SpaceArguments

ROOT = Path(__file__).resolve().parents[1]


def instructions():
    """Return the instructions of the Dockerfile in order, as pairs of a name and its text."""
    text = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [tuple(part.strip() for part in line.partition(" ")[::2]) for line in lines]


def of(name):
    return [text for instruction, text in instructions() if instruction == name]


def engine():
    """Return a container engine that runs here, or None."""
    for name in ("docker", "podman"):
        if shutil.which(name) and not subprocess.run([name, "info"], capture_output=True, check=False).returncode:
            return name
    return None


def test_the_image_is_slim_and_its_user_is_not_root():
    [base] = of("FROM")
    assert base == "python:3.11-slim"
    names = [name for name, _ in instructions()]
    assert of("USER") == ["page"]
    assert any("useradd" in text and text.endswith(" page") for text in of("RUN"))
    assert names.index("USER") < names.index("CMD")
    assert "COPY" not in names[names.index("USER") :]  # its user owns no code


def test_torch_comes_without_cuda_at_the_version_of_the_page():
    [install] = [text for text in of("RUN") if "torch" in text]
    first, second = install.split("&&")
    assert "https://download.pytorch.org/whl/cpu" in first
    assert "grep '^torch==' space/requirements.txt" in first
    assert "--requirement space/requirements.txt" in second
    assert (ROOT / "space/requirements.txt").read_text().count("\ntorch==") == 1


def test_the_command_opens_the_page_for_other_machines_and_the_health_check_asks_it():
    python, script, *words = json.loads(of("CMD")[-1])
    assert (python, (ROOT / script).is_file()) == ("python", True)
    [arguments] = parse(SpaceArguments, argv=words, description="")
    assert arguments.host == "0.0.0.0"
    assert of("EXPOSE") == [str(arguments.port)]
    check = of("HEALTHCHECK")[0].partition("CMD ")[2]
    assert f"http://127.0.0.1:{arguments.port}{HEALTH}" in json.loads(check)[2]
    compile(json.loads(check)[2], "health check", "exec")


def test_what_is_copied_is_there_and_not_ignored():
    ignored = (ROOT / ".dockerignore").read_text().split()
    assert ignored[0] == "*"
    for text in of("COPY"):
        source, target = shlex.split(text)
        assert (ROOT / source).exists()
        assert source == target
        assert any(line.startswith("!") and fnmatch(source.split("/")[0], line[1:]) for line in ignored)


@pytest.mark.slow
@pytest.mark.skipif(engine() is None, reason="no container engine runs here")
@pytest.mark.timeout(1800)
def test_the_container_is_built_and_healthy():
    run = engine()
    subprocess.run([run, "build", "--tag", "realfake-test", str(ROOT)], check=True, timeout=1500)
    words = [run, "run", "--detach", "--rm", "--publish", "127.0.0.1::7860", "realfake-test"]
    started = subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()
    try:
        ports = subprocess.run([run, "port", started, "7860"], check=True, capture_output=True, text=True).stdout
        place = ports.split()[0]
        deadline = time.monotonic() + 240
        while True:
            try:
                with urllib.request.urlopen(f"http://{place}{HEALTH}", timeout=5) as answer:
                    assert json.load(answer) == {"status": "ok"}
                    break
            except OSError:
                assert time.monotonic() < deadline
                time.sleep(2)
        user = subprocess.run([run, "exec", started, "id", "-u"], check=True, capture_output=True, text=True).stdout
        assert user.strip() == "1000"
    finally:
        subprocess.run([run, "kill", started], check=False, capture_output=True)
