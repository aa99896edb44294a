"""The grid's page is self-contained, its findings follow from the numbers, and a grid can be published."""

import json
import re
from contextlib import redirect_stdout
from dataclasses import replace
from io import StringIO

import pytest
from page_in_browser import CHROMIUM, Page, seen
from small_grid import arguments, save_cnn, save_images

import crosseval
from realfake_hf.crosseval import publish
from realfake_hf.crosseval.cell import UNKNOWN, Cell, FalseAlarms
from realfake_hf.crosseval.grid import Grid, read_grid
from realfake_hf.crosseval.report import write_report
from realfake_hf.crosseval.tables import findings, tables_by_section, to_markdown, to_text, warnings
from realfake_hf.estimate import Estimate, from_plain, to_plain
from realfake_hf.metrics.intervals import share
from realfake_hf.metrics.operating_point import DEFAULT, Band, OperatingPoint
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
    home, away = save_images(base / "boats", n=12), save_images(base / "other", n=10)
    for name in ("one", "two"):
        save_cnn(base / name, seed=len(name), threshold=0.5)
        (base / name / "run.json").write_text(json.dumps({"arguments": {"data": str(home)}}))
    point = OperatingPoint(0.5, "by hand", n=9, temperature=2.0, band=Band(0.4, 0.6, promised=0.02))
    (base / "one/operating_point.json").write_text(json.dumps(to_plain(point)))
    argv = arguments(base, home, base / "grid", "--robustness", "other", "--robustness_n", "8")
    argv += ["--errors", "3", "--training_data", str(home), "--neighbours_n", "10"]
    place = argv.index(f"boats={home}") + 1
    with redirect_stdout(StringIO()) as printed:
        assert crosseval.main([*argv[:place], f"other={away}", *argv[place:]]) == 0
    (base / "printed.txt").write_text(printed.getvalue())
    return base / "grid"


@pytest.fixture(scope="module")
def grid(folder):
    return read_grid(folder / "grid.json")


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


def test_the_page_has_every_section_and_links_to_it(grid, page):
    anchors = ["results", "confidence", "groups", "false_alarms", "robustness", "files", "errors"]
    anchors += ["methods", "cite", "settings"]
    assert [heading["id"] for heading in page.all("h2")] == ["findings", *anchors]
    linked = [*anchors, *(["warnings"] if warnings(grid) else [])]
    assert {link["href"] for link in page.all("a")} == {f"#{anchor}" for anchor in linked}
    assert len(page.all("source")) == 4
    assert len(page.all("img")) == 4 + len({error.file for error in grid.errors})
    assert all(image["alt"] for image in page.all("img"))


def test_page_and_markdown_contain_the_numbers(grid, page):
    text = to_markdown(grid)
    cell = grid.cells[0]
    step = grid.robustness[0].of_kind("jpeg")[-1]
    for estimate in (cell.report.roc_auc, cell.confidence.wrong, cell.false_alarm_rate, step.roc_auc):
        assert str(estimate) in text
        assert str(estimate) in page.words
    assert grid.facts["data"]["boats"]["sha256"][:12] in page.words
    assert not any(word in page.words for word in (" nan", "{'", "None,"))


def test_a_grid_without_robustness_and_shortcuts_has_a_page_without_them(grid, tmp_path):
    short = replace(grid, robustness=(), shortcuts=())
    page = Page(write_report(short, tmp_path / "page.html").read_text(encoding="utf-8"))
    assert {"robustness", "files"}.isdisjoint({heading["id"] for heading in page.all("h2")})


def test_warnings_come_before_all_numbers(grid, page):
    loud = replace(grid.shortcuts[0], warning="WARNING: a shortcut")
    bare = replace(grid.cells[0], point=DEFAULT)
    [shortcut, threshold] = warnings(replace(grid, cells=(bare,), shortcuts=(loud,)))
    assert shortcut.startswith(
        f"boats: file facts alone tell real from fake with a balanced accuracy of {loud.together}"
    )
    assert threshold.startswith("one has no threshold")
    assert to_markdown(replace(grid, shortcuts=(loud,))).startswith(f"**Warning.** {shortcut}")
    assert page.words.index("Findings") < page.words.index("Each model at its own threshold")


def test_a_model_is_at_home_on_what_it_was_trained_on_and_away_elsewhere(grid):
    assert [cell.dataset for cell in grid.home("one")] == ["boats"]
    assert [cell.dataset for cell in grid.away("one")] == ["other"]
    models = {"one": {**grid.facts["models"]["one"], "trained_on": None}}
    unknown = replace(grid, facts={**grid.facts, "models": models})
    assert unknown.home("one") == []
    assert len(unknown.away("one")) == 2


@pytest.mark.parametrize(
    ("auc", "flag", "count"),
    [
        (Estimate(0.7, 0.6, 0.8), "yes", 2),
        (Estimate(0.52, 0.45, 0.6), "no", 0),
        (Estimate(0.3, 0.2, 0.4), "below", 0),
        (Estimate(None), "undefined", None),
    ],
)
def test_chance_is_flagged_and_counted(grid, auc, flag, count):
    same = changed(grid, lambda _: True, roc_auc=auc)
    assert {cell.above_chance for cell in same.cells} == {flag}
    text = f"better than chance in {count} of 2 cases"
    assert any(text in finding for finding in findings(same)) == (count is not None)


def test_models_that_rank_no_better_than_the_trivial_baseline_are_not_counted(grid):
    assert not any("trivial baseline" in finding for finding in findings(grid))
    facts = {**grid.facts, "models": {**grid.facts["models"], "trivial": grid.facts["models"]["one"]}}
    base = [replace(cell, model="trivial") for cell in grid.cells if cell.model == "one"]
    both = replace(grid, facts=facts, cells=(*grid.cells, *base))
    assert any("trivial baseline in 0 of 2 cases" in finding for finding in findings(both))
    better = changed(both, lambda cell: cell.model != "trivial", roc_auc=Estimate(0.9, 0.85, 0.95))
    better = changed(better, lambda cell: cell.model == "trivial", roc_auc=Estimate(0.6, 0.5, 0.7))
    assert any("trivial baseline in 2 of 2 cases" in finding for finding in findings(better))


def test_a_changed_protocol_counts_where_the_corrected_p_value_is_small(grid):
    def finding(**p_by_statistic):
        gaps = tuple(replace(gap, p_holm=p_by_statistic.get(gap.statistic, 1.0)) for gap in grid.protocol_gaps)
        return next(text for text in findings(replace(grid, protocol_gaps=gaps)) if "format of CIFAKE" in text)

    assert {gap.dataset for gap in grid.protocol_gaps} == {"boats", "other"}  # of which only the second is away
    none = "changes ROC AUC in 0 of 2, recall in 0 of 2, false positive rate in 0 of 2 cases"
    assert none in finding()
    assert none.replace("recall in 0", "recall in 2") in finding(recall=0.05, false_positive_rate=0.051)
    uncorrected = replace(grid, protocol_gaps=tuple(replace(gap, p_value=0.001) for gap in grid.protocol_gaps))
    assert findings(uncorrected) == findings(grid)
    assert not any("format of CIFAKE" in text for text in findings(replace(grid, protocol_gaps=())))


def test_a_promise_is_reported_as_it_was_kept(grid):
    def promised(wrong):
        cells = [
            replace(cell, confidence=replace(cell.confidence, band=Band(0.4, 0.6, 0.02), wrong=share(wrong, 100)))
            for cell in grid.cells
        ]
        return "\n".join(findings(replace(grid, cells=tuple(cells))))

    assert "is kept in 4 of 4 cases and broken in 0" in promised(1)
    assert "is kept in 0 of 4 cases and broken in 0" in promised(3)
    assert "is kept in 0 of 4 cases and broken in 4" in promised(30)


def test_whether_an_unknown_content_shows_people_is_unknown(grid):
    def said(content, shows_people):
        rate = share(1, 10)
        harm = (FalseAlarms(content, shows_people, rate),)
        table = tables_by_section(replace(grid, cells=(replace(grid.cells[0], harm=harm),)))["false_alarms"][-1]
        [row] = table.rows
        return row[list(table.header).index("shows people")]

    assert [said("person", True), said("frog", False), said(UNKNOWN, False)] == ["yes", "no", "unknown"]


def test_there_are_at_most_five_findings_of_one_line_each(grid):
    assert len(findings(grid)) <= 5
    assert max(map(len, findings(grid))) <= 120


def test_the_page_opens_with_one_figure_and_the_findings_and_all_tables_but_one_are_folded(grid, page):
    caption = page.words.index("Models on data sets, with 95% bootstrap intervals")
    assert caption < page.words.index(findings(grid)[0]) < page.words.index("All models on all data sets")
    assert len(page.all("table")) > 8
    n_sheets = len({error.file for error in grid.errors})
    assert len(page.all("details")) - n_sheets == len(page.all("table")) - 1


@pytest.mark.parametrize("name", ["one", "a-model-whose-name-is-longer-than-any-column-of-a-terminal"])
def test_the_printed_table_fits_a_hundred_columns_with_all_its_flags(grid, name):
    auc, point = Estimate(0.512, 0.401, 0.623), replace(grid.cells[0].confidence, band=Band(0.4, 0.6, 0.02))
    cells = [
        replace(cell, model=name, dataset=cell.dataset * 30, confidence=replace(point, wrong=share(30, 100)))
        for cell in changed(grid, lambda _: True, roc_auc=auc, balanced_accuracy=auc).cells
        if cell.model == "one"
    ]
    models = {name: grid.facts["models"]["one"]}
    text = to_text(replace(grid, cells=tuple(cells), facts={**grid.facts, "models": models}))
    assert max(map(len, text.splitlines())) <= 100
    assert sum(f"{auc}  {auc}  small, chance, broken" in line for line in text.splitlines()) == len(cells)


def test_the_command_prints_the_table_the_findings_and_the_path_of_the_report(grid, folder):
    printed = (folder.parent / "printed.txt").read_text()
    assert max(map(len, printed.splitlines()[:-1])) <= 100
    assert printed.startswith(to_text(grid))
    said = " ".join(printed.split())
    assert all(text in said for text in (*findings(grid), *warnings(grid)))
    assert said.endswith(f"report: {folder / 'grid.html'}")


def test_a_grid_is_published_as_numbers_table_page_and_figure(folder, grid, tmp_path, capsys):
    files = [tmp_path / "crosseval.json", tmp_path / "page.html", tmp_path / "figure.png"]
    flags = ["--output_file", "--page_file", "--figure_file"]
    argv = [word for pair in zip(flags, map(str, files), strict=True) for word in pair]
    assert publish.main(["--grid", str(folder / "grid.json"), *argv]) == 0
    assert findings(grid)[0] in capsys.readouterr().out
    assert Grid.from_dict(json.loads(files[0].read_text())) == grid
    assert all(file.stat().st_size > 5000 for file in files)
    table = (tmp_path / "crosseval.md").read_text()
    assert f"| boats train | native | one | 12 / 12 | yes | {grid.cells[0].report.balanced_accuracy} |" in table


def test_a_published_page_shows_the_errors_of_the_named_sets_alone(folder, grid, tmp_path):
    def sheets(*shown):
        argv = ["--page_file", str(tmp_path / "page.html"), *shown]
        assert publish.main(["--grid", str(folder / "grid.json"), *argv]) == 0
        images = Page((tmp_path / "page.html").read_text(encoding="utf-8")).all("img")
        return {image["alt"].split(":")[0] for image in images if image.get("class") == "sheet"}

    assert sheets() == set()
    named = {error.model for error in grid.errors if error.dataset == "other"}
    assert sheets("--shown", "other") == {f"{name} on other train" for name in named} != set()


def test_something_else_than_a_grid_is_refused_in_a_sentence(tmp_path, capsys):
    (tmp_path / "grid.json").write_text("{}")
    assert publish.main(["--grid", str(tmp_path / "grid.json"), "--output_file", str(tmp_path / "out.json")]) == 1
    assert f"a grid of crosseval.py in {tmp_path / 'grid.json'}" in capsys.readouterr().err
    assert not (tmp_path / "out.json").exists()


def test_robustness_is_published_with_its_table(folder, grid, tmp_path, capsys):
    file = tmp_path / "robustness.json"
    argv = ["--robustness_file", str(file), "--robustness_figure", str(tmp_path / "figure.png")]
    assert publish.main(["--grid", str(folder / "grid.json"), *argv]) == 0
    step = grid.robustness[0].of_kind("jpeg")[-1]
    assert f"| jpeg 10 | {step.roc_auc} | {step.balanced_accuracy} |" in file.with_suffix(".md").read_text()
    assert len(json.loads(file.read_text())["robustness"]) == 2
    bare = {**json.loads((folder / "grid.json").read_text()), "robustness": []}
    (tmp_path / "bare.json").write_text(json.dumps(bare))
    assert publish.main(["--grid", str(tmp_path / "bare.json"), *argv]) == 1
    assert "with one data set in" in capsys.readouterr().err


def test_a_cell_survives_its_dictionary(grid):
    plain = json.loads(json.dumps(to_plain(grid.cells[0])))
    assert "harm" in plain
    assert from_plain(Cell, plain) == grid.cells[0]


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
@pytest.mark.parametrize(("size", "dark"), [((360, 740), False), ((1280, 900), True)])
def test_in_a_browser_nothing_is_broken_and_the_page_never_moves_sideways(folder, page, tmp_path, size, dark):
    found = seen(folder / "grid.html", tmp_path, size=size, dark=dark)
    assert (found["images"], found["broken"]) == (len(page.all("img")), 0)
    assert found["width"] == found["client"] <= size[0]
    assert found["dark"] == (len(page.all("source")) if dark else 0)
    assert found["ground"] == ("rgb(22, 24, 28)" if dark else "rgb(255, 255, 255)")
    assert found["small"] == 0
