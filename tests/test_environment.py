import json
import re
import shutil
import subprocess
import sys
from importlib.metadata import version

import pytest
import torch
from datasets import Dataset, DatasetDict

from realfake_hf import environment as module
from realfake_hf.environment import (
    MAIN_PACKAGES,
    commit,
    data_fingerprint,
    environment,
    main_versions,
    peak_memory_gib,
)

ROWS = {"id": ["a", "b", "c"], "label": [0, 1, 1], "sha256": ["11", "22", "33"]}


def fingerprint(order=(0, 1, 2), **changed):
    rows = Dataset.from_dict({**ROWS, **changed}).select(order)
    return data_fingerprint(DatasetDict(train=rows))["train"]


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """The folder of the package in a git checkout with one commit, which tracks a file of it and one of results/."""
    if not shutil.which("git"):
        pytest.skip("git is not installed")
    file = tmp_path / "package" / "code.py"
    file.parent.mkdir()
    file.write_text("1\n")
    (tmp_path / "results").mkdir()
    (tmp_path / "results/found.json").write_text("1\n")
    settings = ["-c", "user.name=n", "-c", "user.email=e@example.org", "-c", "commit.gpgsign=false"]
    for words in (["init", "-q"], ["add", "."], [*settings, "commit", "-q", "-m", "first"]):
        subprocess.run(["git", *words], cwd=tmp_path, check=True, capture_output=True)
    monkeypatch.setattr(module, "__file__", str(file))
    return file.parent


def test_a_fingerprint_counts_the_classes_of_each_split():
    train, test = Dataset.from_dict(ROWS), Dataset.from_dict(ROWS).select([0, 1])
    fingerprint = data_fingerprint(DatasetDict(train=train, test=test))
    assert [(name, row["n"], row["n_real"], row["n_fake"]) for name, row in fingerprint.items()] == [
        ("train", 3, 1, 2),
        ("test", 2, 1, 1),
    ]


def test_the_fingerprint_is_the_same_for_the_same_rows():
    assert fingerprint() == fingerprint()
    assert fingerprint(generator=["x", "y", "z"]) == fingerprint()


@pytest.mark.parametrize(
    "change",
    [
        {"label": [1, 0, 1]},
        {"sha256": ["11", "22", "34"]},
        {"id": ["a", "b", "d"]},
        {"order": (0, 2, 1)},
        {"order": (0, 1)},
    ],
    ids=["label", "picture", "id", "order", "fewer"],
)
def test_the_fingerprint_changes_with(change):
    assert fingerprint(**change)["sha256"] != fingerprint()["sha256"]


@pytest.mark.usefixtures("checkout")
def test_a_commit_is_the_full_hash():
    assert re.fullmatch(r"[0-9a-f]{40}", commit())


def test_a_tag_does_not_hide_the_commit(checkout):
    before = commit()
    subprocess.run(["git", "tag", "v1"], cwd=checkout, check=True)
    assert commit() == before


def test_changed_files_make_the_commit_dirty(checkout):
    before = commit()
    (checkout / "code.py").write_text("2\n")
    assert commit() == f"{before}-dirty"


def test_changed_results_do_not_make_the_commit_dirty(checkout):
    before = commit()
    (checkout.parent / "results/found.json").write_text("2\n")
    assert commit() == before


def test_code_that_is_not_tracked_has_no_commit(checkout, monkeypatch):
    installed = checkout / "site-packages" / "code.py"
    installed.parent.mkdir()
    installed.touch()
    monkeypatch.setattr(module, "__file__", str(installed))
    assert commit() is None


def test_outside_a_checkout_there_is_no_commit(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "__file__", str(tmp_path / "code.py"))
    assert commit() is None


def test_outside_a_checkout_the_variable_names_the_commit(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "__file__", str(tmp_path / "code.py"))
    monkeypatch.setenv("REALFAKE_COMMIT", "0123abc")
    assert commit() == "0123abc"


@pytest.mark.usefixtures("checkout")
def test_in_a_checkout_the_variable_is_ignored(monkeypatch):
    before = commit()
    monkeypatch.setenv("REALFAKE_COMMIT", "0123abc")
    assert commit() == before


def test_without_git_there_is_no_commit(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert commit() is None


def test_the_environment_contains_versions_and_machine_and_is_plain_json():
    found = json.loads(json.dumps(environment()))
    assert found["versions"]["torch"] == version("torch")
    assert {*MAIN_PACKAGES, "pytest", "scikit-learn"} <= found["versions"].keys()
    assert main_versions(found["versions"]).keys() == set(MAIN_PACKAGES)
    assert found["machine"]["cores"] >= 1
    assert found["machine"]["processor"]
    assert set(found) == {"commit", "python", "versions", "machine"}


def test_the_environment_contains_the_number_of_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        assert environment()["machine"]["threads"] == 3
    finally:
        torch.set_num_threads(before)


def test_a_package_that_is_not_imported_has_no_version_in_the_environment(monkeypatch):
    assert "iniconfig" in environment()["versions"]
    for name in [name for name in sys.modules if name.partition(".")[0] == "iniconfig"]:
        monkeypatch.delitem(sys.modules, name)
    assert "iniconfig" not in environment()["versions"]


def test_peak_memory_is_positive_and_never_falls():
    first = peak_memory_gib()
    assert 0.01 < first < 1000
    assert peak_memory_gib() >= first
