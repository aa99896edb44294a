"""The figures carry the numbers they were given, stay inside their frame, and leave nothing behind."""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Annotation, Text
from matplotlib.transforms import Bbox

from realfake_hf.figures import style
from realfake_hf.figures import training as figures

CONTENT = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def rows(epochs: int) -> list[dict[str, float]]:
    """Return the history of a run whose best epoch is in the middle."""
    best = (epochs + 1) // 2
    return [
        {
            "epoch": float(epoch),
            "train_loss": 1 / epoch,
            "eval_loss": 1.1 / epoch,
            "eval_accuracy": 0.97 - 0.001 * abs(epoch - best),
            "eval_roc_auc": 0.99,
        }
        for epoch in range(1, epochs + 1)
    ]


def accuracies(names: Sequence[str], epochs: int) -> dict[str, list[float]]:
    rng = np.random.default_rng(len(names))
    return {name: rng.uniform(0.93, 0.97, epochs).tolist() for name in names}


def probabilities(epochs: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.random((epochs, n)), np.arange(n) < n // 3


def content_accuracy(accuracy: dict[str, list[float]]) -> Figure:
    return figures.content_accuracy(accuracy, epochs=range(1, 1 + len(next(iter(accuracy.values())))))


MAKERS: dict[str, Callable[[], Figure]] = {
    "curves, 1 epoch": lambda: figures.learning_curves(rows(1), best_epoch=1),
    "curves, 12 epochs": lambda: figures.learning_curves(rows(12), best_epoch=6),
    "curves, 100 epochs": lambda: figures.learning_curves(rows(100), best_epoch=50),
    "content, 1 epoch": lambda: content_accuracy(accuracies(CONTENT, 1)),
    "content, 12 epochs": lambda: content_accuracy(accuracies(CONTENT, 12)),
    "content, 1 class": lambda: content_accuracy(accuracies(["cat"], 12)),
    "content, 25 classes": lambda: content_accuracy(accuracies([f"class {i}" for i in range(25)], 12)),
    "confusion": lambda: figures.confusion_matrix(np.array([[2431, 69], [58, 2442]]), title="validation"),
    "map, 1 epoch": lambda: figures.difficulty_map(probabilities(1, 50)[0], is_fake=probabilities(1, 50)[1]),
    "map, 3 epochs": lambda: figures.difficulty_map(probabilities(3, 50)[0], is_fake=probabilities(3, 50)[1]),
    "map, one label": lambda: figures.difficulty_map(probabilities(3, 50)[0], is_fake=np.zeros(50, dtype=bool)),
}


def parameters() -> dict[str, object]:
    return {key: mpl.rcParams[key] for key in mpl.rcParams if key != "backend"}  # which resolves when it is looked at


def line(axes: Axes, label: str) -> Line2D:
    return next(found for found in axes.lines if found.get_label() == label)


def line_end_labels(figure: Figure) -> list[Annotation]:
    return [text for text in figure.axes[0].texts if isinstance(text, Annotation)]


def extents(figure: Figure, texts: Sequence[Annotation]) -> list[Bbox]:
    figure.draw_without_rendering()
    return [Text.get_window_extent(text) for text in texts]  # an annotation's own extent includes its leader


@pytest.mark.parametrize("name", MAKERS)
def test_nothing_is_drawn_outside_the_figure_and_nothing_is_left_behind(name: str) -> None:
    before = parameters()
    figure = MAKERS[name]()
    figure.draw_without_rendering()
    boxes = [box for axes in figure.axes if (box := axes.get_tightbbox()) is not None]
    assert boxes
    assert all(figure.bbox.contains(*corner) for box in boxes for corner in box.corners())
    assert plt.get_fignums() == []
    assert parameters() == before


def test_the_curves_are_the_numbers_given() -> None:
    history = rows(12)
    loss, accuracy = figures.learning_curves(history, best_epoch=6).axes
    epochs = [row["epoch"] for row in history]
    for label, key in (("training", "train_loss"), ("validation", "eval_loss")):
        assert list(line(loss, label).get_xdata()) == epochs
        assert list(line(loss, label).get_ydata()) == [row[key] for row in history]
    drawn = next(found for found in accuracy.lines if len(found.get_xdata()) == len(history))
    assert list(drawn.get_ydata()) == pytest.approx([100 * row["eval_accuracy"] for row in history])
    assert accuracy.get_ylabel() == "validation accuracy, %"


def test_the_best_epoch_is_marked_at_its_place_and_named() -> None:
    marked = 9
    figure = figures.learning_curves(rows(12), best_epoch=marked)
    value = 100 * rows(12)[marked - 1]["eval_accuracy"]
    mark = line(figure.axes[1], f"best: epoch {marked}, {value:.2f}%, ROC AUC 0.9900")
    assert list(mark.get_xdata()) == [marked]
    assert list(mark.get_ydata()) == pytest.approx([value])
    for axes in figure.axes:
        assert any(list(found.get_xdata()) == [marked, marked] for found in axes.lines)


def test_a_value_that_a_row_lacks_is_not_drawn() -> None:
    history = rows(4)
    del history[1]["eval_loss"]
    assert list(line(figures.learning_curves(history, best_epoch=1).axes[0], "validation").get_xdata()) == [1, 3, 4]


@pytest.mark.parametrize("epochs", [(1, 2, 3), (2, 4, 6), (2,)])
def test_content_lines_are_percentages_of_the_numbers_given(epochs: tuple[int, ...]) -> None:
    given = accuracies(CONTENT, len(epochs))
    (axes,) = figures.content_accuracy(given, epochs=epochs).axes
    for name, values in given.items():
        assert list(line(axes, name).get_xdata()) == list(epochs)
        assert list(line(axes, name).get_ydata()) == pytest.approx([100 * value for value in values])


@pytest.mark.parametrize(("classes", "spread"), [(1, 0.0), (10, 0.0), (10, 0.04), (10, 0.9), (25, 0.01)])
def test_labels_at_the_line_ends_do_not_overlap_and_keep_the_order_of_the_lines(classes: int, spread: float) -> None:
    ends = np.random.default_rng(1).uniform(0.95 - spread, 0.95, classes)
    figure = content_accuracy({f"class {i}": [0.9, end] for i, end in enumerate(ends)})
    labels = sorted(line_end_labels(figure), key=lambda label: label.xy[1])
    assert len(labels) == classes
    boxes = extents(figure, labels)
    assert all(lower.y1 <= upper.y0 for lower, upper in pairwise(boxes))
    assert all(box.y0 >= 0 and box.y1 <= figure.bbox.y1 and box.x1 <= figure.bbox.x1 for box in boxes)


def test_a_label_names_the_line_that_it_points_at() -> None:
    given = accuracies(CONTENT, 4)
    labels = line_end_labels(content_accuracy(given))
    found = {label.get_text(): label.xy for label in labels}
    expected = {f"{name} {100 * values[-1]:.1f}": (4, 100 * values[-1]) for name, values in given.items()}
    assert found.keys() == expected.keys()
    assert all(found[text] == pytest.approx(expected[text]) for text in expected)


def test_twenty_eight_lines_all_look_different() -> None:
    (axes,) = content_accuracy(accuracies([f"class {i}" for i in range(28)], 2)).axes
    assert len({(found.get_color(), found.get_linestyle()) for found in axes.lines}) == 28


def test_confusion_cells_show_counts_and_shares_of_their_row() -> None:
    (axes,) = figures.confusion_matrix(np.array([[1900, 100], [250, 750]]), title="test").axes
    cells = {tuple(int(place) for place in text.get_position()): text.get_text() for text in axes.texts}
    assert cells == {
        (0, 0): "1,900\n95.00%",
        (1, 0): "100\n5.00%",
        (0, 1): "250\n25.00%",
        (1, 1): "750\n75.00%",
    }
    assert axes.get_title() == "test, n = 3,000"
    assert [text.get_text() for text in axes.get_xticklabels()] == ["called REAL", "called FAKE"]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["truly REAL\nn = 2,000", "truly FAKE\nn = 1,000"]


def test_a_row_without_images_has_no_share() -> None:
    (axes,) = figures.confusion_matrix(np.array([[0, 0], [1, 3]]), title="test").axes
    assert [text.get_text() for text in axes.texts] == ["0\nno images", "0\nno images", "1\n25.00%", "3\n75.00%"]


@pytest.mark.parametrize(("upper", "lower"), [(0, 49), (50, 51), (45, 60), (30, 75)])
def test_text_stands_out_from_its_cell(upper: int, lower: int) -> None:
    (axes,) = figures.confusion_matrix(np.array([[upper, 100 - upper], [lower, 100 - lower]]), title="test").axes
    image = axes.images[0]
    for text, value in zip(axes.texts, np.asarray(image.get_array()).flat, strict=True):
        ground, ink = luminance(image.to_rgba(value)[:3]), luminance(to_rgb(text.get_color()))
        assert (max(ground, ink) + 0.05) / (min(ground, ink) + 0.05) > 4  # WCAG asks 3 of text of this size


def luminance(rgb: Sequence[float]) -> float:
    """Return the relative luminance defined by WCAG 2."""
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in rgb]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_points_of_the_difficulty_map_are_means_and_standard_deviations() -> None:
    p_true, is_fake = probabilities(4, 30)
    axes = next(found for found in figures.difficulty_map(p_true, is_fake=is_fake).axes if found.collections)
    expected = []
    for column, fake in zip(p_true.T.tolist(), is_fake, strict=True):
        mean = sum(column) / len(column)
        deviation = math.sqrt(sum((value - mean) ** 2 for value in column) / len(column))
        expected.append((deviation, mean, style.VERMILLION if fake else style.BLUE))
    points = axes.collections[0]
    found = [
        (x, y, to_hex(color).upper())
        for (x, y), color in zip(np.asarray(points.get_offsets()).tolist(), points.get_facecolors(), strict=True)
    ]
    for one, other in zip(sorted(found), sorted(expected), strict=True):
        assert one[:2] == pytest.approx(other[:2])
        assert one[2] == other[2]


def test_the_difficulty_map_names_regions_and_counts() -> None:
    p_true, is_fake = probabilities(3, 3000)
    figure = figures.difficulty_map(p_true, is_fake=is_fake)
    words = {text.get_text() for axes in figure.axes for text in axes.texts}
    assert words == {"easy to learn", "ambiguous", "hard to learn"}
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["REAL, n = 2,000", "FAKE, n = 1,000"]
    assert "n = 3,000 validation images, epochs: 3" in {axes.get_title() for axes in figure.axes}


def test_extreme_probabilities_stay_on_the_map() -> None:
    p_true = np.array([[0.0, 1.0, 0.0, 1.0], [1.0, 1.0, 0.0, 0.0]])
    figure = figures.difficulty_map(p_true, is_fake=np.array([True, False, True, False]))
    axes = next(found for found in figure.axes if found.collections)
    points = np.asarray(axes.collections[0].get_offsets())
    assert sorted(points.tolist()) == [[0, 0], [0, 1], [0.5, 0.5], [0.5, 0.5]]
    assert all(axes.viewLim.contains(x, y) for x, y in points)


@pytest.mark.parametrize("epochs", [1, 2])
def test_dollar_signs_in_names_are_only_dollar_signs(epochs: int) -> None:
    (axes,) = content_accuracy({"a $x^ b$": [0.5] * epochs}).axes
    axes.figure.draw_without_rendering()
    assert [label.get_text() for label in axes.texts] == ["a $x^ b$ 50.0"]
    assert not any(label.get_parse_math() for label in axes.texts)


def test_the_same_figure_is_the_same_bytes(tmp_path: Path) -> None:
    paths = [
        style.save_figure(figures.confusion_matrix(np.array([[3, 1], [1, 3]]), title="test"), tmp_path / "new" / name)
        for name in ("one.png", "two.png")
    ]
    first, second = (path.read_bytes() for path in paths)
    assert first == second
    assert first.startswith(b"\x89PNG")
    assert b"Software" not in first
