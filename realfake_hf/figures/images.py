"""Figures of images: an image with attribution maps, contact sheets of overlays, and sheets of errors.

Only the end of a long title is shown, and both ends of a long caption. All images and overlays are (height, width, 3)
uint8 [0, 255].
"""

from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import wrap
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from realfake_hf.figures.style import INK, WIDTH, Pixels
from realfake_hf.tables import shorten

MAX_SHARP: Final = 128  # pixels; larger images are resampled smoothly, since nearest would alias
MAX_ASPECT: Final = 1.5  # height / width of the space for an image; taller ones are drawn narrower
TILES: Final = 4  # tiles in a full row of a contact sheet
MIN_TILES: Final = 2  # tiles for which a contact sheet has room, so that its title does
OUTLINE: Final = "outlined: at least half of the highest value"
WARNING: Final = "#A33F00"  # a dark orange that can be read on white

# Sizes in inches
MIN_CELL: Final = 1.4  # width of an image; more models make a wider figure
LINE: Final = 0.17  # height of a line of text at 9 points
SCALE: Final = 0.45  # height of the colour bar with its labels
GAP: Final = 0.12
MAX_ERROR_SIDE: Final = 2.4  # side of an image on a sheet of errors
ERROR_CAPTION: Final = 0.75  # height of the space below it

Line = tuple[str, str]  # text and its weight
Box = tuple[float, float, float, float]  # left, bottom, width, height in inches


@dataclass(frozen=True, eq=False)
class MapPanel:
    """The map of one model for an image, (grid_h, grid_w) in [0, 1], and its overlay.

    The title, the model and its verdict, and the note, the method and its options, are wrapped. The warnings, one
    sentence or two each, apply to the verdict. The brightest cells are, in words, what `bright` says. A constant map
    is labelled as empty.
    """

    title: str
    note: str
    warnings: Sequence[str]
    bright: str
    heat: NDArray[np.floating]
    overlay: Pixels


def image_with_maps(
    image: Pixels, panels: Sequence[MapPanel], *, title: str, note: str = "", color_map: str
) -> Figure:
    """Draw an image with a note above it, its maps and their overlays, with the warnings and what the colours mean.

    A single map is drawn between the image and its overlay. Several maps are drawn side by side, each above its
    overlay; the colours are explained below the image. Small images and all maps are enlarged with sharp pixels.
    """
    columns, rows = (3, 1) if len(panels) == 1 else (1 + len(panels), 2)
    width = max(WIDTH, columns * (MIN_CELL + GAP) + GAP)
    cell = (width - GAP) / columns - GAP
    heads = [_head("image", note, cell), *(_head(panel.title, panel.note, cell * 2 / rows) for panel in panels)]
    head_height = LINE * max(map(len, heads))
    warnings = _warning_lines(panels, width - 2 * GAP)
    height = cell * _aspect([image])
    legend = _legend_lines(panels, cell if rows > 1 else width - 2 * GAP)
    if rows > 1:
        height = max(height, SCALE + LINE * len(legend))
    base = GAP if rows > 1 else SCALE + LINE * len(legend)  # lower edge of the images
    top = base + rows * (height + GAP)  # upper edge
    figure = _titled(title, width=width, height=top + 0.42 + head_height + LINE * len(warnings))
    lefts = [GAP + column * (cell + GAP) for column in range(columns)]
    for left, lines in zip(lefts, heads, strict=False):
        _write(figure, lines, left=left, top=top + 0.04 + head_height)
    _write(figure, warnings, left=GAP, top=top + 0.08 + head_height + LINE * len(warnings), color=WARNING)
    boxes = [(left, top - height, cell, height) for left in lefts]
    _show(_axes(figure, boxes[0]), image, of=image)
    for box, panel in zip(boxes[1:], panels, strict=False):
        _show_map(_axes(figure, box), panel, color_map)
        overlay_box = boxes[2] if rows == 1 else (box[0], base, *box[2:])
        _show(_axes(figure, overlay_box), panel.overlay, of=image)
    legend_top = base - 0.02 if rows == 1 else base + height
    _draw_legend(figure, color_map, legend, left=GAP, top=legend_top, width=min(3.0, cell if rows > 1 else 3.0))
    return figure


def explanation_sheet(
    tiles: Sequence[tuple[Pixels, Pixels, str]], *, title: str, bright: str, color_map: str
) -> Figure:
    """Draw a contact sheet of tiles: image, overlay and caption of each, in order, and what the colours mean.

    A caption has one or more lines. Few tiles make a narrow sheet.
    """
    columns = min(TILES, max(MIN_TILES, len(tiles)))
    cell = (WIDTH - GAP) / TILES - GAP  # width of an image and its overlay
    width = columns * (cell + GAP) + GAP
    captions = [[(shorten(line, int(14 * cell)), "normal") for line in text.splitlines()] for *_, text in tiles]
    height = cell / 2 * _aspect([image for image, *_ in tiles])
    row_height = height + LINE * max(map(len, captions)) + GAP
    titles = [(line, "bold") for line in wrap(title, int(12 * (width - 2 * GAP)))]
    legend = wrap(f"{bright}; {OUTLINE}", int(14 * (width - 2 * GAP)), break_on_hyphens=False)
    base = SCALE + LINE * len(legend) + GAP
    top = base + row_height * -(-len(tiles) // columns)
    figure = Figure(figsize=(width, top + LINE * len(titles) + 0.2))
    _write(figure, titles, left=GAP, top=top + LINE * len(titles) + 0.1)
    for position, ((image, overlay, _), caption) in enumerate(zip(tiles, captions, strict=True)):
        row, column = divmod(position, columns)
        left, bottom = GAP + column * (cell + GAP), top - row * row_height - height
        for x, pixels in ((left, image), (left + cell / 2, overlay)):
            _show(_axes(figure, (x, bottom, cell / 2 - 0.02, height)), pixels, of=image)
        _write(figure, caption, left=left, top=bottom - 0.02)
    _draw_legend(figure, color_map, legend, left=GAP, top=base - GAP, width=min(3.0, width - 2 * GAP))
    return figure


def error_sheet(rows: Sequence[Sequence[tuple[Pixels, str]]], *, title: str, columns: Sequence[str]) -> Figure:
    """Draw the images of each error side by side, with a caption of one to three lines; errors fill the row."""
    across = max(1, TILES // len(columns))  # errors in a row
    pitch = (WIDTH - GAP) / (across * len(columns))
    side = min(pitch - GAP, MAX_ERROR_SIDE)
    n_rows = -(-len(rows) // across)
    height = 0.8 + n_rows * (side + ERROR_CAPTION)
    figure = _titled(title, width=WIDTH, height=height)
    lefts = [GAP + column * pitch for column in range(across * len(columns))]
    for left, name in zip(lefts, list(columns) * min(across, len(rows)), strict=False):
        _write(figure, [(name, "bold")], left=left, top=height - 0.48)
    for number, row in enumerate(rows):
        down, right = divmod(number, across)
        bottom = height - 0.75 - down * (side + ERROR_CAPTION) - side
        for left, (image, caption) in zip(lefts[right * len(columns) :], row, strict=False):
            axes = _axes(figure, (left, bottom, side, side))
            axes.set_anchor("NW")
            _show(axes, image, of=image)
            _write(figure, [(line, "normal") for line in caption.splitlines()], left=left, top=bottom - 0.04)
    return figure


def _aspect(images: Sequence[Pixels]) -> float:
    """Return height / width of the space for images."""
    return float(min(MAX_ASPECT, max(image.shape[0] / image.shape[1] for image in images)))


def _head(title: str, note: str, inches: float) -> list[Line]:
    """Return the lines above an image: a bold title and a note, wrapped."""
    bold = [(line, "bold") for part in title.splitlines() for line in wrap(part, int(12 * inches))]
    return bold + [(line, "normal") for line in wrap(note, int(14 * inches))]


def _warning_lines(panels: Sequence[MapPanel], inches: float) -> list[Line]:
    """Return the warnings, wrapped; those of several models with the names of the models to which they apply."""
    models: dict[str, list[str]] = {}
    for panel in panels:
        for warning in panel.warnings:
            models.setdefault(warning, []).append(panel.title.splitlines()[0])
    texts = [f"{', '.join(names)}: {text}" if len(panels) > 1 else text for text, names in models.items()]
    return [(line, "normal") for text in texts for line in wrap(text, int(14 * inches))]


def _legend_lines(panels: Sequence[MapPanel], inches: float) -> list[str]:
    """Return what the colours mean, wrapped; by model if it differs."""
    names: dict[str, list[str]] = {}
    for panel in panels:
        names.setdefault(panel.bright, []).append(panel.title.splitlines()[0])
    texts = list(names) if len(names) == 1 else [f"{', '.join(own)}: {text}" for text, own in names.items()]
    return [line for text in [*texts, OUTLINE] for line in wrap(text, int(13 * inches), break_on_hyphens=False)]


def _titled(title: str, *, width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height))
    length = int(10 * (width - 2 * GAP))
    shortened = title if len(title) <= length else f"…{title[-length:]}"
    figure.text(GAP / width, 1 - 0.1 / height, shortened, va="top", size=11, color=INK, parse_math=False)
    return figure


def _axes(figure: Figure, box: Box) -> Axes:
    width, height = figure.get_size_inches()
    left, bottom, box_width, box_height = box
    return figure.add_axes(
        (left / width, bottom / height, box_width / width, box_height / height), xticks=[], yticks=[], frame_on=False
    )


def _write(figure: Figure, lines: Sequence[Line], *, left: float, top: float, color: str = INK) -> None:
    """Write lines of text, downward from a position in inches."""
    width, height = figure.get_size_inches()
    for number, (line, weight) in enumerate(lines):
        x, y = left / width, (top - LINE * number) / height
        figure.text(x, y, line, va="top", size=9, color=color, weight=weight, parse_math=False)


def _show(axes: Axes, pixels: Pixels, *, of: Pixels) -> None:
    """Show an image or its overlay; those of a small image are enlarged with sharp pixels."""
    axes.imshow(pixels, interpolation="nearest" if max(of.shape) <= MAX_SHARP else "auto")


def _show_map(axes: Axes, panel: MapPanel, color_map: str) -> None:
    height, width = panel.overlay.shape[:2]  # stretch the grid to the shape of the image
    axes.imshow(panel.heat, cmap=color_map, vmin=0, vmax=1, interpolation="nearest", extent=(0, width, height, 0))
    if np.nanmin(panel.heat) == np.nanmax(panel.heat):
        text = "empty map:\nthe same value\neverywhere"
        axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color="white", size=10)


def _draw_legend(
    figure: Figure, color_map: str, lines: Sequence[str], *, left: float, top: float, width: float
) -> None:
    """Draw the colours from the lowest to the highest value, and lines of text below."""
    axes = _axes(figure, (left, top - 0.14, width, 0.1))
    axes.imshow(np.linspace(0, 1, 256)[None], cmap=color_map, aspect="auto")
    for x, text, side in ((0, "lowest", "left"), (1, "highest", "right")):
        axes.text(x, -0.6, text, transform=axes.transAxes, ha=side, va="top", color=INK, size=9)
    _write(figure, [(line, "normal") for line in lines], left=left, top=top - 0.22 - LINE)
