"""Runs of several seeds are summarized, and trained models are compared on the same test images."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from transformers import pipeline

import train
from realfake_hf.data.loading import load_images
from realfake_hf.detector import Detector
from realfake_hf.estimate import to_plain
from realfake_hf.experiments import compare, figures, seeds
from realfake_hf.metrics.significance import holm
from realfake_hf.run_folder import Run, read_run

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


def test_the_summary_has_every_value_the_mean_and_the_deviation(runs):
    summary = seeds.summarize([read_run(folder) for folder in runs])
    accuracy = summary["test"]["statistics"]["accuracy"]
    each = [json.loads((folder / "metrics.json").read_text())["test"]["accuracy"]["value"] for folder in runs]
    assert summary["seeds"] == [0, 1]
    assert accuracy["runs"] == each
    assert accuracy["mean"] == pytest.approx(sum(each) / 2)
    assert accuracy["sd"] == pytest.approx(abs(each[0] - each[1]) / 2**0.5)
    assert summary["test"]["n"] == 390
    assert sum(row["n"] for row in summary["test"]["by_content"].values()) == 390


def test_the_kept_model_is_the_best_on_validation_and_loads(runs, tmp_path):
    runs, best = [Path(shutil.copytree(run, tmp_path / run.name)) for run in runs], 1  # which is the worst on test
    for run, validation, test in zip(runs, (0.7, 0.8), (0.9, 0.6), strict=True):
        metrics = json.loads((run / "metrics.json").read_text())
        metrics["validation"]["accuracy"]["value"], metrics["test"]["accuracy"]["value"] = validation, test
        (run / "metrics.json").write_text(json.dumps(metrics))
    places = ["--output_file", str(tmp_path / "cnn.json"), "--model_dir", str(tmp_path / "cnn")]
    assert seeds.main(["--runs", *map(str, runs), *places]) == 0
    assert json.loads((tmp_path / "cnn.json").read_text())["kept_seed"] == best
    assert json.loads((tmp_path / "cnn/run.json").read_text())["arguments"]["seed"] == best
    assert {file.suffix for file in (tmp_path / "cnn").iterdir() if file.is_file()} == {".json", ".safetensors", ".py"}
    kept, own = (json.loads((place / "operating_point.json").read_text()) for place in (tmp_path / "cnn", runs[best]))
    assert to_plain(Detector.from_pretrained(tmp_path / "cnn").point) == kept == own


def test_an_unfinished_run_is_rejected(tmp_path):
    with pytest.raises(ValueError, match=r"expected a finished run of train.py in .*; found none"):
        read_run(tmp_path)


def test_the_table_has_both_test_splits_and_every_content(runs):
    summary = seeds.summarize([read_run(folder) for folder in runs])
    table = seeds.to_markdown(summary)
    accuracy = summary["test"]["statistics"]["accuracy"]
    assert f"| accuracy | {100 * accuracy['mean']:.2f} ± {100 * accuracy['sd']:.2f}% |" in table
    clean, far = (summary[name]["n"] for name in ("test_leak_free", "test_no_near_duplicate"))
    columns = f"test, n = 390 | leak-free test, n = {clean} | test without near-duplicates, n = {far}"
    assert f"| 2 seeds | {columns} |" in table
    runs_before = [read_run(folder).outcome.ece_before["test"].value for folder in runs]
    before = summary["test"]["statistics"]["ece_before"]
    assert before["runs"] == runs_before
    assert f"| calibration error (ECE) before temperature scaling | {100 * before['mean']:.2f} ± " in table
    for content, row in summary["test"]["by_content"].items():
        assert f"| {content} | {row['n']} | {100 * row['mean']:.2f} ± " in table
    single = seeds.to_markdown(seeds.summarize([read_run(runs[0])]))
    assert "| 1 seed | " in single
    assert "±" not in single


def test_a_run_of_version_0_1_leaves_out_the_column_and_the_row_that_it_lacks(runs):
    first, second = (read_run(folder) for folder in runs)
    old = replace(second, outcome=replace(second.outcome, test_no_near_duplicate=None, ece_before={}))
    summary = seeds.summarize([first, old])
    assert "test_no_near_duplicate" not in summary
    table = seeds.to_markdown(summary)
    assert "near-duplicates" not in table
    assert "before temperature scaling" not in table
    assert "| calibration error (ECE) | " in table


def test_runs_that_differ_in_more_than_their_seed_are_rejected(runs):
    first, second = (read_run(folder) for folder in runs)
    other = {**second.record, "arguments": {**second.record["arguments"], "learning_rate": 1.0}}
    with pytest.raises(
        ValueError, match="expected runs that differ only in their seed; found other arguments or data"
    ):
        seeds.summarize([first, Run(second.folder, other, second.outcome)])


@pytest.mark.parametrize(("value", "is_comparable"), [(0, True), (4, False)])
def test_a_setting_that_an_older_run_does_not_know_has_its_default(runs, value, is_comparable):
    older, newer = (read_run(folder) for folder in runs)
    del older.record["arguments"]["hidden_units"]  # 0 by default
    newer.record["arguments"]["hidden_units"] = value
    if is_comparable:
        assert seeds.summarize([older, newer])["seeds"] == [0, 1]
    else:
        with pytest.raises(ValueError, match="found other arguments or data"):
            seeds.summarize([older, newer])


def test_equal_seeds_are_rejected(runs):
    first = read_run(runs[0])
    with pytest.raises(ValueError, match=r"expected a different seed for each run; found \[0, 0\]"):
        seeds.summarize([first, first])


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


def test_each_model_has_the_measurements_of_its_own_training(runs, comparison):
    for name, folder in zip(("first", "second"), runs, strict=True):
        own, found = json.loads((folder / "metrics.json").read_text()), comparison["models"][name]
        for test in ("test", "test_leak_free"):
            assert found[test]["n"] == own[test]["n"]
            assert found[test]["bootstrap_samples"] == 20
            for statistic in ("accuracy", "roc_auc", "ece", "brier"):
                assert found[test][statistic]["value"] == pytest.approx(own[test][statistic]["value"], abs=1e-3)
            assert found[test]["by_content"].keys() == own[test]["by_content"].keys()


def test_a_model_has_its_size_and_the_cost_of_its_training(runs, comparison):
    for name, folder in zip(("first", "second"), runs, strict=True):
        record, found = json.loads((folder / "run.json").read_text()), comparison["models"][name]
        assert found["parameters"] == Detector.from_pretrained(folder).model.num_parameters()
        assert found["seed"] == record["arguments"].get("seed", 0)
        assert found["training"]["seconds"] == record["seconds"]
        assert found["training"]["machine"] == record["machine"]


def test_a_pair_counts_the_images_on_which_each_model_is_right(runs, comparison):
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


@pytest.mark.parametrize(("paper", "lines"), [(0.93, 1), (None, 0)])
def test_the_figure_has_a_label_for_each_model_and_for_the_paper(comparison, paper, lines):
    [legend] = figures.accuracy_against_time(comparison, paper_accuracy=paper).legends
    texts = [text.get_text() for text in legend.get_texts()]
    assert sum("the paper" in text for text in texts) == lines
    assert len(texts) == 2 + lines


def test_the_table_has_a_row_for_each_model_and_a_test_of_each_pair(compared, comparison):
    table = (compared / "cifake_comparison.md").read_text()
    head, _, *rows = table.split("\n\n")[0].splitlines()
    assert head.startswith("| model | parameters | accuracy, n = 390 | leak-free, n = 390 | at its threshold |")
    for row, (name, model) in zip(rows, comparison["models"].items(), strict=True):
        test = model["test"]
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        assert cells[:2] == [name, f"{model['parameters']:,}"]
        assert cells[2].startswith(f"{test['accuracy']['value']:.2%} ({test['accuracy']['low']:.2%} to ")
        assert cells[7].startswith(
            f"{test['false_positives'] + test['false_negatives']} ({test['false_positives']} + "
        )
        assert cells[8] == f"{model['training']['seconds'] / 60:.1f} ({model['training']['machine']['cores']} cores)"
    for part, n in (("test", "390"), ("test_leak_free", "390 leak-free")):
        pair = comparison["pairs"][0][part]
        low, value, high = (f"{100 * pair[f'difference{end}']:+.2f}" for end in ("_low", "", "_high"))
        counts = f"{pair['only_a']} | {pair['only_b']}"
        p_value = f"{pair['p_value']:.2g}" if pair["p_value"] >= 1e-4 else "< 0.0001"
        assert f"| first, second | {n} | {counts} | {value} ({low} to {high}) | {p_value} |" in table


def test_three_models_make_three_tests_that_are_corrected_together(runs, tmp_path):
    folders = {"one": runs[0], "two": runs[1], "three": runs[0]}
    output = tmp_path / "three.json"
    assert compare.main(compare_words(folders, output)) == 0
    pairs = json.loads(output.read_text())["pairs"]
    assert [(pair["a"], pair["b"]) for pair in pairs] == [("one", "two"), ("one", "three"), ("two", "three")]
    for part in ("test", "test_leak_free"):
        tests = [pair[part] for pair in pairs]
        assert [test["p_holm"] for test in tests] == holm([test["p_value"] for test in tests])
    assert "corrected for the 3 pairs" in output.with_suffix(".md").read_text()


def test_the_threshold_is_that_of_the_operating_point(runs, comparison):
    test = load_images("demo")["test"]
    for name, folder in zip(("first", "second"), runs, strict=True):
        found = comparison["models"][name]["test_at_threshold"]
        threshold = json.loads((folder / "operating_point.json").read_text())["threshold"]
        p_fake = Detector.from_pretrained(folder).probabilities(test["image"])
        assert found["threshold"] == threshold
        right = (p_fake > threshold) == np.array(test["label"][:])
        assert found["accuracy"]["value"] == pytest.approx(right.mean())


def test_a_model_without_an_operating_point_is_named_before_the_data_are_read(runs, tmp_path, capsys):
    shutil.copytree(runs[0], tmp_path / "bare", ignore=shutil.ignore_patterns("operating_point.json", "checkpoint-*"))
    assert (
        compare.main(compare_words({"a": runs[1], "b": tmp_path / "bare"}, tmp_path / "o.json", data="nowhere")) == 1
    )
    assert "expected the operating point of b in" in capsys.readouterr().err


def test_a_model_equals_itself_and_the_table_is_printed(runs, tmp_path, capsys):
    output = tmp_path / "new" / "same.json"
    assert compare.main(compare_words({"one": runs[0], "two": runs[0]}, output)) == 0
    saved = json.loads(output.read_text())
    assert saved["pairs"][0]["test"]["p_value"] == 1
    assert saved["models"]["one"] == saved["models"]["two"]
    printed = capsys.readouterr().out
    assert printed.startswith(compare.to_markdown(saved))
    assert "| one, two | " in printed


@pytest.mark.parametrize(
    ("models", "sentence"),
    [
        (["cnn=a"], "expected two or more --models; found cnn"),
        (["cnn=a", "cnn=b"], "expected distinct names in --models; found cnn, cnn."),
        (["cnn=a", "b"], "expected --models NAME=FOLDER, with a NAME of letters and digits; found 'b'."),
        (["cnn=a", "=b"], "expected --models NAME=FOLDER, with a NAME of letters and digits; found '=b'."),
    ],
)
def test_models_that_cannot_be_compared_end_with_status_2(models, sentence, capsys):
    with pytest.raises(SystemExit) as stop:
        compare.main(["--models", *models, "--data", "nowhere", "--output_file", "out.json"])
    assert stop.value.code == 2
    assert capsys.readouterr().err.strip().endswith(sentence)


def test_a_missing_folder_is_named_before_the_data_are_read(runs, tmp_path, capsys):
    folders = {"cnn": runs[0], "vit": tmp_path / "vit"}
    assert compare.main(compare_words(folders, tmp_path / "out.json", data="nowhere")) == 1
    assert f"expected a finished run of train.py in {tmp_path / 'vit'}; found none." in capsys.readouterr().err


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
def test_a_model_with_another_accuracy_than_measured_is_rejected(runs, tmp_path, off, status, capsys):
    metrics = copy_with_metrics(
        runs[1], tmp_path / "other", lambda test: test["accuracy"].update(value=off + value(test))
    )
    words = compare_words({"cnn": runs[0], "other": tmp_path / "other"}, tmp_path / "out.json")
    assert compare.main(words) == status
    assert (tmp_path / "out.json").exists() == (status == 0)
    stated = metrics["test"]["accuracy"]["value"]
    message = f"the test accuracy {stated:.4f} of the metrics.json of other; found {stated - off:.4f} on 390 images."
    assert (message in capsys.readouterr().err) == (status == 1)


def test_a_model_measured_on_other_images_is_rejected(runs, tmp_path, capsys):
    copy_with_metrics(runs[1], tmp_path / "other", lambda test: test.update(n=20_000))
    words = compare_words({"cnn": runs[0], "other": tmp_path / "other"}, tmp_path / "out.json")
    assert compare.main(words) == 1
    assert "expected the 20,000 test images of the metrics.json of other; found 390." in capsys.readouterr().err


def test_the_published_cnn_has_the_figures_of_its_results():
    summary = json.loads((ROOT / "results/cifake_cnn.json").read_text())
    metrics = json.loads((ROOT / "space/models/cifake-cnn/metrics.json").read_text())
    position = summary["seeds"].index(summary["kept_seed"])
    assert metrics["test"]["accuracy"]["value"] == summary["test"]["statistics"]["accuracy"]["runs"][position]
    assert (ROOT / "space/models/cifake-cnn/model.safetensors").stat().st_size < 1_000_000


def test_the_published_vit_has_the_figures_of_its_results():
    summary = json.loads((ROOT / "results/vit_tiny_cifake_32.json").read_text())
    metrics = json.loads((ROOT / "space/models/cifake-vit/metrics.json").read_text())
    assert metrics["test"]["accuracy"]["value"] == summary["test"]["statistics"]["accuracy"]["runs"][0]
    assert summary["data"]["test"]["n"] == 20_000


@pytest.mark.slow
def test_the_published_vit_has_the_stated_accuracy_in_a_plain_pipeline(cifake_archive):
    classify = pipeline("image-classification", model=str(ROOT / "space/models/cifake-vit"))
    rows = load_images(cifake_archive)["test"].select(range(400))
    answers = classify([image.convert("RGB") for image in rows["image"]], batch_size=100)
    called_fake = np.array([answer[0]["label"] == "FAKE" for answer in answers])
    stated = json.loads((ROOT / "space/models/cifake-vit/metrics.json").read_text())["test"]["accuracy"]["value"]
    found = np.mean(called_fake == (np.array(rows["label"][:]) == 1))
    assert abs(found - stated) < 4 * (stated * (1 - stated) / 400) ** 0.5
