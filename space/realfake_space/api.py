"""The functions behind the page and its endpoints: paths in; HTML, rows, dictionaries and PNGs out."""

import csv
import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import gradio as gr
from gradio.processing_utils import save_bytes_to_cache
from gradio.utils import get_upload_folder

from realfake_space.answers import COLUMNS, Answer, Plain, answer, card, metadata_table, read_measured, rejection
from realfake_space.models import Model
from realfake_space.reader import Readers
from realfake_space.summary import (
    NO_MODEL,
    PURPOSES,
    SMALL,
    UPLOAD,
    Item,
    Picture,
    gallery,
    map_legend,
    note,
    summary,
    thumbnail,
)
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

    def show_verdicts(self, path: str | None, names: Sequence[str]) -> Iterator[list[str]]:
        """Predict an upload with these models, one after another; after each, yield the summary and all cards as HTML.

        The card of a model that has not answered yet, or that was not asked, is empty.
        """
        items: dict[str, Item] = {}
        if path is None or not names:
            yield [note(NO_MODEL if path else UPLOAD), *[""] * len(self.models)]
            return
        for name in names:
            items[name] = self._answer(name, path)
            waiting = [other for other in names if other not in items]
            text = summary(items, self._purposes(items), is_small=self._is_small(path), waiting=waiting)
            is_answered = any(isinstance(item, Answer) for item in items.values())
            yield [text, *[self._card(other, items.get(other)) if is_answered else "" for other in self.models]]

    def show_map(self, name: str, path: str | None, method: str | None, strength: float) -> tuple[bytes | None, str]:
        """Return a model's map over an upload as a PNG, and its legend as HTML; nothing without an image."""
        try:
            if path is None:
                return None, ""
            shown, about = self.models[name].explain(path, method, strength)
        except RejectedError:
            return None, ""  # the message is shown in place of the verdict
        except ValueError as error:
            raise gr.Error(str(error), print_exception=False) from error
        return shown, map_legend(about["explains"], is_empty=about["is_empty"])

    def show_metadata(self, path: str | None) -> str:
        """Return the metadata of an upload, and what it says of itself, as HTML."""
        if path is None:
            return ""
        try:
            metadata = self._readers.metadata(path)
        except RejectedError:
            return ""  # the message is shown in place of the verdict
        evidence = None
        with suppress(RejectedError):
            evidence = self._readers.provenance(path)
        return metadata_table(metadata, evidence)

    def predict(self, picture: str | None, model: str) -> Plain:
        """Judge whether a picture is a photograph or AI-generated, with one model.

        The verdict may be wrong, and is evidence against no one. `decided` is false where the model is unsure; the
        label is no more than a guess then. The model wild is for today's pictures, the models of CIFAKE are for images
        of 32 x 32 pixels.

        Args:
            picture: an image file of at most 32 MiB, as a data URL or an upload of this page; no address elsewhere.
            model: name of the model; by default the first of the page.

        Returns:
            The verdict in words, the label (REAL or FAKE) and the probability that the picture is AI-generated
            what that probability meant on test images, and warnings; or an error.
        """
        if model not in self.models:
            return {"error": self._unknown(model)}
        item = self._answer(model, picture)
        return item.to_dict() if isinstance(item, Answer) else {"error": item or NO_IMAGE}

    def explain(self, picture: str | None, model: str, method: str, strength: float) -> tuple[bytes | None, Plain]:
        """Show where a model looked in a picture, as a map over it.

        A map describes the model and proves nothing about the picture. `explains` says for which label the bright
        regions speak, or is null where the method does not tell.

        Args:
            picture: an image file of at most 32 MiB, as a data URL or an upload of this page; no address elsewhere.
            model: name of the model; by default the first of the page.
            method: such as relevance, rollout, grad_cam or integrated_gradients; empty for the model's default.
            strength: opacity of the map, from 0 to 1.

        Returns:
            The picture under its map, and the map as numbers; or an error.
        """
        if model not in self.models:
            return None, {"error": self._unknown(model)}
        if picture is None:
            return None, {"error": NO_IMAGE}
        try:
            return self.models[model].explain(picture, method or None, strength)
        except ValueError as error:
            return None, {"error": str(error)}

    def judge(self, paths: Sequence[str], progress: Callable[[int, int], None]) -> Iterator[dict[str, Item]]:
        """Predict many uploads with all models; yield the answers to each by model, in order."""
        slow: set[str] = set()
        for start in range(0, len(paths), BATCH):
            batch = paths[start : start + BATCH]
            answers = {name: self._answers(name, batch, slow) for name in self.models}
            for position in range(len(batch)):
                yield {name: answers[name][position] for name in self.models}
            progress(min(start + BATCH, len(paths)), len(paths))

    def show_pictures(self, paths: Sequence[str], progress: Callable[[int, int], None]) -> tuple[str, list[list[str]]]:
        """Predict many uploads with all models; return cards as HTML, and rows of `COLUMNS`."""
        answers = list(self.judge(paths, progress))
        pictures = [
            Picture(Path(path).name, items, self._is_small(path), self._thumbnail(path, items))
            for path, items in zip(paths, answers, strict=True)
        ]
        return gallery(pictures, self._purposes(self.models if paths else ())), _rows(paths, answers)

    def table(self, paths: Sequence[str], progress: Callable[[int, int], None]) -> list[list[str]]:
        """Predict many uploads with all models; return rows of `COLUMNS` in the order of the uploads."""
        return _rows(paths, list(self.judge(paths, progress)))

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
        item = self._answer(name, path)
        if not isinstance(item, Answer):
            raise RejectedError(str(item))
        return item

    def _answer(self, name: str, path: str | None) -> Item:
        [item] = self._answers(name, [path])
        return item

    def _answers(self, name: str, paths: Sequence[str | None], slow: set[str] | None = None) -> list[Item]:
        """Return answers in order; a message for a rejected file, None for no file."""
        model = self.models[name]
        return [
            answer(model.name, model.facts, item, self.measured) if isinstance(item, Prediction) else item
            for item in model.predict(paths, slow=slow)
        ]

    def _card(self, name: str, item: Item) -> str:
        """Render the answer of a model as HTML; empty if it has none yet."""
        if isinstance(item, Answer):
            return card(item, self.models[name].facts.point, self._purposes([name]).get(name, ""))
        return rejection(item) if item else ""

    def _purposes(self, names: Iterable[str]) -> dict[str, str]:
        """Return what loaded models are for, of those that were evaluated."""
        homes = {name: self.measured.get(self.models[name].facts.digest, {}).get("home") for name in names}
        return {name: PURPOSES[home] for name, home in homes.items() if home in PURPOSES}

    def _is_small(self, path: str) -> bool:
        try:
            metadata = self._readers.metadata(path)
        except RejectedError:
            return False
        return max(metadata.width, metadata.height) <= SMALL

    def _thumbnail(self, path: str, items: Mapping[str, Item]) -> str:
        if not any(isinstance(item, Answer) for item in items.values()):
            return ""
        try:
            view = self._readers.read(path, view=True).view
        except RejectedError:
            return ""
        return "" if view is None else thumbnail(view)

    @property
    def _readers(self) -> Readers:
        return next(iter(self.models.values())).readers

    def _unknown(self, name: str) -> str:
        return f"Wanted a model named {' or '.join(self.models)}; found {name!r}."


def _rows(paths: Sequence[str], answers: Sequence[Mapping[str, Item]]) -> list[list[str]]:
    """Return rows of `COLUMNS`, one for each upload and model."""
    return [
        item.to_row(Path(path).name) if isinstance(item, Answer) else [Path(path).name, name, str(item), "", "", ""]
        for path, items in zip(paths, answers, strict=True)
        for name, item in items.items()
    ]


def _escaped(cell: str) -> str:
    """Escape a cell that a spreadsheet would evaluate as a formula."""
    return f"'{cell}" if cell[:1] in ("=", "+", "-", "@") else cell
