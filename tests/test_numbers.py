"""Every number in prose comes from a results file.

A block of Markdown (paragraph, list item, table row) that contains a number names its source in a comment:

    <!-- source: crosseval.json cells vit wild-art native -->   a value in that file whose path contains these words
    <!-- cited: 92.98 Bird & Lotfi (2024) -->                   the numbers listed, from elsewhere

Several comments may stand in one block. A number matches a value that rounds to it; `%` and `points` mean hundredths.
"""

import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NUMBER = re.compile(
    r"(?<![\w./#-])([+-]?\d{1,3}(?:,\d{3})+(?:\.\d+)?|[+-]?\d+(?:\.\d+)?)"  # 20,000 or +0.051
    r"(?![\w/-])(?!\.\d)(%| %| points?)?"
)
SOURCE = re.compile(r"<!-- source: (\S+\.json)([^>]*?) -->")
CITED = re.compile(r"<!-- cited: ([\d., ]+)[^>]*-->")


def leaves(content: object, path: tuple[str, ...] = ()) -> Iterator[tuple[frozenset[str], float]]:
    """Yield the words of the path to each number in plain JSON; the strings of a list's dictionaries are words too."""
    match content:
        case bool() | None | str():
            return
        case int() | float():
            yield frozenset(word for part in path for word in part.split()), float(content)
        case dict():
            names = [value for value in content.values() if isinstance(value, str) and len(value) < 40]
            extra = tuple(names) if path and path[-1] == "[]" else ()
            for key, value in content.items():
                yield from leaves(value, (*path, *extra, str(key)))
        case list():
            for value in content:
                yield from leaves(value, (*path, "[]"))


@cache
def values(file: Path) -> tuple[tuple[frozenset[str], float], ...]:
    return tuple(leaves(json.loads(file.read_text(encoding="utf-8"))))


def blocks(markdown: str) -> Iterator[str]:
    """Yield paragraphs, list items and table rows, without front matter, code and headings."""
    text = re.sub(r"\A---\n.*?\n---\n", "", markdown, flags=re.DOTALL)
    text = re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
    for block in re.split(r"\n\s*\n|\n(?=[-*|] ?|\d+\. )", text):
        if block.strip() and not block.lstrip().startswith("#"):
            yield block.strip()


def prose(block: str) -> str:
    """Drop comments, code spans, link targets, list numbers and years in brackets."""
    for pattern in (
        r"<!--.*?-->",
        r"`[^`]*`",
        r"(?<=\])\([^)]*\)",
        r"^\d+\. ",
        r"\((?:[^()]*, )?\d{4}\)",
        r"https?://\S+",
    ):
        block = re.sub(pattern, " ", block, flags=re.DOTALL)
    return block


def rounds_to(value: float, shown: str, unit: str) -> bool:
    number = float(shown.replace(",", ""))
    digits = len(shown.partition(".")[2])
    scales = (100, 1) if unit.strip() else (1,)
    return any(abs(value * scale - number) <= 0.5 * 10**-digits * (1 + 1e-6) for scale in scales)


def unsupported(markdown: str, results: Path, *, default: tuple[Path, ...] = ()) -> list[str]:
    """Return each number that its block's sources do not contain, with the block that it stands in."""
    missing = []
    for block in blocks(markdown):
        sources = [(results / name, frozenset(words.split())) for name, words in SOURCE.findall(block)]
        sources = sources or [(file, frozenset[str]()) for file in default]
        cited = {number for numbers in CITED.findall(block) for number in re.split(r",? +", numbers.strip())}
        for shown, unit in NUMBER.findall(prose(block)):
            known = (value for file, words in sources for path, value in values(file) if words <= path)
            if shown not in cited and not any(rounds_to(value, shown, unit) for value in known):
                missing.append(f"{shown}{unit} in: {' '.join(block.split())}")
    return missing


@pytest.mark.parametrize("page", ["README.md", "docs/findings.md", "docs/wild.md"])
def test_every_number_stands_in_the_results_file_that_its_sentence_names(page):
    assert unsupported((ROOT / page).read_text(encoding="utf-8"), ROOT / "results") == []


def test_every_number_of_the_model_card_stands_in_a_results_file_or_in_the_run_folder_of_the_model():
    files = (*(ROOT / "results").glob("*.json"), *(ROOT / "space/models/cifake-vit").glob("*.json"))
    card = (ROOT / "model_card.md").read_text(encoding="utf-8")
    assert unsupported(card, ROOT / "results", default=tuple(sorted(files))) == []


@pytest.fixture
def results(tmp_path):
    cells = [{"model": "vit", "accuracy": 0.9876, "n": 20_000}, {"model": "cnn", "accuracy": 0.9601, "n": 20_000}]
    (tmp_path / "grid.json").write_text(json.dumps({"cells": cells}))
    return tmp_path


@pytest.mark.parametrize(
    "block",
    [
        "The ViT reaches 98.8% on 20,000 images. <!-- source: grid.json vit -->",
        "It is 98.76% or 0.988. <!-- source: grid.json cells vit accuracy -->",
        "The paper reports 92.98%. <!-- cited: 92.98 the paper -->",
        "A 32-pixel image, ViT-B/16, `n=7`, Bird & Lotfi (2024).",
        "| vit | 98.8% | <!-- source: grid.json vit -->\n| cnn | 96.0% | <!-- source: grid.json cnn -->",
    ],
)
def test_a_number_with_a_source_passes(results, block):
    assert unsupported(block, results) == []


@pytest.mark.parametrize(
    "block",
    [
        "The ViT reaches 98.9% on 20,000 images. <!-- source: grid.json vit -->",
        "The ViT reaches 96.01%. <!-- source: grid.json vit -->",
        "The CNN reaches 96.01%.",
        "The paper reports 92.89%. <!-- cited: 92.98 the paper -->",
        "| vit | 98.8% | <!-- source: grid.json vit -->\n| cnn | 98.8% | <!-- source: grid.json cnn -->",
    ],
)
def test_a_number_without_a_source_is_named_with_its_sentence(results, block):
    [missing] = unsupported(block, results)
    number = missing.split(" in: ")[0]
    assert number.strip(" %") in block
