"""Every model is where its numbers say, and every label can be read."""

import re
from collections.abc import Sequence
from functools import cache
from itertools import combinations

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib import pyplot as plt
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from realfake_hf.figures import CostPoint, accuracy_against_time

PAPER = 0.9298
CNN = CostPoint("cnn", 2215, 0.9524, (0.9494, 0.9553))
VIT_SMALL = CostPoint("vit-small", 5400, 0.9866, (0.985, 0.9882))
CASES: dict[str, tuple[Sequence[CostPoint], float | None]] = {
    "one": ([CNN], PAPER),
    "two": ([CNN, VIT_SMALL], PAPER),
    "neighbours": ([CNN, CostPoint("vit-tiny", 4000, 0.986, (0.984, 0.9876)), VIT_SMALL], PAPER),
    "on the paper's line": ([CNN, CostPoint("a model with a long name", 600, 0.9295, (0.926, 0.933))], PAPER),
    "at the paper's label": ([CNN, CostPoint("slow", 4400, 0.931, (0.928, 0.934))], PAPER),
    "at the top": ([CostPoint("perfect", 10, 1.0, (1.0, 1.0)), CostPoint("fair", 20, 0.9)], None),
    "one point": ([CostPoint(name, 3, 0.7) for name in "abcd"], None),
    "far apart": ([CostPoint("fast", 0.9, 0.95), CostPoint("slow", 200_000, 0.98)], PAPER),
}


def draw(name: str) -> Figure:
    rows, paper = CASES[name]
    figure = accuracy_against_time(rows, n=20_000, paper_accuracy=paper)
    figure.draw_without_rendering()
    return figure


drawn = cache(draw)


def covered_by_points(figure: Figure) -> list[Bbox]:
    axes = figure.axes[0]
    places = [axes.transData.transform((line.get_xdata()[0], line.get_ydata()[0])) for line in points(figure)]
    return [Bbox([place, place]).padded(4 * figure.dpi / 72) for place in places]  # radius in points


def points(figure: Figure) -> list[plt.Line2D]:
    return [line for line in figure.axes[0].lines if line.get_marker() != "None"]


@pytest.mark.parametrize("name", CASES)
def test_every_label_can_be_read(name: str) -> None:
    figure = drawn(name)
    axes = figure.axes[0]
    boxes = [Text.get_window_extent(text) for text in axes.texts]
    assert len(boxes) == len(CASES[name][0]) + (CASES[name][1] is not None)
    assert not any(one.overlaps(other) for one, other in combinations(boxes, 2))
    assert not any(box.count_overlaps(covered_by_points(figure)) for box in boxes)
    assert all(axes.bbox.contains(*corner) for box in boxes for corner in box.corners())


@pytest.mark.parametrize("name", CASES)
def test_the_seconds_on_the_axis_do_not_run_into_each_other(name: str) -> None:
    axes = drawn(name).axes[0]
    low, high = axes.get_xlim()
    shown = [tick.label1 for tick in axes.xaxis.get_major_ticks() if low <= tick.get_loc() <= high]
    boxes = [label.get_window_extent() for label in shown]
    assert len(boxes) >= 2
    assert not any(one.overlaps(other) for one, other in combinations(boxes, 2))


@pytest.mark.parametrize("name", ["two", "far apart"])
def test_nothing_is_drawn_outside_the_figure_and_nothing_is_left_behind(name: str) -> None:
    before = {key: mpl.rcParams[key] for key in mpl.rcParams if key != "backend"}
    figure = draw(name)
    assert all(figure.bbox.contains(*corner) for axes in figure.axes for corner in axes.get_tightbbox().corners())
    assert plt.get_fignums() == []
    assert {key: mpl.rcParams[key] for key in mpl.rcParams if key != "backend"} == before


def test_points_and_bars_are_the_numbers_given() -> None:
    rows, _ = CASES["neighbours"]
    figure = drawn("neighbours")
    axes = figure.axes[0]
    bars = [bar.get_segments()[0].T for bar in axes.collections if isinstance(bar, LineCollection)]
    assert axes.get_xscale() == "log"
    for row, point, (seconds, ends) in zip(rows, points(figure), bars, strict=True):
        assert (point.get_label(), list(point.get_xdata())) == (row.name, [row.seconds])
        assert list(point.get_ydata()) == pytest.approx([100 * row.accuracy])
        assert seconds.tolist() == [row.seconds] * 2
        assert ends.tolist() == pytest.approx([100 * end for end in row.interval])


def test_labels_say_name_and_accuracy_and_the_title_counts_the_images() -> None:
    axes = drawn("two").axes[0]
    assert {text.get_text() for text in axes.texts} == {"cnn 95.24 %", "vit-small 98.66 %", "the paper, 92.98 %"}
    assert axes.get_title() == "n = 20,000 test images, bars: 95 % intervals"


def test_without_intervals_the_title_speaks_of_none() -> None:
    assert drawn("one point").axes[0].get_title() == "n = 20,000 test images"


def test_the_paper_is_a_dashed_line_at_its_accuracy() -> None:
    [line] = [line for line in drawn("two").axes[0].lines if line.get_linestyle() == "--"]
    assert list(line.get_ydata()) == pytest.approx([92.98, 92.98])


def test_without_the_paper_there_is_no_line() -> None:
    assert [line for line in drawn("at the top").axes[0].lines if line.get_linestyle() == "--"] == []


def test_thirty_five_models_all_look_different() -> None:
    rows = [CostPoint(f"model {i}", 10 + i, 0.9) for i in range(35)]
    looks = {(point.get_color(), point.get_marker()) for point in points(accuracy_against_time(rows, n=10))}
    assert len(looks) == 35


def test_dollar_signs_in_names_are_only_dollar_signs() -> None:
    figure = accuracy_against_time([CostPoint("a $x^ b$", 3, 0.5)], n=10)
    figure.draw_without_rendering()
    [label] = figure.axes[0].texts
    assert (label.get_text(), label.get_parse_math()) == ("a $x^ b$ 50.00 %", False)


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ([], "found []. Pass one row a model."),
        ([CostPoint("a", 0, 0.5)], "and more than 0 seconds of training; found [('a', 0)]. Pass one"),
        ([CostPoint("a", 1, 0.5), CostPoint("a", 2, 0.5)], "with a name of its own and more than 0 seconds"),
        ([CostPoint("a", 1, 95.2)], "found 95.2 to 95.2"),
        ([CostPoint("a", 1, 0.5, (0.4, np.nan))], "found nan to nan"),
    ],
)
def test_an_error_says_what_was_wanted_and_found_and_what_to_do(rows: list[CostPoint], sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)):
        accuracy_against_time(rows, n=10)
