"""Processes that wait for each other."""

import os
import subprocess

import pytest

from benchmarks.launch import ROOT, launcher


@pytest.mark.slow
def test_a_process_that_is_long_busy_does_not_count_as_lost():
    command = [*launcher(2, "--multi_gpu"), "tests/busy_process.py", "2", "8"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert [line.rpartition(": ")[2] for line in done.stdout.splitlines() if line.startswith("process ")] == ["2", "2"]
