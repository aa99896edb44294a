"""The grid in two processes: one goes on with what the other began, and none waits for a dead one."""

import json
import os
import subprocess
from pathlib import Path

import pytest
import torch
from transformers import ViTImageProcessorPil

import crosseval
from benchmarks.launch import launcher
from realfake_hf import CifakeCnnConfig, CifakeCnnForImageClassification

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A CNN of the size of the real one, on which the number of cores shows in the last digits."""
    folder = tmp_path_factory.mktemp("models") / "cnn"
    torch.manual_seed(0)
    CifakeCnnForImageClassification(CifakeCnnConfig()).save_pretrained(folder)
    ViTImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(folder)
    (folder / "operating_point.json").write_text(json.dumps({"threshold": 0.49, "chosen": "by hand", "n": 9}))
    return folder


def words(model, folder):
    given = ["--models", f"cnn={model}", "--datasets", "demo=demo", "--baseline_data", "demo"]
    return [*given, "--bootstrap_samples", "20", "--output_dir", str(folder)]


def launch(script, given):
    """Run a script in two processes that talk over gloo, each on a core of its own."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [*launcher(2, "--multi_gpu"), str(script), *given], env=environment, capture_output=True, text=True,
        check=False, cwd=ROOT, timeout=240,
    )  # fmt: skip


def grid_in(folder):
    found = json.loads((folder / "grid.json").read_text())
    found["settings"].pop("output_dir")
    del found["versions"], found["machine"]["threads"]  # of the process: what it imports, its share of the cores
    return found


@pytest.mark.slow
def test_two_processes_go_on_with_what_one_began(model, tmp_path):
    assert crosseval.main(words(model, tmp_path / "one")) == 0
    (tmp_path / "begun/cells").mkdir(parents=True)
    for file in (tmp_path / "one/cells").iterdir():
        if "matched" not in file.name:
            (tmp_path / "begun/cells" / file.name).write_bytes(file.read_bytes())
    done = launch(ROOT / "crosseval.py", words(model, tmp_path / "begun"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("report: ") == 1  # one process of the two prints
    assert grid_in(tmp_path / "begun") == grid_in(tmp_path / "one")


@pytest.mark.slow
def test_a_process_that_fails_alone_ends_both(model, tmp_path):
    script = tmp_path / "fails.py"
    script.write_text(
        "import os, sys, crosseval\nfrom realfake_hf.crosseval import scoring\nscore_all = scoring.score_all\n"
        "def broken(*words, **settings):\n    if os.environ['RANK'] == '1':\n"
        "        raise OSError('the disk of process 1')\n    return score_all(*words, **settings)\n"
        "scoring.score_all = broken\nsys.exit(crosseval.main())\n"
    )
    done = launch(script, words(model, tmp_path / "grid"))
    assert done.returncode != 0
    assert "crosseval.py: the disk of process 1" in done.stderr
    assert not (tmp_path / "grid/grid.json").exists()
