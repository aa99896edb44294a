"""Reports as one self-contained HTML file: findings, sections, tables, and figures for light and dark mode."""

from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any, Final

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from realfake_hf.figures.style import darken
from realfake_hf.tables import Table

DPI: Final = 150
Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class PageFigure:
    """A figure with its text."""

    draw: Callable[[], Figure]  # returns the figure, a new one at each call
    alt: str  # the content of the figure in words, for screen readers
    caption: str  # what the figure shows, with its number of images
    reading: str  # how to read it


@dataclass(frozen=True, eq=False)
class GalleryImage:
    """One image of a gallery item: (height, width, 3) uint8 [0, 255]."""

    pixels: Pixels
    caption: str
    alt: str


@dataclass(frozen=True)
class GalleryItem:
    """A group of images below a title and a line of text."""

    title: str
    text: str
    images: Sequence[GalleryImage]


@dataclass(frozen=True)
class Section:
    """One section of a page; its parts are shown in the order of the attributes.

    The anchor is the id of the heading, unique on the page; figures are drawn for light and dark mode, tables folded
    or open, PNG files by title and folded, and gallery items by the title of their group.
    """

    anchor: str
    title: str
    text: Sequence[str] = ()
    figures: Sequence[PageFigure] = ()
    tables: Sequence[Table] = ()
    files: Mapping[str, Path] = field(default_factory=dict)
    gallery: Mapping[str, Sequence[GalleryItem]] = field(default_factory=dict)


def write_page(
    file: Path,
    *,
    title: str,
    subtitle: str,
    findings: Sequence[str],
    sections: Sequence[Section],
    warnings: Sequence[str] = (),
    introduction: str = "",
    opening: PageFigure | None = None,
) -> Path:
    """Write a page, creating its folder, and return its path.

    The parts are shown in this order: title, subtitle (the question that the page answers, with its models and data),
    the number of warnings, an opening figure, findings (at most five sentences), warnings about the numbers, contents,
    introduction (one paragraph), sections.
    """
    environment = Environment(
        loader=PackageLoader("realfake_hf", "pages"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    page = environment.get_template("page.html.j2").render(
        title=title,
        subtitle=subtitle,
        warnings=warnings,
        findings=findings,
        introduction=introduction,
        opening=opening,
        sections=sections,
        render_figure=_render_figure,
        png=_png,
        png_file=lambda path: _data_uri(path.read_bytes()),
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(page, encoding="utf-8")
    return file


def _render_figure(draw: Callable[[], Figure]) -> dict[str, Any]:
    """Draw a figure for light and dark mode, and return both data URIs and the size in pixels."""
    figure = draw()
    figure.set_dpi(DPI)
    light = _rasterize(figure)
    figure.set_layout_engine("none")  # keep the layout of the light image
    dark = _rasterize(darken(figure))
    height, width = light.shape[:2]
    return {"light": _png(light, palette=True), "dark": _png(dark, palette=True), "width": width, "height": height}


def _rasterize(figure: Figure) -> Pixels:
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # type: ignore[no-untyped-call]
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()  # type: ignore[no-untyped-call]


def _png(pixels: Pixels, *, palette: bool = False) -> str:
    image = Image.fromarray(pixels)
    if palette:  # a third of the size of full colour
        image = image.quantize(256, dither=Image.Dither.NONE)
    buffer = BytesIO()
    image.save(buffer, format="png")
    return _data_uri(buffer.getvalue())


def _data_uri(png: bytes) -> str:
    return f"data:image/png;base64,{b64encode(png).decode()}"
