"""The examples of the page, and the check that an installation gives the expected answers to them."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from realfake_hf.tables import markdown_table
from realfake_space.api import Api

FOLDER: Final = Path(__file__).resolve().parents[1] / "examples"
TOLERANCES: Final = {"float32": 0.002, "bfloat16": 0.06}  # of a probability; the expected ones are in float32
GROUPS: Final = {  # by their names in expected.json, in the order of the page
    "small": "Photographs as small as those of CIFAKE, judged rightly by the models for such images",
    "today": "Photographs of today's size, judged rightly by wild",
    "failure": "Failures: models are sure of the wrong answer",
}
NOTE: Final = (
    "Probability of AI-generated. The models of CIFAKE were trained on images of 32 x 32 pixels only; on the others "
    "they may be wrong."
)


@dataclass(frozen=True)
class Example:
    """An example."""

    file: Path  # its path
    title: str  # displayed on the page
    origin: str  # source and licence
    is_fake: bool  # the true label
    group: str  # where it is displayed, a key of `GROUPS`
    wrong: tuple[str, ...]  # names of the models of the Space that are sure of the wrong label
    expected: dict[str, float]  # `p_fake` by digest of the weights


@cache
def read_examples(folder: Path = FOLDER) -> tuple[Example, ...]:
    """Read the examples that are listed in expected.json."""
    rows = json.loads((folder / "expected.json").read_text(encoding="utf-8"))["examples"]
    return tuple(Example(**{**row, "file": folder / row["file"], "wrong": tuple(row["wrong"])}) for row in rows)


def caption(example: Example) -> str:
    """Return what is displayed below the thumbnail of an example: its title, the true answer, and who is wrong.

    Only a failure is marked as one: a model that is not meant for an image may be wrong on it as well.
    """
    truth = "AI-generated" if example.is_fake else "real"
    wrong = f"\nwrong: {', '.join(example.wrong)}" if example.group == "failure" else ""
    return f"{example.title}\ntruth: {truth}{wrong}"


def expected_table(api: Api | None = None) -> str:
    """Render the examples and their expected probabilities as Markdown; with an API, compare its answers with them."""
    header = ["example", "label", "origin", "model", "expected", *(["this installation", "result"] if api else [])]
    return f"{markdown_table(header, _rows(api), align='llllrrl')}\n\n{NOTE}"


def _rows(api: Api | None) -> Iterator[list[str]]:
    names = json.loads((FOLDER / "expected.json").read_text(encoding="utf-8"))["models"]
    for example in read_examples():
        label = "AI-generated" if example.is_fake else "real"
        for digest, expected in example.expected.items():
            row = [example.title, label, example.origin, names[digest], f"{expected:.3f}"]
            yield row + (_comparison(api, example, digest, expected) if api else [])


def _comparison(api: Api, example: Example, digest: str, expected: float) -> list[str]:
    name = next((name for name, model in api.models.items() if model.facts.digest == digest), None)
    if name is None:
        return ["", "model is not on this page"]
    p_fake = api.predict_one(name, str(example.file)).p_fake
    is_expected = abs(p_fake - expected) <= TOLERANCES[api.models[name].facts.precision]
    return [f"{p_fake:.3f}", "as expected" if is_expected else "**differs**"]
