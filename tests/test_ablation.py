import json
from pathlib import Path

import pytest
import yaml

from realfake_hf.experiments import ablation
from realfake_hf.experiments.trainings import write_recipe
from realfake_hf.training.run import fit

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
def test_an_interrupted_ablation_resumes_with_the_missing_trainings(plan, monkeypatch, capsys):
    trained = []

    def third_is_interrupted(data, model, run):
        trained.append((run.ema_decay, run.seed))
        if len(trained) == 3:
            raise KeyboardInterrupt
        return fit(data, model, run)

    monkeypatch.setattr("realfake_hf.training.run.fit", third_is_interrupted)
    assert ablation.main(words(plan)) == 130
    assert f"to resume from {plan.parent / 'runs'}, repeat the command" in capsys.readouterr().err
    assert ablation.main(words(plan)) == 0
    assert trained == [(0.5, 0), (None, 0), (0.5, 1), (0.5, 1), (None, 1)]


def test_trainings_with_other_settings_are_rejected(plan, capsys):
    (plan.parent / "runs").mkdir()
    cell = {"settings": {"base": "other", "settings": {}, "changes": {}}, "seconds": 1.0, "cell": {}}
    (plan.parent / "runs/baseline, seed 0.json").write_text(json.dumps(cell))
    assert ablation.main(words(plan)) == 1
    message = capsys.readouterr().err
    assert "baseline, seed 0" in message
    assert "found other values of base, settings" in message
    assert not (plan.parent / "table.json").exists()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ({"base": "a"}, "expected the keys base, seeds, settings, variants in"),
        ({"base": "a", "settings": {}, "seeds": [0], "variants": {"other": {}}}, "expected a variant named baseline"),
        ([], "found list"),
    ],
)
def test_an_incomplete_plan_is_rejected(tmp_path, content, sentence, capsys):
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(content))
    assert ablation.main(words(tmp_path / "plan.yaml")) == 1
    assert sentence in capsys.readouterr().err


def test_the_variants_of_the_repository_change_settings_that_exist(tmp_path):
    root = Path(__file__).parents[1]
    for file in (root / "recipes/ablations").glob("*.yaml"):
        plan = ablation.read_ablation(file)
        base = str(root / plan.base)
        for name, changes in plan.variants.items():
            changed = {**plan.settings, **changes, "output_dir": str(tmp_path / "run")}
            parts = write_recipe(tmp_path / "recipe.yaml", base=base, changes=changed)
            settings = {key: value for part in parts for key, value in vars(part).items()}
            assert {key: settings[key] for key in changes} == changes, name


def test_the_table_says_what_each_change_gains():
    accuracy = {"mean": 0.95, "sd": 0.002, "runs": [0.948, 0.952]}
    row = {"seeds": [0, 1], "eval_accuracy": accuracy}
    variants = {
        "baseline": {**row, "changes": {}, "gain": {"mean": 0.0, "sd": 0.0, "runs": [0, 0]}},
        "no flips": {**row, "changes": {"flip": False}, "gain": {"mean": -0.0042, "sd": 0.001, "runs": [0, 0]}},
    }
    table = ablation.to_markdown(
        {
            "settings": {"train_size": 20000, "ema_decay": 0.99},
            "variants": variants,
            "data": {"train": 19998, "validation": 5000},
        }
    )
    assert "| change | accuracy on validation, n = 5,000 |" in table
    assert "| baseline | 95.00 ± 0.20% |  |" in table
    assert "| no flips | 95.00 ± 0.20% | -0.42 ± 0.10 |" in table
    assert "2 seeds, 19,998 training images" in table
    assert "`train_size` 20,000, `ema_decay` 0.99" in table
