"""`explain.py` writes what `Detector.explain` returns, image by image, and reports errors in one line."""

import io
import json
import logging
import os
import re
import shlex
import shutil
from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessorPil

import explain
from realfake_hf import CifakeCnnConfig, CifakeCnnForImageClassification, Detector, Verdict, load_images
from realfake_hf.attribution.methods import METHODS
from realfake_hf.cli import parse
from realfake_hf.estimate import to_plain
from realfake_hf.explain import drawing, gallery
from realfake_hf.explain.arguments import ExplainArguments
from realfake_hf.explain_study.arguments import StudyArguments
from realfake_hf.labels import id2label, label2id
from realfake_hf.metrics.operating_point import Band, OperatingPoint
from realfake_hf.metrics.out_of_distribution import Familiarity

ROOT = Path(__file__).parents[1]
WORDS = {"id2label": id2label(), "label2id": label2id()}
KINDS = {"right-real", "right-fake", "wrong-real", "wrong-fake"}


def picture_bytes(seed, size=(32, 32)):
    """Noise on a random colour, so that random models have different scores for different images."""
    random = np.random.default_rng(seed)
    values = random.integers(0, 200, 3) + random.integers(0, 56, (size[1], size[0], 3))
    buffer = io.BytesIO()
    Image.fromarray(values.astype(np.uint8)).save(buffer, format="PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A data set of 12 real and 12 fake test images in folders named after the label."""
    folder = tmp_path_factory.mktemp("source") / "pictures"
    for seed in range(24):
        file = folder / "test" / ("real", "fake")[seed % 2] / f"{seed}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(picture_bytes(seed))
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory, source):
    """A tiny CNN and a tiny ViT with random weights, shifted so that they predict FAKE for half of the test images."""
    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
    built = {
        "cnn": CifakeCnnForImageClassification(CifakeCnnConfig(num_filters=8, dense_units=16, **WORDS)),
        "vit": ViTForImageClassification(
            ViTConfig(image_size=32, patch_size=8, initializer_range=0.3, **shape, **WORDS)
        ),
    }
    processor = ViTImageProcessorPil(size={"height": 32, "width": 32})
    for name, model in built.items():
        p = Detector(model, processor).probabilities(load_images(source)["test"]["image"]).astype(np.float64)
        bias = model.output.bias if name == "cnn" else model.classifier.bias
        bias.data[-1] -= float(np.median(np.log(p / (1 - p))))
        model.save_pretrained(folder / name)
        processor.save_pretrained(folder / name)
    (folder / "cnn/run.json").write_text('{"seed": 7}')
    return folder


@pytest.fixture
def photos(tmp_path):
    """A folder of images, two of which have colliding names, with other files beside them."""
    for seed, name in enumerate(("frog (7).png", "frog-7.png", "deep/frog-7.png", "large.png")):
        file = tmp_path / "photos" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(picture_bytes(seed, size=(40, 24) if name == "large.png" else (32, 32)))
    (tmp_path / "photos/notes.txt").write_text("no picture")
    (tmp_path / "photos/.hidden.png").write_text("no picture")
    return tmp_path / "photos"


@pytest.fixture
def no_figures(monkeypatch):
    """Skip the figures of the images, to save time."""
    monkeypatch.setattr(gallery, "draw_explanations", lambda *_, **__: None)
    for module in (gallery, drawing):
        monkeypatch.setattr(module, "save_figure", lambda _, file: file)


@pytest.fixture
def places(models, photos, source):
    """Folders by name."""
    return {"models": models, "photos": photos, "source": source}


def run(models, output, *words, model="cnn"):
    return explain.main(["--model", str(models / model), "--output_dir", str(output), *map(str, words)])


def compare(models, output, *words):
    pairs = [f"{name}={models / name}" for name in ("cnn", "vit")]
    return explain.main(["--compare", *pairs, "--output_dir", str(output), *map(str, words)])


def read(folder):
    return json.loads((folder / "explanations.json").read_text())


def files_below(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def group_of(row):
    return f"{'right' if row['truth'] == row['verdict'] else 'wrong'}-{row['truth'].lower()}"


def test_files_folders_and_globs_are_explained_each_file_once(models, photos, tmp_path, capsys):
    words = ["--images", photos / "large.png", photos, photos / "*.png", "--batch_size", 3]
    assert run(models, tmp_path / "out", *words) == 0
    names = ["large", "deep/frog-7", "frog (7)", "frog-7", ".hidden"]
    rows = read(tmp_path / "out")["explanations"]
    assert [row["path"] for row in rows] == [f"{name}.png" for name in names[:4]]  # below the folder
    assert [row["file"] for row in rows] == [
        f"images/{name}.png" for name in ("large", "frog-7", "frog (7)", "frog-7-2")
    ]
    sheets = {f"sheets/called-{row['verdict'].lower()}.png" for row in rows}
    assert files_below(tmp_path / "out") == {"explanations.json", *sheets, *(row["file"] for row in rows)}
    found = Detector.from_pretrained(models / "cnn").explain(
        [str(photos / row["path"]) for row in rows], method="grad_cam"
    )
    for row, one in zip(rows, found, strict=True):
        np.testing.assert_allclose(row["map"], one.map, atol=1e-4)
        assert row["map"] == np.round(row["map"], 4).tolist()
        assert row["p_fake"] == pytest.approx(one.verdict.p_fake, abs=1e-6)
        assert (row["verdict"], row["truth"], row["is_empty"]) == (one.verdict.label, None, one.is_empty)
        assert (row["method"], row["options"], row["layer"]) == ("grad_cam", {"layer": None}, one.layer)
        assert (row["model"], row["target"]) == ("model", one.target)
        with Image.open(tmp_path / "out" / row["file"]) as figure:
            assert figure.size[0] == 1200
    said = capsys.readouterr().out
    assert f"images, sheets and explanations.json: {tmp_path / 'out'}" in said
    assert "right REAL" not in said


def test_images_of_a_data_set_have_opaque_names_labels_and_sheets(models, source, tmp_path, capsys):
    assert run(models, tmp_path / "out", "--data", source, "--limit", 8) == 0
    rows, test = read(tmp_path / "out")["explanations"], load_images(source)["test"]
    truth = dict(zip(test["id"], test["label"], strict=True))
    assert [row["id"] for row in rows] == [name for name in truth if (tmp_path / f"out/images/{name}.png").exists()]
    assert [row["truth"] for row in rows] == [id2label()[truth[row["id"]]] for row in rows]
    assert [row["file"] for row in rows] == [f"images/{row['id']}.png" for row in rows]
    groups = Counter(group_of(row) for row in rows)
    assert groups.keys() == KINDS
    assert {file for file in files_below(tmp_path / "out") if "sheets" in file} == {
        f"sheets/{name}.png" for name in groups
    }
    head, _, row = capsys.readouterr().out.splitlines()[:3]
    table = dict(zip(head.strip("| ").split(" | "), row.strip("| ").split(" | "), strict=True))
    counts = {re.sub(r"-(\w+)", lambda word: f" {word[1].upper()}", name): str(n) for name, n in groups.items()}
    empty = str(sum(row["is_empty"] for row in rows))
    assert table == {"model": "model", "method": "grad_cam", "empty maps": empty, **counts}


@pytest.mark.usefixtures("no_figures")
def test_the_only_split_of_a_data_set_is_explained(models, source, tmp_path):
    assert run(models, tmp_path / "out", "--data", source / "test", "--limit", 2) == 0
    assert read(tmp_path / "out")["run"]["data"]["split"] == "train"


@pytest.mark.usefixtures("no_figures")
def test_sheets_show_the_most_confident_first_and_state_the_number_of_images(models, source, tmp_path, monkeypatch):
    drawn = {}
    monkeypatch.setattr(drawing, "MAX_TILES", 2)
    monkeypatch.setattr(drawing, "explanation_sheet", lambda tiles, title, **_: drawn.setdefault(title, tiles))
    for module in (gallery, drawing):
        monkeypatch.setattr(module, "save_figure", lambda _, file: file)
    assert compare(models, tmp_path / "out", "--data", source, "--limit", 0) == 0
    rows = [row for row in read(tmp_path / "out")["explanations"] if row["model"] == "vit"]
    wrong = sorted((row for row in rows if group_of(row) == "wrong-real"), key=lambda row: -row["p_fake"])
    assert len(wrong) > 2
    tiles = drawn[f"vit: REAL, wrongly predicted FAKE: the 2 most confident of {len(wrong)}"]
    assert [caption for *_, caption in tiles] == [f"{row['id']}\np(fake) {row['p_fake']:.3f}" for row in wrong[:2]]
    right = sorted((row for row in rows if group_of(row) == "right-real"), key=lambda row: row["p_fake"])
    tiles = drawn[f"vit: REAL, correctly predicted REAL: the 2 most confident of {len(right)}"]
    assert [caption for *_, caption in tiles] == [f"{row['id']}\np(fake) {row['p_fake']:.3f}" for row in right[:2]]
    assert len(drawn) == 8


def test_compared_models_share_a_figure_each_with_its_default_method(models, source, tmp_path):
    assert compare(models, tmp_path / "out", "--data", source, "--limit", 4) == 0
    found = read(tmp_path / "out")
    assert [(row["model"], row["method"]) for row in found["explanations"]] == [
        ("cnn", "grad_cam"),
        ("vit", "relevance"),
    ] * 4
    assert len({row["file"] for row in found["explanations"]}) == 4
    assert found["run"]["models"]["cnn"]["passport"] == {"seed": 7}
    assert found["run"]["models"]["vit"]["passport"] is None
    assert {"arguments", "commit", "versions", "machine"} <= found["run"].keys()
    assert found["interrupted"] is False
    assert found["run"]["data"] == {"source": "pictures", "split": "test", "n": 4, "of": 24}
    assert files_below(tmp_path / "out/sheets") == {
        f"{row['model']}-{group_of(row)}.png" for row in found["explanations"]
    }


OPTIONS = [
    ("vit", [], {"vit": ("relevance", {}, None)}),
    ("vit", ["--method", "rollout", "--options", "head_fusion=max", "discard_ratio=0.5"],
     {"vit": ("rollout", {"head_fusion": "max", "discard_ratio": 0.5}, None)}),
    ("cnn", ["--method", "integrated_gradients", "--options", "steps=4", "grid=4x2"],
     {"cnn": ("integrated_gradients", {"steps": 4, "grid": [4, 2]}, None)}),
    ("cnn", ["--layer", "features.0"], {"cnn": ("grad_cam", {"layer": "features.0"}, "features.0")}),
    ("both", ["--method", "cnn=integrated_gradients", "vit=rollout", "--options", "steps=2", "head_fusion=min"],
     {"cnn": ("integrated_gradients", {"steps": 2, "grid": [8, 8]}, None),
      "vit": ("rollout", {"head_fusion": "min", "discard_ratio": 0.0}, None)}),
    ("both", ["--method", "grad_cam", "--layer", "cnn=features.0", "vit=vit.layers.0.layernorm_before"],
     {"cnn": ("grad_cam", {"layer": "features.0"}, "features.0"),
      "vit": ("grad_cam", {"layer": "vit.layers.0.layernorm_before"}, "vit.layers.0.layernorm_before")}),
    ("both", ["--method", "vit=last_attention", "--layer", "features.0"],
     {"cnn": ("grad_cam", {"layer": "features.0"}, "features.0"),
      "vit": ("last_attention", {"head_fusion": "mean"}, None)}),
]  # fmt: skip


@pytest.mark.usefixtures("no_figures")
@pytest.mark.parametrize(("which", "words", "expected"), OPTIONS, ids=lambda value: str(value)[:60])
def test_methods_options_and_layers_are_assigned_by_model(places, tmp_path, which, words, expected):
    ask = compare if which == "both" else partial(run, model=which)
    done = ask(places["models"], tmp_path / "out", "--images", places["photos"] / "large.png", *words)
    assert done == 0
    rows = read(tmp_path / "out")["explanations"]
    assert [(row["method"], row["options"], row["layer"]) for row in rows] == list(expected.values())
    stated = read(tmp_path / "out")["run"]["models"].values()
    assert [(one["method"], one["options"]) for one in stated] == [value[:2] for value in expected.values()]


@pytest.mark.usefixtures("no_figures")
@pytest.mark.parametrize("target", ["FAKE", "REAL", "predicted"])
def test_the_target_is_the_explained_label(models, source, tmp_path, target):
    assert run(models, tmp_path / "out", "--data", source, "--limit", 6, "--target", target) == 0
    for row in read(tmp_path / "out")["explanations"]:
        assert row["target"] == (row["verdict"] if target == "predicted" else target)


def test_strength_0_leaves_the_grey_image(models, photos, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(drawing, "image_with_maps", lambda _, panels, **__: seen.extend(panels))
    for module in (gallery, drawing):
        monkeypatch.setattr(module, "save_figure", lambda _, file: file)
    assert run(models, tmp_path / "out", "--images", photos, "--strength", 0) == 0
    assert all((panel.overlay == panel.overlay[..., :1]).all() for panel in seen)


def test_each_figure_and_row_has_the_warnings_of_the_verdict(models, photos, tmp_path, monkeypatch):
    shutil.copytree(models / "cnn", tmp_path / "far")
    Familiarity(np.zeros((2, 16)), np.eye(16), 0.0, far=0.01, n=9, n_validation=9, sha256="").save(tmp_path / "far")
    point = OperatingPoint(0.5, "by hand", band=Band(0.0, 1.0, promised=0.01))
    (tmp_path / "far/operating_point.json").write_text(json.dumps(to_plain(point)))
    figures = {}
    monkeypatch.setattr(
        drawing, "image_with_maps", lambda _, panels, *, title, **__: figures.setdefault(title, panels[0])
    )
    for module in (gallery, drawing):
        monkeypatch.setattr(module, "save_figure", lambda _, file: file)
    assert run(tmp_path, tmp_path / "out", "--images", photos, model="far") == 0
    for row in read(tmp_path / "out")["explanations"]:
        assert (row["is_far"], row["is_sure"]) == (True, False)
        far, *others = row["warnings"]
        assert "far from the model's training data" in far
        assert [("stretched" in text) for text in others] == ([False, True] if row["path"] == "large.png" else [])
        panel = figures[row["path"]]
        assert panel.warnings == [row["reason"], *row["warnings"]]
        assert "Unsure, possibly" in panel.title
        assert "unsure between 0 and 1" in panel.note
    assert run(models, tmp_path / "plain", "--images", photos / "frog-7.png") == 0
    [row] = read(tmp_path / "plain")["explanations"]
    assert (row["is_far"], row["is_sure"], row["warnings"]) == (None, None, [])


def test_unreadable_images_are_named_and_counted_and_the_others_are_explained(models, photos, tmp_path, capsys):
    (photos / "broken.png").write_bytes(picture_bytes(0)[:60])
    (photos / "gone.png").symlink_to(photos / "nowhere.png")
    assert run(models, tmp_path / "out", "--images", photos, photos / "notes.txt", "--batch_size", 2) == 1
    found = read(tmp_path / "out")
    assert len(found["explanations"]) == 4
    assert found["run"]["asked"] == 7
    assert set(found["unreadable"]) == {"broken.png", "gone.png", "notes.txt"}
    said = capsys.readouterr()
    assert "\nexplain.py: 3 images cannot be read:\n" in said.err
    assert "  gone.png: the file is missing" in said.err
    assert "| model | method |" in said.out


def test_the_first_ten_of_many_unreadable_images_are_named(models, tmp_path, capsys):
    for number in range(12):
        (tmp_path / f"{number}.png").write_bytes(b"")
    assert run(models, tmp_path / "out", "--images", tmp_path) == 1
    said = capsys.readouterr().err
    assert said.count("the file is empty (0 bytes)") == 10
    assert "  and 2 more, listed in explanations.json" in said
    assert len(read(tmp_path / "out")["unreadable"]) == 12
    assert files_below(tmp_path / "out") == {"explanations.json"}


def test_an_interruption_keeps_the_finished_images_and_reports_it(models, source, tmp_path, monkeypatch, capsys):
    save, calls = gallery.save_figure, []

    def save_three(figure, file):
        calls.append(file)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return save(figure, file)

    monkeypatch.setattr(gallery, "save_figure", save_three)
    assert run(models, tmp_path / "out", "--data", source, "--limit", 8, "--batch_size", 2) == 130
    found = read(tmp_path / "out")
    assert found["interrupted"] is True
    assert len(found["explanations"]) == 3
    kept = {row["file"] for row in found["explanations"]}
    shown = {f"sheets/{group_of(row)}.png" for row in found["explanations"]}
    assert files_below(tmp_path / "out") == {"explanations.json", *kept, *shown}
    assert f"interrupted; 3 explained images are in {tmp_path / 'out'}" in capsys.readouterr().err


def test_an_error_leaves_a_complete_file_that_is_marked_as_interrupted(models, source, tmp_path, monkeypatch):
    save, calls = gallery.save_figure, []

    def save_one(figure, file):
        calls.append(file)
        if len(calls) == 2:
            raise OSError("No space left on device")
        return save(figure, file)

    monkeypatch.setattr(gallery, "save_figure", save_one)
    assert run(models, tmp_path / "out", "--data", source, "--limit", 4) == 1
    found = read(tmp_path / "out")
    assert (found["interrupted"], len(found["explanations"])) == (True, 1)


def test_an_interruption_before_the_first_image_leaves_nothing(models, photos, tmp_path, monkeypatch, capsys):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(gallery, "find_image_files", interrupt)
    assert run(models, tmp_path / "out", "--images", photos) == 130
    assert "explain.py: interrupted" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("no_figures")
def test_no_more_than_a_batch_of_images_is_in_memory(models, source, tmp_path, monkeypatch):
    explain_batch, read_row = Detector.explain, gallery._read_each
    read_so_far, seen = [], []

    def counted(images, unreadable):
        for pair in read_row(images, unreadable):
            read_so_far.append(pair[0].name)
            yield pair

    def watched(self, images, **settings):
        seen.append((len(read_so_far), len(images)))
        return explain_batch(self, images, **settings)

    monkeypatch.setattr(gallery, "_read_each", counted)
    monkeypatch.setattr(Detector, "explain", watched)
    assert run(models, tmp_path / "out", "--data", source, "--limit", 0, "--batch_size", 10) == 0
    assert seen == [(0, 1), (10, 10), (20, 10), (24, 4)]  # first the blank image


@pytest.mark.slow
@pytest.mark.usefixtures("no_figures")
def test_the_batch_size_does_not_change_results(models, source, tmp_path):
    for size in (1, 3):
        assert compare(models, tmp_path / str(size), "--data", source, "--limit", 4, "--batch_size", size) == 0
    one, many = (read(tmp_path / size)["explanations"] for size in ("1", "3"))
    assert len(one) == 8
    for first, second in zip(one, many, strict=True):
        np.testing.assert_allclose(first.pop("map"), second.pop("map"), atol=2e-4)
        assert first.pop("p_fake") == pytest.approx(second.pop("p_fake"), abs=1e-6)
        assert first == second


@pytest.mark.usefixtures("no_figures")
def test_the_draw_is_balanced_by_label_and_correctness_and_depends_on_the_seed(models, source, tmp_path):
    drawn = {}
    for name, seed in (("first", 0), ("again", 0), ("other", 1)):
        assert run(models, tmp_path / name, "--data", source, "--limit", 8, "--seed", seed) == 0
        rows = read(tmp_path / name)["explanations"]
        drawn[name] = [row["id"] for row in rows]
        assert Counter(map(group_of, rows)) == dict.fromkeys(KINDS, 2)
    assert drawn["first"] == drawn["again"] != drawn["other"]


@pytest.mark.usefixtures("no_figures")
def test_files_and_a_data_set_can_be_combined(places, tmp_path, capsys):
    words = ["--images", places["photos"], "--data", places["source"]]
    assert run(places["models"], tmp_path / "out", *words, "--limit", 4) == 0
    rows = read(tmp_path / "out")["explanations"]
    assert ["path" in row for row in rows] == [True] * 4 + [False] * 4
    head = capsys.readouterr().out.splitlines()[0]
    assert "called" in head
    assert "right" in head


def test_a_map_covers_the_part_of_the_image_that_the_processor_keeps(models):
    picture = Image.open(io.BytesIO(picture_bytes(0, size=(64, 32))))
    whole = Detector.from_pretrained(models / "cnn")
    np.testing.assert_array_equal(whole.view(picture), np.asarray(picture))
    crop = {"do_center_crop": True, "crop_size": {"height": 32, "width": 32}, "do_resize": False}
    cropping = Detector(whole.model, ViTImageProcessorPil(**crop))
    np.testing.assert_array_equal(cropping.view(picture), np.asarray(picture)[:, 16:48])


REFUSED = [
    (["--images", "{photos}", "--method", "relevance"], ["attention weights", "CifakeCnnForImageClassification"]),
    (["--images", "{photos}", "--options", "steps=4"], ["--options of grad_cam", "found steps"]),
    (["--images", "{photos}", "--layer", "features.9"], ["layer of CifakeCnnForImageClassification", "features.9"]),
    (["--images", "{photos}", "--method", "integrated_gradients", "--options", "steps=0"], ["found 0 steps"]),
    (["--images", "{photos}", "--method", "integrated_gradients", "--layer", "model=features.0"],
     ["integrated_gradients", "steps, grid", "found layer"]),
    (["--images", "{photos}/no*.png"], ["'{photos}/no*.png'; found none"]),
    (["--images", "{photos}/none.png"], ["'{photos}/none.png'; found none"]),
    (["--data", "{photos}/none"], ["found nothing at '{photos}/none'"]),
    (["--data", "{source}", "--split", "train"], ["the split 'train'", "found test", "--split"]),
]  # fmt: skip


@pytest.mark.parametrize(("words", "named"), REFUSED, ids=lambda value: str(value)[:60])
def test_invalid_input_is_named_before_anything_is_written(places, tmp_path, capsys, words, named):
    assert run(places["models"], tmp_path / "out", *(word.format(**places) for word in words)) == 1
    error = capsys.readouterr().err
    assert [words for words in ["explain.py: ", *named] if words.format(**places) not in error] == []
    assert not (tmp_path / "out").exists()


def test_a_missing_model_is_named(photos, tmp_path, capsys):
    assert run(tmp_path, tmp_path / "out", "--images", photos, model="none") == 1
    error = capsys.readouterr().err
    assert "explain.py: " in error
    assert f"no such folder at '{tmp_path / 'none'}'" in error


def test_a_folder_in_use_is_refused_and_an_empty_one_is_not(models, photos, tmp_path, capsys):
    assert run(models, photos, "--images", photos) == 1
    assert f"found files in {photos}." in capsys.readouterr().err
    assert run(models, photos / "notes.txt", "--images", photos) == 1
    assert f"found a file at {photos / 'notes.txt'}." in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert run(models, tmp_path / "empty", "--images", photos / "large.png") == 0


IMAGES = ["--images", "a.png"]
ONE = ["--model", "m", *IMAGES]
TWO = ["--compare", "a=m", "b=n", *IMAGES]
WRONG_FLAGS = [
    ([*ONE, *TWO], ["--model", "--compare", "found both"]),
    (["--compare", "a=m", "n", *IMAGES], ["--compare", "found 'n'"]),
    (["--compare", "a=m", *IMAGES], ["two or more models in --compare", "found a=m"]),
    (["--compare", "a=m", "a=n", *IMAGES], ["--compare", "found a, a"]),
    (["--model", "m"], ["--images", "--data", "found neither"]),
    ([*ONE, "--batch_size", "0"], ["--batch_size", "--limit", "--strength", "found 0, 48 and 0.6"]),
    ([*ONE, "--strength", "1.5"], ["found 16, 48 and 1.5"]),
    ([*ONE, "--limit", "-1"], ["found 16, -1 and 0.6"]),
    ([*ONE, "--method", "lime"], [f"--method of {', '.join(METHODS)}", "found lime"]),
    ([*TWO, "--method", "c=rollout"], ["--method", "a, b", "found c"]),
    ([*TWO, "--method", "rollout", "relevance"], ["--method", "found 'rollout'"]),
    ([*TWO, "--layer", "a=x", "a=y"], ["--layer", "found a, a"]),
    ([*ONE, "--options", "depth=3"], ["head_fusion, discard_ratio, layer, steps, grid", "found 'depth=3'"]),
    ([*ONE, "--options", "steps"], ["found 'steps'"]),
    ([*ONE, "--options", "steps=many"], ["steps", "32", "found 'many'"]),
    ([*ONE, "--options", "grid=8"], ["grid", "8x8", "found '8'"]),
    ([*ONE, "--target", "fake"], ["argument --target", "'fake'"]),
]  # fmt: skip


@pytest.mark.parametrize(("words", "named"), WRONG_FLAGS, ids=lambda value: str(value)[-60:])
def test_invalid_flags_are_named(words, named, capsys, tmp_path):
    with pytest.raises(SystemExit) as stop:
        explain.main([*words, "--output_dir", str(tmp_path / "out")])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert [words for words in named if words not in error] == []
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("p", "text"), [(0.9996, "> 0.999"), (1.0, "> 0.999"), (0.0002, "< 0.001"), (0.9994, "0.999"), (0.5, "0.500")]
)
def test_no_probability_is_rounded_to_a_certainty(p, text):
    assert Verdict.of(p).p_fake_text == text


def test_a_file_name_may_contain_any_bytes(models, tmp_path):
    name = os.fsdecode(b"caf\xe9\n.png")
    (tmp_path / name).write_bytes(picture_bytes(0))
    assert run(models, tmp_path / "out", "--images", tmp_path / name) == 0
    assert files_below(tmp_path / "out/images") == {"caf.png"}
    assert read(tmp_path / "out")["explanations"][0]["path"] == name


def test_without_a_model_that_of_the_package_explains():
    [arguments] = parse(ExplainArguments, argv=[*IMAGES, "--output_dir", "out"])
    [place] = arguments.models.values()
    assert Path(place).name == "wild"


@pytest.mark.parametrize("page", ["README.md", "docs/explaining.md"])
def test_documented_commands_are_valid(page):
    text = (ROOT / page).read_text().replace("\\\n", " ")
    commands = re.findall(r"^(?:\$ )?python explain\.py (.*)$", text, re.MULTILINE)
    assert len(commands) >= 2
    for command in commands:
        words = shlex.split(command, comments=True)
        kind = StudyArguments if "--study" in words else ExplainArguments
        [arguments] = parse(kind, argv=[word for word in words if word != "--study"])
        assert arguments.models


@pytest.mark.usefixtures("no_figures")
def test_the_logging_of_the_process_is_left_to_the_script(models, photos, tmp_path):
    before = logging.root.handlers[:]
    gallery.make_gallery(
        ExplainArguments(tmp_path / "out", model=str(models / "cnn"), images=[str(photos / "large.png")])
    )
    assert logging.root.handlers == before
