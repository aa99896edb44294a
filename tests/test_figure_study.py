"""The study's figures carry the numbers they were given, can be read at 800 pixels, and on a dark page."""

import re
from collections.abc import Callable
from itertools import combinations

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib import pyplot as plt
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Text

from realfake_hf.estimate import Estimate
from realfake_hf.explain_study.evidence_figures import HiddenPanel, PlantedPanel, centre_and_rim, planted_bars
from realfake_hf.explain_study.faithfulness_figures import (
    PALE,
    CascadePanel,
    CurvePanel,
    GapRow,
    cascade,
    faithfulness_curves,
    gap_bars,
)
from realfake_hf.explain_study.figures import ControlRow, agreement_against_controls, agreement_matrix
from realfake_hf.figures.style import BLUE, GROUND, VERMILLION, darken
from realfake_hf.figures.style import error_bars as spread

NAMES = [("CNN", "Grad-CAM"), ("CNN", "integrated gradients"), ("ViT", "rollout"), ("ViT", "integrated gradients")]
METHODS = ["Grad-CAM", "integrated gradients", "rollout", "last attention", "gradient rollout", "relevance"]
REFERENCES = ("random order", "centre prior")
VALUES = np.array([[1, 0.4, 0.2, 0.1], [0.4, 1, 0.3, -0.2], [0.2, 0.3, 1, np.nan], [0.1, -0.2, np.nan, 1]])


def near(value: float, half: float = 0.02) -> Estimate:
    return Estimate(value, value - half, value + half)


ROWS = [
    ControlRow(
        name=f"CNN integrated gradients\n{name}", group=group, agreement=near(0.3), shuffled=near(0.2),
        random_weights=near(0.1), centre=(near(0.15), near(0.25)), ceiling=(near(0.6), None),
    )
    for group, names in (("maps of two models", "abc"), ("two methods on one model", "de"))
    for name in names
]  # fmt: skip
GAPS = [
    GapRow("CNN", "Grad-CAM", deletion=near(-0.1), insertion=near(-0.1)),
    GapRow("CNN", "rollout", deletion=near(0.01), insertion=near(0.01)),
    GapRow("ViT", "rollout", deletion=near(0.2), insertion=near(0.2)),
    GapRow("ViT", "relevance", deletion=None, insertion=None),
]
CURVES = {name: np.linspace(0.9, 0.1, 9).tolist() for name in [*METHODS, *REFERENCES]}
STAGES = ["classifier", "layers 11-9", "layers 8-6", "layers 5-3", "layers 2-0", "embeddings"]
HIDDEN = [
    HiddenPanel(model, fill, (0.25, 0.5, 0.75), [near(0.8), near(0.7), None], [near(0.9)] * 3, near(0.95))
    for model in ("CNN", "ViT")
    for fill in ("a blur", "the mean colour")
]
MAKERS: dict[str, Callable[[], Figure]] = {
    "matrix": lambda: agreement_matrix(NAMES, VALUES, measure="Spearman", chance=0.0),
    "controls": lambda: agreement_against_controls(ROWS, measure="IoU, top 20 %", n=1200, chance=0.111),
    "curves": lambda: faithfulness_curves(
        [CurvePanel(model, CURVES, CURVES) for model in ("CNN", "ViT")], methods=METHODS, references=REFERENCES
    ),
    "gaps": lambda: gap_bars(GAPS),
    "cascade": lambda: cascade(
        [
            CascadePanel(model, STAGES, {name: [near(0.5)] * 5 + [None] for name in METHODS})
            for model in ("CNN", "ViT")
        ],
        methods=METHODS,
    ),
    "planted": lambda: planted_bars(
        [
            PlantedPanel(
                model,
                {"fake in real": dict.fromkeys(METHODS, near(0.6)), "real in real": {"Grad-CAM": None}},
                {"fake in real": 200, "real in real": 190},
            )
            for model in ("CNN", "ViT")
        ],
        methods=METHODS,
        chance=0.25,
    ),
    "hidden": lambda: centre_and_rim(HIDDEN, measure="accuracy"),
}


def texts_of(figure: Figure) -> list[Text]:
    return [text for text in figure.findobj(Text) if text.get_text() and text.get_visible()]


def drawn_texts(figure: Figure) -> list[Text]:
    """Those that the figure shows: ticks outside an axis keep their words."""
    figure.draw_without_rendering()
    hidden = {
        label
        for axes in figure.axes
        for axis, (low, high) in ((axes.xaxis, sorted(axes.get_xlim())), (axes.yaxis, sorted(axes.get_ylim())))
        for tick in axis.get_major_ticks()
        for label in (tick.label1, tick.label2)
        if not low <= tick.get_loc() <= high or not label.get_visible()
    }
    return [text for text in texts_of(figure) if text not in hidden]


@pytest.mark.parametrize("name", MAKERS)
def test_all_words_lie_inside_the_figure_and_none_over_another(name: str) -> None:
    figure = MAKERS[name]()
    shown = [text for text in drawn_texts(figure) if not text.get_rotation() % 90]
    boxes = [text.get_window_extent() for text in shown]
    assert all(figure.bbox.contains(*corner) for box in boxes for corner in box.corners())
    over = [(a.get_text(), b.get_text()) for a, b in combinations(shown, 2)
            if a.get_window_extent().overlaps(b.get_window_extent())]  # fmt: skip
    assert over == []


@pytest.mark.parametrize("name", MAKERS)
def test_words_can_be_read_at_800_pixels_and_nothing_is_left_behind(name: str) -> None:
    before = {key: mpl.rcParams[key] for key in mpl.rcParams if key != "backend"}
    figure = MAKERS[name]()
    assert figure.get_figwidth() == 8
    assert min(text.get_size() for text in texts_of(figure)) * 100 / 72 >= 12  # pixels, at 100 for each inch
    assert plt.get_fignums() == []
    assert {key: mpl.rcParams[key] for key in mpl.rcParams if key != "backend"} == before


def luminance(color) -> float:
    """Of WCAG 2: linear light, weighted as eyes do."""
    channels = np.array(to_rgb(color))
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


@pytest.mark.parametrize("name", MAKERS)
def test_on_a_dark_page_words_and_lines_stand_out_and_the_ground_is_dark(name: str) -> None:
    figure = darken(MAKERS[name]())
    ground = luminance(GROUND) + 0.05
    assert to_rgb(figure.get_facecolor()) == pytest.approx(GROUND)
    for axes in figure.axes:
        assert to_rgb(axes.get_facecolor()) == pytest.approx(GROUND)
        for line in (line for line in axes.lines if line.get_zorder() > 0):  # rules between rows lie below
            assert (luminance(line.get_color()) + 0.05) / ground > 3, line
    for text in texts_of(figure):
        if text.get_gid() is None:
            assert (luminance(text.get_color()) + 0.05) / ground > 4.5, text


def test_words_on_a_colour_map_stay_as_they_are_on_a_dark_page() -> None:
    light, dark = MAKERS["matrix"](), darken(MAKERS["matrix"]())
    cells = [
        [(text.get_text(), text.get_color()) for text in one.axes[0].texts if text.get_gid()] for one in (light, dark)
    ]
    assert cells[0] == cells[1]
    assert len(cells[0]) == 5


def test_the_matrix_writes_each_pair_once_and_says_which_is_undefined() -> None:
    axes, bar = MAKERS["matrix"]().axes
    cells = {(round(text.get_position()[1]), round(text.get_position()[0])): text.get_text() for text in axes.texts}
    assert cells == {
        (1, 0): "0.40", (2, 0): "0.20", (2, 1): "0.30", (3, 0): "0.10", (3, 1): "\N{MINUS SIGN}0.20", (3, 2): "none",
    }  # fmt: skip
    assert list(bar.lines[-1].get_ydata()) == [0, 0]
    assert [text.get_text() for text in bar.texts] == ["chance"]


def test_lines_of_the_matrix_stand_between_models() -> None:
    places = {tuple(np.unique(line.get_ydata()).tolist()) for line in MAKERS["matrix"]().axes[0].lines}
    assert places == {(1.5,), (1.5, 3.5)}  # above ViT rollout, and beside it


def test_each_mark_of_the_main_figure_is_its_number() -> None:
    axes = MAKERS["controls"]().axes[0]
    found = {bars.get_label(): bars[0].get_xdata().tolist() for bars in axes.containers}
    assert found == {
        "the pair, on the same picture": [0.3] * 5,
        "each map and its twin of another training seed": [0.6] * 5,
        "the pair, on different pictures": [0.2] * 5,
        "the pair, with random weights": [0.1] * 5,
        "each map and a spot in the centre": [0.15, 0.25] * 5,
    }
    [chance] = [line for line in axes.lines if line.get_label() == "chance"]
    assert list(chance.get_xdata()) == [0.111, 0.111]
    assert axes.get_title() == "n = 1,200 test pictures, bars: 95 % intervals"


def test_what_a_pair_lacks_is_left_out_of_the_main_figure_and_its_legend() -> None:
    bare = ControlRow(name="a\nb", group="c", agreement=near(0.3))
    figure = agreement_against_controls([bare], measure="IoU", n=10)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["the pair, on the same picture"]


def test_an_interval_that_does_not_hold_its_value_ends_at_it() -> None:
    values, distances = spread([Estimate(0.5, 0.6, 0.7), Estimate(0.1), None])
    assert values[:2].tolist() == [0.5, 0.1]
    assert distances[:, :2] == pytest.approx(np.array([[0, 0], [0.2, 0]]))
    assert np.isnan(values[2])
    assert np.isnan(distances[:, 2]).all()


def test_a_gap_is_blue_where_it_is_better_beyond_doubt_and_grey_where_it_cannot_be_told() -> None:
    left, right = MAKERS["gaps"]().axes
    colors = [{round(bar.get_y() + bar.get_height() / 2): to_hex(bar.get_facecolor()).upper() for bar in axes.patches}
              for axes in (left, right)]  # fmt: skip
    assert colors[0] == {0: BLUE, 1: PALE, 2: VERMILLION}
    assert colors[1] == {0: VERMILLION, 1: PALE, 2: BLUE}


def test_a_method_has_one_colour_in_every_panel_and_references_are_no_methods_lines() -> None:
    figure = MAKERS["curves"]()
    looks = {(line.get_label(), line.get_color(), line.get_linestyle()) for axes in figure.axes for line in axes.lines}
    assert len(looks) == len(METHODS) + len(REFERENCES)
    assert {style for name, _, style in looks if name in METHODS} == {"-"}
    assert "-" not in {style for name, _, style in looks if name in REFERENCES}
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == [*METHODS, *REFERENCES]


def test_a_cascade_starts_with_the_trained_model_at_1() -> None:
    axes = MAKERS["cascade"]().axes[0]
    lines = [bars[0] for bars in axes.containers]
    assert [line.get_ydata()[0] for line in lines] == [1.0] * len(METHODS)
    assert [label.get_text() for label in axes.get_xticklabels()] == ["trained", *STAGES]


def test_planted_bars_stand_beside_chance_with_their_n() -> None:
    axes = MAKERS["planted"]().axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["fake in real, n = 200", "real in real, n = 190"]
    assert [line.get_ydata()[0] for line in axes.lines if line.get_label() == "chance"] == [0.25]
    heights = [bar.get_height() for bar in axes.patches]
    assert sum(height == 0.6 for height in heights) == len(METHODS)


def test_centre_and_rim_are_told_apart_for_each_model_and_fill() -> None:
    figure = MAKERS["hidden"]()
    assert [axes.get_title() for axes in figure.axes] == [
        "CNN, hidden by a blur", "ViT, hidden by a blur", "CNN, hidden by the mean colour",
        "ViT, hidden by the mean colour",
    ]  # fmt: skip
    centre, rim = (bars[0] for bars in figure.axes[0].containers)
    assert centre.get_xdata().tolist() == [25, 50, 75]
    assert (centre.get_ydata()[0], rim.get_ydata()[0]) == (0.8, 0.9)
    assert (centre.get_color(), rim.get_color()) == (VERMILLION, BLUE)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (
            lambda: agreement_matrix(NAMES[:1], VALUES[:1, :1], measure=""),
            "wanted two or more maps and (maps, maps) agreements, some defined; found 1 maps and (1, 1). Pass one",
        ),
        (
            lambda: agreement_against_controls([], measure="", n=1),
            "wanted one or more pairs, an agreement defined in one of them; found 0 pairs. Pass pairs",
        ),
        (lambda: gap_bars([]), "wanted one or more rows to draw; found none. Leave the figure out."),
        (lambda: cascade([], methods=[]), "wanted one or more models to draw; found none. Leave the figure"),
        (
            lambda: planted_bars([], methods=[], chance=0.25),
            "wanted one or more models to draw; found none. Leave the figure out.",
        ),
        (
            lambda: centre_and_rim(HIDDEN[:3], measure=""),
            "wanted one panel for each model and fill; found [('CNN', 'a blur'), ",
        ),
    ],
)
def test_an_error_says_what_was_wanted_and_found_and_what_to_do(make: Callable[[], Figure], sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)):
        make()
