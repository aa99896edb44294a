"""How explanations are shown to people: one figure a picture, and contact sheets of those right and wrong."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from heapq import heappush, heapreplace
from itertools import count
from pathlib import Path
from typing import Any, Final

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from realfake_hf.attribution.methods import Explanation
from realfake_hf.attribution.overlay import COLOR_MAP
from realfake_hf.figures import MapPanel, explanation_sheet, image_with_maps, save_figure
from realfake_hf.labels import LabelName, Verdict

SHOWN: Final = 512  # pixels of the longer side, at most
ON_SHEET: Final = 256
MOST_TILES: Final = 24  # on a sheet

Pixels = NDArray[np.uint8]
Tile = tuple[Pixels, Pixels, str]  # image, overlay and caption
Group = tuple[LabelName | None, LabelName]  # what a picture truly is, and what it was called
GROUPS: Final[Mapping[Group, str]] = {
    ("REAL", "REAL"): "right REAL",
    ("FAKE", "FAKE"): "right FAKE",
    ("REAL", "FAKE"): "wrong REAL",
    ("FAKE", "REAL"): "wrong FAKE",
    (None, "REAL"): "called REAL",
    (None, "FAKE"): "called FAKE",
}


def draw_explanations(
    picture: Pixels,
    explained: Mapping[str, tuple[Explanation, Pixels]],
    *,
    title: str,
    truth: LabelName | None = None,
    strength: float = 0.6,
) -> Figure:
    """Draw what one or more models say of a picture, and where they looked.

    Args:
        picture: (height, width, 3) uint8 [0, 255].
        explained: by the model's name: its explanation, and the view of the picture that it lies over.
        title: of the figure.
        truth: what the picture is, where it is known.
        strength: share of the map's colours in the overlays, in [0, 1].
    """
    panels = [
        _panel(name if len(explained) > 1 else "", one, shrunk(view, SHOWN), truth=truth, strength=strength)
        for name, (one, view) in explained.items()
    ]
    note = "" if truth is None else f"truly {truth}"
    printable = "".join(letter if letter.isprintable() else "?" for letter in title)  # file names may hold any bytes
    return image_with_maps(shrunk(picture, SHOWN), panels, title=printable, note=note, color_map=COLOR_MAP)


def how_made(explanation: Explanation) -> str:
    """Say in a few words how a map came about."""
    options = {name: value for name, value in explanation.options.items() if name != "layer"}
    words = [
        explanation.method + (f" for {explanation.target}" if explanation.target else ""),
        f"at {explanation.layer}" if explanation.layer else "",
        ", ".join(f"{name} {_plain(value)}" for name, value in options.items()),
    ]
    return ", ".join(word for word in words if word)


def shrunk(picture: Pixels, side: int) -> Pixels:
    """Bring the longer side of a picture to `side` pixels, where it is longer."""
    if max(picture.shape) <= side:
        return picture
    small = Image.fromarray(picture)
    small.thumbnail((side, side))
    return np.asarray(small)


class Sheets:
    """Counts what was right and wrong, and keeps the most confident pictures of each kind for contact sheets.

    Args:
        strength: share of the map's colours in the overlays, in [0, 1].
    """

    def __init__(self, *, strength: float = 0.6) -> None:
        self.counts: Counter[tuple[str, Group]] = Counter()
        self.empty: Counter[str] = Counter()
        self._strength = strength
        self._best: dict[tuple[str, Group], list[tuple[float, int, Tile]]] = defaultdict(list)
        self._order = count()  # of equally confident pictures the first ones are kept

    def add(self, model: str, explanation: Explanation, view: Pixels, *, truth: LabelName | None) -> None:
        """Take a model's explanation of one picture, and the view that it lies over."""
        group = (truth, explanation.verdict.label)
        self.counts[model, group] += 1
        self.empty[model] += explanation.is_empty
        best, confidence = self._best[model, group], explanation.verdict.confidence
        if truth is None or (len(best) == MOST_TILES and best[0][0] >= confidence):
            return
        entry = (confidence, -next(self._order), self._tile(explanation, shrunk(view, ON_SHEET)))
        if len(best) < MOST_TILES:
            heappush(best, entry)
        else:
            heapreplace(best, entry)

    def write(self, folder: Path, models: Sequence[str]) -> None:
        """Write a sheet for each model and kind of which there are pictures, the most confident first."""
        for (model, group), best in self._best.items():
            if best:
                of_model = f"{model}-" if len(models) > 1 else ""
                file = folder / f"{of_model}{GROUPS[group].lower().replace(' ', '-')}.png"
                tiles = [tile for *_, tile in sorted(best, key=lambda entry: entry[:2], reverse=True)]
                save_figure(
                    explanation_sheet(tiles, title=self._title(model, group, models), color_map=COLOR_MAP), file
                )

    def to_row(self, model: str) -> dict[str, int]:
        """Count a model's pictures of each kind, and its empty maps."""
        counts = {words: self.counts[model, group] for group, words in GROUPS.items()}
        return {**counts, "empty maps": self.empty[model]}

    def _tile(self, explanation: Explanation, view: Pixels) -> Tile:
        empty = ", empty map" if explanation.is_empty else ""
        caption = f"{_probability(explanation.verdict)}{empty}"
        return view, explanation.overlay(view, strength=self._strength), caption

    def _title(self, model: str, group: Group, models: Sequence[str]) -> str:
        truth, called = group
        verdict = "rightly" if truth == called else "wrongly"
        n = self.counts[model, group]
        shown = f"the {MOST_TILES} most confident of {n:,}" if n > MOST_TILES else f"{n:,}, the most confident first"
        return f"{f'{model}: ' if len(models) > 1 else ''}{truth} {verdict} called {called}: {shown}"


def _panel(name: str, explanation: Explanation, view: Pixels, *, truth: LabelName | None, strength: float) -> MapPanel:
    verdict = explanation.verdict
    wrong = "" if truth in (None, verdict.label) else ", wrong"
    return MapPanel(
        title=f"{name}\n{verdict.words}, {_probability(verdict)}{wrong}",
        note=how_made(explanation),
        heat=explanation.map,
        overlay=explanation.overlay(view, strength=strength),
    )


def _probability(verdict: Verdict) -> str:
    """Three digits, never rounded to a certainty."""
    if verdict.confidence >= 0.9995:  # noqa: PLR2004
        return f"p(fake) {'> 0.999' if verdict.label == 'FAKE' else '< 0.001'}"
    return f"p(fake) {verdict.p_fake:.3f}"


def _plain(value: Any) -> str:  # noqa: ANN401 - an option has any type
    return " x ".join(map(str, value)) if isinstance(value, tuple) else str(value)
