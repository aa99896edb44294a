"""The search runs every training once, on whichever worker, and the best of each stage enters the next."""

import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import asdict
from pathlib import Path

import pytest

from realfake_hf.experiments.search import run
from realfake_hf.experiments.search.__main__ import main
from realfake_hf.experiments.search.plan import (
    SearchArguments,
    Topology,
    Training,
    changes_of,
    extractors,
    finalists,
    heads,
    with_other_seeds,
)
from realfake_hf.experiments.search.run import SharedStudy
from realfake_hf.experiments.search.table import to_markdown

ROOT = Path(__file__).parents[1]
RECIPE = "data: demo\nmodel: cifake-cnn\nnum_train_epochs: 2\nbootstrap_samples: 0\nper_device_train_batch_size: 64\n"


def arguments_of(folder, **settings):
    given = {
        "num_filters": [4, 8],
        "num_conv_layers": [1, 2],
        "dense_units": [8],
        "num_dense_layers": [1, 2],
        "top": 1,
    }
    return SearchArguments(
        output_dir=folder / "search", output_file=folder / "search.json", base=str(folder / "recipe.yaml"),
        **{**given, "first_units": 8, "train_size": 200, "num_train_epochs": 1, **settings},
    )  # fmt: skip


def words(folder, **settings):
    flags = []
    for name, value in vars(arguments_of(folder, **settings)).items():
        if value not in (None, False, []):
            flags += [f"--{name}", *(map(str, value) if isinstance(value, list) else [str(value)])]
    return flags


def last(results):
    *_, final = results
    return final


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    return tmp_path


@pytest.fixture
def trained(monkeypatch):
    """Replace training by a formula: larger is better on validation and worse on test; return the trainings' names."""
    done = []

    def fake(job, _):
        done.append(job.training.name)
        shape = job.training.topology
        accuracy = 0.5 + shape.num_filters * shape.num_conv_layers / 1000 + shape.dense_units / 1e5
        on_validation, on_test = (dict.fromkeys(run.MEASURES, value) for value in (accuracy, 1 - accuracy))
        return {
            "validation": on_validation, **dict.fromkeys(("test", "test_leak_free"), on_test), "n": {"test": 10},
            "best_epoch": 1, "parameters": run.n_parameters(shape), "seconds": 1.0, "machine": {},
        }  # fmt: skip

    monkeypatch.setattr(run, "_train", fake)
    monkeypatch.setattr(run, "POLL", 0.01)
    return done


def test_the_papers_search_has_36_topologies(folder):
    paper = SearchArguments(output_dir=folder, output_file=folder / "x.json")
    assert len(extractors(paper)) == 12
    assert len(heads(paper, Topology(32, 2, 64, 1))) == 24
    assert len({training.topology for training in extractors(paper)}) == 12
    assert {training.topology.num_filters for training in heads(paper, Topology(32, 2, 64, 1))} == {32}
    best = finalists(paper, [Topology(32, 2, 64, 1)] * 2 + [Topology(16, 1, 64, 1)])
    assert [training.topology for training in best] == [Topology(32, 2, 64, 1), Topology(16, 1, 64, 1)]


def test_finalists_use_the_settings_of_the_recipe(folder):
    given = arguments_of(folder)
    shape = Topology(8, 2, 8, 1)
    assert changes_of(Training("heads", shape), given) == {
        **asdict(shape), "seed": 0, "train_size": 200, "num_train_epochs": 1
    }  # fmt: skip
    assert changes_of(Training("top", shape, 3), given) == {**asdict(shape), "seed": 3}


def test_the_reference_is_a_finalist_and_is_trained_with_all_seeds(folder):
    best, other, reference = Topology(8, 2, 8, 1), Topology(8, 1, 8, 1), Topology(4, 1, 8, 1)
    given = arguments_of(folder, top=2, seeds=[5, 6, 7], reference=[4, 1, 8, 1])
    first = finalists(given, [best, other, reference])
    assert [(training.topology, training.seed) for training in first] == [(best, 5), (other, 5), (reference, 5)]
    again = with_other_seeds(given, [best, other, reference])
    assert [(training.topology, training.seed) for training in again] == [
        (best, 6),
        (reference, 6),
        (best, 7),
        (reference, 7),
    ]
    assert with_other_seeds(given, [reference, best]) == [Training("top", reference, seed) for seed in (6, 7)]


def test_the_best_of_each_stage_enters_the_next(folder, trained):
    *kept, found = run.search(arguments_of(folder, seeds=[0, 1]))
    assert [len(table["rows"]) for table in kept] == list(range(1, 9))
    assert [table["waiting"] for table in kept] == [3, 2, 1, 0, 1, 0, 0, 0]
    assert kept[-1] == found
    assert trained[:4] == [f"extractors-{shape}-8x1-seed0" for shape in ("4x1", "4x2", "8x1", "8x2")]
    assert trained[4:6] == ["heads-8x2-8x1-seed0", "heads-8x2-8x2-seed0"]
    assert trained[6:] == ["top-8x2-8x1-seed0", "top-8x2-8x1-seed1"]
    assert [row["stage"] for row in found["rows"]] == ["extractors"] * 4 + ["heads"] * 2 + ["top"] * 2
    assert found["best_extractor"] == {"num_filters": 8, "num_conv_layers": 2, "dense_units": 8, "num_dense_layers": 1}
    assert list(run.search(arguments_of(folder, seeds=[0, 1]))) == [found]
    assert len(trained) == 8


def test_workers_share_the_trainings(folder, trained):
    found = []
    workers = [threading.Thread(target=lambda: found.append(last(run.search(arguments_of(folder))))) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
    assert found[0] == found[1] == found[2]
    assert sorted(trained) == sorted(set(trained))
    assert len(trained) == 7


def test_the_training_of_a_dead_worker_is_resumed(folder, trained):
    given = arguments_of(folder)
    study = SharedStudy(given.output_dir, "extractors", extractors(given))
    study._study.ask()  # taken by a worker that then dies without a word
    assert study.n_unfinished
    (folder / "search/search.json").write_text(json.dumps({**run._settings(given), "recipe": RECIPE}))
    last(run.search(given))
    assert sorted(trained) == sorted(set(trained))
    assert len(trained) == 7


def test_a_training_claimed_by_another_worker_is_not_claimed_again(folder):
    trainings = extractors(arguments_of(folder, num_filters=[4], num_conv_layers=[1]))
    mine, theirs = (SharedStudy(folder / "search", "extractors", trainings) for _ in range(2))

    def work(_):
        assert not theirs.run_next(work)
        assert theirs.n_unfinished
        return {split: {"accuracy": 0.7} for split in ("validation", "test")}

    assert mine.run_next(work)
    assert not theirs.n_unfinished
    assert run.ranked([theirs]) == [trainings[0].topology]


@pytest.mark.usefixtures("trained")
def test_a_topology_that_cannot_be_trained_is_named_and_the_others_are_trained(folder, monkeypatch, caplog):
    fake = run._train

    def picky(job, given):
        if job.training.topology.num_conv_layers == 2:
            raise ValueError("no pixel is left")
        return fake(job, given)

    monkeypatch.setattr(run, "_train", picky)

    def refuse(*_):
        raise ValueError("nothing works")

    found = last(run.search(arguments_of(folder)))
    assert found["best_extractor"]["num_conv_layers"] == 1
    assert "extractors-8x2-8x1-seed0 cannot be trained: no pixel is left" in caplog.text
    (folder / "search").rename(folder / "earlier")
    monkeypatch.setattr(run, "_train", refuse)
    with pytest.raises(ValueError, match="expected one or more trained extractors; found none"):
        last(run.search(arguments_of(folder, num_filters=[4, 16])))


def test_each_worker_has_its_own_precision_and_a_resumed_training_keeps_its_own(folder):
    rough, exact = arguments_of(folder, bf16=True), arguments_of(folder)
    assert run._settings(rough) == run._settings(exact)
    begun, new = (run.Job(training, None, folder / training.name) for training in extractors(rough)[:2])
    jobs = [(begun, rough), (begun, exact), (new, exact)]
    assert [run._training_arguments(*job)[2].bf16 for job in jobs] == [True, True, False]


def test_a_worker_killed_while_writing_a_recipe_leaves_no_partial_recipe(folder, monkeypatch):
    settings = arguments_of(folder)

    def killed(*_):
        raise KeyboardInterrupt

    job = run.Job(extractors(settings)[0], None, folder / "trials/first")
    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            run._training_arguments(job, settings)
    job.folder.with_suffix(".yaml.part").write_text("")
    assert run._training_arguments(job, settings)[2].output_dir == str(job.folder)
    assert [file.name for file in job.folder.parent.glob("*.yaml*")] == ["first.yaml"]


@pytest.mark.usefixtures("trained")
def test_other_settings_and_foreign_files_are_rejected(folder, capsys):
    last(run.search(arguments_of(folder)))
    assert main(words(folder, train_size=100)) == 1
    assert "found other values of train_size" in capsys.readouterr().err
    (folder / "recipe.yaml").write_text(RECIPE + "flip: false\n")
    assert main(words(folder)) == 1
    assert "found other values of recipe" in capsys.readouterr().err
    (folder / "mine").mkdir()
    (folder / "mine/letter.txt").write_text("dear")
    assert main([*words(folder), "--output_dir", str(folder / "mine")]) == 1
    assert "an empty output folder, or the folder of an interrupted search" in capsys.readouterr().err
    assert main([*words(folder), "--base", "nowhere.yaml"]) == 1
    assert "nowhere.yaml" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"top": -1}, "expected --top of at least 0; found -1"),
        ({"reference": [32, 2, 64]}, "units and dense layers as --reference; found 32 2 64"),
    ],
)
def test_invalid_settings_are_rejected(folder, settings, sentence):
    with pytest.raises(ValueError, match=sentence):
        arguments_of(folder, **settings)


@pytest.mark.slow
def test_finished_trainings_keep_measurements_and_no_weights(folder, capsys):
    figure = ["--figure_file", str(folder / "search.png")]
    given = words(folder, num_filters=[4], num_conv_layers=[1], num_dense_layers=[1])
    assert main([*given, *figure]) == 0
    table = json.loads((folder / "search.json").read_text())
    assert [row["stage"] for row in table["rows"]] == ["extractors", "heads", "top"]
    for row in table["rows"]:
        assert 0.3 < row["test"]["accuracy"] <= 1
        assert row["parameters"] == run.n_parameters(Topology(**row["topology"]))
    assert [row["n"]["train"] for row in table["rows"]] == [200, 200, 1442]
    for trial in (folder / "search/trials").glob("*/"):
        assert {file.name for file in trial.iterdir()} == {"metrics.json", "history.json", "run.json"}
    text = capsys.readouterr().out
    assert text.count("| 1 x 4 filters, 1 x 8 units | ") == 3
    assert text.strip() == to_markdown(table)
    assert (folder / "search.png").stat().st_size > 10_000


@pytest.mark.slow
def test_pruning_stops_a_training_below_the_median(folder):
    given = arguments_of(folder, prune=True, num_filters=[4], num_conv_layers=[1], num_dense_layers=[1], top=0)

    class Behind:
        def report(self, value, step):
            self.seen = (value, step)

        def should_prune(self):
            return True

    trial = Behind()
    job = run.Job(extractors(given)[0], trial, folder / "trial")
    with pytest.raises(run.optuna.TrialPruned, match="below the median after 1 epochs"):
        run._train(job, given)
    assert trial.seen[1] == 1
    assert 0 < trial.seen[0] <= 1


@pytest.mark.slow
def test_after_a_kill_the_search_has_the_same_results(folder):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "realfake_hf.experiments.search", *words(folder, num_train_epochs=3)]
    log = folder / "log"
    with log.open("w") as stream:
        workers = [
            subprocess.Popen(command, env=environment, cwd=ROOT, stdout=stream, stderr=subprocess.STDOUT)
            for _ in range(2)
        ]
    deadline = time.monotonic() + 120
    while len(list((folder / "search/trials").glob("*/metrics.json"))) < 2:
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)
    workers[0].kill()
    workers[0].wait()
    assert workers[1].wait(200) == 0, log.read_text()
    rows = json.loads((folder / "search.json").read_text())["rows"]
    assert [row["stage"] for row in rows] == ["extractors"] * 4 + ["heads"] * 2 + ["top"]
    whole = folder / "unbroken"
    whole.mkdir()
    (whole / "recipe.yaml").write_text(RECIPE)
    command = [sys.executable, "-m", "realfake_hf.experiments.search", *words(whole, num_train_epochs=3)]
    subprocess.run(command, env=environment, cwd=ROOT, check=True, capture_output=True, timeout=240)
    expected = json.loads((whole / "search.json").read_text())["rows"]
    for row in (*rows, *expected):
        row.pop("seconds")
    assert rows == expected


def search_row(stage, shape, accuracy, *, seed=0, device="cpu", **facts):
    names = ("num_filters", "num_conv_layers", "dense_units", "num_dense_layers")
    measured = dict.fromkeys(("accuracy", "precision", "recall", "f1", "nll"), accuracy)
    return {
        "stage": stage, "topology": dict(zip(names, shape, strict=True)), "seed": seed, "validation": measured,
        "test": measured, "n": {"train": 95_000, "validation": 5_000, "test": 20_000}, "parameters": shape[0] * 1000,
        "seconds": 60.0, "machine": {"device": device, "cores": 2}, **facts,
    }  # fmt: skip


def test_the_table_ranks_each_stage_on_validation_and_says_what_is_missing():
    rows = [
        search_row("extractors", (32, 2, 64, 1), 0.93), search_row("extractors", (64, 2, 64, 1), 0.95),
        search_row("heads", (64, 2, 128, 1), 0.96), search_row("heads", (64, 2, 32, 1), 0.94),
        search_row("top", (64, 2, 128, 1), 0.97), search_row("top", (64, 2, 128, 1), 0.96, seed=1, bf16=True),
        search_row("top", (32, 2, 64, 1), 0.94, device="Accelerator 9"), search_row("top", (64, 2, 32, 1), 0.98),
    ]  # fmt: skip
    table = to_markdown({"settings": {"num_train_epochs": 6.0}, "waiting": 2, "rows": rows})
    assert "| 2 x 64 filters, 1 x 128 units | 64,000 | 20,000 | 2 | 96.50 ± 0.71% |" in table
    assert table.index("| 2 x 64 filters, 1 x 64 units |") < table.index("| 2 x 32 filters, 1 x 64 units |")
    assert table.index("### Extractors") < table.index("### Heads") < table.index("### Top")
    assert "2 trainings are not finished" in table
    assert "6 on 2 cores in float32, 1 on 2 cores in bfloat16, 1 on one Accelerator 9 in float32" in table
