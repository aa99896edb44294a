"""The models of the page live in a process of their own, which changes no answer and is started again."""

import os
import sys

import numpy as np
import psutil
import pytest
from page_api import api_here, pixels

from realfake_space import models, worker
from realfake_space.api import Api
from realfake_space.models import find_models
from realfake_space.worker import predict


@pytest.fixture(scope="module")
def apart():
    """The functions of the page, with its models in a process of their own."""
    found = Api(find_models([]))
    yield found
    for one in found.models.values():
        one.close()


def _loaded_models():
    return worker._detector.cache_info().currsize


def _predict_or_die(source, paths):
    if "deadly" in paths:
        os._exit(1)
    return predict(source, paths)


@pytest.mark.slow
def test_models_are_loaded_when_they_are_asked(photo):
    found = find_models([])
    assert list(found) == ["cifake-cnn", "cifake-vit"]
    process = found["cifake-cnn"]._process
    assert process._pool is None
    found["cifake-cnn"].predict([photo])
    assert process.call(_loaded_models) == 1


@pytest.mark.slow
def test_a_process_of_their_own_changes_no_answer(apart, tmp_path, photo):
    here = api_here()
    (broken := tmp_path / "broken.jpg").write_bytes(b"no picture")
    for name in here.models:
        assert apart.models[name].facts == here.models[name].facts
        [[found, refused]] = apart.predict([photo, str(broken)], [name] * 2)
        [[expected, as_refused]] = here.predict([photo, str(broken)], [name] * 2)
        assert found == {**expected, "p_fake": pytest.approx(expected["p_fake"], abs=1e-5)}
        assert refused == as_refused
        shown, about = apart.models[name].explain(photo, None, 0.5)
        same, as_said = here.models[name].explain(photo, None, 0.5)
        assert about["method"] == as_said["method"]
        np.testing.assert_allclose(pixels(shown).astype(int), pixels(same), atol=3)
    with pytest.raises(ValueError, match="which has no attention"):
        apart.models["cifake-cnn"].explain(photo, "rollout", 0.5)


@pytest.mark.slow
def test_a_process_that_ends_is_started_again(apart, photo):
    before = apart.predict([photo], ["cifake-cnn"])
    process = psutil.Process(apart.models["cifake-cnn"]._process.call(os.getpid))
    process.kill()
    process.wait(10)
    assert apart.predict([photo], ["cifake-cnn"]) == before


@pytest.mark.skipif(sys.platform != "linux", reason="forks on Linux alone")
def test_where_the_temporary_folder_has_no_room_for_a_socket_processes_begin_afresh(monkeypatch):
    for name, method in (("x", "forkserver"), ("x" * 80, "spawn")):
        monkeypatch.setattr("tempfile.tempdir", f"/tmp/{name}")
        assert models._context().get_start_method() == method


@pytest.mark.slow
def test_a_file_that_ends_the_process_takes_no_other_answer_with_it(apart, monkeypatch, photo):
    monkeypatch.setattr(worker, "predict", _predict_or_die)
    ended, found = apart.models["cifake-cnn"].predict(["deadly", photo])
    assert ended.startswith("No verdict: the process of the models died")
    assert 0 <= found.verdict.p_fake <= 1
