import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
from bad_files import corpus, picture, saved
from page_desk import Here, desk_here, pixels
from page_in_browser import Page
from PIL import Image

from realfake_hf.detector import Detector
from realfake_space.answers import TABLE_HEAD
from realfake_space.examples import EXAMPLES, check_installation
from realfake_space.lineup import MODELS, Contestant, line_up
from realfake_space.model_process import Source
from realfake_space.pictures import MOST_BYTES, MOST_PIXELS, RefusedError, open_upload

ROOT = Path(__file__).resolve().parents[1]
SPACE = ROOT / "space"
MARKS = {"fake": "Likely AI-generated", "real": "Likely real"}


@pytest.fixture(scope="module")
def desk():
    return desk_here()


def test_the_page_answers_what_the_detector_says(desk, photo):
    for name in desk.lineup:
        [verdict] = Detector.from_pretrained(MODELS / name, bf16=True).predict(photo)
        [[found]] = desk.predict([photo], [name])
        assert found["p_fake"] == pytest.approx(verdict.p_fake, abs=1e-5)
        assert (found["label"], found["decided"]) == (verdict.label, verdict.is_sure)
        assert found["verdict"].startswith("Unsure, leaning to" if not verdict.is_sure else "Likely")


def test_where_asked_the_page_answers_in_float32(photo):
    exact = desk_here(str(MODELS / "cifake-vit"), float32=True)
    [verdict] = Detector.from_pretrained(MODELS / "cifake-vit").predict(photo)
    [[found]] = exact.predict([photo], ["cifake-vit"])
    assert found["p_fake"] == pytest.approx(verdict.p_fake, abs=1e-5)


def test_a_batch_of_questions_has_an_answer_each_in_order(desk, tmp_path):
    paths = []
    for shade in (0, 90, 200):
        paths.append(str(tmp_path / f"{shade}.png"))
        Image.new("RGB", (32, 32), (shade, 30, 60)).save(paths[-1])
    paths[1:1] = [str(tmp_path / "text.png"), None]
    Path(paths[1]).write_bytes(b"text")
    names = ["cifake-vit", "cifake-cnn", "cifake-cnn", "cifake-cnn", "other"]
    [found] = desk.predict(paths, names)
    assert found[1] == {
        "error": "No verdict: not an image file (JPEG, PNG, WEBP, GIF, BMP, TIFF, PPM, AVIF, JPEG2000)."
    }
    assert found[2] == {"error": "Give a picture."}
    assert found[4] == {"error": "Wanted a model named cifake-cnn or cifake-vit; found 'other'."}
    for place in (0, 3):
        [[alone]] = desk.predict([paths[place]], [names[place]])
        assert found[place]["p_fake"] == pytest.approx(alone["p_fake"], abs=1e-5)
        assert found[place]["model"] == names[place]


def test_warnings_are_earned(desk, tmp_path):
    photograph = Image.open(EXAMPLES[-1].file)
    sizes = {"same.jpg": (32, 32), "large.png": (640, 640), "narrow.jpg": (60, 30), "tiny.jpg": (8, 8)}
    paths = [str(tmp_path / name) for name in sizes]
    for path, size in zip(paths, sizes.values(), strict=True):
        photograph.resize(size).save(path)
    [found] = desk.predict(paths, ["cifake-cnn"] * 4)
    same, large, narrow, tiny = (one["warnings"] for one in found)
    gone = "0.25 % of them: most of what detectors look for is gone before it looks."
    enlarged = "The picture is smaller than the 32 x 32 pixels that the model sees; it was enlarged."
    assert same == []
    assert large == [
        f"The model sees 32 x 32 pixels of your 640 x 640, {gone}",
        "The file is PNG; the model learnt from JPEG files alone.",
    ]
    assert narrow == [enlarged, "The picture is not of the model's shape: its sides were squeezed."]
    assert tiny == [enlarged]


def test_a_picture_far_from_the_training_is_warned_of(desk, tmp_path):
    file = tmp_path / "noise.jpg"
    Image.fromarray((np.indices((32, 32)).sum(axis=0) % 2 * 255).astype(np.uint8)).convert("RGB").save(file)
    detector = Detector.from_pretrained(MODELS / "cifake-vit")
    [verdict] = detector.predict([Image.open(file)])
    [[found]] = desk.predict([str(file)], ["cifake-vit"])
    far = "The model sees this picture far from all that it learnt from: its probability means little here."
    assert verdict.is_far
    assert far in found["warnings"]
    assert not any(one.is_far for one in detector.predict([Image.open(one.file) for one in EXAMPLES[:1]]))


def test_a_probability_is_said_with_what_it_means_where_it_was_measured(desk, photo):
    [[found]] = desk.predict([photo], ["cifake-vit"])
    grid = json.loads((ROOT / "results/crosseval.json").read_text())
    [cell] = [
        one for one in grid["cells"]
        if (one["model"], one["dataset"], one["split"], one["protocol"]) == ("vit", "cifake", "test", "native")
    ]  # fmt: skip
    [row] = [one for one in cell["confidence"]["bins"] if one["low"] <= found["p_fake"] < one["high"] + 1e-9]
    assert found["meaning"].startswith(
        f"Of {row['n']:,} test pictures of CIFAKE with a probability from {row['low']:.2f} "
    )
    assert f"{row['share_fake']:.1%} were AI-generated" in found["meaning"]
    assert f"{cell['confidence']['wrong']['value']:.1%} of its verdicts were wrong there" in found["meaning"]


def test_a_model_of_the_operators_own_is_not_said_to_be_measured(tmp_path, photo):
    detector = Detector.from_pretrained(MODELS / "cifake-cnn")
    next(detector.model.parameters()).data += 0.01
    detector.model.save_pretrained(tmp_path / "mine")
    detector.processor.save_pretrained(tmp_path / "mine")
    own = desk_here(str(tmp_path / "mine"))
    [[found]] = own.predict([photo], ["mine"])
    assert found["decided"] is None
    assert found["meaning"] == "Nothing was measured of this model here: its probability may mean anything."
    assert "Likely" in found["verdict"]


def test_weights_that_can_hold_code_are_refused(tmp_path):
    detector = Detector.from_pretrained(MODELS / "cifake-cnn")
    detector.model.save_pretrained(tmp_path / "old")
    detector.processor.save_pretrained(tmp_path / "old")
    (tmp_path / "old/model.safetensors").rename(tmp_path / "old/pytorch_model.bin")
    with pytest.raises(OSError, match=r"model\.safetensors"):
        Contestant("old", Source(str(tmp_path / "old")), Here()).facts  # noqa: B018


def test_two_models_of_one_name_are_refused(tmp_path):
    for parent in ("a", "b"):
        (tmp_path / parent / "mine").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"wanted models of different names; found mine, mine\. Rename"):
        line_up([str(tmp_path / "a/mine"), str(tmp_path / "b/mine")])


def test_methods_of_attention_are_offered_to_the_transformer_alone(desk):
    assert desk.lineup["cifake-cnn"].facts.methods == ("grad_cam", "integrated_gradients")
    assert desk.lineup["cifake-vit"].facts.methods[0] == "relevance"
    assert set(desk.lineup["cifake-vit"].facts.methods) > {"rollout", "grad_cam", "last_attention"}


def test_a_map_lies_over_the_picture_and_comes_as_numbers(desk, photo):
    shown, about = desk.explain(photo, "cifake-vit", "rollout", 0.5)
    assert pixels(shown).shape == (480, 640, 3)
    assert (about["method"], np.shape(about["grid"]), about["explains"]) == ("rollout", (8, 8), None)
    assert desk.explain(photo, "cifake-cnn", "", 0.5)[1]["method"] == "grad_cam"
    none = pixels(desk.show_map("cifake-vit", photo, "rollout", 0))
    assert np.ptp(none, axis=2).max() == 0  # grey, without any colour of the map
    assert np.ptp(pixels(desk.show_map("cifake-vit", photo, "rollout", 1)), axis=2).max() > 100


def test_a_method_that_does_not_fit_is_told_in_words(desk, photo):
    shown, about = desk.explain(photo, "cifake-cnn", "rollout", 0.5)
    assert shown is None
    assert "which has no attention. Use grad_cam or integrated_gradients." in about["error"]
    shown, about = desk.explain(photo, "cifake-cnn", "guess", 0.5)
    assert "found 'guess'" in about["error"]


def test_large_pictures_are_shown_smaller_under_their_map(desk, tmp_path):
    file = tmp_path / "large.jpg"
    picture((2000, 1000)).save(file)
    assert pixels(desk.show_map("cifake-cnn", str(file), None, 0.5)).shape == (384, 768, 3)


@pytest.mark.parametrize(
    ("name", "data", "is_picture"), list(corpus()), ids=lambda one: one if isinstance(one, str) else ""
)
def test_every_file_gets_an_answer_or_a_sentence(desk, tmp_path, name, data, is_picture):
    file = tmp_path / (name if len(name.encode()) < 200 else "long.png")
    file.write_bytes(data)
    [[found]] = desk.predict([str(file)], ["cifake-cnn"])
    [[html]] = desk.show_verdicts("cifake-cnn", [str(file)])
    page = Page(html)
    assert ("error" not in found) == is_picture
    if is_picture:
        assert 0 <= found["p_fake"] <= 1
        assert found["verdict"] in page.words
        assert pixels(desk.show_map("cifake-vit", str(file), "rollout", 0.5)).ndim == 3
        assert "bytes" in desk.facts(str(file))
        return
    assert re.fullmatch(r"No verdict: .+\.", found["error"])
    assert found["error"] in page.words
    assert page.all("script") == page.all("img") == []
    assert desk.show_map("cifake-vit", str(file), "rollout", 0.5) is None
    assert "Traceback" not in found["error"]


def test_the_corpus_is_as_large_as_it_should_be():
    assert len(list(corpus())) >= 40
    assert sum(not is_picture for *_, is_picture in corpus()) >= 25


def test_limits_hold_before_anything_is_decoded(tmp_path, monkeypatch):
    monkeypatch.setattr("realfake_space.pictures.decode_image", lambda _: pytest.fail("decoded"))
    large = tmp_path / "large.png"
    Image.new("1", (9000, MOST_PIXELS // 9000 + 1)).save(large)
    with pytest.raises(RefusedError, match=r"the picture has 9,000 x 7,112 pixels; this page takes up to 64 million"):
        open_upload(str(large))
    with (tmp_path / "heavy.png").open("wb") as stream:
        stream.truncate(MOST_BYTES + 1)
    with pytest.raises(RefusedError, match="the file has 32 MiB; this page takes up to 32"):
        open_upload(str(tmp_path / "heavy.png"))


def test_what_a_file_claims_is_shown_as_text_and_never_as_markup(desk, tmp_path):
    exif = Image.Exif()
    exif[0x010F], exif[0x0131] = "<b>Maker</b>", '"><script>alert(1)</script>'
    file = tmp_path / "photo.jpg"
    file.write_bytes(saved(format="JPEG", exif=exif))
    page = Page(desk.facts(str(file)))
    assert "<b>Maker</b>" in page.words
    assert page.all("script") == page.all("b") == []
    assert "can be removed or forged" in page.words


def test_many_pictures_make_a_table_and_a_file(desk, tmp_path):
    names = ["=evil.png", "photo.png", "text.png"]
    for name in names:
        (tmp_path / name).write_bytes(b"text" if name == "text.png" else saved())
    told = []
    rows = desk.table([str(tmp_path / name) for name in names], lambda done, of: told.append((done, of)))
    assert [row[:2] for row in rows] == [[name, model] for name in names for model in ("cifake-cnn", "cifake-vit")]
    assert rows[-1][2].startswith("No verdict: ")
    assert told == [(3, 3)]
    with Path(desk.csv(rows)).open(newline="", encoding="utf-8") as stream:
        head, first, *_ = csv.reader(stream)
    assert head == list(TABLE_HEAD)
    assert first[0] == "'=evil.png"


def test_the_examples_answer_as_expected(desk):
    table = check_installation(desk)
    assert table.count("as expected") == 2 * len(EXAMPLES) == 10
    assert "differs" not in table
    assert {one.is_fake for one in EXAMPLES} == {True, False}


def test_an_installation_that_answers_otherwise_is_told_so(desk, monkeypatch):
    monkeypatch.setattr("realfake_space.examples.TOLERANCES", {"float32": -1, "bfloat16": -1})
    assert check_installation(desk).count("**differs**") == 10
