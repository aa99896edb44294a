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
from realfake_hf.crosseval import grid, near_duplicates, protocols, scoring
from realfake_hf.crosseval.cell import Cell
from realfake_hf.crosseval.datasets import load_dataset
from realfake_hf.crosseval.models import check_models, load_model
from realfake_hf.crosseval.protocols import ProtocolGap, correct
from realfake_hf.crosseval.scoring import score_all
from realfake_hf.crosseval.tables import to_text
from realfake_hf.data.corruptions import matched
from realfake_hf.data.duplicates import perceptual_hash
from realfake_hf.data.loading import load_images
from realfake_hf.detector import Detector
from realfake_hf.estimate import from_plain, to_plain
from realfake_hf.metrics.calibration import reliability, scale
from realfake_hf.metrics.intervals import share
from realfake_hf.metrics.operating_point import Band, OperatingPoint
from realfake_hf.metrics.report import make_report
from realfake_hf.metrics.significance import holm, mcnemar, paired_bootstrap


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


def statistic_of(report, name):
    return {
        "roc_auc": report.roc_auc.value,
        "recall": report.accuracy_fake.value,
        "false_positive_rate": report.false_positives / report.n_real,
    }[name]


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
    point = OperatingPoint(0.5, "by hand", n=9, temperature=2.0, band=Band(0.4, 0.6, promised=0.02))
    (tmp_path / "own/operating_point.json").write_text(json.dumps(to_plain(point)))
    given = arguments(tmp_path, images, tmp_path / "grid", "--protocols", "native", names=("own",))
    assert crosseval.main(given) == 0
    cell = cells_of(tmp_path / "grid")["own", "native"]
    found = cell.confidence
    dataset = load_dataset("boats", str(images), seed=0)
    detector = Detector.from_pretrained(tmp_path / "own")
    p_fake = detector.probabilities(dataset.rows["image"])
    raw = Detector(detector.model, detector.processor).probabilities(dataset.rows["image"])
    assert p_fake == pytest.approx(scale(raw, 2.0), abs=1e-6)
    decided = (p_fake <= 0.4) | (p_fake >= 0.6)
    assert 0 < decided.sum() < 18
    assert (found.decided.k, found.decided.n) == (decided.sum(), 18)
    assert (found.wrong.k, found.wrong.n) == ((((p_fake > 0.5) != dataset.is_fake) & decided).sum(), decided.sum())
    before, after = (make_report(dataset.is_fake, p, bootstrap_samples=20) for p in (raw, p_fake))
    assert found.after == {"ece": after.ece, "nll": after.nll, "brier": after.brier}
    assert (cell.report.ece, cell.report.roc_auc) == (after.ece, after.roc_auc)
    for name in ("ece", "nll", "brier"):
        assert found.before[name].value == pytest.approx(getattr(before, name).value, abs=1e-4)
        assert found.before[name].value != pytest.approx(found.after[name].value, abs=1e-3)
    assert [row.n for row in found.bins] == [row.n for row in reliability(dataset.is_fake, raw)]
    assert found.bins_after == reliability(dataset.is_fake, p_fake)
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


def test_both_protocols_are_compared_on_the_same_images(done, models, images):
    dataset = load_dataset("boats", str(images), seed=0)
    found = [from_plain(ProtocolGap, gap) for gap in json.loads((done / "grid.json").read_text())["protocol_gaps"]]
    names = ("roc_auc", "recall", "false_positive_rate")
    assert [(gap.model, gap.statistic) for gap in found] == [(m, name) for m in ("one", "two") for name in names]
    assert {(gap.dataset, gap.split) for gap in found} == {("boats", "train")}
    assert [gap.p_holm for gap in found] == holm([gap.p_value for gap in found])
    cells = cells_of(done)
    for gap in found:
        detector = Detector.from_pretrained(models / gap.model)
        native = detector.probabilities(dataset.rows["image"]).astype(np.float64)
        both = (native, detector.probabilities([matched(it) for it in dataset.rows["image"]]).astype(np.float64))
        draws = {"threshold": detector.point.threshold, "samples": 10_000, "seed": 0}
        expected = paired_bootstrap(dataset.is_fake, *both, **draws)[gap.statistic]
        assert (gap.difference, gap.p_value) == (expected.difference, expected.p_value)
        for protocol, value in (("native", gap.native), ("matched", gap.matched)):
            assert value == pytest.approx(statistic_of(cells[gap.model, protocol].report, gap.statistic))
    [first, *_] = found
    row = f"| boats train | one | ROC AUC | {first.native:.3f} | {first.matched:.3f} | "
    assert f"{row}{first.difference.format('+.3f')} | {first.p_holm:.2g} |" in (done / "grid.md").read_text()


def test_the_correction_for_all_comparisons_removes_chance_findings_and_keeps_real_ones():
    def gaps(seed, change):
        generator, is_fake = np.random.default_rng(seed), np.arange(80) % 2 == 1
        scores = generator.normal(0.4 + 0.2 * is_fake, 0.15)
        both = [np.clip(scores + generator.normal(0, 0.1, 80) - shift, 0, 1) for shift in (0.0, change)]
        found = paired_bootstrap(is_fake, *both, threshold=0.5, samples=protocols.SAMPLES, seed=seed)
        for name, each in found.items():
            values = (each.first, each.second, each.difference, each.p_value, each.p_value)
            yield ProtocolGap(f"model {seed}", "data", "test", name, *values)

    by_chance = [gap for seed in range(16) for gap in gaps(seed, change=0.0)]
    real = list(gaps(99, change=0.3))
    assert any(gap.p_value < 0.05 for gap in by_chance)
    *corrected, _, recall, alarms = correct([*by_chance, *real])
    assert not any(gap.p_holm < 0.05 for gap in corrected)
    assert recall.p_holm < 0.05 > alarms.p_holm
    assert replace(recall, p_holm=recall.p_value) == real[1]


def test_a_single_protocol_is_not_compared(models, images, tmp_path):
    given = arguments(models, images, tmp_path / "grid", "--protocols", "native", "crop", names=("one",))
    assert crosseval.main(given) == 0
    assert json.loads((tmp_path / "grid/grid.json").read_text())["protocol_gaps"] == []
    assert "Protocols compared" not in (tmp_path / "grid/grid.md").read_text()


def test_scores_at_another_temperature_are_not_used_again(images, tmp_path, capsys):
    save_cnn(tmp_path / "own")
    given = arguments(tmp_path, images, tmp_path / "grid", "--protocols", "native", names=("own",))
    for temperature, status in ((2.0, 0), (2.0, 0), (3.0, 1)):
        point = OperatingPoint(0.5, "by hand", temperature=temperature)
        (tmp_path / "own/operating_point.json").write_text(json.dumps(to_plain(point)))
        assert crosseval.main(given) == status
    assert "found other values of temperature. Repeat the original settings" in capsys.readouterr().err


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
    assert capsys.readouterr().out.startswith(to_text(grid.read_grid(done / "grid.json")))


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

    monkeypatch.setattr(near_duplicates, "hash_images", again)
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


@pytest.fixture
def with_copies(tmp_path):
    """Images in two splits: of the 12 test images 4 are copies and 2 re-encoded copies of training images."""
    for split, numbers in (("train", range(4)), ("test", range(2, 8))):
        for label, offset in (("real", 0), ("fake", 100)):
            for number in numbers:
                file = tmp_path / "data" / split / label / f"{number}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                small = np.random.default_rng(offset + number).integers(0, 256, (8, 8, 3), dtype=np.uint8)
                Image.fromarray(small).resize((32, 32), Image.Resampling.BICUBIC).save(file)
    for label in ("real", "fake"):
        folder = tmp_path / "data"
        Image.open(folder / "train" / label / "0.png").save(folder / "test" / label / "7.png", "JPEG", quality=75)
    return tmp_path / "data"


def test_images_with_a_near_duplicate_in_training_are_left_out_apart(models, images, with_copies, tmp_path):
    other = shutil.copytree(images, tmp_path / "other")  # with a copy of a training image, but from another source
    shutil.copy(with_copies / "train/fake/0.png", other / "fake/0.png")
    given = arguments(models, with_copies, tmp_path / "grid", names=("one",))
    place = given.index(f"boats={with_copies}") + 1
    given = [*given[:place], f"other={other}", *given[place:], "--duplicates_of", str(with_copies)]
    assert crosseval.main(given) == 0
    found = grid.read_grid(tmp_path / "grid/grid.json")
    parts = [("boats", "test", 12), ("boats", "test leak-free", 8), ("boats", "test no near-duplicate", 6)]
    expected = [(name, split, protocol, n) for protocol in ("native", "matched") for name, split, n in parts]
    expected += [("other", "train", protocol, 18) for protocol in ("native", "matched")]
    assert [(cell.dataset, cell.split, cell.protocol, cell.report.n) for cell in found.cells] == expected
    reports = {(cell.dataset, cell.split, cell.protocol): cell.report for cell in found.cells}
    for gap in found.protocol_gaps:
        for protocol, value in (("native", gap.native), ("matched", gap.matched)):
            report = reports[gap.dataset, gap.split, protocol]
            assert value == pytest.approx(statistic_of(report, gap.statistic))
    assert {cell.split for cell in found.cells if cell.is_whole_split} == {"test", "train"}
    assert len(found.whole_splits("one")) == 2
    places = {(gap.dataset, gap.split) for gap in found.protocol_gaps}
    assert places == {(name, split) for name, split, *_ in expected}
    dataset = load_dataset("boats", str(with_copies), seed=0)
    p_fake = Detector.from_pretrained(models / "one").probabilities(dataset.rows["image"])
    training = [perceptual_hash(image) for image in load_images(with_copies)["train"]["image"]]
    hashes = [perceptual_hash(image) for image in dataset.rows["image"]]
    far = np.array([all((own ^ other).bit_count() > 4 for other in training) for own in hashes])
    assert found.cells[2].report.roc_auc.value == pytest.approx(roc_auc_score(dataset.is_fake[far], p_fake[far]))
    text = (tmp_path / "grid/grid.md").read_text()
    assert "| boats test no near-duplicate | one | ROC AUC |" in text


def test_marked_images_are_read_from_the_store_and_depend_on_the_training_images(
    models, with_copies, tmp_path, monkeypatch, capsys
):
    more = ("--protocols", "native", "--duplicates_of", str(with_copies))
    given = arguments(models, with_copies, tmp_path / "grid", *more, names=("one",))
    assert crosseval.main(given) == 0
    before = (tmp_path / "grid/grid.json").read_text()

    def again(*_, **__):
        raise AssertionError

    with monkeypatch.context() as patch:
        patch.setattr(near_duplicates, "hash_images", again)
        assert crosseval.main(given) == 0
    assert (tmp_path / "grid/grid.json").read_text() == before
    (with_copies / "train/real/0.png").unlink()
    assert crosseval.main(given) == 1
    assert "boats" in capsys.readouterr().err


def test_a_training_split_has_no_part_without_near_duplicates_of_itself(models, with_copies, tmp_path):
    more = ("--protocols", "native", "--split", "train", "--duplicates_of", str(with_copies))
    assert crosseval.main(arguments(models, with_copies, tmp_path / "grid", *more, names=("one",))) == 0
    splits = [cell.split for cell in grid.read_grid(tmp_path / "grid/grid.json").cells]
    assert splits == ["train", "train leak-free"]


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
