"""Mosaics and splices of large images: crops on the grid of JPEG, measures over pixels, and the command."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from small_multiview import image_bytes, save_images
from test_multiview import build, save

from realfake_hf.data.decoding import decode_image
from realfake_hf.data.loading import load_images
from realfake_hf.explain_study.large_grids import GridArguments, _leave_out_known, main, to_markdown
from realfake_hf.explain_study.mosaics import (
    SPLICED,
    compose,
    draw_candidates,
    locate_pixels,
    measure_mosaics,
    splice,
)
from realfake_hf.metrics.significance import holm
from realfake_hf.models import MultiViewImageProcessor
from realfake_hf.store import read_json

SIDE = 64
SIZES = ((33, 90), (70, 47), (32, 32), (100, 64))  # of images for mosaics of 64 pixels
KINDS = ("real", "fake")


def coordinates(height, width, blue=0):
    """An image whose red and green are the row and the column of each pixel."""
    rows, columns = np.indices((height, width))
    return np.stack([rows, columns, np.full_like(rows, blue)], axis=-1).astype(np.uint8)


def generator(seed=0):
    return np.random.default_rng(seed)


def test_crops_keep_the_grid_of_jpeg_and_lie_in_the_corner_of_their_quadrant():
    images = [coordinates(*size, blue=number) for number, size in enumerate(SIZES)]
    grid = compose(images, SIDE)
    assert grid.shape == (SIDE, SIDE, 3)
    expected = np.indices((SIDE, SIDE))
    assert (grid[..., 0] % 8 == expected[0] % 8).all()
    assert (grid[..., 1] % 8 == expected[1] % 8).all()
    assert (grid[..., 2] == np.arange(4).reshape(2, 2).repeat(32, axis=0).repeat(32, axis=1)).all()
    corners = [tuple(grid[y, x, :2].tolist()) for y in (0, 32) for x in (0, 32)]
    assert corners == [(0, 0), (0, 8), (0, 0), (64, 32)]  # of the images of 33 x 90, 70 x 47, 32 x 32, 100 x 64


@pytest.mark.parametrize("seed", range(8))
def test_a_splice_is_an_aligned_rectangle_of_the_donor_in_a_square_of_the_host(seed):
    host = coordinates(75, 90)
    pasted, mask = splice(host, coordinates(*SIZES[seed % 4], blue=9), side=SIDE, generator=generator(seed))
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    assert mask.sum() == len(rows) * len(columns)
    assert mask.shape == (SIDE, SIDE)
    for places in (rows, columns):
        assert places[0] % 8 == 0
        assert len(places) in (16, 24, 32)
    assert (pasted[..., 2] == 9 * mask).all()
    assert (pasted[~mask] == host[:SIDE, :SIDE][~mask]).all()
    assert (pasted[..., :2] % 8 == host[:SIDE, :SIDE, :2] % 8).all()
    same, where = splice(host, coordinates(200, 200), side=SIDE, generator=generator(seed))
    assert (where == mask).all()
    assert (same == host[:SIDE, :SIDE]).all()  # a large donor gives the same place


def test_splices_lie_anywhere():
    found = sum(
        splice(coordinates(64, 64), coordinates(64, 64), side=SIDE, generator=generator(seed))[1].astype(int)
        for seed in range(60)
    )
    assert (found > 0).all()


def test_a_region_is_located_over_pixels():
    mask = np.zeros((48, 64), dtype=bool)
    mask[8:24, 16:40] = True
    found = locate_pixels(mask[::4, ::4].astype(float), mask)
    assert {name: values.tolist() for name, values in found.items()} == {"hits": [1], "mass": [1], "roc_auc": [1]}


class LabelFinder:
    """A model of images of one grey each, which are FAKE if it is odd; a second method marks what differs."""

    def probabilities(self, images):
        return np.array([np.asarray(image)[0, 0, 0] % 2 for image in images], dtype=np.float32)

    def explain(self, image, *, method, target):
        grey = image[..., 0]
        marked = grey % 2 == (target == "FAKE") if method == "label" else grey != np.median(grey)
        return [SimpleNamespace(map=marked.astype(np.float32), verdict=SimpleNamespace(p_fake=0.25))]


@pytest.fixture(scope="module")
def greys(tmp_path_factory):
    """Images of one grey each, of several sizes; two are too small, and one has a content of its own."""
    folder = tmp_path_factory.mktemp("greys")
    rows = ["file_name,label,content"]
    for number in range(24):
        size = (20, 200) if number in (4, 5) else SIZES[number // 2 % 4]
        Image.new("RGB", size, (100 + number,) * 3).save(folder / f"{number}.png")
        rows.append(f"{number}.png,{KINDS[number % 2]},{'frog' if number == 7 else 'cat'}")
    (folder / "metadata.csv").write_text("\n".join(rows))
    return load_images(str(folder))["train"]


@pytest.fixture(scope="module")
def measured(greys):
    rows, _ = draw_candidates(greys, side=SIDE, n=8, seed=0)
    return measure_mosaics(LabelFinder(), rows, ["label", "seam"], side=SIDE, n=8, samples=100, seed=0)


def test_candidates_are_large_enough_and_of_a_content_with_both_labels(greys):
    drawn, n = draw_candidates(greys, side=SIDE, n=8, seed=0)
    assert (len(drawn), n) == (21, 21)
    assert min(min(image.size) for image in drawn["image"]) >= SIDE // 2
    assert set(drawn["content"][:]) == {"cat"}
    few, n = draw_candidates(greys, side=SIDE, n=1, seed=0)
    assert (len(few), n, sum(few["label"][:])) == (10, 21, 5)


@pytest.mark.parametrize("game", ["fake among real", "real among fake", SPLICED])
def test_a_map_of_the_label_finds_its_region_in_every_game(measured, game):
    found = measured["games"][game]
    row = found["methods"]["label"]
    assert found["n"] == 8
    for name in ("hits", "mass", "roc_auc"):
        assert row[name].value == 1
        assert row["less"]["prior"][name].low > 0
    assert found["p_target"].value == (0.75 if game.startswith("real") else 0.25)


def test_mosaics_are_compared_with_the_prior_which_is_chance_there_and_splices_also_with_chance_and_control(measured):
    games = measured["games"]
    mosaics, spliced = (games[name]["methods"]["label"]["less"] for name in ("fake among real", SPLICED))
    assert set(mosaics) == {"prior"}
    assert [mosaics["prior"][name].value for name in ("hits", "mass", "roc_auc")] == pytest.approx([0.75, 0.75, 0.5])
    assert set(spliced) == {"prior", "chance", "control"}
    assert spliced["chance"]["roc_auc"].value == 0.5
    assert spliced["chance"]["hits"].value == spliced["chance"]["mass"].value > 0.75  # 1 less the area
    assert (spliced["control"]["mass"].value, spliced["control"]["mass"].undefined) == (None, 8)  # it marks nothing


def test_a_map_of_the_seam_finds_splices_and_their_controls_and_is_not_credited(measured):
    row = measured["games"][SPLICED]["methods"]["seam"]
    assert (row["mass"].value, row["roc_auc"].value) == (1, 1)
    assert row["less"]["prior"]["mass"].low > 0
    assert (row["less"]["control"]["mass"].value, row["less"]["control"]["mass"].p_value) == (0, 1)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A small model of several views that tells noise from smooth colours, and its image processor."""
    network, processor = build(), MultiViewImageProcessor(size=32)
    images = [decode_image(image_bytes(1000 + number, is_fake=number % 2 == 1)) for number in range(24)]
    views = torch.from_numpy(processor.normalize_views(np.stack([processor.views(image) for image in images])))
    with torch.no_grad():
        features = network.features(views.flatten(0, 1)).view(24, 4, -1)
    target = (torch.arange(24) % 2).float()
    for head, part in ((network.whole, features[:, :1]), (network.window, features[:, 1:])):
        head[0].fit(part.flatten(0, 1))
        optimizer = torch.optim.Adam(head.parameters(), lr=0.03)
        for _ in range(50):
            optimizer.zero_grad()
            scores = head(part)[..., 0]
            torch.nn.functional.binary_cross_entropy_with_logits(scores, target[:, None].expand_as(scores)).backward()
            optimizer.step()
    return save(network, tmp_path_factory.mktemp("wild"))


def words(model, images, file, *more):
    return [
        "--model", str(model), "--data", str(images), "--output_file", str(file), "--side", "64", "--n", "3",
        "--bootstrap_samples", "50", *more,
    ]  # fmt: skip


@pytest.fixture(scope="module")
def file(model, tmp_path_factory):
    """The results of the command for 96 images, of which the model has seen three."""
    folder = tmp_path_factory.mktemp("game")
    (folder / "images").mkdir()
    (folder / "known" / "fake").mkdir(parents=True)
    for number in (1, 2, 3):
        (folder / "known" / "fake" / f"{number}.png").write_bytes(image_bytes(number, is_fake=number % 2 == 0))
    seen = "--training_data", str(folder / "known")
    assert main(words(model, save_images(folder / "images"), folder / "out/results.json", *seen)) == 0
    return folder / "out/results.json"


def test_the_command_plays_with_every_method_but_the_slow_one(file):
    [games] = read_json(file)["models"].values()
    assert [list(game["methods"]) for game in games.values()] == [
        ["relevance", "rollout", "last_attention", "gradient_rollout", "legrad", "libragrad", "grad_cam"]
    ] * 3
    assert file.with_suffix(".md").read_text() == to_markdown(read_json(file)) + "\n"


def test_images_that_the_model_was_trained_on_are_left_out_and_counted(file):
    data = read_json(file)["data"]
    assert data["n"] == 96
    assert data["near_duplicates"] >= 3
    assert data["fitting"] == 96 - data["near_duplicates"]
    assert data["scored"] == 30 >= data["right"] > 20


def test_without_training_data_the_result_says_that_nobody_looked_for_them(file):
    results = read_json(file)
    arguments = GridArguments(data="images", output_file=file)
    results["data"]["near_duplicates"] = _leave_out_known([], arguments)[1]
    assert "was not checked" in to_markdown(results)


def test_all_differences_are_one_family(file):
    [games] = read_json(file)["models"].values()
    rows = [row for game in games.values() for row in game["methods"].values()]
    tests = [test for row in rows for less in row["less"].values() for test in less.values() if "p_value" in test]
    assert len(tests) == 7 * (1 + 1 + 3) * 3
    assert [test["p_holm"] for test in tests] == pytest.approx(holm([test["p_value"] for test in tests]))


@pytest.mark.parametrize(
    ("more", "named"),
    [
        (["--side", "72"], "multiple of 16; found 72"),
        (["--side", "32"], "at least 64"),
        (["--methods", "saliency"], "found saliency"),
        (["--n", "1"], "found 1"),
    ],
)
def test_wrong_settings_are_named(more, named, tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(words("nowhere", "nothing", tmp_path / "results.json", *more))
    assert named in capsys.readouterr().err
