"""CutMix exchanges whole blocks and mixes labels by area; patch dropout is that of training only."""

import json
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from test_finetuning import SMALL, save
from transformers import (
    SwinConfig,
    SwinForImageClassification,
    Trainer,
    TrainingArguments,
    ViTConfig,
    ViTForImageClassification,
)

import train
from realfake_hf.models.cifake_cnn import CifakeCnnConfig, CifakeCnnForImageClassification
from realfake_hf.training.distillation import DistillationTrainer
from realfake_hf.training.regularization import BLOCK, PatchDropout, cutmix


def vit(**settings):
    torch.manual_seed(0)
    return ViTForImageClassification(ViTConfig(image_size=32, patch_size=4, **SMALL, **settings))


def numbered(n, height, width):
    """Images whose every pixel is the number of the image."""
    return torch.arange(n, dtype=torch.uint8)[:, None, None, None].expand(n, height, width, 3)


@pytest.mark.parametrize(("height", "width"), [(32, 32), (48, 16)])
def test_a_rectangle_of_whole_blocks_is_exchanged_and_labels_with_its_area(height, width):
    torch.manual_seed(0)
    labels = torch.tensor([0, 1, 1, 0, 1, 0])
    places = set()
    for _ in range(200):
        images = numbered(6, height, width)
        mixed, target = cutmix(images, labels)
        assert torch.equal(images, numbered(6, height, width))
        assert mixed.dtype == torch.uint8
        other = mixed != images
        if not other.any():
            continue  # a permutation that moves no image
        inside = other.any(dim=0)[..., 0]
        rows, columns = (inside.any(dim=side).nonzero().flatten() for side in (1, 0))
        box = [*(int(each) for each in (rows[0], rows[-1] + 1, columns[0], columns[-1] + 1))]
        assert all(edge % BLOCK == 0 for edge in box)
        assert inside[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
        places.add(tuple(box))
        share = inside.float().mean()
        assert 0 < share < 1
        donors = mixed[:, rows[0], columns[0], 0].long()
        assert sorted(donors.tolist()) == list(range(6))
        expected = torch.nn.functional.one_hot(labels, 2) * (1 - share)
        torch.testing.assert_close(target, expected + torch.nn.functional.one_hot(labels[donors], 2) * share)
    assert len(places) > 8


def test_images_of_one_block_cannot_be_mixed():
    with pytest.raises(ValueError, match="at least 16 pixels for --cutmix; found 8"):
        cutmix(numbered(2, 8, 32), torch.tensor([0, 1]))


def test_the_loss_of_a_mixed_batch_is_that_of_both_labels_and_evaluation_is_not_mixed(tmp_path):
    torch.manual_seed(0)
    model = CifakeCnnForImageClassification(CifakeCnnConfig(num_filters=4, dense_units=4))
    args = TrainingArguments(output_dir=str(tmp_path), use_cpu=True, label_names=["labels"])
    trainer = DistillationTrainer(teacher=None, model=model, args=args, cutmix=1.0)
    images = torch.randn(6, 32, 32, 3)  # as channels-last pixels
    model.register_forward_pre_hook(
        lambda _module, _inputs, words: ((), {**words, "pixel_values": words["pixel_values"].permute(0, 3, 1, 2)}),
        with_kwargs=True,
    )
    batch = {"pixel_values": images, "labels": torch.tensor([0, 1, 1, 0, 1, 0])}
    plain = trainer.compute_loss(model.eval(), dict(batch))
    torch.testing.assert_close(plain, model(**batch).loss)
    torch.manual_seed(5)
    found = trainer.compute_loss(model.train(), dict(batch))
    torch.manual_seed(5)
    torch.rand(())
    mixed, target = cutmix(images, batch["labels"])
    logits = model(pixel_values=mixed).logits
    torch.testing.assert_close(found, -(target * logits.log_softmax(dim=1)).sum(dim=1).mean())
    assert not torch.isclose(found, plain)


def dropout_at(model, epoch, *, epochs=4, **settings):
    dropout = PatchDropout(model, **settings)
    dropout.on_epoch_begin(SimpleNamespace(num_train_epochs=epochs), SimpleNamespace(epoch=epoch), None)
    return dropout


def tokens_read(model):
    """The states (batch, tokens, width) that enter each block in a forward pass of three images."""
    states = []
    hooks = [
        block.attention.register_forward_pre_hook(lambda _module, inputs: states.append(inputs[0]))
        for block in model.vit.layers
    ]
    model(pixel_values=torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0)))
    for hook in hooks:
        hook.remove()
    return states


@pytest.mark.parametrize(("epoch", "full_epochs", "tokens"), [(0, 0, 17), (2.5, 1, 17), (3, 1, 65), (3, 0, 17)])
def test_a_share_of_the_patches_is_read_until_the_last_epochs(epoch, full_epochs, tokens):
    model = vit()
    dropout = dropout_at(model, epoch, share=0.25, full_epochs=full_epochs)
    assert [each.shape[1] for each in tokens_read(model.train())] == [tokens, tokens]
    assert [each.shape[1] for each in tokens_read(model.eval())] == [65, 65]
    dropout.on_train_end(None, None, None)
    assert not any(module._forward_pre_hooks for module in model.modules())
    assert [each.shape[1] for each in tokens_read(model.train())] == [65, 65]


def test_the_class_token_is_kept_and_patches_are_drawn_alike_for_each_image():
    model = vit()
    model.vit.layers[0].layernorm_before = torch.nn.Identity()
    [whole, _] = tokens_read(model.eval())
    dropout_at(model, 0, share=0.5, full_epochs=0)
    counts = torch.zeros(3, 64)
    for _ in range(100):
        [kept, _] = tokens_read(model.train())
        assert torch.equal(kept[:, 0], whole[:, 0])
        positions = torch.cdist(kept[:, 1:], whole[:, 1:]).argmin(dim=2)
        torch.testing.assert_close(kept[:, 1:], whole[:, 1:].gather(1, positions[..., None].expand(-1, -1, 24)))
        counts.scatter_add_(1, positions, torch.ones(3, 32))
    assert (counts.sum(dim=1) == 3200).all()
    assert counts.min() > 25
    assert counts.max() < 75
    assert not torch.equal(counts[0], counts[1])


def test_a_model_whose_patches_are_not_tokens_is_refused():
    model = SwinForImageClassification(SwinConfig(image_size=32, patch_size=2, embed_dim=8, depths=[1], num_heads=[1]))
    with pytest.raises(ValueError, match="transformer for --patch_share; found SwinForImageClassification: its att"):
        PatchDropout(model.eval(), share=0.5, full_epochs=0)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--cutmix", "1.5"], "--cutmix in [0, 1]; found 1.5"),
        (["--model", "x", "--patch_share", "0"], "--patch_share above 0 and at most 1; found 0.0"),
        (["--model", "x", "--full_epochs", "2"], "with --patch_share below 1 only; found 2 with 1.0"),
        (["--model", "x", "--patch_share", "0.5", "--full_epochs", "-1"], "--full_epochs of at least 0"),
        (["--patch_share", "0.5"], "apply to --model cifake-cnn; found --patch_share"),
    ],
)
def test_wrong_settings_are_refused_before_any_data_are_read(words, message, capsys):
    with pytest.raises(SystemExit, match="2"):
        train.main(["--data", "nowhere", *words])
    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_with_both_resumes_within_an_epoch_to_the_same_weights(tmp_path, monkeypatch):
    place = save(vit(), tmp_path / "vit")
    words = ["--data", "demo", "--train_size", "64", "--model", str(place), "--num_train_epochs", "2"]
    words += ["--per_device_train_batch_size", "16", "--cutmix", "0.7", "--patch_share", "0.5", "--full_epochs", "1"]
    words += ["--checkpoint_steps", "1", "--bootstrap_samples", "10"]
    write = Trainer._save_checkpoint

    def interrupt(self, *args, **kwargs):
        write(self, *args, **kwargs)
        if self.state.global_step == 2:
            raise KeyboardInterrupt

    assert train.main([*words, "--output_dir", str(tmp_path / "whole")]) == 0
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_save_checkpoint", interrupt)
        assert train.main([*words, "--output_dir", str(tmp_path / "run")]) == 130
    assert train.main([*words, "--output_dir", str(tmp_path / "run")]) == 0
    assert json.loads((tmp_path / "run/run.json").read_text())["resumed"] is True
    whole, resumed = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "run"))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
