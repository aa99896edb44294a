"""The same figure for a dark page."""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from matplotlib.artist import Artist
from matplotlib.collections import Collection
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.text import Text
from numpy.typing import ArrayLike

from realfake_hf.explain_study.figures import FIXED

GROUND: Final = (0.086, 0.094, 0.11)
BRIGHT: Final = (0.91, 0.91, 0.93)
GREY: Final = 0.08  # the most that the channels of a grey differ
TINT: Final = 0.28  # share of white that colours gain
PARTS: Final = ("color", "facecolor", "edgecolor", "markerfacecolor", "markeredgecolor")
Color = tuple[float, float, float, float]


def darken(figure: Figure) -> Figure:
    """Recolour a figure for a dark page: white becomes dark, black bright, colours a little lighter.

    Pictures, colour maps and words on them keep their colours. The figure is changed, and given back.
    """
    figure.draw_without_rendering()  # ticks are made as they are drawn
    figure.set_layout_engine("none")  # what is drawn stays in its place
    for artist in set(figure.findobj(_is_drawn)):
        _recolour(artist)
    return figure


def _is_drawn(artist: Artist) -> bool:
    """Whether an artist has colours of its own, and not, as axes do, those of its parts."""
    return isinstance(artist, (Collection, Line2D, Patch, Text)) and artist.get_gid() != FIXED


def _recolour(artist: Artist) -> None:
    parts = [part for part in PARTS if hasattr(artist, f"get_{part}") and hasattr(artist, f"set_{part}")]
    old = {part: getattr(artist, f"get_{part}")() for part in parts}
    if "facecolor" in old:
        old.pop("color", None)  # it would set both
    for part, color in old.items():
        getattr(artist, f"set_{part}")(_darkened(color))


def _darkened(color: Any) -> Any:  # noqa: ANN401 - a name, a tuple or an array, as matplotlib has it
    if isinstance(color, str) and color in ("none", "auto"):
        return color
    if isinstance(color, np.ndarray) and color.ndim == 2:  # noqa: PLR2004  a collection's
        return [_one(row) for row in color]
    return _one(to_rgba(color))


def _one(color: Sequence[float] | ArrayLike) -> Color:
    red, green, blue, alpha = np.asarray(color, dtype=np.float64).tolist()
    if max(red, green, blue) - min(red, green, blue) > GREY:
        red, green, blue = (channel + TINT * (1 - channel) for channel in (red, green, blue))
        return red, green, blue, alpha
    light = (red + green + blue) / 3
    red, green, blue = (bright + light * (ground - bright) for ground, bright in zip(GROUND, BRIGHT, strict=True))
    return red, green, blue, alpha
