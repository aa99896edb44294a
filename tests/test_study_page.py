"""The study's page needs nothing else, says all in words too, and can be read on a phone and in the dark."""

import re

import pytest
from page_in_browser import CHROMIUM, Page, seen

from realfake_hf.explain_study.names import twin_notes
from realfake_hf.explain_study.page import write_page
from realfake_hf.explain_study.sections import sections
from realfake_hf.pages import page as page_parts

pytestmark = pytest.mark.slow

PARTS = ("faithfulness", "sanity", "planted", "causal")
NASTY = '<script>alert("cat & dog")</script>'


@pytest.fixture(scope="module", autouse=True)
def coarse():
    """Figures in few pixels, which are fast to draw."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(page_parts, "DPI", 50)
        yield


@pytest.fixture(scope="module")
def study(study_stand_in):
    return study_stand_in.made_up_study()


@pytest.fixture(scope="module")
def file(study, study_stand_in, tmp_path_factory):
    return write_page(study, study_stand_in.made_up_gallery(NASTY), tmp_path_factory.mktemp("page") / "made/page.html")


@pytest.fixture(scope="module")
def page(file):
    return Page(file.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def short(study, tmp_path_factory):
    """The page of a study of agreement alone, without a gallery."""
    agreement = {name: part for name, part in study.items() if name not in PARTS}
    return Page(write_page(agreement, [], tmp_path_factory.mktemp("short") / "page.html").read_text(encoding="utf-8"))


def test_the_page_asks_for_nothing_from_outside(file, page):
    text = file.read_text(encoding="utf-8")
    assert re.findall(r"(?:https?:)?//[a-z]", re.sub(r"data:[^\"]*", "", text)) == []
    sources = [one.get(name) for _, one in page.tags for name in ("src", "srcset", "href") if one.get(name)]
    assert all(source.startswith(("data:", "#")) for source in sources)
    [policy] = [one["content"] for one in page.all("meta") if one.get("http-equiv") == "Content-Security-Policy"]
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    assert page.all("script") == []


def test_every_picture_has_words_and_every_figure_a_dark_twin(study, page):
    figures = [shown for part in sections(study) for shown in part.figures]
    words = [one["alt"] for one in page.all("img")]
    assert all(words)
    assert words[: len(figures)] == [shown.alt for shown in figures]
    assert len(page.all("source")) == len(figures)
    assert all(one["media"] == "(prefers-color-scheme: dark)" for one in page.all("source"))


def test_every_figure_says_its_n_and_how_to_read_it(study):
    for part in sections(study):
        for shown in part.figures:
            assert re.search(r"\bn = \d|n below", shown.caption), shown.caption
            assert "interval" in shown.caption or part.anchor == "agreement"
            assert shown.reading


def test_the_contents_lead_to_every_heading(page):
    anchors = {one["href"] for one in page.all("a")}
    assert {f"#{one['id']}" for one in page.all("h2")} - {"#findings"} == anchors
    assert [one["href"] for one in page.all("a")][:7] == [
        "#agreement", "#faithfulness", "#sanity", "#planted", "#causal", "#gallery", "#passport",
    ]  # fmt: skip


def test_names_are_only_names(file, page):
    assert NASTY not in file.read_text(encoding="utf-8")
    assert sum(NASTY in text for text in page.text) == 3


def test_numbers_of_every_part_stand_in_tables(page):
    cells = " ".join(page.text)
    for found in ("0.516 (0.504 to 0.528)", "+0.030 (+0.018 to +0.042)", "490, 10 undefined", "70.0 %", "1,234.5"):
        assert found in cells, found
    assert not any(word in cells for word in ("None", "nan", "{'"))


def test_the_gallery_groups_pictures_by_who_is_wrong(page):
    text = "".join(page.text)
    groups = ["All models are right", "Wrong: CNN", "All models are wrong"]
    assert sorted(groups, key=text.index) == groups
    assert "CNN: FAKE, p(fake) 0.900, right. ViT: FAKE, p(fake) > 0.999, right." in text
    assert "CNN: REAL, p(fake) 0.200, wrong. ViT: FAKE, p(fake) 0.990, right." in text
    assert text.count("ViT last attention: empty map") == 3


def test_what_a_study_lacks_the_page_leaves_out(short):
    assert [one["id"] for one in short.all("h2")] == ["findings", "agreement", "passport"]
    assert len(short.all("img")) == 3


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
@pytest.mark.parametrize(("size", "dark"), [((360, 740), False), ((1280, 900), True)])
def test_in_a_browser_nothing_is_broken_and_the_page_never_moves_sideways(file, page, tmp_path, size, dark):
    found = seen(file, tmp_path, size=size, dark=dark)
    assert (found["images"], found["broken"]) == (len(page.all("img")), 0)
    assert found["width"] == found["client"] <= size[0]
    assert found["dark"] == (len(page.all("source")) if dark else 0)
    assert found["ground"] == ("rgb(22, 24, 28)" if dark else "rgb(255, 255, 255)")
    assert found["small"] == 0


def test_a_twin_that_learnt_for_less_is_said_to_be_one(study):
    assert twin_notes(study) == []
    study["models"]["cnn"]["twin"]["training"]["epochs"] = 1
    [note] = twin_notes(study)
    assert "twin learnt from 95,000 pictures, 1 times each in place of 95,000 pictures, 12 times each, so" in note
