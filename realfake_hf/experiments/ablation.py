"""What each setting of a training buys: a recipe with one thing changed at a time, several seeds, on validation.

`python -m realfake_hf.experiments.ablation --plan recipes/ablations/vit_tiny.yaml --output_dir runs/ablation
--output_file results/ablation_vit_tiny.json` goes on where it was interrupted, training by training.
"""

import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, stdev
from typing import Any, Final

import yaml
from transformers.utils.logging import disable_progress_bar

from realfake_hf.cli import parse
from realfake_hf.environment import data_fingerprint, environment
from realfake_hf.run_folder import epoch_rows
from realfake_hf.store import write_json
from realfake_hf.training.arguments import DataArguments, ModelArguments
from realfake_hf.training.run import fit
from realfake_hf.training.run_arguments import RunArguments

BASELINE: Final = "baseline"
MEASURES: Final = ("eval_accuracy", "eval_roc_auc", "eval_loss", "seconds")


@dataclass
class AblationArguments:
    """Which ablation, and where it goes."""

    plan: Path = field(metadata={"help": "A YAML file with base, settings, seeds and variants."})
    output_dir: Path = field(metadata={"help": "A folder for what is done so far."})
    output_file: Path = field(metadata={"help": "The table, a JSON file of results/."})


@dataclass(frozen=True)
class Plan:
    """A recipe and what is changed in it.

    Attributes:
        base: the recipe.
        settings: changes that all trainings share, such as a smaller training set.
        seeds: each variant is trained once with each.
        variants: name -> changes of its own; the first, without any, is the baseline.
    """

    base: str
    settings: dict[str, Any]
    seeds: list[int]
    variants: dict[str, dict[str, Any]]


def read_plan(file: Path) -> Plan:
    """Read an ablation's YAML file.

    Raises:
        ValueError: a part is missing, or there is no variant without changes named baseline.
    """
    if not file.is_file():
        raise ValueError(f"wanted a YAML file at {file}; found no such file")
    content = yaml.safe_load(file.read_text(encoding="utf-8"))
    names = {"base", "settings", "seeds", "variants"}
    found = sorted(content) if isinstance(content, Mapping) else type(content).__name__
    if not isinstance(content, Mapping) or set(content) != names:
        raise ValueError(f"wanted {', '.join(sorted(names))} in {file}; found {found}")
    variants = {str(name): dict(changes or {}) for name, changes in content["variants"].items()}
    if variants.get(BASELINE) != {}:
        raise ValueError(f"wanted a variant named {BASELINE} without changes in {file}; found {', '.join(variants)}")
    return Plan(content["base"], content["settings"] or {}, list(content["seeds"]), variants)


def run_plan(plan: Plan, folder: Path) -> dict[str, Any]:
    """Train every variant with every seed, keeping each row as soon as it is there.

    Raises:
        OSError: there is no such data source, or no such model.
        ValueError: a setting does not fit, or the folder holds the rows of another plan.
    """
    folder.mkdir(parents=True, exist_ok=True)
    done = folder / "rows.json"
    fixed = {"base": Path(plan.base).read_text(encoding="utf-8"), "settings": plan.settings}
    state: dict[str, Any] = json.loads(done.read_text()) if done.exists() else {**fixed, "rows": []}
    if {name: state[name] for name in fixed} != fixed:
        raise ValueError(f"wanted the rows of this plan in {folder}; found those of another. Name another folder.")
    for seed in plan.seeds:  # seed by seed, so that an interrupted ablation is even
        for name, changes in plan.variants.items():
            if any((row["variant"], row["seed"], row["changes"]) == (name, seed, changes) for row in state["rows"]):
                continue
            row = _train_one(plan, changes, seed, folder / "run")
            state["rows"].append({"variant": name, "seed": seed, "changes": changes, **row})
            write_json(done, state)
            print(f"{name}, seed {seed}: {row['eval_accuracy']:.2%}", file=sys.stderr)
    return state


def summarize(plan: Plan, state: Mapping[str, Any]) -> dict[str, Any]:
    """Put the rows of a plan into one table: mean and deviation over seeds, and what each change buys.

    `gain` is the accuracy less that of the baseline with the same seed.
    """
    accuracy = {(row["variant"], row["seed"]): row["eval_accuracy"] for row in state["rows"]}
    table = {}
    for name, changes in plan.variants.items():
        rows = [row for row in state["rows"] if (row["variant"], row["changes"]) == (name, changes)]
        gains = [accuracy[name, row["seed"]] - accuracy[BASELINE, row["seed"]] for row in rows]
        measures = {measure: _spread([row[measure] for row in rows]) for measure in MEASURES}
        table[name] = {"changes": changes, "seeds": [row["seed"] for row in rows], **measures, "gain": _spread(gains)}
    data = state["rows"][0]["data"]
    return {"base": plan.base, "settings": plan.settings, **environment(), "data": data, "variants": table}


def _train_one(plan: Plan, changes: Mapping[str, Any], seed: int, scratch: Path) -> dict[str, Any]:
    shutil.rmtree(scratch, ignore_errors=True)
    base = yaml.safe_load(Path(plan.base).read_text(encoding="utf-8"))
    settings = {**base, **plan.settings, **changes, "seed": seed, "output_dir": str(scratch), "disable_tqdm": True}
    recipe = scratch.with_suffix(".yaml")
    recipe.write_text(yaml.safe_dump(settings), encoding="utf-8")
    data, model, run = parse(DataArguments, ModelArguments, RunArguments, argv=["--config", str(recipe)])
    fitted = fit(data, model, run)
    rows = epoch_rows(fitted.trainer.state.log_history)
    best = max(rows, key=lambda row: row["eval_accuracy"])
    seconds = sum(row["seconds"] for row in rows)
    n = {split: facts["n"] for split, facts in data_fingerprint(fitted.data.images).items() if split != "test"}
    shutil.rmtree(scratch)
    return {name: best[name] for name in MEASURES[:-1]} | {"seconds": seconds, "data": n}


def _spread(values: Sequence[float]) -> dict[str, Any]:
    return {"mean": mean(values), "sd": stdev(values) if len(values) > 1 else None, "runs": list(values)}


def main(argv: Sequence[str] | None = None) -> int:
    """Train what is missing, write the table; give the exit status."""
    disable_progress_bar()  # type: ignore[no-untyped-call]  # of weight files
    (arguments,) = parse(AblationArguments, argv=argv, description=__doc__)
    try:
        plan = read_plan(arguments.plan)
        state = run_plan(plan, arguments.output_dir)
    except KeyboardInterrupt:
        print(f"\ninterrupted; the same command goes on from {arguments.output_dir}", file=sys.stderr)
        return 130
    except (OSError, ValueError) as error:
        print(f"ablation: {error}", file=sys.stderr)
        return 1
    write_json(arguments.output_file, summarize(plan, state))
    return 0


if __name__ == "__main__":
    sys.exit(main())
