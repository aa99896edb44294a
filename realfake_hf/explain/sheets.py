"""Figures of explanations: one per image, and contact sheets of correct and wrong predictions."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from heapq import heappush, heapreplace
from itertools import count
from pathlib import Path
from typing import Final

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from realfake_hf.attribution.methods import Explanation
from realfake_hf.attribution.overlay import COLOR_MAP
from realfake_hf.figures.images import MapPanel, explanation_sheet, image_with_maps
from realfake_hf.figures.style import save_figure
from realfake_hf.labels import LabelName

FIGURE_SIDE: Final = 512  # maximum of the longer side, in pixels
SHEET_SIDE: Final = 256
MAX_TILES: Final = 24  # per sheet

Pixels = NDArray[np.uint8]
Tile = tuple[Pixels, Pixels, str]  # image, overlay and caption
Explained = tuple[Explanation, Pixels]  # an explanation, and the view of the image that its map covers
Group = tuple[LabelName | None, LabelName]  # true and predicted label
GROUPS: Final[Mapping[Group, str]] = {
    ("REAL", "REAL"): "right REAL",
    ("FAKE", "FAKE"): "right FAKE",
    ("REAL", "FAKE"): "wrong REAL",
    ("FAKE", "REAL"): "wrong FAKE",
    (None, "REAL"): "called REAL",
    (None, "FAKE"): "called FAKE",
}


def draw_explanations(
    title: str, image: Image.Image, explained: Mapping[str, Explained], *, truth: LabelName | None, strength: float
) -> Figure:
    """Draw an upright RGB image with the verdicts and maps of one or more models.

    Unprintable characters of the title are replaced. `strength` is the opacity of the map in the overlays, in [0, 1].
    """
    panels = []
    for name, (explanation, view) in explained.items():
        verdict, prefix = explanation.verdict, name if len(explained) > 1 else ""
        wrong = "" if truth in (None, verdict.label) else ", wrong"
        overlay = explanation.overlay(_shrink(view, FIGURE_SIDE), strength=strength)
        heading = f"{prefix}\n{verdict.words}, p(fake) {verdict.p_fake_text}{wrong}"
        panels.append(MapPanel(title=heading, note=_settings(explanation), heat=explanation.map, overlay=overlay))
    note = "" if truth is None else f"truly {truth}"
    printable = "".join(letter if letter.isprintable() else "?" for letter in title)  # file names contain any bytes
    pixels = _shrink(np.asarray(image), FIGURE_SIDE)
    return image_with_maps(pixels, panels, title=printable, note=note, color_map=COLOR_MAP)


class Sheets:
    """Count predictions by true and predicted label, and keep the most confident images for contact sheets.

    The strength is the opacity of the map in the overlays, in [0, 1].
    """

    def __init__(self, *, strength: float) -> None:
        self.counts: Counter[tuple[str, Group]] = Counter()
        self.empty: Counter[str] = Counter()
        self._strength = strength
        self._best: dict[tuple[str, Group], list[tuple[float, int, Tile]]] = defaultdict(list)
        self._order = count()  # of equally confident images, the first ones are kept

    def add(self, model: str, explanation: Explanation, view: Pixels, *, truth: LabelName | None) -> None:
        """Add a model's explanation of one image, and the view of the image that its map covers."""
        group = (truth, explanation.verdict.label)
        self.counts[model, group] += 1
        self.empty[model] += explanation.is_empty
        if truth is None:
            return
        best, confidence = self._best[model, group], explanation.verdict.confidence
        if len(best) < MAX_TILES:
            heappush(best, (confidence, -next(self._order), self._tile(explanation, view)))
        elif best[0][0] < confidence:
            heapreplace(best, (confidence, -next(self._order), self._tile(explanation, view)))

    def write(self, folder: Path, models: Sequence[str]) -> None:
        """Write one sheet for each model and group that has images, the most confident first."""
        for (model, group), best in self._best.items():
            prefix = f"{model}-" if len(models) > 1 else ""
            file = folder / f"{prefix}{GROUPS[group].lower().replace(' ', '-')}.png"
            tiles = [tile for *_, tile in sorted(best, key=lambda entry: entry[:2], reverse=True)]
            save_figure(explanation_sheet(tiles, title=self._title(model, group, models), color_map=COLOR_MAP), file)

    def to_row(self, model: str) -> dict[str, int]:
        """Count the images of a model by group, and its empty maps."""
        counts = {name: self.counts[model, group] for group, name in GROUPS.items()}
        return {**counts, "empty maps": self.empty[model]}

    def _tile(self, explanation: Explanation, view: Pixels) -> Tile:
        small = _shrink(view, SHEET_SIDE)
        caption = f"p(fake) {explanation.verdict.p_fake_text}{', empty map' if explanation.is_empty else ''}"
        return small, explanation.overlay(small, strength=self._strength), caption

    def _title(self, model: str, group: Group, models: Sequence[str]) -> str:
        truth, predicted = group
        n = self.counts[model, group]
        prefix = f"{model}: " if len(models) > 1 else ""
        shown = f"the {MAX_TILES} most confident of {n:,}" if n > MAX_TILES else f"{n:,}, the most confident first"
        return f"{prefix}{truth}, {'correctly' if truth == predicted else 'wrongly'} predicted {predicted}: {shown}"


def _settings(explanation: Explanation) -> str:
    """Name the method of an explanation, its target, layer and options."""
    parts = [f"{explanation.method} for {explanation.target}" if explanation.target else explanation.method]
    if explanation.layer:
        parts.append(f"at {explanation.layer}")
    for name, value in explanation.options.items():
        if name != "layer":
            parts.append(f"{name} {' x '.join(map(str, value)) if isinstance(value, tuple) else value}")
    return ", ".join(parts)


def _shrink(image: Pixels, side: int) -> Pixels:
    """Resize an image whose longer side exceeds `side` pixels."""
    if max(image.shape) <= side:
        return image
    small = Image.fromarray(image)
    small.thumbnail((side, side))
    return np.asarray(small)
