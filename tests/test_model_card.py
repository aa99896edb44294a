"""The model card holds the numbers of the run and of the published results."""

import json
import re
import shutil
from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from huggingface_hub.repocard_data import model_index_to_eval_results

from realfake_hf.hub.model_card import make_card

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
    cells = [cell for cell in grid["cells"] if cell["model"] == model and not cell["split"].endswith("leak-free")]
    assert len(rows) == len(cells)
    for row, cell in zip(rows, cells, strict=True):
        assert row.startswith(f"| {cell['dataset']} {cell['split']} | {cell['protocol']} | {cell['report']['n']:,} |")
        for value in (cell["report"]["roc_auc"], cell["report"]["ece"], cell["confidence"]["wrong"]):
            assert f"| {value['value']:.3f} (" in row
    point = json.loads((MODELS / name / "operating_point.json").read_text())
    assert f"**Threshold:** {point['threshold']:.4g} (" in card
    assert f"**Unsure band:** {point['band']['low']:.4g} to {point['band']['high']:.4g}, " in card


def test_the_card_of_the_repository_is_that_of_the_best_checkpoint():
    card = ModelCard((ROOT / "model_card.md").read_text(encoding="utf-8"))
    best = max(
        (file.parent for file in MODELS.glob("*/metrics.json")),
        key=lambda folder: _metrics(folder)["validation"]["accuracy"]["value"],
    )
    assert f"# {best.name}" in card.text
    assert f"{_metrics(best)['test']['accuracy']['value']:.3f} (" in card.text


def _metrics(folder):
    return json.loads((folder / "metrics.json").read_text())


def test_the_card_of_a_run_without_further_results_says_so(tmp_path):
    folder = shutil.copytree(MODELS / "cifake-cnn", tmp_path / "run")
    card = make_card(folder, repo_id="user/mine")
    assert "Not evaluated. Expect accuracy near chance" in card.text
    assert "outside its unsure band were wrong" not in card.text
    assert "# mine" in card.text
