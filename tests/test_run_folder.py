import json
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from realfake_hf.estimate import Estimate, from_plain, to_plain
from realfake_hf.metrics.report import make_report
from realfake_hf.run_folder import (
    FIGURES,
    HISTORY,
    METRICS,
    RECORD,
    VALIDATION,
    Outcome,
    ValidationRun,
    epoch_rows,
    read_run,
    resume_point,
    write_outcome,
)
from realfake_hf.store import CHECKSUMS, write_checksums, write_json

ARGUMENTS = {"data": "demo", "learning_rate": 0.003, "lr_scheduler_kwargs": {"num_cycles": 2}, "limit": None}
LOG = [  # of a Trainer, as it stands in trainer_state.json; the second epoch was the best
    {"epoch": 1.0, "grad_norm": 1.5, "learning_rate": 0.002, "loss": 0.61, "step": 10},
    {"epoch": 1.0, "eval_accuracy": 0.7, "eval_loss": 0.58, "eval_runtime": 0.2, "step": 10},
    {"epoch": 2.0, "grad_norm": 1.2, "learning_rate": 0.001, "loss": 0.52, "step": 20},
    {"epoch": 2.0, "eval_accuracy": 0.9, "eval_loss": 0.44, "eval_runtime": 0.2, "step": 20},
    {"epoch": 3.0, "grad_norm": 1.1, "learning_rate": 0.0, "loss": 0.41, "step": 30},
    {"epoch": 3.0, "eval_accuracy": 0.8, "eval_loss": 0.49, "eval_runtime": 0.2, "step": 30},
    {"epoch": 3.0, "step": 30, "total_flos": 1.0, "train_loss": 0.5133, "train_runtime": 3.2},
]
N = 40


def scores(seed):
    rng = np.random.default_rng(seed)
    is_fake = np.arange(N) % 2 == 1
    return is_fake, np.clip(rng.normal(0.3 + 0.4 * is_fake, 0.2), 0, 1).astype(np.float32)


def make_outcome():
    content = ["frog", "ship"] * (N // 2)
    whole = [make_report(*scores(seed), content=content, bootstrap_samples=20) for seed in (0, 1)]
    is_fake, p_fake = scores(1)
    parts = [make_report(is_fake[:n], p_fake[:n], bootstrap_samples=20) for n in (30, 20)]
    before = {
        "test": Estimate(0.3, 0.2, 0.4),
        "test_leak_free": Estimate(0.2),
        "test_no_near_duplicate": Estimate(0.1),
    }
    return Outcome(2, *whole, *parts, {"validation": Estimate(0.4), **before})


@pytest.fixture
def interrupted(tmp_path):
    """A run that left run.json and checkpoints of 5, 10 and (killed while it was written) 15 steps."""
    write_json(tmp_path / RECORD, {"finished": False, "arguments": ARGUMENTS})
    for step in (5, 10, 15):
        (tmp_path / f"checkpoint-{step}").mkdir()
        (tmp_path / f"checkpoint-{step}" / "model.safetensors").touch()
    for step in (5, 10):
        (tmp_path / f"checkpoint-{step}" / "trainer_state.json").touch()
        note_checksums(tmp_path / f"checkpoint-{step}")
    (tmp_path / "checkpoint-15" / "trainer_state.json").write_text('{"epoch": 1.')
    return tmp_path


def note_checksums(checkpoint):
    write_checksums(list(checkpoint.iterdir()), checkpoint / CHECKSUMS)


def write_validation(folder, *, content):
    run = ValidationRun.begin(ids=[f"{row:04}" for row in range(N)], is_fake=scores(0)[0], content=content)
    for epoch in (1, 2, 3):
        run = run.with_epoch(epoch, scores(epoch)[1])
    run.write(folder / VALIDATION)


def test_a_new_or_empty_folder_starts_from_the_beginning(tmp_path):
    assert resume_point(tmp_path, ARGUMENTS) is None
    assert resume_point(tmp_path / "new", ARGUMENTS) is None
    (tmp_path / f"{RECORD}.part").write_text('{"finis')  # killed as it was written
    assert resume_point(tmp_path, ARGUMENTS) is None
    assert not (tmp_path / "new").exists()


def test_a_folder_with_other_files_is_refused_and_left_as_it_is(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ValueError, match=f"found files in {tmp_path}"):
        resume_point(tmp_path, ARGUMENTS)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_a_finished_run_is_refused(tmp_path):
    write_json(tmp_path / RECORD, {"finished": True, "arguments": ARGUMENTS})
    with pytest.raises(ValueError, match=f"found a finished run in {tmp_path}"):
        resume_point(tmp_path, ARGUMENTS)


def test_an_interrupted_run_resumes_from_its_last_complete_checkpoint(interrupted):
    assert resume_point(interrupted, ARGUMENTS) == str(interrupted / "checkpoint-10")


def test_the_last_checkpoint_is_the_one_of_most_steps(interrupted):
    (interrupted / "checkpoint-100").mkdir()
    (interrupted / "checkpoint-100" / "trainer_state.json").touch()
    note_checksums(interrupted / "checkpoint-100")
    assert resume_point(interrupted, ARGUMENTS) == str(interrupted / "checkpoint-100")


def test_a_run_interrupted_before_its_first_checkpoint_starts_from_the_beginning(tmp_path):
    write_json(tmp_path / RECORD, {"finished": False, "arguments": ARGUMENTS})
    assert resume_point(tmp_path, ARGUMENTS) is None


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({"learning_rate": 0.01}, "learning_rate"),
        ({"learning_rate": 0.01, "data": "cifake"}, "data, learning_rate"),
        ({"weight_decay": 0.5}, "weight_decay"),
        ({"lr_scheduler_kwargs": {"num_cycles": 3}}, "lr_scheduler_kwargs"),
    ],
)
def test_an_interrupted_run_with_other_arguments_is_refused(interrupted, change, names):
    with pytest.raises(ValueError, match=f"the run in {interrupted}; found other values of {names}\\."):
        resume_point(interrupted, {**ARGUMENTS, **change})


def test_an_argument_that_went_back_to_its_default_is_noticed_too(interrupted):
    fewer = {name: value for name, value in ARGUMENTS.items() if name != "learning_rate"}
    with pytest.raises(ValueError, match="found other values of learning_rate"):
        resume_point(interrupted, fewer)


def test_an_outcome_survives_json():
    outcome = make_outcome()
    assert from_plain(Outcome, json.loads(json.dumps(to_plain(outcome), allow_nan=False))) == outcome


def test_an_outcome_renders_its_test_figures_side_by_side():
    outcome = make_outcome()
    lines = outcome.to_markdown().splitlines()
    assert lines[0] == "| test, epoch 2 | official, n = 40 | leak-free, n = 30 | no near-duplicate, n = 20 |"
    accuracies = [report.accuracy for report in (outcome.test, outcome.test_leak_free, outcome.test_no_near_duplicate)]
    assert lines[2] == f"| accuracy | {' | '.join(map(str, accuracies))} |"
    assert {line.count("|") for line in lines} == {5}
    place = next(place for place, line in enumerate(lines) if line.startswith("| ece | "))
    assert lines[place - 1] == "| ece before temperature scaling | 0.300 (0.200 to 0.400) | 0.200 | 0.100 |"


def test_an_outcome_without_near_duplicates_and_temperature_has_two_columns():
    old = to_plain(make_outcome())
    del old["test_no_near_duplicate"], old["ece_before"]
    outcome = from_plain(Outcome, old)
    lines = outcome.to_markdown().splitlines()
    assert lines[0] == "| test, epoch 2 | official, n = 40 | leak-free, n = 30 |"
    assert {line.count("|") for line in lines} == {4}
    assert not any("before" in line for line in lines)


@pytest.mark.parametrize("name", ["cifake-cnn", "cifake-vit"])
def test_the_measurements_of_the_published_models_are_read(name):
    assert read_run(Path(__file__).parents[1] / "space/models" / name).outcome.test.n == 20_000


def test_the_log_becomes_one_row_an_epoch():
    assert epoch_rows(LOG) == [
        {
            "epoch": epoch,
            "train_loss": loss,
            "learning_rate": rate,
            "eval_accuracy": accuracy,
            "eval_loss": eval_loss,
            "eval_runtime": 0.2,
        }
        for epoch, loss, rate, accuracy, eval_loss in [
            (1, 0.61, 0.002, 0.7, 0.58),
            (2, 0.52, 0.001, 0.9, 0.44),
            (3, 0.41, 0.0, 0.8, 0.49),
        ]
    ]


def test_an_empty_log_has_no_rows():
    assert epoch_rows([]) == []


@pytest.mark.parametrize("known", [True, False])
def test_results_are_two_files_and_a_figure_of_each_kind(tmp_path, known):
    write_validation(tmp_path, content=["frog", "ship"] * (N // 2) if known else [None] * N)
    outcome, rows = make_outcome(), [{**row, "eval_roc_auc": 0.9} for row in epoch_rows(LOG)]
    write_outcome(tmp_path, outcome, rows)
    assert from_plain(Outcome, json.loads((tmp_path / METRICS).read_text())) == outcome
    assert json.loads((tmp_path / HISTORY).read_text()) == rows
    drawn = {file.name for file in (tmp_path / FIGURES).iterdir() if file.read_bytes().startswith(b"\x89PNG")}
    with_content = {"content_accuracy.png"} if known else set()
    assert drawn == {"learning_curves.png", "confusion_matrix.png", "difficulty_map.png"} | with_content
    assert {file.name for file in tmp_path.iterdir()} == {METRICS, HISTORY, VALIDATION, FIGURES}


IS_FAKE = np.array([False, False, True, True])
CONTENT = ["frog", None, "frog", "ship"]
FIRST = np.array([0.1, 0.9, 0.8, 0.2], dtype=np.float32)
SECOND = np.array([0.0, 0.5, 0.5, 1.0], dtype=np.float32)


def begin():
    return ValidationRun.begin(ids=["a", "b", "c", "d"], is_fake=IS_FAKE, content=CONTENT)


def same(one, other):
    return all(np.array_equal(getattr(one, field.name), getattr(other, field.name)) for field in fields(one))


def test_a_run_begins_with_its_images_and_no_epochs():
    run = begin()
    assert (run.epoch.shape, run.p_fake.shape) == ((0,), (0, 4))
    assert run.content.tolist() == ["frog", "", "frog", "ship"]


@pytest.mark.parametrize("epochs", [0, 1, 2])
def test_a_written_run_is_read_back(tmp_path, epochs):
    run = begin()
    for epoch in range(1, epochs + 1):
        run = run.with_epoch(epoch, FIRST)
    run.write(tmp_path / "run.npz")
    read = ValidationRun.read(tmp_path / "run.npz")
    assert same(read, run)
    assert [array.dtype.kind for array in (read.id, read.is_fake, read.content, read.epoch)] == ["U", "b", "U", "i"]
    assert read.p_fake.dtype == np.float32


def test_writing_again_replaces_the_file_and_leaves_no_other(tmp_path):
    for run in (begin(), begin().with_epoch(1, FIRST)):
        run.write(tmp_path / "run.npz")
    assert same(ValidationRun.read(tmp_path / "run.npz"), begin().with_epoch(1, FIRST))
    assert [file.name for file in tmp_path.iterdir()] == ["run.npz"]


def test_epochs_are_appended_in_order():
    run = begin().with_epoch(1, FIRST).with_epoch(2, SECOND)
    assert run.epoch.tolist() == [1, 2]
    np.testing.assert_array_equal(run.p_fake, [FIRST, SECOND])


def test_a_resumed_run_drops_its_epoch_and_later_ones():
    run = begin().with_epoch(1, FIRST).with_epoch(2, FIRST).with_epoch(3, FIRST)
    assert same(run.with_epoch(2, SECOND), begin().with_epoch(1, FIRST).with_epoch(2, SECOND))
    assert run.epoch.tolist() == [1, 2, 3]


def test_p_true_is_the_probability_of_the_true_label():
    run = begin().with_epoch(1, FIRST).with_epoch(2, SECOND)
    np.testing.assert_allclose(run.p_true(), [[0.9, 0.1, 0.8, 0.2], [1.0, 0.5, 0.5, 1.0]], atol=1e-6)


def test_accuracy_is_counted_by_content_and_epoch_without_the_unknown():
    run = begin().with_epoch(1, FIRST).with_epoch(2, 1 - FIRST)
    assert run.content_accuracy() == {"frog": [1.0, 0.0], "ship": [0.0, 1.0]}


def test_a_probability_of_one_half_is_called_real():
    run = ValidationRun.begin(ids=["a", "b"], is_fake=np.array([False, True]), content=["real", "fake"])
    assert run.with_epoch(1, np.array([0.5, 0.5])).content_accuracy() == {"fake": [0.0], "real": [1.0]}


def test_unknown_contents_have_no_accuracy():
    run = ValidationRun.begin(ids=["a", "b"], is_fake=np.array([False, True]), content=[None, None])
    assert run.with_epoch(1, np.array([0.1, 0.9])).content_accuracy() == {}
