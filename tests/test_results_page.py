"""The tables beside the results files hold their numbers, and one page collects them."""

from pathlib import Path

import pytest

from realfake_hf.experiments import ablation, compare, data_audit, results_page, seeds, transfer
from realfake_hf.experiments.search import table as search
from realfake_hf.explain_study import report as explanation_study
from realfake_hf.store import read_json
from realfake_hf.training import posthoc

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "results"
TABLES = {
    "ablation_vit_tiny": ablation,
    "cifake_audit": data_audit,
    "cifake_cnn": seeds,
    "cifake_comparison": compare,
    "explanation_study": explanation_study,
    "familiarity": posthoc,
    "paper_search": search,
    "shortcuts_cifake": data_audit,
    "shortcuts_diffusiondb_coco_imagenet": data_audit,
    "shortcuts_progan_lsun": data_audit,
    "shortcuts_wild_art_kaggle_layout": data_audit,
    "transfer": transfer,
    "vit_tiny_cifake_32": seeds,
}


def rows(markdown):
    return [line for line in markdown.splitlines() if line.startswith("|")]


@pytest.mark.parametrize("name", TABLES)
def test_a_table_has_the_rows_of_its_results_file(name):
    table = (RESULTS / f"{name}.md").read_text(encoding="utf-8")
    assert rows(table) == rows(TABLES[name].to_markdown(read_json(RESULTS / f"{name}.json")))


def test_every_results_file_has_a_section():
    assert {file.stem for file in RESULTS.glob("*.json")} == set(results_page.SECTIONS)


def test_the_page_has_every_table_under_its_heading_in_order():
    page = ROOT / "docs/results.md"
    text = page.read_text(encoding="utf-8")
    places = []
    for name, (heading, _, command) in results_page.SECTIONS.items():
        table = RESULTS / f"{name}.md"
        if table.exists():
            places.append(text.index(f"\n## {heading}\n"))
            assert f"`{command}`" in text[places[-1] :]
            assert rows(table.read_text(encoding="utf-8"))[0] in text[places[-1] :], "run: make results"
    assert places == sorted(places)


def test_tables_that_do_not_exist_are_left_out(tmp_path):
    (tmp_path / "transfer.md").write_text("| a table |\n")
    words = ["--results", str(tmp_path), "--output_file", str(tmp_path / "page.md")]
    assert results_page.main(words) == 0
    text = (tmp_path / "page.md").read_text()
    assert text.count("\n## ") == 1
    assert "| a table |" in text
