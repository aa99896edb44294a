"""What the study says is what its numbers say, whichever way they fall."""

import json

import pytest

from realfake_hf.explain_study.claim import claim_sentences
from realfake_hf.explain_study.findings import findings, headline, main_pair
from realfake_hf.explain_study.names import key_pairs
from realfake_hf.hub import readme

IOU = "iou_top_20"


@pytest.fixture
def study(study_stand_in):
    return study_stand_in.made_up_study()


def mean(value, *, half=0.012):
    """A mean with an interval of a given half width, or an undefined one."""
    if value is None:
        return {"value": None, "low": None, "high": None, "n": 0, "undefined": 9}
    return {"value": value, "low": value - half, "high": value + half, "n": 9, "undefined": 0}


def said(study):
    return "\n".join(findings(study))


def test_the_claim_is_about_grad_cam_of_one_model_and_relevance_of_the_other(study):
    pair = main_pair(study)
    assert (pair["a"], pair["b"]) == ("cnn grad_cam", "vit relevance")


def test_key_pairs_are_those_across_models_with_grad_cam_and_their_yardsticks(study):
    assert [(pair["a"], pair["b"]) for pair in key_pairs(study)] == [
        ("cnn grad_cam", "vit rollout"),
        ("cnn grad_cam", "vit last_attention"),
        ("cnn grad_cam", "vit gradient_rollout"),
        ("cnn grad_cam", "vit relevance"),
        ("cnn grad_cam", "vit grad_cam"),
        ("cnn grad_cam", "vit integrated_gradients"),
        ("cnn integrated_gradients", "vit grad_cam"),
        ("cnn grad_cam", "cnn integrated_gradients"),
        ("vit relevance", "vit grad_cam"),
        ("vit grad_cam", "vit integrated_gradients"),
    ]


def test_the_first_sentence_has_the_pair_and_all_its_controls(study):
    found = main_pair(study)["measures"][IOU]
    found |= {"same_picture": mean(0.25), "shuffled": mean(0.2), "random_weights": mean(0.15)}
    study["agreement"]["ceiling"] = {"cnn grad_cam": {IOU: mean(0.5)}}
    assert findings(study)[0] == (
        "On 1,200 test pictures, weighted to stand for all 20,000, the highest fifths of the CNN Grad-CAM and ViT "
        "relevance maps overlap by 0.250 (0.238 to 0.262) (intersection over union; chance 0.111; different pictures "
        "0.200; random weights 0.150; a map and that of the same model from another training seed: CNN Grad-CAM "
        "0.500)."
    )


def test_without_a_twin_no_ceiling_is_spoken_of(study):
    study["agreement"]["ceiling"] = {}
    assert "another training seed" not in said(study)


@pytest.mark.parametrize(
    ("gap", "sentence"),
    [
        (0.05, "That is more than maps of different pictures share: the difference is +0.050 (+0.038 to +0.062)."),
        (-0.05, "That is less than maps of different pictures share: the difference is \N{MINUS SIGN}0.050 ("),
        (0.01, "That cannot be told from what maps of different pictures share: the difference is +0.010 ("),
    ],
)
def test_more_or_less_than_different_pictures_is_said_beyond_the_interval_only(study, gap, sentence):
    main_pair(study)["measures"][IOU]["above_shuffled"] = mean(gap)
    assert sentence in said(study)


@pytest.mark.parametrize(
    ("spots", "sentence"),
    [
        ((0.1, 0.2), "overlaps less with either map, by 0.200 at most."),
        ((0.1, 0.4), "overlaps at least as much with the ViT relevance map (0.400)."),
        ((0.3, 0.4), "at least as much with the CNN Grad-CAM map (0.300) and the ViT relevance map (0.400)."),
    ],
)
def test_a_spot_in_the_centre_is_held_against_the_pair(study, spots, sentence):
    main_pair(study)["measures"][IOU]["same_picture"] = mean(0.25)
    for key, value in zip(("cnn grad_cam", "vit relevance"), spots, strict=True):
        study["agreement"]["centre"][key] = {IOU: mean(value)}
    assert sentence in said(study)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (0.5, "ViT relevance and ViT Grad-CAM by 0.500 (0.488 to 0.512), more than the two models' maps"),
        (0.1, "by 0.100 (0.088 to 0.112), less than the two models' maps"),
        (0.26, "by 0.260 (0.248 to 0.272), with an interval that meets that of the two models"),
    ],
)
def test_two_methods_on_one_model_are_the_yardstick(study, value, words):
    main_pair(study)["measures"][IOU]["same_picture"] = mean(0.25)
    for pair in key_pairs(study):
        if (pair["a"], pair["b"]) == ("vit relevance", "vit grad_cam"):
            pair["measures"][IOU]["same_picture"] = mean(value)
    assert words in said(study)


@pytest.mark.parametrize(
    ("gap", "words"),
    [
        (0.05, "The maps agree more on pictures that both models judge rightly than on others: +0.050"),
        (-0.05, "The maps agree less on pictures that both models judge rightly than on others"),
        (0.0, "Whether both models are right makes no difference to the agreement that can be told from 0: 0.000"),
    ],
)
def test_right_is_held_against_wrong(study, gap, words):
    main_pair(study)["right_less_wrong"] = {IOU: mean(gap)}
    assert words in said(study)


def test_methods_are_sorted_by_the_tests_in_which_they_beat_a_random_order(study):
    gaps = {"grad_cam": (-0.1, 0.1), "relevance": (-0.1, -0.1), "rollout": (0.1, 0.0), "centre prior": (-0.1, 0.1)}
    rows = {
        name: {"deletion_less_random": mean(deletion), "insertion_less_random": mean(insertion)}
        for name, (deletion, insertion) in gaps.items()
    }
    study["faithfulness"]["models"] = {"vit": {"mean": {**rows, "random order": {}}}}
    assert (
        "ViT, cells hidden by the mean colour: better than a random order in both deletion and insertion: Grad-CAM "
        "and the centre prior; in one of the two: relevance; in neither of the two: rollout."
    ) in findings(study)


def test_maps_that_survive_random_weights_are_named(study):
    study["sanity"]["models"] = {
        "vit": {"stages": ["all"], "methods": {"rollout": [mean(0.9)], "relevance": [mean(0)]}}
    }
    assert (
        "With all weights of the ViT random, its maps still correlate above one half with the trained ones for "
        "rollout (0.900) and no longer correlate above one half for relevance (0.000)."
    ) in findings(study)


@pytest.mark.parametrize(
    ("hits", "words"),
    [
        (
            0.5,
            "more often than chance (25.0 %) by relevance; the most hits has relevance, 50.0 % (48.8 to 51.2), beside",
        ),
        (
            0.25,
            "no method points into the planted quadrant more often than chance (25.0 %); the most hits has rollout",
        ),
        (0.1, "no method points into the planted quadrant more often than chance"),
    ],
)
def test_hits_are_held_against_chance_and_the_seam(study, hits, words):
    methods = {"rollout": {"hits": mean(0.25)}, "relevance": {"hits": mean(hits)}}
    plantings = {name: {"methods": methods} for name in ("fake in real", "real in real")}
    study["planted"]["models"] = {"vit": plantings}
    assert words in said(study)
    assert "for a quadrant of another real picture" in said(study)


def test_the_causal_verdict_is_said_as_it_is(study):
    assert findings(study)[-2:] == claim_sentences(study["causal"])


def test_parts_that_a_study_lacks_are_not_spoken_of(study):
    for part in ("faithfulness", "sanity", "planted", "causal"):
        del study[part]
    assert not any(word in said(study) for word in ("hidden by", "random, its maps", "planted", "hiding"))


def test_undefined_numbers_are_no_findings(study):
    for pair in study["agreement"]["pairs"]:
        pair["measures"] = {name: dict.fromkeys(found, mean(None)) for name, found in pair["measures"].items()}
        pair["right_less_wrong"] = {}
    for plantings in study["planted"]["models"].values():
        for found in plantings.values():
            found["methods"] = {name: dict.fromkeys(row, mean(None)) for name, row in found["methods"].items()}
    assert "overlap by undefined" in said(study)
    assert not any(word in said(study) for word in ("None", "nan", "different pictures share", "planted quadrant"))


def test_the_readme_block_is_the_headline(study, tmp_path):
    (tmp_path / "explanation_study.json").write_text(json.dumps(study))
    block = readme.render("<!-- results: explanation_study -->\n<!-- end -->", tmp_path)
    assert block.splitlines()[1:-1] == headline(study).splitlines()
    points = headline(study).splitlines()
    assert 4 <= len(points) <= 6
    assert all(point.startswith("- ") for point in points)
    assert findings(study)[0] in headline(study)
    assert claim_sentences(study["causal"])[0] in headline(study)
