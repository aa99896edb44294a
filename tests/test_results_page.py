"""The tables beside the results files hold their numbers, and one page collects them."""

from pathlib import Path

import pytest

from benchmarks import (
    bfloat16,
    data_ready,
    detector_throughput,
    explanation_throughput,
    first_verdict,
    grid_throughput,
    install_size,
    processes,
    scaling,
    scoring_throughput,
    space_load,
    streaming_memory,
    time_to_accuracy,
    training_throughput,
    two_nodes,
    verdict_latency,
    vit_throughput,
)
from realfake_hf.crosseval import tables as crosseval
from realfake_hf.crosseval.grid import Grid
from realfake_hf.crosseval.robustness import Robustness, robustness_table
from realfake_hf.estimate import from_plain
from realfake_hf.experiments import (
    ablation,
    compare,
    data_audit,
    entity_masks,
    heads,
    out_of_fold,
    peers,
    seeds,
    transfer,
)
from realfake_hf.experiments.search import table as search
from realfake_hf.explain_study import report as explain_study
from realfake_hf.store import read_json
from realfake_hf.training import posthoc
from tests.faults import __main__ as faults
from tools import results_page

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "results"
TABLES = {  # name of a results file -> what renders its content
    "ablation_vit_tiny": ablation.to_markdown,
    "benchmark_data": data_ready.to_markdown,
    "benchmark_detector": detector_throughput.to_markdown,
    "benchmark_explanations": explanation_throughput.to_markdown,
    "benchmark_explanations_gpu": explanation_throughput.to_markdown,
    "benchmark_first_verdict": first_verdict.to_markdown,
    "benchmark_time_to_accuracy": time_to_accuracy.to_markdown,
    "benchmark_grid": grid_throughput.to_markdown,
    "benchmark_install": install_size.to_markdown,
    "benchmark_scoring": scoring_throughput.to_markdown,
    "benchmark_scoring_wild": scoring_throughput.to_markdown,
    "benchmark_space": space_load.to_markdown,
    "benchmark_streaming": streaming_memory.to_markdown,
    "benchmark_training": training_throughput.to_markdown,
    "benchmark_verdict": verdict_latency.to_markdown,
    "benchmark_vit": vit_throughput.to_markdown,
    "bfloat16": bfloat16.to_markdown,
    "cifake_audit": data_audit.to_markdown,
    "cifake_cnn": seeds.to_markdown,
    "cifake_comparison": compare.to_markdown,
    "crosseval": lambda content: crosseval.to_markdown(Grid.from_dict(content), folded=False),
    "entity_masks": entity_masks.to_markdown,
    "explanation_study": explain_study.to_markdown,
    "familiarity": posthoc.to_markdown,
    "faults": faults.to_markdown,
    "paper_search": search.to_markdown,
    "robustness_cifake": lambda content: robustness_table(
        [from_plain(Robustness, row) for row in content["robustness"]]
    ).to_markdown(),
    "scaling": scaling.to_markdown,
    "shortcuts_cifake": data_audit.to_markdown,
    "shortcuts_diffusiondb_coco_imagenet": data_audit.to_markdown,
    "shortcuts_progan_lsun": data_audit.to_markdown,
    "shortcuts_wild_art_kaggle_layout": data_audit.to_markdown,
    "transfer": transfer.to_markdown,
    "two_nodes": two_nodes.to_markdown,
    "two_processes": processes.to_markdown,
    "vit_tiny_cifake_32": seeds.to_markdown,
    "wild": out_of_fold.to_markdown,
    "wild_heads": heads.to_markdown,
    "wild_peers": peers.to_markdown,
}


def rows(markdown):
    return [line for line in markdown.splitlines() if line.startswith("|")]


@pytest.mark.parametrize("name", TABLES)
def test_a_table_has_the_rows_of_its_results_file(name):
    table = (RESULTS / f"{name}.md").read_text(encoding="utf-8")
    assert rows(table) == rows(TABLES[name](read_json(RESULTS / f"{name}.json")))


def test_every_results_file_has_a_section():
    assert {file.stem for file in RESULTS.glob("*.json")} == set(results_page.SECTIONS) == set(TABLES)


def test_the_page_has_every_table_under_its_heading_in_order():
    page = ROOT / "docs/results.md"
    text = page.read_text(encoding="utf-8")
    places = []
    for name, (heading, _, command) in results_page.SECTIONS.items():
        places.append(text.index(f"\n## {heading}\n"))
        assert f"`{command}`" in text[places[-1] :]
        table = (RESULTS / f"{name}.md").read_text(encoding="utf-8")
        assert "\n".join(rows(table)) in "\n".join(rows(text[places[-1] :])), "run: make results"
    assert places == sorted(places)


def test_tables_that_do_not_exist_are_left_out(tmp_path):
    (tmp_path / "transfer.md").write_text("| a table |\n")
    words = ["--results", str(tmp_path), "--output_file", str(tmp_path / "page.md")]
    assert results_page.main(words) == 0
    text = (tmp_path / "page.md").read_text()
    assert text.count("\n## ") == 1
    assert "| a table |" in text
