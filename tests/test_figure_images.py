"""Images, maps and text do not overlap, for any number of models and any image shape."""

from itertools import chain, combinations

import numpy as np
import pytest
from matplotlib.text import Text

from realfake_hf.figures.images import MapPanel, error_sheet, explanation_sheet, image_with_maps
from realfake_hf.figures.style import save_figure

LONG = "integrated_gradients, steps 32, grid 8 x 8, and more words than one line of a narrow column holds"

FAR = "This image is far from the model's training data: its probability means little."


def picture(height=32, width=32, *, seed=0):
    return np.random.default_rng(seed).integers(256, size=(height, width, 3), dtype=np.uint8)


def panel(name="cnn", *, height=32, width=32, grid=(4, 4), note="grad_cam, at features.3", is_empty=False):
    heat = np.zeros(grid) if is_empty else np.linspace(0, 1, grid[0] * grid[1]).reshape(grid)
    times = 1 if max(height, width) > 128 else 4
    overlay = picture(times * height, times * width, seed=1)
    return MapPanel(
        title=f"{name}\nFAKE, p(fake) 0.987, wrong", note=note, warnings=[FAR, f"{name} is {LONG}"],
        bright="bright = evidence for real" if name == "vit" else "bright = evidence for AI-generated",
        heat=heat, overlay=overlay,
    )  # fmt: skip


NAMES = ["cnn", "a-model-with-a-name-that-is-long", "vit-rollout", "WWW", "vit", "deit"]


def draw(models=1, *, height=32, width=32, **settings):
    panels = [panel(name, height=height, width=width, **settings) for name in NAMES[:models]]
    return image_with_maps(picture(height, width), panels, title="photo" * 40, note="truly REAL", color_map="inferno")


def texts_of(figure):
    return [text for text in figure.findobj(Text) if text.get_text()]


def box_of(axes):
    axes.apply_aspect()
    return axes.get_position()


@pytest.mark.parametrize("models", [1, 2, 4, 6])
@pytest.mark.parametrize(("height", "width"), [(32, 32), (20, 90), (90, 20), (240, 320)])
def test_all_words_lie_inside_the_figure_and_none_over_another_or_over_a_picture(models, height, width):
    figure = draw(models, height=height, width=width, note=LONG)
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in texts_of(figure)]
    assert all(figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1 for box in boxes)
    assert all(figure.bbox.y0 <= box.y0 and box.y1 <= figure.bbox.y1 for box in boxes)
    assert not any(one.overlaps(other) for one, other in combinations(boxes, 2))
    pictures = [axes.get_window_extent() for axes in figure.axes]
    assert not any(box.overlaps(image) for box in boxes for image in pictures)
    assert not any(one.overlaps(other) for one, other in combinations(pictures, 2))


def test_one_map_stands_between_its_picture_and_its_overlay():
    shown, heat, overlay, _ = draw(1).axes
    assert box_of(shown).x1 < box_of(heat).x0
    assert box_of(heat).x1 < box_of(overlay).x0
    assert len({round(box_of(axes).y0, 6) for axes in (shown, heat, overlay)}) == 1


def test_several_maps_stand_side_by_side_above_their_overlays():
    shown, *pairs, _ = draw(3).axes
    maps, overlays = pairs[::2], pairs[1::2]
    assert all(box_of(one).x1 < box_of(other).x0 for one, other in zip([shown, *maps], maps, strict=False))
    for heat, overlay in zip(maps, overlays, strict=True):
        assert box_of(heat).x0 == box_of(overlay).x0
        assert box_of(overlay).y1 < box_of(heat).y0


def said(figure):
    return " ".join(text.get_text() for text in texts_of(figure))


def test_the_legend_says_in_words_what_bright_cells_mean():
    assert "bright = evidence for AI-generated outlined: at least half" in said(draw(1))
    *_, scale = draw(1).axes
    assert [text.get_text() for text in scale.texts] == ["lowest", "highest"]
    heat = draw(1).axes[1].images[0]
    assert (heat.get_clim(), heat.cmap.name) == ((0, 1), "inferno")
    assert scale.images[0].cmap.name == "inferno"


def test_the_legend_names_the_models_whose_bright_cells_mean_something_else():
    words = said(draw(5, note=""))
    assert "vit: bright = evidence for real" in words
    assert "WWW: bright = evidence for AI-generated" in words


def test_a_warning_is_said_once_with_the_models_to_which_it_applies():
    assert FAR in said(draw(1))
    words = said(draw(3))
    assert words.count("far from the model's training data") == 1
    assert f"cnn, {NAMES[1]}, {NAMES[2]}: This image is far" in words


def test_the_colours_are_explained_below_the_picture_beside_the_overlays():
    shown, _, overlay, *_, scale = draw(3).axes
    assert box_of(scale).x0 == pytest.approx(box_of(shown).x0)
    assert box_of(overlay).y0 < box_of(scale).y0 < box_of(overlay).y1


def test_words_can_be_read_at_800_pixels_and_more_models_make_a_wider_figure():
    for models in (1, 2, 4):
        figure = draw(models)
        assert figure.get_figwidth() == 8
        assert min(text.get_size() for text in texts_of(figure)) * 100 / 72 >= 12  # pixels, at 100 for each inch
    assert draw(6).get_figwidth() > 8


def test_small_pictures_and_all_maps_are_drawn_with_sharp_edges():
    for height, expected in ((32, "nearest"), (400, "auto")):
        shown, heat, overlay, _ = (axes.images[0].get_interpolation() for axes in draw(height=height).axes)
        assert (shown, heat, overlay) == (expected, "nearest", expected)


def test_a_map_takes_the_shape_of_its_picture_whatever_its_grid():
    figure = draw(height=20, width=60, grid=(7, 7))
    shown, heat, overlay = (box_of(axes) for axes in figure.axes[:3])
    for box in (heat, overlay):
        assert (box.width, box.height) == (pytest.approx(shown.width), pytest.approx(shown.height))


def test_an_empty_map_is_said_in_words():
    said = "empty map:\nthe same value\neverywhere"
    assert said in [text.get_text() for text in draw(is_empty=True).axes[1].texts]
    assert not list(draw().axes[1].texts)


def test_the_same_figure_gives_the_same_bytes(tmp_path):
    first, second = (save_figure(draw(), tmp_path / name) for name in ("a.png", "b.png"))
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize(("n", "size"), [(1, (32, 32)), (4, (32, 32)), (7, (30, 60)), (24, (60, 30))])
def test_a_sheet_shows_each_picture_beside_its_overlay_with_its_caption(n, size):
    tiles = [
        (picture(*size), picture(*size, seed=1), f"{number}.jpg\np(fake) {number / 100:.3f}") for number in range(n)
    ]
    bright = "bright = evidence for AI-generated"
    figure = explanation_sheet(tiles, title="REAL wrongly called FAKE", bright=bright, color_map="inferno")
    figure.draw_without_rendering()
    assert len(figure.axes) == 2 * n + 1
    boxes = [text.get_window_extent() for text in texts_of(figure)]
    lines = [text.get_text() for text in figure.texts]
    assert lines[1 : 1 + 2 * n] == [line for *_, caption in tiles for line in caption.splitlines()]
    assert bright in said(figure)
    drawn = [axes.get_window_extent() for axes in figure.axes]
    assert not any(one.overlaps(other) for one, other in combinations([*boxes, *drawn], 2))
    assert all(figure.bbox.y0 <= box.y0 and box.y1 <= figure.bbox.y1 for box in boxes)
    assert all(box.x1 <= figure.bbox.x1 for box in boxes)


def test_few_tiles_make_a_narrow_sheet_and_long_names_keep_both_ends():
    tile = (picture(), picture(seed=1), "a-holiday-in-the-mountains-2026-07-14.jpg\np(fake) 0.100")
    one, many = (
        explanation_sheet([tile] * n, title="called REAL", bright="bright = more", color_map="inferno") for n in (1, 9)
    )
    assert one.get_figwidth() < many.get_figwidth() == 8
    name = one.texts[1].get_text()
    assert name.startswith("a-holiday")
    assert name.endswith("07-14.jpg")
    assert "…" in name


def test_a_sheet_of_errors_shows_each_image_below_the_name_of_its_column():
    sizes = ((32, 32), (200, 90))
    rows = [[(picture(*size, seed=seed), f"cat\np(fake) 0.{seed}") for seed in (1, 2)] for size in sizes]
    figure = error_sheet(rows, title="cnn on demo", columns=["image", "where it looked"])
    figure.draw_without_rendering()
    shown = [np.asarray(axes.images[0].get_array()) for axes in figure.axes]
    assert all(np.array_equal(one, image) for one, (image, _) in zip(shown, chain(*rows), strict=True))
    assert [axes.images[0].get_interpolation() for axes in figure.axes] == ["nearest"] * 2 + ["auto"] * 2
    boxes = [text.get_window_extent() for text in texts_of(figure)]
    drawn = [axes.get_window_extent() for axes in figure.axes]
    assert not any(one.overlaps(other) for one, other in combinations([*boxes, *drawn], 2))
    named = {text.get_text(): text.get_position()[0] for text in figure.texts}
    assert named["image"] < named["where it looked"]
    assert named["p(fake) 0.2"] == named["where it looked"]
