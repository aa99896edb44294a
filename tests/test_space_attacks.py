"""Attacks on the page as a server: a second client gets its answers meanwhile, and the memory stays bounded."""

import os
import threading
import time

import httpx
import psutil
import pytest
from bad_files import saved
from hostile_files import hostile_files

from benchmarks.space_server import Server

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

SECONDS = 15  # within which others get an answer
LIMIT = 2**31  # bytes of all processes


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    running = Server(tmp_path_factory.mktemp("server"))
    assert "p_fake" in ask(running, upload(running, saved()))[0]  # the models are loaded
    yield running
    running.stop()
    assert "Traceback" not in running.log.read_text()


@pytest.fixture(scope="module")
def second_client(server):
    """Times of the answers that another client got, and memory of all processes, since the last look."""
    seconds, memory, ended = [], [], threading.Event()

    def go_on():
        number = 0
        while not ended.wait(0.5):
            number += 1
            answer, took = ask(server, upload(server, saved() + bytes([number % 256, number // 256])))
            seconds.append(took if "p_fake" in answer else float("inf"))

    def measure():
        page = psutil.Process(server.process.pid)
        while not ended.wait(0.5):
            memory.append(sum(filter(None, map(own_memory, [page, *page.children(recursive=True)]))))

    threads = [threading.Thread(target=each, daemon=True) for each in (go_on, measure)]
    for thread in threads:
        thread.start()
    yield seconds, memory
    ended.set()
    for thread in threads:
        thread.join(30)


def own_memory(process):
    try:
        return process.memory_full_info().pss
    except psutil.Error:
        return 0


def upload(server, data):
    return server.post("upload", files={"files": ("photo.jpg", data)}).json()[0]


def ask(server, path, endpoint="predict"):
    """Return the answer to a client that waits for it, and the seconds that it took."""
    began = time.monotonic()
    file = {"path": path, "meta": {"_type": "gradio.FileData"}}
    values = {"predict": [file, "cifake-vit"], "explain": [file, "cifake-vit", "", 0.5], "predict_many": [[file]]}
    response = httpx.post(f"{server.url}/gradio_api/call/{endpoint}", json={"data": values[endpoint]}, timeout=120)
    if response.status_code == 400:
        return response.text, time.monotonic() - began
    event = response.json()["event_id"]
    answer = httpx.get(f"{server.url}/gradio_api/call/{endpoint}/{event}", timeout=120).text
    return answer, time.monotonic() - began


def check(second_client, *, since):
    """Check that the other client got answers in time, and that the memory stayed bounded."""
    seconds, memory = second_client
    deadline = time.monotonic() + 2 * SECONDS
    while len(seconds) < since + 2 and time.monotonic() < deadline:
        time.sleep(0.1)
    assert len(seconds) >= since + 2
    assert max(seconds[since:]) < SECONDS
    assert max(memory) < LIMIT


@pytest.mark.parametrize("name", hostile_files())
def test_one_hostile_file_costs_nobody_else(server, second_client, name):
    since = len(second_client[0])
    path = upload(server, hostile_files()[name]())
    for endpoint in ("predict", "explain", "predict_many"):
        answer, seconds = ask(server, path, endpoint)
        assert "event: complete" in answer
        assert "p_fake" in answer or "No verdict: " in answer
        assert seconds < SECONDS
    check(second_client, since=since)


def test_many_hostile_files_at_once_cost_nobody_else(server, second_client):
    since, answers = len(second_client[0]), []
    makers = hostile_files()
    paths = [
        upload(server, makers[name]() + bytes([number]))
        for number in range(4)
        for name in ("shared-block.jpg", "scans.jpg", "shared-block.png", "frames.tif")
    ]
    threads = [threading.Thread(target=lambda path=path: answers.append(ask(server, path))) for path in 2 * paths]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert len(answers) == len(threads)
    assert all("p_fake" in answer or "No verdict: " in answer for answer, _ in answers)
    check(second_client, since=since)


def test_devices_and_pipes_by_path_cost_nobody(server, second_client):
    since = len(second_client[0])
    [folder] = server.temporary.glob("realfake-space-*")
    (folder / "hash").mkdir()
    os.mkfifo(folder / "hash/pipe.png")
    (folder / "hash/zero.png").symlink_to("/dev/zero")
    for path in ("/dev/zero", "/dev/stdin", str(folder / "hash/pipe.png"), str(folder / "hash/zero.png"), str(folder)):
        for endpoint in ("predict", "explain", "predict_many"):
            answer, seconds = ask(server, path, endpoint)
            assert "p_fake" not in answer
            assert seconds < SECONDS
    check(second_client, since=since)
