"""Recipes of heads compared out of fold, and chosen within the other folds."""

import json
from dataclasses import replace
from itertools import product
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from datasets import Dataset
from scipy.special import expit, logit
from sklearn.metrics import roc_auc_score
from small_multiview import N, save_images, save_tower

from realfake_hf.cli import parse
from realfake_hf.data.loading import load_images
from realfake_hf.detector import Detector
from realfake_hf.estimate import to_plain
from realfake_hf.experiments import out_of_fold as module
from realfake_hf.experiments.fold_scores import FoldedImages, FoldScores, RecipeFits, load_folds
from realfake_hf.experiments.out_of_fold import (
    Plan,
    band_outcomes,
    calibrated,
    calibrated_point,
    choose,
    choose_point,
    keep,
    main,
)
from realfake_hf.metrics.operating_point import Band, Limits, OperatingPoint
from realfake_hf.store import Store
from realfake_hf.training.arguments import DataArguments, ModelArguments
from realfake_hf.training.data import build_model
from realfake_hf.training.features import fit_heads

HELD = [(0,), (1,), (2,), (0, 1), (0, 2), (1, 2)]


@pytest.fixture(scope="module")
def plan(tmp_path_factory):
    root = tmp_path_factory.mktemp("plan")
    (root / "images").mkdir()
    recipe = {
        "data": str(save_images(root / "images")), "fold_column": "fold", "validation_fold": "0", "model": "multiview",
        "balance": "label,group", "tower": str(save_tower(root / "tower")), "tower_layers": 2,
        "feature_layers": [1, 2], "n_windows": 2, "delivered_copies": 0,
    }  # fmt: skip
    for name, changes in {"weak": {"head_c": 1e-6}, "strong": {"head_c": 0.1}}.items():
        (root / f"{name}.yaml").write_text(yaml.safe_dump(recipe | changes))
    file = root / "plan.yaml"
    recipes = [str(root / f"{name}.yaml") for name in ("weak", "strong")]
    settings = {
        "recipes": recipes,
        "folds": [0, 1, 2],
        "variants": ["plain", "hard"],
        "shares": [0.5],
        "sampled": 20,
        "band_variants": ["plain"],
    }
    promise = {"limits": {"short_side": 20, "widening": 0.1, "far": True}, "error": 0.4, "false_alarms": 0.4}
    file.write_text(yaml.safe_dump(settings | promise))
    return file


def test_differences_between_recipes_are_corrected_for_recipes_and_variants(monkeypatch):
    def compare(*arguments, **_):  # every difference has p = 0.02
        return {"p_values": dict.fromkeys(list(arguments[1])[1:], 0.02)}

    monkeypatch.setattr("realfake_hf.metrics.significance.compare_auc", compare)
    plan = SimpleNamespace(variants=["plain", "web"])
    data = SimpleNamespace(select=lambda rows: SimpleNamespace(is_fake=rows, groups=rows))
    scores = dict.fromkeys(["first", "second", module.NESTED], np.ones((2, 5)))
    pairs = module.compare_recipes(plan, data, scores)
    assert {p for pair in pairs.values() for p in pair["p_values"].values()} == {0.08}
    assert all(list(pair["p_values"]) == ["first", "second"] for pair in pairs.values())


def check_pairs(results):
    pairs = results["pairs"]
    assert {variant: pair["n"] for variant, pair in pairs.items()} == {"plain": N, "hard": 60}
    strong, weak = (results["recipes"][name]["plain"]["all"]["roc_auc"]["value"] for name in ("strong", "weak"))
    assert pairs["plain"]["roc_auc"]["chosen within less weak"]["value"] == pytest.approx(strong - weak)
    assert pairs["plain"]["p_values"]["strong"] == pairs["hard"]["p_values"]["strong"] == 1  # chosen for each fold


def words(plan, folder):
    return ["--plan", str(plan), "--output_dir", str(folder / "run"), "--output_file", str(folder / "wild.json")]


def test_every_image_is_judged_once_by_heads_that_never_saw_its_fold(plan, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(module, "SAMPLES", 20)
    fitted, sizes = [], []
    training_set = RecipeFits.training_set

    def recorded(fits, rows):
        groups = {int(group[5:]) for group in fits.data.groups[rows]}  # of four images to a group
        folds = {group // (N // 12) for group in groups}
        fitted.append(tuple(sorted({0, 1, 2} - folds)))
        sizes.append((len(groups) * 12 / N / len(folds), rows.sum() / len(groups)))
        return training_set(fits, rows)

    monkeypatch.setattr(RecipeFits, "training_set", recorded)
    assert main(words(plan, tmp_path)) == 0
    assert fitted == [(), *HELD, (), *HELD, *HELD[:3], *HELD[:3]]
    assert sizes == [(1, 4)] * 14 + [(0.5, 4)] * 3 + [(1, 2)] * 3  # a share of the groups, and of their images
    results = json.loads((tmp_path / "wild.json").read_text())
    assert (results["n"], results["n_fake"], results["n_groups"]) == (N, N // 2, N // 4)
    assert set(results["recipes"]) == {"weak", "strong", "chosen within"}
    report = results["recipes"]["strong"]
    assert report["plain"]["all"]["roc_auc"]["value"] > 0.8
    assert report["plain"]["all"]["n"] == N
    assert [part["n"] for part in report["plain"]["folds"].values()] == [N // 3] * 3
    assert set(report) == {"plain", "hard"}
    assert [part["n"] for part in report["hard"]["folds"].values()] == [20] * 3
    assert results["recipes"]["chosen within"]["hard"]["generators"] == {}
    assert all(n == 4 and n_fake == 2 for n, n_fake, _ in results["right"].values())
    assert len(results["right"]) == N // 4
    assert "| strong | hard |" in capsys.readouterr().out

    curve = {(row["of"], row["share"]): row for row in results["curve"] if row["variant"] == "plain"}
    assert [(row["n"], row["n_groups"]) for row in curve.values()] == [
        (N // 2, N // 8), (N, N // 4), (N // 2, N // 4), (N, N // 4)
    ]  # fmt: skip
    assert curve["groups", 1]["roc_auc"] == report["plain"]["all"]["roc_auc"]

    check_pairs(results)
    assert list(results["bands"]) == ["0", "1", "2"]
    assert results["bands"]["0"]["plain"]["groups"] == N // 4 // 3

    assert main([*words(plan, tmp_path), "--model_dir", str(tmp_path / "kept")]) == 0  # finished fits are kept
    assert len(fitted) == 20
    detector = Detector.from_pretrained(tmp_path / "kept")
    kept = json.loads((tmp_path / "wild.json").read_text())["kept"]
    assert (kept["recipe"], kept["weights"]) == ("strong", detector.digest())
    assert kept["operating_point"] == to_plain(detector.point)
    assert sum(row["n"] for row in kept["bins"]) == N
    assert (detector.point.threshold, detector.point.temperature) == (0.5, 1)
    assert (detector.point.limits.short_side, detector.point.limits.far) == (20, True)
    assert N * 0.9 < detector.point.n <= N
    assert detector.familiarity.n == N * 2 // 3
    images = load_images(yaml.safe_load((plan.parent / "strong.yaml").read_text())["data"])["train"]
    p_fake = detector.probabilities(images["image"])
    assert roc_auc_score(images["label"][:], p_fake) > 0.9
    assert np.mean((p_fake > 0.5) == np.array(images["label"][:])) > 0.8


def test_sums_of_the_folds_give_the_discriminants_of_a_direct_fit(plan, tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    words = ["--config", str(plan.parent / "strong.yaml"), "--head_shrinkage", "0.2", "--compressed_copies", "1"]
    recipe = parse(DataArguments, ModelArguments, argv=words)
    data = load_folds([0, 1, 2], [recipe[0]])
    fits = RecipeFits(recipe, data, Store(tmp_path / "fits"))
    fits.load((1,))
    sets, weights = fits.training_set(data.fold != 1)
    direct = build_model(recipe[1])[0]
    fit_heads(direct, sets, inverse_penalty=1, shrinkage=0.2, weights=weights)
    features = torch.from_numpy(fits.features(np.flatnonzero(data.fold == 1))[:]).float()
    with torch.no_grad():
        torch.testing.assert_close(fits.network.score(features), direct.score(features), rtol=1e-3, atol=1e-3)
    assert fits.familiarity((1,)).n == N // 3  # neither the fold that is held out nor the first, which sets the limit


def test_finished_heads_are_refused_when_the_images_of_the_folds_change(plan, tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    recipe = parse(DataArguments, ModelArguments, argv=["--config", str(plan.parent / "strong.yaml")])
    data = load_folds([0, 1, 2], [recipe[0]])
    RecipeFits(recipe, data, Store(tmp_path / "fits")).load((1,))
    moved = FoldedImages(data.images, (data.fold + 1) % 3, data.is_fake)
    with pytest.raises(ValueError, match="found other values of images"):
        RecipeFits(recipe, moved, Store(tmp_path / "fits")).load((1,))


def test_heads_with_a_hidden_layer_are_kept_with_their_familiarity(plan, tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    words = ["--config", str(plan.parent / "strong.yaml"), "--hidden_units", "4"]
    recipe = parse(DataArguments, ModelArguments, argv=words)
    fits = RecipeFits(recipe, load_folds([0, 1, 2], [recipe[0]]), Store(tmp_path / "fits"))
    keep(fits, OperatingPoint(0.4, "here", temperature=0.5, band=Band(0.3, 0.5, 0.1)), tmp_path / "kept")
    detector = Detector.from_pretrained(tmp_path / "kept")
    images = fits.data.images["image"][:8]
    features = torch.from_numpy(fits.features(np.arange(8))[:]).float()
    embeddings = fits.network.window[:-1](features[:, 1:]).mean(1).detach()
    np.testing.assert_allclose(detector.embeddings(images), embeddings, atol=0.05)
    assert all(verdict.is_far is not None for verdict in detector.predict(images))


def test_images_that_are_far_have_no_part_in_the_band_and_are_unsure():
    plan = Plan([], [0, 1, 2], ["plain", "web"], [], 40, ["plain", "web"], {"far": True}, error=0.1, false_alarms=0.05)
    number = np.arange(240)
    groups = Dataset.from_dict({"group": [f"owner{each // 4}" for each in number]})
    data, scores, far = FoldedImages(groups, number // 80, number % 2 == 1), np.empty((2, 240)), np.zeros((2, 240))
    scores[:] = np.where(data.is_fake, 0.9, 0.1) + np.random.default_rng(0).normal(0, 0.02, (2, 240))
    found = choose_point(plan, data, FoldScores(scores, 0 * scores), far)
    far[1, ::8] = 1  # real images, which now look generated
    scores[1, ::8] = 0.97
    moved = choose_point(plan, data, FoldScores(scores, 0 * scores), far)
    assert (found.n, moved.n) == (480, 450)
    assert moved.band.high == pytest.approx(found.band.high, abs=0.05)
    outcomes = band_outcomes(plan, data, FoldScores(scores, 0 * scores), far, 0)
    assert outcomes["plain"]["decided"]["value"] == 1
    assert (outcomes["web"]["decided"]["k"], outcomes["web"]["wrong"]["k"]) == (70, 0)


def three_folds():
    """Images of sixty groups in three folds, and two variants of their scores."""
    plan = Plan([], [0, 1, 2], ["plain", "web"], [], 40, ["plain", "web"], {}, error=0.1, false_alarms=0.05)
    number = np.arange(240)
    groups = Dataset.from_dict({"group": [f"owner{each // 4}" for each in number]})
    data = FoldedImages(groups, number // 80, number % 2 == 1)
    odds = np.where(data.is_fake, 2, -2) + np.random.default_rng(0).normal(0, 0.5, (2, 240))
    return plan, data, FoldScores(expit(odds), np.zeros((2, 240)))


def test_the_calibration_of_a_fold_does_not_depend_on_its_own_labels():
    plan, data, scores = three_folds()
    inside = data.fold == 0
    others = replace(data, is_fake=data.is_fake ^ (inside & (np.arange(240) % 8 == 0)))
    found, moved = (calibrated(plan, each, scores) for each in (data, others))
    np.testing.assert_array_equal(found[:, inside], moved[:, inside])
    assert np.abs(found - moved)[:, ~inside].min() > 0


def test_the_calibration_undoes_a_distortion_of_the_log_odds():
    plan, data, scores = three_folds()
    distorted = FoldScores(expit(3 * logit(scores.p_fake) + 1), scores.spread)
    np.testing.assert_allclose(calibrated(plan, data, distorted), calibrated(plan, data, scores), atol=1e-3)


def test_the_verdicts_of_a_fold_are_those_of_a_band_that_did_not_see_it():
    plan, data, scores = three_folds()
    scores.p_fake[:, (data.fold == 0) & ~data.is_fake] = 0.97  # which no band on this fold would call AI-generated
    outcomes = band_outcomes(plan, data, scores, np.zeros((2, 240)), 0)
    assert {(each["wrong"]["k"], each["wrong"]["n"]) for each in outcomes.values()} == {(40, 80)}


def test_a_calibrated_point_gives_the_same_verdicts():
    limits = Limits(widening=0.5)
    point = OperatingPoint(0.4, "here", temperature=0.3, band=Band(0.3, 0.5, 0.1), limits=limits)
    for p_fake, spread in product(np.linspace(0.01, 0.99, 30), (0, 0.4)):
        moved = expit((logit(p_fake) - logit(0.4)) / 0.3)
        expected, found = point.judge(p_fake, spread=spread), calibrated_point(point).judge(moved, spread=spread / 0.3)
        assert (found.label, found.is_sure, found.reasons) == (expected.label, expected.is_sure, expected.reasons)


def test_the_choice_for_a_fold_does_not_depend_on_its_own_scores():
    fold = np.repeat(np.arange(3), 20)
    is_fake = np.tile([False, True], 30)
    right, wrong = np.where(is_fake, 0.9, 0.1), np.where(is_fake, 0.1, 0.9)
    data = FoldedImages(None, fold, is_fake)

    def scores(good: int):
        """Right on one fold, wrong on the others, whoever trains."""
        values = np.where(fold == good, right, wrong)
        return {held: of(np.where(np.isin(fold, held), values, np.nan)) for held in HELD}

    def of(values: np.ndarray) -> FoldScores:
        return FoldScores(values[None], values[None])

    candidates = {"good on 0": scores(0), "good on 1": scores(1)}
    assert choose(candidates, data, 0) == "good on 1"
    assert choose(candidates, data, 1) == "good on 0"


def test_images_of_one_label_are_compared_with_all_of_the_other_and_few_images_have_no_row():
    is_fake = np.tile([False, True], 30)
    images = Dataset.from_dict({"group": [f"g{row // 4}" for row in range(60)]})
    data = FoldedImages(images, np.zeros(60, int), is_fake)
    generator = np.where(is_fake, "a", None)
    generator[np.flatnonzero(is_fake)[: module.MIN_IMAGES - 1]] = "b"
    p_fake = np.random.default_rng(0).random(60)
    reports = module._by_value(data, p_fake, generator.tolist())
    assert list(reports) == ["a"]
    rows = (generator == "a") | ~is_fake
    assert (reports["a"]["n_real"], reports["a"]["n_fake"]) == (30, 30 - module.MIN_IMAGES + 1)
    assert reports["a"]["roc_auc"]["value"] == pytest.approx(roc_auc_score(is_fake[rows], p_fake[rows]))


def test_recipes_of_other_data_and_models_and_missing_folds_are_refused(plan, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    content = yaml.safe_load(plan.read_text())
    strong = yaml.safe_load((plan.parent / "strong.yaml").read_text())
    other = tmp_path / "other.yaml"
    cases = {
        "the same data": ({}, strong | {"balance": "label"}),
        "model multiview": ({}, {"model": "cifake-cnn"}),
        "in others": ({"folds": [0, 1]}, strong),
    }
    for named, (changes, recipe) in cases.items():
        other.write_text(yaml.safe_dump(recipe))
        file = tmp_path / "plan.yaml"
        file.write_text(yaml.safe_dump(content | changes | {"recipes": [content["recipes"][1], str(other)]}))
        assert main(words(file, tmp_path)) == 1
        assert named in capsys.readouterr().err
