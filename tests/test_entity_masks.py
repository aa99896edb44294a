"""The entity of an image is marked where two segmenters agree."""

import json

import numpy as np
import pytest
from PIL import Image
from small_multiview import save_tower

from realfake_hf.experiments.entity_masks import (
    cluster_patches,
    geodesic_mask,
    largest_part,
    main,
    overlap,
    patch_features,
    resize_mask,
)
from realfake_hf.explain_study.entity import read_masks
from realfake_hf.models.pretrained import build_multiview


def square(side, start, stop):
    mask = np.zeros((side, side), dtype=np.bool_)
    mask[start:stop, start:stop] = True
    return mask


def picture(seed, mask):
    """A coloured shape on another colour, with noise."""
    generator = np.random.default_rng(seed)
    ground, shape = np.array([60, 90, 200]), np.array([210, 120, 40])
    colours = np.where(mask[..., None], shape, ground) + generator.normal(0, 6, (*mask.shape, 3))
    return np.clip(colours, 0, 255).astype(np.uint8)


def mean_colours(_, images):
    """The mean colour of each of 8 x 8 patches, instead of the features of a tower."""
    return images.reshape(len(images), 8, 4, 8, 4, 3).mean((2, 4))


def test_clusters_separate_patches_of_different_features():
    mask = square(8, 2, 6)
    generator = np.random.default_rng(0)
    features = np.where(mask[..., None], 1.0, -1.0) * np.ones(16) + generator.normal(0, 0.3, (8, 8, 16))
    assert (cluster_patches(features) == mask).all()
    assert (cluster_patches(-features) == mask).all()  # what touches the border less is the entity


@pytest.mark.parametrize(("start", "stop"), [(8, 24), (4, 16), (14, 29)])
def test_colours_separate_a_shape_from_the_border_of_the_image(start, stop):
    mask = square(32, start, stop)
    assert overlap(geodesic_mask(picture(0, mask)), mask) > 0.75


def test_the_largest_part_is_kept_and_filled():
    mask = square(12, 1, 9)
    mask[4, 4] = False
    mask[11, 11] = True
    assert (largest_part(mask) == square(12, 1, 9)).all()
    assert not largest_part(np.zeros((3, 3), dtype=np.bool_)).any()


def test_the_overlap_is_intersection_over_union():
    assert overlap(square(4, 0, 2), square(4, 0, 2)) == 1
    assert overlap(square(4, 0, 2), square(4, 1, 3)) == pytest.approx(1 / 7)
    assert overlap(square(4, 0, 0), square(4, 0, 0)) == 0
    assert resize_mask(square(8, 2, 6), (32, 32)).mean() == pytest.approx(0.25, abs=0.03)


@pytest.fixture
def tower(tmp_path):
    return build_multiview(str(save_tower(tmp_path / "tower")), tower_layers=2, feature_layers=[1, 2])[0]


def test_each_patch_has_the_features_of_its_own_place(tower):
    images = np.stack([picture(0, square(32, 0, 16)), picture(1, square(32, 0, 16))])
    features = patch_features(tower, images)
    assert features.shape == (2, 2, 2, 16)
    changed = images.copy()
    changed[0, :16, :16] = 255
    moved = np.abs(patch_features(tower, changed) - features).sum(-1)
    assert moved[0].argmax() == 0
    assert (moved[0] > 0).all()


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    for label in ("real", "fake"):
        (folder / label).mkdir(parents=True)
        for number in range(6):
            size = (8, 24) if number else (12, 16)  # the first is too small
            Image.fromarray(picture(number, square(32, *size))).save(folder / label / f"{number}.png")
    return folder


def test_the_command_keeps_images_on_which_both_agree_without_those_that_are_wrong_by_eye(
    images, tower, tmp_path, monkeypatch, capsys
):
    module = "realfake_hf.experiments.entity_masks"
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(f"{module}.patch_features", mean_colours)
    tower.save_pretrained(tmp_path / "model")
    files = {name: tmp_path / name for name in ("excluded.txt", "masks.npz", "masks.json", "sheet.png")}
    words = ["--data", str(images), "--tower", str(tmp_path / "model"), "--excluded_file", str(files["excluded.txt"])]
    words += ["--output_file", str(files["masks.npz"]), "--results_file", str(files["masks.json"])]
    words += ["--sheet_file", str(files["sheet.png"]), "--split", "train"]
    assert main(words) == 0
    found = json.loads(files["masks.json"].read_text())
    masks = read_masks(files["masks.npz"])
    assert (found["segmented"], found["kept"], found["wrong_by_eye"]) == (12, 10, 0)
    assert (found["n_real"], found["n_fake"], len(masks)) == (5, 5, 10)
    assert all(overlap(mask, square(32, 8, 24)) > 0.7 for mask in masks.values())
    with Image.open(files["sheet.png"]) as figure:
        assert figure.size == (12 * 136, 144)
    assert "| kept | 10 |" in capsys.readouterr().out

    struck_out = next(iter(masks))
    files["excluded.txt"].write_text(f"# seen\n{struck_out} background\n")
    assert main(words) == 0
    assert json.loads(files["masks.json"].read_text())["wrong_by_eye"] == 1
    assert read_masks(files["masks.npz"]).keys() == masks.keys() - {struck_out}
    assert main([*words, "--smallest", "0.9", "--largest", "1"]) == 1
    assert "found 0 of 12 images with masks of 90% to 100%" in capsys.readouterr().err
