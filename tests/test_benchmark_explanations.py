"""The benchmark of explanations runs, and its script gives the library's maps; speed itself is not tested."""

import json
import os
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessorPil

from benchmarks import explanation_throughput
from benchmarks.comparison import run_apart
from benchmarks.explanation_throughput import WAYS, Settings, run, script_rollout
from realfake_hf.attribution import maps
from realfake_hf.attribution.explain import explain
from realfake_hf.attribution.layout import layout_of
from realfake_hf.labels import id2label, label2id


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))


def tiny_vit(*, num_hidden_layers: int = 2) -> ViTForImageClassification:
    torch.manual_seed(0)
    shape = {"hidden_size": 24, "num_attention_heads": 3, "intermediate_size": 32}
    shape["num_hidden_layers"] = num_hidden_layers
    names = {"id2label": id2label(), "label2id": label2id()}
    config = ViTConfig(image_size=32, patch_size=8, attn_implementation="eager", **shape, **names)
    return ViTForImageClassification(config).eval()


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    """The command line of the smallest run."""
    tiny_vit().save_pretrained(tmp_path / "vit")
    ViTImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(tmp_path / "vit")
    sizes = ["--geometries", "32/8", "--batch_size", "4", "--steps", "1", "--rounds", "1", "--many", "70"]
    sizes += ["--singles", "2"]
    return ["--model", str(tmp_path / "vit"), "--data", "demo", *sizes]


@pytest.mark.slow
def test_the_benchmark_measures_every_way_and_the_memory_of_many(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(explanation_throughput, "run_apart", lambda function, *given: function(*given))
    file = tmp_path / "explanations.json"
    assert explanation_throughput.main([*words, "--output_file", str(file)]) == 0
    content: dict[str, Any] = json.loads(file.read_text())
    assert {"settings", "commit", "versions", "machine"} <= set(content)
    assert set(content["rows"]) == {f"32/8 {way}" for way in WAYS}
    assert all(row["median"] > 0 for row in content["rows"].values())
    many, few = (f"32/8 rollout, streamed, {n} pictures" for n in (70, 64))
    assert set(content["memory"]["rows"]) == {many, few}
    assert content["memory"]["ratios"][0]["limit"] == 1.1
    assert set(content["peaks"]) == {*content["rows"], many, few}
    printed = capsys.readouterr().out
    assert "| 32/8 rollout / 32/8 eager forward | " in printed
    assert f"| {many} / {few} | " in printed
    assert "| at most 1.1 |" in printed


@pytest.mark.slow
def test_a_way_of_explaining_runs_in_a_process_of_its_own(words: list[str]) -> None:
    settings = Settings(model=words[1], data="demo", batch_size=4)
    row = run_apart(run, settings, "32/8", "relevance", 4)
    assert row["ms_per_picture"] > 0
    assert 0 < row["peak_memory_gib"] < 8


def test_a_process_that_fails_reports_its_error_and_one_that_dies_its_function() -> None:
    with pytest.raises(FileNotFoundError, match="no-such-file"):
        run_apart(os.stat, "no-such-file")
    with pytest.raises(ValueError, match="_exit"):
        run_apart(os._exit, 1)


@pytest.mark.parametrize("discard_ratio", [0.0, 0.5])
def test_the_script_gives_the_maps_of_the_library(discard_ratio: float) -> None:
    model, pixels = tiny_vit(), torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    found = explain(model, pixels, method="rollout", options={"discard_ratio": discard_ratio})
    for own, explanation in zip(script_rollout(model, pixels, discard_ratio=discard_ratio), found, strict=True):
        if discard_ratio:  # it renormalises after the identity is added, the library before
            assert np.corrcoef(own.ravel(), explanation.map.ravel())[0, 1] > 0.9
        else:
            scaled = (own - own.min()) / (own.max() - own.min())
            np.testing.assert_allclose(scaled, explanation.map, atol=1e-4)


class OperatorsThatWrite(TorchDispatchMode):
    """Counts the operators called that write a tensor: on a GPU each is a kernel, that costs its launch at least."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, operator, types, given=(), named=None):  # type: ignore[no-untyped-def]
        self.count += not operator.is_view and "_unsafe_view" not in str(operator)
        return operator(*given, **named or {})


@pytest.mark.parametrize(("method", "limit"), [("rollout", 1.3), ("relevance", 3)])
def test_an_explanation_calls_few_operators_beside_those_of_the_forward_pass(
    method: str, limit: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(maps, "map_in_threads", map)  # a mode is seen by its own thread alone
    monkeypatch.setattr(maps, "available_cores", lambda: 1)
    model, pixels = tiny_vit(num_hidden_layers=12), torch.zeros(16, 3, 32, 32)
    layout_of(model, pixels)  # found once per model and size
    counts = []
    for way in ("eager forward", method):
        with OperatorsThatWrite() as operators:
            WAYS[way](model, pixels)
        counts.append(operators.count)
    assert 1 < counts[1] / counts[0] <= limit


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flags", "names"),
    [
        (["--many", "64"], ("64", "--many")),
        (["--geometries", "32x8"], ("32/4", "32x8")),
        (["--rounds", "0"], ("--rounds 0",)),
    ],
)
def test_settings_that_measure_nothing_are_refused(
    flags: list[str], names: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert explanation_throughput.main([*flags, "--output_file", str(tmp_path / "a.json")]) == 1
    message = capsys.readouterr().err
    assert all(name in message for name in names)
