"""Features of a frozen tower: computed once, resumed, and trained on by `train.py`."""

import json
from itertools import combinations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from small_multiview import N, image_bytes, save_images, save_tower

import train
from realfake_hf.data.decoding import decode_image
from realfake_hf.data.loading import load_images
from realfake_hf.detector import Detector
from realfake_hf.models.multiview import Standardize
from realfake_hf.models.pretrained import build_multiview
from realfake_hf.training import features as module
from realfake_hf.training.discriminant import Moments, Standardized, set_discriminant
from realfake_hf.training.features import FeatureDataset, Features, cached_features, collect_moments, fit_heads

LAYERS = {"tower_layers": 2, "feature_layers": [1, 2], "n_windows": 2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_images(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def tower(tmp_path_factory):
    return save_tower(tmp_path_factory.mktemp("tower"))


@pytest.fixture
def images(folder):
    return load_images(str(folder))["train"]


def test_the_first_copy_holds_the_features_of_the_views_that_the_processor_cuts(tower, images, tmp_path):
    model, processor = build_multiview(str(tower), **LAYERS)
    features = cached_features(images, model, processor, cache_dir=tmp_path)
    assert (features[:].shape, features[:].dtype) == ((N, 3, 2 * 2 * 16), np.float16)
    image = decode_image(images.with_format("arrow")[7:8]["image"].combine_chunks().field("bytes")[0].as_py())
    pixel_values = processor(image, return_tensors="pt")["pixel_values"]
    with torch.inference_mode():
        expected = model.features(pixel_values[0])
    np.testing.assert_allclose(features[7], expected.numpy(), atol=0.05)


def test_other_copies_are_changed_images_and_the_same_each_time(tower, images, tmp_path):
    model, processor = build_multiview(str(tower), **LAYERS)
    names = ("plain", "delivered-0", "delivered-1", "compressed-0")
    each = [cached_features(images, model, processor, variant=name, cache_dir=tmp_path) for name in names]
    for one, other in combinations(each, 2):
        assert (one[:] != other[:]).any(axis=(1, 2)).mean() > 0.9
    first = each[1]
    again = cached_features(images, model, processor, variant="delivered-0", cache_dir=tmp_path / "again")
    np.testing.assert_array_equal(first[:], again[:])


def test_only_images_that_are_not_stored_are_computed_for_a_processor_and_tower(tower, images, tmp_path, monkeypatch):
    model, processor = build_multiview(str(tower), **LAYERS)
    part = cached_features(images.select(range(0, N, 2)), model, processor, cache_dir=tmp_path)
    computed = []
    append = module._append

    def counted(rows, *args, **options):
        computed.append(rows["id"][:])
        append(rows, *args, **options)

    monkeypatch.setattr(module, "_append", counted)
    every = cached_features(images, model, processor, cache_dir=tmp_path)
    assert computed == [images["id"][1::2]]
    np.testing.assert_array_equal(every[::2], part[:])
    backwards = cached_features(images.select(range(N)[::-1]), model, processor, cache_dir=tmp_path)
    np.testing.assert_array_equal(backwards[::-1], every[:])
    assert len(computed) == 1
    other, _ = build_multiview(str(tower), **{**LAYERS, "feature_layers": [2]})
    cached_features(images, other, processor, cache_dir=tmp_path)
    assert [len(rows) for rows in computed] == [N // 2, N]


def test_copies_of_an_image_are_stored_once(tower, images, tmp_path):
    model, processor = build_multiview(str(tower), **LAYERS)
    rows = images.select([0, 1, 0, 2, 1])
    features = cached_features(rows, model, processor, cache_dir=tmp_path)
    assert features.stored.shape[0] == 3
    more = cached_features(images.select(range(6)), model, processor, cache_dir=tmp_path)
    np.testing.assert_array_equal(more[[0, 1, 0, 2, 1]], features[:])
    apart = cached_features(images.select(range(6)), model, processor, cache_dir=tmp_path / "apart")
    np.testing.assert_allclose(more[:].astype(float), apart[:].astype(float), atol=0.05)


def test_an_interrupted_computation_is_resumed(tower, images, tmp_path, monkeypatch):
    model, processor = build_multiview(str(tower), **LAYERS)
    expected = cached_features(images, model, processor, cache_dir=tmp_path / "whole")[:]
    monkeypatch.setattr("realfake_hf.parallel._CHUNK", 10)
    decoded = []

    def interrupted(data):
        decoded.append(data)
        if len(decoded) == 25:
            raise KeyboardInterrupt
        return decode_image(data)

    monkeypatch.setattr(module, "decode_image", interrupted)
    with pytest.raises(KeyboardInterrupt):
        cached_features(images, model, processor, cache_dir=tmp_path)
    with next(tmp_path.glob("*.float16")).open("ab") as stream:
        stream.write(b"half a row")
    with next(tmp_path.glob("*.txt")).open("a") as stream:
        stream.write(images["sha256"][30][:20])
    np.testing.assert_array_equal(cached_features(images, model, processor, cache_dir=tmp_path)[:], expected)
    assert len(decoded) == 25 + N - 20  # the third chunk once more


def test_an_epoch_draws_one_copy_of_each_image_by_its_seed():
    copies = [Features(np.full((40, 2, 3), number, np.float16), np.arange(40)) for number in range(3)]
    sets = {seed: FeatureDataset(copies, [0, 1] * 20, seed=seed) for seed in (0, 1)}
    drawn = {}
    for seed, data in sets.items():
        for epoch in (0, 1):
            data.set_epoch(epoch)
            batch = data.__getitems__(range(40))
            assert batch["features"].shape == (40, 2, 3)
            drawn[seed, epoch] = batch["features"][:, 0, 0].tolist()
            assert data[5]["features"][0, 0] == drawn[seed, epoch][5]
    assert set(drawn[0, 0]) == {0, 1, 2}
    assert len({tuple(copy) for copy in drawn.values()}) == 4


def test_heads_are_fitted_as_scikit_learn_fits_a_logistic_regression(tower):
    model, _ = build_multiview(str(tower), **LAYERS)
    generator = np.random.default_rng(0)
    labels = generator.integers(2, size=60)
    values = (generator.normal(size=(60, 3, model.feature_width)) + labels[:, None, None] * 0.3).astype(np.float16)
    data = FeatureDataset([Features(values, np.arange(60))], labels)
    weights = np.where(labels == 1, 2.0, 1.0) / (2 * labels + (1 - labels)).sum()
    fit_heads(model, data, inverse_penalty=0.1, weights=weights, max_iter=500)
    inputs = values[:, 0].astype(float)
    inputs = (inputs - inputs.mean(0)) / inputs.std(0, ddof=1)
    expected = LogisticRegression(C=0.1, tol=1e-8, max_iter=5000).fit(inputs, labels, sample_weight=weights * 60)
    with torch.no_grad():
        whole, windows = (head(torch.from_numpy(values).float()).squeeze(-1) for head in (model.whole, model.window))
    assert np.corrcoef(whole[:, 0], expected.decision_function(inputs))[0, 1] > 0.9999
    torch.testing.assert_close(whole[:, 0].std(), windows[:, 1:].std(), rtol=1e-3, atol=0)
    flat = model.window[0](torch.from_numpy(values[:, 1:]).float()).flatten(0, 1)
    torch.testing.assert_close(flat.mean(0), torch.zeros(model.feature_width), rtol=0, atol=1e-4)


def test_a_head_with_a_hidden_layer_is_fitted_too(tower):
    model, _ = build_multiview(str(tower), **LAYERS, hidden_units=4)
    values = np.random.default_rng(0).normal(size=(40, 3, model.feature_width)).astype(np.float16)
    labels = (values[:, :, 0].mean(1) * values[:, :, 1].mean(1) > 0).astype(int)
    data = FeatureDataset([Features(values, np.arange(40))], labels)
    fit_heads(model, data, inverse_penalty=10.0)
    score = model.score(torch.from_numpy(values).float())
    assert roc_auc_score(labels, score.detach()) > 0.95


@pytest.mark.parametrize("shrinkage", [None, 0.1])
def test_heads_start_from_new_weights_whatever_the_model_contains(tower, shrinkage):
    values = np.random.default_rng(0).normal(size=(40, 3, 64)).astype(np.float16)
    labels = (values[:, :, 0].mean(1) * values[:, :, 1].mean(1) > 0).astype(int)
    data = FeatureDataset([Features(values, np.arange(40))], labels)
    fitted = []
    for seed, others in ((0, 20), (0, 40), (1, 40)):
        model, _ = build_multiview(str(tower), **LAYERS, hidden_units=4)
        assert model.feature_width == 64
        part = data.select(np.arange(40)[-others:])  # as of images that are held out later
        fit_heads(model, part, inverse_penalty=10.0, shrinkage=shrinkage)
        fit_heads(model, data.select(np.arange(30)), inverse_penalty=10.0, shrinkage=shrinkage, seed=seed)
        fitted.append(model.window[1].weight.detach())
    assert torch.equal(fitted[0], fitted[1])
    assert not torch.allclose(fitted[0], fitted[2])


def test_a_hidden_layer_of_axes_gives_the_scores_of_its_components(tower):
    """The covariance within the labels is half-whitened: the fourth root of a variance remains."""
    model, _ = build_multiview(str(tower), **LAYERS, hidden_units=4)
    generator = np.random.default_rng(0)
    values = (generator.normal(size=(300, 2, 64)) @ generator.normal(size=(64, 64))).astype(np.float16)
    labels = np.arange(300) % 2
    data = FeatureDataset([Features(values, np.arange(300))], labels)
    features = Standardized.of(collect_moments(data, np.ones(300), offsets=np.zeros((2, 64), np.float32))[0])
    axes = features.axes(0.2, 10)
    inner = axes.T @ features.shrunk(0.2) @ axes
    expected = torch.linalg.eigvalsh(features.shrunk(0.2))[-10:].sqrt()
    torch.testing.assert_close(inner, expected.diag(), rtol=1e-3, atol=1e-3)
    fit_heads(model, data, inverse_penalty=1.0, shrinkage=0.2, max_iter=200)
    scores = model.score(torch.from_numpy(values).float()).detach()
    assert roc_auc_score(labels, scores) > 0.8


def test_train_learns_on_features_and_saves_a_detector(tower, folder, tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    words = ["--model", "multiview", "--tower", str(tower), "--tower_layers", "2", "--feature_layers", "1", "2"]
    words += ["--data", str(folder), "--fold_column", "fold", "--validation_fold", "2", "--balance", "label,group"]
    words += ["--num_train_epochs", "2", "--per_device_train_batch_size", "16", "--bootstrap_samples", "50"]
    words += [
        "--learning_rate",
        "0.02",
        "--test_share",
        "0.2",
        "--delivered_copies",
        "0",
        "--output_dir",
        str(tmp_path / "run"),
    ]
    assert train.main(words) == 0
    outcome = json.loads((tmp_path / "run/metrics.json").read_text())
    assert outcome["validation"]["roc_auc"]["value"] > 0.8
    detector = Detector.from_pretrained(tmp_path / "run")
    p_fake = detector.probabilities([image_bytes(N + n, is_fake=bool(n % 2)) for n in range(20)])
    assert roc_auc_score([0, 1] * 10, p_fake) > 0.8
    assert detector.model.whole[0].std.min() > 0
    assert (detector.model.whole[0].mean != detector.model.window[0].mean).any()


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--model", "multiview", "--num_filters", "3"], "--num_filters"),
        (["--hidden_units", "3"], "--hidden_units"),
        (["--model", "multiview", "--layer_decay", "0.5"], "--layer_decay"),
        (["--model", "multiview", "--robust_share", "0.5"], "--robust_share"),
        (["--model", "multiview", "--hidden_share", "0.5"], "--hidden_share"),
        (["--model", "multiview", "--cutmix", "0.5"], "--cutmix"),
        (["--model", "multiview", "--tower_layers", "9"], "--tower_layers from 1 to 3"),
    ],
)
def test_settings_of_other_models_and_layers_that_do_not_exist_are_refused(words, named, tower, tmp_path, capsys):
    if "multiview" in words:
        words = ["--tower", str(tower), "--feature_layers", "1", "2", "--tower_layers", "2", *words]
    try:
        status = train.main([*words, "--data", "demo", "--output_dir", str(tmp_path / "run")])
    except SystemExit as stopped:  # a setting by itself
        status = stopped.code
    assert status
    assert named in capsys.readouterr().err


@pytest.mark.parametrize("shrinkage", [0.1, 0.6])
def test_a_discriminant_is_fishers(shrinkage):
    generator = np.random.default_rng(0)
    values, labels = generator.normal(size=(60, 2, 5)).astype(np.float32), np.arange(60) % 2
    values[labels == 1] += [1, 0.5, 0, 0, 0]
    weights = generator.integers(1, 4, size=60).astype(np.float64)
    head = torch.nn.Sequential(Standardize(5), torch.nn.Linear(5, 1))
    offset = np.ones(5, np.float32)
    parts = [
        Moments.collect([values[part]], labels[part] > 0, weights[None, part], views=slice(0, 2), offset=offset)
        for part in (slice(0, 25), slice(25, 60))
    ]
    set_discriminant(head, Standardized.of(parts[0] + parts[1]), shrinkage=shrinkage)
    rows = np.concatenate(
        [np.repeat(np.flatnonzero(labels == label), weights[labels == label].astype(int)) for label in (0, 1)]
    )
    flat, own = values[rows].reshape(-1, 5), labels[rows].repeat(2)
    std = np.sqrt(mean_of(flat**2, own) - mean_of(flat, own) ** 2)
    flat = (flat - mean_of(flat, own)) / std
    centred = flat - np.stack([flat[own == label].mean(0) for label in (0, 1)])[own]
    within = np.mean([np.cov(centred[own == label].T, bias=True) for label in (0, 1)], axis=0)
    within = (1 - shrinkage) * within + shrinkage * np.trace(within) / 5 * np.eye(5)
    means = [flat[own == label].mean(0) for label in (0, 1)]
    expected = np.linalg.solve(within, means[1] - means[0])
    scores, found = flat @ expected, head(torch.from_numpy(values[rows].reshape(-1, 5))).detach().numpy()[:, 0]
    spread = np.sqrt(mean_of(scores**2, own))
    np.testing.assert_allclose(found, scores / spread, rtol=1e-3, atol=1e-4)


def mean_of(values: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The mean over both labels, which count the same."""
    return np.mean([values[labels == label].mean(0) for label in (0, 1)], axis=0)


def test_discriminants_tell_the_images_apart(tower, images, tmp_path):
    model, processor = build_multiview(str(tower), **LAYERS)
    data = FeatureDataset([cached_features(images, model, processor, cache_dir=tmp_path)], images["label"][:])
    fit_heads(model, data, inverse_penalty=1, shrinkage=0.1)
    scores = model.score(torch.from_numpy(data.variants[0][:]).float()).detach()
    assert roc_auc_score(images["label"][:], scores) > 0.95
