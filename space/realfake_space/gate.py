"""Check every request before Gradio reads it: its route, its size, its JSON, and the files that it names.

Gradio takes what a client sends as it is: it reads a path without `meta` from anywhere, it downloads addresses, and a
missing value spoils the other requests of a batch. Here a request becomes well-formed, or is answered with a sentence.
"""

import base64
import binascii
import os
import re
import stat
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from functools import cached_property, partial
from typing import Any, Final
from urllib.parse import unquote

import anyio.to_thread
import gradio as gr
import orjson
from gradio.block_function import BlockFunction
from gradio.processing_utils import save_bytes_to_cache
from gradio.utils import get_upload_folder
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse

from realfake_space.uploads import MAX_BYTES

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

MAX_BODY: Final = MAX_BYTES * 4 // 3 + 2**16  # an image of the largest size as a data URL
NOT_UPLOADED: Final = "Expected an uploaded file; found none there. Upload the file; it is kept for ten minutes."
READ: Final = re.compile(
    r"/|/(config/?|theme\.css|favicon\.ico|robots\.txt|manifest\.json|pwa_icon(/\w+)?|(static|assets|svelte)/.+)|"
    r"/gradio_api/(info/?|mcp/schema|openapi\.json|startup-events|app_id/?|login_check/?|theme\.css|upload_progress|"
    r"queue/(data|status)|heartbeat/[^/]+|call/.+)"
)
CALL: Final = re.compile(r"/gradio_api/(call/v2|call|run|api)/([^/]+)/?|/gradio_api/queue/join")
FILE: Final = "/gradio_api/file="
MCP: Final = re.compile(r"/gradio_api/mcp/?")
HEALTH: Final = "/health"


class RefusedError(ValueError):
    """A request that is not answered; the message is its answer."""


def uploaded_file(path: str) -> str:
    """Return the path of an uploaded file: a regular file in the upload folder, and no link.

    Nothing outside the folder is touched, and all other paths have the same error: it tells nothing about the server.

    Raises:
        RefusedError: there is no such upload.
    """
    folder = os.path.realpath(get_upload_folder())
    inside = os.path.normpath(path)
    try:
        is_file = (
            inside.startswith(folder + os.sep)
            and os.path.realpath(inside, strict=True) == inside
            and stat.S_ISREG(os.lstat(inside).st_mode)
        )
    except (OSError, ValueError):  # ValueError: it contains a null character
        is_file = False
    if not is_file:
        raise RefusedError(NOT_UPLOADED)
    return inside


class Gate:
    """ASGI middleware in front of Gradio: only the routes of the page, and only well-formed requests.

    Args:
        app: the app behind it.
        page: whose functions are called.
    """

    def __init__(self, app: App, page: gr.Blocks) -> None:
        self._app = app
        self._page = page

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        if path == HEALTH and scope["method"] in ("GET", "HEAD"):
            await JSONResponse({"status": "ok"})(scope, receive, send)
            return
        try:
            if scope["method"] in ("GET", "HEAD"):
                await anyio.to_thread.run_sync(_check_route, path)
            elif path != "/gradio_api/upload":
                call = partial(self._checked, path, await _body(receive))
                path, body = await anyio.to_thread.run_sync(call)
                scope, receive = _with_body(scope, path, body), _replay(body, receive)
        except LookupError:
            await JSONResponse({"detail": "Not Found"}, 404)(scope, receive, send)
        except RefusedError as error:
            answer = {"detail": str(error), "error": str(error)}
            await JSONResponse(answer, 404 if path.startswith(FILE) else 400)(scope, receive, send)
        else:
            with suppress(ClientDisconnect):  # Gradio logs an upload that its client aborts as an error of the page
                await self._app(scope, receive, send)

    def _checked(self, path: str, body: bytes) -> tuple[str, bytes]:
        """Return the path and the body to pass on."""
        call = CALL.fullmatch(path)
        is_mcp = self._page.mcp_server and MCP.fullmatch(path)
        if not call and not is_mcp and path.rstrip("/") not in ("/gradio_api/cancel", "/gradio_api/reset"):
            raise LookupError(path)
        try:
            request = orjson.loads(body)  # which rejects NaN, infinite numbers and lone surrogates
        except orjson.JSONDecodeError as error:
            raise RefusedError(f"Expected JSON with finite numbers; found an error in it: {error}.") from error
        if not isinstance(request, dict):
            raise RefusedError("Expected a JSON object.")
        if is_mcp:
            _check_tool_call(request)
        if not call:
            return path, orjson.dumps(request)
        route, name = call.groups()
        by_index = name is None or (route in ("run", "api") and request.get("fn_index") is not None)
        function = self._function(request.get("fn_index") if by_index else name)
        data: Any = request.get("data")
        if route == "call/v2":
            path, data = f"/gradio_api/call/{name}", self._positional(name, request)
        checked = {
            "data": _checked_values(function, data),
            "session_hash": _typed(request, "session_hash", str),
            "trigger_id": _typed(request, "trigger_id", int),
            "fn_index": function._id,
        }
        return path, orjson.dumps(checked)

    def _function(self, wanted: Any) -> BlockFunction:  # noqa: ANN401 - JSON
        """Return the function with this index or name."""
        for index, function in self._page.fns.items():
            if function.fn and wanted == (function.api_name if isinstance(wanted, str) else index):
                return function
        raise LookupError(wanted)

    def _positional(self, name: str, request: dict[str, Any]) -> list[Any]:
        names = self._parameters.get(f"/{name}")
        if names is None:
            raise LookupError(name)
        unknown = sorted(set(request) - set(names) - {"session_hash"})
        if unknown:
            raise RefusedError(f"Expected values for {', '.join(names)}; found one for {', '.join(unknown)}.")
        return [request.get(parameter) for parameter in names]

    @cached_property
    def _parameters(self) -> dict[str, list[str]]:
        """The names of the parameters of each named endpoint."""
        endpoints = self._page.get_api_info()["named_endpoints"]
        return {name: [each["parameter_name"] for each in about["parameters"]] for name, about in endpoints.items()}


def _check_route(path: str) -> None:
    if path.startswith(FILE):
        uploaded_file(path.removeprefix(FILE))
    elif not READ.fullmatch(path):
        raise LookupError(path)


def _check_tool_call(request: dict[str, Any]) -> None:
    """Check a request of an MCP client, whose values Gradio sends on to a function of the page, through this gate.

    Text for a file is a data URL or the address of an upload, whatever the host: no address is opened. Gradio takes
    more: values in which it looks for files on this machine.
    """
    parameters = request.get("params")
    arguments = parameters.get("arguments") if isinstance(parameters, dict) else None
    if request.get("method") != "tools/call" or arguments is None:
        return
    if not isinstance(arguments, dict):
        raise RefusedError("Expected the arguments of a tool by name.")
    items = [item for value in arguments.values() for item in (value if isinstance(value, list) else [value])]
    if not all(item is None or isinstance(item, str | int | float) for item in items):
        raise RefusedError("Expected text, numbers, or lists of them as the arguments of a tool.")


def _checked_values(function: BlockFunction, data: Any) -> list[Any]:  # noqa: ANN401 - JSON
    """Return one value for each input of a function; a missing one or null is the default."""
    if not isinstance(data, list) or len(data) > len(function.inputs):
        raise RefusedError(f"Expected data to be a list of at most {len(function.inputs)} values.")
    values = [*data, *[None] * (len(function.inputs) - len(data))]
    return [_checked_value(block, value) for block, value in zip(function.inputs, values, strict=True)]


def _checked_value(block: Any, value: Any) -> Any:  # noqa: ANN401 - a component, JSON
    if value is None:
        return block.value
    if isinstance(block, gr.Image):
        return _checked_file(value)
    if isinstance(block, gr.File):
        return [_checked_file(each) for each in (value if isinstance(value, list) else [value])]
    if isinstance(block, gr.Slider | gr.Number):
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not block.minimum <= value <= block.maximum:
            raise RefusedError(f"Expected a number from {block.minimum} to {block.maximum} for {block.label}.")
        return value
    texts = value if isinstance(block, gr.CheckboxGroup) and isinstance(value, list) else [value]
    if not all(isinstance(text, str) for text in texts):
        raise RefusedError(f"Expected text for {block.label}.")
    return value


def _checked_file(value: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
    """Return a file of a client as Gradio's own reference to an upload; a data URL is stored as one."""
    fields = value if isinstance(value, dict) else {"url": value}  # an MCP client sends lists of addresses
    path, url = fields.get("path"), fields.get("url")
    if isinstance(url, str) and not path:
        path = _store(url) if url.startswith("data:") else url
    if not isinstance(path, str):
        raise RefusedError(NOT_UPLOADED)
    if path.startswith(("http://", "https://")):  # the address of an upload, as MCP clients name it
        path = unquote(path.partition(FILE)[2])
    return {"path": uploaded_file(path), "meta": {"_type": "gradio.FileData"}}


def _store(url: str) -> str:
    head, _, data = url.partition(",")
    try:
        content = base64.b64decode(data, validate=True) if head.endswith(";base64") else b""
    except (binascii.Error, ValueError):
        content = b""
    if not 0 < len(content) <= MAX_BYTES:
        raise RefusedError(f"Expected a data URL in base64 of at most {MAX_BYTES // 2**20} MiB.")
    stored: str = os.path.realpath(save_bytes_to_cache(content, "image.bin", get_upload_folder()))
    return stored


def _typed(request: dict[str, Any], name: str, kind: type) -> Any:  # noqa: ANN401 - of that type
    value = request.get(name)
    if value is not None and not isinstance(value, kind):
        raise RefusedError(f"Expected {name} to be of type {kind.__name__}.")
    return value


async def _body(receive: Receive) -> bytes:
    """Read the body of a request, up to the limit."""
    body = bytearray()
    while True:
        message = await receive()
        body += message.get("body", b"")
        if len(body) > MAX_BODY:
            raise RefusedError(f"Expected at most {MAX_BODY // 2**20} MiB of JSON. Use /gradio_api/upload for files.")
        if not message.get("more_body"):
            return bytes(body)


def _with_body(scope: Message, path: str, body: bytes) -> Message:
    replaced = (b"content-type", b"content-length", b"transfer-encoding")
    headers = [(name, value) for name, value in scope["headers"] if name not in replaced]
    headers += [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    return {**scope, "path": scope.get("root_path", "") + path, "headers": headers}


def _replay(body: bytes, receive: Receive) -> Receive:
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return messages.pop() if messages else await receive()

    return replay
