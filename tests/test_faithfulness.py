import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from study_models import is_plain_json, noise, plain_and_striped, stripe_finder, tiny_vit

from realfake_hf.explain_study import fidelity, occlusion
from realfake_hf.explain_study.faithfulness import measure_faithfulness, trace
from realfake_hf.explain_study.fidelity import Hardened
from realfake_hf.explain_study.imputation import impute
from realfake_hf.explain_study.occlusion import filled
from realfake_hf.explain_study.trials import FILLS, Trial, order_of, summarize
from realfake_hf.metrics.intervals import Resampling
from realfake_hf.metrics.significance import holm

GRID = (4, 4)


def images(n=5, height=8, width=12):
    return np.random.default_rng(0).integers(0, 256, (n, height, width, 3), dtype=np.uint8)


def random_order(n, cells, *, seed):
    return order_of(np.zeros((n, 1, cells)), seed=seed)


def mean_red(given):
    return given[..., 0].mean(axis=(1, 2)) / 255


def start(fill="mean", score=mean_red, **size):
    return Trial(images(**size), score=score, fill=fill)


def of_one_corner(given):
    """Score an image by the amount of black and white stripes in its first cell."""
    return np.clip(given[:, :2, :3].std(axis=(1, 2, 3)) / 120, 0, 1)


def striped():
    made = np.full((6, 8, 12, 3), 128, dtype=np.uint8)
    made[:, :2, :3] = np.array([0, 255, 0])[None, :, None]
    return made


@pytest.mark.parametrize("fill", occlusion.FILLS)
@pytest.mark.parametrize("steps", [1, 3, 16])
def test_curves_equal_those_of_hiding_cell_by_cell(fill, steps):
    """Compare with loops over images, steps and cells."""
    orders = random_order(5, 16, seed=1)
    curves = trace(start(fill), orders, grid=GRID, steps=steps)
    for row, (image, order) in enumerate(zip(images(), orders.tolist(), strict=True)):
        ground = filled(image[None], fill=fill)[0]
        turn = 1 if mean_red(image[None])[0] > 0.5 else -1
        for step in range(steps + 1):
            gone, back = image.copy(), ground.copy()
            for cell in order[: round(step * 16 / steps)]:
                place = np.s_[cell // 4 * 2 : cell // 4 * 2 + 2, cell % 4 * 3 : cell % 4 * 3 + 3]
                gone[place], back[place] = ground[place], image[place]
            for found, made in ((curves.deletion, gone), (curves.insertion, back)):
                assert turn * (found[row, step] - 0.5) == pytest.approx(mean_red(made[None])[0] - 0.5)


def test_the_linear_fill_imputes_the_hidden_cells():
    orders, trial = random_order(5, 16, seed=1), Trial(images(), score=mean_red, fill="linear", seed=3)
    curves = trace(trial, orders, grid=GRID, steps=2)
    hidden = (orders.argsort(axis=1) < 8).reshape(5, *GRID).repeat(2, axis=1).repeat(3, axis=2)
    scores = [mean_red(impute(images(), mask, seed=3)) for mask in (hidden, ~hidden, np.ones_like(hidden))]
    expected = [np.where(trial.called_fake, score, 1 - score) for score in scores]
    np.testing.assert_allclose([curves.deletion[:, 1], curves.insertion[:, 1], curves.deletion[:, 2]], expected)


@pytest.mark.parametrize("fill", FILLS)
@pytest.mark.parametrize("steps", [2, 8])
def test_insertion_is_deletion_in_reverse_order_read_backward(steps, fill):
    orders = random_order(5, 16, seed=1)
    there = trace(start(fill), orders, grid=GRID, steps=steps)
    back = trace(start(fill), orders[:, ::-1], grid=GRID, steps=steps)
    np.testing.assert_allclose(there.insertion, back.deletion[:, ::-1])
    np.testing.assert_allclose(there.areas["insertion"], back.areas["deletion"])


def test_areas_follow_the_trapezoid_rule():
    curves = trace(start(), random_order(5, 16, seed=1), grid=GRID, steps=1)
    halfway = (curves.deletion[:, 0] + curves.deletion[:, 1]) / 2
    np.testing.assert_allclose(list(curves.areas.values()), [halfway, halfway])


def test_ends_are_scored_once_for_all_orders():
    asked = []

    def score(given):
        asked.append(len(given))
        return mean_red(given)

    trial = start(score=score)
    assert asked == [5, 5]
    for seed in range(3):
        trace(trial, random_order(5, 16, seed=seed), grid=GRID, steps=4)
    assert asked == [5] * (2 + 3 * 2 * 3)


def test_a_map_of_the_evidence_beats_random_order_and_random_order_beats_its_inverse():
    trial = Trial(striped(), score=of_one_corner, fill="mean")
    evidence = np.zeros((6, *GRID))
    evidence[:, 0, 0] = 1
    best, chance, worst = (
        trace(trial, orders, grid=GRID, steps=8)
        for orders in (order_of(evidence, seed=0), random_order(6, 16, seed=0), order_of(-evidence, seed=0))
    )
    deletion, insertion = ([each.areas[name].mean() for each in (best, chance, worst)] for name in best.areas)
    assert deletion == sorted(deletion)
    assert insertion == sorted(insertion, reverse=True)
    assert (best.deletion[:, 1] < 0.2).all()


def test_curves_follow_the_verdict_on_the_intact_image():
    trial = start()
    curves = trace(trial, random_order(5, 16, seed=0), grid=GRID, steps=4)
    assert trial.called_fake.any()
    assert not trial.called_fake.all()
    assert (curves.deletion[:, 0] >= 0.5).all()
    np.testing.assert_allclose(curves.deletion[:, 0], curves.insertion[:, -1])


@given(st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=4, max_size=9), st.integers(0, 9))
def test_an_order_contains_every_cell_once_in_descending_order(cells, seed):
    heat = np.array(cells).reshape(1, 1, -1)
    [order] = order_of(heat, seed=seed)
    assert sorted(order.tolist()) == list(range(len(cells)))
    assert (np.diff(heat.ravel()[order]) <= 0).all()


def test_ties_are_broken_at_random_and_reproducibly():
    first = order_of(np.zeros((2000, 2, 2)), seed=0)
    np.testing.assert_allclose(np.bincount(first[:, 0]) / 2000, 0.25, atol=0.04)
    assert (first == order_of(np.zeros((2000, 2, 2)), seed=0)).all()
    assert (first != order_of(np.zeros((2000, 2, 2)), seed=1)).any()


def test_summaries_are_paired_differences_to_both_references():
    rng = np.random.default_rng(0)
    scores = {name: {"deletion": rng.random(9)} for name in ("random order", "centre prior", "grad_cam")}
    scores["grad_cam"]["deletion"][4] = np.nan
    found = summarize(scores, Resampling(np.ones(9), samples=20))
    assert found["random order"].keys() == {"deletion"}
    assert found["centre prior"].keys() == {"deletion", "deletion_less_random"}
    others, known = found["grad_cam"], np.arange(9) != 4
    for short, name in (("random", "random order"), ("centre", "centre prior")):
        gap = (scores["grad_cam"]["deletion"] - scores[name]["deletion"])[known].mean()
        assert others[f"deletion_less_{short}"].value == pytest.approx(gap)
        assert (others[f"deletion_less_{short}"].n, others[f"deletion_less_{short}"].undefined) == (8, 1)


def study(n=24, **settings):
    sample = plain_and_striped(n, where=np.s_[4:20, 16:32])
    return measure_faithfulness([stripe_finder()], sample, samples=50, **settings)


@pytest.fixture(scope="module")
def found():
    return study()


class TestFaithfulness:
    @pytest.mark.parametrize("fill", FILLS)
    def test_a_map_of_the_evidence_beats_random_order_in_both_tests(self, found, fill):
        order = found["models"]["cnn"][fill]["grad_cam"]
        assert order["deletion_less_random"]["high"] < -0.1
        assert order["insertion_less_random"]["low"] > 0.1
        assert order["deletion_less_random"]["p_holm"] >= order["deletion_less_random"]["p_value"] > 0
        assert order["deletion_less_random"]["n"] == 12  # the images that have a map

    def test_differences_to_each_reference_are_corrected_by_themselves(self, found):
        for baseline, n_tests in (("random", 2 * 2 * 3), ("centre", 2 * 3)):
            gaps = [
                order[f"{test}_less_{baseline}"]
                for by_name in found["models"]["cnn"].values()
                for order in by_name.values()
                for test in ("deletion", "insertion")
                if f"{test}_less_{baseline}" in order
            ]
            p_values = [gap["p_value"] for gap in gaps]
            assert len(p_values) == n_tests
            assert [gap["p_holm"] for gap in gaps] == pytest.approx(holm(p_values))

    def test_images_with_an_empty_map_are_counted(self, found):
        orders = found["models"]["cnn"]["mean"]
        grad_cam, centre = (orders[name]["deletion"] for name in ("grad_cam", "centre prior"))
        assert (grad_cam["n"], grad_cam["undefined"]) == (12, 12)  # plain images have no map
        assert (centre["n"], centre["undefined"]) == (24, 0)

    def test_curves_of_all_orders_have_the_same_ends(self):
        vit = tiny_vit("rollout", "relevance", "grad_cam", "integrated_gradients")
        for by_name in measure_faithfulness([vit], noise(), samples=0)["models"]["vit"].values():
            assert list(by_name) == ["random order", "centre prior", *vit.methods]
            ends = [
                [
                    *(order["deletion_curve"][end] for end in (0, -1)),
                    *(order["insertion_curve"][end] for end in (-1, 0)),
                ]
                for order in by_name.values()
            ]
            np.testing.assert_allclose(ends, [ends[0]] * 6)
            assert ends[0][0] == ends[0][2] >= 0.5

    def test_random_order_is_symmetric_and_has_no_difference_to_itself(self, found):
        order = found["models"]["cnn"]["blur"]["random order"]
        assert order["insertion_curve"] == pytest.approx(order["deletion_curve"][::-1])
        assert not {"deletion_less_random", "insertion_less_random"} & order.keys()

    def test_a_fine_tuned_copy_of_a_model_adds_two_tests(self, found, monkeypatch):
        monkeypatch.setattr(fidelity, "DRAWS", 2)
        both = study(hardened=[Hardened(stripe_finder(), 0.5)])
        tests = [f"{test}, {fill}" for test in ("deletion", "insertion") for fill in FILLS]
        assert list(found["rankings"]["cnn"]["ranks"]) == tests
        assert list(both["rankings"]["cnn"]["ranks"]) == [*tests, "Fid+", "Fid-"]
        assert found["fidelity"] == {}
        assert both["models"] == found["models"]
        assert both["rankings"]["cnn"]["ranks"]["Fid+"]["grad_cam"]["n"] == 12
        orders = both["fidelity"]["cnn"]["orders"]
        assert orders["grad_cam"]["difference_less_random"]["p_holm"] is not None
        assert orders["grad_cam"]["difference_less_random"]["low"] > 0
        assert is_plain_json(both)

    def test_the_same_seed_gives_the_same_numbers(self):
        first, same, other = (study(n=6, seed=seed) for seed in (1, 1, 2))
        assert first == same
        assert first != other
        assert is_plain_json(first)
