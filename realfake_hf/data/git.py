"""Read files of Git repositories that are not trusted: from a local copy, or fetched without history."""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, NamedTuple

Reason = Literal[
    "repository not available", "commit not available", "no file at the path", "symbolic link", "folder or submodule",
    "content not available", "too large", "Git LFS pointer", "changed bytes", "not an image", "time limit",
]  # fmt: skip

_SECONDS: Final = 900  # for a repository
_MODES: Final[Mapping[str, Reason]] = {  # other modes are those of regular files
    "120000": "symbolic link", "040000": "folder or submodule", "160000": "folder or submodule",
}  # fmt: skip
_PLACES: Final = ("", ".git", "/.git", "/repo", "/repo/.git")
_SETTINGS: Final = (
    "core.hooksPath=/dev/null", "credential.helper=", "gc.auto=0", "maintenance.auto=false", "protocol.version=2",
    "fetch.negotiationAlgorithm=noop", "http.lowSpeedLimit=1000", "http.lowSpeedTime=60",
)  # fmt: skip
_ENVIRONMENT: Final = {
    "GIT_ASKPASS": "", "GIT_TERMINAL_PROMPT": "0", "GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_NO_LAZY_FETCH": "1", "GIT_NO_REPLACE_OBJECTS": "1", "GIT_LITERAL_PATHSPECS": "1", "LC_ALL": "C",
}  # fmt: skip
_FETCH: Final = (
    "fetch", "--quiet", "--no-tags", "--no-recurse-submodules", "--no-write-fetch-head", "--filter=blob:none",
)  # fmt: skip


class Missing(NamedTuple):
    """Why a file was not read, and what Git said about it."""

    reason: Reason
    detail: str = ""


class MissingError(Exception):
    """A file cannot be read, for a reason that is counted."""

    def __init__(self, reason: Reason, detail: str = "") -> None:
        super().__init__(reason)
        self.missing = Missing(reason, detail)


@dataclass(frozen=True)
class Git:
    """Git on one bare repository, without hooks, prompts, the user's settings, or a protocol other than the URL's."""

    folder: Path  # the Git directory
    deadline: float  # time of `time.monotonic` at which commands stop
    url: str | None = None  # where to fetch from; None for a local copy

    def run(self, *words: str, reason: Reason, lines: Sequence[str] = ()) -> bytes:
        """Run a command with lines on its standard input, and return its standard output.

        Raises:
            MissingError: it fails, for the given reason, or the time is over.
        """
        seconds = self.deadline - time.monotonic()
        if seconds <= 0:
            raise MissingError("time limit")
        settings = [*_SETTINGS, *([f"remote.origin.url={self.url}"] if self.url else [])]
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
        protocol = self.url.partition(":")[0] if self.url else "none"
        try:
            process = subprocess.run(
                ["git", f"--git-dir={self.folder}", *(word for one in settings for word in ("-c", one)), *words],
                input="".join(f"{line}\n" for line in lines).encode(),
                capture_output=True,
                timeout=seconds,
                env={**inherited, **_ENVIRONMENT, "GIT_ALLOW_PROTOCOL": protocol},
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise MissingError("time limit") from error
        if process.returncode == -signal.SIGINT:  # Ctrl-C reaches Git, but only one thread of Python
            raise KeyboardInterrupt
        if process.returncode:
            raise MissingError(reason, process.stderr.decode(errors="replace").strip()[-300:])
        return process.stdout

    def find_blobs(self, commit: str, paths: Sequence[str]) -> dict[str, str | Missing]:
        """Return the object id of each file of a commit, or why there is none, by path; fetch what is not local.

        Raises:
            MissingError: the commit or its files are not available.
        """
        if self.url:
            self.run(*_FETCH, "--depth=1", "origin", commit, reason="commit not available")
        found: dict[str, str | Missing] = dict.fromkeys(paths, Missing("no file at the path"))
        words = ("ls-tree", "-z", "--full-tree", commit, "--", *paths)
        listing = self.run(*words, reason="commit not available").decode(errors="replace")
        for line in listing.split("\0")[:-1]:
            facts, _, path = line.partition("\t")
            mode, _, name = facts.split()
            found[path] = Missing(_MODES[mode]) if mode in _MODES else name
        if self.url and (names := [name for name in found.values() if isinstance(name, str)]):
            self.run(*_FETCH, "--stdin", "origin", reason="content not available", lines=names)
        return found

    def read(self, name: str, *, max_bytes: int) -> bytes:
        """Return the content of an object.

        Raises:
            MissingError: it is not available, or larger than `max_bytes`.
        """
        if int(self.run("cat-file", "-s", name, reason="content not available")) > max_bytes:
            raise MissingError("too large")
        return self.run("cat-file", "blob", name, reason="content not available")


@contextmanager
def open_repository(name: str, *, base_url: str, mirror: Path | None, scratch: Path) -> Iterator[Git]:
    """Open a repository for a `with` block.

    Args:
        name: `owner/name`, with letters, digits and `.-_` only.
        base_url: address before the name, from which to fetch; redirects keep its protocol.
        mirror: a folder of Git directories `owner+name` or `owner/name`, which are read instead.
        scratch: an existing folder for temporary repositories.

    Raises:
        MissingError: the repository is not available.
    """
    deadline = time.monotonic() + _SECONDS
    if mirror:
        yield Git(_find_local(mirror, name), deadline)
        return
    folder = Path(tempfile.mkdtemp(dir=scratch))
    try:
        git = Git(folder, deadline, f"{base_url.rstrip('/')}/{name}")
        git.run("init", "--quiet", "--bare", "--template=", reason="repository not available")
        git.run("ls-remote", "--quiet", "origin", "HEAD", reason="repository not available")
        yield git
    finally:
        shutil.rmtree(folder, ignore_errors=True)  # after the time limit, what Git started may still be writing there


def _find_local(mirror: Path, name: str) -> Path:
    places = (mirror / f"{stem}{ending}" for stem in (name.replace("/", "+"), name) for ending in _PLACES)
    found = next((place for place in places if (place / "HEAD").is_file() and (place / "objects").is_dir()), None)
    if found is None:
        raise MissingError("repository not available", f"no Git directory in {mirror}")
    return found
