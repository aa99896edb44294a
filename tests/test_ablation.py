import json
from pathlib import Path

import pytest
import yaml

from realfake_hf.cli import parse
from realfake_hf.experiments import ablation
from realfake_hf.training.arguments import DataArguments, ModelArguments
from realfake_hf.training.run import fit
from realfake_hf.training.run_arguments import RunArguments

BASE = {"data": "demo", "model": "cifake-cnn", "num_filters": 4, "dense_units": 4, "num_train_epochs": 1}


@pytest.fixture
def plan(tmp_path):
    """A plan of two variants and two seeds on a small CNN."""
    (tmp_path / "base.yaml").write_text(yaml.safe_dump({**BASE, "ema_decay": 0.5}))
    content = {"base": str(tmp_path / "base.yaml"), "settings": {"train_size": 200}, "seeds": [0, 1],
               "variants": {"baseline": None, "no mean": {"ema_decay": None}}}  # fmt: skip
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(content))
    return tmp_path / "plan.yaml"


def words(plan):
    folder = plan.parent
    return ["--plan", str(plan), "--output_dir", str(folder / "runs"), "--output_file", str(folder / "table.json")]


@pytest.mark.slow
def test_every_variant_is_trained_with_every_seed_and_gains_are_paired(plan):
    assert ablation.main(words(plan)) == 0
    table = json.loads((plan.parent / "table.json").read_text())
    baseline, other = table["variants"]["baseline"], table["variants"]["no mean"]
    assert baseline["seeds"] == other["seeds"] == [0, 1]
    assert baseline["gain"]["runs"] == [0, 0]
    expected = [b - a for a, b in zip(baseline["eval_accuracy"]["runs"], other["eval_accuracy"]["runs"], strict=True)]
    assert other["gain"]["runs"] == pytest.approx(expected)
    assert other["changes"] == {"ema_decay": None}
    assert set(table["data"]) == {"train", "validation"}
    assert 195 <= table["data"]["train"] <= 205


@pytest.mark.slow
def test_an_interrupted_ablation_goes_on_with_what_is_missing(plan, monkeypatch, capsys):
    trained = []

    def third_is_interrupted(data, model, run):
        trained.append((run.ema_decay, run.seed))
        if len(trained) == 3:
            raise KeyboardInterrupt
        return fit(data, model, run)

    monkeypatch.setattr(ablation, "fit", third_is_interrupted)
    assert ablation.main(words(plan)) == 130
    assert "the same command goes on" in capsys.readouterr().err
    assert ablation.main(words(plan)) == 0
    assert trained == [(0.5, 0), (None, 0), (0.5, 1), (0.5, 1), (None, 1)]


def test_rows_of_another_plan_are_not_mixed_in(plan, capsys):
    (plan.parent / "runs").mkdir()
    (plan.parent / "runs/rows.json").write_text(json.dumps({"base": "other", "settings": {}, "rows": []}))
    assert ablation.main(words(plan)) == 1
    assert "wanted the rows of this plan in" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ({"base": "a"}, "wanted base, seeds, settings, variants in"),
        ({"base": "a", "settings": {}, "seeds": [0], "variants": {"other": {}}}, "wanted a variant named baseline"),
        ([], "found list"),
    ],
)
def test_a_plan_with_a_part_missing_is_refused(tmp_path, content, sentence, capsys):
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(content))
    assert ablation.main(words(tmp_path / "plan.yaml")) == 1
    assert sentence in capsys.readouterr().err


def test_the_ablations_of_the_repository_change_settings_that_exist(tmp_path):
    root = Path(__file__).parents[1]
    for file in (root / "recipes/ablations").glob("*.yaml"):
        found = ablation.read_plan(file)
        base = yaml.safe_load((root / found.base).read_text())
        for changes in found.variants.values():
            settings = {**base, **found.settings, **changes, "output_dir": str(tmp_path / "run")}
            (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(settings))
            words = ["--config", str(tmp_path / "recipe.yaml")]
            parse(DataArguments, ModelArguments, RunArguments, argv=words)
