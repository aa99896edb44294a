"""Figures that compare models show the numbers given, and every label is readable."""

from functools import cache
from itertools import combinations

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib import pyplot as plt
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from realfake_hf.estimate import Estimate
from realfake_hf.experiments.figures import accuracy_against_time, topologies, transfer_matrices

PAPER = 0.9298
Models = dict[str, tuple[float, Estimate]]
CNN = (2215, Estimate(0.9524, 0.9494, 0.9553))
VIT_SMALL = (5400, Estimate(0.9866, 0.985, 0.9882))
CASES: dict[str, tuple[Models, float | None]] = {
    "one": ({"cnn": CNN}, PAPER),
    "two": ({"cnn": CNN, "vit-small": VIT_SMALL}, PAPER),
    "neighbours": (
        {"cnn": CNN, "vit-tiny": (4000, Estimate(0.986, 0.984, 0.9876)), "vit-small": VIT_SMALL},
        PAPER,
    ),
    "on the paper's line": ({"cnn": CNN, "a long model name": (600, Estimate(0.9295, 0.926, 0.933))}, PAPER),
    "at the paper's label": ({"cnn": CNN, "slow": (4400, Estimate(0.931, 0.928, 0.934))}, PAPER),
    "at the top": ({"perfect": (10, Estimate(1.0, 1.0, 1.0)), "fair": (20, Estimate(0.9))}, None),
    "one point": ({name: (3, Estimate(0.7)) for name in "abcd"}, None),
    "far apart": ({"fast": (0.9, Estimate(0.95)), "slow": (200_000, Estimate(0.98))}, PAPER),
}


def compared(models: Models, device: str = "cpu") -> dict[str, object]:
    """The results of a comparison on 20,000 images, of models trained on 2 cores or on another device."""
    machine = {"device": device, "cores": 2}
    return {
        "models": {
            name: {
                "training": {"seconds": seconds, "machine": machine},
                "test": {"n": 20_000, "accuracy": accuracy.to_dict()},
            }
            for name, (seconds, accuracy) in models.items()
        }
    }


def draw(name: str) -> Figure:
    models, paper = CASES[name]
    figure = accuracy_against_time(compared(models), paper_accuracy=paper)
    figure.draw_without_rendering()
    return figure


drawn = cache(draw)


def points(figure: Figure) -> list[plt.Line2D]:
    return [line for line in figure.axes[0].lines if line.get_marker() != "None"]


@pytest.mark.parametrize("name", CASES)
def test_the_hours_on_the_axis_do_not_run_into_each_other(name: str) -> None:
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
    models, _ = CASES["neighbours"]
    figure = drawn("neighbours")
    axes = figure.axes[0]
    bars = [bar.get_segments()[0].T for bar in axes.collections if isinstance(bar, LineCollection)]
    assert axes.get_xscale() == "log"
    for (seconds, accuracy), point, (bar_hours, ends) in zip(models.values(), points(figure), bars, strict=True):
        hours = 2 * seconds / 3600
        assert list(point.get_xdata()) == pytest.approx([hours])
        assert list(point.get_ydata()) == pytest.approx([100 * accuracy.value])
        assert bar_hours.tolist() == pytest.approx([hours] * 2)
        assert ends.tolist() == pytest.approx([100 * accuracy.low, 100 * accuracy.high])


def test_the_legend_says_name_and_accuracy_and_the_title_counts_the_images() -> None:
    figure = drawn("two")
    [legend] = figure.legends
    assert {text.get_text() for text in legend.get_texts()} == {
        "cnn, 95.24%",
        "vit-small, 98.66%",
        "the paper, 92.98%",
    }
    assert figure.axes[0].get_title() == "n = 20,000 test images, bars: 95% intervals"


def test_the_paper_is_a_dashed_line_at_its_accuracy() -> None:
    [line] = [line for line in drawn("two").axes[0].lines if line.get_linestyle() == "--"]
    assert list(line.get_ydata()) == pytest.approx([92.98, 92.98])


@pytest.mark.parametrize(("device", "hours", "label"), [("cpu", 3, "core hours"), ("cuda", 1.5, "hours")])
def test_time_is_in_core_hours_only_if_all_models_were_trained_on_cores(device, hours, label) -> None:
    figure = accuracy_against_time(compared({"vit": VIT_SMALL}, device))
    [point] = points(figure)
    assert [*point.get_xdata()] == [hours]
    assert figure.axes[0].get_xlabel() == f"training time, {label}"


def test_without_the_paper_there_is_no_line() -> None:
    assert [line for line in drawn("at the top").axes[0].lines if line.get_linestyle() == "--"] == []


def test_thirty_five_models_all_look_different() -> None:
    models = {f"model {i}": (10 + i, Estimate(0.9)) for i in range(35)}
    looks = {(point.get_color(), point.get_marker()) for point in points(accuracy_against_time(compared(models)))}
    assert len(looks) == 35


def trained(stage: str, layers: int, filters: int, accuracy: float, parameters: int) -> dict[str, object]:
    """A row of the search."""
    shape = {"num_filters": filters, "num_conv_layers": layers, "dense_units": 64, "num_dense_layers": 1}
    splits = {"validation": {"accuracy": accuracy}, "test": {"accuracy": accuracy}}
    return {"stage": stage, "topology": shape, "parameters": parameters, **splits}


SEARCH = {
    "rows": [
        trained("extractors", 1, 16, 0.9, 1000), trained("extractors", 2, 16, 0.85, 2000),
        trained("extractors", 2, 32, 0.95, 9000), trained("top", 2, 32, 0.97, 9000),
    ]
}  # fmt: skip


def cells(axes: plt.Axes) -> dict[tuple[str, str], str]:
    """The text of each cell of a matrix, by the labels of its row and column."""
    rows = [text.get_text() for text in axes.get_yticklabels()]
    columns = [text.get_text() for text in axes.get_xticklabels()]
    places = {text.get_position(): text.get_text() for text in axes.texts}
    return {(rows[int(y)], columns[int(x)]): text for (x, y), text in places.items()}


def test_a_panel_of_topologies_has_each_accuracy_in_its_cell_and_leaves_others_empty() -> None:
    panel, _ = topologies(SEARCH).axes
    assert (panel.get_title(), panel.get_ylabel(), panel.get_xlabel()) == ("extractors", "convolutions", "filters")
    assert cells(panel) == {("1", "16"): "90.0", ("2", "16"): "85.0", ("2", "32"): "95.0"}
    assert np.isnan(np.asarray(panel.images[0].get_array().filled(np.nan))[0, 1])


def test_the_front_of_topologies_holds_those_that_no_smaller_one_reaches() -> None:
    _, axes = topologies(SEARCH).axes
    lines = {line.get_label(): line for line in axes.lines}
    assert list(lines["best for its size"].get_xdata()) == [1000, 9000]
    assert list(lines["best for its size"].get_ydata()) == pytest.approx([90, 97])
    assert list(lines["the paper, 92.98%"].get_ydata()) == pytest.approx([92.98] * 2)
    drawn = {group.get_label(): sorted(np.asarray(group.get_offsets()).tolist()) for group in axes.collections}
    assert drawn == {"extractors": [[1000, 90], [2000, 85], [9000, 95]], "top": [[9000, 97]]}


def test_a_matrix_of_transfer_says_mean_and_deviation_by_training_and_test_data() -> None:
    values = {
        ("a", "a"): (0.95, 0.01),
        ("a", "b"): (0.5, 0.02),
        ("both", "a"): (0.9, None),
        ("both", "b"): (0.8, None),
    }
    rows = [
        {"model": "cnn", "trained_on": trained, "tested_on": tested}
        | {key: {"mean": mean, "sd": deviation} for key in ("balanced_accuracy", "roc_auc")}
        for (trained, tested), (mean, deviation) in values.items()
    ]
    first, second = transfer_matrices({"plan": {"models": {"cnn": {}}}, "cells": rows}).axes
    assert (first.get_title(), second.get_title()) == ("cnn: balanced accuracy", "cnn: ROC AUC")
    assert cells(first) == {
        ("a", "a"): "0.950\n± 0.010", ("a", "b"): "0.500\n± 0.020", ("both", "a"): "0.900", ("both", "b"): "0.800",
    }  # fmt: skip
    assert np.asarray(first.images[0].get_array()).tolist() == [[0.95, 0.5], [0.9, 0.8]]
    assert (first.get_ylabel(), first.get_xlabel()) == ("trained on", "tested on")
