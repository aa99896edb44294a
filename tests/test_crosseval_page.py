"""The grid's page needs nothing else, its findings follow from the numbers, and the README renders them."""

import json
import re
from dataclasses import replace

import pytest
from grid_stand_in import save_cnn, save_pictures, words
from page_in_browser import CHROMIUM, Page, seen

import crosseval
from realfake_hf.crosseval import published as publish
from realfake_hf.crosseval import published_robustness as robustness
from realfake_hf.crosseval.findings import findings
from realfake_hf.crosseval.grid import Grid
from realfake_hf.crosseval.page import warnings, write_grid_page
from realfake_hf.estimate import Estimate
from realfake_hf.hub import readme
from realfake_hf.metrics.intervals import share
from realfake_hf.metrics.operating_point import Band
from realfake_hf.pages import page as page_parts

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def coarse():
    """Figures in few pixels, which are fast to draw."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(page_parts, "DPI", 40)
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A grid of two models, one with a band, on two data sets, the first of which the models learnt from."""
    base = tmp_path_factory.mktemp("grids")
    home, away = save_pictures(base / "boats", n=12), save_pictures(base / "other", n=10)
    for name in ("one", "two"):
        save_cnn(base / name, seed=len(name), threshold=0.5)
        (base / name / "run.json").write_text(json.dumps({"arguments": {"data": str(home)}}))
    band = {"low": 0.4, "high": 0.6, "promised": 0.02}
    point = {"threshold": 0.5, "chosen": "by hand", "n": 9, "temperature": 2.0, "band": band}
    (base / "one/operating_point.json").write_text(json.dumps(point))
    asked = words(base, home, base / "grid", "--robustness", "other", "--robustness_n", "8")
    asked += ["--errors", "3", "--training_data", str(home), "--neighbours_n", "10"]
    place = asked.index(f"boats={home}") + 1
    assert crosseval.main([*asked[:place], f"other={away}", *asked[place:]]) == 0
    return base / "grid"


@pytest.fixture(scope="module")
def grid(folder):
    return publish.load_grid(folder / "grid.json")


@pytest.fixture(scope="module")
def page(folder):
    return Page((folder / "grid.html").read_text(encoding="utf-8"))


def changed(grid, where, **report):
    """The grid with other figures in the cells that a function chooses."""
    cells = tuple(replace(cell, report=replace(cell.report, **report)) if where(cell) else cell for cell in grid.cells)
    return replace(grid, cells=cells)


def test_every_run_leaves_a_page_that_asks_for_nothing_from_outside(folder, page):
    text = re.sub(r"data:[^\"]*", "", (folder / "grid.html").read_text(encoding="utf-8"))
    assert re.findall(r"(?:https?:)?//[a-z]", text) == []
    assert page.all("script") == []
    sources = [one.get(name) for _, one in page.tags for name in ("src", "srcset", "href") if one.get(name)]
    assert all(source.startswith(("data:", "#")) for source in sources)


def test_the_page_has_every_part_and_its_contents_lead_there(grid, page):
    anchors = ["grid", "confidence", "groups", "harm", "robustness", "files", "errors", "methods", "cite", "passport"]
    assert [one["id"] for one in page.all("h2")] == ["findings", *anchors]
    assert {one["href"] for one in page.all("a")} == {f"#{anchor}" for anchor in anchors}
    assert len(page.all("source")) == 4
    assert len(page.all("img")) == 4 + len({one.file for one in grid.errors})
    assert all(one["alt"] for one in page.all("img"))


def test_numbers_settings_and_citation_stand_on_the_page(grid, page):
    cell = grid.cells[0]
    for found in (str(cell.report.roc_auc), str(cell.confidence.wrong), "10.1109/ACCESS.2024.3356122", "by hand"):
        assert found in page.words, found
    assert grid.facts["data"]["boats"]["sha256"][:12] in page.words
    assert not any(word in page.words for word in (" nan", "{'", "None,"))


def test_a_grid_without_robustness_and_shortcuts_has_a_page_without_them(grid, tmp_path):
    short = replace(grid, robustness=(), shortcuts=())
    page = Page(write_grid_page(short, tmp_path / "page.html").read_text(encoding="utf-8"))
    assert {"robustness", "files"}.isdisjoint({one["id"] for one in page.all("h2")})


def test_warnings_come_before_all_numbers(grid, page):
    loud = replace(grid.shortcuts[0], warning="WARNING: file facts alone tell.", data="boats")
    told = warnings(replace(grid, shortcuts=(loud,)))
    assert told[0] == "boats: file facts alone tell."
    bare = replace(grid.cells[0], point=type(grid.cells[0].point).from_dict({**DEFAULT_POINT}))
    assert warnings(replace(grid, cells=(bare,), shortcuts=())) == ["No threshold is frozen on validation for one."]
    assert page.words.index("Findings") < page.words.index("All cells: each model")


DEFAULT_POINT = {
    "threshold": 0.5, "chosen": "one half by default: no threshold was chosen on validation", "n": 0, "sha256": None,
}  # fmt: skip


def said(grid):
    return "\n".join(findings(grid))


def test_a_model_at_home_and_elsewhere_is_told_apart_by_what_it_was_trained_on(grid):
    text = said(grid)
    assert "On the train pictures of boats, which it was trained on, the balanced accuracy of one is" in text
    assert re.search(r"Elsewhere they are \S+ \(\S+\) and \S+ \(\S+\) on other \(n = 20", text)
    alone = replace(grid, facts={**grid.facts, "models": {"one": {**grid.facts["models"]["one"], "trained_on": None}}})
    assert "which it was trained on" not in said(alone)
    assert "Balanced accuracy and ROC AUC of one are" in said(alone)


@pytest.mark.parametrize(
    ("auc", "words_"),
    [
        (Estimate(0.7, 0.6, 0.8), None),
        (Estimate(0.52, 0.45, 0.6), "not surely better than chance"),
        (Estimate(0.3, 0.2, 0.4), "surely worse than chance"),
    ],
)
def test_chance_is_named_where_it_is_met(grid, auc, words_):
    text = said(changed(grid, lambda _: True, roc_auc=auc))
    for sentence in ("not surely better than chance", "surely worse than chance"):
        assert (sentence in text) == (sentence == words_)


def test_a_shifted_threshold_is_told_from_lost_ranking(grid):
    def shifted(oracle):
        cells = [
            replace(
                cell,
                report=replace(cell.report, accuracy=Estimate(0.95 if cell.dataset == "boats" else 0.55)),
                oracle_accuracy=oracle,
            )
            for cell in grid.cells
        ]
        return said(replace(grid, cells=tuple(cells)))

    assert "one loses: 75 % on other; the loss is mostly a shifted threshold" in shifted(0.85)
    assert "one loses: 25 % on other; most of the loss is not the threshold's" in shifted(0.65)


def test_a_model_that_ranks_no_better_than_colours_and_spectrum_is_named(grid):
    assert "A logistic regression" not in said(grid)
    facts = {**grid.facts, "models": {**grid.facts["models"], "trivial": grid.facts["models"]["one"]}}
    base = [replace(cell, model="trivial") for cell in grid.cells if cell.model == "one"]
    both = replace(grid, facts=facts, cells=(*grid.cells, *base))
    assert "Not surely better are one on other and two on other." in said(both)
    better = changed(both, lambda cell: cell.model != "trivial", roc_auc=Estimate(0.9, 0.85, 0.95))
    better = changed(better, lambda cell: cell.model == "trivial", roc_auc=Estimate(0.6, 0.5, 0.7))
    assert "0.600 (0.500-0.700) on other. Everywhere else the models surely rank better." in said(better)


def test_resolution_and_codec_are_blamed_where_holding_them_equal_changes_more_than_intervals(grid):
    apart = changed(grid, lambda cell: cell.protocol == "matched", roc_auc=Estimate(0.9, 0.85, 0.95))
    apart = changed(apart, lambda cell: cell.protocol == "native", roc_auc=Estimate(0.6, 0.5, 0.7))
    assert "one on other from 0.600 (0.500-0.700) to 0.900 (0.850-0.950)" in said(apart)
    equal = changed(grid, lambda _: True, roc_auc=Estimate(0.6, 0.5, 0.7))
    assert "the other sets change no ROC AUC by more than its interval" in said(equal)
    native = replace(grid, cells=tuple(cell for cell in grid.cells if cell.protocol == "native"))
    assert "Brought to 32 pixels" not in said(native)


def test_a_promise_is_reported_as_it_was_kept(grid):
    def promised(wrong):
        cells = [
            replace(cell, confidence=replace(cell.confidence, band=Band(0.4, 0.6, 0.02), wrong=wrong))
            for cell in grid.cells
        ]
        return said(replace(grid, cells=tuple(cells)))

    lead = "The promise that at most 2 % of the verdicts of one outside its unsure band are wrong"
    assert f"{lead} is kept on boats (1.0 % wrong) and other (1.0 % wrong)." in promised(share(1, 100))
    assert f"{lead} is broken on boats (30.0 % wrong) and other (30.0 % wrong)." in promised(share(30, 100))
    assert f"{lead} is missed, but not surely, on" in promised(share(3, 100))


def test_that_nothing_is_known_of_people_is_said_unless_something_is(grid):
    assert "No data set of this grid names a content that shows people" in said(grid)
    harm = (replace(grid.cells[0].harm[0], content="person", shows_people=True),)
    known = replace(grid, cells=(replace(grid.cells[0], harm=harm), *grid.cells[1:]))
    assert "No data set of this grid names" not in said(known)


def test_what_it_means_depends_on_whether_it_holds(grid):
    assert "is no evidence, however sure it sounds" in said(
        changed(grid, lambda _: True, balanced_accuracy=Estimate(0.5, 0.4, 0.6))
    )
    good = changed(grid, lambda _: True, balanced_accuracy=Estimate(0.99, 0.98, 1.0))
    quiet = [replace(cell, confidence=replace(cell.confidence, band=None)) for cell in good.cells]
    assert "the models hold what they promise" in said(replace(good, cells=tuple(quiet)))


def test_a_grid_is_published_as_numbers_page_and_figure_and_the_readme_renders_it(folder, grid, tmp_path, capsys):
    places = [tmp_path / "crosseval.json", tmp_path / "page.html", tmp_path / "figure.png"]
    flags = ["--output_file", "--page_file", "--figure_file"]
    asked = [word for pair in zip(flags, map(str, places), strict=True) for word in pair]
    assert publish.main(["--grid", str(folder / "grid.json"), *asked]) == 0
    assert findings(grid)[0] in capsys.readouterr().out
    assert Grid.from_dict(json.loads(places[0].read_text())) == grid
    assert all(place.stat().st_size > 5000 for place in places)
    blocks = "<!-- results: crosseval -->\n<!-- end -->\n<!-- results: crosseval_findings -->\n<!-- end -->"
    text = readme.render(blocks, tmp_path)
    assert f"| boats train | native | one | 24 | {grid.cells[0].report.balanced_accuracy} |" in text
    assert f"- {findings(grid)[-1]}" in text


def test_a_published_page_shows_the_errors_of_the_named_sets_alone(folder, grid, tmp_path):
    def sheets(*shown):
        asked = ["--output_file", str(tmp_path / "x.json"), "--page_file", str(tmp_path / "page.html")]
        assert publish.main(["--grid", str(folder / "grid.json"), *asked, *shown]) == 0
        found = Page((tmp_path / "page.html").read_text(encoding="utf-8")).all("img")
        return {one["alt"].split(":")[0] for one in found if one.get("class") == "sheet"}

    assert sheets() == set()
    named = {one.model for one in grid.errors if one.dataset == "other"}
    assert sheets("--shown", "other") == {f"{name} on other train" for name in named} != set()


def test_something_else_than_a_grid_is_refused_in_a_sentence(tmp_path, capsys):
    (tmp_path / "grid.json").write_text("{}")
    for command in (publish.main, robustness.main):
        assert command(["--grid", str(tmp_path / "grid.json"), "--output_file", str(tmp_path / "out.json")]) == 1
        assert "wanted a grid of crosseval.py in" in capsys.readouterr().err
    assert not (tmp_path / "out.json").exists()


def test_robustness_is_published_and_rendered(folder, grid, tmp_path, capsys):
    asked = ["--output_file", str(tmp_path / "robustness_cifake.json"), "--figure_file", str(tmp_path / "figure.png")]
    assert robustness.main(["--grid", str(folder / "grid.json"), *asked]) == 0
    text = readme.render("<!-- results: robustness -->\n<!-- end -->", tmp_path)
    step = grid.robustness[0].of_kind("jpeg")[-1]
    assert f"| jpeg 10 | {step.roc_auc} | {step.balanced_accuracy} |" in text
    assert "| mirror |" in text
    bare = {**json.loads((folder / "grid.json").read_text()), "robustness": []}
    (tmp_path / "bare.json").write_text(json.dumps(bare))
    assert robustness.main(["--grid", str(tmp_path / "bare.json"), *asked]) == 1
    assert "with one data set in" in capsys.readouterr().err


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
@pytest.mark.parametrize(("size", "dark"), [((360, 740), False), ((1280, 900), True)])
def test_in_a_browser_nothing_is_broken_and_the_page_never_moves_sideways(folder, page, tmp_path, size, dark):
    found = seen(folder / "grid.html", tmp_path, size=size, dark=dark)
    assert (found["images"], found["broken"]) == (len(page.all("img")), 0)
    assert found["width"] == found["client"] <= size[0]
    assert found["dark"] == (len(page.all("source")) if dark else 0)
    assert found["ground"] == ("rgb(22, 24, 28)" if dark else "rgb(255, 255, 255)")
    assert found["small"] == 0
