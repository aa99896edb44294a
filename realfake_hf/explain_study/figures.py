"""How far maps agree: every pair as a matrix, and the pairs that matter beside their controls."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from realfake_hf.estimate import Estimate
from realfake_hf.figures.estimates import known, legend_below, spread
from realfake_hf.figures.style import BLUE, COLORS, FIXED, INK, VERMILLION, WIDTH, style_axes

MATRIX_COLORS: Final = "cividis"  # made for colour-blind readers: Nuñez, Anderton & Renslow (2018), PLOS ONE
ROW: Final = 0.55  # inches, of a pair and its controls
KINDS: Final = (  # field, words, colour, marker, height in the row
    ("agreement", "the pair, on the same picture", BLUE, "o", 0.3),
    ("ceiling", "each map and its twin of another training seed", COLORS[2], "^", 0.15),
    ("shuffled", "the pair, on different pictures", VERMILLION, "D", 0.0),
    ("random_weights", "the pair, with random weights", COLORS[3], "v", -0.15),
    ("centre", "each map and a spot in the centre", COLORS[4], "s", -0.3),
)


@dataclass(frozen=True, kw_only=True)
class ControlRow:
    """A pair of maps and what its agreement is to be held against.

    Attributes:
        name: of the pair, in one or two lines.
        group: pairs of a group stand together under its name.
        agreement: of the two maps of the same picture; None where it is undefined, as for all.
        shuffled: of maps of different pictures.
        random_weights: of the two models before any training.
        centre: of each map with a spot in the centre.
        ceiling: of each map with that of the same model, trained with another seed.
    """

    name: str
    group: str
    agreement: Estimate | None
    shuffled: Estimate | None = None
    random_weights: Estimate | None = None
    centre: tuple[Estimate | None, ...] = ()
    ceiling: tuple[Estimate | None, ...] = ()

    def marks(self, kind: str) -> list[Estimate]:
        """What is defined of one of the fields."""
        found = getattr(self, kind)
        return known(found if isinstance(found, tuple) else (found,))


def agreement_matrix(
    names: Sequence[tuple[str, str]], values: NDArray[np.floating], *, measure: str, chance: float | None = None
) -> Figure:
    """Draw the agreement of every pair of maps as numbers on colours, models set apart by lines.

    Args:
        names: (model, method) of each map, those of a model one after the other.
        values: (maps, maps), symmetric; NaN where a pair is undefined. The diagonal is not read.
        measure: what the numbers are.
        chance: the agreement of maps that know nothing of each other, marked on the colour bar; None marks none.
    """
    pairs = np.tril(np.ones((len(names), len(names)), dtype=np.bool_), k=-1)
    if len(names) < 2 or values.shape != pairs.shape or not np.isfinite(values[pairs]).any():  # noqa: PLR2004
        raise ValueError(
            f"wanted two or more maps and (maps, maps) agreements, some defined; found {len(names)} maps and "
            f"{values.shape}. Pass one name and one row for each map."
        )
    figure = Figure(figsize=(WIDTH, 1.9 + 0.55 * len(names)), layout="constrained")
    axes = figure.subplots()
    shown = np.where(pairs, values, np.nan)
    low, high = min(0.0, float(np.nanmin(shown))), float(max(np.nanmax(shown), chance or 0.0, 1e-3))
    image = axes.imshow(shown, cmap=MATRIX_COLORS, vmin=low, vmax=high, aspect="auto")
    _write_cells(axes, shown, pairs, middle=(low + high) / 2)
    labels = [f"{model} {method}" for model, method in names]
    axes.set_yticks(range(1, len(names)), labels[1:], parse_math=False)
    axes.set_xticks(range(len(names) - 1), labels[:-1], rotation=35, ha="right", rotation_mode="anchor")
    axes.set(frame_on=False, xlim=(-0.5, len(names) - 1.5), ylim=(len(names) - 0.5, 0.5))
    axes.tick_params(length=0, labelsize=10)
    _separate_models(axes, [model for model, _ in names])
    bar = figure.colorbar(image, ax=axes, shrink=0.8, aspect=30, label=measure)
    bar.outline.set_visible(False)
    if chance is not None:
        bar.ax.axhline(chance, color=VERMILLION, linewidth=2.5)
        place = (-0.2, chance)
        bar.ax.annotate("chance", place, ha="right", va="center", xycoords=("axes fraction", "data"), size=10)
    return figure


def _write_cells(axes: Axes, shown: NDArray[np.floating], pairs: NDArray[np.bool_], *, middle: float) -> None:
    for row, column in np.argwhere(pairs):
        value = shown[row, column]
        words = "none" if np.isnan(value) else f"{value:.2f}".replace("-", "\N{MINUS SIGN}")
        color = INK if np.isnan(value) else "white" if value < middle else "black"
        gid = None if np.isnan(value) else FIXED
        axes.text(column, row, words, ha="center", va="center", color=color, size=11, gid=gid)


def _separate_models(axes: Axes, models: Sequence[str]) -> None:
    starts = [index for index in range(1, len(models)) if models[index] != models[index - 1]]
    for start in starts:
        axes.plot([-0.5, start - 0.5], [start - 0.5] * 2, color=INK, linewidth=2.5, solid_capstyle="butt")
        axes.plot([start - 0.5] * 2, [start - 0.5, len(models) - 0.5], color=INK, linewidth=2.5, solid_capstyle="butt")


def agreement_against_controls(
    rows: Sequence[ControlRow], *, measure: str, n: int, chance: float | None = None
) -> Figure:
    """Draw the agreement of pairs of maps beside what it is to be held against.

    Args:
        rows: one a pair; those of a group follow each other.
        measure: what the numbers are.
        n: pictures.
        chance: the agreement of maps that know nothing of each other, as a dashed line; None draws none.
    """
    if not rows or not any(row.marks("agreement") for row in rows):
        raise ValueError(
            f"wanted one or more pairs, an agreement defined in one of them; found {len(rows)} pairs. Pass pairs of "
            "maps that are not all empty."
        )
    groups = [(group, list(members)) for group, members in groupby(rows, key=lambda row: row.group)]
    height = ROW * (len(rows) + 0.7 * len(groups)) + 1.5
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    axes = figure.subplots()
    style_axes(axes)
    axes.grid(visible=False, axis="y")
    places = _place_rows(axes, groups)
    for kind, words, color, marker, above in KINDS:
        _draw_kind(axes, rows, places, kind=kind, look=(words, color, marker), above=above)
    if chance is not None:
        axes.axvline(chance, color=INK, linestyle="--", linewidth=1.2, zorder=1, label="chance")
    axes.set(xlabel=measure, title=f"n = {n:,} test pictures, bars: 95 % intervals")
    axes.margins(x=0.04)
    legend_below(figure, [axes], columns=2, order=[words for _, words, *_ in KINDS])
    return figure


def _place_rows(axes: Axes, groups: Sequence[tuple[str, Sequence[ControlRow]]]) -> list[float]:
    """Write the names of groups and rows from above, and give the height of each row."""
    places: list[float] = []
    here = 0.0
    for group, members in groups:
        axes.annotate(
            group, (0, here), (-4, 0), xycoords=axes.get_yaxis_transform(), textcoords="offset points", weight="bold",
            color=INK, size=10, ha="right", va="center", annotation_clip=False, parse_math=False,
        )  # fmt: skip
        places += [here - 0.75 - index for index in range(len(members))]
        here = places[-1] - 0.9
    axes.set_yticks(places, [row.name for _, members in groups for row in members], parse_math=False)
    axes.tick_params(axis="y", length=0, labelsize=10)
    axes.set_ylim(places[-1] - 0.6, 0.3)
    for upper, lower in pairwise(places):
        if upper - lower == 1:
            axes.axhline((upper + lower) / 2, color="#E5E5E5", linewidth=0.8, zorder=0)
    return places


def _draw_kind(
    axes: Axes,
    rows: Sequence[ControlRow],
    places: Sequence[float],
    *,
    kind: str,
    look: tuple[str, str, str],
    above: float,
) -> None:
    marks = [(place + above, mark) for place, row in zip(places, rows, strict=True) for mark in row.marks(kind)]
    if not marks:
        return
    words, color, marker = look
    values, distances = spread([mark for _, mark in marks])
    axes.errorbar(
        values, [place for place, _ in marks], xerr=distances, fmt=marker, color=color, label=words,
        markersize=8 if kind == "agreement" else 6, elinewidth=1.8, clip_on=False, zorder=3,
    )  # fmt: skip
