"""Publish a run on the Hugging Face Hub: weights, card, figures, code where the model needs it; and the Space.

`python -m realfake_hf.hub --model_dir runs/mine --hub_model_id user/name` is the command; `train.py --push_to_hub
--hub_model_id user/name` calls it after the training. What goes is chosen by name, so that no optimizer's state, no
local path and no user's name goes with it. huggingface_hub waits and asks again where the Hub is busy (429, 5xx), and
does not send anew what already arrived.
"""

import json
import logging
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import httpx2
from huggingface_hub import CommitInfo, HfApi, get_token
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError
from huggingface_hub.utils._validators import validate_repo_id

from realfake_hf.data.card import make_data_card
from realfake_hf.data.loading import load_images
from realfake_hf.data.shards import write_shards
from realfake_hf.environment import without_local_paths
from realfake_hf.hub.model_card import make_card
from realfake_hf.metrics.operating_point import OPERATING_POINT
from realfake_hf.metrics.out_of_distribution import FAMILIARITY
from realfake_hf.run_folder import FIGURES, HISTORY, METRICS, RECORD, read_run
from realfake_hf.store import write_json

logger = logging.getLogger(__name__)

MODEL_FILES: Final = (
    "config.json", "model.safetensors", "preprocessor_config.json", "cifake_cnn.py", OPERATING_POINT, FAMILIARITY,
    METRICS, HISTORY,
)  # fmt: skip  # those that are there; run.json goes without local paths
BUSY: Final = (408, 429, 500, 502, 503, 504)
WAITS: Final = (1, 2, 4, 8)  # seconds
_NEEDED: Final = ("config.json", "model.safetensors", "preprocessor_config.json")
_LEFT_OUT: Final = ("__pycache__", "*.pyc", "*.pyi", ".gradio", "flagged")
_LOCAL_PATH: Final = re.compile(r"(?<![\w.:/])/(?:home|root|Users|tmp|mnt|work|private|var)/[^\s\"',)]+|[A-Z]:\\\\\w+")


@dataclass(frozen=True)
class Published:
    """What went to the Hub.

    Attributes:
        repo_id: where.
        files: paths in the repository with their bytes.
        commit: the commit's name; None of a dry run.
        url: of the commit; None of a dry run.
    """

    repo_id: str
    files: Mapping[str, int]
    commit: str | None
    url: str | None

    def to_markdown(self) -> str:
        """The files as a table, and where they are."""
        rows = [f"| {path} | {size:,} |" for path, size in self.files.items()]
        where = f"published: {self.url}" if self.url else f"a dry run: nothing was sent to {self.repo_id}"
        return "\n".join(["| file | bytes |", "|---|--:|", *rows, "", where])


def publish_model(
    folder: Path,
    repo_id: str,
    *,
    results: Path | None = None,
    private: bool | None = None,
    revision: str | None = None,
    tag: str | None = None,
    token: str | None = None,
    dry_run: bool = False,
) -> Published:
    """Send a finished run to the Hub in one commit.

    Args:
        folder: of train.py, or one of `space/models`.
        repo_id: user/name.
        results: where more was measured of the same weights; None for the run's own folder alone.
        private: whether a new repository is private; None leaves it to the account's setting.
        revision: a branch, which is made where it is not there; None for main.
        tag: given to the commit.
        token: by default that of the environment or of `hf auth login`.
        dry_run: say what would go, and send nothing.

    Raises:
        OSError: no token, no such repository or right, or the Hub does not answer.
        ValueError: no finished run in the folder, a name that is none, or a local path in a file.
    """
    _check_name(repo_id)
    with tempfile.TemporaryDirectory(prefix="realfake-publish-") as staged:
        _stage(folder, Path(staged), repo_id, results)
        return _send(
            Path(staged), repo_id, "model", private=private, revision=revision, tag=tag, token=token, dry_run=dry_run
        )


def check_publishable(repo_id: str | None, *, token: str | None = None) -> None:
    """Make sure, before anything expensive, that there is a name and a token to publish with.

    Raises:
        OSError: there is no token.
        ValueError: the name is missing, or none.
    """
    if repo_id is None:
        raise ValueError("wanted --hub_model_id user/name beside --push_to_hub; found none.")
    _check_name(repo_id)
    if not (token or get_token()):
        raise OSError(f"wanted a token for {repo_id}; found none. Set HF_TOKEN, or run hf auth login.")


def publish_space(
    folder: Path,
    repo_id: str,
    *,
    models: Mapping[str, str] | None = None,
    private: bool | None = None,
    token: str | None = None,
    dry_run: bool = False,
) -> Published:
    """Send the folder of the Space to the Hub in one commit.

    Args:
        folder: `space/`.
        repo_id: user/name.
        models: revisions by Hub id of models that it serves in place of those in its folder; None for these.
        private: whether a new Space is private.
        token: by default that of the environment or of `hf auth login`.
        dry_run: say what would go, and send nothing.

    Raises:
        OSError: no token, no such right, or the Hub does not answer.
        ValueError: a name that is none, or a local path in a file.
    """
    _check_name(repo_id)
    with tempfile.TemporaryDirectory(prefix="realfake-publish-") as parent:
        staged = Path(parent) / "space"
        left_out = (*_LEFT_OUT, "models") if models else _LEFT_OUT
        shutil.copytree(folder, staged, ignore=shutil.ignore_patterns(*left_out))
        if models:
            write_json(staged / "pinned.json", dict(models))
        _refuse_local_paths(staged)
        return _send(staged, repo_id, "space", private=private, token=token, dry_run=dry_run)


def publish_dataset(
    source: str,
    repo_id: str,
    *,
    licence: str,
    with_pictures: bool = False,
    private: bool | None = None,
    token: str | None = None,
    dry_run: bool = False,
) -> Published:
    """Send a data card to the Hub, and the pictures as parquet where their licence allows it, in one commit.

    Args:
        source: what `load_images` takes.
        repo_id: user/name.
        licence: an identifier of the Hub, such as mit or cc-by-4.0.
        with_pictures: whether the pictures go, too.
        private: whether a new repository is private.
        token: by default that of the environment or of `hf auth login`.
        dry_run: say what would go, and send nothing.

    Raises:
        OSError: no such source, no token, no such right, or the Hub does not answer.
        ValueError: a name that is none, or a source that cannot be used.
    """
    _check_name(repo_id)
    images = load_images(source)
    with tempfile.TemporaryDirectory(prefix="realfake-publish-") as parent:
        staged = Path(parent)
        name = repo_id.rpartition("/")[2]
        make_data_card(images, name=name, licence=licence, has_images=with_pictures).save(staged / "README.md")
        if with_pictures:
            write_shards(images, staged)
        return _send(staged, repo_id, "dataset", private=private, token=token, dry_run=dry_run)


def _stage(folder: Path, staged: Path, repo_id: str, results: Path | None) -> None:
    run = read_run(folder)
    missing = [name for name in _NEEDED if not (folder / name).is_file()]
    if missing:
        raise ValueError(f"wanted {', '.join(_NEEDED)} in {folder}; found no {', '.join(missing)}. Train to the end.")
    for name in MODEL_FILES:
        if (folder / name).is_file():
            shutil.copy(folder / name, staged / name)
    if (folder / FIGURES).is_dir():
        shutil.copytree(folder / FIGURES, staged / FIGURES)
    write_json(staged / RECORD, without_local_paths(run.record))
    config = json.loads((staged / "config.json").read_text(encoding="utf-8"))
    config.pop("_name_or_path", None)
    write_json(staged / "config.json", config)
    make_card(folder, repo_id=repo_id, results=results).save(staged / "README.md")
    _refuse_local_paths(staged)


def _refuse_local_paths(staged: Path) -> None:
    for path, file in _files(staged):
        if file.suffix not in (".json", ".md", ".py", ".txt", ".yaml"):
            continue
        found = _LOCAL_PATH.search(file.read_text(encoding="utf-8"))
        if found:
            raise ValueError(f"wanted no path of this machine in what is published; found {found[0]} in {path}.")


def _files(staged: Path) -> Iterator[tuple[str, Path]]:
    for file in sorted(staged.rglob("*")):
        if file.is_file():
            yield file.relative_to(staged).as_posix(), file


def _check_name(repo_id: str) -> None:
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise ValueError(f"wanted a name on the Hub, such as user/name; found {repo_id!r} ({error}).") from error
    if "/" not in repo_id:
        raise ValueError(f"wanted a name on the Hub, such as user/name; found {repo_id!r}. Say whose it is.")


def _send(
    staged: Path,
    repo_id: str,
    kind: str,
    *,
    private: bool | None,
    token: str | None,
    dry_run: bool,
    revision: str | None = None,
    tag: str | None = None,
) -> Published:
    files = {path: file.stat().st_size for path, file in _files(staged)}
    if dry_run:
        return Published(repo_id, files, None, None)
    api = HfApi(token=token)
    try:
        sdk = "gradio" if kind == "space" else None
        api.create_repo(repo_id, repo_type=kind, private=private, exist_ok=True, space_sdk=sdk)
        if revision:
            api.create_branch(repo_id, repo_type=kind, branch=revision, exist_ok=True)
        send = partial(
            api.upload_folder, repo_id=repo_id, repo_type=kind, folder_path=staged, revision=revision,
            commit_message="Publish with realfake",
        )  # fmt: skip
        commit = _patiently(send)
        if tag:
            api.create_tag(repo_id, repo_type=kind, tag=tag, revision=commit.oid, exist_ok=True)
    except LocalTokenNotFoundError as error:
        raise OSError(f"wanted a token for {repo_id}; found none. Set HF_TOKEN, or run hf auth login.") from error
    except HfHubHTTPError as error:
        raise OSError(_refused(repo_id, error)) from error
    except (httpx2.HTTPError, RuntimeError) as error:  # the latter around what broke while large files were sent
        again = "Give the same command again: what arrived is not sent again."
        raise OSError(
            f"wanted to publish {repo_id}; the connection broke ({error.__cause__ or error}). {again}"
        ) from error
    return Published(repo_id, files, commit.oid, commit.commit_url)


def _patiently(send: Callable[[], CommitInfo]) -> CommitInfo:
    """Send, and where the Hub is busy wait and send again; huggingface_hub does not for the commit itself."""
    for wait in WAITS:
        try:
            return send()
        except HfHubHTTPError as error:
            if error.response.status_code not in BUSY:
                raise
            logger.warning("the Hub is busy (status %d); asking again in %d s", error.response.status_code, wait)
            time.sleep(wait)
    return send()


def _refused(repo_id: str, error: HfHubHTTPError) -> str:
    status = error.response.status_code
    reasons = {
        401: "the token is none, or may not be used here. Set HF_TOKEN to one that may write.",
        403: "the token may not write there. Name a repository of your own, or another token.",
        404: "there is no such repository for this token.",
        429: "the Hub is asked too often. Wait, and give the same command: what arrived is not sent again.",
    }
    after = "the Hub has trouble. Give the same command later: what arrived is not sent again."
    return f"wanted to publish {repo_id}; found status {status}: {reasons.get(status, after)}"
