"""What accuracy costs: models by the time that their training took."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Annotation
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from matplotlib.transforms import Bbox

from realfake_hf.figures.style import COLORS, INK, WIDTH, Floats, percent_range, style_axes, unit_interval

MARKERS: Final = "osD^v"  # so that points differ without colour too; with 7 colours there are 35 looks
MOST_SPREAD: Final = 1000  # highest over lowest end of the axis; beyond it only powers of ten are labelled
BESIDE: Final = (  # offsets of a label in points, and which of its corners stands there, best first
    (9, 0, "left", "center"), (-9, 0, "right", "center"),
    (6, 6, "left", "bottom"), (6, -6, "left", "top"), (-6, 6, "right", "bottom"), (-6, -6, "right", "top"),
    (0, 12, "center", "bottom"), (0, -12, "center", "top"),
)  # fmt: skip
AT_RIGHT_END: Final = ((-3, 3, "right", "bottom"), (-3, -3, "right", "top"))
AT_LEFT_END: Final = ((3, 3, "left", "bottom"), (3, -3, "left", "top"))
Offset = tuple[int, int, str, str]
Spot = tuple[tuple[float, float], Offset]  # (seconds, per cent) and how the label stands to it


@dataclass(frozen=True)
class CostPoint:
    """A trained model as a point.

    Attributes:
        name: what the point is called.
        seconds: that its training took, above 0.
        accuracy: on the test images, in [0, 1].
        interval: its 95 % interval, low and high, in [0, 1]; None where there is none.
    """

    name: str
    seconds: float
    accuracy: float
    interval: tuple[float, float] | None = None

    def percent(self) -> Floats:
        """The accuracy and, where there is one, its interval: (1,) or (3,) in per cent."""
        return 100 * unit_interval([self.accuracy, *(self.interval or ())])


def accuracy_against_time(rows: Sequence[CostPoint], *, n: int, paper_accuracy: float | None = None) -> Figure:
    """Draw the test accuracy of models, with its 95 % interval, against the seconds of their training.

    A label stands where it covers nothing, as long as there is such a place beside its point.

    Args:
        rows: one a model, each with a name of its own.
        n: test images.
        paper_accuracy: what the paper reports, in [0, 1], as a dashed line; None draws none.
    """
    seconds = {row.name: row.seconds for row in rows}
    if not rows or len(seconds) < len(rows) or min(seconds.values()) <= 0:
        raise ValueError(
            "wanted one or more models, each with a name of its own and more than 0 seconds of training; found "
            f"{[(row.name, row.seconds) for row in rows]}. Pass one row a model."
        )
    paper = np.empty(0) if paper_accuracy is None else 100 * unit_interval([paper_accuracy])
    figure = Figure(figsize=(WIDTH, 4.2), layout="constrained")
    axes = figure.subplots()
    _style_cost(axes, list(seconds.values()))
    axes.set_ylim(percent_range(np.concatenate([paper, *(row.percent() for row in rows)])))
    axes.set_title(f"n = {n:,} test images" + (", bars: 95 % intervals" if any(row.interval for row in rows) else ""))
    for row, marker, color in zip(rows, cycle(MARKERS), cycle(COLORS), strict=False):
        _draw_point(axes, row, marker=marker, color=color)
    for line in paper:
        axes.axhline(line, color=INK, linestyle="--", linewidth=1)
    _write_labels(axes, rows, paper)
    return figure


def _style_cost(axes: Axes, seconds: Sequence[float]) -> None:
    style_axes(axes)
    low, high = min(seconds) / 2, 2 * max(seconds)  # room for labels
    axes.set_xscale("log")
    axes.set(xlim=(low, high), xlabel="training time, seconds", ylabel="test accuracy, %")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high / low < MOST_SPREAD else (1,)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _draw_point(axes: Axes, row: CostPoint, *, marker: str, color: str) -> None:
    percent = row.percent()
    axes.vlines(row.seconds, percent.min(), percent.max(), color=color, linewidth=1.8)
    axes.plot([row.seconds], percent[:1], marker, color=color, markersize=8, label=row.name)


def _write_labels(axes: Axes, rows: Sequence[CostPoint], paper: Floats) -> None:
    axes.figure.draw_without_rendering()  # type: ignore[union-attr]  # from here on places in pixels are known
    left, right = axes.get_xlim()
    taken = [box for row in rows for box in _drawn_boxes(axes, row)]
    taken += [Bbox(axes.transData.transform([(left, line), (right, line)])) for line in paper]
    for line in paper:
        spots = [((right, line), offset) for offset in AT_RIGHT_END] + [
            ((left, line), offset) for offset in AT_LEFT_END
        ]
        taken.append(_write(axes, f"the paper, {line:.2f} %", spots, taken))
    for row in rows:
        value = float(row.percent()[0])
        spots = [((row.seconds, value), offset) for offset in BESIDE]
        taken.append(_write(axes, f"{row.name} {value:.2f} %", spots, taken))


def _drawn_boxes(axes: Axes, row: CostPoint) -> list[Bbox]:
    """What a model's point and bar cover, in pixels."""
    percent = row.percent()
    point, low, high = axes.transData.transform(
        [(row.seconds, value) for value in (percent[0], percent.min(), percent.max())]
    )
    pixels = axes.figure.dpi / 72  # in a point
    return [Bbox([point, point]).padded(5 * pixels), Bbox([low, high]).padded(pixels)]


def _write(axes: Axes, text: str, spots: Sequence[Spot], taken: Sequence[Bbox]) -> Bbox:
    """Write at the first spot among those where the least is covered, and give what the text covers, in pixels."""
    notes = [
        axes.annotate(text, place, (dx, dy), textcoords="offset points", ha=ha, va=va, parse_math=False)
        for place, (dx, dy, ha, va) in spots
    ]
    best = min(notes, key=lambda note: _covered(axes, note, taken))
    for note in notes:
        if note is not best:
            note.remove()
    return best.get_window_extent()


def _covered(axes: Axes, note: Annotation, taken: Sequence[Bbox]) -> int:
    box = note.get_window_extent()
    outside = sum(not axes.bbox.contains(*corner) for corner in box.corners())
    return box.count_overlaps(taken) + outside
