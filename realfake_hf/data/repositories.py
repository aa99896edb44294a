"""Build an image folder from a manifest of images in public Git repositories.

`python -m realfake_hf.data.repositories --manifest recipes/wild/manifest.csv.gz --out data/wild` fetches the listed
files, without history, and checks their SHA-256. To resume, or to try missing images again, repeat the command.
"""

import csv
import hashlib
import io
import logging
import re
import shutil
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final, get_args

from realfake_hf.cli import command, setting
from realfake_hf.data.git import Git, Missing, MissingError, Reason, open_repository
from realfake_hf.data.manifest import Entry, licence_table, read_manifest
from realfake_hf.store import LFS_POINTER, foreign_files, sha256_of, write_json, write_text
from realfake_hf.tables import markdown_table

logger = logging.getLogger("realfake_hf.data.repositories")  # also as a command, when __name__ is another

IMAGES: Final = "images"
METADATA: Final = "metadata.csv"
REPORT: Final = "build.json"
MAX_BYTES: Final = 256 * 2**20  # of an image, as `load_images` reads it
_SCRATCH: Final = ".clones"
_WORKERS: Final = 4  # repositories at once
_BATCH: Final = 100  # images that are fetched in one request
_SUFFIXES: Final = {
    "JPEG": "jpg", "MPO": "jpg", "PNG": "png", "WEBP": "webp", "GIF": "gif", "BMP": "bmp", "TIFF": "tif", "PPM": "ppm",
    "AVIF": "avif", "JPEG2000": "jp2", "HEIF": "heic",
}  # fmt: skip  # by Pillow's name of the format
_OWN_FILE: Final = re.compile(r"[0-9a-f]{64}\.[a-z0-9]+(\.part)?")

Results = dict[str, str | Missing]  # by SHA-256, the name of the file, or why it is missing
OpenRepository = Callable[[str], AbstractContextManager[Git]]


@dataclass
class BuildArguments:
    """The manifest, the folder, and where the repositories are."""

    manifest: Path = field(metadata={"help": "CSV file, as recipes/wild/manifest.csv.gz."})
    out: Path = field(metadata={"help": "Folder for the images; to resume, repeat the command."})
    mirror: Path | None = setting(None, "Folder of bare repositories owner+name or owner/name.git, to read instead.")
    base_url: str = setting("https://github.com", "Address before owner/name: https://... or file:///...")


def build(entries: Sequence[Entry], folder: Path, *, base_url: str, mirror: Path | None = None) -> dict[str, Any]:
    """Read the images of a manifest into `images/`, and write `metadata.csv` and `build.json`.

    Images that are there with the right SHA-256 are kept; images that the manifest does not list are deleted. Every
    file is written atomically.

    Args:
        entries: from `read_manifest`.
        folder: a new folder, or one of an earlier call.
        base_url: see `open_repository`.
        mirror: see `open_repository`.

    Returns:
        The content of `build.json`: counts, and the missing images with reasons.

    Raises:
        ValueError: the folder contains other files, an argument is invalid, or Git is not installed.
    """
    _check_places(folder, base_url, mirror)
    with _scratch(folder) as scratch:
        present = {file.stem: file for file in (folder / IMAGES).iterdir()}
        opener = partial(open_repository, base_url=base_url, mirror=mirror, scratch=scratch)
        results = _read_all(entries, folder / IMAGES, present, opener)
    found = [(entry, name) for entry in entries if isinstance(name := results[entry.sha256], str)]
    write_text(folder / METADATA, _metadata(found))
    unlisted = [file for sha256, file in present.items() if sha256 not in results]
    for file in unlisted:
        file.unlink()
    report = _report(entries, results) | {"n_deleted": len(unlisted)}
    write_json(folder / REPORT, report)
    return report


def to_markdown(report: Mapping[str, Any]) -> str:
    """Render the counts of `build.json` as a table."""
    missing = [[reason, f"{n:,}"] for reason, n in report["missing"].items() if n]
    rows = [["found", f"{report['n_found']:,}"], *missing, ["listed", f"{report['n']:,}"]]
    return markdown_table(["result", "images"], rows)


def _check_places(folder: Path, base_url: str, mirror: Path | None) -> None:
    if shutil.which("git") is None:
        raise ValueError("expected the program git; found none. Install Git 2.30 or later.")
    if mirror and not mirror.is_dir():
        raise ValueError(f"expected a folder of bare repositories at --mirror; found none at {mirror}.")
    if not re.fullmatch(r"(https|file)://\S+", base_url):
        raise ValueError(f"expected --base_url https://... or file:///...; found {base_url!r}.")
    names = [file.name for file in (folder / IMAGES).glob("*")]
    others = [f"{IMAGES}/{name}" for name in names if not _OWN_FILE.fullmatch(name)]
    if others := [*foreign_files(folder, IMAGES, METADATA, REPORT, _SCRATCH), *others]:
        raise ValueError(
            f"expected a new folder or one of an earlier build; found {others[0]} in {folder}. Use another --out."
        )


@contextmanager
def _scratch(folder: Path) -> Iterator[Path]:
    """Create the folders; remove what a killed process left, and temporary repositories at the end."""
    scratch = folder / _SCRATCH
    shutil.rmtree(scratch, ignore_errors=True)  # Git of a killed process may still be writing there
    scratch.mkdir(parents=True, exist_ok=True)
    (folder / IMAGES).mkdir(exist_ok=True)
    for part in (folder / IMAGES).glob("*.part"):
        part.unlink()
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _read_all(entries: Sequence[Entry], folder: Path, present: Mapping[str, Path], opener: OpenRepository) -> Results:
    """Read several repositories at once, and log the result of each."""
    from realfake_hf.parallel import map_in_threads

    groups: defaultdict[str, list[Entry]] = defaultdict(list)
    for entry in entries:
        groups[entry.repository].append(entry)
    read = partial(_read_repository, folder=folder, present=present, opener=opener)
    results: Results = {}
    for number, some in enumerate(map_in_threads(read, groups.values(), workers=_WORKERS)):
        missing = Counter(result for result in some.values() if isinstance(result, Missing))
        counts = "".join(f", {n} {reason} {detail}".rstrip() for (reason, detail), n in missing.items())
        n_found = len(some) - missing.total()
        logger.info("%d/%d %s: %d found%s", number + 1, len(groups), [*groups][number], n_found, counts)
        results |= some
    return results


def _read_repository(
    entries: Sequence[Entry], *, folder: Path, present: Mapping[str, Path], opener: OpenRepository
) -> Results:
    """Read the images of one repository, except those that are present and intact."""
    results: Results = {}
    wanted: defaultdict[str, list[Entry]] = defaultdict(list)  # by commit
    for entry in entries:
        file = present.get(entry.sha256)
        if file and sha256_of(file) == entry.sha256:
            results[entry.sha256] = file.name
        else:
            wanted[entry.commit].append(entry)
            if file:
                file.unlink()
    batches = [group[start : start + _BATCH] for group in wanted.values() for start in range(0, len(group), _BATCH)]
    if not batches:
        return results
    try:
        with opener(entries[0].repository) as git:
            for batch in batches:
                results |= _read_images(git, batch, folder)
    except MissingError as error:
        results |= {entry.sha256: error.missing for batch in batches for entry in batch}
    return results


def _read_images(git: Git, entries: Sequence[Entry], folder: Path) -> Results:
    """Read images of one commit."""
    try:
        blobs = git.find_blobs(entries[0].commit, [entry.path for entry in entries])
    except MissingError as error:
        return dict.fromkeys((entry.sha256 for entry in entries), error.missing)
    return {entry.sha256: _read_image(git, blobs[entry.path], entry.sha256, folder) for entry in entries}


def _read_image(git: Git, blob: str | Missing, sha256: str, folder: Path) -> str | Missing:
    if isinstance(blob, Missing):
        return blob
    try:
        data = git.read(blob, max_bytes=MAX_BYTES)
        name = f"{sha256}.{_suffix(data, sha256)}"
    except MissingError as error:
        return error.missing
    part = folder / f"{name}.part"
    part.write_bytes(data)
    part.replace(folder / name)
    return name


def _suffix(data: bytes, sha256: str) -> str:
    """Check the bytes of an image, and return the usual suffix of their format."""
    from realfake_hf.data.decoding import UnreadableImageError, open_image

    if data.startswith(LFS_POINTER):
        raise MissingError("Git LFS pointer")
    if hashlib.sha256(data).hexdigest() != sha256:
        raise MissingError("changed bytes")
    try:
        return _SUFFIXES[open_image(data, load=False).image.format or ""]
    except (UnreadableImageError, KeyError) as error:
        raise MissingError("not an image") from error


def _metadata(found: Sequence[tuple[Entry, str]]) -> str:
    """Return the table that `load_dataset("imagefolder")` and `load_images` read."""
    stream = io.StringIO()
    table = csv.writer(stream, lineterminator="\n")
    table.writerow(["file_name", "label", "generator", "content", "group", "fold", "source", "licence", "sha256"])
    for entry, name in found:
        facts = [entry.label, entry.generator, entry.content, entry.group, entry.fold, entry.repository, entry.licence]
        table.writerow([f"{IMAGES}/{name}", *facts, entry.sha256])
    return stream.getvalue()


def _report(entries: Sequence[Entry], results: Results) -> dict[str, Any]:
    missing = {sha256: result.reason for sha256, result in results.items() if isinstance(result, Missing)}
    reasons = Counter(missing.values())
    licences = licence_table([entry for entry in entries if entry.sha256 not in missing])
    return {
        "n": len(entries),
        "n_found": len(entries) - len(missing),
        "missing": {reason: reasons[reason] for reason in get_args(Reason)},
        "licences": [dict(zip(licences.header, row, strict=True)) for row in licences.rows],
        "missing_images": [
            {"repository": entry.repository, "path": entry.path, "sha256": entry.sha256, "reason": reason}
            for entry in entries
            if (reason := missing.get(entry.sha256))
        ],
    }


@command(BuildArguments, name="repositories", description=__doc__, resumable="out")
def main(arguments: BuildArguments) -> int:
    """Build the folder, and print the counts; return 1 if no image was found."""
    entries = read_manifest(arguments.manifest)
    report = build(entries, arguments.out, base_url=arguments.base_url, mirror=arguments.mirror)
    print(to_markdown(report))
    if report["n_deleted"]:
        print(f"\n{report['n_deleted']:,} images that the manifest does not list were deleted.")
    if missing := report["n"] - report["n_found"]:
        print(f"\n{missing:,} images are missing, see {arguments.out / REPORT}. To try again, repeat the command.")
    return 0 if report["n_found"] else 1


if __name__ == "__main__":
    sys.exit(main())
