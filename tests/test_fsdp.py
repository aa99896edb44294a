"""A model with sharded weights (FSDP 2) learns what an unsharded one learns, and can be resumed."""

import json
import os
import shutil
import subprocess

import numpy as np
import pytest
from transformers import ViTImageProcessorPil

from benchmarks.launch import ROOT, launcher
from realfake_hf.detector import Detector
from realfake_hf.run_folder import ValidationRun
from tests.small_models import make

LAUNCHES = ROOT / "recipes/accelerate"
SHARDED = ("fsdp.yaml", ["tests/fsdp_on_cpus.py", "train.py"])
UNSHARDED = ("two_cpu_processes.yaml", ["train.py"])
PATIENCE = 300  # seconds


def train_in_two_processes(recipe, script, words):
    """Train as launched by a recipe, but in two processes on CPUs and in float32; return their output."""
    launch = [*launcher(2, "--config_file", str(LAUNCHES / recipe), "--mixed_precision", "no"), *script]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    process = subprocess.run(
        [*map(str, launch), *words],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    output = process.stdout + process.stderr
    assert process.returncode == 0, output
    return output


def p_fake(folder):
    return ValidationRun.read(folder / "validation_probabilities.npz").p_fake


@pytest.mark.slow
def test_a_sharded_model_learns_what_an_unsharded_one_learns_and_resumes_where_it_stopped(tmp_path):
    make("vit").save_pretrained(tmp_path / "vit")
    ViTImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(tmp_path / "vit")
    words = ["--data", "demo", "--model", str(tmp_path / "vit")]
    words += ["--num_train_epochs", "2", "--bootstrap_samples", "0", "--ema_decay", "0.9", "--save_total_limit", "9"]
    words += ["--learning_rate", "0.001"]
    whole, sharded = tmp_path / "whole", tmp_path / "sharded"
    words += ["--per_device_train_batch_size", "16", "--output_dir"]
    train_in_two_processes(*UNSHARDED, [*words, whole])
    assert "16 of the 32 images of each step" in train_in_two_processes(*SHARDED, [*words, sharded])
    assert list(sharded.glob("checkpoint-*/pytorch_model_fsdp.bin"))
    np.testing.assert_allclose(p_fake(sharded), p_fake(whole), atol=1e-3)

    first, last = sorted(sharded.glob("checkpoint-*"), key=lambda path: int(path.name.partition("-")[2]))
    unbroken, weights = p_fake(sharded), (sharded / "model.safetensors").read_bytes()
    record = json.loads((sharded / "run.json").read_text())
    shutil.copytree(first, tmp_path / "kept" / first.name)
    shutil.rmtree(sharded)
    (tmp_path / "kept").rename(sharded)
    (sharded / "run.json").write_text(json.dumps({**record, "finished": False}))  # as if killed in the second epoch
    train_in_two_processes(*SHARDED, [*words, sharded])
    assert last.is_dir()
    np.testing.assert_array_equal(p_fake(sharded)[-1], unbroken[-1])
    assert (sharded / "model.safetensors").read_bytes() == weights
    pictures = sorted((ROOT / "space/examples").glob("*.jpg"))
    one, other = (
        [verdict.p_fake for verdict in Detector.from_pretrained(at).predict(pictures)] for at in (whole, sharded)
    )
    np.testing.assert_allclose(one, other, atol=1e-3)
