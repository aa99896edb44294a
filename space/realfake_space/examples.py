"""The examples of the page, and what an installation should answer to them."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from realfake_space.desk import Desk

FOLDER: Final = Path(__file__).resolve().parents[1] / "examples"
TOLERANCES: Final = {"float32": 0.002, "bfloat16": 0.03}  # of a probability; what is expected is of float32


@dataclass(frozen=True)
class Example:
    """One example.

    Attributes:
        file: where it lies.
        title: what it is.
        origin: where it comes from, and its licence.
        is_fake: the truth.
        expected: `p_fake` by the digest of a model's weights.
    """

    file: Path
    title: str
    origin: str
    is_fake: bool
    expected: dict[str, float]


def read_examples(folder: Path = FOLDER) -> tuple[Example, ...]:
    """Read the examples that lie in a folder with their expected.json."""
    rows = json.loads((folder / "expected.json").read_text(encoding="utf-8"))["examples"]
    return tuple(Example(**{**row, "file": folder / row["file"]}) for row in rows)


EXAMPLES: Final = read_examples()


def expected_table(desk: Desk | None = None) -> str:
    """The examples as a Markdown table, with what this installation answers where a desk is given."""
    rows = "\n".join(_rows(desk))
    head = "| example | truth | origin | model | expected | " + ("this installation | |\n" if desk else "\n")
    line = "|---|---|---|---|--:|" + ("--:|---|\n" if desk else "\n")
    note = (
        "Probabilities of AI-generated. The page's models may well be wrong about the examples: these pictures are "
        "not of the kind that they learnt from."
    )
    return f"{head}{line}{rows}\n\n{note}"


def check_installation(desk: Desk) -> str:
    """Judge every example by every model, and compare with what is expected."""
    return expected_table(desk)


def _rows(desk: Desk | None) -> Iterator[str]:
    names = json.loads((FOLDER / "expected.json").read_text(encoding="utf-8"))["models"]
    for one in EXAMPLES:
        truth = "AI-generated" if one.is_fake else "real"
        for digest, expected in one.expected.items():
            row = f"| {one.title} | {truth} | {one.origin} | {names[digest]} | {expected:.3f} |"
            yield row + (_found(desk, one, digest, expected) if desk else "")


def _found(desk: Desk, one: Example, digest: str, expected: float) -> str:
    found = next((name for name, contestant in desk.lineup.items() if contestant.facts.digest == digest), None)
    if found is None:
        return " | model is not on this page |"
    p_fake = desk.judge_one(found, str(one.file)).p_fake
    is_expected = abs(p_fake - expected) <= TOLERANCES[desk.lineup[found].facts.precision]
    return f" {p_fake:.3f} | {'as expected' if is_expected else '**differs**'} |"
