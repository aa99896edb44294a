"""The most confident errors of a model, with attribution maps and nearest training images, on one sheet per kind."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from realfake_hf.attribution.explain import default_method
from realfake_hf.attribution.methods import method_name
from realfake_hf.crosseval.datasets import EvalDataset
from realfake_hf.crosseval.models import Model
from realfake_hf.crosseval.scoring import cell_settings
from realfake_hf.data.corruptions import PROTOCOLS
from realfake_hf.data.decoding import to_rgb
from realfake_hf.figures.images import error_sheet
from realfake_hf.figures.style import save_figure
from realfake_hf.labels import LABEL_NAMES
from realfake_hf.sampling import Flags, round_robin
from realfake_hf.store import Store

Kind = Literal["false positive", "false negative"]

ERRORS: Final = "errors"  # folder of the sheets
_MAX_SIDE: Final = 256  # pixels; images on a sheet are reduced to less than twice this size
_MAX_GENERATOR: Final = 24  # characters of the name of a generator on a sheet


@dataclass(frozen=True)
class Neighbour:
    """A training image near an error in the embedding of a model, with their cosine similarity in [-1, 1]."""

    row: int
    id: str
    is_fake: bool
    content: str | None
    similarity: float


Nearest = dict[str, Neighbour]  # by label name


@dataclass(frozen=True)
class ShownError:
    """An error on a sheet."""

    model: str
    dataset: str
    split: str
    kind: Kind  # false positive for a REAL image called FAKE, false negative for a FAKE image called REAL
    id: str
    content: str | None
    generator: str | None
    p_fake: float
    is_sure: bool | None  # whether the score is outside the unsure band; None without a band
    method: str  # attribution method of the map
    file: str  # path of the sheet, relative to the output folder
    nearest: Nearest  # nearest training image of each label; empty without training data


class TrainingEmbeddings:
    """Training images in the embedding of a model with a detector, read from the store or computed and stored."""

    def __init__(self, model: Model, training: EvalDataset, store: Store) -> None:
        assert model.detector
        self.detector, self.training = model.detector, training

        def embed() -> dict[str, NDArray[np.float32]]:
            images = (to_rgb(training.rows[row]["image"]) for row in range(len(training.rows)))
            return {"embeddings": self.detector.embeddings(images)}

        stored = store.arrays(f"embeddings-{model.name}", cell_settings(training, model), embed)
        self._unit = _normalize(stored["embeddings"])

    def nearest(self, images: Sequence[Image.Image]) -> list[Nearest]:
        """Return the nearest REAL and the nearest FAKE training image of each image, by label name."""
        similarity = _normalize(self.detector.embeddings(images)) @ self._unit.T
        rows = {name: np.flatnonzero(self.training.is_fake == (name == "FAKE")) for name in LABEL_NAMES}
        return [{name: self._nearest(scores, rows[name]) for name in LABEL_NAMES} for scores in similarity]

    def _nearest(self, similarity: NDArray[np.float32], rows: NDArray[np.intp]) -> Neighbour:
        row, of = int(rows[np.argmax(similarity[rows])]), self.training
        return Neighbour(row, of.rows[row]["id"], bool(of.is_fake[row]), of.content[row], float(similarity[row]))


def most_confident_errors(
    is_fake: Flags, p_fake: NDArray[np.floating], content: Sequence[str | None], *, threshold: float, n: int
) -> dict[Kind, list[int]]:
    """Return the rows of at most n errors of each kind: the most confident of each content, then the second of each.

    The first three arguments are (n,); unknown contents, None, count as one content.
    """
    scores = np.asarray(p_fake)
    called_fake = scores > threshold

    def choose(is_error: Flags, order: NDArray[np.floating]) -> list[int]:
        rows = np.flatnonzero(is_error)
        rows = rows[np.argsort(order[rows], kind="stable")]
        ranks = round_robin([content[row] for row in rows.tolist()])
        return [int(rows[rank]) for rank in ranks[:n]]

    return {
        "false positive": choose(called_fake & ~is_fake, -scores),
        "false negative": choose(~called_fake & is_fake, scores),
    }


def show_errors(
    model: Model,
    dataset: EvalDataset,
    p_fake: NDArray[np.floating],
    folder: Path,
    *,
    n: int,
    protocol: str,
    training: TrainingEmbeddings | None,
) -> Iterator[ShownError]:
    """Draw a sheet of the n most confident errors of each kind in the folder `ERRORS`, and yield the errors on it.

    The model must have a detector; `p_fake` are its scores under the protocol.
    """
    chosen = most_confident_errors(dataset.is_fake, p_fake, dataset.content, threshold=model.point.threshold, n=n)
    assert model.detector
    method = default_method(model.detector.model)
    for kind, rows in chosen.items():
        if not rows:
            continue
        file = f"{ERRORS}/{dataset.name}-{model.name}-{kind.replace(' ', '-')}s.png"
        images = [PROTOCOLS[protocol](to_rgb(dataset.rows[row]["image"])) for row in rows]
        nearest = training.nearest(images) if training else [{}] * len(rows)
        errors = [
            ShownError(
                model=model.name,
                dataset=dataset.name,
                split=dataset.split,
                kind=kind,
                id=dataset.rows[row]["id"],
                content=dataset.content[row],
                generator=dataset.generator[row],
                p_fake=float(p_fake[row]),
                is_sure=model.point.judge(float(p_fake[row])).is_sure,
                method=method,
                file=file,
                nearest=neighbours,
            )
            for row, neighbours in zip(rows, nearest, strict=True)
        ]
        _draw_sheet(model, errors, images, training, path=folder / file)
        yield from errors


def find_sheets(errors: Iterable[ShownError], folder: Path, shown: Collection[str] | None = None) -> dict[str, Path]:
    """Return the existing sheets in the output folder by title, of all data sets or only of those `shown`."""
    titles = {_title(error): folder / error.file for error in errors if shown is None or error.dataset in shown}
    return {title: file for title, file in titles.items() if file.exists()}


def _title(error: ShownError) -> str:
    called = "REAL images called FAKE" if error.kind == "false positive" else "FAKE images called REAL"
    return f"{error.model} on {error.dataset} {error.split}: {called}"


def _draw_sheet(
    model: Model,
    errors: Sequence[ShownError],
    images: Sequence[Image.Image],
    training: TrainingEmbeddings | None,
    *,
    path: Path,
) -> None:
    detector, first = model.detector, errors[0]
    assert detector
    explanations = detector.explain(images, method=first.method)
    rows = []
    for error, image, explanation in zip(errors, images, explanations, strict=True):
        caption = f"{method_name(error.method)}{': empty map' if explanation.is_empty else ''}"
        panels = [(np.asarray(image), _caption(error, model)), (explanation.overlay(detector.view(image)), caption)]
        if training:
            for neighbour in (error.nearest[label] for label in LABEL_NAMES):
                text = f"{neighbour.content or 'content unknown'}\nsimilarity {neighbour.similarity:.3f}"
                panels.append((np.asarray(to_rgb(training.training.rows[neighbour.row]["image"])), text))
        rows.append([(_subsample(panel), text) for panel, text in panels])
    columns = ["image", "attribution map", *(["nearest REAL", "nearest FAKE"] if training else [])]
    save_figure(error_sheet(rows, title=_title(first), columns=columns), path)


def _caption(error: ShownError, model: Model) -> str:
    generator = error.generator
    if generator and len(generator) > _MAX_GENERATOR:
        generator = f"{generator[: _MAX_GENERATOR - 1]}…"
    facts = [fact for fact in (error.content, generator) if fact]
    verdict = model.point.judge(error.p_fake).words
    return f"{', '.join(facts) or 'content unknown'}\n{verdict}\np(fake) {error.p_fake:.3f}"


def _subsample(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Take every n-th pixel of a large image, which keeps the file of a sheet small."""
    step = max(1, max(image.shape[:2]) // _MAX_SIDE)
    return image[::step, ::step]


def _normalize(embeddings: NDArray[np.floating]) -> NDArray[np.float32]:
    length = np.linalg.norm(embeddings, axis=1, keepdims=True)
    return np.asarray(embeddings / np.maximum(length, np.finfo(np.float32).tiny), dtype=np.float32)
