"""`explain.py --study` from the command line to its files, on the demo set and the models of space/models."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import explain
from realfake_hf.data.loading import load_split
from realfake_hf.explain_study import report, run
from realfake_hf.explain_study.arguments import PARTS

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]
CNN, VIT = ROOT / "space/models/cifake-cnn", ROOT / "space/models/cifake-vit"
SMALL = [
    "--n", "100", "--faithfulness_n", "4", "--sanity_n", "3", "--planted_n", "3", "--causal_n", "8",
    "--patching_n", "40", "--sinks_n", "4", "--bootstrap_samples", "20", "--gallery", "2", "--data", "demo",
]  # fmt: skip


def words(folder, *more, models=(f"cnn={CNN}",)):
    files = {"results_file": "out/study.json", "page_file": "out/study.html", "figure_file": "out/study.png"}
    places = [word for flag, file in files.items() for word in (f"--{flag}", str(folder / file))]
    return ["--study", "--compare", *models, *SMALL, "--output_dir", str(folder / "study"), *places, *more]


def more(folder):
    """The twin, the same weights as if fine-tuned on hidden cells, and masks of eight images of each label."""
    shutil.copytree(CNN, folder / "hardened", dirs_exist_ok=True)
    record = json.loads((CNN / "run.json").read_text())
    record["arguments"]["hidden_share"] = 0.5
    (folder / "hardened/run.json").write_text(json.dumps(record))
    labels = np.array((rows := load_split("demo", "test")[1])["label"][:])
    chosen = [*np.flatnonzero(labels == 0)[:8], *np.flatnonzero(labels == 1)[:8]]
    masks = np.zeros((len(chosen), 32, 32), dtype=bool)
    masks[:, 8:24, 8:24] = True
    np.savez(folder / "masks.npz", id=np.array([rows["id"][row] for row in chosen]), mask=masks)
    copies = ["--twins", f"cnn={CNN}", "--hardened", f"cnn={folder / 'hardened'}"]
    return [*copies, "--entity_masks", str(folder / "masks.npz")]


@pytest.fixture(scope="module")
def studied(tmp_path_factory):
    """A study of the CNN, which is also its own twin."""
    folder = tmp_path_factory.mktemp("studied")
    assert explain.main(words(folder, *more(folder))) == 0
    return folder


def test_a_study_writes_results_a_table_a_page_and_a_figure(studied):
    found = json.loads((studied / "out/study.json").read_text())
    assert set(PARTS) < set(found)
    assert found["data"]["sample"]["n"] == 100
    assert (found["entity"]["n"], found["entity"]["area"]["value"]) == (16, 0.25)
    fidelity = found["faithfulness"]["fidelity"]["cnn"]
    assert (fidelity["share"], fidelity["same_label"]["value"]) == (0.5, 1)
    assert found["models"]["cnn"]["methods"] == ["grad_cam", "integrated_gradients"]
    assert {"commit", "versions", "machine", "settings"} <= set(found)
    assert found["models"]["cnn"]["place"] == "cifake-cnn"
    records = [*(studied / "out").glob("study.[jmh]*"), *(studied / "study").glob("*.json")]
    assert len(records) > len(PARTS) + 3
    assert not [file for file in records if str(ROOT) in (text := file.read_text()) or str(studied) in text]
    assert (studied / "out/study.md").read_text().startswith("### ")
    assert "<h1>" in (studied / "out/study.html").read_text()
    assert (studied / "out/study.png").read_bytes().startswith(b"\x89PNG")


def test_a_model_that_is_its_own_twin_agrees_with_itself_fully(studied):
    found = json.loads((studied / "out/study.json").read_text())
    ceiling = found["agreement"]["by_target"]["truth"]["ceiling"]["cnn integrated_gradients"]
    assert (ceiling["spearman"]["value"], ceiling["iou_top_20"]["value"]) == (1, 1)


@pytest.mark.slow
def test_a_finished_study_is_not_repeated(studied, monkeypatch, capsys):
    def again(*_, **__):
        raise AssertionError

    for name in ("compute_maps", "measure_agreement", "measure_faithfulness", "measure_sanity", "measure_planted"):
        monkeypatch.setattr(run, name, again)
    before = (studied / "out/study.json").read_text()
    assert explain.main(words(studied, *more(studied))) == 0
    assert json.loads((studied / "out/study.json").read_text()) == json.loads(before)
    text = capsys.readouterr().out
    assert "IoU, top 20%" in text
    assert f"page: {studied / 'out/study.html'}" in text


def test_an_interrupted_study_says_how_to_resume(tmp_path, monkeypatch, capsys):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "compute_maps", interrupted)
    assert explain.main(words(tmp_path)) == 130
    assert f"to resume from {tmp_path / 'study'}, repeat the command" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("more", "named"),
    [
        (["--split", "dream"], "the split 'dream' of demo; found train, validation, test."),
        (["--twins", "cnn=nowhere/at/all"], "no such folder at 'nowhere/at/all'"),
        (["--hardened", f"cnn={CNN}"], "--hidden_share"),
    ],
)
def test_invalid_input_is_named(more, named, tmp_path, capsys):
    assert explain.main(words(tmp_path, *more)) == 1
    assert named in capsys.readouterr().err
    assert not (tmp_path / "study").exists()


def test_invalid_settings_end_with_status_2(tmp_path, capsys):
    with pytest.raises(SystemExit) as refused:
        explain.main([*words(tmp_path), "--parts", "all"])
    assert refused.value.code == 2
    assert (
        "--parts among agreement, faithfulness, sanity, planted, grids, causal, entity, patching, sinks; found all"
        in capsys.readouterr().err
    )


def test_the_recipe_of_the_study_is_valid(monkeypatch):
    given = []
    monkeypatch.setattr(run, "run_study", lambda arguments: given.append(arguments) or ({}, []))
    monkeypatch.setattr(report, "publish_study", lambda *_: ["done"])
    recipe = str(ROOT / "recipes/studies/explanations_cifake.yaml")
    assert explain.main(["--study", "--config", recipe, "--output_dir", "runs/x"]) == 0
    assert given[0].models == {"cnn": "space/models/cifake-cnn", "vit": "space/models/cifake-vit"}
    assert given[0].data == "cifake"
    for places in (given[0].twin_places, given[0].hardened_places):
        assert places.keys() == given[0].models.keys()


@pytest.mark.slow
def test_two_models_are_compared(tmp_path):
    models = (f"cnn={CNN}", f"vit={VIT}")
    fewer = ["--n", "100", "--faithfulness_n", "2", "--planted_n", "2"]
    assert explain.main(words(tmp_path, *fewer, models=models)) == 0
    found = json.loads((tmp_path / "out/study.json").read_text())
    pairs = {(pair["a"], pair["b"]) for pair in found["agreement"]["by_target"]["truth"]["pairs"]}
    assert len(pairs) == 45
    assert ("cnn grad_cam", "vit relevance") in pairs
    head = found["sanity"]["models"]["vit"]
    assert head["methods"]["rollout"][0]["value"] == pytest.approx(1, abs=1e-5)  # blind to the classifier's head
    assert head["methods"]["relevance"][0]["value"] < 0.999
    maps = np.load(tmp_path / "study/maps-vit-relevance-FAKE.npz")["heat"]
    assert maps.shape == (100, 8, 8)
