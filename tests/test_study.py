"""The study as a whole: its settings, what it stores, and its gallery."""

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

    def compute_maps(model, method, images, **_):
        made.append((model.name, method))
        heat = np.random.default_rng(len(made)).random((len(images), 8, 8)).astype(np.float32)
        return {"heat": heat, "layer": np.array("features.3" if method == "grad_cam" else "")}

    monkeypatch.setattr(run, "compute_maps", compute_maps)
    rows = {"id": [*reversed(sample.ids)]}
    p_fake = {name: scores[::-1] for name, scores in p_fake.items()}
    arguments = StudyArguments(tmp_path, compare=["cnn=a", "vit=b"], gallery=6)
    return SimpleNamespace(
        study=run._Study(arguments, Store(tmp_path), models, [], rows, p_fake, sample), made=made, sample=sample
    )


def test_maps_are_computed_once_and_stored(study):
    first, again = (study.study._maps(study.study.models) for _ in range(2))
    assert study.made == [("cnn", "grad_cam"), ("vit", "rollout")]
    for new, stored in zip(first, again, strict=True):
        assert (new.name, new.layer) == (stored.name, stored.layer)
        np.testing.assert_array_equal(new.heat, stored.heat)
    assert [maps.layer for maps in again] == ["features.3", None]
    study.study._maps(study.study.models, "random weights")
    assert len(study.made) == 4


def test_the_gallery_contains_right_and_wrong_predictions_for_both_labels(study):
    gallery = study.study.gallery()
    assert [image.p_fake["vit"] for image in gallery] == [0, 0.01, 0.02, 0.03, 0.04, 0.05]
    assert [image.is_fake for image in gallery] == [False, True] * 3
    [_, rollout] = study.study._maps(study.study.models)
    np.testing.assert_array_equal(gallery[3].maps["vit", "rollout"], rollout.heat[3])
    np.testing.assert_array_equal(gallery[3].image, study.sample.images[3])


class TestArguments:
    def test_models_and_twins_have_names(self):
        arguments = StudyArguments("out", compare=["cnn=a", "vit=b"], twins=["vit=c"])
        assert (arguments.models, arguments.twin_places) == ({"cnn": "a", "vit": "b"}, {"vit": "c"})

    @pytest.mark.parametrize(
        ("settings", "named"),
        [
            ({"compare": []}, ["--compare", "none"]),
            ({"compare": ["a"]}, ["--compare", "'a'"]),
            ({"compare": ["a=x", "a=y"]}, ["--compare", "a, a"]),
            ({"twins": ["b=x"]}, ["--twins of a", "found b"]),
            ({"parts": ["all"]}, ["--parts", "agreement, faithfulness, sanity, planted, causal", "found all"]),
            ({"n": 1}, ["at least 2", "found --n 1"]),
            ({"bootstrap_samples": 0}, ["--bootstrap_samples of at least 1", "--gallery", "found 0 and 12"]),
        ],
    )
    def test_invalid_settings_are_named(self, settings, named):
        with pytest.raises(ValueError, match=r"found") as error:
            StudyArguments("out", **{"compare": ["a=x"], **settings})
        assert [words for words in named if words not in str(error.value)] == []
