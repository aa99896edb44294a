import numpy as np
import pytest

from realfake_hf.explain_study.planting import QUADRANTS, draw_quadrants, inside, mass_inside, plant, pointing_game

ALL = np.arange(QUADRANTS)


@pytest.mark.parametrize("size", [(8, 8), (4, 6), (5, 7)])
def test_quadrants_share_out_the_picture(size):
    assert (inside(ALL, size).sum(axis=0) == 1).all()
    if size[0] % 2 == size[1] % 2 == 0:
        assert (inside(ALL, size).sum(axis=(1, 2)) == size[0] * size[1] / 4).all()


def test_a_quadrant_of_cells_lies_over_the_same_quadrant_of_pixels():
    cells, pixels = inside(ALL, (8, 8)), inside(ALL, (32, 32))
    np.testing.assert_array_equal(cells.repeat(4, axis=1).repeat(4, axis=2), pixels)


def test_quadrants_are_drawn_equally_often_and_by_seed():
    drawn = draw_quadrants(102, seed=0)
    assert sorted(np.bincount(drawn).tolist()) == [25, 25, 26, 26]
    assert (drawn == draw_quadrants(102, seed=0)).all()
    assert (drawn != draw_quadrants(102, seed=1)).any()


def test_a_planted_picture_is_its_donor_inside_and_its_host_outside():
    hosts, donors = np.random.default_rng(0).integers(0, 256, (2, 4, 8, 8, 3), dtype=np.uint8)
    where = inside(ALL, (8, 8))
    planted = plant(hosts, donors, where)
    np.testing.assert_array_equal(planted[where], donors[where])
    np.testing.assert_array_equal(planted[~where], hosts[~where])


def test_a_map_points_where_its_highest_cell_lies_and_ties_share():
    maps = np.zeros((4, 4, 4))
    maps[0, 0, 3] = 1  # upper right, in quadrant 1
    maps[1, 3, 0] = 1  # lower left, not in quadrant 1
    maps[2, 0, 3] = maps[2, 0, 0] = maps[2, 3, 3] = maps[2, 1, 2] = 1
    where = inside(np.ones(4, dtype=int), (4, 4))
    np.testing.assert_array_equal(pointing_game(maps, where), [1, 0, 0.5, np.nan])


def test_mass_is_the_share_of_the_sum_inside():
    maps = np.random.default_rng(0).random((4, 6, 6))
    shares = [mass_inside(maps, inside(np.full(4, quadrant), (6, 6))) for quadrant in ALL]
    np.testing.assert_allclose(np.sum(shares, axis=0), 1)
    assert shares[2][1] == pytest.approx(maps[1, 3:, :3].sum() / maps[1].sum())


def test_empty_maps_point_nowhere():
    maps = np.random.default_rng(0).random((4, 4, 4))
    maps[0], maps[1], maps[2] = 0.0, 0.5, np.nan
    for measure in (pointing_game, mass_inside):
        assert np.isnan(measure(maps, inside(ALL, (4, 4)))).tolist() == [True, True, True, False]
