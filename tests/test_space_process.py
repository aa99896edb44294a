"""The models of the page live in a process of their own, which changes no answer and is started again."""

import os
import sys

import numpy as np
import psutil
import pytest
from page_desk import desk_here, pixels

from realfake_space import lineup, model_process
from realfake_space.desk import Desk
from realfake_space.lineup import line_up
from realfake_space.model_process import judge


@pytest.fixture(scope="module")
def apart():
    """The page's desk as it is, with its models in a process of their own."""
    found = Desk(line_up([]))
    yield found
    for one in found.lineup.values():
        one.close()


def _loaded_models():
    return model_process._detector.cache_info().currsize


def _judge_or_die(source, paths):
    if "deadly" in paths:
        os._exit(1)
    return judge(source, paths)


@pytest.mark.slow
def test_models_are_loaded_when_they_are_asked(photo):
    lineup = line_up([])
    assert list(lineup) == ["cifake-cnn", "cifake-vit"]
    process = lineup["cifake-cnn"]._process
    assert process._pool is None
    lineup["cifake-cnn"].judge([photo])
    assert process.work(_loaded_models) == 1


@pytest.mark.slow
def test_a_process_of_their_own_changes_no_answer(apart, tmp_path, photo):
    desk = desk_here()
    (broken := tmp_path / "broken.jpg").write_bytes(b"no picture")
    for name in desk.lineup:
        assert apart.lineup[name].facts == desk.lineup[name].facts
        [[found, refused]] = apart.predict([photo, str(broken)], [name] * 2)
        [[expected, as_refused]] = desk.predict([photo, str(broken)], [name] * 2)
        assert found == {**expected, "p_fake": pytest.approx(expected["p_fake"], abs=1e-5)}
        assert refused == as_refused
        shown, about = apart.lineup[name].explain(photo, None, 0.5)
        same, as_said = desk.lineup[name].explain(photo, None, 0.5)
        assert about["method"] == as_said["method"]
        np.testing.assert_allclose(pixels(shown).astype(int), pixels(same), atol=3)
    with pytest.raises(ValueError, match="which has no attention"):
        apart.lineup["cifake-cnn"].explain(photo, "rollout", 0.5)


@pytest.mark.slow
def test_a_process_that_ends_is_started_again(apart, photo):
    before = apart.predict([photo], ["cifake-cnn"])
    process = psutil.Process(apart.lineup["cifake-cnn"]._process.work(os.getpid))
    process.kill()
    process.wait(10)
    assert apart.predict([photo], ["cifake-cnn"]) == before


@pytest.mark.skipif(sys.platform != "linux", reason="forks on Linux alone")
def test_where_the_temporary_folder_has_no_room_for_a_socket_processes_begin_afresh(monkeypatch):
    for name, method in (("x", "forkserver"), ("x" * 80, "spawn")):
        monkeypatch.setattr("tempfile.tempdir", f"/tmp/{name}")
        assert lineup._fresh().get_start_method() == method


@pytest.mark.slow
def test_a_file_that_ends_the_process_takes_no_other_answer_with_it(apart, monkeypatch, photo):
    monkeypatch.setattr(model_process, "judge", _judge_or_die)
    ended, found = apart.lineup["cifake-cnn"].judge(["deadly", photo])
    assert ended == "No verdict: the models' process ended each time that it came to this file."
    assert 0 <= found.verdict.p_fake <= 1
