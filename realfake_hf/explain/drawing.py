"""Draw explanations: a figure of each image, and contact sheets of images with the same label and verdict."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
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
from realfake_hf.wording import verdict_words

FIGURE_SIDE: Final = 512  # maximum of the longer side, in pixels
SHEET_SIDE: Final = 256
MAX_TILES: Final = 24  # per sheet

Pixels = NDArray[np.uint8]
Group = tuple[LabelName | None, LabelName]  # true and predicted label
GROUPS: Final[Mapping[Group, str]] = {
    ("REAL", "REAL"): "right REAL",
    ("FAKE", "FAKE"): "right FAKE",
    ("REAL", "FAKE"): "wrong REAL",
    ("FAKE", "REAL"): "wrong FAKE",
    (None, "REAL"): "called REAL",
    (None, "FAKE"): "called FAKE",
}


@dataclass(frozen=True, eq=False)
class Explained:
    """An explanation and what is drawn with it."""

    explanation: Explanation
    view: Pixels  # the part of the image that the map covers
    band: str  # where the model is unsure, in words; empty if nowhere
    warnings: Sequence[str]  # of the verdict


@dataclass(frozen=True, eq=False)
class Tile:
    """An image on a contact sheet."""

    image: Pixels
    overlay: Pixels
    caption: str
    bright: str  # what bright cells mean
    confidence: float  # of the verdict


def draw_explanations(
    title: str, image: Image.Image, explained: Mapping[str, Explained], *, truth: LabelName | None, strength: float
) -> Figure:
    """Draw an upright RGB image with the verdicts, warnings and maps of one or more models.

    Unprintable characters of the title are replaced. `strength` is the opacity of the map in the overlays, in [0, 1].
    """
    panels = []
    for name, one in explained.items():
        explanation = one.explanation
        verdict = explanation.verdict
        wrong = "" if truth in (None, verdict.label) else ", wrong"
        heading = [name if len(explained) > 1 else "", f"{verdict_words(verdict)}{wrong}"]
        panels.append(
            MapPanel(
                title="\n".join([*heading, f"p(fake) {verdict.p_fake_text}"]),
                note="; ".join(filter(None, [one.band, _settings(explanation)])),
                warnings=[*filter(None, [verdict.reason]), *one.warnings],
                bright=explanation.bright,
                heat=explanation.map,
                overlay=explanation.overlay(_shrink(one.view, FIGURE_SIDE), strength=strength),
            )
        )
    note = "" if truth is None else f"truly {truth}"
    pixels = _shrink(np.asarray(image), FIGURE_SIDE)
    return image_with_maps(pixels, panels, title=_printable(title), note=note, color_map=COLOR_MAP)


class Sheets:
    """Count predictions by true and predicted label, and keep the most confident images for contact sheets.

    The strength is the opacity of the map in the overlays, in [0, 1].
    """

    def __init__(self, *, strength: float) -> None:
        self.counts: Counter[tuple[str, Group]] = Counter()
        self.empty: Counter[str] = Counter()
        self._strength = strength
        self._best: dict[tuple[str, Group], list[Tile]] = defaultdict(list)  # most confident first

    def add(self, model: str, explained: Explained, *, title: str, truth: LabelName | None) -> None:
        """Add a model's explanation of one image with this title."""
        verdict = explained.explanation.verdict
        group = (truth, verdict.label)
        self.counts[model, group] += 1
        self.empty[model] += explained.explanation.is_empty
        best = self._best[model, group]
        if len(best) < MAX_TILES or best[-1].confidence < verdict.confidence:
            best.append(self._tile(explained, title))
            best.sort(key=attrgetter("confidence"), reverse=True)  # stable: of equals, the first ones are kept
            del best[MAX_TILES:]

    def write(self, folder: Path, models: Sequence[str]) -> None:
        """Write one sheet for each model and group that has images, the most confident first."""
        for (model, group), best in self._best.items():
            prefix = f"{model}-" if len(models) > 1 else ""
            file = folder / f"{prefix}{GROUPS[group].lower().replace(' ', '-')}.png"
            tiles = [(tile.image, tile.overlay, tile.caption) for tile in best]
            brights = {tile.bright for tile in best}
            bright = brights.pop() if len(brights) == 1 else "bright = evidence for the more probable label"
            title = self._title(model, group, models)
            save_figure(explanation_sheet(tiles, title=title, bright=bright, color_map=COLOR_MAP), file)

    def to_row(self, model: str) -> dict[str, int]:
        """Count the images of a model by group, and its empty maps."""
        counts = {name: self.counts[model, group] for group, name in GROUPS.items()}
        return {**counts, "empty maps": self.empty[model]}

    def _tile(self, explained: Explained, title: str) -> Tile:
        explanation, small = explained.explanation, _shrink(explained.view, SHEET_SIDE)
        verdict = explanation.verdict
        flags = {"unsure": verdict.is_sure is False, "far": verdict.is_far, "empty map": explanation.is_empty}
        facts = [f"p(fake) {verdict.p_fake_text}", *(flag for flag, applies in flags.items() if applies)]
        return Tile(
            image=small,
            overlay=explanation.overlay(small, strength=self._strength),
            caption=f"{_printable(title)}\n{', '.join(facts)}",
            bright=explanation.bright,
            confidence=verdict.confidence,
        )

    def _title(self, model: str, group: Group, models: Sequence[str]) -> str:
        truth, predicted = group
        n = self.counts[model, group]
        prefix = f"{model}: " if len(models) > 1 else ""
        shown = f"the {MAX_TILES} most confident of {n:,}" if n > MAX_TILES else f"{n:,}, the most confident first"
        if truth is None:
            return f"{prefix}called {predicted}: {shown}"
        return f"{prefix}{truth}, {'correctly' if truth == predicted else 'wrongly'} predicted {predicted}: {shown}"


def _printable(title: str) -> str:
    """Replace the unprintable characters of a file name, which may contain any bytes."""
    return "".join(letter if letter.isprintable() else "?" for letter in title)


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
