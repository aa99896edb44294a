"""The study as a whole: its settings, what it stores, and its gallery."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from study_models import sample_of

from realfake_hf.explain_study import run
from realfake_hf.explain_study.arguments import StudyArguments
from realfake_hf.store import Store

N = 20


@pytest.fixture
def study(tmp_path, monkeypatch):
    """A running study of two models on images of noise; the ViT is wrong on the first two."""
    right = np.arange(N) >= 2
    images = np.random.default_rng(0).integers(0, 256, (N, 8, 8, 3), dtype=np.uint8)
    sample = sample_of(images, np.arange(N) % 2 == 1, right=right)
    models = [SimpleNamespace(name="cnn", methods=("grad_cam",)), SimpleNamespace(name="vit", methods=("rollout",))]
    p_fake = {name: np.arange(N) / 100 for name in ("cnn", "vit")}
    made = []

    def compute_maps(model, method, images, *, target, **_):
        made.append((model.name, method, target))
        heat = np.random.default_rng(len(made)).random((len(images), 8, 8)).astype(np.float32)
        return {"heat": heat, "layer": np.array("features.3" if method == "grad_cam" else "")}

    monkeypatch.setattr(run, "compute_maps", compute_maps)
    rows = {"id": [*reversed(sample.ids)]}
    p_fake = {name: scores[::-1] for name, scores in p_fake.items()}
    arguments = StudyArguments(tmp_path, compare=["cnn=a", "vit=b"], gallery=6)
    return SimpleNamespace(
        study=run._Study(arguments, Store(tmp_path), models, [], rows, p_fake, sample), made=made, sample=sample
    )


def test_maps_are_computed_once_for_each_label_that_they_depend_on_and_stored(study):
    first, again = (study.study._maps(study.study.models, "truth") for _ in range(2))
    assert study.made == [("cnn", "grad_cam", "REAL"), ("cnn", "grad_cam", "FAKE"), ("vit", "rollout", "FAKE")]
    for new, stored in zip(first, again, strict=True):
        assert (new.name, new.layer) == (stored.name, stored.layer)
        np.testing.assert_array_equal(new.heat, stored.heat)
    assert [maps.layer for maps in again] == ["features.3", None]
    study.study._maps(study.study.models, "predicted")
    study.study._maps(study.study.models, "REAL")
    assert len(study.made) == 3
    study.study._maps(study.study.models, "FAKE", "random weights")
    assert len(study.made) == 5


def test_a_map_explains_the_label_of_its_target(study):
    fake, real, truth, predicted = (
        study.study._maps(study.study.models, target)[0].heat for target in ("FAKE", "REAL", "truth", "predicted")
    )
    is_fake = study.sample.is_fake
    np.testing.assert_array_equal(truth, np.where(is_fake[:, None, None], fake, real))
    called_fake = np.where(np.arange(N) < 2, ~is_fake, is_fake)  # both models are wrong on the first two
    np.testing.assert_array_equal(predicted, np.where(called_fake[:, None, None], fake, real))
    assert (fake != real).any()


def test_maps_of_opposite_labels_suggest_more_agreement_where_both_models_are_right(study, monkeypatch):
    """Both models see the same evidence for each label, and one of them is wrong on a quarter of the images."""
    patterns = dict(zip(("REAL", "FAKE"), np.random.default_rng(0).random((2, 8, 8)).astype(np.float32), strict=True))

    def compute_maps(*images, target, **_):
        noise = np.random.default_rng(1).normal(0, 1e-3, (len(images[-1]), 8, 8))
        return {"heat": (patterns[target] + noise).astype(np.float32), "layer": np.array("")}

    monkeypatch.setattr(run, "compute_maps", compute_maps)
    monkeypatch.setattr(run, "random_weights", lambda *_, **__: None)
    right = {"cnn": np.ones(N, dtype=bool), "vit": np.arange(N) % 8 > 1}
    models = [
        SimpleNamespace(name=name, methods=("grad_cam",), detector=SimpleNamespace(model=None)) for name in right
    ]
    for model in models:
        model.with_weights_of = lambda _, same=model: same
    changed = replace(study.study, models=models, sample=replace(study.sample, is_right=right))
    found = changed._agreement()["by_target"]
    gaps = {target: measured["pairs"][0]["right_less_wrong"]["spearman"] for target, measured in found.items()}
    assert gaps["predicted"]["value"] > 0.5
    assert gaps["predicted"]["p_value"] < 0.01
    for target in ("truth", "FAKE", "REAL"):
        assert gaps[target]["value"] == pytest.approx(0, abs=0.01)


def test_the_ceiling_compares_a_model_with_its_twin(study, monkeypatch):
    rising = np.arange(64, dtype=np.float32).reshape(8, 8) / 63

    def compute_maps(model, *_, **__):
        return {"heat": np.repeat((rising if model.seed == 0 else 1 - rising)[None], N, axis=0), "layer": np.array("")}

    monkeypatch.setattr(run, "compute_maps", compute_maps)
    monkeypatch.setattr(run, "random_weights", lambda *_, **__: None)
    model, twin = (
        SimpleNamespace(name="cnn", methods=("grad_cam",), detector=SimpleNamespace(model=None), seed=seed)
        for seed in (0, 1)
    )
    model.with_weights_of = lambda _: model
    measured = replace(study.study, models=[model], twins=[twin])._agreement()["by_target"]["truth"]
    assert measured["ceiling"]["cnn grad_cam"]["spearman"]["value"] == pytest.approx(-1)


def test_the_gallery_contains_right_and_wrong_predictions_for_both_labels(study):
    gallery = study.study.gallery()
    assert [image.p_fake["vit"] for image in gallery] == [0, 0.01, 0.02, 0.03, 0.04, 0.05]
    assert [image.is_fake for image in gallery] == [False, True] * 3
    [grad_cam, rollout] = study.study._maps(study.study.models, "predicted")
    np.testing.assert_array_equal(gallery[0].maps["cnn", "grad_cam"], grad_cam.heat[0])
    np.testing.assert_array_equal(gallery[3].maps["vit", "rollout"], rollout.heat[3])
    np.testing.assert_array_equal(gallery[3].image, study.sample.images[3])


class TestArguments:
    def test_models_and_twins_have_names(self):
        arguments = StudyArguments("out", compare=["cnn=a", "vit=b"], twins=["vit=c"])
        assert (arguments.models, arguments.twin_places) == ({"cnn": "a", "vit": "b"}, {"vit": "c"})

    def test_hardened_models_have_the_names_of_models(self):
        arguments = StudyArguments("out", compare=["cnn=a", "vit=b"], hardened=["vit=c"])
        assert arguments.hardened_places == {"vit": "c"}

    def test_the_entity_is_measured_if_there_are_masks(self):
        settings = {"compare": ["a=x"], "parts": ["entity", "sanity"]}
        assert StudyArguments("out", **settings).measured_parts == ["sanity"]
        assert StudyArguments("out", **settings, entity_masks="masks.npz").measured_parts == ["sanity", "entity"]

    @pytest.mark.parametrize(
        ("settings", "named"),
        [
            ({"compare": []}, ["--compare", "none"]),
            ({"compare": ["a"]}, ["--compare", "'a'"]),
            ({"compare": ["a=x", "a=y"]}, ["--compare", "a, a"]),
            ({"twins": ["b=x"]}, ["--twins of a", "found b"]),
            ({"hardened": ["b=x"]}, ["--hardened of a", "found b"]),
            ({"parts": ["all"]}, ["--parts", "planted, grids, causal, entity, patching, sinks", "found all"]),
            ({"targets": ["false"]}, ["--targets", "truth, predicted, FAKE, REAL", "found false"]),
            ({"targets": []}, ["--targets", "found none"]),
            ({"n": 1}, ["at least 2", "found --n 1"]),
            ({"bootstrap_samples": 0}, ["--bootstrap_samples of at least 1", "--gallery", "found 0 and 12"]),
        ],
    )
    def test_invalid_settings_are_named(self, settings, named):
        with pytest.raises(ValueError, match=r"found") as error:
            StudyArguments("out", **{"compare": ["a=x"], **settings})
        assert [words for words in named if words not in str(error.value)] == []
