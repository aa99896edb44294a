"""What a training says on its way: what it found, where it resumes, how far it is, and what comes next."""

import io
import json
import math
import os
import re
import shlex
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
from transformers import TrainerState

from realfake_hf.cli import parse
from realfake_hf.crosseval.arguments import CrossevalArguments
from realfake_hf.explain.arguments import ExplainArguments
from realfake_hf.hub.__main__ import PublishArguments
from realfake_hf.run_folder import say_next, say_resumed
from realfake_hf.training.callbacks import Progress
from realfake_hf.training.data import LEAST_VALIDATION, say_found

ROOT = Path(__file__).parents[1]
SHORT = ["--num_train_epochs", "2", "--num_filters", "2", "--dense_units", "2", "--bootstrap_samples", "20"]


class Terminal(io.StringIO):
    def isatty(self):
        return True


def shown_on(stream, monkeypatch):
    """What the bars of a training of two steps in two epochs, one validation and one measurement show on stderr."""
    monkeypatch.setattr("sys.stderr", stream)
    progress, state = Progress(lambda: 0.25), TrainerState(max_steps=2, num_train_epochs=2, epoch=0.0)
    progress.on_train_begin(None, state, None)
    for state.global_step in (1, 2):
        time.sleep(0.15)  # between two updates of a bar
        state.epoch = float(state.global_step)
        progress.on_step_end(None, state, None)
    progress.on_prediction_step(None, state, None, eval_dataloader=range(3))
    progress.on_evaluate(None, state, None)
    progress.on_train_end(None, state, None)
    progress.on_prediction_step(None, state, None, eval_dataloader=range(5))
    progress.on_predict(None, state, None, {})
    return stream.getvalue()


def test_bars_have_a_name_a_unit_the_epoch_and_the_loss(monkeypatch):
    shown = shown_on(Terminal(), monkeypatch)
    bars = [line.strip() for line in shown.split("\r")]
    assert [bar.partition(":")[0] for bar in bars if "0/" in bar] == ["training", "validation", "measuring"]
    assert re.search(r"training: 100%.* 2/2 .*step.*epoch 1/2, loss 0\.2500", shown)
    assert re.search(r"validation: .* 0/3 .*batch", shown)
    assert re.search(r"measuring: .* 0/5 .*batch", shown)


def test_bars_are_for_terminals_only(monkeypatch):
    assert shown_on(io.StringIO(), monkeypatch) == ""


def test_a_resumed_bar_begins_where_the_run_was_interrupted(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    progress = Progress(lambda: 0.25)
    progress.on_train_begin(None, TrainerState(max_steps=40, global_step=30), None)
    assert " 30/40 " in terminal.getvalue()
    assert " 0/40 " not in terminal.getvalue()


def test_validation_is_too_small_where_good_and_mediocre_epochs_lie_within_two_standard_errors():
    error = math.sqrt((0.9 * 0.1 + 0.8 * 0.2) / LEAST_VALIDATION)
    assert 2 * error == pytest.approx(0.9 - 0.8)
    for n, is_small in ((LEAST_VALIDATION - 1, True), (LEAST_VALIDATION, False)):
        fingerprint = {"test": {"n": 1000}, "train": {"n": 5000}, "validation": {"n": n}}
        said = say_found(fingerprint, source="photos")
        assert said.startswith(f"{6000 + n:,} images of photos: train 5,000, validation {n}, test 1,000")
        assert ("too small" in said) is is_small


@pytest.mark.parametrize(
    ("step", "epoch", "said"),
    [(6, 2.0, "epoch 3 of 10"), (7, 7 / 3, "epoch 3 of 10"), (30, 10.0, "the end of epoch 10 of 10")],
)
def test_a_resumed_run_says_at_which_epoch_it_is(tmp_path, step, epoch, said):
    state = {"global_step": step, "max_steps": 30, "epoch": epoch, "num_train_epochs": 10, "log_history": []}
    (tmp_path / "trainer_state.json").write_text(json.dumps(state))
    assert say_resumed(str(tmp_path)) == said


def test_the_next_commands_are_valid():
    folder = Path("runs/my model")
    judge, explain, crosseval, publish = (
        shlex.split(line.partition(":")[2].strip()) for line in say_next(folder).splitlines()
    )
    assert judge[-2:] == ["--model", str(folder)]
    assert parse(ExplainArguments, argv=explain[2:])[0].model == str(folder)
    assert parse(CrossevalArguments, argv=crosseval[2:])[0].places == {"mine": str(folder)}
    assert parse(PublishArguments, argv=publish[3:])[0].model_dir == folder
    assert [command[1] for command in (explain, crosseval)] == ["explain.py", "crosseval.py"]


@pytest.mark.slow
def test_a_successful_training_writes_only_its_own_lines(tmp_path):
    command = [sys.executable, "train.py", "--config", "recipes/demo.yaml", *SHORT]
    new_cache = {**os.environ, "HF_DATASETS_CACHE": str(tmp_path / "cache")}
    process = subprocess.run(
        [*command, "--output_dir", str(tmp_path / "run")], capture_output=True, text=True, cwd=ROOT, env=new_cache
    )
    found, *epochs = process.stderr.splitlines()
    assert process.returncode == 0
    assert re.fullmatch(r"[\d,]+ images of demo: train [\d,]+, validation \d+, test \d+", found)
    assert [line.partition(":")[0] for line in epochs] == ["epoch 1/2", "epoch 2/2"]
    assert process.stdout.endswith(f"{say_next(tmp_path / 'run')}\n")


@pytest.mark.slow
def test_trackio_logs_the_losses_of_a_training_in_a_local_folder(tmp_path):
    command = [sys.executable, "train.py", "--config", "recipes/demo.yaml", *SHORT, "--report_to", "trackio"]
    variables = {**os.environ, "TRACKIO_DIR": str(tmp_path / "trackio"), "HF_HUB_OFFLINE": "1"}
    words = ["--project", "demo", "--run_name", "first", "--output_dir", str(tmp_path / "run")]
    process = subprocess.run([*command, *words], capture_output=True, text=True, cwd=ROOT, env=variables)
    assert process.returncode == 0, process.stderr
    with closing(sqlite3.connect(tmp_path / "trackio/demo.db")) as database:
        rows = database.execute("SELECT metrics FROM metrics WHERE run_name = 'first'").fetchall()
    logged = [json.loads(text) for (text,) in rows]
    history = json.loads((tmp_path / "run/history.json").read_text())
    for name, column in (("train/loss", "train_loss"), ("eval/accuracy", "eval_accuracy")):
        assert [row[name] for row in logged if name in row] == pytest.approx([row[column] for row in history])
