"""Fine-tuned fidelity: which cells are removed, what a drop is, and laws of both measures."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from realfake_hf.data.augment import HIDDEN_GRID
from realfake_hf.explain_study import fidelity
from realfake_hf.explain_study.fidelity import draw_cells, hidden_share, measure_drops
from realfake_hf.explain_study.maps import GRID
from realfake_hf.explain_study.trials import Trial
from realfake_hf.run_folder import RECORD
from realfake_hf.store import write_json

CORNER = np.s_[:, :16, :16]


def striped(n=8):
    """Grey images, half of them with stripes in the upper left quarter."""
    images = np.full((n, 32, 32, 3), 128, dtype=np.uint8)
    images[n // 2 :, :16, :16] = np.array([0, 255] * 8, dtype=np.uint8)[:, None]
    return images


def contrast(images):
    """Score an image by the stripes that remain in its upper left quarter: 0.9 for all, 0.1 for none."""
    return 0.1 + 0.8 * images[CORNER].std(axis=(1, 2, 3)) / 127.5


def maps_of(n=8):
    """A map of the stripes, its inverse, and no map for the first image."""
    stripes = np.zeros((n, *GRID))
    stripes[:, :4, :4] = 1
    maps = {"stripes": stripes, "inverse": 1 - stripes, "random order": np.zeros((n, *GRID))}
    maps["empty"] = np.where(np.arange(n)[:, None, None] == 0, np.nan, stripes)
    return maps


@pytest.fixture(autouse=True)
def few_draws(monkeypatch):
    monkeypatch.setattr(fidelity, "DRAWS", 3)


@pytest.fixture(scope="module")
def trial():
    return Trial(striped(), score=contrast, fill="mean", called_fake=np.arange(8) >= 4)


@given(st.integers(0, 64), st.floats(0, 1), st.integers(0, 9))
def test_half_of_the_candidates_is_removed_and_never_more_than_the_fine_tuning_hid(n_candidates, share, seed):
    candidates = np.arange(64) < np.full((5, 1), n_candidates)
    removed = draw_cells(candidates, share=share, generator=np.random.default_rng(seed))
    assert not (removed & ~candidates).any()
    assert set(removed.sum(axis=1)) == {min(round(n_candidates / 2), math.floor(share * 64))}


def test_every_candidate_is_removed_as_often_as_any_other():
    candidates = np.broadcast_to(np.arange(64) < 20, (4000, 64))
    removed = draw_cells(candidates, share=0.5, generator=np.random.default_rng(0))
    np.testing.assert_allclose(removed[:, :20].mean(axis=0), 0.5, atol=0.05)


def test_the_grid_of_the_study_is_that_of_the_fine_tuning():
    assert GRID == HIDDEN_GRID


def test_a_faithful_map_has_a_high_fid_plus_and_a_low_fid_minus(trial):
    drops = measure_drops(trial, maps_of(), share=0.5, seed=0)
    fake = np.arange(8) >= 4  # the others have no stripes to lose
    plus, minus, difference = (
        {name: each[test][fake].mean() for name, each in drops.items()} for test in drops["stripes"]
    )
    assert plus["stripes"] > plus["random order"] > plus["inverse"]
    assert minus["stripes"] < minus["random order"] < minus["inverse"]
    assert difference["stripes"] > 0.1 > abs(difference["random order"])
    assert np.abs(drops["stripes"]["plus"][~fake]).max() < 1e-6


def test_without_the_stripes_among_the_others_nothing_is_lost_and_both_measures_are_means_of_drops(trial, monkeypatch):
    monkeypatch.setattr(fidelity, "SPARSITIES", (0.25,))  # exactly the cells of the stripes
    [drops] = measure_drops(trial, {"stripes": maps_of()["stripes"]}, share=0.5, seed=0).values()
    assert np.abs(drops["minus"]).max() < 1e-6
    generator, stripes = np.random.default_rng(0), maps_of()["stripes"].reshape(8, -1) > 0
    expected = np.zeros(8)
    for _ in range(3):
        gone = draw_cells(stripes, share=0.5, generator=generator).reshape(-1, *GRID)
        draw_cells(~stripes, share=0.5, generator=generator)
        images = striped()
        for image, cells in zip(images, gone, strict=True):
            mean = np.rint(image.mean(axis=(0, 1)))
            for row, column in zip(*np.nonzero(cells), strict=True):
                image[4 * row : 4 * row + 4, 4 * column : 4 * column + 4] = mean
        before, after = (np.where(np.arange(8) >= 4, p, 1 - p) for p in (contrast(striped()), contrast(images)))
        expected += (before - after) / 3
    np.testing.assert_allclose(drops["plus"], expected, atol=1e-6)
    np.testing.assert_allclose(drops["difference"], expected, atol=1e-6)


def test_nothing_is_removed_where_the_fine_tuning_hid_less_than_a_cell(trial):
    drops = measure_drops(trial, maps_of(), share=0.01, seed=0)
    assert max(np.nanmax(np.abs(each[test])) for each in drops.values() for test in each) < 1e-6


def test_an_empty_map_has_no_fidelity_and_the_others_do_not_change(trial):
    drops = measure_drops(trial, maps_of(), share=0.5, seed=0)
    for test, values in drops["empty"].items():
        assert np.isnan(values).tolist() == [True] + [False] * 7
        np.testing.assert_array_equal(values[1:], drops["stripes"][test][1:])


def test_the_same_seed_removes_the_same_cells(trial):
    one, same, other = (measure_drops(trial, maps_of(), share=0.5, seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one["inverse"]["minus"], same["inverse"]["minus"])
    assert (one["inverse"]["minus"] != other["inverse"]["minus"]).any()


def test_the_share_is_that_of_the_run(tmp_path):
    write_json(tmp_path / RECORD, {"finished": True, "arguments": {"hidden_share": 0.3}})
    assert hidden_share(str(tmp_path)) == 0.3


@pytest.mark.parametrize("arguments", [None, {}, {"hidden_share": 0.0}])
def test_a_model_that_was_not_fine_tuned_on_hidden_cells_is_refused(tmp_path, arguments):
    if arguments is not None:
        write_json(tmp_path / RECORD, {"finished": True, "arguments": arguments})
    with pytest.raises(ValueError, match="--hidden_share") as error:
        hidden_share(str(tmp_path))
    assert str(tmp_path) in str(error.value)
