"""The benchmarks run and write what they should; speed itself is not tested."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from small_grid import save_cnn
from test_multiview import build, save
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessorPil

from benchmarks import (
    bfloat16,
    data_ready,
    grid_throughput,
    processes,
    scoring_throughput,
    streaming_memory,
    training_throughput,
    verdict_latency,
    vit_throughput,
)
from benchmarks.comparison import Pair, compare, comparison_tables, measure_in_turn, run_apart
from realfake_hf.data.shards import main as write_shards
from realfake_hf.models.cpu import has_fast_bfloat16


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))


@pytest.fixture(autouse=True)
def threads_as_before() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    def load_here(way: str, source: Path, cache: Path, *, cold: bool) -> dict[str, Any]:
        assert cold != cache.exists()
        cache.mkdir(exist_ok=True)
        monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(cache))
        return data_ready.load(way, str(source))

    monkeypatch.setattr(data_ready, "_load_apart", load_here)


def read(file: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(file.read_text())
    assert f"commit {content['commit'][:7]}" in file.with_suffix(".md").read_text()
    assert {"settings", "commit", "versions", "machine", "unit", "rows", "ratios"} <= set(content)
    values = [value for row in content["rows"].values() for value in row["values"]]
    values += [value for entry in content["ratios"] for value in entry["ratio"]["values"]]
    assert all(math.isfinite(value) and value > 0 for value in values)
    return content


@pytest.mark.slow
def test_the_training_benchmark_measures_every_way(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "training.json"
    words = ["--data", "demo", "--images", "32", "--batch_size", "16", "--rounds", "1", "--warm_up_steps", "1"]
    assert training_throughput.main([*words, "--threads", "1", "--output_file", str(file)]) == 0
    content = read(file)
    assert set(content["rows"]) == {name for pair in training_throughput.PAIRS for name in (pair.over, pair.under)}
    assert (content["settings"]["images"], content["settings"]["threads"]) == (32, 1)
    assert "| trainer / bare loop | " in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.usefixtures("in_this_process")
def test_the_data_benchmark_measures_both_ways_cold_and_warm(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "data.json"
    assert data_ready.main(["--data", "demo", "--rounds", "1", "--output_file", str(file)]) == 0
    content = read(file)
    assert set(content["rows"]) == {name for pair in data_ready.PAIRS for name in (pair.over, pair.under)}
    assert set(content["n"]) == {"train", "validation", "test"}
    assert content["training"] is None
    assert "| realfake, cold, seconds | " in capsys.readouterr().out


@pytest.mark.slow
def test_a_way_runs_in_a_process_of_its_own_on_its_own_cache(tmp_path: Path) -> None:
    archive, cache = data_ready.find_archive("demo", tmp_path), tmp_path / "fresh"
    row = data_ready._load_apart("realfake", archive, cache, cold=True)
    assert 0 < row["rows_s"] < row["pixels_s"]
    assert row["peak_memory_gib"] > 0
    assert any(cache.rglob("*.npy"))


def test_ratios_are_taken_round_by_round() -> None:
    content = compare({"a": [4.0, 9.0, 2.0], "b": [2.0, 3.0, 4.0]}, [Pair("a", "b", goal=0.85)], unit="images/s")
    assert content["ratios"][0]["ratio"] == {"n": 3, "median": 2.0, "min": 0.5, "max": 3.0, "values": [2.0, 3.0, 0.5]}
    assert "| a / b | 2.00 | 0.50 to 3.00 | at least 0.85 |" in comparison_tables(content)


def test_a_ratio_can_have_a_limit() -> None:
    content = compare({"a": [4.0], "b": [2.0]}, [Pair("a", "b", limit=1.3)], unit="ms")
    assert content["ratios"][0]["limit"] == 1.3
    assert "| at most 1.3 |" in comparison_tables(content)


def test_ways_are_measured_in_turn(capsys: pytest.CaptureFixture[str]) -> None:
    called: list[str] = []
    measure_in_turn({name: lambda name=name: called.append(name) for name in "ab"}, rounds=2)
    assert called == ["a", "b", "a", "b"]
    assert "round 2/2  b" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["--images", "5"], ("128", "--images 5")),
        (["--batch_size", "2000", "--images", "2000"], ("2000", "--batch_size", "--data")),
        (["--rounds", "0"], ("--rounds 0",)),
    ],
)
def test_settings_that_cannot_be_measured_are_refused(
    words: list[str], names: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert training_throughput.main(["--data", "demo", "--output_file", str(tmp_path / "a.json"), *words]) == 1
    message = capsys.readouterr().err
    assert all(name in message for name in names)


def test_a_missing_results_folder_is_reported_before_anything_is_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "none" / "a.json"
    for main in (training_throughput.main, data_ready.main):
        assert main(["--output_file", str(file)]) == 1
        assert f"found none at {file.parent}" in capsys.readouterr().err


def test_a_source_that_is_no_archive_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--output_file", str(tmp_path / "a.json"), "--data"]
    assert data_ready.main([*words, str(tmp_path)]) == 1
    assert f"wanted a zip archive; found {tmp_path}" in capsys.readouterr().err
    assert data_ready.main([*words, str(tmp_path / "none.zip")]) == 1
    assert "wanted a zip archive; found nothing at" in capsys.readouterr().err


@pytest.mark.slow
def test_the_vit_benchmark_measures_every_way_at_every_geometry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def call(function: Any, settings: Any, geometry: str, way: str) -> Any:
        apart = way == "asking: random tensors"  # one way in a process of its own, as all of them are; the others here
        return run_apart(function, settings, geometry, way) if apart else function(settings, geometry, way)

    monkeypatch.setattr(vit_throughput, "run_apart", call)
    torch.manual_seed(0)
    shape = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 3, "intermediate_size": 32}
    ViTForImageClassification(ViTConfig(image_size=32, patch_size=8, **shape)).save_pretrained(tmp_path / "vit")
    ViTImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(tmp_path / "vit")
    words = ["--model", str(tmp_path / "vit"), "--data", "demo", "--geometries", "32/8", "--batch_size", "8"]
    file = tmp_path / "vit.json"
    assert vit_throughput.main([*words, "--steps", "1", "--rounds", "1", "--output_file", str(file)]) == 0
    content = read(file)
    assert set(content["rows"]) == {f"32/8 {way}" for way in vit_throughput.WAYS if way != vit_throughput.COMPILED}
    assert all(row["peak_memory_gib"] > 0 for row in content["memory"].values())
    assert "| 32/8 training: trainer / 32/8 training: random tensors |" in capsys.readouterr().out


@pytest.mark.slow
def test_the_grid_benchmark_measures_both_ways(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_cnn(tmp_path / "one")
    file = tmp_path / "grid.json"
    words = ["--models", f"one={tmp_path / 'one'}", "--datasets", "demo=demo", "--n", "8", "--rounds", "1"]
    assert grid_throughput.main([*words, "--output_file", str(file)]) == 0
    content = read(file)
    assert set(content["rows"]) == {"demo grid", "demo grid, bfloat16", "demo pipeline, one by one"}
    assert content["n"] == {"demo": 8}
    changed = content["changed_by_bf16"]["demo"]["one"]
    assert 0 <= changed["largest_difference"] < 0.1
    assert 0 <= changed["verdicts"] <= 8
    assert "| demo grid / demo pipeline, one by one |" in capsys.readouterr().out


@pytest.mark.slow
def test_the_scoring_benchmark_measures_every_way(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_cnn(tmp_path / "one")
    file = tmp_path / "scoring.json"
    words = ["--model", str(tmp_path / "one"), "--data", "demo", "--n", "40", "--rounds", "1"]
    assert scoring_throughput.main([*words, "--output_file", str(file)]) == 0
    content = read(file)
    assert content["n"] == 40
    assert len(content["rows"]) == 4
    assert [entry["goal"] for entry in content["ratios"]] == [0.9, 0.9, None, None]
    assert "| score, files / model alone, ready tensors |" in capsys.readouterr().out


@pytest.mark.slow
def test_the_benchmarks_of_scoring_and_of_a_verdict_measure_a_model_of_several_views(tmp_path: Path) -> None:
    save(build(), tmp_path / "views")
    words = ["--model", str(tmp_path / "views"), "--output_file", str(tmp_path / "file.json")]
    assert scoring_throughput.main([*words, "--data", "demo", "--n", "40", "--rounds", "1"]) == 0
    assert len(read(tmp_path / "file.json")["rows"]) == 4
    assert verdict_latency.main([*words, "--rounds", "3"]) == 0
    content = read(tmp_path / "file.json")
    assert {name: row["n"] for name, row in content["rows"].items()} == {
        f"{size}, {dtype}": 3 for size in ("1 megapixel", "12 megapixels") for dtype in ("bfloat16", "float32")
    }
    assert "s, median" in (tmp_path / "file.md").read_text()


def test_a_model_that_is_not_there_is_refused_by_the_grid_benchmark(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert grid_throughput.main(["--models", "a=no/such", "--output_file", str(tmp_path / "a.json")]) == 1
    assert "no/such" in capsys.readouterr().err


@pytest.mark.slow
def test_a_geometry_that_is_none_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--geometries", "32x4", "--output_file", str(tmp_path / "a.json")]
    assert vit_throughput.main(words) == 1
    message = capsys.readouterr().err
    assert "--geometries" in message
    assert "32x4" in message


class TestProcesses:
    def run(self, *, accuracy: float, seconds: float, n: int) -> dict[str, Any]:
        splits = {"validation": accuracy, "test": accuracy - 0.01}
        return {"processes": n, "n": dict.fromkeys(splits, 100), "accuracy": splits, "seconds": seconds}

    @pytest.mark.parametrize(
        ("accuracy", "within"), [(0.9571, True), (0.9629, True), (0.9569, False), (0.9631, False)]
    )
    def test_more_than_three_tenths_of_a_point_is_too_much(self, accuracy: float, *, within: bool) -> None:
        results = processes.compare_runs(
            self.run(accuracy=0.96, seconds=10, n=1), self.run(accuracy=accuracy, seconds=5, n=2)
        )
        assert results["within"] is within
        assert results["seconds_ratio"] == 0.5

    def test_a_batch_that_cannot_be_shared_out_is_refused(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert processes.main(["--output_dir", str(tmp_path), "--processes", "3", "--train_size", "64"]) == 1
        assert "3 processes" in capsys.readouterr().err

    @pytest.mark.slow
    def test_both_are_trained_and_measured(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        file = tmp_path / "processes.json"
        words = ["--output_dir", str(tmp_path / "runs"), "--output_file", str(file), "--train_size", "256"]
        assert processes.main([*words, "--recipe", "recipes/demo.yaml", "--data", "demo"]) == 0
        content = json.loads(file.read_text())
        assert [run["processes"] for run in content["runs"]] == [1, 2]
        assert content["runs"][0]["n"] == content["runs"][1]["n"]
        assert "| 2 processes | " in capsys.readouterr().out


@pytest.mark.skipif(not has_fast_bfloat16(), reason="this processor has no bfloat16 in hardware")
@pytest.mark.slow
def test_the_benchmark_of_bfloat16_counts_what_changes(tmp_path, capsys):
    file = tmp_path / "bfloat16.json"
    words = ["--datasets", "demo=demo", "--limit", "40", "--n", "40", "--rounds", "1", "--output_file", str(file)]
    assert bfloat16.main(words) == 0
    found = read(file)
    assert found["settings"]["datasets"] == ["demo"]
    assert found["changes"]["demo"]["n"] == 40
    assert 0 < found["changes"]["demo"]["largest_difference"] < 0.03
    assert "bfloat16 / float32" in capsys.readouterr().out


@pytest.mark.slow
def test_a_stream_of_cycled_shards_is_watched(tmp_path, capsys):
    shards = tmp_path / "shards"
    assert write_shards(["--data", "demo", "--output_dir", str(shards), "--shard_mib", "0.2"]) == 0
    words = ["--data", str(shards), "--images", "4000", "--workers", "0", "--buffer_size", "256", "--samples", "20"]
    assert streaming_memory.main([*words, "--output_file", str(tmp_path / "out.json")]) == 0
    found = json.loads((tmp_path / "out.json").read_text())
    assert found["n"] >= 4000  # more than there are: they came again
    assert len(found["samples"]) in (20, 21)
    assert found["growth"] == pytest.approx(found["memory_mib"]["last tenth"] / found["memory_mib"]["second tenth"])
    assert "| at most 1.1 |" in capsys.readouterr().out
