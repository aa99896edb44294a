"""Verdicts in words, and their warnings, without a model."""

import json
import subprocess
import sys

import pytest

from realfake_hf.data.framing import Framing
from realfake_hf.labels import Verdict
from realfake_hf.metrics.operating_point import Band
from realfake_hf.wording import band_words, verdict_words, warnings_of

FAR = Verdict("FAKE", 0.991, is_sure=True, is_far=True)
NEAR = Verdict("REAL", 0.1, is_sure=True, is_far=False)
SQUARE = Framing(size=(32, 32), seen=(1.0, 1.0), crops=False, growth=None)
CROPPING = Framing(size=(224, 224), seen=(1.0, 1.0), crops=True, growth=None)


@pytest.mark.parametrize(
    ("verdict", "words"),
    [
        (FAR, "Likely AI-generated"),
        (Verdict("REAL", 0.4), "Likely real"),
        (Verdict("REAL", 0.4, is_sure=False), "Unsure, possibly real"),
    ],
)
def test_a_verdict_is_put_in_words_with_what_is_unsure(verdict, words):
    assert verdict_words(verdict) == words


def test_the_band_is_named_by_its_ends_and_an_empty_one_is_not():
    assert band_words(Band(0.25, 0.875, promised=0.02)) == "unsure between 0.25 and 0.875"
    assert band_words(Band(0.5, 0.5, promised=0.02)) == band_words(None) == ""


def test_what_is_unknown_has_no_warning():
    assert warnings_of(Verdict.of(0.9)) == []
    assert warnings_of(NEAR, framing=SQUARE, size=(32, 32), file_format="JPEG") == []


def test_distance_from_the_training_data_comes_first():
    found = warnings_of(FAR, framing=SQUARE, size=(640, 320), file_format="PNG", trained_format="JPEG")
    assert [next(word for word in ("far", "downscaled", "stretched", "PNG") if word in text) for text in found] == [
        "far", "downscaled", "stretched", "PNG",
    ]  # fmt: skip


def test_a_warning_does_not_repeat_a_reason():
    assert warnings_of(Verdict("FAKE", 0.9, is_sure=False, is_far=True, reasons=("far",))) == []


def test_cropping_is_said_with_the_part_that_is_left():
    [cropped] = warnings_of(NEAR, framing=CROPPING, size=(600, 300))
    assert "50% of the image, 300 x 300 pixels" in cropped


def test_an_image_that_is_smaller_than_the_input_was_upscaled():
    [upscaled] = warnings_of(NEAR, framing=SQUARE, size=(16, 16))
    assert "32 x 32 pixels; it was upscaled" in upscaled


def test_words_need_no_torch():
    code = "import json, sys, realfake_hf.wording, realfake_hf.data.framing; print(json.dumps(sorted(sys.modules)))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert not {"torch", "transformers", "matplotlib"} & set(json.loads(loaded))
