"""Faithfulness, sanity and planted evidence, on a CNN that sees nothing but stripes and on random models."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessorPil

from realfake_hf import CifakeCnnConfig, CifakeCnnForImageClassification
from realfake_hf.detector import Detector
from realfake_hf.explain_study.faithfulness import measure_faithfulness
from realfake_hf.explain_study.grid import maps_on_grid
from realfake_hf.explain_study.pointing_game import KINDS, measure_planted
from realfake_hf.explain_study.sample import Sample
from realfake_hf.explain_study.sanity import measure_sanity
from realfake_hf.explain_study.subjects import Subject, fitting_methods
from realfake_hf.labels import id2label, label2id


def subject_of(name, model, methods=None):
    detector = Detector(model, ViTImageProcessorPil(size={"height": 32, "width": 32}))
    return Subject(name=name, place=name, detector=detector, methods=methods or fitting_methods(detector))


def stripe_finder():
    """It calls a picture FAKE by how much of it is upright stripes; plain areas of any colour leave it at 0.05."""
    model = CifakeCnnForImageClassification(CifakeCnnConfig(num_filters=1, num_conv_layers=1, num_dense_layers=0))
    with torch.no_grad():
        model.features[0].weight.zero_()
        model.features[0].weight[0, :, 1] = torch.tensor([-0.25, 0.5, -0.25])
        model.features[0].bias.fill_(-1.0)
        model.output.weight.fill_(8 / 256)
        model.output.bias.fill_(-3.0)
    return subject_of("cnn", model, ("grad_cam",))


def tiny_vit():
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 16}
    words = {"id2label": id2label(), "label2id": label2id()}
    model = ViTForImageClassification(ViTConfig(image_size=32, patch_size=8, **shape, **words))
    for weight in model.parameters():
        weight.data += 0.2 * torch.randn_like(weight)
    return subject_of("vit", model)


def sample_of(pictures, is_fake, *, right=True, content="cat"):
    n = len(pictures)
    names = (content,) * n if isinstance(content, str) else tuple(content)
    return Sample(
        pictures=pictures,
        is_fake=np.asarray(is_fake),
        content=names,
        ids=tuple(map(str, range(n))),
        is_right={name: np.broadcast_to(right, n) for name in ("cnn", "vit")},
        stratum=np.asarray(is_fake, dtype=np.intp),
        weight=np.ones(n),
    )


def plain_and_striped(n=24, *, where=np.s_[:, :]):
    """Half of the pictures are plain grey, REAL; the others have stripes in some place, FAKE."""
    pictures = np.full((n, 32, 32, 3), 128, dtype=np.uint8)
    is_fake = np.arange(n) % 2 == 1
    striped = np.broadcast_to(np.array([0, 255] * 16, dtype=np.uint8)[:, None], (32, 32, 3))
    for row in np.flatnonzero(is_fake):
        pictures[row][where] = striped[where]
    return sample_of(pictures, is_fake)


def noise(n=6):
    return sample_of(np.random.default_rng(0).integers(0, 256, (n, 32, 32, 3), dtype=np.uint8), np.arange(n) % 2 == 1)


def is_plain_json(study):
    return json.loads(json.dumps(study.to_dict(), allow_nan=False)) == study.to_dict()


class TestFaithfulness:
    corner = np.s_[4:20, 16:32]

    def study(self, **settings):
        sample = plain_and_striped(where=self.corner)
        return measure_faithfulness([stripe_finder()], sample, n=24, samples=50, **settings)

    @pytest.mark.parametrize("fill", ["blur", "mean"])
    def test_a_map_of_the_evidence_beats_a_random_order_both_ways(self, fill):
        found = self.study().models["cnn"][fill]["grad_cam"]
        assert found.deletion_less_random.high < -0.1
        assert found.insertion_less_random.low > 0.1
        assert found.deletion_less_random.n == 12  # the pictures that have a map

    def test_pictures_whose_map_is_empty_are_counted(self):
        found = self.study().models["cnn"]["mean"]
        assert (found["grad_cam"].deletion.n, found["grad_cam"].deletion.undefined) == (12, 12)  # plain ones
        assert (found["centre prior"].deletion.n, found["centre prior"].deletion.undefined) == (24, 0)

    def test_curves_of_all_orders_have_the_same_ends(self):
        for by_name in measure_faithfulness([tiny_vit()], noise(), n=6, samples=0, steps=2).models["vit"].values():
            assert len(by_name) == 2 + 6
            ends = [
                [one.deletion_curve[0], one.deletion_curve[-1], one.insertion_curve[-1], one.insertion_curve[0]]
                for one in by_name.values()
            ]
            np.testing.assert_allclose(ends, [ends[0]] * 8)
            assert ends[0][0] == ends[0][2] >= 0.5

    def test_random_order_has_no_direction_and_no_difference_to_itself(self):
        found = self.study().to_dict()["models"]["cnn"]["blur"]["random order"]
        assert found["insertion_curve"] == pytest.approx(found["deletion_curve"][::-1])
        assert not {"deletion_less_random", "insertion_less_random"} & found.keys()

    def test_the_same_seed_gives_the_same_numbers(self):
        first, same, other = (self.study(seed=seed, steps=2) for seed in (1, 1, 2))
        assert first == same
        assert first != other
        assert is_plain_json(first)

    def test_without_a_random_order_there_is_nothing_to_compare_with(self):
        with pytest.raises(ValueError, match=r"wanted one random order or more, to compare with; found 0\."):
            self.study(random_orders=0)


class TestSanity:
    def study(self, subject=None, **settings):
        return measure_sanity([subject or tiny_vit()], noise(), n=6, samples=20, **settings)

    def test_attention_alone_does_not_see_the_classifier(self):
        found = self.study().models["vit"]
        assert found.stages[0] == "head"
        assert found.stages[-1] == "embeddings"
        for method in ("rollout", "last_attention"):
            first, *later = found.methods[method]
            assert first.value == pytest.approx(1, abs=1e-12)
            assert later[-1].value < 0.9
        assert found.methods["relevance"][0].value < 0.99

    def test_every_method_has_a_mean_a_stage(self):
        study = self.study(most_stages=3)
        found = study.models["vit"]
        assert {len(means) for means in found.methods.values()} == {len(found.stages)} == {3}
        assert all(mean.n + mean.undefined == 6 for means in found.methods.values() for mean in means)
        assert study.class_methods == ("grad_cam", "gradient_rollout", "relevance")
        assert is_plain_json(study)

    def test_empty_maps_have_no_correlation_and_are_counted(self):
        silent = measure_sanity([stripe_finder()], plain_and_striped(8), n=8, samples=0)
        [head, _] = silent.models["cnn"].methods["grad_cam"]
        assert (head.n, head.undefined) in ((4, 4), (0, 8))  # plain pictures, and all where the new head says REAL

    def test_the_model_is_left_as_it_was_and_the_same_seed_gives_the_same_numbers(self):
        subject = tiny_vit_of("rollout", "relevance")
        before = subject.detector.digest()
        first = self.study(subject, seed=1)
        assert subject.detector.digest() == before
        assert first == self.study(subject, seed=1)
        assert first != self.study(subject, seed=2)


class TestPlanted:
    def study(self, sample=None, subject=None, *, n=10, **settings):
        return measure_planted(
            [subject or stripe_finder()], sample or plain_and_striped(), n=n, samples=20, **settings
        )

    def test_a_faithful_map_finds_what_is_planted(self):
        found = self.study().models["cnn"]["fake in real"]
        assert (found.n, found.target) == (10, "FAKE")
        assert found.p_fake_moved.value > 0.5
        assert found.methods["grad_cam"].hits.value == 1
        assert found.methods["grad_cam"].mass.value > 0.95
        assert found.methods["grad_cam"].mass_before.undefined == 10  # plain pictures have no map
        assert found.methods["grad_cam"].mass_gain.value is None

    def test_a_plain_quadrant_in_a_plain_picture_moves_nothing_and_has_no_map(self):
        found = self.study().models["cnn"]["real in real"]
        assert found.p_fake_moved.value == 0
        assert found.methods["grad_cam"].hits.value is None
        assert found.methods["grad_cam"].hits.undefined == 10

    def test_a_real_quadrant_in_a_fake_takes_evidence_away(self):
        found = self.study().models["cnn"]["real in fake"]
        assert found.target == "REAL"
        assert found.p_fake_moved.value < 0

    def test_maps_that_know_nothing_of_the_quadrant_hit_as_chance_has_it(self):
        sample = sample_of(np.repeat(noise(2).pictures, 200, axis=0), np.arange(400) >= 200)
        found = self.study(sample, tiny_vit_of("rollout"), n=100).models["vit"]["real in real"]
        row = found.methods["rollout"]
        assert row.mass_gain.value == pytest.approx(0, abs=1e-9)  # all hosts and donors are one picture
        assert (row.hits.value, row.mass.value) == pytest.approx((0.25, 0.25))

    def test_hosts_and_donors_are_of_one_content_and_of_the_right_labels(self):
        marks = np.arange(24, dtype=np.uint8)
        pictures = np.broadcast_to(marks[:, None, None, None], (24, 32, 32, 3)).copy()
        content = np.array(["cat", "dog", "ship"])[np.arange(24) // 2 % 3]
        right = np.arange(24) > 3
        sample = sample_of(pictures, np.arange(24) % 2 == 1, right=right, content=content)
        seen = []

        class Watched(Subject):
            def probabilities(self, given):
                seen.append([np.unique(picture) for picture in given])
                return super().probabilities(given)

        watched = Watched(**vars(tiny_vit_of("rollout")))
        study = self.study(sample, watched, n=6)
        for place, kind in enumerate(KINDS.values()):
            planted, hosts = seen[2 * place : 2 * place + 2]
            assert study.models["vit"][list(KINDS)[place]].n == len(planted) == 6
            assert (
                sorted(content[[host.item() for host in hosts]].tolist()) == ["cat"] * 2 + ["dog"] * 2 + ["ship"] * 2
            )
            for both, [host] in zip(planted, hosts, strict=True):
                [donor] = set(both.tolist()) - {host}
                assert content[host] == content[donor]
                assert right[host]
                assert right[donor]
                assert (kind.host == "FAKE") == sample.is_fake[host]
                assert (kind.donor == "FAKE") == sample.is_fake[donor]

    def test_the_same_seed_gives_the_same_numbers(self):
        first, same, other = (self.study(noise(12), tiny_vit_of("relevance"), seed=seed) for seed in (1, 1, 2))
        assert first == same
        assert first != other
        assert is_plain_json(first)

    def test_no_pairs_are_refused_before_anything_is_explained(self):
        sample = replace(plain_and_striped(4), content=("cat", "dog", "ship", "frog"))
        with pytest.raises(
            ValueError,
            match=r"wanted pictures of the same content that cnn calls rightly, a REAL one to plant a FAKE one in; "
            r"found none\. Draw a larger sample\.",
        ):
            self.study(sample)


def tiny_vit_of(*methods):
    return replace(tiny_vit(), methods=methods)


def test_maps_on_the_grid_are_averaged_and_empty_ones_are_nan():
    sample = plain_and_striped(6, where=np.s_[:8, :8])
    maps = maps_on_grid(stripe_finder(), sample.pictures, "grad_cam", target="FAKE")
    assert maps.shape == (6, 8, 8)
    assert np.isnan(maps).all(axis=(1, 2)).tolist() == [True, False] * 3
    assert (maps[1, :2, :2] > 0).all()
    assert maps[1].sum() == pytest.approx(maps[1, :2, :3].sum())
