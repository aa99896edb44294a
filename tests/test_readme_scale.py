"""What is said of work past one machine, from results that are written here."""

import json

import pytest

from benchmarks.scaling import draw, fitted
from realfake_hf.hub import readme

MACHINE = {"machine": {"cores": 2}}


def rendered(name, results, **files):
    for file, content in files.items():
        (results / f"{file}.json").write_text(json.dumps({**MACHINE, **content}))
    return readme.render(f"<!-- results: {name} -->\n<!-- end -->", results)


def rows():
    sizes = (1000, 10_000, 100_000)
    return [
        {"n": n, "job": "scoring", "processes": 1, "seconds": 2 * n / 1000, "memory_gib": 0.5 + n / 1e6} for n in sizes
    ]


def test_a_slope_and_the_cost_of_more_are_those_of_the_rows():
    fit = fitted(rows())
    assert fit["slope_seconds"] == pytest.approx(1)
    assert fit["seconds_per_million"] == pytest.approx(2000)
    assert fit["memory_gib_per_million"] == pytest.approx(1)
    assert 0 < fit["slope_memory"] < 0.1
    axes = draw(rows()).axes
    assert [line.get_label() for line in axes[0].get_lines()] == ["scoring"]


def test_growth_and_needs_are_said_in_tables(tmp_path):
    several = {"n": 100_000, "job": "scoring", "processes": 2, "seconds": 120.0, "memory_gib": 0.6}
    scaling = {"rows": [*rows(), several], "fits": {"scoring": fitted(rows())}}
    streamed = {"images_per_second": 2000.0, "memory_mib": {"last tenth": 1024.0}}
    block = rendered("scaling", tmp_path, scaling=scaling)
    assert "| scoring | 1,000 | 2.0 | 0.50 |" in block
    assert "| scoring, 2 processes | 100,000 | 120.0 | 0.60 |" in block
    assert "| scoring | 1.00 | 0.04 | 2,000 | 1.00 |" in block
    needs = rendered("scale_needs", tmp_path, scaling=scaling, benchmark_streaming=streamed)
    assert "| scoring | 10 million | 5.6 | 1 | 10.6 | 0.56 USD |" in needs
    assert "| scoring | 1,000 million | 555.6 | 24 | 1,000.6 | 55.56 USD |" in needs
    assert (
        "| a pass over a stream, without learning | 1,000 million | 138.9 | 6 | 1.0, whatever n | 13.89 USD |" in needs
    )
    assert "0.9 TiB for 10 million, 93 TiB for a billion" in needs


def test_faults_are_said_one_by_one(tmp_path):
    kills = {"n": 20, "killed": 18, "same": 19, "tracebacks": 1}
    disk = {"same": True, "refused": True, "traceback": False}
    cut = {"same": False, "named": False, "traceback": True}
    found = {
        "jobs": {"training": {"kill -9": kills, "full disk": disk, "file cut short": cut}},
        "bad pictures": {"train.py, folder": {"n": 31, "named": 30, "tracebacks": 2}},
    }
    block = rendered("faults", tmp_path, faults=found)
    assert "| training | kill -9 | 19 of 20 (killed before the end: 18) | 1 |" in block
    assert "| training | full disk | yes, refused with a sentence first | 0 |" in block
    assert "| training | file cut short | no, the file was not named | 1 |" in block
    assert "train.py, folder 30 of 31; 2 tracebacks" in block


def test_a_stream_is_said_with_its_memory(tmp_path):
    streamed = {
        "settings": {"workers": 2, "buffer_size": 8192}, "n": 2_000_000, "images_per_second": 2048.4,
        "memory_mib": {"second tenth": 1076.0, "last tenth": 1041.0}, "growth": 0.967,
    }  # fmt: skip
    block = rendered("benchmark_streaming", tmp_path, benchmark_streaming=streamed)
    assert "2,000,000 pictures through a stream with 2 workers" in block
    assert "1,076 MiB in the second tenth and 1,041 MiB in the last one, 0.97 times" in block
