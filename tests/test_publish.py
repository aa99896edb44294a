import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from transformers import pipeline

import train
from realfake_hf.data.loading import load_images
from realfake_hf.detector import Detector
from realfake_hf.experiments import compare
from realfake_hf.experiments import seeds as results
from realfake_hf.hub import readme

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
    kept, own = (json.loads((place / "operating_point.json").read_text()) for place in (tmp_path / "cnn", runs[best]))
    assert Detector.from_pretrained(tmp_path / "cnn").point.to_dict() == kept == own


def test_a_run_that_did_not_end_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"wanted a finished run of train.py in .*; found none"):
        results.read_run(tmp_path)


def test_runs_that_differ_in_more_than_their_seed_are_refused(runs):
    first, second = (results.read_run(folder) for folder in runs)
    other = {**second.record, "arguments": {**second.record["arguments"], "learning_rate": 1.0}}
    with pytest.raises(ValueError, match="wanted runs that differ in their seed only; found other arguments or data"):
        results.summarize([first, results.Run(second.folder, other, second.outcome, second.history)])


def test_the_same_run_twice_is_refused(runs):
    first = results.read_run(runs[0])
    with pytest.raises(ValueError, match=r"wanted another seed in each run; found \[0, 0\]"):
        results.summarize([first, first])


@pytest.mark.parametrize("page", ["README.md", "docs/scale.md", "docs/topologies.md"])
def test_the_readme_says_what_the_results_say(page):
    text = (ROOT / page).read_text()
    assert readme.render(text, ROOT / "results") == text


def test_a_results_block_that_nothing_renders_is_refused():
    with pytest.raises(ValueError, match=r"wanted a results block named .*; found 'weather'"):
        readme.render("<!-- results: weather -->\n<!-- end -->", ROOT / "results")


def test_the_readme_block_of_an_ablation_says_what_each_change_buys(tmp_path):
    spread = {"mean": 0.95, "sd": 0.002, "runs": [0.948, 0.952]}
    row = {"seeds": [0, 1], "eval_accuracy": spread}
    variants = {
        "baseline": {**row, "changes": {}, "gain": {"mean": 0.0, "sd": 0.0, "runs": [0, 0]}},
        "no flips": {**row, "changes": {"flip": False}, "gain": {"mean": -0.0042, "sd": 0.001, "runs": [0, 0]}},
    }
    found = {
        "settings": {"train_size": 20000, "ema_decay": 0.99}, "variants": variants,
        "data": {"train": 19998, "validation": 5000},
    }  # fmt: skip
    (tmp_path / "ablation_vit_tiny.json").write_text(json.dumps(found))
    block = readme.render("<!-- results: ablation_vit_tiny -->\n<!-- end -->", tmp_path)
    assert "| change | accuracy on validation, n = 5,000 | gain in points |" in block
    assert "| baseline | 95.00 ± 0.20 % |  |" in block
    assert "| no flips | 95.00 ± 0.20 % | -0.42 ± 0.10 |" in block
    assert "over 2 seeds, each trained on 19,998 pictures" in block
    assert "All share `train_size` 20,000, `ema_decay` 0.99. A short training" in block


def test_the_readme_block_of_two_processes_says_how_far_they_are_apart(tmp_path):
    run = {"processes": 1, "n": {"validation": 5000, "test": 20000}}
    found = {
        "runs": [run, {**run, "processes": 2}], "points": {"validation": 0.1, "test": -0.05},
        "settings": {"train_size": 20000}, "seconds_ratio": 1.25, "machine": {"cores": 2},
    }  # fmt: skip
    (tmp_path / "two_processes.json").write_text(json.dumps(found))
    block = readme.render("<!-- results: two_processes -->\n<!-- end -->", tmp_path)
    assert "2 processes beside one, the same batch in total, one pass over 20,000 pictures: " in block
    assert "+0.10 on validation (n = 5,000) and -0.05 on test (n = 20,000) points of accuracy, in 1.25 x the" in block


def test_the_readme_block_of_what_explanations_cost_has_times_memory_and_goals(tmp_path):
    def ratio(over, under, median, **bounds):
        spread = {"n": 3, "median": median, "min": median, "max": 2.0, "values": []}
        return {"over": over, "under": under, "goal": None, "limit": None, **bounds, "ratio": spread}

    ratios = [
        ratio("32/4 rollout", "32/4 eager forward", 1.1, limit=1.3),
        ratio("32/4 script", "32/4 rollout", 1.9, goal=2),
    ]
    found = {
        "rows": {
            "32/4 eager forward": {"median": 4.75}, "32/4 rollout": {"median": 5.0}, "32/4 script": {"median": 9.5},
            "32/4 relevance": {"median": 20.0},
        },
        "ratios": ratios, "memory": {"ratios": [ratio("many", "few", 1.0, limit=1.1)]},
        "settings": {"batch_size": 16}, "machine": {"cores": 2, "device": "cpu"},
    }  # fmt: skip
    (tmp_path / "benchmark_explanations.json").write_text(json.dumps(found))
    block = readme.render("<!-- results: benchmark_explanations -->\n<!-- end -->", tmp_path)
    assert "| time: 32/4 rollout / 32/4 eager forward | 1.10 (1.10-2.00, 3 rounds) | at most 1.3 |" in block
    assert "| time: 32/4 script / 32/4 rollout | 1.90 (1.90-2.00, 3 rounds) | at least 2 |" in block
    assert "| memory: many / few | 1.00 (1.00-2.00, 3 rounds) | at most 1.1 |" in block
    assert (
        "batches of 16 unless it says one at a time, on 2 cores: 32/4 rollout 200 images/s, 32/4 relevance 50" in block
    )
    del found["memory"]  # of ways that are all in one process
    found["commit"] = "0123456789abcdef"
    found["machine"]["device"] = "Accelerator 9"
    (tmp_path / "benchmark_explanations_gpu.json").write_text(json.dumps(found))
    block = readme.render("<!-- results: benchmark_explanations_gpu -->\n<!-- end -->", tmp_path)
    assert "memory" not in block
    assert "as of commit 0123456." in block
    assert "one at a time, on one Accelerator 9: 32/4 rollout 200 images/s" in block


def search_row(stage, shape, accuracy, *, seed=0, device="cpu", **facts):
    names = ("num_filters", "num_conv_layers", "dense_units", "num_dense_layers")
    measured = dict.fromkeys(("accuracy", "precision", "recall", "f1", "nll"), accuracy)
    return {
        "stage": stage, "topology": dict(zip(names, shape, strict=True)), "seed": seed, "validation": measured,
        "test": measured, "n": {"train": 95_000, "validation": 5_000, "test": 20_000}, "parameters": shape[0] * 1000,
        "seconds": 60.0, "machine": {"device": device, "cores": 2}, **facts,
    }  # fmt: skip


def test_the_readme_block_of_the_search_says_who_won_and_what_is_missing(tmp_path):
    rows = [
        search_row("extractors", (32, 2, 64, 1), 0.93), search_row("extractors", (64, 2, 64, 1), 0.95),
        search_row("heads", (64, 2, 128, 1), 0.96), search_row("heads", (64, 2, 32, 1), 0.94),
        search_row("top", (64, 2, 128, 1), 0.97), search_row("top", (64, 2, 128, 1), 0.96, seed=1, bf16=True),
        search_row("top", (32, 2, 64, 1), 0.94, device="Accelerator 9"), search_row("top", (64, 2, 32, 1), 0.98),
    ]  # fmt: skip
    found = {"settings": {"num_train_epochs": 6.0}, "waiting": 2, "rows": rows}
    (tmp_path / "paper_search.json").write_text(json.dumps(found))
    block = readme.render("<!-- results: paper_search -->\n<!-- end -->", tmp_path)
    assert "| 2 x 64 filters, 1 x 128 units | 64,000 | 20,000 | 2 | 96.50 ± 0.71 % |" in block
    assert "the best on validation has 2 x 64 filters (95.00 %); the paper's, 2 x 32 filters, is number 2" in block
    assert "Of 2 heads on it the best has 1 x 128 units (96.00 %), 2.00 points above the last one." in block
    assert "does not win: on the test split it reaches 94.00 % with one seed" in block
    assert "+2.50 points for 2.0 times the parameters" in block
    assert "2 trainings of this search are still to come." in block
    page = readme.render("<!-- results: paper_search_all -->\n<!-- end -->", tmp_path)
    assert "6 on 2 cores in float32, 1 on 2 cores in bfloat16, 1 on one Accelerator 9 in float32" in page
    assert page.index("## Extractors") < page.index("## Heads") < page.index("## Top")


def test_where_the_papers_topology_wins_the_readme_says_so(tmp_path):
    rows = [search_row(stage, (32, 2, 64, 1), 0.93) for stage in ("extractors", "heads", "top")]
    found = {"settings": {"num_train_epochs": 6.0}, "waiting": 0, "rows": rows}
    (tmp_path / "paper_search.json").write_text(json.dumps(found))
    block = readme.render("<!-- results: paper_search -->\n<!-- end -->", tmp_path)
    assert "On all pictures the paper's winner wins here, too." in block
    assert "still to come" not in block


def test_the_readme_block_of_bfloat16_says_what_changes(tmp_path):
    found = {
        "ratios": [{"ratio": {"n": 3, "median": 2.0, "min": 1.9, "max": 2.1}}], "machine": {"cores": 2},
        "changes": {
            "here": {
                "n": 2000, "largest_difference": 0.0123, "mean_difference": 0.0001, "other_labels": 1,
                "other_decisions": 2,
            }
        },
    }  # fmt: skip
    (tmp_path / "bfloat16.json").write_text(json.dumps(found))
    block = readme.render("<!-- results: bfloat16 -->\n<!-- end -->", tmp_path)
    assert "the ViT answers 2.00 x as fast (1.90-2.10, 3 rounds, 2 cores)" in block
    assert "here (2,000 pictures): `p_fake` by at most 0.012, on average 0.00010, 1 other labels, 2 others" in block


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


def compare_words(folders, output, *flags, data="demo"):
    """The command line that compares folders, by name."""
    models = [f"{name}={folder}" for name, folder in folders.items()]
    return ["--models", *models, "--data", data, "--output_file", str(output), "--bootstrap_samples", "20", *flags]


@pytest.fixture(scope="module")
def compared(runs, tmp_path_factory):
    """The folder that a comparison of the two runs left: the file of its results, and its figure."""
    folder = tmp_path_factory.mktemp("compared") / "results"
    figure = folder / "figures/accuracy_against_time.png"
    words = compare_words({"first": runs[0], "second": runs[1]}, folder / "cifake_comparison.json")
    assert compare.main([*words, "--figure_file", str(figure)]) == 0
    return folder


@pytest.fixture(scope="module")
def comparison(compared):
    return json.loads((compared / "cifake_comparison.json").read_text())


def test_each_model_is_measured_as_its_own_training_measured_it(runs, comparison):
    for name, folder in zip(("first", "second"), runs, strict=True):
        own, found = json.loads((folder / "metrics.json").read_text()), comparison["models"][name]
        for test in ("test", "test_leak_free"):
            assert found[test]["n"] == own[test]["n"]
            assert found[test]["bootstrap_samples"] == 20
            for statistic in ("accuracy", "roc_auc", "ece", "brier"):
                assert found[test][statistic]["value"] == pytest.approx(own[test][statistic]["value"], abs=1e-3)
            assert found[test]["by_content"].keys() == own[test]["by_content"].keys()


def test_a_model_has_its_size_and_what_its_training_took(runs, comparison):
    for name, folder in zip(("first", "second"), runs, strict=True):
        record, found = json.loads((folder / "run.json").read_text()), comparison["models"][name]
        assert found["parameters"] == Detector.from_pretrained(folder).model.num_parameters()
        assert found["seed"] == record["arguments"].get("seed", 0)
        assert found["training"]["seconds"] == record["seconds"]
        assert found["training"]["machine"] == record["machine"]


def test_the_pair_counts_the_images_that_the_two_models_call_rightly(runs, comparison):
    [pair] = comparison["pairs"]
    rows = load_images("demo")["test"]
    is_fake = np.array(rows["label"][:]) == 1
    a, b = ((Detector.from_pretrained(run).probabilities(rows["image"]) > 0.5) == is_fake for run in runs)
    assert (pair["a"], pair["b"]) == ("first", "second")
    assert pair["test"]["n"] == 390
    assert [pair["test"][cell] for cell in ("both_right", "only_a", "only_b", "both_wrong")] == [
        (a & b).sum(), (a & ~b).sum(), (~a & b).sum(), (~a & ~b).sum(),
    ]  # fmt: skip
    assert pair["test_leak_free"]["n"] == comparison["models"]["first"]["test_leak_free"]["n"]


def test_the_comparison_names_its_data_code_and_machine(comparison):
    assert comparison["data"]["source"] == "demo"
    assert comparison["data"]["test"]["n"] == 390
    assert {"commit", "versions", "machine", "threshold"} <= set(comparison)


def test_the_figure_of_a_comparison_can_be_opened(compared):
    assert (compared / "figures/accuracy_against_time.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(("source", "lines"), [("cifake", 1), ("demo", 0)])
def test_only_among_models_of_cifake_stands_the_paper(runs, source, lines):
    images = load_images("demo")
    images["test"] = images["test"].remove_columns("source").add_column("source", [source] * 390)
    candidates = [compare.load_candidate(folder.name, folder) for folder in runs]
    figure = compare.draw(compare.compare(candidates, images, bootstrap_samples=0), images)
    assert sum("the paper" in text.get_text() for text in figure.axes[0].texts) == lines
    assert len(figure.axes[0].texts) == 2 + lines


def test_the_readme_block_of_a_comparison_has_a_row_for_each_model_and_speaks_of_each_pair(compared, comparison):
    block = readme.render("<!-- results: cifake_comparison -->\n<!-- end -->", compared)
    head, _, *rows, _, note, _ = block.splitlines()[1:]
    assert head.startswith(
        "| model | parameters | accuracy, n = 390 | leak-free, n = 390 | at validation's threshold |"
    )
    for row, (name, model) in zip(rows, comparison["models"].items(), strict=True):
        test = model["test"]
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        assert cells[:2] == [name, f"{model['parameters']:,}"]
        assert cells[2].startswith(f"{100 * test['accuracy']['value']:.2f} % ({100 * test['accuracy']['low']:.2f}-")
        assert cells[7].startswith(
            f"{test['false_positives'] + test['false_negatives']} ({test['false_positives']} + "
        )
        assert cells[8] == f"{model['training']['seconds'] / 60:.1f} ({model['training']['machine']['cores']} cores)"
    assert "McNemar's exact test" in note
    assert f"only first is right on {comparison['pairs'][0]['test']['only_a']} of 390 images, only second on" in note


def test_the_threshold_is_the_one_that_the_model_carries(runs, comparison):
    test = load_images("demo")["test"]
    for name, folder in zip(("first", "second"), runs, strict=True):
        found = comparison["models"][name]["test_at_threshold"]
        threshold = json.loads((folder / "operating_point.json").read_text())["threshold"]
        p_fake = Detector.from_pretrained(folder).probabilities(test["image"])
        assert found["threshold"] == threshold
        right = (p_fake > threshold) == np.array(test["label"][:])
        assert found["accuracy"]["value"] == pytest.approx(right.mean())


def test_a_model_that_carries_no_threshold_is_named_before_any_data_are_read(runs, tmp_path, capsys):
    shutil.copytree(runs[0], tmp_path / "bare", ignore=shutil.ignore_patterns("operating_point.json", "checkpoint-*"))
    assert (
        compare.main(compare_words({"a": runs[1], "b": tmp_path / "bare"}, tmp_path / "o.json", data="nowhere")) == 1
    )
    assert "wanted the threshold of b, chosen on validation, in" in capsys.readouterr().err


def test_a_model_equals_itself_and_the_table_is_printed(runs, tmp_path, capsys):
    output = tmp_path / "new" / "same.json"
    assert compare.main(compare_words({"one": runs[0], "two": runs[0]}, output)) == 0
    saved = json.loads(output.read_text())
    assert saved["pairs"][0]["test"]["p_value"] == 1
    assert saved["models"]["one"] == saved["models"]["two"]
    printed = capsys.readouterr().out
    assert printed.startswith(readme.comparison_table(saved))
    assert "| one right | " in printed


@pytest.mark.parametrize(
    ("models", "sentence"),
    [
        (["cnn=a"], "wanted two or more --models; found cnn"),
        (["cnn=a", "cnn=b"], "wanted a name of its own for each of --models; found cnn, cnn."),
        (["cnn=a", "b"], "wanted --models NAME=FOLDER, names of letters and digits; found 'b'."),
        (["cnn=a", "=b"], "wanted --models NAME=FOLDER, names of letters and digits; found '=b'."),
    ],
)
def test_models_that_cannot_be_compared_end_with_status_2(models, sentence, capsys):
    with pytest.raises(SystemExit) as stop:
        compare.main(["--models", *models, "--data", "nowhere", "--output_file", "out.json"])
    assert stop.value.code == 2
    assert capsys.readouterr().err.strip().endswith(sentence)


def test_a_folder_that_is_not_there_is_named_before_any_data_are_read(runs, tmp_path, capsys):
    folders = {"cnn": runs[0], "vit": tmp_path / "vit"}
    assert compare.main(compare_words(folders, tmp_path / "out.json", data="nowhere")) == 1
    said = capsys.readouterr().err.strip()
    assert said.endswith(f"compare: wanted a folder of train.py for vit; found none at {tmp_path / 'vit'}.")


def value(test):
    return test["accuracy"]["value"]


def copy_with_metrics(run, folder, change):
    """Copy a run and change what its metrics.json says of the test."""
    shutil.copytree(run, folder, ignore=shutil.ignore_patterns("checkpoint-*", "figures"))
    metrics = json.loads((folder / "metrics.json").read_text())
    change(metrics["test"])
    (folder / "metrics.json").write_text(json.dumps(metrics))
    return metrics


@pytest.mark.parametrize(("off", "status"), [(0.0004, 0), (-0.0006, 1)])
def test_a_model_that_is_not_as_accurate_as_it_says_is_refused(runs, tmp_path, off, status, capsys):
    metrics = copy_with_metrics(
        runs[1], tmp_path / "other", lambda test: test["accuracy"].update(value=off + value(test))
    )
    words = compare_words({"cnn": runs[0], "other": tmp_path / "other"}, tmp_path / "out.json")
    assert compare.main(words) == status
    assert (tmp_path / "out.json").exists() == (status == 0)
    stated = metrics["test"]["accuracy"]["value"]
    sentence = (
        f"compare: wanted the test accuracy of {stated:.4f} that metrics.json of other states; found "
        f"{stated - off:.4f} on 390 images. The data are not those of its training, or the weights are not those that "
        "were measured."
    )
    assert (sentence in capsys.readouterr().err) == (status == 1)


def test_a_model_that_was_measured_on_other_images_is_refused(runs, tmp_path, capsys):
    copy_with_metrics(runs[1], tmp_path / "other", lambda test: test.update(n=20_000))
    words = compare_words({"cnn": runs[0], "other": tmp_path / "other"}, tmp_path / "out.json")
    assert compare.main(words) == 1
    assert (
        "compare: wanted the 20,000 test images on which metrics.json of other was measured; found 390. Give the "
        in (capsys.readouterr().err)
    )


def test_the_published_vit_has_the_figures_of_its_results():
    summary = json.loads((ROOT / "results/vit_tiny_cifake_32.json").read_text())
    metrics = json.loads((ROOT / "space/models/cifake-vit/metrics.json").read_text())
    assert metrics["test"]["accuracy"]["value"] == summary["test"]["statistics"]["accuracy"]["runs"][0]
    assert summary["data"]["test"]["n"] == 20_000


@pytest.mark.slow
def test_the_published_vit_loads_in_a_plain_pipeline_and_is_as_good_as_it_says(cifake_archive):
    classify = pipeline("image-classification", model=str(ROOT / "space/models/cifake-vit"))
    rows = load_images(cifake_archive)["test"].select(range(400))
    answers = classify([picture.convert("RGB") for picture in rows["image"]], batch_size=100)
    called_fake = np.array([answer[0]["label"] == "FAKE" for answer in answers])
    stated = json.loads((ROOT / "space/models/cifake-vit/metrics.json").read_text())["test"]["accuracy"]["value"]
    found = np.mean(called_fake == (np.array(rows["label"][:]) == 1))
    assert abs(found - stated) < 4 * (stated * (1 - stated) / 400) ** 0.5


def test_the_readme_block_of_two_machines_says_what_differs(tmp_path):
    training = {
        "runs": [{"n": {"validation": 5000, "test": 20000}}], "points": {"validation": 0.1, "test": -0.05},
        "allowed_points": 0.3,
    }  # fmt: skip
    grid = {"n": 4000, "models": 2, "values": 1234, "values_apart": 0}
    found = {"are_apart": True, "training": training, "grid": grid, "settings": {"train_size": 20000}}
    (tmp_path / "two_nodes.json").write_text(json.dumps(found))
    block = readme.render("<!-- results: two_nodes -->\n<!-- end -->", tmp_path)
    assert "Two machines (two network namespaces joined by a virtual cable) beside one" in block
    assert "+0.10 on validation (n = 5,000) and -0.05 on test (n = 20,000) points of accuracy (allowed: 0.3)" in block
    assert "A grid of 2 models on 4,000 pictures: 0 of 1,234 values differ in any digit." in block
