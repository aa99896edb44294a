import json
import re
from pathlib import Path

import pytest

import train
from realfake_hf.detector import Detector
from realfake_hf.publish import readme, results

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two short runs on the demo set that differ in their seed."""
    folder = tmp_path_factory.mktemp("runs")
    for seed in ("0", "1"):
        flags = ["--num_train_epochs", "1", "--num_filters", "4", "--dense_units", "4", "--bootstrap_samples", "20"]
        recipe = ["--config", str(ROOT / "recipes/demo.yaml"), "--seed", seed]
        assert train.main([*recipe, *flags, "--output_dir", str(folder / f"seed-{seed}")]) == 0
    return [folder / "seed-0", folder / "seed-1"]


def test_the_summary_has_every_run_their_mean_and_their_deviation(runs):
    summary = results.summarize([results.read_run(folder) for folder in runs])
    accuracy = summary["test"]["statistics"]["accuracy"]
    each = [json.loads((folder / "metrics.json").read_text())["test"]["accuracy"]["value"] for folder in runs]
    assert summary["seeds"] == [0, 1]
    assert accuracy["runs"] == each
    assert accuracy["mean"] == pytest.approx(sum(each) / 2)
    assert accuracy["sd"] == pytest.approx(abs(each[0] - each[1]) / 2**0.5)
    assert summary["test"]["n"] == 390
    assert sum(row["n"] for row in summary["test"]["by_content"].values()) == 390


def test_the_model_that_is_kept_is_best_on_validation_and_loads(runs, tmp_path):
    words = [
        "--runs",
        *map(str, runs),
        "--output_file",
        str(tmp_path / "cnn.json"),
        "--model_dir",
        str(tmp_path / "cnn"),
    ]
    results.main(words)
    validation = [json.loads((folder / "metrics.json").read_text())["validation"] for folder in runs]
    best = max((0, 1), key=lambda seed: validation[seed]["accuracy"]["value"])
    assert json.loads((tmp_path / "cnn.json").read_text())["kept_seed"] == best
    assert json.loads((tmp_path / "cnn/run.json").read_text())["arguments"]["seed"] == best
    assert {file.suffix for file in (tmp_path / "cnn").iterdir() if file.is_file()} == {".json", ".safetensors", ".py"}
    Detector.from_pretrained(tmp_path / "cnn")


def test_a_run_that_did_not_end_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"wanted a finished run of train.py in .*; found none"):
        results.read_run(tmp_path)


def test_runs_that_differ_in_more_than_their_seed_are_refused(runs):
    first, second = (results.read_run(folder) for folder in runs)
    other = {**second.passport, "arguments": {**second.passport["arguments"], "learning_rate": 1.0}}
    with pytest.raises(ValueError, match="wanted runs that differ in their seed only; found other arguments or data"):
        results.summarize([first, results.Run(second.folder, other, second.outcome, second.history)])


def test_the_same_run_twice_is_refused(runs):
    first = results.read_run(runs[0])
    with pytest.raises(ValueError, match=r"wanted another seed in each run; found \[0, 0\]"):
        results.summarize([first, first])


def test_the_readme_says_what_the_results_say():
    text = (ROOT / "README.md").read_text()
    assert readme.render(text, ROOT / "results") == text


def test_a_results_block_that_nothing_renders_is_refused():
    with pytest.raises(ValueError, match=r"wanted a results block named .*; found 'weather'"):
        readme.render("<!-- results: weather -->\n<!-- end -->", ROOT / "results")


def test_the_readme_names_files_and_make_targets_that_exist():
    text = (ROOT / "README.md").read_text()
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", text) if not link.startswith("http")]
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert [link for link in links if not (ROOT / link).exists()] == []
    assert set(re.findall(r"`make ([a-z]+)`", text)) <= targets


def test_the_published_cnn_has_the_figures_of_its_results():
    summary = json.loads((ROOT / "results/cifake_cnn.json").read_text())
    metrics = json.loads((ROOT / "space/models/cifake-cnn/metrics.json").read_text())
    position = summary["seeds"].index(summary["kept_seed"])
    assert metrics["test"]["accuracy"]["value"] == summary["test"]["statistics"]["accuracy"]["runs"][position]
    assert (ROOT / "space/models/cifake-cnn/model.safetensors").stat().st_size < 1_000_000
