"""The surest errors of each model on each data set, looked at: picture, map, nearest training pictures."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from realfake_hf.attribution.explain import default_method
from realfake_hf.crosseval.datasets import TestSet
from realfake_hf.crosseval.models import Entrant
from realfake_hf.crosseval.neighbours import Neighbour, Neighbours
from realfake_hf.data.corruptions import PROTOCOLS
from realfake_hf.data.decoding import to_rgb
from realfake_hf.data.sampling import round_robin
from realfake_hf.figures.errors import ErrorPanel, error_sheet
from realfake_hf.figures.style import save_figure
from realfake_hf.labels import LABEL_NAMES, Verdict

Kind = Literal["false positive", "false negative"]

ERRORS: Final = "errors"  # the folder of the sheets
SHOWN_SIDE: Final = 256  # pixels of the longer side, of larger pictures


@dataclass(frozen=True)
class ShownError:
    """An error that was looked at.

    Attributes:
        model: who erred.
        dataset: on which data set.
        split: on which split of it.
        kind: a REAL picture called FAKE, or a FAKE one called REAL.
        id: the picture's opaque id.
        content: what it shows; None where unknown.
        generator: what made it; None for REAL pictures and where unknown.
        p_fake: what the model says.
        is_sure: whether that lies outside its unsure band; None without one.
        method: how the map was made.
        file: the sheet that shows it, beside grid.json.
        nearest: the nearest training picture of each label, by its name; empty where no training was named.
    """

    model: str
    dataset: str
    split: str
    kind: Kind
    id: str
    content: str | None
    generator: str | None
    p_fake: float
    is_sure: bool | None
    method: str
    file: str
    nearest: dict[str, Neighbour]

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read back what `dataclasses.asdict` made of it."""
        nearest = {name: Neighbour(**one) for name, one in data["nearest"].items()}
        return cls(**{**data, "nearest": nearest})


def surest_errors(
    is_fake: NDArray[np.bool_],
    p_fake: NDArray[np.floating],
    content: Sequence[str | None],
    *,
    threshold: float,
    n: int,
) -> dict[Kind, list[int]]:
    """Find the rows of the n surest errors of each kind, spread over contents: the surest of each, then the second.

    Args:
        is_fake: (n,) the truth.
        p_fake: (n,) what a model says.
        content: (n,) what each picture shows; None is a content of its own.
        threshold: called FAKE above it.
        n: how many of each kind at most.
    """
    called_fake = np.asarray(p_fake) > threshold
    found: dict[Kind, list[int]] = {}
    kinds: tuple[tuple[Kind, NDArray[np.bool_], int], ...] = (
        ("false positive", called_fake & ~is_fake, -1),
        ("false negative", ~called_fake & is_fake, 1),
    )
    for kind, chosen, sign in kinds:
        rows = np.flatnonzero(chosen)
        ordered = rows[np.argsort(sign * np.asarray(p_fake)[rows], kind="stable")].tolist()
        found[kind] = [ordered[place] for place in round_robin([content[row] for row in ordered])[:n]]
    return found


def show_errors(
    entrant: Entrant,
    one: TestSet,
    p_fake: NDArray[np.floating],
    folder: Path,
    *,
    n: int,
    protocol: str,
    neighbours: Neighbours | None,
) -> Iterator[ShownError]:
    """Draw a sheet of a model's surest errors of each kind on a data set, and give what is on it.

    Args:
        entrant: the model.
        one: the data set.
        p_fake: (n,) what the model says of its pictures.
        folder: where the sheets go, in a folder of their own.
        n: errors of each kind at most.
        protocol: what was done to each picture before.
        neighbours: training pictures; None shows none.
    """
    chosen = surest_errors(one.is_fake, p_fake, one.content, threshold=entrant.point.threshold, n=n)
    for kind, rows in chosen.items():
        if rows:
            file = f"{ERRORS}/{one.name}-{entrant.name}-{kind.replace(' ', '-')}s.png"
            pictures = [PROTOCOLS[protocol](to_rgb(one.rows[row]["image"])) for row in rows]
            yield from _sheet(
                entrant, one, rows, pictures, folder / file, kind=kind, p_fake=p_fake, neighbours=neighbours
            )


def _sheet(
    entrant: Entrant,
    one: TestSet,
    rows: Sequence[int],
    pictures: Sequence[Image.Image],
    path: Path,
    *,
    kind: Kind,
    p_fake: NDArray[np.floating],
    neighbours: Neighbours | None,
) -> Iterator[ShownError]:
    detector = entrant.detector
    assert detector is not None
    method = default_method(detector.model)
    explained = detector.explain(pictures, method=method)
    nearest = neighbours.nearest(pictures) if neighbours else [{}] * len(rows)
    lines = []
    for row, picture, explanation, near in zip(rows, pictures, explained, nearest, strict=True):
        verdict = entrant.point.judge(float(p_fake[row]))
        view = detector.view(picture)
        panels = [
            ErrorPanel(_words(one, row, verdict), _small(np.asarray(picture))),
            ErrorPanel(_map_words(explanation.method, explanation.is_empty), _small(explanation.overlay(view))),
        ]
        if neighbours:
            panels += [_near_panel(neighbours.training, near[name]) for name in LABEL_NAMES]
        lines.append(panels)
        yield ShownError(
            entrant.name, one.name, one.split, kind, one.rows[row]["id"], one.content[row], one.generator[row],
            float(p_fake[row]), verdict.is_sure, method, f"{ERRORS}/{path.name}", near,
        )  # fmt: skip
    called = "REAL pictures called FAKE" if kind == "false positive" else "FAKE pictures called REAL"
    heads = ["picture", "where it looked", *(["nearest REAL", "nearest FAKE"] if neighbours else [])]
    title = f"{entrant.name} on {one.name} {one.split}: {called}, the surest of each content first"
    save_figure(error_sheet(lines, title=title, heads=heads), path)


def _words(one: TestSet, row: int, verdict: Verdict) -> str:
    known = [word for word in (one.content[row], _short(one.generator[row])) if word]
    return f"{', '.join(known) or 'content unknown'}\n{verdict.words}\np(fake) {verdict.p_fake:.3f}"


def _short(generator: str | None, most: int = 24) -> str | None:
    return generator if generator is None or len(generator) <= most else f"{generator[: most - 1]}…"


def _map_words(method: str, is_empty: bool) -> str:
    return f"{method.replace('_', ' ')}{': empty map' if is_empty else ''}"


def _near_panel(training: TestSet, near: Neighbour) -> ErrorPanel:
    picture = _small(np.asarray(to_rgb(training.rows[near.row]["image"])))
    return ErrorPanel(f"{near.content or 'content unknown'}\nsimilarity {near.similarity:.3f}", picture)


def _small(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Keep sheets light: every so-manieth pixel of a large picture."""
    step = max(1, max(picture.shape[:2]) // SHOWN_SIDE)
    return picture[::step, ::step]
