"""The file of all maps, written row by row, and the names of the pictures' own files."""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from realfake_hf.attribution.methods import Explanation
from realfake_hf.explain.inputs import Exhibit

Row = Mapping[str, Any]


@contextmanager
def rows_file(file: Path, *, run: Row, ending: Row) -> Iterator[Callable[[Row], None]]:
    """Write a JSON object of a run's facts and its rows, one a line, as they come; give the function that adds a row.

    The file gets its name when the block ends, however it ends, and is whole then.

    Args:
        file: where it goes; its folder is made.
        run: what is known before the first row: `{"run": run, "explanations": [rows], **ending}`.
        ending: read when the block ends.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f"{file.name}.part")
    separator = "\n"
    with part.open("w", encoding="utf-8") as text:

        def add(row: Row) -> None:
            nonlocal separator
            text.write(separator + json.dumps(row))
            separator = ",\n"

        text.write(f'{{"run": {json.dumps(run, indent=2)},\n"explanations": [')
        try:
            yield add
        finally:
            text.write(f"\n],\n{json.dumps(ending, indent=2).removeprefix('{').lstrip()}\n")
            text.flush()
            part.replace(file)


def to_row(exhibit: Exhibit, model: str, explanation: Explanation, *, file: str) -> dict[str, Any]:
    """Put an explanation into plain numbers and words.

    Args:
        exhibit: the picture.
        model: the name of the model.
        explanation: its explanation; the map's values get four digits.
        file: the picture's figure, relative to the folder of the run.
    """
    return {
        exhibit.kind: exhibit.name,
        "model": model,
        "verdict": explanation.verdict.label,
        "p_fake": explanation.verdict.p_fake,
        "is_sure": explanation.verdict.is_sure,
        "truth": exhibit.truth,
        "method": explanation.method,
        "options": explanation.options,
        "layer": explanation.layer,
        "target": explanation.target,
        "is_empty": explanation.is_empty,
        "map": np.round(explanation.map.astype(np.float64), 4).tolist(),
        "file": file,
    }


def unique_name(stem: str, taken: set[str]) -> str:
    """Make a file name of letters, digits, `_` and `-` that is not taken, whatever its case, and take it.

    >>> taken = set()
    >>> [unique_name(stem, taken) for stem in ("frog (7)", "Frog-7", "..", "")]
    ['frog-7', 'Frog-7-2', 'picture', 'picture-2']
    """
    plain = re.sub(r"[^A-Za-z0-9_]+", "-", stem).strip("-")[:80] or "picture"
    name, number = plain, 1
    while name.lower() in taken:
        number += 1
        name = f"{plain}-{number}"
    taken.add(name.lower())
    return name
