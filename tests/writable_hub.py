"""A local Hub that accepts and serves repositories over HTTP, with the API of huggingface_hub 2.4.

Files are transferred as with Git LFS (`HF_HUB_DISABLE_XET=1`). It can simulate a busy Hub and broken downloads.
"""

import base64
import hashlib
import json
import socket
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import PurePosixPath

import uvicorn
import yaml
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

CLIENT = "2.4"  # of huggingface_hub
TOKEN = "hf_stand_in"
KINDS = {"models": "model", "datasets": "dataset", "spaces": "space"}
REGULAR = (".json", ".md", ".py", ".txt", ".css", ".yaml")  # the others are large files


@dataclass
class Repository:
    """A repository: commits (path -> bytes by hash), branches and tags (hash by name)."""

    kind: str
    private: bool
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)

    def files(self, revision):
        return self.commits.get(self.names.get(revision, revision))

    def commit(self, branch, files):
        oid = hashlib.sha1(json.dumps([len(self.commits), sorted(files)]).encode(), usedforsecurity=False).hexdigest()
        self.commits[oid], self.names[branch] = files, oid
        return oid


class Hub:
    """The repositories, the requests received, and the failures to simulate.

    Attributes:
        troubles: part of a path -> statuses of the next requests to it.
        requests: method and path of every request.
        sent: digest -> bytes received of a large file.
        cuts: path -> number of downloads of that file that break off in the middle.
        resumed: path and first byte of every resumed download.
    """

    def __init__(self):
        self.repositories, self.objects = {}, {}
        self.troubles, self.requests, self.sent, self.tokens = {}, [], {}, []
        self.cuts, self.resumed = {}, []

    def reset(self):
        self.__init__()


class Routes:
    """The routes; each takes a Starlette request."""

    def __init__(self, hub):
        self.hub = hub

    async def guarded(self, request, call_next):
        hub, path = self.hub, request.url.path
        hub.requests.append((request.method, path))
        hub.tokens.append(request.headers.get("authorization"))
        for part, statuses in hub.troubles.items():
            if part in path and statuses:
                return JSONResponse({"error": "trouble"}, statuses.pop(0))
        is_writing = request.method not in {"GET", "HEAD"} and not path.startswith("/objects")
        if is_writing and request.headers.get("authorization") != f"Bearer {TOKEN}":
            return JSONResponse({"error": "Invalid credentials"}, 401)
        return await call_next(request)

    async def create(self, request):
        body = await request.json()
        kind = body.get("type", "model")
        repo_id = f"{body.get('organization') or 'user'}/{body['name']}"
        answer = {"url": f"{request.base_url}{repo_id}", "name": repo_id}
        if (kind, repo_id) in self.hub.repositories:
            return JSONResponse(answer, 409)
        repository = Repository(kind, bool(body.get("private") or body.get("visibility") == "private"))
        repository.commit("main", {})
        self.hub.repositories[kind, repo_id] = repository
        return JSONResponse(answer)

    async def validate(self, request):
        """Check that the front matter of a README is YAML, and that its model index has results."""
        text = (await request.json())["content"]
        try:
            facts = yaml.safe_load(text.split("---\n")[1])
            results = [result for model in facts.get("model-index", []) for result in model["results"]]
            errors = [] if all(result["task"]["type"] and result["metrics"] for result in results) else ["no metrics"]
        except (IndexError, KeyError, TypeError, yaml.YAMLError) as error:
            errors = [repr(error)]
        answer = {"errors": [{"message": error} for error in errors], "warnings": []}
        return JSONResponse(answer, 400 if errors else 200)

    async def preupload(self, request):
        files = self._repository(request).files(request.path_params["revision"]) or {}
        answers = []
        for file in (await request.json())["files"]:
            before = files.get(file["path"])
            oid = None if before is None else etag(file["path"], before)
            mode = "regular" if file["path"].endswith(REGULAR) else "lfs"
            answers.append({"path": file["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        return JSONResponse({"files": answers})

    async def batch(self, request):
        objects = []
        for item in (await request.json())["objects"]:
            upload = {"upload": {"href": f"{request.base_url}objects/{item['oid']}", "header": {}}}
            objects.append({**item, **({} if item["oid"] in self.hub.objects else {"actions": upload})})
        return JSONResponse({"transfer": "basic", "objects": objects})

    async def put(self, request):
        data, oid = await request.body(), request.path_params["oid"]
        if hashlib.sha256(data).hexdigest() != oid:
            return Response(status_code=400)
        self.hub.objects[oid] = data
        self.hub.sent[oid] = self.hub.sent.get(oid, 0) + len(data)
        return Response()

    async def commit(self, request):
        repository, branch = self._repository(request), request.path_params["revision"]
        files = dict(repository.files(branch) or {})
        for line in (await request.body()).decode().splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                files[value["path"]] = self.hub.objects[value["oid"]]
        oid = repository.commit(branch, files)
        kinds = request.path_params["kinds"].replace("models", "")
        place = "/".join(filter(None, (kinds, request.path_params["user"], request.path_params["name"])))
        url = f"{request.base_url}{place}/commit/{oid}"
        return JSONResponse({"success": True, "commitOid": oid, "commitUrl": url})

    async def branch(self, request):
        repository, new = self._repository(request), request.path_params["revision"]
        start = (await request.json()).get("startingPoint") or "main"
        return self._named(repository, new, start)

    async def tag(self, request):
        new = (await request.json())["tag"]
        return self._named(self._repository(request), new, request.path_params["revision"])

    def _named(self, repository, new, old):
        if new in repository.names:
            return JSONResponse({}, 409)
        repository.names[new] = repository.names.get(old, old)
        return JSONResponse({})

    async def info(self, request):
        repository, revision = self._repository(request), request.path_params.get("revision", "main")
        if repository.files(revision) is None:
            raise MissingError("RevisionNotFound")
        siblings = [{"rfilename": path} for path in repository.files(revision)]
        repo_id = "{user}/{name}".format(**request.path_params)
        sha = repository.names.get(revision, revision)
        return JSONResponse(
            {"id": repo_id, "sha": sha, "private": repository.private, "tags": [], "siblings": siblings}
        )

    async def tree(self, request):
        files = self._repository(request).files(request.path_params["revision"])
        folder = request.path_params.get("folder", "")
        below = {path: data for path, data in files.items() if path.startswith(f"{folder}/" if folder else "")}
        folders = {str(parent) for path in below for parent in PurePosixPath(path).parents} - {".", folder}
        entries = [{"type": "directory", "path": path, "oid": "0" * 40, "size": 0} for path in sorted(folders)]
        entries += [entry(path, data) for path, data in below.items()]
        if request.query_params.get("recursive", "").lower() not in {"true", "1"}:
            entries = [item for item in entries if str(PurePosixPath(item["path"]).parent) == (folder or ".")]
        return JSONResponse(entries)

    async def resolve(self, request):
        place = request.path_params
        files = self._repository(request).files(place["revision"])
        if files is None:
            raise MissingError("RevisionNotFound")
        if place["path"] not in files:
            raise MissingError("EntryNotFound")
        data, names = files[place["path"]], self._repository(request).names
        headers = {
            "ETag": f'"{etag(place["path"], data)}"',
            "X-Repo-Commit": names.get(place["revision"], place["revision"]),
        }
        start = int(request.headers.get("range", "bytes=0-").removeprefix("bytes=").split("-")[0])
        if start:
            self.hub.resumed.append((place["path"], start))
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        if request.method == "HEAD":
            return Response(headers={**headers, "Content-Length": str(len(data))})
        if self.hub.cuts.get(place["path"]):
            self.hub.cuts[place["path"]] -= 1
            return StreamingResponse(_cut(data), headers={**headers, "Content-Length": str(len(data))})
        return Response(data[start:], 206 if start else 200, headers)

    def _repository(self, request):
        place = request.path_params
        repository = self.hub.repositories.get(
            (KINDS[place.get("kinds", "models")], f"{place['user']}/{place['name']}")
        )
        if repository is None:
            raise MissingError("RepoNotFound")
        return repository


class MissingError(Exception):
    """A missing repository, revision or file; the argument is the error code of the Hub."""


async def _cut(data):
    yield data[: len(data) // 2]
    raise ConnectionError("cut on purpose")


def etag(path, data):
    """Return the ETag of a file; for small files, its Git hash."""
    if path.endswith(REGULAR):
        return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
    return hashlib.sha256(data).hexdigest()


def entry(path, data):
    """Return the entry of a file in a tree."""
    large = {} if path.endswith(REGULAR) else {"lfs": {"oid": etag(path, data), "size": len(data), "pointerSize": 1}}
    return {"type": "file", "path": path, "oid": etag(path, data), "size": len(data), **large}


def make_app(hub):
    """Return the application with the routes that huggingface_hub calls."""
    routes, repository = Routes(hub), "/api/{kinds}/{user}/{name}"
    table = [
        ("POST", "/api/repos/create", routes.create),
        ("POST", "/api/validate-yaml", routes.validate),
        ("POST", repository + "/preupload/{revision}", routes.preupload),
        ("POST", repository + "/commit/{revision}", routes.commit),
        ("POST", repository + "/branch/{revision}", routes.branch),
        ("POST", repository + "/tag/{revision}", routes.tag),
        ("GET", repository, routes.info),
        ("GET", repository + "/revision/{revision}", routes.info),
        ("GET", repository + "/tree/{revision}", routes.tree),
        ("GET", repository + "/tree/{revision}/{folder:path}", routes.tree),
        ("POST", "/{repository:path}.git/info/lfs/objects/batch", routes.batch),
        ("PUT", "/objects/{oid}", routes.put),
        ("GET", "/{user}/{name}/resolve/{revision}/{path:path}", routes.resolve),
        ("GET", "/{kinds}/{user}/{name}/resolve/{revision}/{path:path}", routes.resolve),
    ]

    async def missing(_, error):
        return JSONResponse({}, 404, {"X-Error-Code": error.args[0]})

    return Starlette(
        routes=[Route(path, call, methods=[method]) for method, path, call in table],
        middleware=[Middleware(BaseHTTPMiddleware, dispatch=routes.guarded)],
        exception_handlers={MissingError: missing},
    )


@contextmanager
def serve():
    """Serve a Hub, and yield it with its address, the value of HF_ENDPOINT."""
    hub = Hub()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = uvicorn.Server(uvicorn.Config(make_app(hub), port=port, log_level="critical"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    try:
        yield hub, f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(10)
