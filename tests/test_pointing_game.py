from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score
from study_models import is_plain_json, noise, plain_and_striped, sample_of, stripe_finder, tiny_vit

from realfake_hf.explain_study.maps import StudyModel, pixels_of_cells
from realfake_hf.explain_study.pointing_game import (
    KINDS,
    QUADRANTS,
    draw_quadrants,
    inside,
    locate,
    mass_inside,
    measure_planted,
    plant,
    pointing_game,
    region_auc,
)

ALL = np.arange(QUADRANTS)


@pytest.mark.parametrize("size", [(8, 8), (4, 6), (5, 7)])
def test_quadrants_partition_the_image(size):
    assert (inside(ALL, size).sum(axis=0) == 1).all()
    if size[0] % 2 == size[1] % 2 == 0:
        assert (inside(ALL, size).sum(axis=(1, 2)) == size[0] * size[1] / 4).all()


def test_a_quadrant_of_cells_covers_the_same_quadrant_of_pixels():
    cells, pixels = inside(ALL, (8, 8)), inside(ALL, (32, 32))
    np.testing.assert_array_equal(cells.repeat(4, axis=1).repeat(4, axis=2), pixels)


def test_quadrants_are_drawn_equally_often_and_depend_on_the_seed():
    drawn = draw_quadrants(102, seed=0)
    assert sorted(np.bincount(drawn).tolist()) == [25, 25, 26, 26]
    assert (drawn == draw_quadrants(102, seed=0)).all()
    assert (drawn != draw_quadrants(102, seed=1)).any()


def test_a_planted_image_is_its_donor_inside_and_its_host_outside():
    hosts, donors = np.random.default_rng(0).integers(0, 256, (2, 4, 8, 8, 3), dtype=np.uint8)
    where = inside(ALL, (8, 8))
    planted = plant(hosts, donors, where)
    np.testing.assert_array_equal(planted[where], donors[where])
    np.testing.assert_array_equal(planted[~where], hosts[~where])


def test_a_hit_is_decided_by_the_highest_cell_and_ties_share_it():
    maps = np.zeros((4, 4, 4))
    maps[0, 0, 3] = 1  # upper right, in quadrant 1
    maps[1, 3, 0] = 1  # lower left, not in quadrant 1
    maps[2, 0, 3] = maps[2, 0, 0] = maps[2, 3, 3] = maps[2, 1, 2] = 1
    where = inside(np.ones(4, dtype=int), (4, 4))
    np.testing.assert_array_equal(pointing_game(maps, where), [1, 0, 0.5, np.nan])


def test_mass_is_the_share_of_the_sum_inside_the_region():
    maps = np.random.default_rng(0).random((4, 6, 6))
    shares = [mass_inside(maps, inside(np.full(4, quadrant), (6, 6))) for quadrant in ALL]
    np.testing.assert_allclose(np.sum(shares, axis=0), 1)
    assert shares[2][1] == pytest.approx(maps[1, 3:, :3].sum() / maps[1].sum())


def test_the_roc_auc_of_a_region_is_that_of_its_pixels_against_the_others():
    maps = np.random.default_rng(0).integers(0, 5, (20, 4, 6)).astype(float)  # with ties
    where = np.random.default_rng(1).random((20, 4, 6)) < 0.3
    expected = [roc_auc_score(mask.ravel(), heat.ravel()) for mask, heat in zip(where, maps, strict=True)]
    np.testing.assert_allclose(region_auc(maps, where), expected)
    np.testing.assert_allclose(region_auc(3 * maps + 7, where), expected)


def test_a_coarse_map_is_measured_as_the_pixels_over_which_it_is_drawn():
    """The border of the region passes through cells, and the cells do not have the same size."""
    maps, mask = np.random.default_rng(0).random((5, 3, 4)), np.zeros((10, 14), dtype=bool)
    mask[2:7, 3:9] = True
    drawn = maps[:, np.arange(10)[:, None] * 3 // 10, np.arange(14) * 4 // 14]
    fine = locate(drawn, np.broadcast_to(mask, drawn.shape))
    within, whole = (pixels_of_cells(each, (3, 4)) for each in (mask, np.ones_like(mask)))
    coarse = locate(maps, np.broadcast_to(within, maps.shape), np.broadcast_to(whole, maps.shape))
    for name, values in fine.items():
        np.testing.assert_allclose(coarse[name], values)
    assert 0 < within[1, 2] < whole[1, 2]


def test_empty_maps_are_undefined():
    maps = np.random.default_rng(0).random((4, 4, 4))
    maps[0], maps[1], maps[2] = 0.0, 0.5, np.nan
    for measure in (pointing_game, mass_inside, region_auc):
        assert np.isnan(measure(maps, inside(ALL, (4, 4)))).tolist() == [True, True, True, False]


class OddPartFinder(StudyModel):
    """A model of images of one grey each, whose maps mark what differs from the rest of the image, of any label."""

    def explain(self, images, *_, **__):
        middle = np.median(images, axis=(1, 2), keepdims=True)
        maps = (images != middle).any(axis=3)[:, ::4, ::4].astype(np.float32)
        return [SimpleNamespace(map=heat, layer=None) for heat in maps]


class TestPlanted:
    def study(self, sample=None, model=None, *, n=10, **settings):
        return measure_planted([model or stripe_finder()], sample or plain_and_striped(), n=n, samples=20, **settings)

    def test_a_faithful_map_finds_the_planted_quadrant(self):
        found = self.study()["models"]["cnn"]["fake in real"]
        assert (found["n"], found["target"]) == (10, "FAKE")
        assert found["p_fake_moved"]["planted"]["value"] > 0.5
        assert found["methods"]["grad_cam"]["planted"]["hits"]["value"] == 1
        assert found["methods"]["grad_cam"]["planted"]["mass"]["value"] > 0.95
        assert found["methods"]["grad_cam"]["planted"]["roc_auc"]["value"] == 1

    def test_a_plain_quadrant_in_a_plain_image_changes_nothing(self):
        found = self.study()["models"]["cnn"]["fake in real"]
        assert found["p_fake_moved"]["control"]["value"] == 0
        row = found["methods"]["grad_cam"]
        assert (row["control"]["hits"]["value"], row["control"]["hits"]["undefined"]) == (None, 10)  # it has no map
        assert (row["difference"]["hits"]["value"], row["difference"]["hits"]["undefined"]) == (None, 10)

    def test_a_real_quadrant_in_a_fake_image_removes_evidence(self):
        found = self.study()["models"]["cnn"]["real in fake"]
        assert found["target"] == "REAL"
        assert found["p_fake_moved"]["planted"]["value"] < 0

    def test_a_map_of_seams_hits_in_the_planted_as_in_the_control_images_and_is_not_credited(self):
        images = np.broadcast_to(np.arange(40, dtype=np.uint8)[:, None, None, None], (40, 32, 32, 3)).copy()
        found = self.study(sample_of(images, np.arange(40) % 2 == 1), OddPartFinder(**vars(tiny_vit("rollout"))))
        for kind in found["models"]["vit"].values():
            row = kind["methods"]["rollout"]
            assert row["planted"]["hits"]["value"] == row["control"]["hits"]["value"] == 1
            assert row["planted"]["hits"]["low"] > found["chance"]
            difference = row["difference"]["hits"]
            assert (difference["value"], difference["p_value"], difference["p_holm"]) == (0, 1, 1)

    def test_uninformative_maps_hit_at_chance(self):
        sample = sample_of(np.repeat(noise(2).images, 200, axis=0), np.arange(400) >= 200)
        found = self.study(sample, tiny_vit("rollout"), n=100)["models"]["vit"]["fake in real"]
        row = found["methods"]["rollout"]["control"]  # all hosts and controls are one image
        assert (row["hits"]["value"], row["mass"]["value"]) == pytest.approx((0.25, 0.25))
        assert row["roc_auc"]["value"] == pytest.approx(0.5)

    def test_hosts_and_donors_share_their_content_and_have_the_right_labels(self):
        marks = np.arange(24, dtype=np.uint8)
        images = np.broadcast_to(marks[:, None, None, None], (24, 32, 32, 3)).copy()
        content = np.array(["cat", "dog", "ship"])[np.arange(24) // 2 % 3]
        right = np.arange(24) > 3
        sample = sample_of(images, np.arange(24) % 2 == 1, right=right, content=content)
        seen = []

        class Watched(StudyModel):
            def probabilities(self, given):
                seen.append([np.unique(image) for image in given])
                return super().probabilities(given)

        watched = Watched(**vars(tiny_vit("rollout")))
        study = self.study(sample, watched, n=6)
        for place, (name, kind) in enumerate(KINDS.items()):
            hosts, planted, control = (np.array(given, dtype=object) for given in seen[3 * place : 3 * place + 3])
            assert study["models"]["vit"][name]["n"] == len(planted) == len(control) == 6
            shown = sorted(content[[host.item() for host in hosts]].tolist())
            assert shown == ["cat", "cat", "dog", "dog", "ship", "ship"]
            for pasted, label in ((planted, kind.donor), (control, kind.host)):
                for both, host in zip(pasted, hosts, strict=True):
                    [donor] = set(both.tolist()) - {host.item()}
                    assert content[host.item()] == content[donor]
                    assert right[host.item()]
                    assert right[donor]
                    assert (kind.host == "FAKE") == sample.is_fake[host.item()]
                    assert (label == "FAKE") == sample.is_fake[donor]

    def test_the_same_seed_gives_the_same_numbers(self):
        first, same, other = (self.study(noise(12), tiny_vit("relevance"), seed=seed) for seed in (1, 1, 2))
        assert first == same
        assert first != other
        assert is_plain_json(first)

    def test_a_sample_without_pairs_is_refused(self):
        sample = replace(plain_and_striped(4), content=("cat", "dog", "ship", "frog"))
        with pytest.raises(
            ValueError,
            match=r"two REAL images and a FAKE one of the same content that cnn classifies correctly; found none",
        ):
            self.study(sample)
