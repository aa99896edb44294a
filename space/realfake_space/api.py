"""The functions behind the page and its endpoints: paths in; HTML, rows, dictionaries and PNGs out."""

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

import gradio as gr
from gradio.processing_utils import save_bytes_to_cache
from gradio.utils import get_upload_folder

from realfake_space.answers import (
    COLUMNS,
    Answer,
    Plain,
    answer,
    card,
    metadata_table,
    placeholder,
    read_measured,
    rejection,
)
from realfake_space.models import Model
from realfake_space.uploads import RejectedError
from realfake_space.worker import BATCH, Prediction

NO_IMAGE: Final = "Upload an image."


class Api:
    """Predicts and explains uploads with the models of the page.

    Args:
        models: by name, loaded or not.
    """

    def __init__(self, models: Mapping[str, Model]) -> None:
        self.models = models
        self.measured = read_measured()

    def show_verdict(self, name: str, path: str | None) -> str:
        """Predict an upload with one model; return HTML."""
        [item] = self._answers(name, [path])
        if item is None:
            return placeholder(name)
        return card(item, self.models[name].facts.point) if isinstance(item, Answer) else rejection(item)

    def show_map(self, name: str, path: str | None, method: str | None, strength: float) -> bytes | None:
        """Return a model's map over an upload as a PNG; None without an image."""
        try:
            return None if path is None else self.models[name].explain(path, method, strength)[0]
        except RejectedError:
            return None  # the message is shown in place of the verdict
        except ValueError as error:
            raise gr.Error(str(error), print_exception=False) from error

    def show_metadata(self, path: str | None) -> str:
        """Return the metadata of an upload as HTML."""
        try:
            return "" if path is None else metadata_table(next(iter(self.models.values())).readers.metadata(path))
        except RejectedError:
            return ""  # the message is shown in place of the verdict

    def predict(self, picture: str | None, model: str) -> Plain:
        """Predict an upload with the model named; a dictionary with `error` if there is no answer."""
        if model not in self.models:
            return {"error": self._unknown(model)}
        [item] = self._answers(model, [picture])
        return item.to_dict() if isinstance(item, Answer) else {"error": item or NO_IMAGE}

    def explain(self, picture: str | None, model: str, method: str, strength: float) -> tuple[bytes | None, Plain]:
        """Return a map over an upload as a PNG, and its description; a dictionary with `error` if there is none."""
        if model not in self.models:
            return None, {"error": self._unknown(model)}
        if picture is None:
            return None, {"error": NO_IMAGE}
        try:
            return self.models[model].explain(picture, method or None, strength)
        except ValueError as error:
            return None, {"error": str(error)}

    def table(self, paths: Sequence[str], progress: Callable[[int, int], None]) -> list[list[str]]:
        """Predict many uploads with all models; return rows of `COLUMNS` in the order of the uploads."""
        rows: list[list[str]] = []
        slow: set[str] = set()
        for start in range(0, len(paths), BATCH):
            batch = paths[start : start + BATCH]
            answers = {name: self._answers(name, batch, slow) for name in self.models}
            for position, path in enumerate(batch):
                for name in self.models:
                    item, file = answers[name][position], Path(path).name
                    rows.append(item.to_row(file) if isinstance(item, Answer) else [file, name, str(item), "", "", ""])
            progress(min(start + BATCH, len(paths)), len(paths))
        return rows

    def write_csv(self, rows: Sequence[Sequence[str]]) -> str:
        """Write rows of `table` as a CSV file beside the uploads; return its path."""
        table = io.StringIO(newline="")
        writer = csv.writer(table)
        writer.writerow(COLUMNS)
        writer.writerows([[_escaped(cell) for cell in row] for row in rows])
        file: str = save_bytes_to_cache(table.getvalue().encode("utf-8"), "verdicts.csv", get_upload_folder())
        return file

    def predict_one(self, name: str, path: str) -> Answer:
        """Predict one file with one model.

        Raises:
            RejectedError: the file is rejected.
        """
        [item] = self._answers(name, [path])
        if not isinstance(item, Answer):
            raise RejectedError(str(item))
        return item

    def _answers(
        self, name: str, paths: Sequence[str | None], slow: set[str] | None = None
    ) -> list[Answer | str | None]:
        """Return answers in order; a message for a rejected file, None for no file."""
        model = self.models[name]
        return [
            answer(model.name, model.facts, item, self.measured) if isinstance(item, Prediction) else item
            for item in model.predict(paths, slow=slow)
        ]

    def _unknown(self, name: str) -> str:
        return f"Wanted a model named {' or '.join(self.models)}; found {name!r}."


def _escaped(cell: str) -> str:
    """Escape a cell that a spreadsheet would evaluate as a formula."""
    return f"'{cell}" if cell[:1] in ("=", "+", "-", "@") else cell
