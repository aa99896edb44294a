from types import SimpleNamespace

import pytest
import torch
from torch import distributed
from torch.distributed.fsdp import fully_shard
from transformers import (
    ConvNextConfig,
    ConvNextForImageClassification,
    SwinConfig,
    SwinForImageClassification,
    TrainerControl,
    TrainerState,
    ViTConfig,
    ViTForImageClassification,
)

from realfake_hf.models.heads import backbone_parameters, head_modules
from realfake_hf.training.optimization import HeadFirst, WeightAverage, layer_depths, parameter_groups, with_lora

PIXELS = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def vit():
    torch.manual_seed(0)
    shape = {"hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 3, "intermediate_size": 32}
    return ViTForImageClassification(ViTConfig(image_size=16, patch_size=4, **shape)).eval()


def swin():
    return SwinForImageClassification(
        SwinConfig(image_size=32, patch_size=2, embed_dim=8, depths=[1, 2], num_heads=[1, 2], window_size=4)
    )


def convnext():
    return ConvNextForImageClassification(ConvNextConfig(hidden_sizes=[8, 16], depths=[1, 2], num_stages=2))


def test_a_vits_depths_run_from_the_embeddings_over_the_blocks_to_the_head():
    depths = layer_depths(vit())
    assert depths["vit.embeddings.position_embeddings"] == depths["vit.embeddings.cls_token"] == 0
    assert [depths[f"vit.layers.{block}.layernorm_before.weight"] for block in range(3)] == [1, 2, 3]
    assert depths["vit.layernorm.weight"] == 3
    assert depths["classifier.weight"] == 4


@pytest.mark.parametrize("make", [swin, convnext])
def test_the_blocks_of_several_stages_are_counted_through(make):
    model = make()
    depths = layer_depths(model)
    assert set(depths) == {name for name, _ in model.named_parameters()}
    top = max(depths.values())
    assert {depth for name, depth in depths.items() if name.startswith("classifier")} == {top}
    assert set(depths.values()) == set(range(top + 1))
    assert top >= 4  # three blocks and the head


def test_learning_rates_fall_from_the_head_down_and_every_parameter_learns_once():
    model = vit()
    weights = [name for name, _ in model.named_parameters() if name.endswith("weight") and "norm" not in name]
    groups = parameter_groups(model, learning_rate=1.0, weight_decay=0.1, layer_decay=0.5, decayed=weights)
    grouped = [id(value) for group in groups for value in group["params"]]
    assert sorted(grouped) == sorted(id(value) for value in model.parameters())
    assert [group["lr"] for group in groups] == sorted((group["lr"] for group in groups), reverse=True)
    rate = {id(value): group["lr"] for group in groups for value in group["params"]}
    decay = {id(value): group["weight_decay"] for group in groups for value in group["params"]}
    named = dict(model.named_parameters())
    assert rate[id(named["classifier.weight"])] == 1.0
    assert rate[id(named["vit.layers.2.mlp.fc1.weight"])] == 0.5
    assert rate[id(named["vit.layers.0.mlp.fc1.weight"])] == 0.125
    assert rate[id(named["vit.embeddings.cls_token"])] == 0.0625
    assert {name for name in named if decay[id(named[name])]} == set(weights)


def test_frozen_parameters_are_in_no_group():
    model = vit()
    for parameter in backbone_parameters(model):
        parameter.requires_grad_(False)
    groups = parameter_groups(model, learning_rate=1.0, weight_decay=0.0, decayed=[])
    assert sum(len(group["params"]) for group in groups) == 2


def test_lora_learns_small_updates_and_the_head_and_merges_into_an_ordinary_model():
    model = vit()
    before = model(pixel_values=PIXELS).logits
    learner = with_lora(model, rank=2)
    assert torch.equal(learner(pixel_values=PIXELS).logits, before)  # updates start at nothing
    learning = {name for name, value in learner.named_parameters() if value.requires_grad}
    assert all("lora_" in name or "classifier" in name for name in learning)
    assert any("classifier" in name for name in learning)
    assert any("q_proj" in name for name in learning)
    assert any("mlp" in name for name in learning)
    for name, value in learner.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(value, std=0.1)
    learner.eval()
    changed = learner(pixel_values=PIXELS).logits
    merged = learner.merge_and_unload()
    assert isinstance(merged, ViTForImageClassification)
    assert set(merged.state_dict()) == set(vit().state_dict())
    torch.testing.assert_close(merged(pixel_values=PIXELS).logits, changed, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(changed, before)


def test_lora_gives_layers_their_depth():
    learner = with_lora(vit(), rank=2)
    depths = layer_depths(learner)
    top = max(depths.values())
    assert all(depths[name] == top for name in depths if "classifier" in name)
    assert all(depths[name] == 2 for name in depths if "layers.1." in name)


def test_the_backbone_is_frozen_in_the_first_epochs_only():
    model = vit()
    callback = HeadFirst(backbone_parameters(model), epochs=1)
    head = {id(value) for module in head_modules(model).values() for value in module.parameters()}
    for epoch, waits in [(0, True), (1, False), (2, False)]:
        callback.on_epoch_begin(None, TrainerState(epoch=epoch), TrainerControl())
        assert {value.requires_grad for value in model.parameters() if id(value) not in head} == {not waits}
        assert all(value.requires_grad for value in model.parameters() if id(value) in head)


@pytest.fixture
def mesh(tmp_path):
    distributed.init_process_group(
        "gloo", store=distributed.FileStore(str(tmp_path / "store"), 1), rank=0, world_size=1
    )
    yield distributed.device_mesh.init_device_mesh("cpu", (1,))
    distributed.destroy_process_group()


@pytest.fixture(params=["unsharded", "sharded"])
def averaged(tmp_path, request):
    """A model with one weight, unsharded or sharded (FSDP), its average of decay 0.5, and the Trainer's arguments."""
    model = torch.nn.Linear(1, 1, bias=False)
    if request.param == "sharded":
        fully_shard(model, mesh=request.getfixturevalue("mesh"))
    torch.nn.init.constant_(model.weight, 0.0)
    callback = WeightAverage(0.5)
    args = SimpleNamespace(output_dir=str(tmp_path), load_best_model_at_end=False)
    callback.on_train_begin(args, TrainerState(), TrainerControl(), model=model)
    return model, callback, args


def step(averaged, number, value, *, evaluate=False, save=False):
    model, callback, args = averaged
    torch.nn.init.constant_(model.weight, value)
    control = TrainerControl(should_evaluate=evaluate, should_save=save)
    state = TrainerState(global_step=number, is_world_process_zero=True)
    callback.on_step_end(args, state, control, model=model)
    return state


def test_the_average_is_the_running_mean_of_the_weights(averaged):
    model, callback, args = averaged
    expected = 0.0
    for number, value in enumerate([4.0, 8.0, -2.0, 1.0], start=1):
        step(averaged, number, value)
        kept = min(0.5, (1 + number) / (10 + number))
        expected = kept * expected + (1 - kept) * value
    callback.on_train_end(args, TrainerState(global_step=4), TrainerControl(), model=model)
    assert model.weight.item() == pytest.approx(expected)


def test_the_average_replaces_the_weights_during_an_evaluation_only(averaged):
    model, callback, args = averaged
    state = step(averaged, 100, 4.0, evaluate=True)
    with torch.no_grad():
        assert model(torch.ones(1, 1)).item() == 2.0  # which gathers the shards
    callback.on_evaluate(args, state, TrainerControl(), model=model)
    assert model(torch.ones(1, 1)).item() == 4.0


def test_a_checkpoint_contains_the_average_and_training_resumes_from_it(averaged):
    model, _, args = averaged
    step(averaged, 100, 4.0, save=True)
    step(averaged, 101, 10.0)
    again = WeightAverage(0.5)
    torch.nn.init.constant_(model.weight, 4.0)
    again.on_train_begin(args, TrainerState(global_step=100), TrainerControl(), model=model)
    again.on_train_end(args, TrainerState(global_step=100), TrainerControl(), model=model)
    assert model.weight.item() == 2.0


def test_in_the_end_the_average_of_the_best_checkpoint_is_kept(averaged, tmp_path):
    model, callback, args = averaged
    args.load_best_model_at_end = True
    step(averaged, 100, 4.0, save=True)
    state = step(averaged, 101, 10.0, save=True)
    state.best_model_checkpoint = str(tmp_path / "checkpoint-100")
    callback.on_train_end(args, state, TrainerControl(), model=model)
    assert model.weight.item() == 2.0
