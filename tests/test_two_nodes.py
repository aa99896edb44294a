"""Two machines in separate networks compute what one computes, and report the loss of the other."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate.commands.config.config_args import load_config_from_file
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessorPil

import crosseval
import train
from benchmarks.launch import ROOT, two_nodes
from realfake_hf.distributed import TIMEOUT
from realfake_hf.run_folder import ValidationRun

LAUNCHES = sorted((ROOT / "recipes/accelerate").glob("*.yaml"))
PATIENCE = 200  # seconds


@pytest.fixture(scope="module")
def nodes():
    with two_nodes() as nodes:
        yield nodes


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "vit"
    torch.manual_seed(0)
    shape = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 32}
    names = {"id2label": {0: "REAL", 1: "FAKE"}, "label2id": {"REAL": 0, "FAKE": 1}}
    ViTForImageClassification(ViTConfig(image_size=32, patch_size=8, **shape, **names)).save_pretrained(folder)
    ViTImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(folder)
    (folder / "operating_point.json").write_text(json.dumps({"threshold": 0.49, "chosen": "by hand", "n": 9}))
    return folder


def run(nodes, words, folder):
    """Run a script on both until it ends, and return their logs."""
    started = nodes.start(words, folder)
    codes = [node.wait(PATIENCE) for node in started]
    logs = [(folder / f"node-{rank}.log").read_text() for rank in (0, 1)]
    assert codes == [0, 0], logs
    return logs


@pytest.mark.parametrize("file", LAUNCHES, ids=lambda file: file.stem)
def test_every_launch_recipe_is_valid_for_accelerate(file):
    found = load_config_from_file(str(file))
    assert found.num_processes == {"one_cpu": 1, "one_gpu": 1, "eight_gpus": 8, "fsdp": 8}.get(file.stem, 2)
    assert f"--config_file recipes/accelerate/{file.name}" in file.read_text()


@pytest.mark.slow
def test_two_nodes_learn_what_one_process_learns(nodes, model, tmp_path):
    words = ["--data", "demo", "--model", str(model), "--max_steps", "40", "--bootstrap_samples", "0"]
    words += ["--learning_rate", "0.03", "--optim", "sgd"]
    assert train.main([*words, "--per_device_train_batch_size", "32", "--output_dir", str(tmp_path / "one")]) == 0
    words += ["--per_device_train_batch_size", "16", "--output_dir", str(tmp_path / "two")]
    logs = run(nodes, ["train.py", *words], tmp_path)
    one, two = (ValidationRun.read(tmp_path / name / "validation_probabilities.npz") for name in ("one", "two"))
    np.testing.assert_allclose(one.p_fake, two.p_fake, atol=0.01)
    for rank, log in enumerate(logs):
        assert f"process {rank} of 2 on " in log
        assert "16 of the 32 images of each step" in log


@pytest.mark.slow
def test_two_nodes_give_the_grid_of_one_process_to_the_last_digit(nodes, model, tmp_path):
    words = ["--models", f"vit={model}", "--datasets", "demo=demo", "--bootstrap_samples", "20", "--output_dir"]
    assert crosseval.main([*words, str(tmp_path / "one")]) == 0
    logs = run(nodes, ["crosseval.py", *words, tmp_path / "two"], tmp_path)
    one, two = (json.loads((tmp_path / name / "grid.json").read_text()) for name in ("one", "two"))
    for grid in (one, two):
        grid["settings"].pop("output_dir")
        del grid["versions"], grid["machine"]["threads"]  # of the process: what it imports, its share of the cores
    assert one == two
    for rank, log in enumerate(logs):
        assert f"process {rank} of 2 on " in log


@pytest.mark.slow
def test_a_node_that_dies_stops_the_other_with_a_message_and_the_job_can_be_resumed(nodes, tmp_path):
    words = ["train.py", "--data", "demo", "--per_device_train_batch_size", "64", "--output_dir", tmp_path / "run"]
    words += ["--bootstrap_samples", "0", "--num_filters", "4"]
    started = start_to_first_checkpoint(nodes, [*words, "--num_train_epochs", "500"], tmp_path)
    os.kill(script_of_rank(1, tmp_path), signal.SIGKILL)
    killed = time.monotonic()
    assert all(node.wait(60) for node in started)
    assert time.monotonic() - killed < 60
    log = (tmp_path / "node-0.log").read_text()
    assert "train.py: process 0 of 2 on " in log
    assert "lost another process (" in log
    record = json.loads((tmp_path / "run/run.json").read_text())
    record["arguments"]["num_train_epochs"] = done = 2 + epochs_in(tmp_path / "run")
    (tmp_path / "run/run.json").write_text(json.dumps(record))  # as if the command had asked for this many
    run(nodes, [*words, "--num_train_epochs", str(done)], tmp_path)
    history = json.loads((tmp_path / "run/history.json").read_text())
    assert [row["epoch"] for row in history] == list(range(1, done + 1))


@pytest.mark.slow
def test_a_node_without_network_counts_as_lost_within_a_minute(nodes, tmp_path):
    if not nodes.are_apart:
        pytest.skip("needs root and iproute2 to cut the network between two machines")
    words = ["train.py", "--data", "demo", "--per_device_train_batch_size", "64", "--output_dir", tmp_path / "run"]
    words += ["--bootstrap_samples", "0", "--num_filters", "4", "--num_train_epochs", "500"]
    started = start_to_first_checkpoint(nodes, words, tmp_path)
    with nodes.cut():
        cut = time.monotonic()
        assert all(node.wait(60) for node in started)
        assert TIMEOUT / 3 < time.monotonic() - cut < 60
    for rank in (0, 1):
        log = (tmp_path / f"node-{rank}.log").read_text()
        assert f"train.py: process {rank} of 2 on " in log
        assert "lost another process (" in log


def start_to_first_checkpoint(nodes, words, folder):
    """Start a training on both nodes, and return both processes once there is a checkpoint."""
    started = nodes.start(words, folder)
    deadline = time.monotonic() + PATIENCE
    while not list((folder / "run").glob("checkpoint-*/trainer_state.json")):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return started


def script_of_rank(rank, folder):
    """The process that runs the script on a node, not its launcher."""
    output = subprocess.run(["pgrep", "-f", str(folder / "run")], capture_output=True, text=True, check=True).stdout
    for pid in map(int, output.split()):
        environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        if f"RANK={rank}".encode() in environment:
            return pid
    raise AssertionError(f"no process of rank {rank}")


def epochs_in(folder):
    last = max(int(path.name.partition("-")[2]) for path in folder.glob("checkpoint-*"))
    state = json.loads((folder / f"checkpoint-{last}/trainer_state.json").read_text())
    return round(state["epoch"])
