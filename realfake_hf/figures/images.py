"""Where detectors looked: a picture beside its maps, and contact sheets of pictures and overlays."""

from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import wrap
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from realfake_hf.figures.style import INK, WIDTH

LARGEST_NEAREST: Final = 128  # pixels; larger pictures are resampled, where nearest would alias
LEAST_CELL: Final = 1.4  # inches; more models make a wider figure
TALLEST: Final = 1.5  # height over width of the room for a picture; a taller one is drawn narrower
LINE: Final = 0.17  # inches, of text at 9 points
LETTERS: Final = 14  # in an inch of text at 9 points
BOLD_LETTERS: Final = 12
TITLE_LETTERS: Final = 10  # at 11 points
SCALE: Final = 0.45  # inches, of the colour bar and its words
SCALE_WIDTH: Final = 3.0
GAP: Final = 0.12  # inches
TILES: Final = 4  # in a row of a contact sheet
Image = NDArray[np.uint8]
Line = tuple[str, str]  # words and their weight
Box = tuple[float, float, float, float]  # left, bottom, width, height in inches


@dataclass(frozen=True, eq=False)
class MapPanel:
    """One model's map of a picture, ready to be drawn.

    Attributes:
        title: what was said of the picture, and by whom; lines are wrapped.
        note: how the map came about; long ones are wrapped.
        heat: (grid_h, grid_w) in [0, 1].
        overlay: the map over the picture, (height, width, 3) uint8 [0, 255].
        is_empty: the map is the same everywhere, which is then said in words.
    """

    title: str
    note: str
    heat: NDArray[np.floating]
    overlay: Image
    is_empty: bool = False


@dataclass(frozen=True, eq=False)
class Tile:
    """A picture of a contact sheet, its overlay beside it, and what stands below them."""

    picture: Image
    overlay: Image
    caption: str


def picture_with_maps(
    picture: Image, panels: Sequence[MapPanel], *, title: str, note: str = "", color_map: str
) -> Figure:
    """Draw a picture, its maps and their overlays, with a colour bar that says what the scale is.

    One map stands in a row with the picture and its overlay. Several stand side by side, each above its overlay. Small
    pictures are enlarged with sharp pixels, maps with sharp cells.

    Args:
        picture: (height, width, 3) uint8 [0, 255].
        panels: one a model.
        title: of the figure; of a long one the end is shown.
        note: what stands above the picture.
        color_map: the name of the map's colours in matplotlib.
    """
    _check([picture, *(panel.overlay for panel in panels)], [panel.heat for panel in panels])
    columns, rows = (3, 1) if len(panels) == 1 else (1 + len(panels), 2)
    width = max(WIDTH, columns * (LEAST_CELL + GAP) + GAP)
    cell = (width - GAP) / columns - GAP
    heads = [_head("picture", note, cell), *(_head(one.title, one.note, cell * 2 / rows) for one in panels)]
    top = SCALE + rows * (cell * _aspect([picture]) + GAP)  # of the pictures, in inches from below
    figure = _titled(title, width=width, height=top + 0.42 + LINE * max(map(len, heads)))
    lefts = [GAP + column * (cell + GAP) for column in range(columns)]
    for left, lines in zip(lefts, heads, strict=False):
        _write(figure, lines, left=left, top=top + 0.04 + LINE * max(map(len, heads)))
    boxes = [(left, top - cell * _aspect([picture]), cell, cell * _aspect([picture])) for left in lefts]
    sharp = max(picture.shape) <= LARGEST_NEAREST
    _show(_axes(figure, boxes[0]), picture, sharp=sharp)
    for box, panel in zip(boxes[1:], panels, strict=False):
        _show_map(_axes(figure, box), panel, color_map)
        beside_or_below = boxes[2] if rows == 1 else (box[0], SCALE + GAP, *box[2:])
        _show(_axes(figure, beside_or_below), panel.overlay, sharp=sharp)
    _draw_scale(figure, color_map, of="in this picture" if rows == 1 else "of each map", left=lefts[1])
    return figure


def explanation_sheet(tiles: Sequence[Tile], *, title: str, color_map: str) -> Figure:
    """Lay pictures with their overlays out as a contact sheet, row by row, each with its caption below.

    Args:
        tiles: in the order in which they are shown.
        title: of the sheet; of a long one the end is shown.
        color_map: the name of the overlays' colours in matplotlib.
    """
    _check([image for tile in tiles for image in (tile.picture, tile.overlay)], [])
    cell = (WIDTH - GAP) / TILES - GAP  # of a picture and its overlay
    room = cell / 2 * _aspect([tile.picture for tile in tiles])
    row_height = room + LINE + GAP
    top = SCALE + GAP + row_height * -(-len(tiles) // TILES)
    figure = _titled(title, width=WIDTH, height=top + 0.4)
    for position, tile in enumerate(tiles):
        row, column = divmod(position, TILES)
        left, bottom = GAP + column * (cell + GAP), top - row * row_height - room
        sharp = max(tile.picture.shape) <= LARGEST_NEAREST
        _show(_axes(figure, (left, bottom, cell / 2 - 0.02, room)), tile.picture, sharp=sharp)
        _show(_axes(figure, (left + cell / 2, bottom, cell / 2 - 0.02, room)), tile.overlay, sharp=sharp)
        _write(figure, [(tile.caption, "normal")], left=left, top=bottom - 0.02)
    _draw_scale(figure, color_map, of="in each picture", left=GAP)
    return figure


def _check(images: Sequence[Image], maps: Sequence[NDArray[np.floating]]) -> None:
    wrong = {f"{image.dtype} {image.shape}" for image in images if image.dtype != np.uint8 or image.shape[2:] != (3,)}
    wrong |= {f"a map {heat.shape}" for heat in maps if heat.ndim != 2 or not ((heat >= 0) & (heat <= 1)).all()}  # noqa: PLR2004
    if len(images) < 2 or wrong:  # noqa: PLR2004  a picture and an overlay
        raise ValueError(
            "wanted pictures and overlays (height, width, 3) of uint8 and maps (grid_h, grid_w) in [0, 1]; found "
            f"{', '.join(sorted(wrong)) or 'none'}. Use np.asarray(image.convert('RGB')) and an Explanation's map."
        )


def _aspect(pictures: Sequence[Image]) -> float:
    """Height over width of the room for pictures."""
    tallest: float = max(picture.shape[0] / picture.shape[1] for picture in pictures)
    return min(TALLEST, tallest)


def _head(title: str, note: str, inches: float) -> list[Line]:
    """What stands above a picture: a bold title, each of its lines wrapped, and a note."""
    bold = [(line, "bold") for part in title.splitlines() for line in wrap(part, int(BOLD_LETTERS * inches))]
    return bold + [(line, "normal") for line in wrap(note, int(LETTERS * inches))]


def _titled(title: str, *, width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height))
    most = int(TITLE_LETTERS * (width - 2 * GAP))
    shown = title if len(title) <= most else f"…{title[-most:]}"
    figure.text(GAP / width, 1 - 0.1 / height, shown, va="top", size=11, color=INK, parse_math=False)
    return figure


def _axes(figure: Figure, box: Box) -> Axes:
    width, height = figure.get_size_inches()
    left, bottom, wide, high = box
    return figure.add_axes(
        (left / width, bottom / height, wide / width, high / height), xticks=[], yticks=[], frame_on=False
    )


def _write(figure: Figure, lines: Sequence[Line], *, left: float, top: float) -> None:
    """Write lines downward from a place in inches."""
    width, height = figure.get_size_inches()
    for number, (line, weight) in enumerate(lines):
        place = (left / width, (top - LINE * number) / height)
        figure.text(*place, line, va="top", size=9, color=INK, weight=weight, parse_math=False)


def _show(axes: Axes, image: Image, *, sharp: bool) -> None:
    axes.imshow(image, interpolation="nearest" if sharp else "auto")


def _show_map(axes: Axes, panel: MapPanel, color_map: str) -> None:
    height, width = panel.overlay.shape[:2]
    axes.imshow(
        panel.heat, cmap=color_map, vmin=0, vmax=1, interpolation="nearest", extent=(0, width, height, 0)
    )  # the map's own shape may be another one
    if panel.is_empty:
        axes.text(
            0.5, 0.5, "empty map:\nthe same value\neverywhere", transform=axes.transAxes, ha="center", va="center",
            color="white", size=10,
        )  # fmt: skip


def _draw_scale(figure: Figure, color_map: str, *, of: str, left: float) -> None:
    axes = _axes(figure, (left, 0.3, SCALE_WIDTH, 0.1))
    axes.imshow(np.linspace(0, 1, 256)[None], cmap=color_map, aspect="auto")
    for place, words, side in ((0, f"lowest value {of}", "left"), (1, "highest", "right")):
        axes.text(place, -0.6, words, transform=axes.transAxes, ha=side, va="top", color=INK, size=9)
