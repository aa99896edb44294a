"""What pages that need nothing else are made of: figures for light and dark, tables, sections, one template."""

from base64 import b64encode
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, Final

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from realfake_hf.figures import darken

DPI: Final = 150
PALETTE: Final = 256  # colours of a figure's PNG, a third of the size of one with all
Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Table:
    """A table as it is shown.

    Attributes:
        caption: what it holds, and how it is to be read.
        head: of the columns.
        rows: cells as text; the first of each names its row.
        folded: the page shows the caption alone until the reader opens it.
    """

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    folded: bool = False


@dataclass(frozen=True)
class Shown:
    """A figure of the page.

    Attributes:
        draw: makes it, anew at each call.
        alt: what it says, for those who do not see it.
        caption: what it is, over how many pictures.
        reading: how it is to be read.
    """

    draw: Callable[[], Figure]
    alt: str
    caption: str
    reading: str


@dataclass(frozen=True)
class Section:
    """A part of the page."""

    anchor: str
    title: str
    lead: str
    figures: Sequence[Shown]
    tables: Sequence[Table]


@dataclass(frozen=True)
class Drawn:
    """A figure as the page shows it."""

    shown: Shown
    light: str
    dark: str
    width: int
    height: int


def render_page(template: str, file: Path, parts: Sequence[Section], **values: Any) -> Path:  # noqa: ANN401 - any
    """Render a page from one of the templates beside this module, and give its path.

    Args:
        template: its name.
        file: an HTML file; its folder is made.
        parts: the sections, whose figures are drawn for light and dark.
        values: what else the template asks for.
    """
    environment = Environment(
        loader=PackageLoader("realfake_hf", "pages"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    sections = [(part, [draw(shown) for shown in part.figures]) for part in parts]
    page = environment.get_template(template).render(sections=sections, png=png, **values)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(page, encoding="utf-8")
    return file


def draw(shown: Shown) -> Drawn:
    """Draw a figure for light and dark pages."""
    figure = shown.draw()
    figure.set_dpi(DPI)
    light = _pixels(figure)
    figure.set_layout_engine("none")  # found once, it holds for both pictures
    return Drawn(shown, _few_colors(light), _few_colors(_pixels(darken(figure))), *light.shape[1::-1])


def _pixels(figure: Figure) -> Pixels:
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # type: ignore[no-untyped-call]
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()  # type: ignore[no-untyped-call]


def _few_colors(pixels: Pixels) -> str:
    return _data_uri(Image.fromarray(pixels).quantize(PALETTE, dither=Image.Dither.NONE))


def png(picture: Pixels) -> str:
    """Give a picture as a data URI."""
    return _data_uri(Image.fromarray(picture))


def _data_uri(picture: Image.Image) -> str:
    file = BytesIO()
    picture.save(file, format="png")
    return f"data:image/png;base64,{b64encode(file.getvalue()).decode()}"
