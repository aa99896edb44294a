"""What a detector got wrong: each picture, where it looked, and the training pictures that it takes it for."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from realfake_hf.figures.images import LARGEST_NEAREST
from realfake_hf.figures.style import INK, WIDTH

SIDE: Final = 1.55  # inches, of a picture
WORDS: Final = 0.75  # inches, between rows
Image = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class ErrorPanel:
    """A picture of a row.

    Attributes:
        caption: what stands below, a line or two.
        picture: (height, width, 3) uint8 [0, 255].
    """

    caption: str
    picture: Image


def error_sheet(rows: Sequence[Sequence[ErrorPanel]], *, title: str, heads: Sequence[str]) -> Figure:
    """Draw a row an error, a column a kind of panel; small pictures are enlarged with sharp pixels.

    Args:
        rows: one an error, all of the same length.
        title: of the sheet.
        heads: of the columns.
    """
    if not rows:
        raise ValueError("wanted one or more errors to draw; found none.")
    height = 0.8 + len(rows) * (SIDE + WORDS)
    figure = Figure(figsize=(WIDTH, height))
    figure.text(0.02, 1 - 0.12 / height, title, va="top", size=11, color=INK, parse_math=False)
    step = WIDTH / len(heads)
    for column, head in enumerate(heads):
        left = (column * step + 0.12) / WIDTH
        figure.text(left, 1 - 0.48 / height, head, va="top", size=10, weight="bold", color=INK)
    for row, panels in enumerate(rows):
        top = height - 0.75 - row * (SIDE + WORDS)
        for column, panel in enumerate(panels):
            left = column * step + 0.12
            axes = figure.add_axes((left / WIDTH, (top - SIDE) / height, SIDE / WIDTH, SIDE / height))
            _show(axes, panel.picture)
            words = {"va": "top", "size": 8.5, "color": INK, "parse_math": False}
            figure.text(left / WIDTH, (top - SIDE - 0.04) / height, panel.caption, **words)  # type: ignore[arg-type]
    return figure


def _show(axes: Axes, picture: Image) -> None:
    axes.imshow(picture, interpolation="nearest" if max(picture.shape) <= LARGEST_NEAREST else "antialiased")
    axes.set_anchor("NW")
    axes.axis("off")
