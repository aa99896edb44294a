"""The page as a server, over HTTP and in a browser; its log is checked at the end."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest
from bad_files import corpus, picture
from gradio_client import Client, handle_file
from hostile_files import jpeg_with_scans
from page_in_browser import CHROMIUM

from benchmarks.space_server import SPACE, Server
from realfake_hf.detector import Detector
from realfake_space.examples import read_examples

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]
EXAMPLE = SPACE / "examples/rocket.jpg"
SHOTS = ROOT / "runs/space-screenshots"
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt-get install chromium")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    running = Server(tmp_path_factory.mktemp("server"))
    yield running
    running.stop()
    assert "Traceback" not in running.log.read_text(), running.log.read_text()
    assert list(running.temporary.glob("realfake-*")) == []  # no upload is left


@pytest.fixture(scope="module")
def client(server):
    return Client(server.url, verbose=False, download_files=False)


def test_uploads_over_http_have_the_verdict_of_the_file(client, tmp_path):
    for name in ("photo.jpg", "photo.png", "photo.webp"):
        picture((200, 150)).save(tmp_path / name)
        [verdict] = Detector.from_pretrained(SPACE / "models/cifake-vit", bf16=True).predict(str(tmp_path / name))
        answer = client.predict(handle_file(str(tmp_path / name)), "cifake-vit", api_name="/predict")
        assert answer["p_fake"] == pytest.approx(verdict.p_fake, abs=1e-5)


def test_every_file_gets_an_answer_or_an_error_message_over_http(client, tmp_path):
    for number, (name, data, is_image) in enumerate(corpus()):
        file = tmp_path / str(number) / (name if len(name.encode()) < 200 else "long.png")
        file.parent.mkdir()
        file.write_bytes(data)
        # One by one: gradio_client 2.7 cancels a job that is sent while the stream of finished jobs closes.
        answer = client.predict(handle_file(str(file)), "cifake-cnn", api_name="/predict")
        assert ("p_fake" in answer) == is_image, (name, answer)
        assert is_image or re.fullmatch(r"No verdict: .+\.", answer["error"])


def test_a_map_is_returned_as_an_image_and_as_numbers(client):
    shown, about = client.predict(handle_file(str(EXAMPLE)), "cifake-vit", "rollout", 0.6, api_name="/explain")
    assert about["method"] == "rollout"
    assert len(about["grid"]) == 8
    assert shown["path"].endswith(".png") if isinstance(shown, dict) else str(shown).endswith(".png")


def test_many_files_are_returned_as_a_table_and_a_csv_file(server, client, tmp_path):
    (tmp_path / "text.png").write_bytes(b"text")
    files = [handle_file(str(EXAMPLE)), handle_file(str(tmp_path / "text.png"))]
    table, file = client.predict(files, api_name="/predict_many")
    assert [row[:2] for row in table["data"]] == [
        [name, model] for name in ("rocket.jpg", "text.png") for model in ("wild", "cifake-cnn", "cifake-vit")
    ]
    assert server.get(f"file={file['path']}").text.count("\n") == 7


def test_a_client_downloads_the_csv_file(server, tmp_path):
    client = Client(server.url, verbose=False, download_files=tmp_path)
    _, file = client.predict([handle_file(str(EXAMPLE))], api_name="/predict_many")
    assert Path(file).read_text().startswith("file,model,verdict")


def test_the_installation_checks_itself(client):
    assert client.predict(api_name="/check").count("as expected") == 18


def test_the_documented_endpoints_are_the_named_ones(client):
    named = client.view_api(return_format="dict", print_info=False)["named_endpoints"]
    assert set(named) == {"/predict", "/explain", "/predict_many", "/check"}
    assert [parameter["parameter_name"] for parameter in named["/predict"]["parameters"]] == ["picture", "model"]
    for name in named:
        assert f"`{name}`" in (SPACE / "code.md").read_text()


def test_the_shell_commands_of_the_page_work(server, tmp_path):
    [block] = re.findall(r"```bash\n(.*?)```", (SPACE / "code.md").read_text(), re.DOTALL)
    shutil.copy(EXAMPLE, tmp_path / "photo.jpg")
    words = ["bash", "-euo", "pipefail", "-c", block.replace("http://127.0.0.1:7860", server.url)]
    ended = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=True, timeout=120)
    assert "event: complete" in ended.stdout
    assert "Likely real" in ended.stdout


def test_the_python_lines_of_the_page_work(server, tmp_path, monkeypatch):
    block, _ = re.findall(r"```python\n(.*?)```", (SPACE / "code.md").read_text(), re.DOTALL)
    shutil.copy(EXAMPLE, tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    variables = {}
    exec(block.replace("http://127.0.0.1:7860", server.url), variables)
    assert variables["answer"]["model"] == "wild"
    assert variables["about"]["method"] == "rollout"


@pytest.mark.parametrize("meta", [{}, {"meta": {"_type": "gradio.FileData"}}])
@pytest.mark.parametrize(
    "path",
    ["/etc/passwd", "/etc/no-such-file", str(EXAMPLE), "../../../etc/passwd", "file:///etc/passwd", "/dev/zero"],
)
def test_no_file_of_the_server_is_read_through_any_function(server, path, meta):
    functions = httpx.get(f"{server.url}/config").json()["dependencies"]
    assert len(functions) >= 15
    file, answers = {"path": path, **meta}, set()
    for function in functions:
        body = {
            "data": [file, "cifake-cnn"][: len(function["inputs"])],
            "fn_index": function["id"],
            "session_hash": "a",
        }
        if function["api_name"] == "predict_many":
            body["data"] = [[file, file]]
        for route in ("queue/join", f"call/{function['api_name']}", f"run/{function['api_name']}"):
            answer = server.post(route, json=body)
            assert answer.status_code == 400 or not function["inputs"]
            answers.add(answer.text)
    assert not any("root:" in answer or path in answer for answer in answers)


def test_links_folders_and_pipes_in_the_upload_folder_are_not_read(server):
    [folder] = server.temporary.glob("realfake-space-*")
    (folder / "hash").mkdir()
    (folder / "hash/link").symlink_to("/etc/passwd")
    os.mkfifo(folder / "hash/pipe")
    answers = set()
    for name in ("link", "pipe", ".", "none", f"../../{folder.name}/hash/link", "../../../../../../etc/passwd"):
        answers.add(server.post("call/predict", json={"data": [{"path": f"{folder}/hash/{name}"}]}).text)
        assert server.get(f"file={folder}/hash/{name}").status_code in (403, 404)
    assert len(answers) == 1  # the same sentence for all
    shutil.rmtree(folder / "hash")


def test_a_refused_request_costs_no_other_answer(server):
    [path] = server.post("upload", files={"files": ("photo.jpg", EXAMPLE.read_bytes())}).json()
    bodies = [
        [{"path": path}],
        [],
        [{"path": "/etc/passwd"}],
        ["text"],
        [{"path": path}, ["a"]],
        [{"path": path}, None],
    ]
    with ThreadPoolExecutor(6) as pool:  # requests that wait are answered as one batch
        joined = list(pool.map(lambda data: server.post("call/predict", json={"data": data}), bodies))
    assert [answer.status_code for answer in joined] == [200, 200, 400, 400, 400, 200]
    events = [server.get(f"call/predict/{joined[place].json()['event_id']}").text for place in (0, 1, 5)]
    assert "Upload an image." in events[1]
    for event in (events[0], events[2]):
        assert '"model": "wild"' in event  # the default


@pytest.mark.parametrize("data", ["1e400", "[1e400]", "[null, null, null, NaN]", "[null, null, null, Infinity]"])
def test_numbers_that_are_not_finite_get_a_sentence(server, data):
    answer = server.post("call/explain", content=f'{{"data": {data}}}', headers={"content-type": "application/json"})
    assert answer.status_code == 400
    assert answer.json()["detail"].startswith("Expected JSON with finite numbers")


@pytest.mark.parametrize("path", ["monitoring", "monitoring/summary", "gradio_api/file=http://127.0.0.1:1/a.png"])
def test_nothing_but_the_page_is_served(server, path):
    assert httpx.get(f"{server.url}/{path}").status_code == 404


@pytest.mark.parametrize("path", ["/etc/passwd", str(SPACE / "app.py"), str(SPACE / "models/cifake-cnn/config.json")])
def test_no_file_of_the_server_is_served(server, path):
    assert server.get(f"file={path}").status_code in (403, 404)


def test_a_file_above_the_limit_is_refused_before_it_is_stored(server):
    heavy = {"files": ("heavy.png", b"\0" * (33 * 2**20))}
    assert server.post("upload", files=heavy).status_code == 413
    assert not [file for file in server.temporary.rglob("*") if file.is_file() and file.stat().st_size > 2**25]


READ_ONLY = """#!/bin/sh
exec unshare --mount sh -c 'mount --bind {0} {0} && mount -o remount,ro,bind {0} && cd {0}/space &&
  ! touch x 2> /dev/null && exec {1} "$@"' sh "$@"
"""


def test_a_page_in_a_read_only_folder_starts_and_ends_at_once_while_a_file_is_decoded(tmp_path):
    python = tmp_path / "python"
    python.write_text(READ_ONLY.format(ROOT, sys.executable))
    python.chmod(0o755)
    try:
        running = Server(tmp_path / "server", python=str(python))
    except RuntimeError as error:
        if "unshare" in str(error) or "mount" in str(error):
            pytest.skip("no mounts here")
        raise
    [path] = running.post("upload", files={"files": ("a.jpg", jpeg_with_scans(100_000))}).json()
    partial = b'--b\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\npart'
    with socket.create_connection(("127.0.0.1", int(running.url.rpartition(":")[2]))) as aborted:
        head = "POST /gradio_api/upload HTTP/1.1\r\nHost: a\r\nContent-Type: multipart/form-data; boundary=b\r\n"
        aborted.sendall(f"{head}Content-Length: 99999\r\n\r\n".encode() + partial)
        running.post("call/predict", json={"data": [{"path": path}]})
        time.sleep(2)  # it is decoded
        assert list(running.temporary.glob("realfake-space-*/tmp*"))  # where old files are deleted, finished or not
    processes = psutil.Process(running.process.pid).children(recursive=True)
    assert len(processes) >= 2
    began = time.monotonic()
    running.stop()
    _, alive = psutil.wait_procs(processes, timeout=max(0, 5 - (time.monotonic() - began)))
    assert time.monotonic() - began < 5
    assert alive == []
    assert "Traceback" not in running.log.read_text()
    assert list(running.temporary.glob("realfake-*")) == []


@pytest.mark.slow
def test_a_missing_model_is_reported_and_no_page_opens(tmp_path):
    words = [sys.executable, str(SPACE / "app.py"), "--model", str(tmp_path / "missing")]
    ended = subprocess.run(words, capture_output=True, text=True, check=False, timeout=120)
    assert ended.returncode == 1
    assert ended.stderr.startswith("app.py: ")
    assert "Traceback" not in ended.stderr


@pytest.fixture
def opened(server, browser):
    """Open the page with a size and a color scheme, and record its requests and errors."""
    contexts = []

    def open_page(*, width=1280, height=1000, dark=False):
        context = browser.new_context(
            viewport={"width": width, "height": height}, color_scheme="dark" if dark else "light"
        )
        contexts.append(context)
        page = context.new_page()
        page.requested, page.errors = [], []
        page.on("request", lambda request: page.requested.append(request.url))
        page.on("console", lambda message: page.errors.append(message.text) if message.type == "error" else None)
        page.goto(server.url)
        page.wait_for_selector("#picture input[type=file]", state="attached")
        page.wait_for_function("document.querySelector('#method-cifake-vit input')?.value === 'relevance'")
        return page

    yield open_page
    for context in contexts:
        context.close()


def upload(page, file):
    page.wait_for_timeout(500)  # the page renders its components again
    page.set_input_files("#picture input[type=file]", str(file))


def shot(page, name):
    SHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SHOTS / f"{name}.png", full_page=True)


def map_of(page, name):
    page.wait_for_selector(f"#map-{name} img", state="attached")
    page.locator(f"#map-{name} img").scroll_into_view_if_needed()
    page.wait_for_function(f"document.querySelector('#map-{name} img').naturalWidth > 0")
    return page.get_attribute(f"#map-{name} img", "src")


@needs_browser
@pytest.mark.slow
def test_a_person_uploads_compares_and_makes_mistakes(opened, tmp_path):
    page = opened()
    upload(page, EXAMPLE)
    page.wait_for_selector("#verdict-cifake-cnn .rf-verdict")
    page.wait_for_selector("#verdict-cifake-vit .rf-verdict")
    assert "Unsure, possibly AI-generated" in page.inner_text("#verdict-cifake-vit")
    before = map_of(page, "cifake-vit")
    assert page.evaluate("document.querySelector('#map-cifake-vit img').naturalWidth") == 640
    shot(page, "uploaded")
    page.click("#method-cifake-vit input")
    page.click("ul[role=listbox] >> text='rollout'")
    page.wait_for_function(f"document.querySelector('#map-cifake-vit img')?.src !== {json.dumps(before)}")
    page.click("#models >> text=cifake-cnn")
    page.wait_for_selector("#verdict-cifake-cnn", state="hidden")
    assert page.is_visible("#verdict-cifake-vit")
    shot(page, "one-model")
    page.click("#models >> text=cifake-cnn")
    page.click(f"text={read_examples()[0].title}")
    page.wait_for_function("document.querySelector('#verdict-cifake-vit').innerText.includes('Likely real')")
    (tmp_path / "broken.png").write_bytes(b"text")
    page.click("#picture button[aria-label='Remove Image']")
    page.wait_for_function("document.querySelector('#summary').innerText.includes('Upload an image')")
    upload(page, tmp_path / "broken.png")
    page.wait_for_function("document.querySelector('#summary').innerText.includes('not an image file')")
    assert page.locator(".rf-card").count() == 0
    shot(page, "broken")
    assert not [url for url in page.requested if not re.match(r"(http://127\.0\.0\.1|data:|blob:)", url)]


@needs_browser
@pytest.mark.slow
def test_several_images_and_the_other_tabs(server, opened):
    page = opened()
    page.click("button[role=tab]:has-text('Several images')")
    page.wait_for_timeout(500)
    page.set_input_files("#pictures input[type=file]", [str(EXAMPLE), str(SPACE / "examples/china-small.jpg")])
    page.wait_for_selector("#pictures >> text=china-small")
    page.click("#judge")
    page.wait_for_function("document.querySelectorAll('.rf-picture img').length === 2")
    with page.expect_download() as download:
        page.click("#csv")
    assert "rocket.jpg,cifake-cnn" in Path(download.value.path()).read_text()
    shot(page, "several")
    for tab, words in (
        ("What was measured", "DiffusionDB"),
        ("How it works", "Attention rollout"),
        ("API", "gradio_client"),
    ):
        page.click(f"button[role=tab]:has-text('{tab}')")
        page.wait_for_selector(f"text={words} >> visible=true")
        assert tab != "API" or page.inner_text("body").count(server.url) == 5  # the address of this page
        shot(page, tab.lower().replace(" ", "-"))


@needs_browser
@pytest.mark.slow
def test_tables_of_the_evaluation_do_not_wrap_and_scroll_on_narrow_screens(opened):
    page = opened()
    page.click("button[role=tab]:has-text('What was measured')")
    page.click("#tables button")
    page.wait_for_selector("text=diffusiondb-coco-imagenet >> visible=true")
    high = "[...document.querySelectorAll('.rf-prose tbody tr')].filter(row => row.offsetHeight > 40).length"
    assert page.evaluate(high) == 0
    page.set_viewport_size({"width": 360, "height": 800})
    page.wait_for_timeout(500)
    shot(page, "measured-360")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert page.evaluate("[...document.querySelectorAll('.rf-prose')].some(box => box.scrollWidth > box.clientWidth)")


@needs_browser
@pytest.mark.slow
@pytest.mark.parametrize(("width", "dark"), [(360, False), (360, True), (1280, True)])
def test_the_page_is_readable_on_narrow_screens_and_in_dark_mode(opened, width, dark):
    page = opened(width=width, dark=dark)
    upload(page, EXAMPLE)
    page.wait_for_selector("#verdict-cifake-vit .rf-verdict")
    map_of(page, "cifake-vit")
    shot(page, f"{width}-{'dark' if dark else 'light'}")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    ground, ink = page.evaluate("""(() => { const card = document.querySelector('#verdict-cifake-vit .rf-card')
        const style = getComputedStyle(card); return [style.backgroundColor, style.color] })()""")
    light = [sum(map(int, re.findall(r"\d+", color)[:3])) for color in (ground, ink)]
    assert (light[0] < 200 and light[1] > 600) if dark else (light[0] > 600 and light[1] < 300)


@needs_browser
@pytest.mark.slow
def test_components_have_names_for_screen_readers(opened):
    page = opened()
    upload(page, EXAMPLE)
    map_of(page, "cifake-vit")
    nameless = page.evaluate("""[...document.querySelectorAll('input, select, textarea, button')]
        .filter((element) => element.offsetParent && element.type !== 'file')
        .filter((element) => !(element.labels?.length || element.ariaLabel || element.getAttribute('aria-labelledby')
            || element.title
            || element.innerText?.trim() || element.querySelector('img[alt]:not([alt=""])')))
        .map((element) => element.outerHTML.slice(0, 120))""")
    assert nameless == []
    assert page.get_attribute("#verdict-cifake-vit .rf-card", "role") == "status"
    assert "looked" in page.get_attribute("#map-cifake-vit img", "alt")
    page.focus("#models input")
    page.keyboard.press("Space")
    page.wait_for_selector("#verdict-wild", state="hidden")
