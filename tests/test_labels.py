"""Labels are read by name, and REAL is 0 and FAKE is 1 everywhere."""

import pytest

from realfake_hf.labels import FAKE, LABEL_NAMES, REAL, fake_index, id2label, label2id, parse_label


def test_real_is_zero_and_fake_is_one() -> None:
    assert (REAL, FAKE) == (0, 1)
    assert LABEL_NAMES[REAL] == "REAL"
    assert LABEL_NAMES[FAKE] == "FAKE"


def test_the_two_maps_of_a_model_are_inverse() -> None:
    assert {name: index for index, name in id2label().items()} == label2id() == {"REAL": 0, "FAKE": 1}


@pytest.mark.parametrize(
    "text", ["REAL", "real", "0_real", "1_real", "RealArt", "Real Art", "nature", "human", "01-real"]
)
def test_words_for_real_are_real_whatever_their_case_punctuation_or_index(text: str) -> None:
    assert parse_label(text) == "REAL"


@pytest.mark.parametrize("text", ["FAKE", "fake", "1_fake", "0_fake", "AiArtData", "AI", "AI-generated", "synthetic"])
def test_words_for_fake_are_fake_whatever_their_case_punctuation_or_index(text: str) -> None:
    assert parse_label(text) == "FAKE"


@pytest.mark.parametrize("text", ["", "0", "1", "frog", "unreal", "notfake", "real fake", "train", "LABEL_0", "٣"])
def test_other_words_and_bare_numbers_are_no_label(text: str) -> None:
    assert parse_label(text) is None


@pytest.mark.parametrize(
    ("names", "index"), [({0: "REAL", 1: "FAKE"}, 1), ({0: "fake", 1: "real"}, 0), ({0: "artificial", 1: "human"}, 0)]
)
def test_the_fake_output_is_found_by_name(names: dict[int, str], index: int) -> None:
    assert fake_index(names) == index


@pytest.mark.parametrize(
    "names", [{0: "LABEL_0", 1: "LABEL_1"}, {0: "real", 1: "authentic"}, {0: "real", 1: "fake", 2: "frog"}, {}]
)
def test_outputs_that_do_not_say_real_and_fake_are_refused(names: dict[int, str]) -> None:
    with pytest.raises(ValueError, match="expected one label that means real and one that means fake; found"):
        fake_index(names)
