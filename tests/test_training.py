import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import Trainer, ViTConfig, ViTForImageClassification, ViTImageProcessorPil

import train
from benchmarks.launch import launcher
from realfake_hf.data.loading import load_images
from realfake_hf.data.pixels import PixelDataset
from realfake_hf.data.shards import main as write_shards
from realfake_hf.detector import Detector
from realfake_hf.metrics.calibration import scale
from realfake_hf.run_folder import ValidationRun
from realfake_hf.training.arguments import DataArguments, RunSettings
from realfake_hf.training.callbacks import EpochLines
from realfake_hf.training.data import load_splits
from realfake_hf.training.streaming import StepCheckpoints, StreamPosition, StreamTrainer
from tests.faults.runner import small_disk

ROOT = Path(__file__).parents[1]
FILES = {
    "cifake_cnn.py",
    "config.json",
    "figures/confusion_matrix.png",
    "figures/content_accuracy.png",
    "figures/difficulty_map.png",
    "figures/learning_curves.png",
    "history.json",
    "operating_point.json",
    "metrics.json",
    "model.safetensors",
    "preprocessor_config.json",
    "run.json",
    "training_args.bin",
    "validation_probabilities.npz",
}


def small(folder: Path, *flags: str) -> list[str]:
    """The demo recipe, short and narrow."""
    short = ["--num_train_epochs", "3", "--num_filters", "8", "--dense_units", "8", "--bootstrap_samples", "50"]
    return ["--config", str(ROOT / "recipes/demo.yaml"), *short, "--output_dir", str(folder), *flags]


def left_behind(folder: Path) -> set[str]:
    files = {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()}
    return {file for file in files if not file.startswith("checkpoint-")}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "first"
    assert train.main(small(folder)) == 0
    return folder


def test_a_run_leaves_model_measurements_history_record_and_figures(run):
    assert left_behind(run) == FILES


def test_the_record_names_the_arguments_and_the_images(run):
    record = json.loads((run / "run.json").read_text())
    assert record["finished"] is True
    assert record["arguments"]["data"] == "demo"
    assert record["arguments"]["num_filters"] == 8
    assert {split: facts["n"] for split, facts in record["data"].items()} == {
        split: len(rows) for split, rows in load_images("demo").items()
    }
    assert record["source"] == "demo"
    assert record["base_weights"] is None
    assert record["seconds"] > 0
    assert record["peak_memory_gib"] > 0


def test_the_history_has_one_row_an_epoch(run):
    history = json.loads((run / "history.json").read_text())
    assert [row["epoch"] for row in history] == [1, 2, 3]
    assert all({"train_loss", "eval_loss", "eval_accuracy", "eval_roc_auc"} <= set(row) for row in history)


def test_the_kept_epoch_is_the_best_on_validation(run):
    history = json.loads((run / "history.json").read_text())
    metrics = json.loads((run / "metrics.json").read_text())
    best = max(history, key=lambda row: row["eval_accuracy"])
    assert metrics["best_epoch"] == best["epoch"]
    assert metrics["validation"]["accuracy"]["value"] == pytest.approx(best["eval_accuracy"])


def test_the_saved_model_is_that_of_the_kept_epoch(run):
    kept = json.loads((run / "metrics.json").read_text())["best_epoch"]
    recorded = ValidationRun.read(run / "validation_probabilities.npz")
    validation = load_images("demo")["validation"]
    assert recorded.id.tolist() == validation["id"][:]
    detector = Detector.from_pretrained(run)
    again = detector.probabilities(validation["image"])
    np.testing.assert_allclose(again, scale(recorded.p_fake[kept - 1], detector.point.temperature), atol=1e-5)


def test_the_test_figures_are_those_of_the_saved_folder(run):
    test = load_images("demo")["test"]
    p_fake = Detector.from_pretrained(run).probabilities(test["image"])
    accuracy = np.mean((p_fake > 0.5) == (np.array(test["label"][:]) == 1))
    report = json.loads((run / "metrics.json").read_text())["test"]
    assert report["accuracy"]["value"] == pytest.approx(accuracy)
    assert report["n"] == len(test)


def test_the_figures_can_be_opened(run):
    for file in (run / "figures").iterdir():
        with Image.open(file) as figure:
            assert min(figure.size) >= 300


@pytest.mark.slow
def test_the_same_seed_gives_the_same_weights_and_another_seed_others(run, tmp_path):
    assert train.main(small(tmp_path / "again")) == 0
    assert train.main(small(tmp_path / "other", "--seed", "1")) == 0
    first, again, other = (load_file(folder / "model.safetensors") for folder in
                           (run, tmp_path / "again", tmp_path / "other"))  # fmt: skip
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_the_seed_draws_the_first_weights(tmp_path):
    drawn = []
    for name, seed in (("first", "3"), ("again", "3"), ("other", "4")):
        untrained = ("--seed", seed, "--learning_rate", "0", "--max_steps", "1")
        assert train.main(small(tmp_path / name, *untrained)) == 0
        drawn.append(load_file(tmp_path / name / "model.safetensors"))
    first, again, other = drawn
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not any(torch.equal(first[name], other[name]) for name in first if name.endswith("weight"))


@pytest.mark.slow
def test_an_interrupted_run_resumes_to_the_same_weights(run, tmp_path, monkeypatch, capsys, caplog):
    begin = EpochLines.on_epoch_begin

    def interrupt(self, args, state, control, **kwargs):
        if state.epoch >= 1:
            raise KeyboardInterrupt
        begin(self, args, state, control, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(EpochLines, "on_epoch_begin", interrupt)
        assert train.main(small(tmp_path / "run")) == 130
    assert f"to resume from {tmp_path / 'run'}, repeat the command" in capsys.readouterr().err
    assert json.loads((tmp_path / "run/run.json").read_text())["finished"] is False
    assert train.main(small(tmp_path / "run")) == 0
    assert f"resuming {tmp_path / 'run'} from epoch 2 of 3" in caplog.messages
    assert json.loads((tmp_path / "run/run.json").read_text())["resumed"] is True
    assert left_behind(tmp_path / "run") == FILES
    whole, resumed = (load_file(folder / "model.safetensors") for folder in (run, tmp_path / "run"))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    before, after = (ValidationRun.read(folder / "validation_probabilities.npz") for folder in (run, tmp_path / "run"))
    np.testing.assert_array_equal(before.p_fake, after.p_fake)


@pytest.mark.slow
def test_a_run_interrupted_within_an_epoch_resumes_to_the_same_average_of_its_weights(tmp_path, monkeypatch):
    words = ["--num_train_epochs", "1", "--ema_decay", "0.9", "--checkpoint_steps", "4"]
    save = Trainer._save_checkpoint

    def interrupt(self, *args, **kwargs):
        save(self, *args, **kwargs)
        if self.state.global_step == 8:
            raise KeyboardInterrupt

    assert train.main(small(tmp_path / "whole", *words)) == 0
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_save_checkpoint", interrupt)
        assert train.main(small(tmp_path / "run", *words)) == 130
    assert train.main(small(tmp_path / "run", *words)) == 0
    whole, resumed = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "run"))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts a small disk")
@pytest.mark.parametrize("room", [300_000, 450_000])  # bytes: for a part of the first, of the second checkpoint
def test_a_training_that_filled_its_disk_resumes_to_the_same_weights(tmp_path, capsys, room):
    wide = ["--num_filters", "16", "--dense_units", "24", "--num_train_epochs", "2", "--train_size", "256"]
    assert train.main([*small(tmp_path / "whole"), *wide]) == 0
    with small_disk(tmp_path / "disk", room) as remount:
        words = [*small(tmp_path / "disk/run"), *wide]
        assert train.main(words) == 1
        assert "train.py: cannot write a file: " in capsys.readouterr().err
        remount("size=100m")
        assert train.main(words) == 0
        files = [folder / "model.safetensors" for folder in (tmp_path / "whole", tmp_path / "disk/run")]
        assert files[0].read_bytes() == files[1].read_bytes()


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shards") / "demo"
    words = ["--data", "demo", "--all_splits", "true", "--shard_mib", "0.05", "--output_dir", str(folder)]
    assert write_shards(words) == 0
    return folder


def streamed(shards: Path, folder: Path, *flags: str) -> list[str]:
    settings = ["--data", str(shards), "--streaming", "true", "--buffer_size", "100", "--num_train_epochs", "2"]
    return [*small(folder), *settings, "--per_device_train_batch_size", "16", "--checkpoint_steps", "7", *flags]


@pytest.mark.slow
def test_a_stream_interrupted_within_an_epoch_resumes_to_the_same_weights(shards, tmp_path, monkeypatch):
    assert train.main(streamed(shards, tmp_path / "whole")) == 0
    step = StreamPosition.on_step_end

    def interrupt(self, args, state, control, **kwargs):
        if state.global_step == 10:
            raise KeyboardInterrupt
        step(self, args, state, control, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(StreamPosition, "on_step_end", interrupt)
        assert train.main(streamed(shards, tmp_path / "run")) == 130
    assert (tmp_path / "run/checkpoint-7/stream-0.pt").is_file()
    assert train.main(streamed(shards, tmp_path / "run")) == 0
    assert left_behind(tmp_path / "run") == FILES
    whole, resumed = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "run"))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    histories = [json.loads((tmp_path / name / "history.json").read_text()) for name in ("whole", "run")]
    assert [[row["epoch"] for row in rows] for rows in histories] == [[1, 2], [1, 2]]
    assert histories[0][1]["eval_loss"] == histories[1][1]["eval_loss"]
    metrics = [json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("whole", "run")]
    assert metrics[0] == metrics[1]
    assert 0 < metrics[0]["test_leak_free"]["n"] <= metrics[0]["test"]["n"]


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.slow
def test_a_training_killed_between_an_epoch_and_its_evaluation_evaluates_it(shards, tmp_path, monkeypatch, streaming):
    words = ["--checkpoint_steps", "1", *([] if streaming else ["--data", "demo", "--streaming", "false"])]
    evaluate = StreamTrainer.evaluate if streaming else Trainer.evaluate

    def interrupt(self, *args, **kwargs):
        if self.state.global_step == self.state.max_steps:
            raise KeyboardInterrupt
        return evaluate(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(StreamTrainer if streaming else Trainer, "evaluate", interrupt)
        assert train.main(streamed(shards, tmp_path / "run", *words)) == 130
    assert train.main(streamed(shards, tmp_path / "run", *words)) == 0
    history = json.loads((tmp_path / "run/history.json").read_text())
    assert [row["epoch"] for row in history] == [1, 2]
    assert all("eval_accuracy" in row for row in history)


def test_a_stream_without_validation_shards_or_with_a_train_size_is_refused(shards, tmp_path, capsys):
    bare = tmp_path / "bare"
    shutil.copytree(shards, bare)
    for file in [bare / "README.md", *(bare / "data").glob("validation-*")]:
        file.unlink()
    assert train.main(streamed(bare, tmp_path / "run")) == 1
    assert "--all_splits true" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        train.main(streamed(shards, tmp_path / "run", "--train_size", "5"))
    assert "expected --streaming or --train_size; found both" in capsys.readouterr().err


@pytest.mark.slow
def test_two_processes_stream_and_resume_only_as_two(shards, tmp_path, capsys):
    words = streamed(shards, tmp_path / "run", "--per_device_train_batch_size", "8")
    launch_two([*words, "--max_steps", "9", "--num_train_epochs", "2"], tmp_path / "hf")
    assert json.loads((tmp_path / "run/run.json").read_text())["processes"] == 2
    run = json.loads((tmp_path / "run/run.json").read_text())
    (tmp_path / "run/run.json").write_text(json.dumps({**run, "finished": False}))
    assert {file.name for file in (tmp_path / "run/checkpoint-7").glob("stream-*")} == {"stream-0.pt", "stream-1.pt"}
    for later in (tmp_path / "run").glob("checkpoint-*"):
        if later.name != "checkpoint-7":
            shutil.rmtree(later)
    assert train.main([*words, "--max_steps", "9"]) == 1
    assert "expected 2 processes, as in the interrupted run" in capsys.readouterr().err


def test_a_finished_run_is_not_overwritten(run, capsys):
    before = (run / "metrics.json").read_bytes()
    assert train.main(small(run)) == 1
    assert "found a finished run" in capsys.readouterr().err
    assert (run / "metrics.json").read_bytes() == before


def test_a_run_is_not_resumed_with_other_images(tmp_path, monkeypatch, capsys):
    def interrupt(*_args, **_kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(EpochLines, "on_epoch_begin", interrupt)
        assert train.main(small(tmp_path / "run")) == 130
    record = json.loads((tmp_path / "run/run.json").read_text())
    record["data"]["test"]["sha256"] = "0" * 64
    (tmp_path / "run/run.json").write_text(json.dumps(record))
    assert train.main(small(tmp_path / "run")) == 1
    assert "expected the same images to resume the run" in capsys.readouterr().err


@pytest.mark.slow
def test_training_stops_early_when_validation_no_longer_improves(tmp_path):
    flags = ["--num_train_epochs", "9", "--learning_rate", "0.0", "--early_stopping_patience", "2"]
    assert train.main(small(tmp_path / "run", *flags)) == 0
    assert len(json.loads((tmp_path / "run/history.json").read_text())) == 3


def test_a_missing_source_is_refused_by_name(tmp_path, capsys):
    assert train.main(small(tmp_path / "run", "--data", "./nowhere")) == 1
    assert "found nothing at './nowhere'" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_folders_without_splits_are_split_for_training_and_testing(tmp_path):
    generator = np.random.default_rng(0)
    for label in ("real", "fake"):
        (tmp_path / "data" / label).mkdir(parents=True)
        for number in range(60):
            pixels = generator.integers(256, size=(40, 48, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "data" / label / f"{number}.png")
    assert train.main(small(tmp_path / "run", "--data", str(tmp_path / "data"))) == 0
    metrics = json.loads((tmp_path / "run/metrics.json").read_text())
    assert (metrics["test"]["n"], metrics["validation"]["n"]) == (24, 4)
    assert "content_accuracy.png" not in {file.name for file in (tmp_path / "run/figures").iterdir()}


@pytest.fixture(scope="module")
def owned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose metadata.csv states labels and groups of unequal size."""
    folder = tmp_path_factory.mktemp("owned")
    generator = np.random.default_rng(0)
    lines = ["file_name,label,group"]
    for number in range(160):
        Image.fromarray(generator.integers(256, size=(32, 32, 3), dtype=np.uint8)).save(folder / f"{number}.png")
        lines.append(f"{number}.png,{('real', 'fake')[number % 4 == 0]},owner {int(number**0.5)}")
    (folder / "metadata.csv").write_text("\n".join(lines))
    return folder


def trained_rows(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """Record the rows of each training batch, as the data set is asked for them."""
    rows: list[list[int]] = []
    fetch = PixelDataset.__getitems__

    def record(self: PixelDataset, indices: Sequence[int]) -> dict[str, torch.Tensor]:
        if self.augment:
            rows.append([self.epoch, *indices])
        return fetch(self, indices)

    monkeypatch.setattr(PixelDataset, "__getitems__", record)
    return rows


def balanced(owned: Path, folder: Path, *flags: str) -> list[str]:
    draw = ["--balance", "label,group", "--per_device_train_batch_size", "16", "--validation_share", "0.2"]
    return small(folder, "--data", str(owned), *draw, *flags)


@pytest.mark.slow
def test_a_balanced_training_draws_both_labels_evenly_and_anew_in_each_epoch(owned, tmp_path, monkeypatch):
    rows = trained_rows(monkeypatch)
    assert train.main(balanced(owned, tmp_path / "run")) == 0
    labels = np.array(load_splits(DataArguments(data=str(owned), validation_share=0.2))["train"]["label"])
    epochs = [[row for epoch, *batch in rows if epoch == one for row in batch] for one in range(3)]
    assert {len(epoch) for epoch in epochs} == {len(labels)}
    assert epochs[0] != epochs[1] != epochs[2]
    drawn = labels[np.concatenate(epochs)]
    assert labels.mean() < 0.3
    assert drawn.mean() == pytest.approx(0.5, abs=0.1)


@pytest.mark.slow
def test_a_balanced_training_stopped_within_an_epoch_resumes_to_the_same_weights(owned, tmp_path, monkeypatch):
    words = ["--checkpoint_steps", "2"]
    assert train.main(balanced(owned, tmp_path / "whole", *words)) == 0
    save = StepCheckpoints.on_step_end

    def interrupt(self, args, state, control, **kwargs):
        if state.global_step == 9:
            raise KeyboardInterrupt
        save(self, args, state, control, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(StepCheckpoints, "on_step_end", interrupt)
        assert train.main(balanced(owned, tmp_path / "run", *words)) == 130
    assert (tmp_path / "run/checkpoint-8").is_dir()
    assert train.main(balanced(owned, tmp_path / "run", *words)) == 0
    whole, resumed = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "run"))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


@pytest.mark.parametrize(
    ("words", "found"),
    [(["--balance", "label,owner"], "'owner'"), (["--balance", ""], "''"),
     (["--balance", "label", "--streaming", "true"], "--streaming or --balance"),
     (["--fold_column", "fold", "--validation_fold", "0", "--streaming", "true"], "--streaming or --fold_column")],
)  # fmt: skip
def test_impossible_draws_and_folds_are_refused_before_anything_is_imported(words, found, capsys):
    with pytest.raises(SystemExit):
        train.main(words)
    assert found in capsys.readouterr().err


def test_balancing_over_groups_that_no_image_has_is_refused(tmp_path, capsys):
    assert train.main(small(tmp_path / "run", "--balance", "group")) == 1
    assert "expected the groups of the images of demo" in capsys.readouterr().err


def launch_two(words: list[str], home: Path) -> subprocess.CompletedProcess[str]:
    """Run train.py in two processes that communicate with gloo."""
    environment = {**os.environ, "HF_HOME": str(home), "OMP_NUM_THREADS": "1"}
    environment.pop("HF_DATASETS_CACHE", None)
    process = subprocess.run(
        [*launcher(2, "--multi_gpu"), str(ROOT / "train.py"), *words],
        env=environment, capture_output=True, text=True, check=False, cwd=ROOT,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    return process


@pytest.mark.slow
def test_two_processes_give_the_same_files(tmp_path):
    process = launch_two(small(tmp_path / "run", "--num_train_epochs", "2"), tmp_path / "hf")
    assert left_behind(tmp_path / "run") == FILES
    assert json.loads((tmp_path / "run/run.json").read_text())["processes"] == 2
    assert process.stdout.count("model, measurements and figures") == 1
    recorded = ValidationRun.read(tmp_path / "run/validation_probabilities.npz")
    kept = json.loads((tmp_path / "run/metrics.json").read_text())["best_epoch"]
    detector = Detector.from_pretrained(tmp_path / "run")
    again = detector.probabilities(load_images("demo")["validation"]["image"])
    np.testing.assert_allclose(again, scale(recorded.p_fake[kept - 1], detector.point.temperature), atol=1e-5)


@pytest.mark.slow
def test_two_processes_learn_what_one_learns_from_the_same_batches(tmp_path):
    torch.manual_seed(0)
    shape = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 32}
    ViTForImageClassification(ViTConfig(image_size=32, patch_size=8, **shape)).save_pretrained(tmp_path / "vit")
    ViTImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(tmp_path / "vit")
    words = ["--data", "demo", "--model", str(tmp_path / "vit"), "--max_steps", "40", "--bootstrap_samples", "0"]
    words += ["--crop_padding", "2", "--learning_rate", "0.03", "--optim", "sgd"]  # Adam would enlarge rounding errors
    words += ["--head_epochs", "1", "--ema_decay", "0.9", "--output_dir"]
    assert train.main([*words, str(tmp_path / "one"), "--per_device_train_batch_size", "32"]) == 0
    launch_two([*words, str(tmp_path / "two"), "--per_device_train_batch_size", "16"], tmp_path / "hf")
    one, two = (ValidationRun.read(tmp_path / name / "validation_probabilities.npz") for name in ("one", "two"))
    np.testing.assert_allclose(one.p_fake, two.p_fake, atol=0.01)  # 40 full batches; a short one is not shared evenly


def test_images_are_not_dropped_from_validation_and_test(tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        train.main(small(tmp_path / "run", "--dataloader_drop_last", "true"))
    assert "expected every validation and test image measured; found --dataloader_drop_last" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_by_default_the_epoch_with_the_best_validation_accuracy_is_kept():
    run = RunSettings()
    assert (run.load_best_model_at_end, run.metric_for_best_model, run.greater_is_better) == (True, "accuracy", True)
