import json
import re

import numpy as np
import pytest
from datasets import Dataset, Features, Image, Value
from PIL import Image as Pillow

from realfake_hf.estimate import to_plain
from realfake_hf.explain_study.agreement import GRID, measure_agreement
from realfake_hf.explain_study.arguments import StudyArguments
from realfake_hf.explain_study.map_agreement import chance_iou, spearman, top_iou
from realfake_hf.explain_study.maps import MapSet
from realfake_hf.explain_study.sample import Sample, draw_sample
from realfake_hf.explain_study.shown import choose_shown
from realfake_hf.explain_study.store import Store

SIDE = 8


def split_of(labels, contents, *, side=SIDE):
    """A split in the schema of `load_images`, each picture of one grey."""
    grey = [Pillow.new("RGB", (side, side), (row, row, row)) for row in range(len(labels))]
    columns = {"image": grey, "label": labels, "content": contents, "id": [f"id{row}" for row in range(len(labels))]}
    kinds = {"image": Image(), "label": Value("int64"), "content": Value("string"), "id": Value("string")}
    return Dataset.from_dict(columns, features=Features(kinds))


def sample_of(n, *, right=None, seed=0):
    generator = np.random.default_rng(seed)
    return Sample(
        pictures=generator.integers(0, 256, (n, SIDE, SIDE, 3), dtype=np.uint8),
        is_fake=np.arange(n) % 2 == 1,
        content=tuple(("cat", "dog")[row // 2 % 2] for row in range(n)),
        ids=tuple(map(str, range(n))),
        is_right={"cnn": np.ones(n, dtype=bool), "vit": np.ones(n, dtype=bool) if right is None else right},
        stratum=np.zeros(n, dtype=np.intp),
        weight=np.ones(n),
    )


def maps_of(n, *, seed, model="vit", method="rollout"):
    heat = np.random.default_rng(seed).random((n, *GRID)).astype(np.float32)
    return MapSet(model, method, {}, None, heat)


def means_of(values):
    return {name: mean.value for name, mean in values.items()}


class TestSample:
    labels, contents = [0] * 10 + [1] * 10, (["cat"] * 8 + ["dog"] * 2) * 2

    def draw(self, n, **settings):
        p_fake = {"vit": np.array([0.9] + [0.1] * 9 + [0.9] * 10)}  # wrong on the first
        return draw_sample(split_of(self.labels, self.contents), p_fake, n=n, seed=0, **settings)

    def test_it_takes_as_many_of_each_stratum_as_can_be(self):
        sample = self.draw(9)
        assert sample.to_dict()["content"] == {"cat": 5, "dog": 4}
        assert (~sample.is_right["vit"]).sum() == 1  # the only wrong one is in
        assert sample.to_dict()["strata"] == 5

    def test_its_weights_add_up_to_the_split_in_each_stratum(self):
        sample = self.draw(9)
        assert sample.weight.sum() == pytest.approx(20)
        cats = np.array([name == "cat" for name in sample.content])
        assert sample.weight[cats].sum() == pytest.approx(16)
        assert sample.weight[~sample.is_right["vit"]].tolist() == [1.0]

    def test_a_sample_of_a_sample_stands_for_the_same_split(self):
        part = self.draw(15).take(6)
        assert len(part) == 6
        assert part.weight.sum() == pytest.approx(20)

    def test_without_verdicts_errors_are_as_rare_as_in_the_split(self):
        assert self.draw(8, by_verdict=False).to_dict()["strata"] == 4

    def test_pictures_and_truth_stay_together(self):
        sample = self.draw(9)
        rows = [int(name.removeprefix("id")) for name in sample.ids]
        assert sample.pictures[:, 0, 0, 0].tolist() == rows
        assert sample.is_fake.tolist() == [row >= 10 for row in rows]

    def test_another_seed_draws_other_pictures(self):
        rows, p_fake = split_of(self.labels, self.contents), {"vit": np.full(20, 0.1)}
        one, same, other = (draw_sample(rows, p_fake, n=6, seed=seed).ids for seed in (0, 0, 1))
        assert one == same
        assert one != other

    def test_pictures_of_several_sizes_are_refused(self):
        rows = split_of([0, 1], ["cat", "cat"])
        mixed = [rows[0], {**rows[1], "image": Pillow.new("RGB", (9, 8))}]
        with pytest.raises(
            ValueError, match=r"wanted pictures of one size.*; found 8 x 8, 9 x 8\. Resize the data set"
        ):
            draw_sample(Dataset.from_list(mixed, features=rows.features), {"vit": np.zeros(2)}, n=2, seed=0)


class TestAgreement:
    n = 40

    def study(self, trained, *, twins=(), right=None):
        blank = [
            maps_of(self.n, seed=90 + place, model=one.model, method=one.method) for place, one in enumerate(trained)
        ]
        return measure_agreement(trained, blank, twins, sample_of(self.n, right=right), samples=50, seed=0)

    def test_equal_maps_agree_fully_and_unrelated_ones_as_chance_has_it(self):
        same = maps_of(self.n, seed=1, method="relevance")
        equal = MapSet("vit", "rollout", {}, None, same.heat)
        unrelated = maps_of(self.n, seed=2, model="cnn", method="grad_cam")
        study = self.study([same, equal, unrelated])
        by_names = {(pair.a, pair.b): pair for pair in study.pairs}
        assert len(by_names) == 3
        full = means_of(by_names["vit relevance", "vit rollout"].same_picture)
        assert full == pytest.approx(
            {"iou_top_10": 1, "iou_top_20": 1, "spearman": 1, "pearson": 1, "ssim": 1, "centre_distance": 0}
        )
        apart = by_names["vit relevance", "cnn grad_cam"]
        for name, chance in study.chance.items():
            assert apart.same_picture[name].value == pytest.approx(chance, abs=0.05)
            assert apart.above_shuffled[name].low < 0 < apart.above_shuffled[name].high

    def test_shuffling_takes_away_what_belongs_to_the_picture(self):
        """Maps that share what every picture has keep their agreement; those that share the picture's own lose it."""
        common = np.random.default_rng(5).random(GRID)
        always = MapSet("vit", "rollout", {}, None, np.repeat(common[None], self.n, axis=0).astype(np.float32))
        again = MapSet("cnn", "grad_cam", {}, None, always.heat)
        own = maps_of(self.n, seed=1, method="relevance")
        echo = MapSet("cnn", "integrated_gradients", {}, None, own.heat)
        by_names = {(pair.a, pair.b): pair for pair in self.study([always, again, own, echo]).pairs}
        stuck, free = by_names["vit rollout", "cnn grad_cam"], by_names["vit relevance", "cnn integrated_gradients"]
        assert stuck.shuffled["spearman"].value == pytest.approx(1)
        assert free.shuffled["spearman"].value == pytest.approx(0, abs=0.1)
        assert free.above_shuffled["spearman"].value == pytest.approx(1, abs=0.1)

    def test_right_and_wrong_verdicts_are_told_apart(self):
        right = np.arange(self.n) < 30
        a = maps_of(self.n, seed=1)
        b = maps_of(self.n, seed=2, model="cnn", method="grad_cam")
        b.heat[right] = a.heat[right]
        [pair] = self.study([a, b], right=right).pairs
        assert pair.all_right["spearman"].value == pytest.approx(1)
        assert (pair.all_right["spearman"].n, pair.some_wrong["spearman"].n) == (30, 10)
        expected = 1 - spearman(a.heat[~right], b.heat[~right]).mean()
        assert pair.right_less_wrong["spearman"].value == pytest.approx(expected)
        assert set(pair.by_content) == {"cat", "dog"}
        assert pair.by_label["REAL"]["spearman"].n == self.n // 2

    def test_empty_maps_are_counted_and_agree_with_nothing(self):
        a, b = maps_of(self.n, seed=1), maps_of(self.n, seed=2, model="cnn", method="grad_cam")
        b.heat[:7] = 0
        study = self.study([a, b])
        assert study.maps["cnn grad_cam"]["empty"] == 7
        agreed = study.pairs[0].same_picture["iou_top_20"]
        assert (agreed.n, agreed.undefined) == (self.n - 7, 7)
        assert agreed.value == pytest.approx(top_iou(a.heat[7:], b.heat[7:], share=0.2).mean())

    def test_the_ceiling_is_the_same_method_of_another_seed(self):
        a, b = maps_of(self.n, seed=1), maps_of(self.n, seed=2, model="cnn", method="grad_cam")
        study = self.study([a, b], twins=[MapSet("vit", "rollout", {}, None, a.heat)])
        assert study.ceiling.keys() == {"vit rollout"}
        assert study.ceiling["vit rollout"]["spearman"].value == pytest.approx(1)

    def test_finer_maps_are_averaged_to_the_common_grid(self):
        coarse = maps_of(self.n, seed=1)
        fine = MapSet("cnn", "grad_cam", {}, None, coarse.heat.repeat(2, axis=1).repeat(2, axis=2))
        [pair] = self.study([coarse, fine]).pairs
        assert pair.same_picture["pearson"].value == pytest.approx(1)
        assert fine.to_dict()["native_grid"] == [16, 16]

    def test_it_becomes_plain_json_with_chance_beside_it(self):
        study = self.study([maps_of(self.n, seed=1), maps_of(self.n, seed=2, model="cnn", method="grad_cam")])
        plain = json.loads(json.dumps(study.to_dict(), allow_nan=False))
        assert plain["chance"]["iou_top_20"] == chance_iou(64, share=0.2)
        pair = plain["pairs"][0]
        assert pair["measures"]["spearman"]["same_picture"] == to_plain(study.pairs[0].same_picture["spearman"])


class TestStore:
    def test_what_is_done_is_not_done_again(self, tmp_path):
        made = []
        for _ in range(2):
            store = Store(tmp_path / "study", {"n": 3})
            part = store.part("agreement", lambda: made.append("part") or {"x": [1.5]})
            scores = store.array("verdicts", lambda: made.append("array") or np.arange(3.0))
            maps = store.maps("maps", lambda: made.append("maps") or maps_of(2, seed=0))
        assert made == ["part", "array", "maps"]
        assert part == {"x": [1.5]}
        assert store.seconds["agreement"] >= 0
        assert scores.tolist() == [0, 1, 2]
        np.testing.assert_array_equal(maps.heat, maps_of(2, seed=0).heat)

    def test_the_options_of_maps_come_back_as_they_were(self, tmp_path):
        maps = MapSet("vit", "integrated_gradients", {"grid": (8, 8), "steps": 16}, None, maps_of(2, seed=0).heat)
        for _ in range(2):
            kept = Store(tmp_path / "study", {}).maps("maps", lambda: maps)
            assert (kept.name, kept.options, kept.layer) == (maps.name, maps.options, None)

    def test_an_interrupted_part_leaves_nothing_half_done(self, tmp_path):
        store = Store(tmp_path / "study", {})

        def interrupted():
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            store.array("verdicts", interrupted)
        assert store.array("verdicts", lambda: np.ones(1)).tolist() == [1]

    def test_another_study_is_not_mixed_in(self, tmp_path):
        Store(tmp_path / "study", {"n": 3, "seed": 0})
        with pytest.raises(
            ValueError, match=r"wanted the settings of the study in .*; found other values of n\. Give"
        ):
            Store(tmp_path / "study", {"n": 4, "seed": 0})

    def test_a_folder_in_use_is_refused(self, tmp_path):
        (tmp_path / "letter.txt").write_text("dear")
        with pytest.raises(
            ValueError,
            match="an interrupted study; found other files in",
        ):
            Store(tmp_path, {})


class TestArguments:
    def test_models_and_twins_have_names(self):
        arguments = StudyArguments("out", compare=["cnn=a", "vit=b"], twins=["vit=c"])
        assert (arguments.models, arguments.twin_places) == ({"cnn": "a", "vit": "b"}, {"vit": "c"})

    @pytest.mark.parametrize(
        ("settings", "sentence"),
        [
            ({"compare": []}, "wanted --compare NAME=MODEL, for one model or more; found none."),
            ({"compare": ["a"]}, "wanted --compare NAME=MODEL, names of letters and digits; found 'a'."),
            ({"compare": ["a=x", "a=y"]}, "wanted a name of its own for each of --compare; found a, a."),
            ({"twins": ["b=x"]}, "wanted --twins of a; found b."),
            ({"parts": ["all"]}, "wanted --parts of agreement, faithfulness, sanity, planted, causal; found all."),
            ({"n": 1}, "wanted at least 2 pictures in each part; found --n 1."),
            ({"bootstrap_samples": 0}, "wanted --bootstrap_samples of at least 1 and --gallery of at least 0"),
        ],
    )
    def test_bad_settings_are_named(self, settings, sentence):
        with pytest.raises(ValueError, match=re.escape(sentence)):
            StudyArguments("out", **{"compare": ["a=x"], **settings})


def test_the_gallery_shows_right_and_wrong_verdicts_of_both_labels():
    right = np.ones(20, dtype=bool)
    right[[0, 1]] = False  # one REAL, one FAKE
    sample = sample_of(20, right=right)
    p_fake = {"vit": {name: float(name) / 100 for name in sample.ids}}
    shown = choose_shown(sample, p_fake, [maps_of(20, seed=0)], n=6)
    assert [one.p_fake["vit"] for one in shown] == [0, 0.01, 0.02, 0.03, 0.04, 0.05]
    np.testing.assert_array_equal(shown[3].heats["vit rollout"], maps_of(20, seed=0).heat[3])
