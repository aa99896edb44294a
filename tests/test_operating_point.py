"""The operating point in the folder of a model is read back, and refused if it is invalid."""

import json
import math

import pytest

from realfake_hf.estimate import from_plain, to_plain
from realfake_hf.labels import REASONS, Verdict
from realfake_hf.metrics.calibration import log_odds, scale
from realfake_hf.metrics.image_quality import ImageQuality
from realfake_hf.metrics.operating_point import DEFAULT, Band, Limits, OperatingPoint, load_operating_point, shift

BAND = Band(0.3, 0.9, promised=0.1)
GOOD = ImageQuality(short_side=512, jpeg=80, blockiness=0.1, detail=0.9)


def test_a_folder_without_one_has_a_threshold_of_one_half(tmp_path):
    assert load_operating_point(tmp_path) == DEFAULT == load_operating_point("user/name")
    assert str(DEFAULT) == "0.5, one half by default: no threshold was chosen on validation"


@pytest.mark.parametrize(
    "text", ["{}", "no JSON", '{"threshold": 2, "chosen": "by hand"}', '{"threshold": 0.5, "x": 1}',
     '{"threshold": 0.5, "chosen": "by hand", "limits": {"jpeg": -1}}']
)  # fmt: skip
def test_an_invalid_file_is_refused(text, tmp_path):
    (tmp_path / "operating_point.json").write_text(text)
    with pytest.raises(ValueError, match=r"operating_point\.json"):
        load_operating_point(tmp_path)


def test_an_operating_point_survives_its_dictionary():
    point = OperatingPoint(0.25, "on validation", n=10, sha256="ab")
    assert from_plain(OperatingPoint, json.loads(json.dumps(to_plain(point)))) == point


OLD = {  # of version 0.1: threshold and band before the temperature
    "threshold": 0.6, "chosen": "on validation", "n": 9, "temperature": 2.0,
    "band": {"low": 0.1, "high": 0.95, "promised": 0.01},
}  # fmt: skip


def test_an_operating_point_of_version_0_1_gives_the_same_verdicts_on_calibrated_probabilities(tmp_path):
    (tmp_path / "operating_point.json").write_text(json.dumps(OLD))
    found = load_operating_point(tmp_path)
    assert (found.threshold, found.temperature) == (pytest.approx(scale(0.6, 2.0)), 2.0)
    before = from_plain(OperatingPoint, OLD)
    for p_fake in (0.0, 0.05, 0.0999, 0.1001, 0.5, 0.599, 0.601, 0.9499, 0.9501, 1.0):
        old, new = before.judge(p_fake), found.judge(float(scale(p_fake, 2.0)))
        assert (old.label, old.is_sure, old.reasons) == (new.label, new.is_sure, new.reasons)


def test_an_operating_point_is_not_converted_twice(tmp_path):
    (tmp_path / "operating_point.json").write_text(json.dumps(OLD))
    found = load_operating_point(tmp_path)
    (tmp_path / "operating_point.json").write_text(json.dumps(to_plain(found)))
    assert load_operating_point(tmp_path) == found


@pytest.mark.parametrize("temperature", [None, 1.0])
def test_without_a_temperature_an_old_operating_point_keeps_its_numbers(temperature, tmp_path):
    (tmp_path / "operating_point.json").write_text(json.dumps({**OLD, "temperature": temperature}))
    found = load_operating_point(tmp_path)
    assert (found.threshold, found.band.low, found.band.high) == (0.6, 0.1, 0.95)


def test_a_threshold_that_calls_nothing_or_everything_fake_stays(tmp_path):
    for threshold in (0.0, 1.0):
        (tmp_path / "operating_point.json").write_text(json.dumps({**OLD, "threshold": threshold}))
        assert load_operating_point(tmp_path).threshold == threshold


def test_one_with_limits_survives_its_file_and_one_without_reads_as_before(tmp_path):
    file = tmp_path / "operating_point.json"
    point = OperatingPoint(0.5, "by hand", band=BAND, limits=Limits(short_side=224, jpeg=45, blockiness=0.4, far=True))
    file.write_text(json.dumps(to_plain(point)))
    assert load_operating_point(tmp_path) == point
    file.write_text(json.dumps({"threshold": 0.5, "chosen": "by hand", "band": to_plain(BAND)}))
    old = load_operating_point(tmp_path)
    assert old == OperatingPoint(0.5, "by hand", band=BAND)
    poor = ImageQuality(short_side=1, jpeg=1, blockiness=9, detail=0)
    assert old.judge(0.95, quality=poor, spread=9, is_far=True) == Verdict("FAKE", 0.95, is_sure=True, is_far=True)


@pytest.mark.parametrize(
    ("limits", "reasons"),
    [
        (Limits(short_side=512, jpeg=80, blockiness=0.1, detail=0.9, far=True), ()),
        (Limits(short_side=513), ("size",)),
        (Limits(jpeg=81), ("compression",)),
        (Limits(blockiness=0.09), ("compression",)),
        (Limits(detail=0.91), ("upscaling",)),
        (Limits(short_side=513, jpeg=81, detail=0.91), ("size", "compression", "upscaling")),
    ],
)
@pytest.mark.parametrize("p_fake", [0.0, 1.0])
def test_an_image_below_the_limits_is_unsure_whatever_the_score(limits, reasons, p_fake):
    found = OperatingPoint(0.5, "by hand", band=BAND, limits=limits).judge(p_fake, quality=GOOD, is_far=False)
    assert (found.reasons, found.is_sure) == (reasons, not reasons)
    assert all(REASONS[reason] in found.reason for reason in reasons)


def test_a_far_image_is_unsure_if_the_limits_say_so():
    for far in (False, True):
        found = OperatingPoint(0.5, "by hand", limits=Limits(far=far)).judge(1.0, is_far=True)
        assert (found.is_sure, found.is_far, found.reasons) == (not far, True, ("far",) if far else ())


@pytest.mark.parametrize("p_fake", [0.29, 0.901, 0.05, 0.999])
def test_views_that_contradict_each_other_widen_the_band_on_both_sides(p_fake):
    point = OperatingPoint(0.5, "by hand", band=BAND, limits=Limits(widening=2))
    room = float(max(log_odds(BAND.low) - log_odds(p_fake), log_odds(p_fake) - log_odds(BAND.high)))
    assert point.judge(p_fake, spread=0.49 * room).is_sure
    assert point.judge(p_fake, spread=0.51 * room).reasons == ("views",)
    assert OperatingPoint(0.5, "by hand", band=BAND).judge(p_fake, spread=99).is_sure


def test_an_undecided_score_is_named_and_the_band_need_not_be_symmetric():
    point = OperatingPoint(0.5, "by hand", band=BAND, limits=Limits(widening=2, jpeg=99))
    assert point.judge(0.6, spread=1, quality=GOOD).reasons == ("score", "compression")
    assert [OperatingPoint(0.5, "by hand", band=BAND).judge(p).is_sure for p in (0.3, 0.31, 0.89, 0.9)] == [
        True, False, False, True,
    ]  # fmt: skip


@pytest.mark.parametrize("margin", [-1000.0, -1.5, 0.0, 1.5, 1000.0])
@pytest.mark.parametrize("p_fake", [0.0, 1e-9, 0.2, 0.5, 1.0])
def test_a_shift_adds_to_the_log_odds(p_fake, margin):
    expected = 1 / (1 + math.exp(-min(max(float(log_odds(p_fake)) + margin, -700), 700)))
    assert shift(p_fake, margin) == pytest.approx(expected, abs=1e-12)
