"""A local Hub that takes what is published and gives it back, over HTTP, as huggingface_hub 2.4 asks for it.

Files travel as with Git LFS (`HF_HUB_DISABLE_XET=1`). It can be told to be busy, to break off, or to have a full disk.
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
    """One repository: its commits as files by path, its branches and tags."""

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
    """The state, and what goes wrong next.

    Attributes:
        troubles: by a part of the path of a request, the statuses that the next requests for it get.
        asked: method and path of every request.
        sent: how many bytes of large files arrived, by digest.
        cuts: how many of the next downloads of a file break off in the middle, by its path.
        resumed: the ranges that were asked for.
    """

    def __init__(self):
        self.repositories, self.objects = {}, {}
        self.troubles, self.asked, self.sent, self.tokens = {}, [], {}, []
        self.cuts, self.resumed = {}, []

    def reset(self):
        self.__init__()


class Routes:
    """What is answered; every route takes a request of Starlette's."""

    def __init__(self, hub):
        self.hub = hub

    async def guarded(self, request, call_next):
        hub, path = self.hub, request.url.path
        hub.asked.append((request.method, path))
        hub.tokens.append(request.headers.get("authorization"))
        for part, statuses in hub.troubles.items():
            if part in path and statuses:
                return JSONResponse({"error": "trouble"}, statuses.pop(0))
        is_writing = request.method not in {"GET", "HEAD"} and not path.startswith("/objects")
        if is_writing and request.headers.get("authorization") != f"Bearer {TOKEN}":
            return JSONResponse({"error": "Invalid credentials"}, 401)
        return await call_next(request)

    async def create(self, request):
        asked = await request.json()
        kind = asked.get("type", "model")
        repo_id = f"{asked.get('organization') or 'user'}/{asked['name']}"
        answer = {"url": f"{request.base_url}{repo_id}", "name": repo_id}
        if (kind, repo_id) in self.hub.repositories:
            return JSONResponse(answer, 409)
        repository = Repository(kind, bool(asked.get("private") or asked.get("visibility") == "private"))
        repository.commit("main", {})
        self.hub.repositories[kind, repo_id] = repository
        return JSONResponse(answer)

    async def validate(self, request):
        """The front matter of a README: it has to be YAML, and a model index has to hold results."""
        text = (await request.json())["content"]
        try:
            facts = yaml.safe_load(text.split("---\n")[1])
            results = [one for model in facts.get("model-index", []) for one in model["results"]]
            errors = [] if all(one["task"]["type"] and one["metrics"] for one in results) else ["no metrics"]
        except (IndexError, KeyError, TypeError, yaml.YAMLError) as error:
            errors = [repr(error)]
        answer = {"errors": [{"message": one} for one in errors], "warnings": []}
        return JSONResponse(answer, 400 if errors else 200)

    async def preupload(self, request):
        files = self._repository(request).files(request.path_params["revision"]) or {}
        answers = []
        for one in (await request.json())["files"]:
            kept = files.get(one["path"])
            oid = None if kept is None else etag(one["path"], kept)
            mode = "regular" if one["path"].endswith(REGULAR) else "lfs"
            answers.append({"path": one["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        return JSONResponse({"files": answers})

    async def batch(self, request):
        objects = []
        for one in (await request.json())["objects"]:
            upload = {"upload": {"href": f"{request.base_url}objects/{one['oid']}", "header": {}}}
            objects.append({**one, **({} if one["oid"] in self.hub.objects else {"actions": upload})})
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
        folders = {str(one) for path in below for one in PurePosixPath(path).parents} - {".", folder}
        found = [{"type": "directory", "path": one, "oid": "0" * 40, "size": 0} for one in sorted(folders)]
        found += [entry(path, data) for path, data in below.items()]
        if request.query_params.get("recursive", "").lower() not in {"true", "1"}:
            found = [one for one in found if str(PurePosixPath(one["path"]).parent) == (folder or ".")]
        return JSONResponse(found)

    async def resolve(self, request):
        asked = request.path_params
        files = self._repository(request).files(asked["revision"])
        if files is None:
            raise MissingError("RevisionNotFound")
        if asked["path"] not in files:
            raise MissingError("EntryNotFound")
        data, names = files[asked["path"]], self._repository(request).names
        headers = {
            "ETag": f'"{etag(asked["path"], data)}"',
            "X-Repo-Commit": names.get(asked["revision"], asked["revision"]),
        }
        start = int(request.headers.get("range", "bytes=0-").removeprefix("bytes=").split("-")[0])
        if start:
            self.hub.resumed.append((asked["path"], start))
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        if request.method == "HEAD":
            return Response(headers={**headers, "Content-Length": str(len(data))})
        if self.hub.cuts.get(asked["path"]):
            self.hub.cuts[asked["path"]] -= 1
            return StreamingResponse(_cut(data), headers={**headers, "Content-Length": str(len(data))})
        return Response(data[start:], 206 if start else 200, headers)

    def _repository(self, request):
        asked = request.path_params
        found = self.hub.repositories.get((KINDS[asked.get("kinds", "models")], f"{asked['user']}/{asked['name']}"))
        if found is None:
            raise MissingError("RepoNotFound")
        return found


class MissingError(Exception):
    """Something that is not there; its argument is the Hub's code for it."""


async def _cut(data):
    yield data[: len(data) // 2]
    raise ConnectionError("cut on purpose")


def etag(path, data):
    """Of a file; that of a small one is Git's."""
    if path.endswith(REGULAR):
        return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
    return hashlib.sha256(data).hexdigest()


def entry(path, data):
    """Of a tree."""
    large = {} if path.endswith(REGULAR) else {"lfs": {"oid": etag(path, data), "size": len(data), "pointerSize": 1}}
    return {"type": "file", "path": path, "oid": etag(path, data), "size": len(data), **large}


def make_app(hub):
    """The routes that huggingface_hub really calls."""
    routes, one = Routes(hub), "/api/{kinds}/{user}/{name}"
    table = [
        ("POST", "/api/repos/create", routes.create),
        ("POST", "/api/validate-yaml", routes.validate),
        ("POST", one + "/preupload/{revision}", routes.preupload),
        ("POST", one + "/commit/{revision}", routes.commit),
        ("POST", one + "/branch/{revision}", routes.branch),
        ("POST", one + "/tag/{revision}", routes.tag),
        ("GET", one, routes.info),
        ("GET", one + "/revision/{revision}", routes.info),
        ("GET", one + "/tree/{revision}", routes.tree),
        ("GET", one + "/tree/{revision}/{folder:path}", routes.tree),
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
    """Serve a Hub, and give it and the address to set HF_ENDPOINT to."""
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
