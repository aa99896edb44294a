"""The models of the page run in a process of their own, which changes no answer and is restarted if it dies."""

import os
import sys

import numpy as np
import psutil
import pytest
from page_api import api_here, pixels
from PIL import Image
from tiny_classifiers import FAMILIES
from transformers import CLIPImageProcessorPil

from realfake_hf.detector import Detector
from realfake_hf.labels import NotFiniteError
from realfake_space import models, worker
from realfake_space.api import Api
from realfake_space.models import find_models
from realfake_space.uploads import RejectedError
from realfake_space.worker import predict


@pytest.fixture(scope="module")
def apart():
    """The functions of the page, with its models in a process of their own."""
    api = Api(find_models([]))
    yield api
    for model in api.models.values():
        model.close()


def _loaded_models():
    return worker._detector.cache_info().currsize


def _predict_or_die(source, images):
    if any(image.max() == 0 for image in images):
        os._exit(1)
    return predict(source, images)


@pytest.mark.slow
def test_models_are_loaded_on_first_use(photo):
    by_name = find_models([])
    assert list(by_name) == ["wild", "cifake-cnn", "cifake-vit"]
    process = by_name["cifake-cnn"]._process
    assert process._pool is None
    by_name["cifake-cnn"].predict([photo])
    assert process.call(_loaded_models) == 1


@pytest.mark.slow
def test_a_process_of_their_own_changes_no_answer(apart, tmp_path, photo):
    here = api_here()
    (broken := tmp_path / "broken.jpg").write_bytes(b"text")
    for name in here.models:
        assert apart.models[name].facts == here.models[name].facts
        answer, error = (apart.predict(path, name) for path in (photo, str(broken)))
        expected, same_error = (here.predict(path, name) for path in (photo, str(broken)))
        assert answer == {**expected, "p_fake": pytest.approx(expected["p_fake"], abs=1e-5)}
        assert error == same_error
        shown, about = apart.models[name].explain(photo, None, 0.5)
        same, same_about = here.models[name].explain(photo, None, 0.5)
        assert about["method"] == same_about["method"]
        np.testing.assert_allclose(pixels(shown).astype(int), pixels(same), atol=3)
    with pytest.raises(ValueError, match="CifakeCnnForImageClassification"):
        apart.models["cifake-cnn"].explain(photo, "rollout", 0.5)


@pytest.mark.slow
def test_a_process_that_dies_is_started_again(apart, photo):
    before = apart.predict(photo, "cifake-cnn")
    process = psutil.Process(apart.models["cifake-cnn"]._process.call(os.getpid))
    process.kill()
    process.wait(10)
    assert apart.predict(photo, "cifake-cnn") == before


@pytest.mark.skipif(sys.platform != "linux", reason="forks on Linux only")
def test_processes_are_spawned_if_the_temporary_folder_has_too_long_a_path_for_a_socket(monkeypatch):
    for name, method in (("x", "forkserver"), ("x" * 80, "spawn")):
        monkeypatch.setattr("tempfile.tempdir", f"/tmp/{name}")
        assert models._context().get_start_method() == method


@pytest.mark.slow
def test_a_file_that_kills_the_process_costs_no_other_answer(apart, monkeypatch, tmp_path, photo):
    Image.new("RGB", (9, 9)).save(tmp_path / "black.png")
    monkeypatch.setattr(worker, "predict", _predict_or_die)
    error, prediction = apart.models["cifake-cnn"].predict([str(tmp_path / "black.png"), photo])
    assert error.startswith("No verdict: the process of the models died")
    assert 0 <= prediction.verdict.p_fake <= 1


def test_an_image_without_finite_logits_is_rejected(monkeypatch):
    class Broken:
        def predict(self, _images):
            raise NotFiniteError("image 0", 0)

    monkeypatch.setattr(worker, "_detector", lambda _source: Broken())
    with pytest.raises(RejectedError, match="NaN or infinity"):
        predict(worker.Source("model"), [np.zeros((8, 8, 3), np.uint8)])


def test_an_image_that_the_processor_would_enlarge_too_much_is_rejected(monkeypatch):
    family = FAMILIES["clip"]
    processor = CLIPImageProcessorPil(size={"shortest_edge": 64}, crop_size={"height": 32, "width": 32})
    detector = Detector(family.build(), processor)
    monkeypatch.setattr(worker, "_detector", lambda _source: detector)
    strip = np.zeros((1, 20000, 3), np.uint8)
    with pytest.raises(RejectedError, match=r"No verdict: the image is too elongated.* 20000x1 "):
        predict(worker.Source("model"), [strip])
    with pytest.raises(RejectedError, match="20000x1"):
        worker.explain(worker.Source("model"), strip, None, None, 0.5)
