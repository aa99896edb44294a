"""The benchmarks of growth and streaming render their results, and extrapolate them."""

import pytest

from benchmarks.scaling import draw, fit, to_markdown
from benchmarks.streaming_memory import to_markdown as streaming_table

ENVIRONMENT = {"settings": {}, "commit": "0123456789", "machine": {"cores": 2, "processor": "AMD", "device": "cpu"}}


def rows():
    sizes = (1000, 10_000, 100_000)
    return [
        {"n": n, "job": "scoring", "processes": 1, "seconds": 2 * n / 1000, "memory_gib": 0.5 + n / 1e6} for n in sizes
    ]


def test_a_slope_and_the_cost_of_more_are_those_of_the_rows():
    fitted = fit(rows())
    assert fitted["slope_seconds"] == pytest.approx(1)
    assert fitted["seconds_per_million"] == pytest.approx(2000)
    assert fitted["memory_gib_per_million"] == pytest.approx(1)
    assert 0 < fitted["slope_memory"] < 0.1
    axes = draw(rows()).axes
    assert [line.get_label() for line in axes[0].get_lines()] == ["scoring"]


def test_growth_and_its_extrapolation_are_rendered_in_tables():
    several = {"n": 100_000, "job": "scoring", "processes": 2, "seconds": 120.0, "memory_gib": 0.6}
    scaling = {**ENVIRONMENT, "rows": [*rows(), several], "fits": {"scoring": fit(rows())}}
    table = to_markdown(scaling)
    assert "| scoring | 1,000 | 2.0 | 0.50 |" in table
    assert "| scoring, 2 processes | 100,000 | 120.0 | 0.60 |" in table
    assert "| scoring | 1.00 | 0.04 | 2,000 | 1.00 |" in table
    assert "| scoring | 10 million | 5.6 | 1 | 10.6 | 0.56 USD |" in table
    assert "| scoring | 1,000 million | 555.6 | 24 | 1,000.6 | 55.56 USD |" in table
    assert "0.9 TiB for 10 million images, 93 TiB for a billion" in table


def test_a_stream_is_rendered_with_its_memory():
    streaming = {
        **ENVIRONMENT, "settings": {"workers": 2, "buffer_size": 8192}, "n": 2_000_000, "images_per_second": 2000.0,
        "memory_mib": {"second tenth": 1076.0, "last tenth": 1024.0}, "growth": 0.967,
    }  # fmt: skip
    table = streaming_table(streaming)
    assert "| 2,000,000 | 2,000 | 1,076 | 1,024 | 0.97 | at most 1.1 |" in table
    assert "| 1,000 million | 138.9 | 6 | 1.0 | 13.89 USD |" in table
