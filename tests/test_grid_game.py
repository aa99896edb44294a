"""The Grid Pointing Game: which images are in a grid and where, and what maps that know something or nothing score."""

from types import SimpleNamespace

import numpy as np
import pytest
from study_models import is_plain_json, noise, plain_and_striped, sample_of, stripe_finder, tiny_vit

from realfake_hf.explain_study.agreement import centre_gaussian
from realfake_hf.explain_study.grid_game import GAMES, compose, draw_grids, measure_grids
from realfake_hf.explain_study.maps import GRID, StudyModel
from realfake_hf.explain_study.pointing_game import QUADRANTS, inside, locate
from realfake_hf.metrics.significance import holm

N = 24


def differences(measured):
    rows = [
        row for games in measured["models"].values() for game in games.values() for row in game["methods"].values()
    ]
    return [test for row in rows for less in row["less"].values() for test in less.values()]


def play(sample, model, *, n=10, **settings):
    return measure_grids([model], sample, n=n, samples=50, **settings)


@pytest.mark.parametrize("quadrant", range(QUADRANTS))
def test_each_quadrant_of_a_grid_is_from_its_own_place_and_the_first_image_from_the_target_quadrant(quadrant):
    images = np.random.default_rng(0).integers(0, 256, (5, 8, 6, 3), dtype=np.uint8)
    rows = np.array([[4], [0], [1], [3]])
    [grid] = compose(images, rows, np.array([quadrant]))
    shown = []
    for place in range(QUADRANTS):
        [where] = inside(np.array([place]), (8, 6))
        [number] = [row for row in range(5) if (images[row][where] == grid[where]).all()]
        shown.append(number)
    assert shown[quadrant] == 4
    assert sorted(shown) == [0, 1, 3, 4]


@pytest.mark.parametrize("target", ["FAKE", "REAL"])
def test_a_grid_has_one_image_of_the_target_and_three_others_of_its_content_all_classified_correctly(target):
    is_fake = np.arange(60) % 2 == 1
    content = np.array(["cat", "dog", "ship"])[np.arange(60) // 2 % 3]
    right = np.random.default_rng(0).random(60) < 0.8
    rows = draw_grids(is_fake, right, content.tolist(), target=target, model="cnn", n=12, seed=0)
    assert rows.shape == (4, 12)
    assert right[rows].all()
    assert (is_fake[rows[0]] == (target == "FAKE")).all()
    assert (is_fake[rows[1:]] != (target == "FAKE")).all()
    assert (content[rows] == content[rows[0]]).all()
    assert sorted(content[rows[0]].tolist()) == ["cat"] * 4 + ["dog"] * 4 + ["ship"] * 4
    assert len(set(rows[0].tolist())) == 12
    assert all(len(set(column)) == 4 for column in rows.T.tolist())
    assert (rows != draw_grids(is_fake, right, content.tolist(), target=target, model="cnn", n=12, seed=1)).any()


def test_few_other_images_are_used_repeatedly_and_never_twice_in_a_grid():
    is_fake = np.arange(14) < 10
    rows = draw_grids(is_fake, np.ones(14, dtype=bool), ["cat"] * 14, target="FAKE", model="cnn", n=99, seed=0)
    assert rows.shape == (4, 10)
    assert set(rows[1:].ravel().tolist()) == {10, 11, 12, 13}
    assert all(len(set(column)) == 4 for column in rows.T.tolist())


def test_a_faithful_map_finds_the_one_striped_image():
    found = play(plain_and_striped(N), stripe_finder())["models"]["cnn"]["fake among real"]
    assert (found["n"], found["target"]) == (10, "FAKE")
    row = found["methods"]["grad_cam"]
    assert (row["hits"]["value"], row["roc_auc"]["value"]) == (1, 1)
    assert row["mass"]["value"] > 0.95
    assert row["less"]["prior"]["mass"]["value"] == pytest.approx(row["mass"]["value"] - 0.25)
    assert row["less"]["prior"]["mass"]["p_holm"] < 0.5


def test_p_target_is_the_mean_probability_of_the_label_that_is_explained():
    sample, model = plain_and_striped(N), stripe_finder()
    p_fake = model.probabilities(sample.images)
    games = play(sample, model)["models"]["cnn"]
    striped, plain = games["fake among real"]["p_target"]["value"], games["real among fake"]["p_target"]["value"]
    assert p_fake[0] < striped < p_fake[1]
    assert 1 - p_fake[1] < plain < 1 - p_fake[0]


def test_by_symmetry_the_centre_prior_scores_chance_in_every_quadrant():
    where = inside(np.arange(QUADRANTS), GRID)
    for name, values in locate(np.broadcast_to(centre_gaussian(), where.shape), where).items():
        np.testing.assert_allclose(values, 0.5 if name == "roc_auc" else 0.25)


class CentreFinder(StudyModel):
    """A model whose maps highlight the centre whatever it sees."""

    def explain(self, images, *_, **__):
        return [SimpleNamespace(map=centre_gaussian().astype(np.float32), layer=None) for _ in images]


def test_a_map_of_the_centre_is_no_better_than_the_centre_prior():
    measured = play(noise(N), CentreFinder(**vars(tiny_vit("rollout"))))
    for game in measured["models"]["vit"].values():
        row = game["methods"]["rollout"]
        assert row["hits"]["value"] == pytest.approx(measured["chance"]["hits"])
        assert row["roc_auc"]["value"] == pytest.approx(measured["chance"]["roc_auc"])
        for test in row["less"]["prior"].values():
            assert test["value"] == pytest.approx(0, abs=1e-6)


def test_the_differences_of_all_models_labels_and_methods_are_one_family():
    models = [tiny_vit("rollout", "relevance"), stripe_finder()]
    measured = measure_grids(models, plain_and_striped(N), n=6, samples=50)
    tests = differences(measured)
    assert len(tests) == len(GAMES) * (2 + 1) * 3
    defined = [test for test in tests if test["value"] is not None]
    assert [test["p_holm"] for test in defined] == holm([test["p_value"] for test in defined])
    assert is_plain_json(measured)


def test_the_same_seed_gives_the_same_numbers():
    first, same, other = (play(noise(N), tiny_vit("relevance"), seed=seed) for seed in (1, 1, 2))
    assert first == same
    assert first != other


@pytest.mark.parametrize(("target", "words"), [("FAKE", "a FAKE image and three REAL"), ("REAL", "a REAL image")])
def test_images_without_a_grid_are_refused(target, words):
    sample = sample_of(noise(8).images, np.arange(8) % 2 == 1, content=[f"content {row // 4}" for row in range(8)])
    with pytest.raises(ValueError, match=f"expected {words}.*cnn classifies correctly; found none"):
        draw_grids(sample.is_fake, sample.is_right["cnn"], sample.content, target=target, model="cnn", n=4, seed=0)
