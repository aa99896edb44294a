"""What README and documentation name exists: files, make targets, modules, flags of the scripts."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / name for name in ("README.md", "AGENTS.md", "CONTRIBUTING.md")] + sorted((ROOT / "docs").glob("*.md"))
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))


def name_of(page):
    return page.relative_to(ROOT).as_posix()


@pytest.fixture(params=PAGES, ids=name_of)
def page(request):
    return request.param


def test_links_lead_to_files(page):
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8"))
    local = [link for link in links if not link.startswith(("http://", "https://"))]
    assert [link for link in local if not (page.parent / link).exists()] == []


def test_make_targets_exist(page):
    commands = re.findall(r"(?:^|`)make ([a-z -]+?)(?:$|`|  )", page.read_text(encoding="utf-8"), re.MULTILINE)
    assert {target for command in commands for target in command.split()} - TARGETS == set()


def test_modules_and_recipes_exist(page):
    text = re.sub(r"^\| before \| after \|$.*", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    modules = set(re.findall(r"-m ((?:realfake_hf|benchmarks|tests)[\w.]*\w)", text))
    assert [module for module in modules if importlib.util.find_spec(module) is None] == []
    assert [file for file in re.findall(r"recipes/[\w/]+\.yaml", text) if not (ROOT / file).exists()] == []


def test_the_commands_of_the_table_of_changes_exist():
    table = (ROOT / "docs/design.md").read_text(encoding="utf-8").partition("| before | after |")[2]
    modules = set()
    for row in table.strip().splitlines()[1:]:
        first, *others = re.findall(r"`(\.?[a-z_.]+)", row.split("|")[2])
        modules |= {first, *(f"{first.rpartition('.')[0]}{other}" for other in others)}
    assert len(modules) > 10
    assert [module for module in sorted(modules) if importlib.util.find_spec(module) is None] == []


@pytest.mark.parametrize("script", ["train.py", "explain.py", "crosseval.py"])
def test_flags_of_the_scripts_exist(script):
    known = subprocess.run(
        [sys.executable, ROOT / script, "--help"], capture_output=True, text=True, check=True, cwd=ROOT
    ).stdout
    if script == "explain.py":
        study = [sys.executable, ROOT / script, "--study", "--help"]
        known += subprocess.run(study, capture_output=True, text=True, check=True, cwd=ROOT).stdout
    commands = [
        line.partition(script)[2].partition("#")[0]
        for page in PAGES
        for line in page.read_text(encoding="utf-8").splitlines()
        if re.match(rf"(\$ )?(python|accelerate launch.*?) {script}", line)
    ]
    flags = {flag for command in commands for flag in re.findall(r"--[\w-]+", command)} - {"--config", "--study"}
    assert commands
    assert {flag for flag in flags if f"{flag} " not in known} == set()


def test_the_readme_fits_one_page():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150
    assert len((ROOT / "AGENTS.md").read_text(encoding="utf-8").splitlines()) <= 60
