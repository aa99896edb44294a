"""A page contains all that it is given, asks for nothing from outside, and shows names as text."""

import re

import numpy as np
import pytest
from matplotlib.figure import Figure
from page_in_browser import Page
from PIL import Image

from realfake_hf.pages.page import GalleryImage, GalleryItem, PageFigure, Section, write_page
from realfake_hf.tables import Table, markdown_table

HEADER = ("name", "n")
NASTY = '<script>alert("cat & dog")</script>'


def draw():
    figure = Figure(figsize=(1, 1))
    figure.subplots().plot([0, 1])
    return figure


@pytest.fixture(scope="module")
def sections(tmp_path_factory):
    file = tmp_path_factory.mktemp("files") / "sheet.png"
    Image.new("RGB", (3, 2)).save(file)
    image = GalleryImage(np.zeros((4, 4, 3), np.uint8), "the image", NASTY)
    return [
        Section("empty", "Empty", ["A paragraph.", "Another."]),
        Section(
            "full", NASTY,
            figures=[PageFigure(draw, "a line", "Rising, n = 2.", "From left to right.")],
            tables=[Table("Open.", HEADER, [["cat", 1]]), Table("Folded. Why.", HEADER, [["dog", 2]], folded=True)],
            files={"A sheet": file},
            gallery={"Group": [GalleryItem("cat", "FAKE", [image])]},
        ),
    ]  # fmt: skip


@pytest.fixture(scope="module")
def file(sections, tmp_path_factory):
    return write_page(
        tmp_path_factory.mktemp("pages") / "new/page.html", title="Report", subtitle="How good?", findings=["One."],
        sections=sections, warnings=["Careful."], opening=PageFigure(draw, "first", "Opening.", "Look."),
    )  # fmt: skip


@pytest.fixture(scope="module")
def page(file):
    return Page(file.read_text(encoding="utf-8"))


def test_a_page_asks_for_nothing_from_outside(file, page):
    text = re.sub(r"data:[^\"]*", "", file.read_text(encoding="utf-8"))
    assert re.findall(r"(?:https?:)?//[a-z]", text) == []
    sources = [tag.get(name) for _, tag in page.tags for name in ("src", "srcset", "href") if tag.get(name)]
    assert all(source.startswith(("data:", "#")) for source in sources)


def test_the_contents_link_to_every_section_and_the_findings_come_first(page):
    assert [heading["id"] for heading in page.all("h2")] == ["findings", "empty", "full"]
    assert {link["href"] for link in page.all("a")} == {"#warnings", "#empty", "#full"}
    order = ("Report", "How good?", "1 warning about these numbers", "Opening.", "One.", "Careful.", "A paragraph.")
    places = [page.words.index(text) for text in order]
    assert places == sorted(places)


def test_a_page_without_warnings_and_opening_figure_says_nothing_of_them(tmp_path):
    file = write_page(tmp_path / "page.html", title="Report", subtitle="How?", findings=["One."], sections=[])
    page = Page(file.read_text(encoding="utf-8"))
    assert "arning" not in file.read_text(encoding="utf-8").partition("<body>")[2]
    assert page.all("figure") == []


def test_names_are_shown_as_text(file, page):
    assert NASTY not in file.read_text(encoding="utf-8")
    assert NASTY in page.text
    assert page.all("script") == []


def test_every_figure_has_a_dark_version_of_the_same_size_and_every_image_a_text(page):
    first, source = page.all("source")
    assert {first["media"], source["media"]} == {"(prefers-color-scheme: dark)"}
    opening, figure, sheet, image = page.all("img")
    assert opening["alt"] == "first"
    assert source["srcset"] != figure["src"]
    assert (figure["width"], figure["height"]) == ("150", "150")
    assert [tag["alt"] for tag in (figure, sheet, image)] == ["a line", "A sheet", NASTY]


def test_tables_show_every_cell_and_fold_on_demand(page):
    assert len(page.all("table")) == 2
    assert len(page.all("details")) == 2  # the folded table and the sheet
    assert all(cell in page.text for cell in ("name", "n", "cat", "1", "dog", "2", "Folded.", "Why."))


def test_a_table_aligns_its_columns_and_escapes_bars():
    table = Table("Counts.", ("a|b", "split", "n", "m"), [["x|y", "test", 1, None]], align="llr")
    assert table.to_markdown().splitlines() == [
        "Counts.", "", r"| a\|b | split | n | m |", "|---|---|--:|--:|", r"| x\|y | test | 1 | None |",
    ]  # fmt: skip


def test_a_row_of_another_length_is_refused():
    with pytest.raises(ValueError, match=r"expected 2 cells.*found 1"):
        markdown_table(["a", "b"], [["only one"]])
