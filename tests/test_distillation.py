"""The distillation loss, and trainings with a teacher."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import (
    CLIPImageProcessorPil,
    DeiTConfig,
    DeiTForImageClassificationWithTeacher,
    EfficientNetImageProcessorPil,
    MobileViTImageProcessorPil,
    TrainingArguments,
    ViTImageProcessorPil,
)

import train
from realfake_hf.data.pixels import ModelInput, PixelDataset, identity_collate
from realfake_hf.detector import Detector
from realfake_hf.models.cifake_cnn import CifakeCnnConfig, CifakeCnnForImageClassification
from realfake_hf.sampling import WeightedRows
from realfake_hf.training.distillation import DistillationTrainer, Teacher

SMALL = [
    "--data",
    "demo",
    "--num_filters",
    "8",
    "--dense_units",
    "8",
    "--bootstrap_samples",
    "0",
    "--disable_tqdm",
    "1",
]
CROPPED = {"size": {"shortest_edge": 40}, "crop_size": {"height": 32, "width": 32}}


def teacher(names=None, weight=0.5):
    torch.manual_seed(0)
    config = CifakeCnnConfig(num_filters=4, dense_units=4, id2label=names or {0: "REAL", 1: "FAKE"})
    return Teacher(CifakeCnnForImageClassification(config), ViTImageProcessorPil(size={"height": 32, "width": 32}),
                   weight=weight)  # fmt: skip


def pixels(size=32):
    return torch.randint(256, (5, size, size, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_a_teacher_predicts_what_its_detector_predicts_at_any_stored_size():
    ours = teacher()
    detector = Detector(ours.model, ViTImageProcessorPil(size={"height": 32, "width": 32}))
    for size in (32, 48):
        expected = detector.probabilities([one.numpy() for one in pixels(size)])
        np.testing.assert_allclose(ours.probabilities(pixels(size))[:, 1].numpy(), expected, atol=1e-6)


def test_a_teacher_with_labels_in_the_other_order_gives_the_same_probabilities():
    plain, turned = teacher(), teacher({0: "FAKE", 1: "REAL"})
    torch.testing.assert_close(plain.probabilities(pixels()), turned.probabilities(pixels()).flip(1))


def test_the_loss_is_least_where_the_student_agrees_with_the_teacher():
    ours = teacher()
    wanted = ours.probabilities(pixels())
    same, other = SimpleNamespace(logits=wanted.log()), SimpleNamespace(logits=wanted.log().flip(1))
    entropy = -(wanted * wanted.log()).sum(dim=1).mean()
    torch.testing.assert_close(ours.loss(same, pixels()), entropy)
    assert ours.loss(other, pixels()) > entropy


def test_a_distillation_head_is_trained_on_the_labels_of_the_teacher():
    ours = teacher()
    verdicts = ours.probabilities(pixels()).argmax(dim=1)
    logits = torch.randn(5, 2, generator=torch.Generator().manual_seed(1))
    outputs = SimpleNamespace(logits=None, distillation_logits=logits)
    expected = -logits.log_softmax(dim=1)[torch.arange(5), verdicts].mean()
    torch.testing.assert_close(ours.loss(outputs, pixels()), expected)


@pytest.fixture(scope="module")
def taught(tmp_path_factory):
    """A teacher trained on the demo set."""
    folder = tmp_path_factory.mktemp("teacher") / "run"
    assert train.main([*SMALL, "--num_train_epochs", "1", "--output_dir", str(folder)]) == 0
    return folder


@pytest.mark.parametrize("weight", [0.3, 1.0])
def test_a_teacher_has_its_share_of_the_loss_in_training_and_none_in_evaluation(tmp_path, weight):
    ours = teacher(weight=weight)
    torch.manual_seed(1)
    student = CifakeCnnForImageClassification(CifakeCnnConfig(num_filters=4, dense_units=4))
    ModelInput(ViTImageProcessorPil(size={"height": 32, "width": 32})).attach(student)
    args = TrainingArguments(output_dir=str(tmp_path), use_cpu=True, label_names=["labels"])
    trainer = DistillationTrainer(teacher=ours, model=student, args=args)
    batch = {"pixel_values": pixels(), "labels": torch.tensor([0, 1, 1, 0, 1])}
    own = student(**batch).loss
    mixed = (1 - weight) * own + weight * ours.loss(student(**batch), pixels())
    torch.testing.assert_close(trainer.compute_loss(student.train(), dict(batch)), mixed)
    torch.testing.assert_close(trainer.compute_loss(student.eval(), dict(batch)), own)


def test_a_distillation_does_not_change_the_teacher_and_records_its_name(taught, tmp_path):
    before = load_file(taught / "model.safetensors")
    words = [*SMALL, "--teacher", str(taught), "--num_train_epochs", "1", "--output_dir", str(tmp_path / "student")]
    assert train.main(words) == 0
    after = load_file(taught / "model.safetensors")
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert json.loads((tmp_path / "student/run.json").read_text())["arguments"]["teacher"] == str(taught)


@pytest.mark.slow
def test_a_distilled_deit_learns_from_a_teacher(taught, tmp_path):
    shape = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 3, "intermediate_size": 32}
    DeiTForImageClassificationWithTeacher(DeiTConfig(image_size=32, patch_size=8, **shape)).save_pretrained(
        tmp_path / "deit"
    )
    ViTImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(tmp_path / "deit")
    words = ["--data", "demo", "--model", str(tmp_path / "deit"), "--teacher", str(taught), "--num_train_epochs", "1"]
    words += ["--train_size", "100", "--bootstrap_samples", "0", "--output_dir", str(tmp_path / "run")]
    assert train.main(words) == 0


def test_a_missing_teacher_is_refused_before_any_data_are_read(tmp_path, capsys):
    words = ["--data", "./nowhere", "--teacher", str(tmp_path / "none"), "--output_dir", str(tmp_path / "run")]
    assert train.main(words) == 1
    error = capsys.readouterr().err
    assert "--teacher" in error
    assert f"no such folder at '{tmp_path / 'none'}'" in error


def test_a_teacher_that_cannot_see_the_images_of_its_student_is_refused():
    plain, flipping = ViTImageProcessorPil(size={"height": 32, "width": 32}), MobileViTImageProcessorPil(**CROPPED)
    teacher().check_student(plain)
    teacher().check_student(CLIPImageProcessorPil(**CROPPED))  # the student's crop is resized
    with pytest.raises(ValueError, match="MobileViTImageProcessorPil for the student"):
        teacher().check_student(flipping)
    cropping = Teacher(teacher().model, CLIPImageProcessorPil(**CROPPED), weight=0.5)
    cropping.check_student(CLIPImageProcessorPil(**CROPPED))
    with pytest.raises(ValueError, match="found CLIPImageProcessorPil for the teacher"):
        cropping.check_student(plain)
    crop = {"do_center_crop": True, "crop_size": {"height": 24, "width": 24}}
    with pytest.raises(ValueError, match="EfficientNetImageProcessorPil, which does more"):
        Teacher(teacher().model, EfficientNetImageProcessorPil(**crop, include_top=True), weight=0.5)


@pytest.mark.parametrize(("n", "n_batches"), [(9, 2), (8, 2), (10, 3), (1, 1)])
def test_a_last_batch_of_one_image_is_left_out_if_batch_norms_need_two(n, n_batches, tmp_path, caplog):
    data = PixelDataset(np.zeros((n, 4, 4, 3), dtype=np.uint8), [0] * n)
    args = TrainingArguments(output_dir=str(tmp_path), per_device_train_batch_size=4, use_cpu=True, report_to=[],
                             dataloader_pin_memory=False, remove_unused_columns=False)  # fmt: skip
    for needs_two in (False, True):
        trainer = DistillationTrainer(teacher=None, needs_two_images=needs_two, model=torch.nn.Linear(1, 1), args=args,
                                      train_dataset=data, data_collator=identity_collate)  # fmt: skip
        sizes = [len(batch["labels"]) for batch in trainer.get_train_dataloader()]
        assert sum(sizes) == (8 if needs_two and n == 9 else n)
        assert len(sizes) == n_batches + (n == 9 and not needs_two)
        assert not args.dataloader_drop_last
    assert ("leaving out one image" in caplog.text) == (n == 9)


def test_a_balanced_draw_has_the_seed_of_the_run(tmp_path):
    data, weights = PixelDataset(np.zeros((20, 4, 4, 3), dtype=np.uint8), [0, 1] * 10), np.full(20, 1 / 20)
    args = TrainingArguments(output_dir=str(tmp_path), seed=3, use_cpu=True, report_to=[])
    trainer = DistillationTrainer(
        teacher=None, weights=weights, model=torch.nn.Linear(1, 1), args=args, train_dataset=data
    )
    assert list(trainer._get_train_sampler()) == list(WeightedRows(weights, data, seed=3))
