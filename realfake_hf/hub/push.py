"""Upload models, Spaces and data sets to the Hugging Face Hub.

`python -m realfake_hf.hub` is the command; `train.py --push_to_hub` publishes at the end of a training. Optimizer
states are never uploaded; local paths are removed from `run.json`, and rejected in other files.
"""

import logging
import re
import shutil
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, TypedDict, Unpack

import httpx2
from huggingface_hub import CommitInfo, HfApi, get_token
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError
from huggingface_hub.utils._validators import validate_repo_id

from realfake_hf.data.loading import load_images
from realfake_hf.data.shards import make_data_card, write_shards
from realfake_hf.hub.model_card import CARD, complete_card, make_card
from realfake_hf.metrics.operating_point import OPERATING_POINT
from realfake_hf.onnx_detector import GRAPH
from realfake_hf.onnx_detector import SETTINGS as GRAPH_SETTINGS
from realfake_hf.run_folder import MODEL_FILES, RECORD, copy_model, read_run
from realfake_hf.store import write_json
from realfake_hf.tables import markdown_table

logger = logging.getLogger(__name__)

BUSY: Final = (408, 429, 500, 502, 503, 504)  # HTTP statuses after which a request is repeated
WAITS: Final = (1, 2, 4, 8)  # seconds
PACKAGE: Final = Path(__file__).resolve().parents[1]
ARCHIVE: Final = "realfake_hf.zip"
_EXCLUDED: Final = ("__pycache__", "*.pyc", "*.pyi", ".gradio", "flagged", ARCHIVE)
_PACKAGED: Final = (".py", ".j2", ".pem", ".typed")  # the demo data are left out
_EPOCH: Final = (1980, 1, 1, 0, 0, 0)  # constant, so that equal files make equal archives
_TEXT: Final = (".json", ".md", ".py", ".txt", ".yaml")
_LOCAL_PATH: Final = re.compile(r"(?<![\w.:/])/(?:home|root|Users|tmp|mnt|work|private|var)/[^\s\"',)]+|[A-Z]:\\\\\w+")
_SECRET: Final = re.compile(r"\bhf_[A-Za-z0-9]{20,}|-----BEGIN [A-Z ]*PRIVATE KEY")
_KEPT: Final = (
    "*config.json", "*.safetensors", "*.safetensors.index.json", "*.py", GRAPH, GRAPH_SETTINGS, OPERATING_POINT,
)  # fmt: skip
_RESUME: Final = "Repeat the command later: files that have arrived are not sent again."
_REFUSALS: Final = {
    401: "the token is missing or invalid. Set HF_TOKEN to a token with write access.",
    403: "the token has no write access. Use a repository of your own, or another token.",
    404: "the repository does not exist for this token.",
    429: f"too many requests. {_RESUME}",
}


class Options(TypedDict, total=False):
    """Options of every upload."""

    private: bool | None  # whether a new repository is private; None for the default of the account
    revision: str | None  # branch, created if it does not exist; None for main
    tag: str | None  # tag of the commit
    token: str | None  # None for the token of the environment or of `hf auth login`
    dry_run: bool  # list the files without uploading them


@dataclass(frozen=True)
class Published:
    """An upload, or a dry run, which has no commit."""

    repo_id: str
    files: Mapping[str, int]  # path in the repository -> size in bytes
    commit: str | None  # hash
    url: str | None  # address of the commit

    def to_markdown(self) -> str:
        """Render the files as a table, followed by the address."""
        rows = [[path, f"{size:,}"] for path, size in self.files.items()]
        where = f"published: {self.url}" if self.url else f"dry run: nothing was uploaded to {self.repo_id}"
        return f"{markdown_table(['file', 'bytes'], rows)}\n\n{where}"


def publish_model(folder: Path, repo_id: str, *, results: Path | None = None, **options: Unpack[Options]) -> Published:
    """Upload a finished run in one commit: weights, processor, operating point, measurements, figures and card.

    The card includes further results of the same weights from the folder `results`, if given. A model without
    `run.json` is uploaded with its own README.md.

    Raises:
        OSError: there is no token, repository or access, or the Hub does not answer.
        ValueError: the run is not finished, the name is invalid, or a file contains a local path or a token.
    """
    return _publish(repo_id, "model", partial(_stage_model, folder, repo_id, results), **options)


def publish_space(folder: Path, repo_id: str, *, models: Mapping[str, str], **options: Unpack[Options]) -> Published:
    """Upload the Space in one commit, together with this package.

    It serves the models with these Hub ids and revisions or, if there are none, those in the folder.
    """
    return _publish(repo_id, "space", partial(_stage_space, folder, models), **options)


def publish_dataset(
    source: str,
    repo_id: str,
    *,
    license: str,
    labels: str | None = None,
    with_images: bool = False,
    **options: Unpack[Options],
) -> Published:
    """Upload the card of a source of `load_images` in one commit, with its images as parquet if its licence allows it.

    The licence is an id of the Hub, such as mit or cc-by-4.0.
    """
    name = repo_id.rpartition("/")[2]

    def stage(staged: Path) -> None:
        images = load_images(source, labels=labels)
        make_data_card(images, name=name, license=license, has_images=with_images).save(staged / "README.md")
        if with_images:
            write_shards(images, staged)

    return _publish(repo_id, "dataset", stage, **options)


def check_publishable(repo_id: str | None, *, token: str | None = None) -> None:
    """Check the name and the token before a training."""
    if repo_id is None:
        raise ValueError("expected --hub_model_id user/name with --push_to_hub; found none.")
    _check_name(repo_id)
    if not (token or get_token()):
        raise _no_token(repo_id)


def _check_name(repo_id: str) -> None:
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise ValueError(f"expected a name on the Hub, such as user/name; found {repo_id!r} ({error}).") from error
    if "/" not in repo_id:
        raise ValueError(f"expected a name on the Hub, such as user/name; found {repo_id!r} without a user.")


def _publish(repo_id: str, repo_type: str, stage: Callable[[Path], None], **options: Unpack[Options]) -> Published:
    """Collect the files in a temporary folder, check them, and upload them."""
    _check_name(repo_id)
    with tempfile.TemporaryDirectory(prefix="realfake-publish-") as folder:
        staged = Path(folder)
        stage(staged)
        for path, file in _files(staged).items():
            text = file.read_text(encoding="utf-8") if file.suffix in _TEXT else ""
            if local := _LOCAL_PATH.search(text):
                raise ValueError(f"expected no local path in published files; found {local[0]} in {path}.")
            if _SECRET.search(text):
                raise ValueError(f"expected no token or key in published files; found one in {path}. Remove it.")
        return _upload(staged, repo_id, repo_type, **options)


def _stage_model(folder: Path, repo_id: str, results: Path | None, staged: Path) -> None:
    """Copy the model of a run without local paths, and render its card; or a model with a card of its own."""
    if (folder / CARD).is_file() and not (folder / RECORD).exists():
        _stage_kept(folder, repo_id, results, staged)
        return
    run = read_run(folder)
    missing = [name for name in MODEL_FILES if not (folder / name).is_file()]
    if missing:
        raise ValueError(
            f"expected {', '.join(MODEL_FILES)} in {folder}; found no {', '.join(missing)}. Finish the training."
        )
    copy_model(run, staged)
    make_card(folder, repo_id=repo_id, results=results).save(staged / "README.md")


def _stage_kept(folder: Path, repo_id: str, results: Path | None, staged: Path) -> None:
    """Copy a model that `train.py` did not write, and complete its card."""
    if not (folder / OPERATING_POINT).is_file():
        raise ValueError(
            f"expected {OPERATING_POINT} beside the model in {folder}; found none. Choose a threshold first."
        )
    for file in (file for pattern in _KEPT for file in folder.glob(pattern)):
        shutil.copy(file, staged / file.name)
    (staged / CARD).write_text(complete_card(folder, repo_id=repo_id, results=results), encoding="utf-8")


def _stage_space(folder: Path, models: Mapping[str, str], staged: Path) -> None:
    """Copy the Space, and add the package and the revisions of its models."""
    excluded = (*_EXCLUDED, "models") if models else _EXCLUDED
    shutil.copytree(folder, staged, ignore=shutil.ignore_patterns(*excluded), dirs_exist_ok=True)
    write_package(staged / ARCHIVE)
    if models:
        write_json(staged / "pinned.json", dict(models))


def package_files() -> Iterator[tuple[str, bytes]]:
    """Yield the names and contents of the packaged files, sorted."""
    for file in sorted(PACKAGE.rglob("*")):
        if file.suffix in _PACKAGED and file.is_file():
            yield str(Path(PACKAGE.name) / file.relative_to(PACKAGE)), file.read_bytes()


def write_package(archive: Path) -> None:
    """Write the package as a ZIP archive from which Python can import it."""
    with zipfile.ZipFile(archive, "w") as stream:
        for name, data in package_files():
            stream.writestr(zipfile.ZipInfo(name, _EPOCH), data, compress_type=zipfile.ZIP_DEFLATED, compresslevel=9)


def _files(staged: Path) -> dict[str, Path]:
    return {file.relative_to(staged).as_posix(): file for file in sorted(staged.rglob("*")) if file.is_file()}


def _upload(staged: Path, repo_id: str, repo_type: str, **options: Unpack[Options]) -> Published:
    files = {path: file.stat().st_size for path, file in _files(staged).items()}
    if options.get("dry_run"):
        return Published(repo_id, files, None, None)
    try:
        commit = _commit(HfApi(token=options.get("token")), staged, repo_id, repo_type, options)
    except LocalTokenNotFoundError as error:
        raise _no_token(repo_id) from error
    except HfHubHTTPError as error:
        status = error.response.status_code
        reason = _REFUSALS.get(status, f"it failed. {_RESUME}")
        raise OSError(f"cannot publish {repo_id}: the Hub answered with status {status}: {reason}") from error
    except (httpx2.HTTPError, RuntimeError) as error:  # RuntimeError: raised around failures of large files
        cause = error.__cause__ or error
        raise OSError(f"cannot publish {repo_id}: the connection broke ({cause}). {_RESUME}") from error
    return Published(repo_id, files, commit.oid, commit.commit_url)


def _commit(api: HfApi, staged: Path, repo_id: str, repo_type: str, options: Options) -> CommitInfo:
    """Create the repository and the branch if they do not exist, and upload all files in one commit."""
    revision, tag = options.get("revision"), options.get("tag")
    sdk = "gradio" if repo_type == "space" else None
    api.create_repo(repo_id, repo_type=repo_type, private=options.get("private"), exist_ok=True, space_sdk=sdk)
    if revision:
        api.create_branch(repo_id, repo_type=repo_type, branch=revision, exist_ok=True)
    message = "Publish with realfake"
    settings = {"repo_id": repo_id, "repo_type": repo_type, "revision": revision, "commit_message": message}
    commit = _with_retries(partial(api.upload_folder, folder_path=staged, **settings))
    if tag:
        api.create_tag(repo_id, repo_type=repo_type, tag=tag, revision=commit.oid, exist_ok=True)
    return commit


def _with_retries(upload: Callable[[], CommitInfo]) -> CommitInfo:
    """Repeat an upload while the Hub is busy; huggingface_hub retries the files but not the commit."""
    for wait in WAITS:
        try:
            return upload()
        except HfHubHTTPError as error:
            if error.response.status_code not in BUSY:
                raise
            logger.warning("the Hub is busy (status %d); retrying in %d s", error.response.status_code, wait)
            time.sleep(wait)
    return upload()


def _no_token(repo_id: str) -> OSError:
    return OSError(f"expected a token for {repo_id}; found none. Set HF_TOKEN, or run hf auth login.")
