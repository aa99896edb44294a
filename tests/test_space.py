import csv
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from bad_files import corpus, picture, saved
from page_api import SameProcess, SameReaders, api_here, pixels
from page_in_browser import Page
from PIL import Image
from transformers import CLIPImageProcessorPil

from realfake_hf.detector import Detector
from realfake_space.answers import COLUMNS
from realfake_space.components import MapImage
from realfake_space.examples import expected_table, read_examples
from realfake_space.models import MODELS, Model, find_models
from realfake_space.uploads import MAX_BYTES, MAX_PIXELS, RejectedError, open_upload
from realfake_space.worker import Source

ROOT = Path(__file__).resolve().parents[1]
SPACE = ROOT / "space"
MARKS = {"fake": "Likely AI-generated", "real": "Likely real"}


@pytest.fixture(scope="module")
def api():
    return api_here()


def test_the_page_answers_with_the_verdict_of_the_detector(api, photo):
    for name in api.models:
        [verdict] = Detector.from_pretrained(MODELS / name, bf16=True).predict(photo)
        answer = api.predict(photo, name)
        assert answer["p_fake"] == pytest.approx(verdict.p_fake, abs=1e-5)
        assert (answer["label"], answer["decided"]) == (verdict.label, verdict.is_sure)
        assert answer["verdict"].startswith("Unsure, possibly" if not verdict.is_sure else "Likely")


def test_the_page_predicts_in_float32_on_request(photo):
    exact = api_here(str(MODELS / "cifake-vit"), float32=True)
    [verdict] = Detector.from_pretrained(MODELS / "cifake-vit").predict(photo)
    answer = exact.predict(photo, "cifake-vit")
    assert answer["p_fake"] == pytest.approx(verdict.p_fake, abs=1e-5)


def test_a_batch_of_requests_is_answered_in_order(api, tmp_path):
    paths = []
    for shade in (0, 90, 200):
        paths.append(str(tmp_path / f"{shade}.png"))
        Image.new("RGB", (32, 32), (shade, 30, 60)).save(paths[-1])
    paths[1:1] = [str(tmp_path / "text.png"), None]
    Path(paths[1]).write_bytes(b"text")
    for name in ("cifake-vit", "cifake-cnn"):
        predictions = api.models[name].predict(paths)
        answers = [api.predict(path, name) for path in paths]
        assert predictions[1] == answers[1]["error"]
        assert predictions[1].startswith("No verdict: not an image file (JPEG, PNG,")
        assert predictions[2] is None
        assert list(answers[2]) == ["error"]
        for position in (0, 3, 4):
            assert predictions[position].verdict.p_fake == pytest.approx(answers[position]["p_fake"], abs=1e-5)
            assert answers[position]["model"] == name
    assert "cifake-cnn or cifake-vit; found 'other'" in api.predict(paths[4], "other")["error"]


def test_warnings_depend_on_size_shape_and_format(api, tmp_path):
    photograph = Image.open(SPACE / "examples/rocket.jpg")
    sizes = {"same.jpg": (32, 32), "large.png": (640, 640), "narrow.jpg": (60, 30), "tiny.jpg": (8, 8)}
    paths = [str(tmp_path / name) for name in sizes]
    for path, size in zip(paths, sizes.values(), strict=True):
        photograph.resize(size).save(path)
    answers = [api.predict(path, "cifake-cnn") for path in paths]
    same, large, narrow, tiny = (answer["warnings"] for answer in answers)
    assert same == []
    assert len(large) == 2
    assert "from 640 x 640 to the model's 32 x 32 pixels, 0.25% of them" in large[0]
    assert "PNG" in large[1]
    assert "JPEG" in large[1]
    assert "smaller than the model's 32 x 32 pixels" in narrow[0]
    assert "stretched" in narrow[1]
    assert [tiny, len(narrow)] == [narrow[:1], 2]


def test_the_warnings_of_a_model_that_crops_are_true(tmp_path):
    Detector.from_pretrained(MODELS / "cifake-vit").model.save_pretrained(tmp_path / "crops")
    CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=32).save_pretrained(tmp_path / "crops")
    sizes = {"wide.jpg": (640, 320), "square.jpg": (32, 32), "small.jpg": (40, 20)}
    for name, size in sizes.items():
        picture(size).save(tmp_path / name)
    own = api_here(str(tmp_path / "crops"))
    answers = [own.predict(str(tmp_path / name), "crops") for name in sizes]
    wide, square, small = (answer["warnings"] for answer in answers)
    assert "The model sees 50% of the image, 320 x 320 pixels in the middle" in wide[0]
    assert "That part was downscaled from 320 x 320" in wide[1]
    assert "sees 50% of the image" in small[0]
    assert "smaller than" in small[1]
    assert not any("stretched" in warning for warning in [*wide, *small])
    assert square == []


def test_a_jpeg_of_a_camera_with_two_images_has_no_warning(api, tmp_path):
    file = tmp_path / "camera.jpg"
    picture((32, 32)).save(file, format="MPO", save_all=True, append_images=[picture((16, 16))])
    answer = api.predict(str(file), "cifake-cnn")
    assert not any("MPO" in warning or "trained on" in warning for warning in answer["warnings"])


def test_an_image_far_from_the_training_data_has_a_warning(api, tmp_path):
    file = tmp_path / "noise.jpg"
    Image.fromarray((np.indices((32, 32)).sum(axis=0) % 2 * 255).astype(np.uint8)).convert("RGB").save(file)
    detector = Detector.from_pretrained(MODELS / "cifake-vit")
    [verdict] = detector.predict([Image.open(file)])
    answer = api.predict(str(file), "cifake-vit")
    assert verdict.is_far
    assert any("far from" in warning for warning in answer["warnings"])
    assert not any(verdict.is_far for verdict in detector.predict([Image.open(read_examples()[0].file)]))


def test_the_page_says_why_it_is_unsure_by_the_limits_of_the_whole_image(tmp_path):
    shutil.copytree(MODELS / "cifake-cnn", tmp_path / "limited")
    point = {"threshold": 0.5, "chosen": "by hand", "limits": {"short_side": 200}}
    (tmp_path / "limited/operating_point.json").write_text(json.dumps(point))
    limited = api_here(str(tmp_path / "limited"))
    for side, is_small in ((199, True), (200, False)):
        picture((300, side)).save(file := tmp_path / f"{side}.jpg")
        answer = limited.predict(str(file), "limited")
        assert answer["decided"] is not is_small
        assert ("too small" in answer["reason"]) == is_small
        *_, (_, card) = limited.show_verdicts(str(file), ["limited"])
        assert ("too small" in Page(card).words) == is_small


def test_a_probability_is_explained_by_the_evaluation(api, photo):
    answer = api.predict(photo, "cifake-vit")
    grid = json.loads((ROOT / "results/crosseval.json").read_text())
    [cell] = [
        cell for cell in grid["cells"]
        if (cell["model"], cell["dataset"], cell["split"], cell["protocol"]) == ("vit", "cifake", "test", "native")
    ]  # fmt: skip
    [row] = [row for row in cell["confidence"]["bins_after"] if row["low"] <= answer["p_fake"] < row["high"] + 1e-9]
    assert f"{row['share_fake']:.1%} of the {row['n']:,} test images of CIFAKE" in answer["meaning"]
    assert f"from {row['low']:.2f} to {row['high']:.2f}" in answer["meaning"]
    assert f"{cell['confidence']['wrong']['value']:.1%} of its verdicts" in answer["meaning"]


def test_another_model_is_reported_as_not_evaluated(tmp_path, photo):
    detector = Detector.from_pretrained(MODELS / "cifake-cnn")
    next(detector.model.parameters()).data += 0.01
    detector.model.save_pretrained(tmp_path / "mine")
    detector.processor.save_pretrained(tmp_path / "mine")
    own = api_here(str(tmp_path / "mine"))
    answer = own.predict(photo, "mine")
    assert answer["decided"] is None
    assert "not evaluated" in answer["meaning"]
    assert "Likely" in answer["verdict"]


def test_weights_that_can_contain_code_are_refused(tmp_path):
    detector = Detector.from_pretrained(MODELS / "cifake-cnn")
    detector.model.save_pretrained(tmp_path / "old")
    detector.processor.save_pretrained(tmp_path / "old")
    (tmp_path / "old/model.safetensors").rename(tmp_path / "old/pytorch_model.bin")
    with pytest.raises(OSError, match=r"model\.safetensors"):
        Model("old", Source(str(tmp_path / "old")), SameProcess(), SameReaders(None)).facts  # noqa: B018


def test_two_models_with_the_same_name_are_refused(tmp_path):
    for parent in ("a", "b"):
        (tmp_path / parent / "mine").mkdir(parents=True)
    with pytest.raises(ValueError, match="found mine, mine"):
        find_models([str(tmp_path / "a/mine"), str(tmp_path / "b/mine")])


def test_attention_methods_are_offered_for_the_transformer_only(api):
    assert api.models["cifake-cnn"].facts.methods == ("grad_cam", "integrated_gradients")
    assert api.models["cifake-vit"].facts.methods[0] == "relevance"
    assert set(api.models["cifake-vit"].facts.methods) > {"rollout", "grad_cam", "last_attention"}


def test_a_map_is_returned_as_an_image_and_as_numbers(api, photo):
    shown, about = api.explain(photo, "cifake-vit", "rollout", 0.5)
    assert pixels(shown).shape == (480, 640, 3)
    assert (about["method"], np.shape(about["grid"]), about["explains"]) == ("rollout", (8, 8), None)
    assert api.explain(photo, "cifake-cnn", "", 0.5)[1]["method"] == "grad_cam"
    shown, legend = api.show_map("cifake-vit", photo, "rollout", 1)
    assert np.ptp(pixels(shown), axis=2).max() > 100  # colours of the map
    assert "for or against" in legend
    [verdict] = Detector.from_pretrained(MODELS / "cifake-vit").predict(photo)
    _, legend = api.show_map("cifake-vit", photo, "relevance", 1)
    assert f"evidence for {'AI-generated' if verdict.p_fake > 0.5 else 'real'}." in legend


def test_an_unsupported_method_is_an_error_that_names_the_supported_ones(api, photo):
    shown, about = api.explain(photo, "cifake-cnn", "rollout", 0.5)
    assert shown is None
    assert "grad_cam or integrated_gradients" in about["error"]
    shown, about = api.explain(photo, "cifake-cnn", "guess", 0.5)
    assert "found 'guess'" in about["error"]


def test_large_images_are_downscaled_under_their_map(api, tmp_path):
    file = tmp_path / "large.jpg"
    picture((2000, 1000)).save(file)
    assert pixels(api.show_map("cifake-cnn", str(file), None, 0.5)[0]).shape == (384, 768, 3)


@pytest.mark.parametrize(
    ("name", "data", "is_image"), list(corpus()), ids=lambda value: value if isinstance(value, str) else ""
)
def test_every_file_gets_an_answer_or_an_error_message(api, tmp_path, name, data, is_image):
    file = tmp_path / (name if len(name.encode()) < 200 else "long.png")
    file.write_bytes(data)
    answer = api.predict(str(file), "cifake-cnn")
    *_, shown = api.show_verdicts(str(file), ["cifake-cnn"])
    page = Page("".join(shown))
    assert ("error" not in answer) == is_image
    if is_image:
        assert 0 <= answer["p_fake"] <= 1
        assert answer["verdict"] in page.words
        assert pixels(api.show_map("cifake-vit", str(file), "rollout", 0.5)[0]).ndim == 3
        assert "bytes" in api.show_metadata(str(file))
        return
    assert re.fullmatch(r"No verdict: .+\.", answer["error"])
    assert answer["error"] in page.words
    assert page.all("script") == page.all("img") == []
    assert api.show_map("cifake-vit", str(file), "rollout", 0.5) == (None, "")
    assert "Traceback" not in answer["error"]


def test_the_corpus_has_enough_files():
    assert len(list(corpus())) >= 40
    assert sum(not is_image for *_, is_image in corpus()) >= 25


def test_limits_are_checked_before_anything_is_decoded(tmp_path, monkeypatch):
    monkeypatch.setattr("realfake_space.uploads.decode_image", lambda _: pytest.fail("decoded"))
    large = tmp_path / "large.png"
    Image.new("1", (9000, MAX_PIXELS // 9000 + 1)).save(large)
    with pytest.raises(RejectedError, match="9,000 x 7,112 pixels; the limit is 64 million"):
        open_upload(str(large))
    with (tmp_path / "heavy.png").open("wb") as stream:
        stream.truncate(MAX_BYTES + 1)
    with pytest.raises(RejectedError, match="the file has 32 MiB; the limit is 32"):
        open_upload(str(tmp_path / "heavy.png"))


def test_metadata_is_shown_as_text_and_never_as_markup(api, tmp_path):
    exif = Image.Exif()
    exif[0x010F], exif[0x0131] = "<b>Maker</b>", '"><script>alert(1)</script>'
    file = tmp_path / "photo.jpg"
    file.write_bytes(saved(format="JPEG", exif=exif))
    page = Page(api.show_metadata(str(file)))
    assert "<b>Maker</b>" in page.words
    assert page.all("script") == page.all("b") == []
    assert "can be removed or forged" in page.words


def test_many_images_make_a_table_and_a_csv_file(api, tmp_path):
    names = ["=evil.png", "photo.png", "text.png"]
    for name in names:
        (tmp_path / name).write_bytes(b"text" if name == "text.png" else saved())
    reported = []
    rows = api.table([str(tmp_path / name) for name in names], lambda done, total: reported.append((done, total)))
    assert [row[:2] for row in rows] == [[name, model] for name in names for model in api.models]
    assert rows[-1][2].startswith("No verdict: ")
    assert reported == [(3, 3)]
    with Path(api.write_csv(rows)).open(newline="", encoding="utf-8") as stream:
        head, first, *_ = csv.reader(stream)
    assert head == list(COLUMNS)
    assert first[0] == "'=evil.png"


def test_the_examples_have_the_expected_answers(api):
    table = expected_table(api)
    assert table.count("as expected") == 3 * len(read_examples()) == 18
    assert "differs" not in table
    assert {example.is_fake for example in read_examples()} == {True, False}


def test_the_verdicts_come_one_after_another_and_the_first_stands_above(api, photo):
    names = list(api.models)
    shown = list(api.show_verdicts(photo, names))
    assert [sum(map(bool, cards)) for _, *cards in shown] == [1, 2, 3]
    assert all("says wild" in summary for summary, *_ in shown)
    assert "Waiting for cifake-cnn and cifake-vit." in shown[0][0]
    assert "Of 3 models, " in shown[-1][0]
    [(summary, *cards)] = api.show_verdicts(photo, ["cifake-vit"])
    assert "The only model " in summary
    assert [bool(card) for card in cards] == [False, False, True]
    for path, chosen, words in ((None, names, "Upload an image"), (photo, [], "Choose a model")):
        [(summary, *cards)] = api.show_verdicts(path, chosen)
        assert words in summary
        assert cards == [""] * 3


def test_the_failures_among_the_examples_are_failures_and_the_others_are_not(api):
    for example in read_examples():
        answers = [api.predict_one(name, str(example.file)) for name in api.models]
        wrong = tuple(item.model for item in answers if item.decided and (item.label == "FAKE") != example.is_fake)
        right = {item.model for item in answers if item.decided and (item.label == "FAKE") == example.is_fake}
        assert set(wrong) == set(example.wrong), example.file.name
        assert example.group != "small" or right >= {"cifake-cnn", "cifake-vit"}
        assert example.group != "today" or "wild" in right


def test_an_installation_with_other_answers_is_reported(api, monkeypatch):
    monkeypatch.setattr("realfake_space.examples.TOLERANCES", {"float32": -1, "bfloat16": -1})
    assert expected_table(api).count("**differs**") == 18


def test_a_map_that_is_being_sent_is_not_written_again(tmp_path, monkeypatch):
    shown = MapImage(format="png", render=False)
    monkeypatch.setattr(shown, "GRADIO_CACHE", str(tmp_path))
    first, second = shown.postprocess(b"map"), shown.postprocess(b"map")
    assert first.path != second.path
    assert Path(first.path).read_bytes() == Path(second.path).read_bytes() == b"map"
