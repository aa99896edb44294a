"""The model card holds the numbers of the run and of the published results."""

import json
import re
import shutil
from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from huggingface_hub.repocard_data import model_index_to_eval_results

from realfake_hf.hub.model_card import make_card
from realfake_hf.metrics.operating_point import load_operating_point
from realfake_hf.run_folder import read_run
from realfake_hf.store import write_json

ROOT = Path(__file__).resolve().parents[1]
MODELS = ROOT / "space/models"


@pytest.mark.parametrize("name", ["cifake-cnn", "cifake-vit"])
def test_the_cards_of_both_models_are_complete(name):
    card = make_card(MODELS / name, repo_id=f"user/{name}", results=ROOT / "results")
    data = ModelCard(str(card)).data
    assert (data.pipeline_tag, data.license, data.library_name) == ("image-classification", "mit", "transformers")
    assert data.datasets is None
    _, rows = model_index_to_eval_results(json.loads(json.dumps(data.to_dict()["model-index"])))
    sets = {(row.dataset_name, row.dataset_split) for row in rows}
    home = "CIFAKE, archive of its authors"
    assert {(home, "test"), (home, "test, leak-free"), ("wild-art", "train")} <= sets
    metrics = json.loads((MODELS / name / "metrics.json").read_text())
    [accuracy] = [row for row in rows if (row.dataset_split, row.metric_type) == ("test", "accuracy")]
    assert accuracy.metric_value == pytest.approx(metrics["test"]["accuracy"]["value"], abs=1e-6)
    for title in ("Model Details", "Uses", "Bias, Risks, and Limitations", "How to Get Started with the Model",
                  "Training Details", "Evaluation", "Environmental Impact", "Citation", "Out-of-Scope Use",
                  "Operating Point", "Other Data Sets", "Robustness",
                  "Distance from the Training Data", "Explanations"):  # fmt: skip
        assert f"## {title}" in card.text
    assert not re.search(r"None|undefined|\{\{|nan", card.text)
    assert ("trust_remote_code=True" in card.text) == (name == "cifake-cnn")


@pytest.mark.parametrize("name", ["cifake-cnn", "cifake-vit"])
def test_the_evaluation_in_the_card_is_that_of_the_published_grid(name):
    card = make_card(MODELS / name, repo_id=f"user/{name}", results=ROOT / "results").text
    grid = json.loads((ROOT / "results/crosseval.json").read_text())
    model = name.removeprefix("cifake-")
    rows = [line for line in card.splitlines() if " | native | " in line or " | matched | " in line]
    cells = [
        cell
        for cell in grid["cells"]
        if cell["model"] == model and not cell["split"].endswith(("leak-free", "no near-duplicate"))
    ]
    assert len(rows) == len(cells)
    for row, cell in zip(rows, cells, strict=True):
        assert row.startswith(f"| {cell['dataset']} {cell['split']} | {cell['protocol']} | {cell['report']['n']:,} |")
        for value in (cell["report"]["roc_auc"], cell["report"]["ece"], cell["confidence"]["wrong"]):
            assert f"| {value['value']:.3f} (" in row
    point = load_operating_point(MODELS / name)
    assert f"**Threshold:** {point.threshold:.4g} (" in card
    assert f"**Temperature:** {point.temperature:.4g}, the divisor of the log-odds" in card
    assert f"**Unsure band:** {point.band.low:.4g} to {point.band.high:.4g}, " in card
    assert "its scores are those before temperature scaling" in card


def test_the_card_of_the_repository_is_that_of_the_best_checkpoint():
    card = ModelCard((ROOT / "model_card.md").read_text(encoding="utf-8"))
    best = max(
        (file.parent for file in MODELS.glob("*/metrics.json")),
        key=lambda folder: _metrics(folder)["validation"]["accuracy"]["value"],
    )
    assert f"# {best.name}" in card.text
    assert f"{_metrics(best)['test']['accuracy']['value']:.3f} (" in card.text


def test_the_card_has_the_tests_without_near_duplicates_and_where_the_copies_lie(tmp_path):
    folder = shutil.copytree(MODELS / "cifake-cnn", tmp_path / "run")
    outcome, metrics = read_run(folder).outcome, json.loads((folder / "metrics.json").read_text())
    metrics["test_no_near_duplicate"] = {**metrics["test"], "n": 19_491}
    metrics["ece_before"] = {
        name: {"value": 0.0123, "low": None, "high": None}
        for name in ("validation", *outcome.tests, "test_no_near_duplicate")
    }
    write_json(folder / "metrics.json", metrics)
    results = shutil.copytree(
        ROOT / "results", tmp_path / "results", ignore=shutil.ignore_patterns("*.html", "figures")
    )
    audit = json.loads((results / "cifake_audit.json").read_text())
    write_json(results / "cifake_audit.json", {**audit, "leaked_to": {"train": 366, "validation": 12}})
    card = make_card(folder, repo_id="user/mine", results=results)
    assert "| official, n = 20,000 | leak-free, n = 19,622 | no near-duplicate, n = 19,491 |" in card.text
    assert "| ece before temperature scaling | 0.012 | 0.012 | 0.012 |" in card.text
    assert "also occur in train or validation (366 in train, 12 in validation); the leak-free" in card.text
    _, rows = model_index_to_eval_results(json.loads(json.dumps(ModelCard(str(card)).data.to_dict()["model-index"])))
    assert "test, no near-duplicate" in {row.dataset_split for row in rows}


def _metrics(folder):
    return json.loads((folder / "metrics.json").read_text())


def test_the_card_of_a_run_without_further_results_says_so(tmp_path):
    folder = shutil.copytree(MODELS / "cifake-cnn", tmp_path / "run")
    card = make_card(folder, repo_id="user/mine")
    assert "Not evaluated. Expect accuracy near chance" in card.text
    assert "outside its unsure band were wrong" not in card.text
    assert "# mine" in card.text
