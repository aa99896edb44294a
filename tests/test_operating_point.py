"""The operating point in the folder of a model is read back, and refused if it is invalid."""

import json

import pytest

from realfake_hf.estimate import from_plain, to_plain
from realfake_hf.metrics.operating_point import DEFAULT, OperatingPoint, load_operating_point


def test_a_folder_without_one_has_a_threshold_of_one_half(tmp_path):
    assert load_operating_point(tmp_path) == DEFAULT == load_operating_point("user/name")
    assert str(DEFAULT) == "0.5, one half by default: no threshold was chosen on validation"


@pytest.mark.parametrize(
    "text", ["{}", "no JSON", '{"threshold": 2, "chosen": "by hand"}', '{"threshold": 0.5, "x": 1}']
)
def test_an_invalid_file_is_refused(text, tmp_path):
    (tmp_path / "operating_point.json").write_text(text)
    with pytest.raises(ValueError, match=r"operating_point\.json"):
        load_operating_point(tmp_path)


def test_an_operating_point_survives_its_dictionary():
    point = OperatingPoint(0.25, "on validation", n=10, sha256="ab")
    assert from_plain(OperatingPoint, json.loads(json.dumps(to_plain(point)))) == point
