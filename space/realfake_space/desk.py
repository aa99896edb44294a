"""What the page and its API ask for, in plain values: paths in; HTML, rows, dictionaries and PNGs out."""

import atexit
import csv
import html
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import gradio as gr

from realfake_space.answers import (
    TABLE_HEAD,
    Answer,
    answer,
    card,
    facts,
    read_measured,
    refusal,
    refused_row,
    table_row,
)
from realfake_space.lineup import Contestant
from realfake_space.model_process import BATCH, Judged
from realfake_space.pictures import RefusedError, read_header

COPIED_SECONDS: Final = 60  # after that a table is copied
Plain = dict[str, Any]


class Desk:
    """Answers for a line-up of models.

    Args:
        lineup: the models by name, loaded or not.
    """

    table_head = TABLE_HEAD

    def __init__(self, lineup: Mapping[str, Contestant]) -> None:
        self.lineup = lineup
        self.measured = read_measured()
        self._tables = Path(tempfile.mkdtemp(prefix="realfake-tables-"))
        atexit.register(shutil.rmtree, self._tables, ignore_errors=True)

    def waiting(self, name: str) -> str:
        """What stands in a model's place before there is a picture."""
        model = html.escape(name)
        return f'<div class="rf-card rf-waiting"><p class="rf-model">{model}</p><p>Give a picture.</p></div>'

    def show_verdicts(self, name: str, paths: Sequence[str | None]) -> list[list[str]]:
        """Judge uploads by one model: HTML of each."""
        point = self.lineup[name].facts.point
        found = self._judge(name, paths)
        return [
            [
                self.waiting(name) if one is None
                else refusal(one) if isinstance(one, str)
                else card(one, point)
                for one in found
            ]
        ]  # fmt: skip

    def show_map(self, name: str, path: str | None, method: str | None, strength: float) -> bytes | None:
        """Lay a model's map over an upload, as a PNG; None where there is no picture."""
        try:
            return None if path is None else self.lineup[name].explain(path, method, strength)[0]
        except RefusedError:
            return None  # the verdict's place says why
        except ValueError as error:
            raise gr.Error(str(error), print_exception=False) from error

    def facts(self, path: str | None) -> str:
        """What the file of an upload says of itself, as HTML."""
        try:
            return "" if path is None else facts(read_header(path)[1])
        except RefusedError:
            return ""  # the verdicts' places say why

    def predict(self, picture: Sequence[str | None], model: Sequence[str]) -> list[list[Plain]]:
        """Judge uploads, each by a model that is named; a dictionary with `error` where there is no answer."""
        found: list[Plain] = [{} for _ in picture]
        for name in dict.fromkeys(model):
            places = [place for place, one in enumerate(model) if one == name]
            if name not in self.lineup:
                answers: list[Answer | str | None] = [self._unknown(name)] * len(places)
            else:
                answers = self._judge(name, [picture[place] for place in places])
            for place, one in zip(places, answers, strict=True):
                found[place] = one.to_dict() if isinstance(one, Answer) else {"error": one or "Give a picture."}
        return [found]

    def explain(self, picture: str | None, model: str, method: str, strength: float) -> tuple[bytes | None, Plain]:
        """Lay a map over an upload, as a PNG, and say what it is; a dictionary with `error` where there is none."""
        if model not in self.lineup or picture is None:
            return None, {"error": self._unknown(model) if model not in self.lineup else "Give a picture."}
        try:
            return self.lineup[model].explain(picture, method or None, strength)
        except ValueError as error:
            return None, {"error": str(error)}

    def table(self, paths: Sequence[str], progress: Callable[[int, int], None]) -> list[list[str]]:
        """Judge many uploads by all models: rows below `table_head`, in the order of the uploads."""
        rows: list[list[str]] = []
        for start in range(0, len(paths), BATCH):
            some = paths[start : start + BATCH]
            by_model = {name: self._judge(name, some) for name in self.lineup}
            for place, path in enumerate(some):
                for name, answers in by_model.items():
                    one = answers[place]
                    file = Path(path).name
                    rows += [table_row(file, one)] if isinstance(one, Answer) else [refused_row(file, name, str(one))]
            progress(min(start + BATCH, len(paths)), len(paths))
        return rows

    def csv(self, rows: Sequence[Sequence[str]]) -> str:
        """Write rows of `table` as a CSV file and give its path; Gradio copies it at once for the browser to fetch."""
        for old in self._tables.iterdir():
            if time.time() - old.stat().st_mtime > COPIED_SECONDS:
                old.unlink(missing_ok=True)
        with tempfile.NamedTemporaryFile(
            "w", suffix=".csv", prefix="verdicts-", newline="", delete=False, encoding="utf-8", dir=self._tables
        ) as file:
            writer = csv.writer(file)
            writer.writerow(self.table_head)
            writer.writerows([[_harmless(cell) for cell in row] for row in rows])
        return file.name

    def judge_one(self, name: str, path: str) -> Answer:
        """Judge one file by one model.

        Raises:
            RefusedError: the file gets no verdict.
        """
        [found] = self._judge(name, [path])
        if not isinstance(found, Answer):
            raise RefusedError(str(found))
        return found

    def _judge(self, name: str, paths: Sequence[str | None]) -> list[Answer | str | None]:
        """Answers in order; a sentence for a file that gets none, None where there is no file."""
        contestant = self.lineup[name]
        return [
            answer(contestant.name, contestant.facts, one, self.measured) if isinstance(one, Judged) else one
            for one in contestant.judge(paths)
        ]

    def _unknown(self, name: str) -> str:
        return f"Wanted a model named {' or '.join(self.lineup)}; found {name!r}."


def _harmless(cell: str) -> str:
    """A cell that no spreadsheet takes for a formula."""
    return f"'{cell}" if cell[:1] in ("=", "+", "-", "@") else cell
