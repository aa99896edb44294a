import numpy as np
import pytest
from datasets import Dataset, Features, Image, Value
from PIL import Image as Pillow

from realfake_hf.explain_study.maps import draw_sample


def split_of(labels, contents, *, side=8):
    """A split in the schema of `load_images`, each image in its own shade of grey."""
    grey = [Pillow.new("RGB", (side, side), (row, row, row)) for row in range(len(labels))]
    columns = {"image": grey, "label": labels, "content": contents, "id": [f"id{row}" for row in range(len(labels))]}
    kinds = {"image": Image(), "label": Value("int64"), "content": Value("string"), "id": Value("string")}
    return Dataset.from_dict(columns, features=Features(kinds))


class TestSample:
    labels, contents = [0] * 10 + [1] * 10, (["cat"] * 8 + ["dog"] * 2) * 2

    def draw(self, n, **settings):
        p_fake = {"vit": np.array([0.9] + [0.1] * 9 + [0.9] * 10)}  # wrong on the first
        return draw_sample(split_of(self.labels, self.contents), p_fake, n=n, seed=0, **settings)

    def test_it_is_as_balanced_between_strata_as_possible(self):
        sample = self.draw(9)
        assert sample.to_dict()["content"] == {"cat": 5, "dog": 4}
        assert (~sample.is_right["vit"]).sum() == 1  # the only wrong one is in
        assert sample.to_dict()["strata"] == 5

    def test_its_weights_sum_to_the_size_of_each_stratum(self):
        sample = self.draw(9)
        assert sample.weight.sum() == pytest.approx(20)
        cats = np.array([name == "cat" for name in sample.content])
        assert sample.weight[cats].sum() == pytest.approx(16)
        assert sample.weight[~sample.is_right["vit"]].tolist() == [1.0]

    def test_a_stratum_without_a_drawn_image_does_not_count(self):
        sample = self.draw(3)
        assert sample.weight.sum() < 20
        assert np.isfinite(sample.weight).all()

    def test_without_correctness_as_a_stratum_errors_are_as_rare_as_in_the_split(self):
        assert self.draw(8, by_verdict=False).to_dict()["strata"] == 4

    def test_images_and_labels_stay_together(self):
        sample = self.draw(9)
        rows = [int(name.removeprefix("id")) for name in sample.ids]
        assert sample.images[:, 0, 0, 0].tolist() == rows
        assert sample.is_fake.tolist() == [row >= 10 for row in rows]

    def test_another_seed_draws_other_images(self):
        rows, p_fake = split_of(self.labels, self.contents), {"vit": np.full(20, 0.1)}
        one, same, other = (draw_sample(rows, p_fake, n=6, seed=seed).ids for seed in (0, 0, 1))
        assert one == same
        assert one != other

    def test_its_bootstrap_draws_each_stratum_as_often_as_the_sample_has_it_and_weighs_it(self):
        sample = self.draw(9)
        heights = np.random.default_rng(0).normal(size=20)[sample.stratum]  # constant in each stratum
        mean = sample.resampling(samples=200, seed=0).mean(heights)
        assert mean.value == pytest.approx(np.average(heights, weights=sample.weight))
        assert mean.value != pytest.approx(heights.mean())
        assert (mean.low, mean.high) == pytest.approx((mean.value, mean.value))  # no spread between strata

    def test_the_label_that_a_map_explains_is_the_true_the_predicted_or_the_named_one(self):
        sample = self.draw(20)
        explained = {name: sample.is_target_fake(name, model="vit") for name in ("truth", "predicted", "FAKE", "REAL")}
        assert explained["truth"].tolist() == [False] * 10 + [True] * 10
        assert explained["predicted"].tolist() == [True] + [False] * 9 + [True] * 10  # wrong on the first
        assert explained["FAKE"].all()
        assert not explained["REAL"].any()

    def test_images_of_several_sizes_are_refused(self):
        rows = split_of([0, 1], ["cat", "cat"])
        mixed = [rows[0], {**rows[1], "image": Pillow.new("RGB", (9, 8))}]
        with pytest.raises(ValueError, match=r"images of one size.*found 8 x 8, 9 x 8"):
            draw_sample(Dataset.from_list(mixed, features=rows.features), {"vit": np.zeros(2)}, n=2, seed=0)
