"""Shared parts of figures: colours, axes, estimates with intervals, legends, dark mode, and writing PNG files."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.collections import Collection
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.text import Text
from numpy.typing import ArrayLike, NDArray

from realfake_hf.estimate import Estimate

BLUE: Final = "#0072B2"
VERMILLION: Final = "#D55E00"
INK: Final = "#333333"
# Okabe & Ito (2008) without yellow, which is too pale, and a wine red
COLORS: Final = (BLUE, VERMILLION, "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#882255")
MARKERS: Final = "osD^v"  # distinguish points without colour; combined with the colours they give 40 styles
LONG_DASHES: Final = (0, (7, 1.5))  # where the colours repeat
REFERENCES: Final = ((INK, ":"), (INK, "--"), (INK, "-."))
WIDTH: Final = 8.0  # inches: 1,200 pixels as saved
FIXED: Final = "on a colour map"  # gid of text whose colour depends on the colour map below it, not on the page

GROUND: Final = (0.086, 0.094, 0.11)  # background of dark mode
BRIGHT: Final = (0.91, 0.91, 0.93)  # replaces black in dark mode
_GREY: Final = 0.08  # largest difference between the channels of a grey
_TINT: Final = 0.28  # share of white that is added to colours in dark mode
_COLOR_PROPERTIES: Final = ("color", "facecolor", "edgecolor", "markerfacecolor", "markeredgecolor")

Floats = NDArray[np.float64]
Pixels = NDArray[np.uint8]
LineStyle = tuple[str, str | tuple[int, tuple[float, ...]]]  # colour, and dashes as Matplotlib names them


def save_figure(figure: Figure, path: Path) -> Path:
    """Write a PNG at 150 dpi, creating its folder, and return the path. Equal figures give equal bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="png", dpi=150, metadata={"Software": None})
    return path


def look(index: int) -> dict[str, Any]:
    """Return the colour and marker of the n-th of several models; 35 differ."""
    return {"color": COLORS[index % len(COLORS)], "marker": MARKERS[index % len(MARKERS)]}


def style_axes(axes: Axes) -> None:
    """Keep only the left and lower spine, and draw a light grid behind the data."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#E5E5E5", linewidth=0.8)
    axes.set_axisbelow(True)


def percent_range(percent: Floats) -> tuple[float, float]:
    """Return axis limits for values in per cent, with a small margin but within [0, 100]."""
    margin = max(0.06 * float(np.ptp(percent)), 0.25)
    return max(float(percent.min()) - margin, 0.0), min(float(percent.max()) + margin, 100.0)


def push_apart(places: Floats, *, gap: float) -> Floats:
    """Move sorted points of [0, 1] at least `gap` apart, keeping their order and minimizing the largest move."""
    steps = gap * np.arange(len(places))
    loose = places - steps  # these must not decrease: fit them isotonically with the smallest maximum error
    fitted = (np.maximum.accumulate(loose) + np.minimum.accumulate(loose[::-1])[::-1]) / 2
    return np.asarray(np.clip(fitted, 0, max(0.0, 1 - steps[-1])) + steps)


def error_bars(estimates: Sequence[Estimate | None]) -> tuple[Floats, Floats]:
    """Return values (n,), NaN for None, and the distances to both ends of their intervals (2, n).

    The distance to a missing end is 0, and so is that to an end on the wrong side: a percentile interval need not
    contain its value.
    """
    rows = [(item.value, item.low, item.high) if item else (None,) * 3 for item in estimates]
    values, low, high = np.array(rows, dtype=np.float64).reshape(-1, 3).T
    return values, np.fmax(np.stack([values - low, high - values]), 0)


def line_styles(methods: Sequence[str], references: Sequence[str] = ()) -> Mapping[str, LineStyle]:
    """Assign a colour to each method, and a dark dashed style to each reference, such as a random order."""
    styles = {
        method: (COLORS[index % len(COLORS)], "-" if index < len(COLORS) else LONG_DASHES)
        for index, method in enumerate(methods)
    }
    return styles | dict(zip(references, REFERENCES, strict=False))


def legend_below(figure: Figure, axes: Sequence[Axes], *, columns: int, order: Sequence[str] = ()) -> None:
    """Draw one legend for all panels below them: labels in `order` first, then the others."""
    handles: dict[str, Artist] = {}
    for panel in axes:
        for handle, label in zip(*panel.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    names = sorted(handles, key=lambda name: order.index(name) if name in order else len(order))
    figure.legend(
        [handles[name] for name in names], names, loc="outside lower center", ncols=columns, frameon=False, fontsize=10
    )


def darken(figure: Figure) -> Figure:
    """Recolour a figure for dark mode in place and return it: white becomes dark, black bright, colours lighter.

    Images, colour maps and text with the gid `FIXED` keep their colours.
    """
    figure.draw_without_rendering()  # ticks are created when they are drawn
    figure.set_layout_engine("none")  # keep the layout
    for artist in set(figure.findobj(lambda part: isinstance(part, (Collection, Line2D, Patch, Text)))):
        if artist.get_gid() != FIXED:
            _recolor(artist)
    return figure


def _recolor(artist: Artist) -> None:
    names = [name for name in _COLOR_PROPERTIES if hasattr(artist, f"get_{name}") and hasattr(artist, f"set_{name}")]
    colors = {name: getattr(artist, f"get_{name}")() for name in names}
    if "facecolor" in colors:
        colors.pop("color", None)  # it would set both face and edge
    for name, color in colors.items():
        getattr(artist, f"set_{name}")(_to_dark(color))


def _to_dark(color: Any) -> Any:  # noqa: ANN401 - a name, a tuple or an array, as in matplotlib
    if isinstance(color, str) and color in ("none", "auto"):
        return color
    if isinstance(color, np.ndarray) and color.ndim == 2:  # noqa: PLR2004 - the colours of a collection
        return [_rgba_to_dark(row) for row in color]
    return _rgba_to_dark(to_rgba(color))


def _rgba_to_dark(color: ArrayLike) -> tuple[float, float, float, float]:
    red, green, blue, alpha = np.asarray(color, dtype=np.float64).tolist()
    if max(red, green, blue) - min(red, green, blue) > _GREY:
        red, green, blue = (channel + _TINT * (1 - channel) for channel in (red, green, blue))
        return red, green, blue, alpha
    lightness = (red + green + blue) / 3
    red, green, blue = (bright + lightness * (dark - bright) for dark, bright in zip(GROUND, BRIGHT, strict=True))
    return red, green, blue, alpha
