"""Requests as Gradio receives them: every function of the page with every form of a file that was not uploaded."""

import asyncio
import base64
import json
import os

import gradio as gr
import pytest
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from realfake_space.gate import MAX_BODY, NOT_UPLOADED, Gate, RefusedError, uploaded_file
from realfake_space.models import find_models
from realfake_space.page import build

META = {"meta": {"_type": "gradio.FileData"}}
ABSENT = "/etc/no-such-file"
OUTSIDE = ["/etc/passwd", ABSENT, "/etc", "/dev/zero", "file:///etc/passwd", "http://127.0.0.1:1/a.png", "photo.png",
           ".", "", "a\0", "x" * 9000]  # fmt: skip
INSIDE = ["hash", "hash/fifo", "hash/out", "hash/in", "etc/passwd", "none.png", "../../../../../etc/passwd", "."]


@pytest.fixture(scope="module")
def uploads(tmp_path_factory):
    """An upload folder with an image, a FIFO, and links to the image and out of the folder."""
    folder = tmp_path_factory.mktemp("uploads")
    (folder / "hash").mkdir()
    (folder / "hash/photo.png").write_bytes(b"image")
    os.mkfifo(folder / "hash/fifo")
    (folder / "hash/out").symlink_to("/etc/passwd")
    (folder / "hash/in").symlink_to(folder / "hash/photo.png")
    (folder / "etc").symlink_to("/etc")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(folder))
        yield folder


@pytest.fixture(scope="module")
def page(uploads):  # noqa: ARG001 - where the page stores its examples
    async def built():
        return build(find_models([]))

    return asyncio.run(built())  # Gradio would leave an event loop open


@pytest.fixture(scope="module")
def client(page):
    """A client of the gate; the app behind it returns the path and the JSON that it received."""

    async def echo(request):
        return JSONResponse({"path": request.url.path, "json": json.loads(await request.body() or b"null")})

    behind = Starlette(routes=[Route("/{path:path}", echo, methods=["GET", "POST"])])
    with TestClient(Gate(behind, page)) as client:
        yield client


def forged(uploads):
    """Return files that were not uploaded, in every form in which Gradio takes a file."""
    paths = [*OUTSIDE, *(f"{uploads}/{name}" for name in INSIDE), f"{uploads}-other/photo.png"]
    forms = [
        {**form, **meta}
        for path in ("/etc/passwd", ABSENT, f"{uploads}/hash/out")
        for form in ({"path": path}, {"url": path}, {"path": path, "url": path, "is_stream": True})
        for meta in ({}, META)
    ]
    forms += [{"path": path, **META} for path in paths]
    odd = [
        3,
        True,
        {},
        {"path": ["/etc/passwd"]},
        {"path": {"path": "/etc/passwd"}},
        {"value": {"path": "/etc/passwd"}},
    ]
    return [*forms, *odd, *[[form] for form in forms[:5]], *[[[form]] for form in forms[:5]]]


def functions(page):
    return [function for function in page.fns.values() if function.fn and function.inputs]


def join(client, function, *data, **more):
    return client.post("/gradio_api/queue/join", json={"data": data, "fn_index": function._id, **more})


def test_only_regular_files_in_the_upload_folder_are_uploads(uploads):
    image = str(uploads / "hash/photo.png")
    assert uploaded_file(image) == image
    assert uploaded_file(str(uploads / "none/../hash/photo.png")) == image
    for path in [*OUTSIDE, *(f"{uploads}/{name}" for name in INSIDE)]:
        with pytest.raises(RefusedError) as refused:
            uploaded_file(path)
        assert str(refused.value) == NOT_UPLOADED  # whether it exists or not


def test_no_path_outside_the_upload_folder_is_even_looked_at(uploads):
    looked, lstat = [], os.lstat
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "lstat", lambda path, **more: looked.append(str(path)) or lstat(path, **more))
        for path in OUTSIDE:
            with pytest.raises(RefusedError):
                uploaded_file(path)
        uploaded_file(str(uploads / "hash/photo.png"))
    assert str(uploads / "hash/photo.png") in looked
    assert {path for path in looked if not str(uploads / "hash/photo.png").startswith(path)} == set()


@pytest.mark.slow
def test_no_function_takes_a_file_that_was_not_uploaded(uploads, page, client):
    assert {block.__class__.__name__ for function in functions(page) for block in function.inputs} == {
        "ImageUpload", "FilesUpload", "Textbox", "Number", "Slider", "Dropdown", "CheckboxGroup",
    }  # fmt: skip
    files = forged(uploads)
    for function in functions(page):
        for position, block in enumerate(function.inputs):
            takes_files = isinstance(block, gr.Image | gr.File)
            for value in files if takes_files else files[:5]:
                refused = join(client, function, *[None] * position, value)
                assert refused.status_code == 400, (function.api_name, block, value)
                assert not takes_files or refused.json()["detail"] == NOT_UPLOADED


@pytest.mark.parametrize("route", ["call/{}", "call/{}/", "run/{}", "run/{}/", "api/{}", "run/predict", "queue/join"])
def test_every_route_to_a_function_is_checked(uploads, page, client, route):
    for function in functions(page):
        takes_files = isinstance(function.inputs[0], gr.Image | gr.File)
        for path, is_upload in (("/etc/passwd", False), (str(uploads / "hash/photo.png"), True)):
            body = {"data": [{"path": path}], "fn_index": function._id}
            answer = client.post(f"/gradio_api/{route.format(function.api_name)}", json=body)
            assert answer.status_code == (200 if takes_files and is_upload else 400), function.api_name
            assert answer.status_code == 400 or answer.json()["json"]["fn_index"] == function._id


def test_values_by_name_are_checked(uploads, client):
    image = str(uploads / "hash/photo.png")
    for name, parameter in (("predict", "picture"), ("explain", "picture"), ("predict_many", "pictures")):
        for path, status in (("/etc/passwd", 400), (image, 200)):
            assert client.post(f"/gradio_api/call/v2/{name}", json={parameter: {"path": path}}).status_code == status
        assert client.post(f"/gradio_api/call/v2/{name}", json={"other": {"path": image}}).status_code == 400


def test_fields_of_gradio_that_a_client_could_misuse_are_dropped(uploads, page, client):
    [predict] = [function for function in functions(page) if function.api_name == "predict"]
    [explain] = [function for function in functions(page) if function.api_name == "explain"]
    image = {"path": str(uploads / "hash/photo.png"), "url": "http://127.0.0.1/a.png", "is_stream": True, "size": "x"}
    received = join(client, predict, image, batched=True, event_data={"a": 1}, event_id="b", session_hash="c").json()
    assert received["json"] == {
        "data": [{"path": image["path"], **META}, "wild"], "fn_index": predict._id, "session_hash": "c",
        "trigger_id": None,
    }  # fmt: skip
    body = {"data": [image], "fn_index": explain._id}  # Gradio calls by index where it has one, and by name else
    assert client.post("/gradio_api/run/predict", json=body).json()["json"]["fn_index"] == explain._id
    assert client.post("/gradio_api/call/predict", json=body).json()["json"]["fn_index"] == predict._id


def test_missing_values_and_null_are_the_defaults(uploads, client):
    image = {"path": str(uploads / "hash/photo.png"), **META}
    for data in ([image], [image, None], [image, None, None], [image, "wild", "", 0.6]):
        received = client.post("/gradio_api/call/explain", json={"data": data}).json()["json"]
        assert received["data"] == [image, "wild", "", 0.6]
    received = client.post("/gradio_api/call/v2/explain", json={"strength": 0.5, "picture": image}).json()
    assert (received["path"], received["json"]["data"]) == ("/gradio_api/call/explain", [image, "wild", "", 0.5])


@pytest.mark.parametrize(
    "body",
    ['{"data": 1e400}', '{"data": [1e400]}', '{"data": [NaN]}', '{"data": [-Infinity]}', '{"data": [null, "\\ud800"]}',
     "[" * 5000, "[]", "", "\0", "{}", '{"data": {}}', '{"data": [1, 2, 3, 4, 5]}', '{"data": [], "session_hash": 1}',
     '{"data": [null, null, null, 1.5]}', '{"data": [null, null, null, "a"]}', '{"data": [null, ["a"]]}',
     '{"data": [null, null, 1]}', f'{{"data": [null, null, null, 1{"0" * 5000}]}}'],
)  # fmt: skip
def test_requests_that_are_not_well_formed_get_a_sentence(client, body):
    for route in ("call/explain", "run/explain"):
        answer = client.post(f"/gradio_api/{route}", content=body, headers={"content-type": "application/json"})
        assert answer.status_code == 400
        assert answer.json()["detail"].startswith("Expected ")
    for route in ("cancel", "reset"):
        assert client.post(f"/gradio_api/{route}", content=body).status_code in (200, 400)


def test_the_address_of_an_upload_is_the_upload_and_no_other_address_is_one(uploads, client):
    image = str(uploads / "hash/photo.png")
    for host in ("http://127.0.0.1:7860", "https://elsewhere.example"):  # which is never asked
        data = [{"path": f"{host}/gradio_api/file={image}"}]
        answer = client.post("/gradio_api/call/predict", json={"data": data}).json()
        assert answer["json"]["data"][0] == {"path": image, **META}
    for path in ("/etc/passwd", f"{uploads}/hash/out", "", "http://127.0.0.1/a.png", "..%2f..%2fetc%2fpasswd"):
        data = [{"path": f"http://127.0.0.1:7860/gradio_api/file={path}"}]
        assert client.post("/gradio_api/call/predict", json={"data": data}).status_code == 400


def test_the_route_of_mcp_clients_is_open_only_where_there_is_a_server_of_theirs(page, client, monkeypatch):
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
    for is_open in (False, True):
        monkeypatch.setattr(page, "mcp_server", is_open)
        for path in ("mcp", "mcp/"):
            assert client.post(f"/gradio_api/{path}", json=body).status_code == (200 if is_open else 404)
            assert client.get(f"/gradio_api/{path}").status_code == 404
        for path in ("mcp/sse", "mcp/messages", "mcp/http", "mcp/x"):
            assert client.post(f"/gradio_api/{path}", json=body).status_code == 404


def test_a_tool_takes_text_numbers_and_lists_of_them_and_nothing_in_which_a_path_could_hide(page, client, monkeypatch):
    monkeypatch.setattr(page, "mcp_server", True)

    def call(arguments):
        parameters = {"name": "predict", "arguments": arguments}
        body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": parameters}
        return client.post("/gradio_api/mcp", json=body).status_code

    assert call({"picture": "data:image/png;base64,AA==", "strength": 0.5, "method": None}) == 200
    assert call({"pictures": ["data:image/png;base64,AA=="]}) == 200
    for value in ({"path": "/etc/passwd", **META}, [{"path": "/etc/passwd"}], [["/etc/passwd"]]):
        assert call({"picture": value}) == 400
    assert call(["data:,"]) == call("data:,") == 400


def test_the_health_is_answered_here_and_not_by_the_page(client):
    answer = client.get("/health")
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})
    assert client.post("/health", json={}).status_code == 404
    assert client.get("/health/x").status_code == 404


def test_data_urls_are_stored_as_uploads_and_are_bounded(uploads, client):
    def predict(url):
        return client.post("/gradio_api/call/predict", json={"data": [{"url": url}]})

    [stored, _] = predict(f"data:image/png;base64,{base64.b64encode(b'pixels').decode()}").json()["json"]["data"]
    assert uploads.joinpath(stored["path"]).read_bytes() == b"pixels"
    assert uploaded_file(stored["path"])
    for url in ("data:image/png;base64,", "data:image/png;base64,&&", "data:text/plain,a", "data:,"):
        assert "data URL" in predict(url).json()["detail"]
    assert "MiB" in predict("data:image/png;base64," + "A" * MAX_BODY).json()["detail"]


def test_only_routes_of_the_page_are_open(uploads, client):
    image = uploads / "hash/photo.png"
    for path in ("/", "/config", "/gradio_api/info", f"/gradio_api/file={image}", "/assets/a.js"):
        assert client.get(path).status_code == 200
    for path in (
        "/monitoring", "/monitoring/summary", "/monitoring/key", "/gradio_api/deep_link", "/gradio_api/proxy=http://a/b",
        "/gradio_api/file=http://127.0.0.1/a", "/gradio_api/file=/etc/passwd", f"/gradio_api/file={ABSENT}",
        f"/gradio_api/file={uploads}/hash/out", f"/gradio_api/file={uploads}/hash/fifo", "/gradio_api/runs", "/docs",
        "/gradio_api/vibe-code", "/gradio_api/custom_component/a/client/b/c", "/gradio_api/file/etc/passwd",
    ):  # fmt: skip
        assert client.get(path).status_code == 404, path
    for path in ("process_recording", "component_server", "vibe-edit", "stream/a", "call/none", "call/v2/check2"):
        assert client.post(f"/gradio_api/{path}", json={"data": []}).status_code == 404, path
    absent, present = (client.get(f"/gradio_api/file={path}").text for path in (ABSENT, "/etc/passwd"))
    assert absent == present
