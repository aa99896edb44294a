"""Ablation of a recipe: change one setting at a time, train with several seeds, compare on the validation split.

`python -m realfake_hf.experiments.ablation --plan recipes/ablations/vit_tiny.yaml --output_dir runs/ablation
--output_file results/ablation_vit_tiny.json`

To resume an interrupted ablation, repeat the command; finished trainings are kept.
"""

import logging
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

from realfake_hf.cli import command
from realfake_hf.experiments.trainings import PlanArguments, format_spread, read_plan, spread, write_recipe
from realfake_hf.store import Store, write_results
from realfake_hf.tables import markdown_table

logger = logging.getLogger(__name__)

BASELINE: Final = "baseline"
MEASURES: Final = ("eval_accuracy", "eval_roc_auc", "eval_loss", "seconds")


@dataclass(frozen=True)
class Plan:
    """A recipe, changes shared by all trainings, and the changes of each variant, which is trained with each seed."""

    base: str
    settings: Mapping[str, Any]
    seeds: Sequence[int]
    variants: Mapping[str, Mapping[str, Any]]


def read_ablation(file: Path) -> Plan:
    """Read the YAML file of an ablation."""
    plan = read_plan(Plan, file)
    variants = {name: changes or {} for name, changes in plan.variants.items()}
    if variants.get(BASELINE) != {}:
        raise ValueError(f"expected a variant named {BASELINE} without changes in {file}; found {list(variants)}.")
    return replace(plan, variants=variants)


def run_ablation(plan: Plan, folder: Path) -> dict[str, Any]:
    """Train every variant with every seed, and return the statistics of each variant over seeds.

    `gain` is the accuracy minus the accuracy of the baseline with the same seed.
    """
    from realfake_hf.environment import environment

    store = Store(folder)
    shared = {"base": Path(plan.base).read_text(encoding="utf-8"), "settings": plan.settings}
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in plan.variants}
    for seed in plan.seeds:  # the outer loop: all variants of an interrupted ablation have the same seeds
        for name, changes in plan.variants.items():
            train = partial(_train, plan, changes, seed, folder / "run")
            row = store.json(f"{name}, seed {seed}", {**shared, "changes": changes}, train)
            logger.info("%s, seed %d: %.2f %%", name, seed, 100 * row["eval_accuracy"])
            rows[name].append(row)
    baseline = [row["eval_accuracy"] for row in rows[BASELINE]]
    variants = {}
    for name, changes in plan.variants.items():
        gains = [row["eval_accuracy"] - accuracy for row, accuracy in zip(rows[name], baseline, strict=True)]
        measures = {measure: spread([row[measure] for row in rows[name]]) for measure in MEASURES}
        variants[name] = {"changes": changes, "seeds": list(plan.seeds), **measures, "gain": spread(gains)}
    data = rows[BASELINE][0]["data"]
    return {"base": plan.base, "settings": plan.settings, **environment(), "data": data, "variants": variants}


def _train(plan: Plan, changes: Mapping[str, Any], seed: int, folder: Path) -> dict[str, Any]:
    """Train one variant in a temporary folder, and return the measurements of its best epoch."""
    from realfake_hf.environment import data_fingerprint
    from realfake_hf.run_folder import epoch_rows
    from realfake_hf.training.run import fit

    shutil.rmtree(folder, ignore_errors=True)
    changes = {**plan.settings, **changes, "seed": seed, "output_dir": str(folder)}
    trained = fit(*write_recipe(folder.with_suffix(".yaml"), base=plan.base, changes=changes))
    epochs = epoch_rows(trained.trainer.state.log_history)
    best = max(epochs, key=lambda epoch: epoch["eval_accuracy"])
    n = {split: facts["n"] for split, facts in data_fingerprint(trained.data.images).items() if split != "test"}
    shutil.rmtree(folder)
    return {**best, "seconds": sum(epoch["seconds"] for epoch in epochs), "data": n}


def to_markdown(results: Mapping[str, Any]) -> str:
    """Render one row per variant: accuracy on validation and gain over the baseline."""
    variants, data = results["variants"], results["data"]
    header = ["change", f"accuracy on validation, n = {data['validation']:,}", "gain in percentage points"]
    rows = []
    for name, row in variants.items():
        gain = format_spread(row["gain"], "+.2f", scale=100) if row["changes"] else ""
        rows.append([name, f"{format_spread(row['eval_accuracy'], scale=100)}%", gain])
    settings = ", ".join(
        f"`{name}` {format(value, ',' if isinstance(value, int) else '')}"
        for name, value in results["settings"].items()
    )
    note = (
        f"Mean ± standard deviation over {len(variants[BASELINE]['seeds'])} seeds, {data['train']:,} training images. "
        f"The gain is paired by seed. Settings of all variants: {settings}. A short training says little about "
        "settings that pay off late, such as crops, corruptions and the moving average of the weights."
    )
    return f"{markdown_table(header, rows)}\n\n{note}"


@command(PlanArguments, name="ablation", description=__doc__, resumable="output_dir")
def main(arguments: PlanArguments) -> None:
    """Run or resume an ablation, and print its table."""
    results = run_ablation(read_ablation(arguments.plan), arguments.output_dir)
    print(write_results(arguments.output_file, results, to_markdown(results)))


if __name__ == "__main__":
    sys.exit(main())
