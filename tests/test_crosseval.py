"""`crosseval.py` from the command line to its files, on small images and a model with random weights."""

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import roc_auc_score
from small_grid import arguments, save_cnn, save_images
from transformers import ViTConfig, ViTForImageClassification

import crosseval
from realfake_hf.crosseval import grid, scoring, shortcuts
from realfake_hf.crosseval.cell import Cell
from realfake_hf.crosseval.datasets import load_dataset
from realfake_hf.crosseval.models import check_models, load_model
from realfake_hf.crosseval.scoring import score_all
from realfake_hf.data.corruptions import matched
from realfake_hf.detector import Detector
from realfake_hf.estimate import from_plain
from realfake_hf.metrics.calibration import scale
from realfake_hf.metrics.intervals import share
from realfake_hf.metrics.operating_point import Band
from realfake_hf.metrics.report import make_report
from realfake_hf.metrics.significance import holm, mcnemar


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    save_cnn(folder / "one", threshold=0.45)
    save_cnn(folder / "two", seed=1)
    return folder


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return save_images(tmp_path_factory.mktemp("data") / "boats")


@pytest.fixture(scope="module")
def done(models, images, tmp_path_factory):
    folder = tmp_path_factory.mktemp("grids") / "grid"
    assert crosseval.main(arguments(models, images, folder)) == 0
    return folder


def cells_of(folder):
    found = json.loads((folder / "grid.json").read_text())["cells"]
    return {(cell["model"], cell["protocol"]): from_plain(Cell, cell) for cell in found}


def test_a_cell_is_the_report_of_the_models_own_scores_at_its_own_threshold(done, models, images):
    dataset = load_dataset("boats", str(images), seed=0)
    p_fake = Detector.from_pretrained(models / "one").probabilities(dataset.rows["image"])
    settings = {"content": dataset.content, "threshold": 0.45, "bootstrap_samples": 20}
    cell = cells_of(done)["one", "native"]
    assert cell.report == make_report(dataset.is_fake, p_fake, **settings)
    p_matched = Detector.from_pretrained(models / "one").probabilities([matched(it) for it in dataset.rows["image"]])
    assert cells_of(done)["one", "matched"].report == make_report(dataset.is_fake, p_matched, **settings)


def test_confidence_is_measured_with_the_temperature_and_band_that_the_model_carries(images, tmp_path):
    save_cnn(tmp_path / "own")
    band = {"low": 0.4, "high": 0.6, "promised": 0.02}
    point = {"threshold": 0.5, "chosen": "by hand", "n": 9, "temperature": 2.0, "band": band}
    (tmp_path / "own/operating_point.json").write_text(json.dumps(point))
    given = arguments(tmp_path, images, tmp_path / "grid", "--protocols", "native", names=("own",))
    assert crosseval.main(given) == 0
    found = cells_of(tmp_path / "grid")["own", "native"].confidence
    dataset = load_dataset("boats", str(images), seed=0)
    p_fake = Detector.from_pretrained(tmp_path / "own").probabilities(dataset.rows["image"])
    decided = (p_fake <= 0.4) | (p_fake >= 0.6)
    assert 0 < decided.sum() < 18
    assert (found.decided.k, found.decided.n) == (decided.sum(), 18)
    assert (found.wrong.k, found.wrong.n) == ((((p_fake > 0.5) != dataset.is_fake) & decided).sum(), decided.sum())
    scaled = make_report(dataset.is_fake, scale(p_fake, 2.0), bootstrap_samples=20)
    assert found.after == {"ece": scaled.ece, "nll": scaled.nll, "brier": scaled.brier}
    assert f"| {found.decided} | {found.wrong} |" in (tmp_path / "grid/grid.md").read_text()


def test_a_model_without_temperature_and_band_promises_nothing(done):
    found = cells_of(done)["two", "native"].confidence
    assert (found.after, found.bins_after, found.band, found.promise) == (None, None, None, None)
    assert (found.decided.k, found.decided.n) == (18, 18)


@pytest.mark.parametrize(("wrong", "promise"), [(2, "kept"), (3, "missed"), (9, "broken")])
def test_a_promise_is_kept_missed_or_broken(done, wrong, promise):
    found = cells_of(done)["two", "native"].confidence
    asked = replace(found, band=Band(0.4, 0.6, promised=0.02), wrong=share(wrong, 100))
    assert asked.promise == promise


def test_the_pairs_are_mcnemars_test_at_both_thresholds(done, models, images):
    dataset = load_dataset("boats", str(images), seed=0)
    scores = {
        name: Detector.from_pretrained(models / name).probabilities(dataset.rows["image"]) for name in ("one", "two")
    }
    right = [(scores[name] > threshold) == dataset.is_fake for name, threshold in (("one", 0.45), ("two", 0.5))]
    [pair, other] = json.loads((done / "grid.json").read_text())["pairs"]
    assert (pair["a"], pair["b"], pair["protocol"]) == ("one", "two", "native")
    assert pair["test"] == asdict(mcnemar(*right))
    assert [pair["p_holm"], other["p_holm"]] == holm([pair["test"]["p_value"], other["test"]["p_value"]])


def test_groups_are_contents_generators_and_what_cifake_has(done, models, images):
    cell = cells_of(done)["two", "native"]
    assert set(cell.contents) == {"boat", "bottle"}
    assert set(cell.generators) == {"gan-0", "gan-1"}
    assert (cell.shared.n, cell.shared.n_rest) == (8, 10)  # a boat is a ship
    assert cell.shared == cell.contents["boat"].gap
    dataset = load_dataset("boats", str(images), seed=0)
    p_fake = Detector.from_pretrained(models / "two").probabilities(dataset.rows["image"])
    boats = np.array([name == "boat" for name in dataset.content])
    own = np.array([name in (None, "gan-1") for name in dataset.generator])
    for group, chosen in ((cell.contents["boat"], boats), (cell.generators["gan-1"], own)):
        assert group.roc_auc.value == pytest.approx(roc_auc_score(dataset.is_fake[chosen], p_fake[chosen]), abs=1e-9)
        assert group.roc_auc.low <= group.roc_auc.value <= group.roc_auc.high
    assert cell.majority == 0.5


@pytest.mark.slow
def test_a_grid_that_is_done_is_neither_scored_nor_measured_again(done, models, images, monkeypatch, capsys):
    def again(*_, **__):
        raise AssertionError

    before = (done / "grid.json").read_text()
    monkeypatch.setattr(scoring, "score_all", again)
    monkeypatch.setattr(grid, "measure_cell", again)
    assert crosseval.main(arguments(models, images, done)) == 0
    assert (done / "grid.json").read_text() == before
    assert (done / "grid.md").read_text().strip() == capsys.readouterr().out.strip()


@pytest.mark.slow
def test_fresh_does_every_cell_again(models, images, tmp_path):
    given = arguments(models, images, tmp_path / "grid", "--protocols", "native", names=("one",))
    assert crosseval.main(given) == 0
    [file] = (tmp_path / "grid/cells").glob("*.npz")
    file.write_bytes(b"spoilt")
    assert crosseval.main([*given, "--fresh"]) == 0
    assert np.load(file)["p_fake"].shape == (18,)


def test_other_settings_are_rejected_and_say_what_changed(done, models, images, capsys):
    assert crosseval.main(arguments(models, images, done, "--seed", "1")) == 1
    message = capsys.readouterr().err
    assert "boats-files" in message
    assert "seed" in message


def test_an_interrupted_grid_says_how_to_resume_and_keeps_what_is_scored(
    models, images, tmp_path, monkeypatch, capsys
):
    def interrupted(missing, dataset, protocol, **_):
        if protocol == "matched":
            raise KeyboardInterrupt
        return {model.name: np.full(len(dataset.rows), 0.5) for model in missing}

    monkeypatch.setattr(scoring, "score_all", interrupted)
    assert crosseval.main(arguments(models, images, tmp_path / "grid")) == 130
    assert f"to resume from {tmp_path / 'grid'}, repeat the command" in capsys.readouterr().err
    assert {file.stem for file in (tmp_path / "grid/cells").glob("*.json")} == {
        "boats-files", "boats-train-native-one", "boats-train-native-two",
    }  # fmt: skip


def test_the_number_of_threads_changes_no_score(models, images):
    dataset = load_dataset("boats", str(images), seed=0)
    model = load_model("one", str(models / "one"))
    before = torch.get_num_threads()
    found = []
    for threads in (1, 4):
        torch.set_num_threads(threads)
        found.append(score_all([model], dataset, "native")["one"])
        assert torch.get_num_threads() == threads
    torch.set_num_threads(before)
    assert found[0].tobytes() == found[1].tobytes()


@pytest.mark.slow
def test_a_data_set_whose_files_give_the_label_away_is_warned_of_above_all(models, tmp_path, caplog):
    folder = save_images(tmp_path / "loud", n=10)
    for file in (folder / "fake").iterdir():
        Image.open(file).resize((20, 20)).save(file)
    assert crosseval.main(arguments(models, folder, tmp_path / "grid", "--protocols", "native", names=("one",))) == 0
    warning = "boats: file facts alone tell real from fake with a balanced accuracy of"
    assert (tmp_path / "grid/grid.md").read_text().startswith(f"**Warning.** {warning}")
    assert warning in caplog.text
    [found] = json.loads((tmp_path / "grid/grid.json").read_text())["shortcuts"]
    assert (found["data"], found["n"], found["same_encoding"]) == ("boats", 20, False)
    assert found["together"]["value"] > 0.9


@pytest.mark.slow
def test_near_duplicates_of_the_training_are_counted_once_and_kept(models, images, tmp_path, monkeypatch):
    folder = save_images(tmp_path / "alike", n=12)  # its real ones are the first twelve of the same draw
    for file in (images / "fake").iterdir():
        Image.open(file).save(folder / "fake" / file.name, "JPEG", quality=95)
    given = arguments(models, folder, tmp_path / "grid", "--protocols", "native", names=("one",))
    assert crosseval.main([*given, "--duplicates_of", str(images)]) == 0
    [found] = json.loads((tmp_path / "grid/grid.json").read_text())["shortcuts"]
    counts = found["duplicates"]
    assert (counts["n_first"], counts["n_second"]) == (18, 24)
    assert (counts["second_found"], counts["across_labels"]) == (9 + 12, 3)
    text = (tmp_path / "grid/grid.md").read_text()
    assert f"| boats | {images.name} train | 21 of 24 |" in text

    def again(*_, **__):
        raise AssertionError

    monkeypatch.setattr(shortcuts, "hash_images", again)
    assert crosseval.main([*given, "--duplicates_of", str(images)]) == 0


@pytest.mark.slow
def test_a_data_set_of_one_label_is_measured_and_its_files_are_not_audited(models, tmp_path):
    folder = save_images(tmp_path / "real", labels=("real",))
    assert crosseval.main(arguments(models, folder, tmp_path / "grid", "--protocols", "native", names=("one",))) == 0
    text = (tmp_path / "grid/grid.md").read_text()
    assert "| boats | 0 | expected at least 5 different files of each label" in text
    assert "**Warning.** boats train has images of one label only" in text


def test_a_grid_survives_its_dictionary(done):
    found = json.loads((done / "grid.json").read_text())
    assert json.loads(json.dumps(grid.Grid.from_dict(found).to_dict())) == found


def test_real_images_called_fake_are_counted_by_content(done, models, images):
    dataset = load_dataset("boats", str(images), seed=0)
    called = Detector.from_pretrained(models / "one").probabilities(dataset.rows["image"]) > 0.45
    found = {row.content: row.called_fake for row in cells_of(done)["one", "native"].harm}
    for content in ("boat", "bottle"):
        chosen = np.array([name == content for name in dataset.content]) & ~dataset.is_fake
        assert (found[content].k, found[content].n) == ((called & chosen).sum(), chosen.sum())
    text = (done / "grid.md").read_text()
    assert f"| boats train | native | one | bottle | no | 5 | {found['bottle']} |" in text
    assert "| one | boat |" not in text  # too few


def test_the_table_has_sizes_and_flags_and_names_models_without_a_threshold(done):
    text = (done / "grid.md").read_text()
    cell = cells_of(done)["one", "native"]
    assert f"| boats train | native | one | 9 / 9 | yes | {cell.report.balanced_accuracy} |" in text
    assert f"| {cell.report.roc_auc} | {cell.above_chance} |  | {cell.report.accuracy_real} |" in text
    assert "**Warning.** two has no threshold chosen on validation" in text
    assert "| boats train, native | only one is right on" in text


@pytest.mark.slow
def test_the_trivial_baseline_learns_from_other_images_than_those_measured(models, images, tmp_path, capsys):
    given = arguments(models, images, tmp_path / "grid", "--protocols", "native", names=("one",))
    more = ["--limit", "8", "--baseline_data", str(images)]
    assert crosseval.main([*given, *more]) == 0
    found = json.loads((tmp_path / "grid/grid.json").read_text())
    assert found["models"]["trivial"]["place"] == f"10 training images of {images.name}"
    assert [cell["model"] for cell in found["cells"]] == ["one", "trivial"]
    assert found["cells"][0]["report"]["n"] == 8
    assert found["pairs"] == []
    capsys.readouterr()
    assert crosseval.main([*arguments(models, images, tmp_path / "all", names=("one",)), *more[2:]]) == 1
    assert "found 0 and 0. Choose other --baseline_data." in capsys.readouterr().err


def test_a_limit_takes_labels_evenly_however_many_contents_each_has(tmp_path):
    folder = save_images(tmp_path / "many", n=12)
    text = (folder / "metadata.csv").read_text().splitlines()
    named = [f"{line.rpartition(',')[0]},{'' if 'fake/' in line else i % 4}" for i, line in enumerate(text[1:])]
    (folder / "metadata.csv").write_text("\n".join([text[0], *named]))
    dataset = load_dataset("many", str(folder), limit=16, seed=0)
    assert (len(dataset.rows), dataset.is_fake.sum()) == (16, 8)
    assert [dataset.content.count(str(number)) for number in range(4)] == [2] * 4
    assert load_dataset("many", str(folder), limit=16, seed=0).sha256 == dataset.sha256
    assert load_dataset("many", str(folder), limit=16, seed=1).sha256 != dataset.sha256


def test_a_leak_is_measured_apart(models, tmp_path):
    for split, numbers in (("train", range(4)), ("test", range(2, 8))):
        for label, offset in (("real", 0), ("fake", 100)):
            for number in numbers:
                file = tmp_path / "data" / split / label / f"{number}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                random = np.random.default_rng(offset + number)
                Image.fromarray(random.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(file)
    given = arguments(models, tmp_path / "data", tmp_path / "grid", "--protocols", "native", names=("one",))
    assert crosseval.main(given) == 0
    cells = json.loads((tmp_path / "grid/grid.json").read_text())["cells"]
    assert [(cell["split"], cell["report"]["n"]) for cell in cells] == [("test", 12), ("test leak-free", 8)]


def test_a_data_set_of_one_label_is_measured_on_it(models, tmp_path, capsys):
    folder = save_images(tmp_path / "fakes", labels=("fake",))
    assert crosseval.main(arguments(models, folder, tmp_path / "grid", names=("one",))) == 0
    assert "boats train has images of one label only" in capsys.readouterr().out
    cell = cells_of(tmp_path / "grid")["one", "native"]
    assert (cell.report.n_real, cell.report.n_fake, cell.oracle_threshold) == (0, 9, None)


def test_bfloat16_is_another_model_with_nearly_the_same_scores(models, images):
    dataset = load_dataset("boats", str(images), seed=0)
    exact, fast = (load_model("one", str(models / "one"), bf16=bf16) for bf16 in (False, True))
    scores = [score_all([model], dataset, "native")["one"] for model in (exact, fast)]
    assert exact.digest != fast.digest
    assert 0 < np.abs(scores[0] - scores[1]).max() < 0.05


def test_models_that_resize_alike_see_what_they_see_alone(models, images):
    dataset = load_dataset("boats", str(images), seed=0)
    loaded = [load_model(name, str(models / name)) for name in ("one", "two")]
    together = score_all(loaded, dataset, "native")
    for model in loaded:
        assert together[model.name].tobytes() == score_all([model], dataset, "native")[model.name].tobytes()
        alone = model.detector.probabilities(dataset.rows["image"])
        assert together[model.name] == pytest.approx(alone, abs=1e-6)


@pytest.fixture
def given(models, images, tmp_path):
    return arguments(models, images, tmp_path / "grid")


@pytest.fixture
def no_models(monkeypatch):
    """No model may be loaded."""

    def load(*_, **__):
        raise AssertionError

    monkeypatch.setattr(grid, "load_model", load)


@pytest.mark.usefixtures("no_models")
def test_a_model_of_three_labels_is_rejected_before_any_loads(models, images, tmp_path, capsys):
    labels = {0: "real", 1: "fake", 2: "unsure"}
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = ViTConfig(id2label=labels, label2id={name: i for i, name in labels.items()}, **shape)
    ViTForImageClassification(config).save_pretrained(tmp_path / "three")
    given = arguments(
        models, images, tmp_path / "grid", "--models", f"one={models / 'one'}", f"3={tmp_path / 'three'}"
    )
    assert crosseval.main(given) == 1
    message = capsys.readouterr().err
    assert "cannot evaluate 3:" in message
    assert not (tmp_path / "grid").exists()


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (
            ["--models", "one=nowhere/at/all"],
            "no such folder at 'nowhere/at/all'",
        ),
        (["--datasets", "a=no/such/place.zip"], "found nothing at 'no/such/place.zip'."),
        (["--split", "dream"], "the split 'dream' of boats; found train."),
        (["--baseline_data", "no/such.zip"], "found nothing at 'no/such.zip'."),
    ],
)
@pytest.mark.usefixtures("no_models")
def test_what_is_not_there_is_rejected_before_any_model_loads(more, sentence, given, tmp_path, capsys):
    assert crosseval.main([*given, *more]) == 1
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "grid").exists()


@pytest.mark.usefixtures("no_models")
def test_unreadable_files_and_unknown_labels_are_rejected_before_any_model_loads(models, tmp_path, capsys):
    folder = save_images(tmp_path / "broken")
    (folder / "fake/0.png").write_bytes(b"not a image")
    assert crosseval.main(arguments(models, folder, tmp_path / "grid")) == 1
    assert "at most 1% unreadable images in broken; found 1 of 18" in capsys.readouterr().err
    other = save_images(tmp_path / "other", labels=("cats", "dogs"))
    assert crosseval.main(arguments(models, other, tmp_path / "grid")) == 1
    assert "real or fake in the metadata of other; found 'cats'" in capsys.readouterr().err


@pytest.mark.usefixtures("no_models")
def test_a_baseline_without_images_of_its_own_is_rejected_before_any_model_loads(given, images, tmp_path, capsys):
    assert crosseval.main([*given, "--baseline_data", str(images)]) == 1
    assert "found 0 and 0. Choose other --baseline_data." in capsys.readouterr().err
    assert not (tmp_path / "grid").exists()


@pytest.mark.parametrize(
    ("missing", "sentence"),
    [
        ("model.safetensors", "evaluate half: expected weights beside the config.json"),
        (
            "preprocessor_config.json",
            "evaluate half: expected the preprocessor_config.json",
        ),
    ],
)
@pytest.mark.usefixtures("no_models")
def test_a_model_without_a_part_is_rejected_before_any_loads(missing, sentence, models, given, tmp_path):
    shutil.copytree(models / "one", tmp_path / "half")
    (tmp_path / "half" / missing).unlink()
    with pytest.raises(OSError, match=sentence):
        check_models({"one": str(models / "one"), "half": str(tmp_path / "half")})
    assert crosseval.main([*given, "--models", f"one={models / 'one'}", f"half={tmp_path / 'half'}"]) == 1
    assert not (tmp_path / "grid").exists()


@pytest.mark.usefixtures("no_models")
def test_all_places_are_looked_up_before_the_images_of_the_first_are_read(models, images, tmp_path, monkeypatch):
    monkeypatch.setattr(grid, "load_dataset", None)
    given = arguments(models, images, tmp_path / "grid")
    assert crosseval.main([*given, "--datasets", f"boats={images}", "other=no/such/place.zip"]) == 1


@pytest.mark.slow
def test_unreadable_files_are_left_out_counted_and_named(models, tmp_path, capsys):
    folder = save_images(tmp_path / "many", n=60)
    (folder / "fake/7.png").write_bytes(b"not a image")
    given = arguments(models, folder, tmp_path / "grid", "--protocols", "native", names=("one",))
    assert crosseval.main(given) == 0
    [facts] = json.loads((tmp_path / "grid/grid.json").read_text())["data"].values()
    assert (facts["n"], [file["key"] for file in facts["unreadable"]]) == (119, ["fake/7.png"])
    assert facts["unreadable"][0]["reason"].startswith("not an image file")
    assert "1 unreadable images of boats are excluded (fake/7.png)." in capsys.readouterr().out


def test_a_folder_of_something_else_is_rejected(models, images, tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("mine")
    assert crosseval.main(arguments(models, images, tmp_path)) == 1
    assert f"found other files in {tmp_path}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (["--datasets", "a=x", "a=y"], "--datasets; found a, a."),
        (["--models", "a=x", "a=y"], "--models; found a, a."),
        (["--models", "one"], "found 'one'."),
        (["--models", "trivial=x"], "--models with other names than the baseline; found trivial"),
        (["--protocols", "wild"], "--protocols from native, matched, crop; found wild."),
        (["--protocols", "crop", "crop"], "--protocols; found crop crop."),
        (["--limit", "1"], "--limit of at least 2; found 1."),
        (["--bootstrap_samples", "0"], "--bootstrap_samples of at least 1; found 0."),
    ],
)
def test_wrong_settings_end_with_status_2(more, sentence, capsys):
    with pytest.raises(SystemExit) as rejected:
        crosseval.main(["--models", "a=b", "--datasets", "c=d", "--output_dir", "out", *more])
    assert rejected.value.code == 2
    assert sentence in capsys.readouterr().err.replace("\n", " ")
    assert not Path("out").exists()
