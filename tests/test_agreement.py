import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import pearsonr, spearmanr

from realfake_hf.explain_study.agreement import (
    MEASURES,
    agreement,
    centre_distance,
    centre_gaussian,
    chance_iou,
    correct_agreement,
    draw_partners,
    measure_agreement,
    pearson,
    spearman,
    ssim,
    top_iou,
)
from realfake_hf.explain_study.maps import GRID, MapSet, Sample
from realfake_hf.metrics.significance import holm


def maps(n=6, side=8, seed=0):
    return np.random.default_rng(seed).random((n, side, side))


TIED = arrays(np.float64, (2, 4, 5), elements=st.sampled_from([0.0, 0.25, 0.5, 1.0]))


def test_a_map_agrees_with_itself():
    found = agreement(maps(), maps())
    for name, value in found.items():
        np.testing.assert_allclose(value, 0 if name == "centre_distance" else 1, atol=1e-9, err_msg=name)


@given(TIED, TIED)
@settings(max_examples=50)
def test_agreement_is_symmetric(a, b):
    for name, value in agreement(a, b).items():
        np.testing.assert_allclose(value, agreement(b, a)[name], atol=1e-12)


def test_correlations_equal_those_of_scipy():
    a, b = np.round(maps(), 1), np.round(maps(seed=1), 1)  # with ties
    for one, other, linear, ranked in zip(a, b, pearson(a, b), spearman(a, b), strict=True):
        assert linear == pytest.approx(pearsonr(one.ravel(), other.ravel()).statistic)
        assert ranked == pytest.approx(spearmanr(one.ravel(), other.ravel()).statistic)


def test_ssim_equals_that_of_scikit_image():
    metrics = pytest.importorskip("skimage.metrics")
    a, b = maps(side=9), maps(side=9, seed=1)
    expected = [
        metrics.structural_similarity(one, other, win_size=3, data_range=1, use_sample_covariance=False)
        for one, other in zip(a, b, strict=True)
    ]
    np.testing.assert_allclose(ssim(a, b), expected, atol=1e-9)


@pytest.mark.parametrize("share", [0.1, 0.2])
def test_overlap_equals_that_of_sets_without_ties(share):
    a, b = maps(), maps(seed=1)
    count = round(share * 64)
    for one, other, found in zip(a, b, top_iou(a, b, share=share), strict=True):
        first, second = (set(np.argsort(cells.ravel())[-count:].tolist()) for cells in (one, other))
        assert found == pytest.approx(len(first & second) / len(first | second))


@given(TIED, st.sampled_from([0.1, 0.2, 0.5]))
@settings(max_examples=50)
def test_tied_cells_share_the_remaining_places(a, share):
    places = max(1, round(share * 20))
    alone = np.zeros((2, 4, 5))
    alone[:, 0, 0] = 1.0  # one certain cell, the others tie for the rest
    found = top_iou(a, a, share=share)
    np.testing.assert_allclose(found, 1.0)
    shared = top_iou(alone, np.roll(alone, 1, axis=2), share=share)
    left = (places - 1) / 19
    inside = 2 * min(1.0, left) + 18 * left if places > 1 else 0.0
    np.testing.assert_allclose(shared, inside / (2 * places - inside))


def test_chance_overlap_equals_the_mean_of_random_maps():
    for share in (0.1, 0.2):
        found = top_iou(maps(4000), maps(4000, seed=1), share=share)
        assert found.mean() == pytest.approx(chance_iou(64, share=share), abs=3 * found.std() / 4000**0.5)


def test_empty_maps_have_no_agreement():
    a, b = maps(), maps(seed=1)
    a[1], b[2], a[3] = 0.0, 0.4, 1.0
    for value in agreement(a, b).values():
        assert np.isnan(value).tolist() == [False, True, True, True, False, False]


def test_the_distance_of_centres_is_a_share_of_the_diagonal():
    corners = np.zeros((2, 5, 5))
    corners[0, 0, 0] = corners[1, 4, 4] = 1
    assert centre_distance(corners[:1], corners[1:]).item() == pytest.approx(1)
    middle = np.zeros((1, 5, 5))
    middle[0, 2, 2] = 1
    assert centre_distance(corners[:1], middle).item() == pytest.approx(0.5)
    np.testing.assert_allclose(centre_distance(np.ones((1, 5, 5)), middle), 0, atol=1e-12)


def test_the_centre_map_peaks_in_the_centre_and_is_symmetric():
    centre = centre_gaussian()
    np.testing.assert_allclose(centre, centre[::-1])
    np.testing.assert_allclose(centre, centre.T)
    assert centre.argmax() in (27, 28, 35, 36)
    assert 0 < centre.min() < centre.max() <= 1


def test_the_centre_map_has_a_standard_deviation_of_a_quarter_of_the_sides():
    # squared distances of cells from the centre, in standard deviations
    nearest, edge = (1 / 16 / 0.25) ** 2, (7 / 16 / 0.25) ** 2
    assert centre_gaussian()[3, 3] == pytest.approx(np.exp(-nearest))
    assert centre_gaussian()[0, 4] == pytest.approx(np.exp(-(nearest + edge) / 2))


def test_a_partner_is_another_image_of_the_same_label_and_content():
    sample = sample_of(80)
    partner = draw_partners(sample, seed=0)
    content = np.array(sample.content)
    assert (partner != np.arange(80)).all()
    assert (sample.is_fake[partner] == sample.is_fake).all()
    assert (content[partner] == content).all()
    assert draw_partners(sample, seed=0).tolist() == partner.tolist() != draw_partners(sample, seed=1).tolist()


def test_partners_are_drawn_by_weight():
    sample = replace(sample_of(400), weight=np.where(np.arange(400) < 200, 3.0, 1.0))
    assert (draw_partners(sample, seed=0) < 200).mean() == pytest.approx(0.75, abs=0.06)


def test_an_image_without_another_of_its_kind_has_no_partner():
    sample = replace(sample_of(5), content=("cat", "cat", "cat", "cat", "ship"))
    assert draw_partners(sample, seed=0).tolist() == [2, 3, 0, 1, -1]


def test_the_measures_and_their_order():
    assert list(MEASURES) == ["iou_top_10", "iou_top_20", "spearman", "pearson", "ssim", "centre_distance"]


def sample_of(n, *, right=None, seed=0):
    generator = np.random.default_rng(seed)
    return Sample(
        images=generator.integers(0, 256, (n, 8, 8, 3), dtype=np.uint8),
        is_fake=np.arange(n) % 2 == 1,
        content=tuple(("cat", "dog")[row // 2 % 2] for row in range(n)),
        ids=tuple(map(str, range(n))),
        is_right={"cnn": np.ones(n, dtype=bool), "vit": np.ones(n, dtype=bool) if right is None else right},
        stratum=np.zeros(n, dtype=np.intp),
        weight=np.ones(n),
    )


def maps_of(n, *, seed, model="vit", method="rollout"):
    heat = np.random.default_rng(seed).random((n, *GRID)).astype(np.float32)
    return MapSet(model, method, None, heat)


def means_of(pair, kind):
    return {name: kinds[kind]["value"] for name, kinds in pair["measures"].items()}


class TestAgreement:
    n = 40

    def study(self, trained, *, twins=(), right=None):
        blank = [
            maps_of(self.n, seed=90 + place, model=one.model, method=one.method) for place, one in enumerate(trained)
        ]
        return measure_agreement(trained, blank, twins, sample_of(self.n, right=right), samples=50, seed=0)

    def test_equal_maps_agree_fully_and_unrelated_maps_at_chance(self):
        same = maps_of(self.n, seed=1, method="relevance")
        equal = MapSet("vit", "rollout", None, same.heat)
        unrelated = maps_of(self.n, seed=2, model="cnn", method="grad_cam")
        study = self.study([same, equal, unrelated])
        by_names = {(pair["a"], pair["b"]): pair for pair in study["pairs"]}
        assert len(by_names) == 3
        full = means_of(by_names["vit relevance", "vit rollout"], "same_picture")
        assert full == pytest.approx(
            {"iou_top_10": 1, "iou_top_20": 1, "spearman": 1, "pearson": 1, "ssim": 1, "centre_distance": 0}
        )
        apart = by_names["vit relevance", "cnn grad_cam"]
        for name, chance in study["chance"].items():
            means = apart["measures"][name]
            assert means["same_picture"]["value"] == pytest.approx(chance, abs=0.05)
            assert means["above_shuffled"]["low"] < 0 < means["above_shuffled"]["high"]
            assert means["above_shuffled"]["p_value"] > 0.05

    def test_shuffling_removes_the_agreement_that_is_specific_to_an_image(self):
        """Agreement on a pattern common to all images survives; agreement specific to an image is lost."""
        common = np.random.default_rng(5).random(GRID)
        always = MapSet("vit", "rollout", None, np.repeat(common[None], self.n, axis=0).astype(np.float32))
        again = MapSet("cnn", "grad_cam", None, always.heat)
        own = maps_of(self.n, seed=1, method="relevance")
        echo = MapSet("cnn", "integrated_gradients", None, own.heat)
        by_names = {(pair["a"], pair["b"]): pair for pair in self.study([always, again, own, echo])["pairs"]}
        stuck, free = by_names["vit rollout", "cnn grad_cam"], by_names["vit relevance", "cnn integrated_gradients"]
        assert stuck["measures"]["spearman"]["shuffled"]["value"] == pytest.approx(1)
        assert free["measures"]["spearman"]["shuffled"]["value"] == pytest.approx(0, abs=0.1)
        assert free["measures"]["spearman"]["above_shuffled"]["value"] == pytest.approx(1, abs=0.1)

    def test_maps_that_show_no_more_than_label_and_content_agree_no_more_than_those_of_other_images(self):
        sample = sample_of(self.n)
        kinds = 2 * sample.is_fake + (np.array(sample.content) == "cat")
        patterns = np.random.default_rng(7).random((4, *GRID)).astype(np.float32)
        a, b = (MapSet(model, "grad_cam", None, patterns[kinds]) for model in ("vit", "cnn"))
        [pair] = self.study([a, b])["pairs"]
        gap = pair["measures"]["spearman"]["above_shuffled"]
        assert (gap["value"], gap["p_value"]) == (pytest.approx(0), 1)
        any_other = np.roll(np.arange(self.n), 1)  # partners of other kinds would suggest agreement on the image
        assert spearman(a.heat, b.heat).mean() - spearman(a.heat, b.heat[any_other]).mean() > 0.5

    def test_an_image_without_a_partner_is_undefined_in_the_control(self):
        a, b = maps_of(5, seed=1), maps_of(5, seed=2, model="cnn", method="grad_cam")
        sample = replace(sample_of(5), content=("cat", "cat", "cat", "cat", "ship"))
        [pair] = measure_agreement([a, b], [a, b], [], sample, samples=10)["pairs"]
        kinds = pair["measures"]["spearman"]
        assert {kind: kinds[kind]["n"] for kind in kinds} == {
            "same_picture": 5, "shuffled": 4, "random_weights": 5, "above_shuffled": 4,
        }  # fmt: skip

    def test_the_differences_of_key_pairs_are_corrected_together_over_the_targets(self):
        trained = [
            maps_of(self.n, seed=seed, model=model, method=method)
            for seed, (model, method) in enumerate([("cnn", "grad_cam"), ("vit", "relevance"), ("vit", "rollout")])
        ]
        right = np.arange(self.n) % 4 > 0
        by_target = {target: self.study(trained, right=right) for target in ("truth", "FAKE")}
        correct_agreement(by_target)
        family = [
            difference
            for study in by_target.values()
            for pair in study["pairs"][:2]  # the third is of one model and not a key pair
            for difference in (
                pair["measures"]["iou_top_20"]["above_shuffled"],
                pair["right_less_wrong"]["iou_top_20"],
            )
        ]
        assert [each["p_holm"] for each in family] == holm([each["p_value"] for each in family])
        assert "p_holm" not in by_target["truth"]["pairs"][2]["right_less_wrong"]["iou_top_20"]
        assert "p_holm" not in by_target["truth"]["pairs"][0]["right_less_wrong"]["spearman"]

    def test_agreement_is_split_by_correctness(self):
        right = np.arange(self.n) < 30
        a = maps_of(self.n, seed=1)
        b = maps_of(self.n, seed=2, model="cnn", method="grad_cam")
        b.heat[right] = a.heat[right]
        [pair] = self.study([a, b], right=right)["pairs"]
        assert pair["all_right"]["spearman"]["value"] == pytest.approx(1)
        assert (pair["all_right"]["spearman"]["n"], pair["some_wrong"]["spearman"]["n"]) == (30, 10)
        expected = 1 - spearman(a.heat[~right], b.heat[~right]).mean()
        assert pair["right_less_wrong"]["spearman"]["value"] == pytest.approx(expected)
        assert set(pair["by_content"]) == {"cat", "dog"}
        assert pair["by_label"]["REAL"]["spearman"]["n"] == self.n // 2

    def test_empty_maps_are_counted_as_undefined(self):
        a, b = maps_of(self.n, seed=1), maps_of(self.n, seed=2, model="cnn", method="grad_cam")
        b.heat[:7] = 0
        study = self.study([a, b])
        assert study["maps"]["cnn grad_cam"]["empty"] == 7
        agreed = study["pairs"][0]["measures"]["iou_top_20"]["same_picture"]
        assert (agreed["n"], agreed["undefined"]) == (self.n - 7, 7)
        assert agreed["value"] == pytest.approx(top_iou(a.heat[7:], b.heat[7:], share=0.2).mean())

    def test_the_ceiling_compares_with_another_training_seed(self):
        a, b = maps_of(self.n, seed=1), maps_of(self.n, seed=2, model="cnn", method="grad_cam")
        study = self.study([a, b], twins=[MapSet("vit", "rollout", None, a.heat)])
        assert study["ceiling"].keys() == {"vit rollout"}
        assert study["ceiling"]["vit rollout"]["spearman"]["value"] == pytest.approx(1)

    def test_finer_maps_are_averaged_to_the_common_grid(self):
        coarse = maps_of(self.n, seed=1)
        fine = MapSet("cnn", "grad_cam", None, coarse.heat.repeat(2, axis=1).repeat(2, axis=2))
        [pair] = self.study([coarse, fine])["pairs"]
        assert pair["measures"]["pearson"]["same_picture"]["value"] == pytest.approx(1)
        assert fine.to_dict()["native_grid"] == (16, 16)

    def test_results_are_plain_json_with_chance(self):
        study = self.study([maps_of(self.n, seed=1), maps_of(self.n, seed=2, model="cnn", method="grad_cam")])
        plain = json.loads(json.dumps(study, allow_nan=False))
        assert plain["chance"]["iou_top_20"] == chance_iou(64, share=0.2)
        assert plain == study
