"""Processes of a launch that wait for each other."""

import os
import subprocess

import pytest

from benchmarks.launch import ROOT, launcher


@pytest.mark.slow
def test_a_busy_process_does_not_count_as_lost():
    command = [*launcher(2, "--multi_gpu"), "tests/busy_process.py", "2", "8"]
    settings = {"env": {**os.environ, "PYTHONPATH": str(ROOT)}, "cwd": ROOT, "timeout": 120}
    process = subprocess.run(command, capture_output=True, text=True, check=False, **settings)
    assert process.returncode == 0, process.stderr
    sums = [line.rpartition(": ")[2] for line in process.stdout.splitlines() if line.startswith("process ")]
    assert sums == ["2", "2"]
