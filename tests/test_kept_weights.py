"""A training keeps the weights of its best epoch on validation, or their average up to it."""

import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerCallback

from realfake_hf.cli import parse
from realfake_hf.training.arguments import DataArguments, ModelArguments
from realfake_hf.training.callbacks import ValidationRecorder
from realfake_hf.training.run import train
from realfake_hf.training.run_arguments import RunArguments

SETTINGS = {
    "data": "demo", "train_size": 128, "num_train_epochs": 3, "num_filters": 4, "dense_units": 4, "disable_tqdm": True,
    "bootstrap_samples": 0, "per_device_train_batch_size": 64, "learning_rate": 0.01, "warmup_steps": 0,
}  # fmt: skip


class Recorder(TrainerCallback):
    """Record the weights before the first and after each step, and the epoch that its images were augmented for."""

    def __init__(self):
        self.weights, self.epochs = [], []

    def on_train_begin(self, *_, model, **__):
        self.weights.append({name: value.detach().clone() for name, value in model.named_parameters()})

    def on_optimizer_step(self, *_, model, train_dataloader, **__):
        self.on_train_begin(model=model)
        self.epochs.append(train_dataloader.dataset.epoch)


@pytest.mark.parametrize("decay", [None, 0.1])
def test_the_kept_weights_are_those_of_the_best_epoch_or_their_average(decay, tmp_path, monkeypatch):
    measure, accuracies = ValidationRecorder.compute_metrics, iter([0.6, 0.9, 0.7])
    monkeypatch.setattr(
        ValidationRecorder, "compute_metrics", lambda *given: {**measure(*given), "accuracy": next(accuracies)}
    )
    settings = {**SETTINGS, "output_dir": tmp_path / "run", **({"ema_decay": decay} if decay else {})}
    words = [word for name, value in settings.items() for word in (f"--{name}", str(value))]
    recorder = Recorder()
    outcome = train(*parse(DataArguments, ModelArguments, RunArguments, argv=words), callbacks=[recorder])
    expected, *steps = recorder.weights
    for number, (epoch, weights) in enumerate(zip(recorder.epochs, steps, strict=True), start=1):
        kept = min(decay or 0, (1 + number) / (10 + number))
        if epoch < 2:
            expected = {name: kept * mean + (1 - kept) * weights[name] for name, mean in expected.items()}
    assert (outcome.best_epoch, set(recorder.epochs)) == (2, {0, 1, 2})
    found = load_file(tmp_path / "run/model.safetensors")
    torch.testing.assert_close({name: found[name] for name in expected}, expected)
