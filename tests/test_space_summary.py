"""The sentence over the models of the page, the cards of several pictures, the legend of maps, and the chart."""

import re

import pytest
from page_in_browser import Page

from realfake_hf.metrics.operating_point import Band, OperatingPoint
from realfake_space.answers import Answer, card, read_measured
from realfake_space.chart import chart, findings
from realfake_space.examples import GROUPS, caption, read_examples
from realfake_space.summary import PURPOSES, Picture, gallery, map_legend, summary

NAMES = ("wild", "cifake-cnn", "cifake-vit")
FOR = {"wild": PURPOSES["wild"], "cifake-cnn": PURPOSES["cifake"], "cifake-vit": PURPOSES["cifake"]}
WORDS = {"fake": "Likely AI-generated", "real": "Likely real", "unsure": "Unsure, possibly real"}


def says(model, kind, *, warnings=()):
    label = "FAKE" if kind == "fake" else "REAL"
    return Answer(model, WORDS[kind], label, 0.25, kind != "unsure", "", "meaning", warnings)


def three(*kinds):
    return {name: says(name, kind) for name, kind in zip(NAMES, kinds, strict=True)}


def words(items, *, is_small=False, waiting=()):
    return Page(summary(items, FOR, is_small=is_small, waiting=waiting))


def test_the_summary_counts_the_models_and_says_what_they_are_for():
    page = words(three("real", "unsure", "unsure"))
    assert page.words.startswith("Likely real, says wild")
    assert "Of 3 models, 1 calls it real and 2 are unsure" in page.words
    assert "wild is for today's pictures" in page.words
    assert "cifake-cnn and cifake-vit are for images of 32 x 32 pixels." in page.words
    assert page.tags[0][1]["class"] == "rf-summary rf-real"


@pytest.mark.parametrize(
    ("kinds", "is_small", "start", "kind"),
    [
        (("fake", "real", "real"), False, "Likely AI-generated, says wild", "fake"),
        (("unsure", "fake", "fake"), True, "Likely AI-generated, say cifake-cnn and cifake-vit", "fake"),
        (("real", "fake", "real"), True, "cifake-cnn and cifake-vit disagree", "unsure"),
        (("unsure", "fake", "fake"), False, "Unsure, possibly real, says wild", "unsure"),
    ],
)
def test_the_verdict_is_that_of_the_models_for_pictures_of_this_size(kinds, is_small, start, kind):
    page = words(three(*kinds), is_small=is_small)
    assert page.words.startswith(start)
    assert page.tags[0][1]["class"] == f"rf-summary rf-{kind}"


def test_models_that_were_not_evaluated_are_counted_and_nothing_is_said_of_their_use():
    page = Page(summary({"mine": says("mine", "fake")}, {}, is_small=True, waiting=()))
    assert page.words == "Likely AI-generated, says mineThe only model calls it AI-generated."


def test_the_summary_says_for_whom_it_waits():
    page = words({"wild": says("wild", "real")}, waiting=["cifake-cnn", "cifake-vit"])
    assert "Waiting for cifake-cnn and cifake-vit." in page.words
    assert "Of 1" not in page.words


def test_a_rejected_file_gets_its_message_once_and_as_text():
    page = words(dict.fromkeys(NAMES, "No verdict: <b>not an image</b>."))
    assert page.words == "No verdict: <b>not an image</b>."
    assert page.tags[0][1]["role"] == "alert"


def test_a_card_has_five_parts_whether_or_not_there_are_warnings():
    point = OperatingPoint(0.5, "by hand", band=Band(0.2, 0.8, promised=0.1))
    for item in (says("wild", "real"), says("wild", "unsure", warnings=("Cropped.", "Stretched."))):
        text = card(item, point, PURPOSES["wild"])
        assert len(re.findall(r"<div>", text)) == 5
        assert "wild, for today's pictures" in Page(text).words
        assert text.count("<li>") == len(item.warnings)


def test_several_pictures_are_cards_with_a_thumbnail_a_verdict_and_a_line_for_each_model():
    rejected = Picture("<i>.png", dict.fromkeys(NAMES, "No verdict: not an image file."), False, "")
    judged = Picture("a.jpg", three("fake", "real", "unsure"), False, "data:image/jpeg;base64,AA==")
    page = Page(gallery([judged, rejected], FOR))
    assert [each["class"] for each in page.all("article")] == ["rf-picture rf-fake", "rf-picture rf-refused"]
    assert page.all("img") == [{"src": "data:image/jpeg;base64,AA==", "alt": "a.jpg"}]
    assert len(page.all("li")) == 3
    assert page.all("i") == []
    assert page.words.count("No verdict: not an image file.") == 1


@pytest.mark.parametrize(
    ("label", "means"),
    [("FAKE", "evidence for AI-generated."), ("REAL", "evidence for real."), (None, "for or against")],
)
def test_the_legend_says_for_which_answer_bright_regions_speak(label, means):
    assert Page(map_legend(label, is_empty=False)).words.startswith("Bright = ")
    assert means in Page(map_legend(label, is_empty=False)).words
    assert "Bright" not in Page(map_legend(label, is_empty=True)).words


def test_the_chart_has_a_point_for_each_model_and_data_set_in_its_place():
    measured = read_measured()
    page = Page(chart(measured))
    rows = [row for model in measured.values() for row in model["rows"]]
    assert len(page.all("circle")) == len(rows) >= 13
    [svg] = page.all("svg")
    for model in measured.values():
        for row in model["rows"]:
            assert 0 <= row["low"] <= row["value"] <= row["high"] <= 0.65
            assert f"{model['name']}, {row['images']}: {row['value']:.1%}" in svg["aria-label"]
    places = sorted(float(circle["cx"]) for circle in page.all("circle"))
    shares = sorted(row["value"] for row in rows)
    assert (places[-1] - places[0]) / 240 == pytest.approx((shares[-1] - shares[0]) / 0.65, abs=0.01)


def test_the_findings_are_three_sentences_of_the_evaluation_and_a_link():
    measured = read_measured()
    page = Page(findings(measured))
    away = [share for model in measured.values() if model["home"] == "cifake" for share in model["wrong_elsewhere"]]
    assert f"{min(away):.0%} to {max(away):.0%}" in page.words
    assert len(re.findall(r"\.(?= |$)", page.words.removesuffix(" All tables"))) == 3
    assert [link["href"] for link in page.all("a")] == ["#tables"]


def test_failures_are_marked_with_the_truth_and_the_models_that_are_wrong():
    examples = read_examples()
    assert {example.group for example in examples} == set(GROUPS)
    for example in examples:
        assert f"truth: {'AI-generated' if example.is_fake else 'real'}" in caption(example)
        assert ("wrong: " in caption(example)) == (example.group == "failure")
        assert example.group != "failure" or example.wrong
    meant = {"small": {"cifake-cnn", "cifake-vit"}, "today": {"wild"}}
    assert all(not meant[example.group] & set(example.wrong) for example in examples if example.group in meant)
