"""The entity part of the study: masks, equal areas of background, and models that read one of the two."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from study_models import is_plain_json
from test_sample import split_of

from realfake_hf.explain_study.entity import (
    background_masks,
    check_masks,
    draw_entities,
    measure_entity,
    read_masks,
)
from realfake_hf.explain_study.maps import MapSet, Sample
from realfake_hf.metrics.significance import holm

SIDE, N = 16, 40


def entities():
    """Squares of a quarter of the image, in different places."""
    masks = np.zeros((N, SIDE, SIDE), dtype=bool)
    for row, mask in enumerate(masks):
        mask[row % 4 : row % 4 + 8, row % 3 : row % 3 + 8] = True
    return masks


class Reader:
    """A model that calls an image FAKE if any pixel of a part of it is bright."""

    def __init__(self, name, part):
        self.name, self.part = name, part

    def probabilities(self, images):
        return np.where(self.part, images[..., 0], 0).max(axis=(1, 2)).astype(np.float32) / 255


@pytest.fixture(scope="module")
def measured():
    """Two models of images whose fakes are bright in the middle of the entity and in a pixel far from it."""
    masks, is_fake = entities(), np.arange(N) % 2 == 1
    middles = np.zeros_like(masks)
    for row, middle in enumerate(middles):
        middle[row % 4 + 3, row % 3 + 3] = True
    far = np.zeros_like(masks)
    far[:, -1, -1] = True
    images = np.full((N, SIDE, SIDE, 3), 20, dtype=np.uint8)
    images[(middles | far) & is_fake[:, None, None]] = 255
    sample = Sample(images, is_fake, ("cat",) * N, tuple(map(str, range(N))), {}, is_fake.astype(np.intp), np.ones(N))
    maps = [
        MapSet("a", "grad_cam", None, masks.astype(np.float32)),
        MapSet("a", "rollout", None, np.random.default_rng(0).random((N, SIDE, SIDE)).astype(np.float32)),
    ]
    models = [Reader("entity", middles), Reader("background", far)]
    return measure_entity(models, maps, sample, masks, samples=200, seed=0)


@given(st.integers(0, 9), st.floats(0.05, 0.5))
def test_the_background_has_the_area_of_the_entity_and_does_not_touch_it(seed, share):
    entity = np.random.default_rng(seed).random((2, 9, 7)) < share / 2
    background = background_masks(entity)
    assert background.sum(axis=(1, 2)).tolist() == entity.sum(axis=(1, 2)).tolist()
    assert not (background & entity).any()


def test_the_background_is_as_far_from_the_entity_as_possible():
    entity = np.zeros((1, 8, 8), dtype=bool)
    entity[0, :2, :2] = True
    assert (
        np.argwhere(background_masks(entity)[0]).tolist() == [[6, 7], [7, 5], [7, 6], [7, 7]]
        or (background_masks(entity)[0, 7, 7])
    )


@pytest.mark.parametrize(("name", "sign"), [("entity", -1), ("background", 1)])
@pytest.mark.parametrize("fill", ["blur", "mean"])
def test_a_model_loses_what_it_reads(measured, name, sign, fill):
    row = measured["models"][name]["fills"][fill]
    assert measured["models"][name]["untouched"]["accuracy"]["value"] == 1
    less = row["differences"]["entity less background"]["accuracy"]
    assert less["value"] == pytest.approx(sign * 0.5)  # all fakes are missed
    assert np.sign(less["value"]) == (1 if less["low"] > 0 else -1)
    alone = row["differences"]["entity alone less fill"]["accuracy"]
    assert alone["value"] == pytest.approx(0.5 if name == "entity" else 0)


def test_maps_are_compared_with_the_area_of_the_entity(measured):
    inside, anywhere = measured["maps"]["a grad_cam"], measured["maps"]["a rollout"]
    assert measured["area"]["value"] == 0.25
    assert inside["mass"]["value"] == 1
    assert inside["mass_less_area"]["value"] == 0.75
    assert anywhere["mass_less_area"]["value"] == pytest.approx(0, abs=0.02)
    assert anywhere["mass_less_area"]["p_holm"] > 0.05


def test_all_differences_are_one_family(measured):
    rows = [row for tested in measured["models"].values() for row in tested["fills"].values()]
    tests = [test for row in rows for both in row["differences"].values() for test in both.values()]
    tests += [share["mass_less_area"] for share in measured["maps"].values()]
    assert len(tests) == 2 * 2 * 2 * 2 + 2
    assert [test["p_holm"] for test in tests] == holm([test["p_value"] for test in tests])
    assert is_plain_json(measured)
    assert (measured["n"], measured["n_real"], measured["n_fake"]) == (N, 20, 20)


def test_images_with_masks_are_drawn_with_their_masks():
    rows = split_of([0, 1, 0, 1], ["cat", "dog", None, "cat"])
    masks = {"id3": np.eye(8, dtype=bool), "id1": np.zeros((8, 8), dtype=bool)}
    sample, drawn = draw_entities(rows, {"vit": np.array([0.1, 0.2, 0.3, 0.9])}, masks)
    assert (sample.ids, sample.content) == (("id1", "id3"), ("dog", "cat"))
    assert sample.is_right["vit"].tolist() == [False, True]
    assert drawn.sum(axis=(1, 2)).tolist() == [0, 8]


def test_masks_of_another_split_or_shape_are_refused():
    with pytest.raises(ValueError, match=r"found 1 of 2 masks of other images, such as 'other'"):
        check_masks({"id0": np.eye(8, dtype=bool), "other": np.eye(8, dtype=bool)}, ["id0"])
    with pytest.raises(ValueError, match=r"shape, \(8, 8\); found \(4, 4\)"):
        draw_entities(split_of([0], ["cat"]), {}, {"id0": np.eye(4, dtype=bool)})


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no archive", b"a,b\n1,2\n"])
def test_a_damaged_file_of_masks_is_named(tmp_path, content):
    (tmp_path / "masks.npz").write_bytes(content)
    with pytest.raises(ValueError, match=r"--entity_masks.*found .*masks\.npz"):
        read_masks(tmp_path / "masks.npz")


@pytest.mark.parametrize(
    "arrays",
    [
        {"id": np.array(["a"])},
        {"id": np.array(["a", "b"]), "mask": np.ones((1, 2, 2), dtype=bool)},
        {"id": np.array(["a"]), "mask": np.ones((1, 2, 2))},
        {"id": np.array(["a"], dtype=object), "mask": np.ones((1, 2, 2), dtype=bool)},
    ],
)
def test_other_arrays_are_refused(tmp_path, arrays):
    np.savez(tmp_path / "masks.npz", **arrays)
    with pytest.raises(ValueError, match=r"the arrays id and mask"):
        read_masks(tmp_path / "masks.npz")
