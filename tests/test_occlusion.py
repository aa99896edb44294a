import json

import numpy as np
import pytest

from realfake_hf.explain_study.fills import fill_in
from realfake_hf.explain_study.occlusion import map_shares, measure_causal
from realfake_hf.explain_study.regions import centre_mask, rim_mask
from realfake_hf.explain_study.sample import Sample
from realfake_hf.metrics.intervals import Resampling

SIDE = 16
MIDDLE, CORNER = (8, 8), (0, 0)  # where a bright pixel says FAKE; opposite, it says REAL


class Reader:
    """A subject that calls a picture FAKE by how bright one of its pixels is."""

    def __init__(self, name, pixel):
        self.name, self.pixel = name, pixel

    def probabilities(self, pictures):
        return pictures[:, *self.pixel, 0].astype(np.float32) / 255


@pytest.fixture(scope="module")
def sample():
    """Pictures, half of them FAKE, whose label can be read in the middle as well as in a corner."""
    n = 24
    is_fake = np.arange(n) % 2 == 0
    pictures = np.random.default_rng(0).integers(0, 60, (n, SIDE, SIDE, 3), dtype=np.uint8)
    for down, right in (MIDDLE, CORNER):
        pictures[is_fake, down, right] = pictures[~is_fake, SIDE - 1 - down, SIDE - 1 - right] = 255
    return Sample(
        pictures=pictures,
        is_fake=is_fake,
        content=tuple("ship" if number < 9 else "frog" for number in range(n)),
        ids=tuple(map(str, range(n))),
        is_right={},
        stratum=is_fake.astype(np.intp),
        weight=np.where(is_fake, 3.0, 1.0),
    )


@pytest.fixture(scope="module")
def causal(sample):
    subjects = [Reader("middle", MIDDLE), Reader("rim", CORNER)]
    return measure_causal(subjects, sample, samples=50).to_dict()


@pytest.mark.parametrize(("name", "sign"), [("middle", -1), ("rim", 1)])
def test_a_model_loses_most_where_the_part_is_hidden_that_it_reads(causal, name, sign):
    found = causal["models"][name]
    assert found["untouched"]["accuracy"]["value"] == found["untouched"]["roc_auc"]["value"] == 1
    assert [(one["area"], one["fill"]) for one in found["hiding"]] == [
        (0.25, "blur"),
        (0.25, "mean"),
        (0.5, "blur"),
        (0.5, "mean"),
        (0.75, "blur"),
        (0.75, "mean"),
    ]
    for one in found["hiding"]:
        difference = one["accuracy_difference"]
        assert difference["value"] == pytest.approx(sign * 0.75)  # all FAKE, which are three quarters, are missed
        assert difference["n"] == 24
        assert one["fill"] == "blur" or sign * one["roc_auc_difference"]["value"] > 0.2  # a blur lets some through
        kept, lost = (one["rim"], one["centre"]) if sign < 0 else (one["centre"], one["rim"])
        assert kept["accuracy"]["value"] == 1
        assert (lost["accuracy_fake"]["value"], lost["accuracy_real"]["value"]) == (0, 1)
        assert lost["called_fake"]["value"] == 0


def test_figures_are_those_of_a_loop_over_the_pictures_as_they_weigh(sample):
    reader = Reader("some", MIDDLE)
    hiding = measure_causal([reader], sample, samples=20).models["some"].hiding
    [one] = [one for one in hiding if (one.area, one.fill) == (0.5, "blur")]
    sums = {"all": 0.0, "ship": 0.0, "called": 0.0}
    weights = {"all": 0.0, "ship": 0.0, "called": 0.0}
    for number, picture in enumerate(sample.pictures):
        right = []
        for hidden in (centre_mask((SIDE, SIDE), 0.5), rim_mask((SIDE, SIDE), 0.5)):
            shown = fill_in(picture[None], hidden, fill="blur")
            called = reader.probabilities(shown)[0] > 0.5
            right.append(float(called == sample.is_fake[number]))
            if len(right) == 1:
                sums["called"] += sample.weight[number] * called
                weights["called"] += sample.weight[number]
        for kind in {"all", sample.content[number]} & set(sums):
            sums[kind] += sample.weight[number] * (right[0] - right[1])
            weights[kind] += sample.weight[number]
    assert one.accuracy_difference.value == pytest.approx(sums["all"] / weights["all"])
    assert one.by_content["ship"].value == pytest.approx(sums["ship"] / weights["ship"])
    assert one.centre.called_fake.value == pytest.approx(sums["called"] / weights["called"])
    assert sum(mean.n for mean in one.by_content.values()) == one.accuracy_difference.n == 24


def test_the_results_are_json_without_nan(causal):
    assert json.loads(json.dumps(causal, allow_nan=False))["n"] == 24


def test_maps_in_the_middle_have_their_mass_there_and_even_ones_as_much_as_the_area():
    middle = np.tile(centre_mask((8, 8), 0.25).astype(float), (5, 1, 1))
    even = np.ones((5, 8, 8)) - 1e-9 * middle
    empty = np.zeros((5, 8, 8))
    maps = {"middle": middle, "even": even, "empty": empty}
    found = map_shares(maps, Resampling(np.ones(5), samples=10))
    assert [row["area"] for row in found["middle"]] == [0.25, 0.5]
    assert [(row["centre"]["value"], row["rim"]["value"]) for row in found["middle"]] == [(1, 0), (1, 0)]
    for row in found["even"]:
        assert (row["centre"]["value"], row["rim"]["value"]) == pytest.approx((row["area"], row["area"]))
    assert (found["empty"][0]["centre"]["value"], found["empty"][0]["centre"]["undefined"]) == (None, 5)
    assert json.loads(json.dumps(found, allow_nan=False))["even"][0]["rim"]["n"] == 5


def test_with_everything_hidden_only_the_fill_is_left(causal):
    for found in causal["models"].values():
        assert found["all_hidden"]["mean"]["accuracy"]["value"] == 0.25  # nothing is bright any more
        assert abs(found["all_hidden"]["mean"]["roc_auc"]["value"] - 0.5) < 0.3
