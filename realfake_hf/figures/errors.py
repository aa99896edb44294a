"""Former names of parts of `images`, until their users are changed."""

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure

from realfake_hf.figures import images
from realfake_hf.figures.style import Pixels


@dataclass(frozen=True, eq=False)
class ErrorPanel:
    """An image and the text below it."""

    caption: str
    picture: Pixels


def error_sheet(rows: Sequence[Sequence[ErrorPanel]], *, title: str, heads: Sequence[str]) -> Figure:
    """Draw a sheet of errors."""
    pairs = [[(panel.picture, panel.caption) for panel in row] for row in rows]
    return images.error_sheet(pairs, title=title, columns=heads)
