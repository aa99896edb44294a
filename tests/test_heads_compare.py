"""Heads compared on stored features: what they are trained on, how they pool windows, and the tests of differences."""

import json
from functools import partial

import numpy as np
import pytest
import torch
import yaml
from scipy.stats import ttest_rel
from sklearn.metrics import roc_auc_score
from small_multiview import N, save_images, save_tower

from realfake_hf.experiments import view_heads
from realfake_hf.experiments.fold_scores import FoldedImages, RecipeFits, load_folds
from realfake_hf.experiments.heads import main
from realfake_hf.experiments.out_of_fold import read_recipe
from realfake_hf.experiments.trainings import read_plan
from realfake_hf.experiments.view_heads import (
    HeadSettings,
    Pair,
    Plan,
    compare,
    fold_moments,
    judge,
    pool_windows,
    read_inputs,
    supervised_contrastive,
    train_heads,
)
from realfake_hf.metrics.significance import holm
from realfake_hf.store import Store
from realfake_hf.training.features import FeatureDataset, Features

SMALL = {"hidden_units": 4}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("heads")
    (root / "images").mkdir()
    save_images(root / "images")
    save_tower(root / "tower")
    return root


@pytest.fixture(autouse=True)
def cache(root, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", root / "cache")


def write_plan(root, folder, *, images="images", recipe=(), **changes):
    """Write a plan and its recipe, and return the file."""
    settings = {
        "data": str(root / images), "fold_column": "fold", "validation_fold": "0", "model": "multiview",
        "balance": "label,group", "tower": str(root / "tower"), "tower_layers": 2, "feature_layers": [1, 2],
        "n_windows": 2, "delivered_copies": 1, "head_shrinkage": 0.1,
    }  # fmt: skip
    folder.mkdir(exist_ok=True)
    (folder / "recipe.yaml").write_text(yaml.safe_dump(settings | dict(recipe)))
    plan = {
        "recipe": str(folder / "recipe.yaml"), "folds": [0, 1, 2], "variants": ["plain", "hard"], "sampled": 20,
        "epochs": 10, "batch_size": 16, "learning_rate": 0.01, "weight_decay": 0.01,
        "heads": {"base": SMALL, "blocks": {"dropout": 0.0, "weighted_blocks": True, "shared": True, "seeds": 2}},
    }  # fmt: skip
    (folder / "plan.yaml").write_text(yaml.safe_dump(plan | changes))
    return folder / "plan.yaml"


def words(plan, folder):
    return ["--plan", str(plan), "--output_dir", str(folder / "run"), "--output_file", str(folder / "heads.json")]


@pytest.mark.slow
def test_heads_are_judged_on_pairs_of_folds_and_finished_ones_are_read_back(root, tmp_path, monkeypatch, capsys):
    plan, trained, train = write_plan(root, tmp_path), [], view_heads.train_heads

    def recorded(settings, plan, inputs, images, weights, *, seed):
        trained.append((settings.weighted_blocks, seed, len(images)))
        return train(settings, plan, inputs, images, weights, seed=seed)

    monkeypatch.setattr(view_heads, "train_heads", recorded)
    assert main(words(plan, tmp_path)) == 0
    assert trained == [(False, 0, N // 3), (True, 0, N // 3), (True, 1, N // 3)] * 3
    results = json.loads((tmp_path / "heads.json").read_text())
    assert (results["n"], results["n_groups"], list(results["heads"])) == (N, N // 4, ["base", "blocks"])
    base, blocks = results["heads"].values()
    assert base["mean"] > 0.8
    assert list(base["roc_auc"]) == ["plain", "hard"]
    assert base["difference"] is None
    assert blocks["difference"]["mean"] == pytest.approx(blocks["mean"] - base["mean"])
    assert blocks["settings"]["seeds"] == 2
    with np.load(tmp_path / "run/base without 2 and 0.npz") as stored:
        assert np.isfinite(stored["scores"]).sum(1).tolist() == [2 * N // 3, 40]
    assert "| blocks |" in capsys.readouterr().out

    text = (tmp_path / "heads.json").read_text()
    assert main(words(plan, tmp_path)) == 0
    assert len(trained) == 9
    assert (tmp_path / "heads.json").read_text() == text
    assert main(words(write_plan(root, tmp_path, epochs=11), tmp_path)) == 1
    assert "epochs" in capsys.readouterr().err


@pytest.mark.slow
def test_labels_of_the_folds_that_are_judged_change_no_trained_parameter(root, tmp_path):
    plan = read_plan(Plan, write_plan(root, tmp_path))
    recipe = read_recipe(plan.recipe)
    data = load_folds(plan.folds, [recipe[0]])
    is_fake = data.is_fake ^ ((data.fold != 2) & (np.arange(N) % 3 > 0))
    images = data.images.remove_columns("label").add_column("label", is_fake.astype(int).tolist())
    parameters = []
    for number, each in enumerate((data, FoldedImages(images, data.fold, is_fake))):
        fits = RecipeFits(recipe, each, Store(tmp_path / str(number)))
        pairs = [Pair(plan, fits, partial(fold_moments, fits), held) for held in ((0, 1), (1, 2))]
        heads = [pair.train(HeadSettings(hidden_units=4), seed=0) for pair in pairs]
        parameters.append([torch.nn.utils.parameters_to_vector(each.parameters()) for each in heads])
    (without, other), (without_too, other_too) = parameters
    assert torch.equal(without, without_too)
    assert not torch.equal(other, other_too)


def test_the_most_suspicious_window_and_attention_find_what_the_mean_does_not():
    one, many = [4.0, -3.0, -3.0], [-1.0, -1.0, -1.0]
    scores, attention = torch.tensor([one, many]), torch.tensor([[9.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    assert pool_windows(scores, "max", attention).tolist() == [4, -1]
    assert (pool_windows(scores, "attention", attention) > 0).tolist() == [True, False]
    assert (pool_windows(scores, "mean", attention) > 0).tolist() == [False, False]


def test_weighted_blocks_find_the_token_that_tells_the_labels_apart(root, tmp_path):
    changes = {"epochs": 20, "batch_size": 32, "learning_rate": 0.04, "weight_decay": 0.0}
    plan = read_plan(Plan, write_plan(root, tmp_path, **changes))
    generator, labels = np.random.default_rng(0), torch.arange(64) % 2
    features = generator.normal(size=(64, 3, 4 * 8)).astype(np.float16)  # four tokens of eight numbers
    features[:, :, 16:24] += 2 * labels.numpy()[:, None, None]
    space = {"mean": torch.zeros(32), "std": torch.ones(32), "axes": torch.eye(32)}
    variants = [Features(features, np.arange(64))] * 2
    inputs = read_inputs(variants, [space] * 2, token=8)
    torch.testing.assert_close(inputs.flatten(3), read_inputs(variants, [space] * 2))
    heads = train_heads(
        HeadSettings(hidden_units=4, weighted_blocks=True, contrastive=0.1, consistency=0.1), plan, inputs,
        FeatureDataset(variants, labels.tolist()), np.full(64, 1 / 64), seed=0,
    )  # fmt: skip
    assert roc_auc_score(labels, judge([heads, heads], inputs[0])) > 0.9
    for head in heads.kinds:
        assert head.blocks.softmax(0).mean(1).argmax() == 2


def test_the_contrastive_loss_is_that_of_its_definition():
    generator = torch.Generator().manual_seed(0)
    values, labels = torch.randn(6, 3, generator=generator), torch.tensor([0, 1, 0, 1, 1, 0])
    unit = (values / values.norm(dim=1, keepdim=True)).tolist()
    products = [[np.exp(np.dot(a, b) / 0.1) for b in unit] for a in unit]
    losses = []
    for i in range(6):
        others = sum(products[i][k] for k in range(6) if k != i)
        losses.append(
            np.mean([-np.log(products[i][j] / others) for j in range(6) if j != i and labels[i] == labels[j]])
        )
    assert supervised_contrastive(values, labels).item() == pytest.approx(np.mean(losses), rel=1e-5)


def test_differences_are_paired_by_fold():
    aucs = {name: np.random.default_rng(seed).random((5, 3, 2)) for seed, name in enumerate(("base", "a", "b"))}
    results = compare(["plain", "web", "hard"], aucs)
    folds = {
        name: [(each[fold, :, 0].mean() + each[fold - 1, :, 1].mean()) / 2 for fold in range(5)]
        for name, each in aucs.items()
    }
    p_values = holm([ttest_rel(folds[name], folds["base"]).pvalue for name in ("a", "b")])
    assert [results[name]["difference"]["p"] for name in ("a", "b")] == pytest.approx(p_values)
    assert results["a"]["difference"]["mean"] == pytest.approx(results["a"]["mean"] - results["base"]["mean"])
    assert results["b"]["roc_auc"]["web"] == pytest.approx(aucs["b"][:, 1].mean())


def test_heads_and_recipes_that_cannot_be_compared_are_refused(root, tmp_path, capsys):
    cases = {
        "units": {"heads": {"base": {"units": 3}}},
        "median": {"heads": {"base": {"pooling": "median"}}},
        "hidden_units": {"heads": {"base": {"hidden_units": 0, "contrastive": 0.1}}},
        "copies": {"recipe": {"delivered_copies": 0}},
        "folds": {"folds": [0, 1]},
    }
    for named, changes in cases.items():
        assert main(words(write_plan(root, tmp_path, **changes), tmp_path)) == 1
        assert named in capsys.readouterr().err
