"""Images are read from Git repositories by a manifest: checked, counted, resumed, and never trusted."""

import csv
import gc
import gzip
import hashlib
import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
from datasets import load_dataset

from realfake_hf.data import git, manifest, repositories
from realfake_hf.data.loading import load_images
from realfake_hf.data.manifest import Entry, licence_table, read_manifest
from realfake_hf.data.repositories import build, main
from realfake_hf.store import sha256_of

ROOT = Path(__file__).parents[1]
MANIFEST = ROOT / "recipes/wild/manifest.csv.gz"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n"
HEADER = "sha256,label,generator,content,group,fold,repository,commit,path,licence"


def run(folder, *words):
    identity = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    names = {f"GIT_{who}_{what}": "a@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    command = ["git", "-C", str(folder), *words]
    process = subprocess.run(
        command, capture_output=True, text=True, check=True, env={**os.environ, **identity, **names}
    )
    return process.stdout.strip()


@pytest.fixture
def host(tmp_path):
    """A folder of bare repositories `owner/name`, as a server has them: `host(name, files)` adds one."""
    root = tmp_path / "host"

    def add(name, files, *, links=()):
        work = tmp_path / "work" / name
        for path, data in files.items():
            (work / path).parent.mkdir(parents=True, exist_ok=True)
            (work / path).write_bytes(data)
        for path, target in links:
            (work / path).symlink_to(target)
        run(work, "init", "--quiet")
        run(work, "add", "--all")
        run(work, "commit", "--quiet", "--message", "all")
        commit = run(work, "rev-parse", "HEAD")
        for path in files:
            (work / path).unlink()
        run(work, "commit", "--quiet", "--all", "--message", "none")  # the files are in the history only
        bare = root / name
        run(tmp_path, "clone", "--quiet", "--bare", str(work), str(bare))
        for setting in ("uploadpack.allowFilter", "uploadpack.allowAnySHA1InWant"):
            run(bare, "config", setting, "true")
        return [entry(name, commit, path, data) for path, data in files.items()]

    add.root = root
    return add


def entry(repository, commit, path, data, **facts):
    owner = repository.partition("/")[0].lower()
    label = "fake" if "fake" in path else "real"
    values = {"label": label, "generator": "", "content": "cat", "group": owner, "fold": "0", "licence": "MIT"}
    sha256 = hashlib.sha256(data).hexdigest()
    return Entry(**{**values, "sha256": sha256, "repository": repository, "commit": commit, "path": path, **facts})


def write(file, entries):
    text = io.StringIO()
    table = csv.writer(text)
    table.writerows([HEADER.split(","), *([*vars(row).values()] for row in entries)])
    data = text.getvalue().encode()
    file.write_bytes(gzip.compress(data) if file.suffix == ".gz" else data)
    return file


def missing(report):
    return {reason: n for reason, n in report["missing"].items() if n}


@pytest.fixture
def pictures(picture_bytes):
    names = ("real/a.jpg", ":(glob)real/* c.png", "fake/-x.webp", "fake/\u03bc.png")
    formats = {".jpg": "JPEG", ".png": "PNG", ".webp": "WEBP"}
    return {name: picture_bytes(name, formats[Path(name).suffix]) for name in names}


def from_mirror(host):
    return {"mirror": host.root, "base_url": "https://example.invalid"}


def from_server(host):
    return {"mirror": None, "base_url": host.root.as_uri()}


@pytest.mark.parametrize("source", [from_mirror, from_server])
def test_the_listed_files_are_named_for_their_sha256_and_their_true_format(host, pictures, tmp_path, source):
    entries = host("Ann/cats.of-mine", pictures)
    report = build(entries, tmp_path / "out", **source(host))
    assert (report["n"], report["n_found"], missing(report)) == (4, 4, {})
    assert {file.name for file in (tmp_path / "out").iterdir()} == {"images", "metadata.csv", "build.json"}
    files = sorted((tmp_path / "out/images").iterdir())
    assert (
        [sha256_of(file) for file in files] == [file.stem for file in files] == sorted(row.sha256 for row in entries)
    )
    assert sorted(file.suffix for file in files) == [".jpg", ".png", ".png", ".webp"]


def test_datasets_and_load_images_read_the_folder(host, pictures, picture_bytes, tmp_path):
    entries = host("Ann/cats.of-mine", pictures) + host("bob/_x", {"photo.dat": picture_bytes(format="BMP")})
    entries[2] = replace(entries[2], generator="sd")
    build(entries, tmp_path / "out", **from_server(host))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # datasets 5.2 leaves metadata.csv open
        rows = load_dataset("imagefolder", data_dir=str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))["train"]
        gc.collect()
    assert rows["sha256"][:] == [row.sha256 for row in entries]
    assert rows["group"][:] == ["ann"] * 4 + ["bob"]
    assert rows["source"][:] == [row.repository for row in entries]
    assert rows["fold"][:] == [0] * 5
    assert rows["licence"][:] == ["MIT"] * 5
    assert rows[0]["image"].size == (8, 8)

    images = load_images(tmp_path / "out", cache_dir=tmp_path / "rows")["train"]
    facts = zip(images["source"][:], images["label"][:], images["generator"][:], images["content"][:], strict=True)
    assert sorted(facts, key=str) == sorted(
        ((row.repository, int(row.label == "fake"), row.generator or None, "cat") for row in entries), key=str
    )


@pytest.mark.parametrize("source", [from_mirror, from_server])
def test_what_is_missing_is_counted_by_reason(host, picture_bytes, tmp_path, monkeypatch, source):
    monkeypatch.setattr(repositories, "MAX_BYTES", 2000)
    files = {
        "good.png": picture_bytes(1),
        "changed.png": picture_bytes(2),
        "large.bmp": picture_bytes(3, "BMP", (64, 64)),
        "pointer.png": POINTER,
        "text.png": b"no image",
    }
    good, changed, *others = host("ann/a", files, links=[("link.png", "good.png"), ("folder", ".")])
    links = [
        replace(good, path=path, sha256=f"{n}" * 64) for n, path in enumerate(("link.png", "folder/good.png", "gone"))
    ]
    nowhere = [
        replace(good, commit="0" * 40, sha256="a" * 64),
        replace(good, repository="ann/gone", sha256="b" * 64),
        replace(good, repository="ann/gone2", sha256="c" * 64),
    ]
    [lost] = host("bob/b", {"lost.png": picture_bytes(5)})
    blob = run(host.root / "bob/b", "rev-parse", f"{lost.commit}:lost.png")
    (host.root / f"bob/b/objects/{blob[:2]}/{blob[2:]}").unlink()
    [tree] = host("dan/d", {"folder.png/file": b"1"})
    tree = replace(tree, path="folder.png")
    changed = replace(changed, sha256="d" * 64)
    report = build([good, changed, *others, *links, *nowhere, lost, tree], tmp_path / "out", **source(host))
    assert missing(report) == {
        "repository not available": 2,
        "commit not available": 1,
        "no file at the path": 2,
        "symbolic link": 1,
        "folder or submodule": 1,
        "content not available": 1,
        "too large": 1,
        "Git LFS pointer": 1,
        "changed bytes": 1,
        "not an image": 1,
    }
    assert report["n_found"] == 1
    reasons = {row["path"]: row["reason"] for row in report["missing_images"] if row["repository"] == "ann/a"}
    assert reasons["changed.png"] == "changed bytes"
    assert [file.stem for file in (tmp_path / "out/images").iterdir()] == [good.sha256]
    assert report["licences"] == [{"stated licence": "MIT", "repositories": 1, "real": 1, "fake": 0}]
    assert json.loads((tmp_path / "out/build.json").read_text()) == report


@pytest.mark.parametrize("place", ["ann+a", "ann+a.git", "ann/a.git", "ann+a/repo", "ann/a/.git"])
def test_a_mirror_has_one_of_a_few_layouts(host, picture_bytes, tmp_path, place):
    entries = host("ann/a", {"a.png": picture_bytes()})
    mirror = tmp_path / "mirror"
    (mirror / place).parent.mkdir(parents=True)
    (host.root / "ann/a").rename(mirror / place)
    assert build(entries, tmp_path / "out", base_url="https://example.invalid", mirror=mirror)["n_found"] == 1


@pytest.fixture
def reads(monkeypatch):
    """The object ids that are read."""
    names = []
    read = git.Git.read
    monkeypatch.setattr(git.Git, "read", lambda self, name, **limits: names.append(name) or read(self, name, **limits))
    return names


def words(file, folder, host):
    return ["--manifest", str(file), "--out", str(folder), "--base_url", host.root.as_uri()]


def test_an_interrupted_build_goes_on_where_it_stopped(host, pictures, tmp_path, monkeypatch, reads):
    file, folder = write(tmp_path / "m.csv", host("ann/a", pictures)), tmp_path / "out"
    suffix = repositories._suffix

    def interrupted(data, sha256):
        if len(reads) == 3:
            raise KeyboardInterrupt
        return suffix(data, sha256)

    monkeypatch.setattr(repositories, "_suffix", interrupted)
    assert main(words(file, folder, host)) == 130
    assert len(list((folder / "images").iterdir())) == 2
    assert not (folder / "metadata.csv").exists()
    (folder / "images" / f"{'0' * 64}.png.part").write_bytes(b"half")  # of one that was killed
    (folder / ".clones/old").mkdir(parents=True)
    monkeypatch.setattr(repositories, "_suffix", suffix)
    assert main(words(file, folder, host)) == 0
    assert len(reads) == 3 + 2
    assert {path.name for path in folder.iterdir()} == {"images", "metadata.csv", "build.json"}
    assert len(list((folder / "images").iterdir())) == 4


def test_git_that_is_interrupted_ends_the_build(host, pictures, tmp_path, monkeypatch):
    file = write(tmp_path / "m.csv", host("ann/a", pictures))
    program = tmp_path / "bin/git"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\nkill -INT $$\n")  # as at Ctrl-C, which only one thread of Python notices
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    assert main(words(file, tmp_path / "out", host)) == 130


def test_intact_images_are_kept_without_a_request_and_damaged_ones_are_read_again(host, pictures, tmp_path, reads):
    entries, server = host("ann/a", pictures), {"base_url": host.root.as_uri()}
    build(entries, tmp_path / "out", **server)
    damaged, *kept = sorted((tmp_path / "out/images").iterdir())
    damaged.write_bytes(damaged.read_bytes()[:-1])
    times = [file.stat().st_mtime_ns for file in kept]
    assert build(entries, tmp_path / "out", **server)["n_found"] == 4
    assert len(reads) == 4 + 1
    assert sha256_of(damaged) == damaged.stem
    assert [file.stat().st_mtime_ns for file in kept] == times
    (host.root / "ann/a").rename(host.root / "ann/elsewhere")
    assert build(entries, tmp_path / "out", **server)["n_found"] == 4
    damaged.write_bytes(b"")
    assert missing(build(entries, tmp_path / "out", **server)) == {"repository not available": 1}
    assert not damaged.exists()


def test_an_image_whose_row_was_removed_is_deleted(host, pictures, tmp_path, capsys):
    removed, *entries = host("ann/a", pictures)
    folder = tmp_path / "out"
    assert main(words(write(tmp_path / "m.csv.gz", [removed, *entries]), folder, host)) == 0
    assert "deleted" not in capsys.readouterr().out
    assert main(words(write(tmp_path / "m.csv.gz", entries), folder, host)) == 0
    assert "1 images" in capsys.readouterr().out
    assert sorted(file.stem for file in (folder / "images").iterdir()) == sorted(row.sha256 for row in entries)
    assert removed.sha256 not in (folder / "metadata.csv").read_text()


def test_the_status_is_zero_if_images_are_missing_and_one_if_all_are(host, pictures, tmp_path, capsys, caplog):
    entries = host("ann/a", pictures)
    gone = replace(entries[0], path="gone.jpg")
    assert main(words(write(tmp_path / "m.csv", [gone, *entries[1:]]), tmp_path / "out", host)) == 0
    assert "| no file at the path | 1 |" in capsys.readouterr().out
    assert "1/1 ann/a: 3 found, 1 no file at the path" in caplog.text
    assert main(words(write(tmp_path / "m.csv", [gone]), tmp_path / "other", host)) == 1


def test_a_slow_server_and_a_slow_repository_end_at_the_time_limit(host, pictures, tmp_path, monkeypatch):
    monkeypatch.setattr(git, "_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as server:
        began = time.monotonic()
        address = f"https://127.0.0.1:{server.getsockname()[1]}"
        assert missing(build(host("ann/a", pictures), tmp_path / "out", base_url=address)) == {"time limit": 4}
        assert time.monotonic() - began < 5
    assert list((tmp_path / "out/images").iterdir()) == []


def test_nothing_of_a_hostile_mirror_is_executed(host, picture_bytes, tmp_path, monkeypatch):
    trap = tmp_path / "executed"
    lost, good = host("ann/a", {"lost.png": picture_bytes(1), "good.png": picture_bytes(2)})
    bare = host.root / "ann/a"
    blob = run(bare, "rev-parse", f"{lost.commit}:lost.png")
    (bare / f"objects/{blob[:2]}/{blob[2:]}").unlink()  # Git would fetch it from the repository's remote
    for name, value in {
        "remote.origin.url": f"ext::touch {trap}",
        "remote.origin.promisor": "true",
        "protocol.ext.allow": "always",
        "core.fsmonitor": f"touch {trap}",
        "core.sshCommand": f"touch {trap}",
        "core.pager": f"touch {trap}",
    }.items():
        run(bare, "config", name, value)
    hook = bare / "hooks/post-checkout"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(f"#!/bin/sh\ntouch {trap}\n")
    hook.chmod(0o755)
    monkeypatch.setenv("GIT_OBJECT_DIRECTORY", str(tmp_path))  # as a hook of the caller's repository has it
    report = build([lost, good], tmp_path / "out", mirror=host.root, base_url="https://example.invalid")
    assert (report["n_found"], missing(report)) == (1, {"content not available": 1})
    assert not trap.exists()


ROW = entry("ann/a", "1" * 40, "real/a.png", b"1")
OTHER = entry("ann/a", "1" * 40, "real/b.png", b"2")


@pytest.mark.parametrize(
    ("rows", "names"),
    [
        ([], "found none"),
        ([replace(ROW, path="../a.png")], "path in row 1 of m.csv; found '../a.png' of 'ann/a'"),
        ([replace(ROW, path="a/../../b.png")], "found 'a/../../b.png'"),
        ([replace(ROW, path="/etc/passwd")], "found '/etc/passwd'"),
        ([replace(ROW, path="")], "found ''"),
        ([replace(ROW, path="a/")], "found 'a/'"),
        ([ROW, replace(OTHER, path="a\nb.png")], r"row 2 of m.csv; found '\n'"),
        ([replace(ROW, repository="--upload-pack=touch/a")], "found '--upload-pack=touch/a'"),
        ([replace(ROW, repository="ann/..")], "found 'ann/..'"),
        ([replace(ROW, repository="ann/a.git")], "found 'ann/a.git'"),
        ([replace(ROW, repository="../../etc")], "found '../../etc'"),
        ([replace(ROW, repository="ann/a/b")], "found 'ann/a/b'"),
        ([replace(ROW, commit="--all")], "found '--all'"),
        ([replace(ROW, commit="main")], "found 'main'"),
        ([replace(ROW, label="human")], "label in row 1 of m.csv; found 'human'"),
        ([replace(ROW, sha256="A" * 64)], "64 hexadecimal digits"),
        ([replace(ROW, fold="")], "fold in row 1"),
        ([replace(ROW, group="")], "group in row 1"),
        ([ROW, replace(ROW, label="fake")], "'real/a.png' (real) again in row 2 of m.csv (fake)"),
        ([ROW, replace(OTHER, fold="1")], "one fold for the group ann; found 1 in row 2 of m.csv, and 0 before"),
        ([ROW, replace(OTHER, group="b", repository="Ann/A")], "one group for the repository Ann/A"),
    ],
)
def test_a_bad_row_is_named_before_anything_is_read(rows, names, tmp_path, capsys):
    file = write(tmp_path / "m.csv", rows)
    assert main(["--manifest", str(file), "--out", str(tmp_path / "out")]) == 1
    error = capsys.readouterr().err
    assert names in error
    assert error.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["m.csv"]


@pytest.mark.parametrize(
    ("data", "names"),
    [
        (b"", "none named sha256"),
        (HEADER.replace(",fold", "").encode(), "none named fold"),
        (HEADER.encode() + b"\n1,2,3\n", "found '1'"),
        (HEADER.encode() + b'\n"', "comma-separated UTF-8"),
        (b"\xff\xfe", "comma-separated UTF-8"),
        (b"\x1f\x8b damaged", "comma-separated UTF-8"),
        (gzip.compress(HEADER.encode())[:-9], "comma-separated UTF-8"),
        (gzip.compress(bytes(2**20)), "at most 1,000 bytes"),
    ],
    ids=["empty", "column", "row", "quote", "encoding", "damaged", "cut", "large"],
)
def test_a_file_that_is_no_manifest_is_named(data, names, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(manifest, "_MAX_BYTES", 1000)
    file = tmp_path / "m.csv"
    file.write_bytes(data)
    assert main(["--manifest", str(file), "--out", str(tmp_path / "out")]) == 1
    assert names in capsys.readouterr().err
    assert main(["--manifest", str(tmp_path / "none.csv"), "--out", str(tmp_path / "out")]) == 1
    assert "none.csv" in capsys.readouterr().err


def test_reserved_repositories_are_refused_in_any_case(tmp_path, monkeypatch):
    reserved = tmp_path / "reserved.txt"
    reserved.write_text("".join(f"{hashlib.sha256(name).hexdigest()}\n" for name in (b"bob/b", b"eve/e")))
    monkeypatch.setattr(manifest, "RESERVED", reserved)
    file = write(tmp_path / "m.csv", [ROW, replace(OTHER, repository="Bob/B", group="bob")])
    with pytest.raises(ValueError, match=r"reserved for evaluation; found Bob/B in row 2"):
        read_manifest(file)
    assert read_manifest(write(file, [ROW])) == [ROW]


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ({"base_url": "ext::sh -c touch"}, "--base_url"),
        ({"base_url": "ssh://git@github.com"}, "--base_url"),
        ({"mirror": Path("nowhere")}, "--mirror"),
    ],
)
def test_other_protocols_and_missing_mirrors_are_refused(settings, names, tmp_path):
    with pytest.raises(ValueError, match=names):
        build([ROW], tmp_path / "out", **{"base_url": "https://example.invalid", **settings})
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["letter.txt", "images/holiday.jpg"])
def test_a_folder_with_other_files_is_refused(name, tmp_path):
    file = tmp_path / "out" / name
    file.parent.mkdir(parents=True)
    file.write_bytes(b"mine")
    with pytest.raises(ValueError, match=f"found {name}"):
        build([ROW], tmp_path / "out", base_url="https://example.invalid")
    assert file.read_bytes() == b"mine"


def test_the_shipped_manifest_is_valid_and_its_page_counts_its_licences():
    entries = read_manifest(MANIFEST)
    reserved = manifest.RESERVED.read_text().split()
    assert len(reserved) == len(set(reserved)) == 60
    assert all(len(line) == 64 for line in reserved)
    page = MANIFEST.with_name("README.md").read_text(encoding="utf-8")
    assert licence_table(entries).to_markdown() in page
    n_fake = sum(row.label == "fake" for row in entries)
    n_repositories, n_groups = len({row.repository for row in entries}), len({row.group for row in entries})
    first = f"{len(entries):,} images, {n_fake:,} fake and {len(entries) - n_fake:,} real, in {n_repositories} public"
    assert f"{first} Git repositories of {n_groups} owners" in page


@pytest.mark.slow
def test_a_killed_build_goes_on_and_makes_the_same_folder(host, picture_bytes, tmp_path):
    entries = [
        row for n in range(4) for row in host(f"ann/r{n}", {f"{i}.png": picture_bytes(100 * n + i) for i in range(50)})
    ]
    file = write(tmp_path / "m.csv", entries)
    assert main(words(file, tmp_path / "unbroken", host)) == 0
    folder = tmp_path / "killed"
    command = [sys.executable, "-m", "realfake_hf.data.repositories", *words(file, folder, host)]
    killed = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while len(list((folder / "images").glob("*.png"))) < 20:
        assert time.monotonic() < deadline
        time.sleep(0.001)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert len(list((folder / "images").glob("*.png"))) < len(entries)
    assert main(words(file, folder, host)) == 0
    files = {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert len(files) == len(entries) + 2
    assert {name: (tmp_path / "unbroken" / name).read_bytes() for name in files} == files
