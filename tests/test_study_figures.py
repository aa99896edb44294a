"""The figures of the study show the numbers of its results, and are legible at 800 pixels and in dark mode."""

from collections.abc import Callable
from itertools import combinations

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib import pyplot as plt
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Text
from study_stand_in import METHODS as METHODS_OF
from study_stand_in import gap, made_up_study, mean

from realfake_hf.attribution.methods import method_name
from realfake_hf.explain_study import faithfulness_section, figures
from realfake_hf.explain_study.figures import PALE
from realfake_hf.explain_study.grid_game_section import grid_figure
from realfake_hf.explain_study.names import REFERENCES, agreement_of, key_pairs
from realfake_hf.explain_study.patching_section import agreement_with_effects
from realfake_hf.explain_study.sinks_section import norms_and_attention
from realfake_hf.figures.style import BLUE, GROUND, VERMILLION, darken

IOU = "iou_top_20"
METHODS = ["Grad-CAM", "integrated gradients", "rollout", "last attention", "gradient rollout", "relevance"]
STUDY = made_up_study()
MAKERS: dict[str, Callable[[], Figure]] = {
    "matrix": lambda: figures.agreement_matrix(STUDY, "spearman"),
    "controls": lambda: figures.agreement_and_controls(STUDY),
    "curves": lambda: figures.faithfulness_curves(STUDY, "blur"),
    "gaps": lambda: figures.faithfulness_gaps(STUDY, "blur"),
    "drops": lambda: faithfulness_section.fidelity_gaps(STUDY),
    "tau": lambda: faithfulness_section.tau_matrices(STUDY),
    "cascade": lambda: figures.weight_randomization(STUDY),
    "planted": lambda: figures.planted_hits(STUDY),
    "hidden": lambda: figures.hidden_regions(STUDY, "accuracy"),
    "entity": lambda: figures.hidden_entity(STUDY),
    "grids": lambda: grid_figure(STUDY["grids"]),
    "patching": lambda: agreement_with_effects(STUDY),
    "sinks": lambda: norms_and_attention(STUDY),
}


def texts_of(figure: Figure) -> list[Text]:
    return [text for text in figure.findobj(Text) if text.get_text() and text.get_visible()]


def drawn_texts(figure: Figure) -> list[Text]:
    """The visible texts; tick labels outside the axes are not."""
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
def test_all_text_is_inside_the_figure_and_does_not_overlap(name: str) -> None:
    figure = MAKERS[name]()
    shown = [text for text in drawn_texts(figure) if not text.get_rotation() % 90]
    boxes = [text.get_window_extent() for text in shown]
    assert all(figure.bbox.contains(*corner) for box in boxes for corner in box.corners())
    over = [(a.get_text(), b.get_text()) for a, b in combinations(shown, 2)
            if a.get_window_extent().overlaps(b.get_window_extent())]  # fmt: skip
    assert over == []


@pytest.mark.parametrize("name", MAKERS)
def test_text_is_legible_at_800_pixels_and_no_state_is_left_behind(name: str) -> None:
    before = {key: mpl.rcParams[key] for key in mpl.rcParams if key != "backend"}
    figure = MAKERS[name]()
    assert figure.get_figwidth() == 8
    assert min(text.get_size() for text in texts_of(figure)) * 100 / 72 >= 12  # pixels, at 100 for each inch
    assert plt.get_fignums() == []
    assert {key: mpl.rcParams[key] for key in mpl.rcParams if key != "backend"} == before


def luminance(color) -> float:
    """The relative luminance of WCAG 2."""
    channels = np.array(to_rgb(color))
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


@pytest.mark.parametrize("name", MAKERS)
def test_in_dark_mode_text_and_lines_have_contrast_on_a_dark_background(name: str) -> None:
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


@pytest.fixture
def study() -> dict:
    return made_up_study()


def undefine(means: dict) -> None:
    for name in means:
        means[name] = mean(None)


def test_text_on_a_colour_map_keeps_its_colour_in_dark_mode() -> None:
    cells = [
        [(text.get_text(), text.get_color()) for text in figure.axes[0].texts if text.get_gid()]
        for figure in (MAKERS["matrix"](), darken(MAKERS["matrix"]()))
    ]
    assert cells[0] == cells[1]
    assert len(cells[0]) == 28


def test_the_matrix_shows_each_pair_once_and_marks_undefined_pairs(study: dict) -> None:
    agreement = agreement_of(study)
    keys = list(agreement["maps"])
    expected = {}
    for place, pair in enumerate(agreement["pairs"]):
        value = None if place == 3 else place / 50 - 0.1
        pair["measures"][IOU]["same_picture"] = mean(value)
        text = "none" if value is None else f"{value:.2f}".replace("-", "\N{MINUS SIGN}")
        expected[keys.index(pair["b"]), keys.index(pair["a"])] = text
    axes, bar = figures.agreement_matrix(study, IOU).axes
    cells = {(round(text.get_position()[1]), round(text.get_position()[0])): text.get_text() for text in axes.texts}
    assert cells == expected
    assert list(bar.lines[-1].get_ydata()) == [0.111, 0.111]
    assert [text.get_text() for text in bar.texts] == ["chance"]


def test_lines_of_the_matrix_separate_the_models() -> None:
    places = {tuple(np.unique(line.get_ydata()).tolist()) for line in MAKERS["matrix"]().axes[0].lines}
    assert places == {(1.5,), (1.5, 7.5)}  # above the first map of the ViT, and beside it


def test_each_mark_of_the_main_figure_is_its_number(study: dict) -> None:
    agreement = agreement_of(study)
    agreement["ceiling"] = {"cnn grad_cam": {IOU: mean(0.6)}}
    for key in agreement["centre"]:
        agreement["centre"][key] = {IOU: mean(0.15 if "cnn" in key else 0.25)}
    for pair in agreement["pairs"]:
        pair["measures"][IOU] = {"same_picture": mean(0.3), "shuffled": mean(0.2), "random_weights": mean(0.1)}
    axes = figures.agreement_and_controls(study).axes[0]
    found = {bars.get_label(): bars[0].get_xdata().tolist() for bars in axes.containers}
    pairs = key_pairs(agreement["pairs"])
    assert found == {
        "the pair, same image": [0.3] * 10,
        "each map and its twin from another training seed": [0.6] * sum("cnn grad_cam" in pair["a"] for pair in pairs),
        "the pair, other images of the same kind": [0.2] * 10,
        "the pair, random weights": [0.1] * 10,
        "each map and a spot in the centre": [
            0.15 if "cnn" in pair[side] else 0.25 for pair in pairs for side in "ab"
        ],
    }
    [chance] = [line for line in axes.lines if line.get_label() == "chance"]
    assert list(chance.get_xdata()) == [0.111, 0.111]
    assert axes.get_title() == "n = 1,200 test images, bars: 95% intervals"


def test_missing_controls_are_left_out_of_the_main_figure_and_its_legend(study: dict) -> None:
    agreement = agreement_of(study)
    agreement |= {"ceiling": {}, "centre": {}}
    for pair in agreement["pairs"]:
        pair["measures"][IOU] = {"same_picture": mean(0.3)}
    figure = figures.agreement_and_controls(study)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["the pair, same image", "chance"]


def test_a_gap_is_blue_if_significantly_better_and_grey_if_not(study: dict) -> None:
    gaps = {"grad_cam": gap(-0.1), "rollout": gap(-0.1, p_holm=0.2), "relevance": gap(0.2), "centre prior": mean(None)}
    rows = {name: {"deletion_less_random": less, "insertion_less_random": less} for name, less in gaps.items()}
    study["faithfulness"]["models"] = {"vit": {"blur": {**rows, "random order": {}}}}
    panels = figures.faithfulness_gaps(study, "blur").axes
    colors = [
        {round(bar.get_y() + bar.get_height() / 2): to_hex(bar.get_facecolor()).upper() for bar in axes.patches}
        for axes in panels
    ]
    assert colors == [{0: BLUE, 1: PALE, 2: VERMILLION}, {0: VERMILLION, 1: PALE, 2: BLUE}]


def test_a_drop_is_blue_where_fidelity_is_better_than_that_of_random_order(study: dict) -> None:
    orders = study["faithfulness"]["fidelity"]["vit"]["orders"]
    for name in orders:
        if name != "random order":
            orders[name] |= {"plus_less_random": gap(0.0), "minus_less_random": gap(0.0)}
    orders["rollout"] |= {"plus_less_random": gap(0.1), "minus_less_random": gap(-0.1)}
    orders["relevance"] |= {"plus_less_random": gap(-0.1), "minus_less_random": gap(0.1)}
    for axes in faithfulness_section.fidelity_gaps(study).axes:
        colors = {
            round(bar.get_y() + bar.get_height() / 2): to_hex(bar.get_facecolor()).upper() for bar in axes.patches
        }
        assert colors == {0: BLUE, 1: PALE, 2: PALE, 3: VERMILLION, 4: PALE, 5: PALE, 6: PALE}


def test_tau_is_shown_once_for_every_two_tests(study: dict) -> None:
    for ranking in study["faithfulness"]["rankings"].values():
        for place, pair in enumerate(ranking["pairs"]):
            pair["tau"] = mean(None if place == 2 else place / 30)
    cnn, vit, _ = faithfulness_section.tau_matrices(study).axes
    for axes, n_tests in ((cnn, 6), (vit, 8)):
        n_pairs = n_tests * (n_tests - 1) // 2
        shown = ["none" if place == 2 else f"{place / 30:.2f}" for place in range(n_pairs)]
        assert sorted(text.get_text() for text in axes.texts) == sorted(shown)
        assert len(axes.get_yticks()) == n_tests - 1
    assert [axes.get_title() for axes in (cnn, vit)] == ["CNN", "ViT"]


def test_a_method_has_one_colour_in_every_panel_and_references_have_line_styles_of_their_own() -> None:
    figure = MAKERS["curves"]()
    looks = {(line.get_label(), line.get_color(), line.get_linestyle()) for axes in figure.axes for line in axes.lines}
    assert len(looks) == len(METHODS) + len(REFERENCES)
    assert {style for name, _, style in looks if name in METHODS} == {"-"}
    assert "-" not in {style for name, _, style in looks if name in REFERENCES}
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == [*METHODS, *REFERENCES]


def test_a_cascade_starts_with_the_trained_model_at_1() -> None:
    for axes, (model, cascade) in zip(MAKERS["cascade"]().axes, STUDY["sanity"]["models"].items(), strict=True):
        lines = [bars[0] for bars in axes.containers]
        assert [line.get_ydata()[0] for line in lines] == [1.0] * len(METHODS_OF[model])
        assert [label.get_text() for label in axes.get_xticklabels()] == ["trained", *cascade["stages"]]


def test_planted_bars_stand_beside_chance_with_their_n(study: dict) -> None:
    plantings = study["planted"]["models"]["vit"]
    plantings["real in fake"]["n"] = 190
    for row in plantings["real in fake"]["methods"].values():
        row["planted"]["hits"] = mean(None)
    axes = figures.planted_hits(study).axes[1]
    assert [label.get_text() for label in axes.get_xticklabels()] == [
        "fake in real, n = 200",
        "real in fake, n = 190",
    ]
    assert [line.get_ydata()[0] for line in axes.lines if line.get_label() == "chance"] == [0.25]
    rows = {method_name(name): row for name, row in plantings["fake in real"]["methods"].items()}
    hits = {name: row["planted"]["hits"]["value"] for name, row in rows.items()}
    assert {bars.get_label(): bars[0].get_height() for bars in axes.containers if bars.get_label() in hits} == hits


def test_hidden_regions_are_drawn_for_each_model_and_fill(study: dict) -> None:
    for row in study["causal"]["models"]["cnn"]["hiding"]:
        for region, value in (("centre", 0.8), ("rim", 0.9), ("corner", 0.85)):
            row["hidden"][region] = {"accuracy": mean(value)}
    figure = figures.hidden_regions(study, "accuracy")
    assert [axes.get_title() for axes in figure.axes] == [
        "CNN, hidden by a blur", "ViT, hidden by a blur", "CNN, hidden by the mean colour",
        "ViT, hidden by the mean colour",
    ]  # fmt: skip
    centre, rim, corner = (bars[0] for bars in figure.axes[0].containers)
    assert centre.get_xdata().tolist() == [25, 50, 75]
    assert [bars.get_ydata()[0] for bars in (centre, rim, corner)] == [0.8, 0.9, 0.85]
    assert (centre.get_color(), rim.get_color()) == (VERMILLION, BLUE)


def test_the_entity_figure_has_a_row_for_each_hidden_part(study: dict) -> None:
    row = study["entity"]["models"]["cnn"]["fills"]["mean"]["hidden"]
    row["entity"]["roc_auc"] = mean(0.77)
    axes = figures.hidden_entity(study).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["nothing", *row]
    _, mean_fill = (bars[0] for bars in axes.containers)
    assert mean_fill.get_xdata()[1] == 0.77


def test_agreement_with_effects_stands_beside_that_with_other_images(study: dict) -> None:
    rows = study["patching"]["models"]["vit"]["maps"]
    for place, row in enumerate(rows.values()):
        row["spearman"] |= {"same": mean(place / 10), "other": mean(None)}
    axes = agreement_with_effects(study).axes[1]
    same, other = (bars[0] for bars in axes.containers)
    assert same.get_xdata()[-len(rows) :].tolist() == [place / 10 for place in range(len(rows))]
    assert np.isnan(other.get_xdata()[-len(rows) :]).all()


def test_the_cut_of_outliers_is_drawn_in_norms_of_each_block(study: dict) -> None:
    for number, block in enumerate(study["sinks"]["models"]["vit"]["blocks"], start=1):
        block["median"] = mean(number)
    left, right = norms_and_attention(study).axes
    [cut] = [line for line in left.lines if line.get_label() == "cut of outliers"]
    assert list(cut.get_ydata()) == [4, 8, 12, 16, 20, 24]
    labels = [bars.get_label() for bars in right.containers]
    assert labels == ["special tokens", "outliers", "other patches"]


def test_the_localisation_of_each_label_stands_beside_chance(study: dict) -> None:
    games = study["grids"]["models"]["vit"]
    games["real among fake"]["methods"]["relevance"]["mass"] = mean(0.37)
    games["real among fake"]["methods"]["rollout"]["mass"] = mean(None)
    axes = grid_figure(study["grids"]).axes[1]
    assert [label.get_text() for label in axes.get_yticklabels()] == [method_name(name) for name in METHODS_OF["vit"]]
    fake, real = (bars[0].get_xdata() for bars in axes.containers)
    assert fake.tolist() == [row["mass"]["value"] for row in games["fake among real"]["methods"].values()]
    assert real[METHODS_OF["vit"].index("relevance")] == 0.37
    assert np.isnan(real[METHODS_OF["vit"].index("rollout")])
    assert [line.get_xdata()[0] for line in axes.lines if line.get_label() == "chance"] == [0.25]


def test_the_control_stands_beside_every_bar_of_planted_evidence(study: dict) -> None:
    plantings = study["planted"]["models"]["vit"]
    controls = np.linspace(0.1, 0.2, len(METHODS_OF["vit"]))
    for name, value in zip(METHODS_OF["vit"], controls, strict=True):
        plantings["fake in real"]["methods"][name]["control"]["hits"] = mean(value)
    axes = figures.planted_hits(study).axes[1]
    marks = [line for line in axes.lines if line.get_marker() == "D"]
    assert [mark.get_ydata()[0] for mark in marks] == controls.tolist()


def test_results_without_any_defined_value_can_be_drawn(study: dict) -> None:
    for pair in agreement_of(study)["pairs"]:
        for means in pair["measures"].values():
            undefine(means)
    for fills in study["faithfulness"]["models"].values():
        for order in fills["blur"].values():
            order["deletion_less_random"] = order["insertion_less_random"] = mean(None)
    figures.agreement_and_controls(study).draw_without_rendering()
    figures.agreement_matrix(study, IOU).draw_without_rendering()
    figures.faithfulness_gaps(study, "blur").draw_without_rendering()
    for pair in study["faithfulness"]["rankings"]["vit"]["pairs"]:
        pair["tau"] = mean(None)
    faithfulness_section.tau_matrices(study).draw_without_rendering()
