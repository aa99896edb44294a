"""Image classifiers of transformers are fine-tuned by `train.py`: tiny random models on a few demo images."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import DatasetDict
from safetensors.torch import load_file
from transformers import (
    AutoImageProcessor,
    AutoModelForImageClassification,
    BeitConfig,
    ConvNextConfig,
    DeiTConfig,
    DeiTForImageClassificationWithTeacher,
    Dinov2Config,
    SwinConfig,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessorPil,
    pipeline,
)

import train
from realfake_hf.data.loading import load_images
from realfake_hf.detector import Detector
from realfake_hf.models.heads import head_modules
from realfake_hf.models.pretrained import find_checkpoint, load_pretrained, weight_files
from realfake_hf.training.callbacks import EpochLines

SMALL = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 32}
FAMILIES = {
    "vit": ViTConfig(image_size=32, patch_size=8, **SMALL),
    "deit": DeiTConfig(image_size=32, patch_size=8, architectures=["DeiTForImageClassification"], **SMALL),
    "beit": BeitConfig(image_size=32, patch_size=8, **SMALL),
    "dinov2": Dinov2Config(image_size=32, patch_size=8, hidden_size=24, num_hidden_layers=2, num_attention_heads=3),
    "swin": SwinConfig(image_size=32, patch_size=2, embed_dim=8, depths=[1, 1], num_heads=[1, 2], window_size=4),
    "convnext": ConvNextConfig(image_size=32, hidden_sizes=[8, 16], depths=[1, 1], num_stages=2),
}


def save(model, folder: Path, size: int = 32) -> Path:
    model.save_pretrained(folder)
    ViTImageProcessorPil(size={"height": size, "width": size}).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """A pretrained checkpoint of each family: random weights, five classes."""
    folder = tmp_path_factory.mktemp("checkpoints")
    torch.manual_seed(0)
    for name, config in FAMILIES.items():
        config.num_labels = 5
        save(AutoModelForImageClassification.from_config(config), folder / name)
    save(DeiTForImageClassificationWithTeacher(FAMILIES["deit"]), folder / "deit-distilled")
    return folder


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A few demo pictures with all three splits, as `save_to_disk` leaves them."""
    folder = tmp_path_factory.mktemp("pictures") / "few"
    few = {split: rows.select(range(64 if split == "train" else 32)) for split, rows in load_images("demo").items()}
    DatasetDict(few).save_to_disk(folder)
    return folder


@pytest.fixture(scope="module")
def flags(pictures):
    """The command line of a short training, without the model."""
    settings = {"data": pictures, "num_train_epochs": 2, "per_device_train_batch_size": 16, "learning_rate": 1e-3,
                "bootstrap_samples": 0, "disable_tqdm": True, "warmup_steps": 0}  # fmt: skip
    return [word for name, value in settings.items() for word in (f"--{name}", str(value))]


@pytest.mark.parametrize(
    "family",
    [name if name == "vit" else pytest.param(name, marks=pytest.mark.slow) for name in [*FAMILIES, "deit-distilled"]],
)
def test_a_family_fine_tunes_and_its_folder_is_what_was_measured(checkpoints, pictures, flags, tmp_path, family):
    assert train.main(["--model", str(checkpoints / family), *flags, "--output_dir", str(tmp_path / "run")]) == 0
    before = AutoModelForImageClassification.from_pretrained(checkpoints / family, num_labels=5)
    after = AutoModelForImageClassification.from_pretrained(tmp_path / "run")
    assert type(after) is type(before)
    assert after.config.id2label == {0: "REAL", 1: "FAKE"}
    moved = [name for name, value in after.named_parameters() if "classifier" not in name
             and not torch.equal(value, dict(before.named_parameters())[name])]  # fmt: skip
    assert len(moved) > 5
    metrics = json.loads((tmp_path / "run/metrics.json").read_text())
    test = load_images(pictures)["test"]
    p_fake = Detector.from_pretrained(tmp_path / "run").probabilities(test["image"])
    is_fake = np.array(test["label"][:]) == 1
    assert metrics["test"]["brier"]["value"] == pytest.approx(np.mean((p_fake - is_fake) ** 2), abs=1e-5)


@pytest.mark.slow
def test_small_images_are_upscaled_for_a_larger_model_as_in_the_pipeline(checkpoints, pictures, flags, tmp_path):
    sizes = ["--image_size", "64", "--patch_size", "16"]
    assert (
        train.main(["--model", str(checkpoints / "vit"), *sizes, *flags, "--output_dir", str(tmp_path / "run")]) == 0
    )
    config = json.loads((tmp_path / "run/config.json").read_text())
    assert (config["image_size"], config["patch_size"]) == (64, 16)
    test = load_images(pictures)["test"]
    is_fake = np.array(test["label"][:]) == 1
    answers = pipeline("image-classification", model=str(tmp_path / "run"))(
        [picture.convert("RGB") for picture in test["image"]]
    )
    p_fake = np.array([{one["label"]: one["score"] for one in answer}["FAKE"] for answer in answers])
    metrics = json.loads((tmp_path / "run/metrics.json").read_text())
    assert metrics["test"]["brier"]["value"] == pytest.approx(np.mean((p_fake - is_fake) ** 2), abs=2e-3)


EVERYTHING = [
    "--layer_decay", "0.7", "--head_epochs", "1", "--ema_decay", "0.9", "--label_smoothing_factor", "0.1",
    "--crop_padding", "2", "--robust_share", "0.5", "--gradient_accumulation_steps", "2", "--bf16", "true",
    "--activation_checkpointing", "true",
]  # fmt: skip


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param([], id="plain", marks=pytest.mark.slow),
        pytest.param(EVERYTHING, id="everything"),
        pytest.param(["--lora_rank", "2"], id="lora", marks=pytest.mark.slow),
    ],
)
@pytest.mark.slow
def test_an_interrupted_fine_tuning_ends_with_the_weights_of_an_uninterrupted_one(
    checkpoints, flags, tmp_path, monkeypatch, settings
):
    words = ["--model", str(checkpoints / "vit"), *flags, "--num_train_epochs", "3", *settings]
    begin = EpochLines.on_epoch_begin

    def interrupt(self, args, state, control, **kwargs):
        if state.epoch >= 2:
            raise KeyboardInterrupt
        begin(self, args, state, control, **kwargs)

    assert train.main([*words, "--output_dir", str(tmp_path / "whole")]) == 0
    with monkeypatch.context() as patch:
        patch.setattr(EpochLines, "on_epoch_begin", interrupt)
        assert train.main([*words, "--output_dir", str(tmp_path / "broken")]) == 130
    assert train.main([*words, "--output_dir", str(tmp_path / "broken")]) == 0
    whole, broken = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "broken"))
    assert whole.keys() == broken.keys()
    assert all(torch.equal(whole[name], broken[name]) for name in whole)
    figures = [json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("whole", "broken")]
    assert figures[0] == figures[1]


@pytest.mark.slow
def test_the_kept_model_is_that_of_the_best_epoch(checkpoints, pictures, flags, tmp_path):
    words = ["--model", str(checkpoints / "vit"), *flags, "--num_train_epochs", "3", "--learning_rate", "0.03"]
    assert train.main([*words, "--output_dir", str(tmp_path / "run")]) == 0
    history = json.loads((tmp_path / "run/history.json").read_text())
    best = max(history, key=lambda row: row["eval_accuracy"])
    rows = load_images(pictures)["validation"]
    p_fake = Detector.from_pretrained(tmp_path / "run").probabilities(rows["image"])
    accuracy = np.mean((p_fake > 0.5) == (np.array(rows["label"][:]) == 1))
    assert accuracy == pytest.approx(best["eval_accuracy"])


def test_a_frozen_backbone_does_not_move_and_the_head_does(checkpoints, flags, tmp_path):
    words = ["--model", str(checkpoints / "vit"), *flags, "--freeze_backbone", "true"]
    assert train.main([*words, "--output_dir", str(tmp_path / "run")]) == 0
    before, after = (load_file(folder / "model.safetensors") for folder in (checkpoints / "vit", tmp_path / "run"))
    still = [name for name in before if before[name].shape == after[name].shape and not name.startswith("classifier")]
    assert len(still) == len(before) - 2
    assert all(torch.equal(before[name], after[name]) for name in still)


def two_class(names, folder):
    torch.manual_seed(0)
    config = ViTConfig(image_size=32, patch_size=8, id2label=names, label2id={n: i for i, n in names.items()}, **SMALL)
    return save(ViTForImageClassification(config).eval(), folder)


def test_a_head_that_tells_real_from_fake_is_kept_in_our_order(tmp_path):
    pixels = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    logits = {}
    for names in ({0: "REAL", 1: "FAKE"}, {0: "fake", 1: "real"}):
        folder = two_class(names, tmp_path / names[0])
        original = AutoModelForImageClassification.from_pretrained(folder)
        ours, _ = load_pretrained(str(folder))
        logits[names[0]] = ours(pixel_values=pixels).logits
        fake = next(index for index, name in names.items() if name.lower() == "fake")
        torch.testing.assert_close(logits[names[0]][:, 1], original(pixel_values=pixels).logits[:, fake])
        assert ours.config.id2label == {0: "REAL", 1: "FAKE"}


def test_a_two_class_head_of_something_else_begins_anew(tmp_path):
    folder = two_class({0: "cat", 1: "dog"}, tmp_path / "pets")
    before = AutoModelForImageClassification.from_pretrained(folder).classifier.weight
    model, _ = load_pretrained(str(folder))
    assert not torch.allclose(before, model.classifier.weight)
    assert model.classifier.bias.abs().max() == 0


def test_a_distilled_deit_has_two_heads(checkpoints):
    model, _ = load_pretrained(str(checkpoints / "deit-distilled"))
    assert set(head_modules(model)) == {"cls_classifier", "distillation_classifier"}


def test_half_precision_checkpoints_are_fine_tuned_in_float32(checkpoints, tmp_path):
    half = AutoModelForImageClassification.from_pretrained(checkpoints / "vit", dtype=torch.float16)
    model, _ = load_pretrained(str(save(half, tmp_path / "half")))
    assert model.dtype == torch.float32


def test_a_processor_that_crops_is_replaced_by_a_plain_one_of_the_asked_size(checkpoints, tmp_path):
    folder = save(AutoModelForImageClassification.from_pretrained(checkpoints / "dinov2"), tmp_path / "dino")
    (folder / "preprocessor_config.json").write_text(json.dumps({
        "image_processor_type": "BitImageProcessor", "size": {"shortest_edge": 40}, "do_center_crop": True,
        "crop_size": {"height": 32, "width": 32}, "image_mean": [0.1, 0.2, 0.3], "image_std": [0.5, 0.5, 0.5],
    }))  # fmt: skip
    _, kept = load_pretrained(str(folder))
    assert kept.to_dict()["crop_size"]["height"] == 32
    _, plain = load_pretrained(str(folder), image_size=16, patch_size=4)
    plain.save_pretrained(tmp_path / "saved")
    again = AutoImageProcessor.from_pretrained(tmp_path / "saved", backend="pil").to_dict()
    assert (again["size"]["height"], list(again["image_mean"])) == (16, [0.1, 0.2, 0.3])


def test_a_checkpoint_is_found_by_its_name_below_the_shared_weights(checkpoints, tmp_path, monkeypatch):
    monkeypatch.setenv("REALFAKE_SHARED", str(tmp_path))
    save(AutoModelForImageClassification.from_pretrained(checkpoints / "vit"), tmp_path / "weights/vit-small")
    assert find_checkpoint("somebody/vit-small") == str(tmp_path / "weights/vit-small")
    assert find_checkpoint("somebody/vit-large") == "somebody/vit-large"
    assert find_checkpoint(str(checkpoints / "vit")) == str(checkpoints / "vit")


def test_the_weights_of_a_checkpoint_are_identified_by_their_bytes(checkpoints, tmp_path):
    found = weight_files(str(checkpoints / "vit"))
    digest = hashlib.sha256((checkpoints / "vit/model.safetensors").read_bytes()).hexdigest()
    assert found == {"name": str(checkpoints / "vit"), "revision": None, "files": {"model.safetensors": digest}}
    with pytest.raises(OSError, match=r"expected the config.json of a model at .*; found none"):
        weight_files(str(tmp_path))


WRONG_MODELS = [
    (["--model", "{folder}/nowhere"], "found no such folder at"),
    (["--model", "somebody/no-such-model"], "at 'somebody/no-such-model'; found none"),
    (["--model", "{folder}/empty"], "expected the config.json"),
    (["--model", "{folder}/vit", "--image_size", "30"], "is divisible by the patch size; found 30"),
    (["--model", "{folder}/convnext", "--patch_size", "4"], "expected a model with a position table"),
    (["--model", "{folder}/swin", "--image_size", "4"], "expected a model that accepts images of 4x4 pixels"),
    (["--model", "{folder}/no-processor"], "expected the preprocessor_config.json"),
]  # fmt: skip


@pytest.mark.parametrize(("words", "sentence"), WRONG_MODELS)
def test_a_model_that_cannot_be_used_is_refused_before_any_data_are_read(
    checkpoints, tmp_path, capsys, words, sentence
):
    (checkpoints / "empty").mkdir(exist_ok=True)
    if not (checkpoints / "no-processor").exists():
        AutoModelForImageClassification.from_pretrained(checkpoints / "vit").save_pretrained(
            checkpoints / "no-processor"
        )
    words = [word.format(folder=checkpoints) for word in words]
    assert train.main([*words, "--data", "./nowhere", "--output_dir", str(tmp_path / "run")]) == 1
    said = capsys.readouterr().err
    assert sentence in said
    assert "Traceback" not in said
    assert not (tmp_path / "run").exists()


WRONG_FLAGS = [
    (["--patch_size", "4"], "expected settings that apply to --model cifake-cnn; found --patch_size"),
    (["--model", "somebody/vit", "--num_filters", "64"], "apply to --model somebody/vit; found"),
    (["--model", "a/b", "--freeze_backbone", "true", "--head_epochs", "1"], "expected --freeze_backbone or --head"),
    (["--model", "a/b", "--freeze_backbone", "true", "--lora_rank", "4"], "expected --freeze_backbone or --lora_rank"),
    (["--model", "a/b", "--layer_decay", "1.5"], "expected --layer_decay above 0 and at most 1; found 1.5"),
    (["--ema_decay", "1"], "expected --ema_decay between 0 and 1; found 1.0"),
    (["--robust_share", "2"], "robust_share in [0, 1]; found 2.0"),
    (["--train_size", "0"], "expected --train_size of at least 1; found 0"),
]  # fmt: skip


@pytest.mark.parametrize(("words", "sentence"), WRONG_FLAGS)
def test_settings_that_contradict_each_other_are_refused(words, sentence, capsys, tmp_path):
    with pytest.raises(SystemExit) as stop:
        train.main([*words, "--output_dir", str(tmp_path / "run")])
    assert stop.value.code == 2
    assert sentence in capsys.readouterr().err


@pytest.mark.slow
def test_a_smaller_training_set_is_balanced_and_leaves_the_other_splits(checkpoints, flags, tmp_path):
    words = ["--model", str(checkpoints / "vit"), *flags, "--num_train_epochs", "1", "--train_size", "40"]
    assert train.main([*words, "--output_dir", str(tmp_path / "run")]) == 0
    data = json.loads((tmp_path / "run/run.json").read_text())["data"]
    assert 38 <= data["train"]["n"] <= 42
    assert abs(data["train"]["n_real"] / data["train"]["n"] - 0.5) < 0.15
    assert data["test"]["n"] == 32
