"""Both directions: models trained on each source and on all of them, tested on each, as one matrix.

`python -m realfake_hf.experiments.transfer --plan recipes/transfer/matrix.yaml --output_dir runs/transfer
--output_file results/transfer.json` goes on where it was interrupted, training by training.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from statistics import mean, stdev
from typing import Any, Final

import yaml
from datasets import DatasetDict
from transformers.utils.logging import disable_progress_bar

from realfake_hf.cli import parse
from realfake_hf.crosseval.arguments import CrossevalArguments
from realfake_hf.crosseval.cell import Cell
from realfake_hf.crosseval.grid import Grid, run_grid
from realfake_hf.data.corruptions import PROTOCOLS
from realfake_hf.data.loading import find_source, load_images
from realfake_hf.environment import environment
from realfake_hf.estimate import to_plain
from realfake_hf.experiments.mix import matched_splits, mix
from realfake_hf.figures import save_figure
from realfake_hf.figures.transfer import MatrixPanel, transfer_matrix
from realfake_hf.run_folder import METRICS
from realfake_hf.store import write_json
from realfake_hf.training.arguments import DataArguments, ModelArguments
from realfake_hf.training.run import train
from realfake_hf.training.run_arguments import RunArguments

ALL: Final = "both"  # trained on all sources
MEASURES: Final = ("balanced_accuracy", "roc_auc", "accuracy_real", "accuracy_fake", "ece")
SEED: Final = 0  # of the splits


@dataclass
class TransferArguments:
    """Which matrix, and where it goes."""

    plan: Path = field(metadata={"help": "A YAML file with sources, protocol, rows, test_size and models."})
    output_dir: Path = field(metadata={"help": "A folder for data, models and grid; goes on from there."})
    output_file: Path = field(metadata={"help": "The matrix, a JSON file of results/."})
    figure_file: Path | None = field(default=None, metadata={"help": "The matrix as a figure."})
    bootstrap_samples: int = field(default=1000, metadata={"help": "Replicates behind each interval."})


@dataclass(frozen=True)
class Plan:
    """What is trained on what.

    Attributes:
        sources: by name; each is trained on and tested on.
        protocol: what is done to every picture.
        rows: of each training set.
        test_size: pictures of each test at most.
        models: by name, `base` (a recipe), `seeds`, and `settings` that differ from the recipe's.
    """

    sources: dict[str, str]
    protocol: str
    rows: int
    test_size: int
    models: dict[str, dict[str, Any]]

    @property
    def trained_on(self) -> dict[str, list[str]]:
        """The training sets, by name, and the sources in each."""
        return {**{name: [name] for name in self.sources}, ALL: list(self.sources)}


def read_plan(file: Path) -> Plan:
    """Read a matrix's YAML file.

    Raises:
        ValueError: a part is missing or unknown.
    """
    if not file.is_file():
        raise ValueError(f"wanted a YAML file at {file}; found no such file.")
    content = yaml.safe_load(file.read_text(encoding="utf-8"))
    wanted = set(Plan.__dataclass_fields__)
    if not isinstance(content, Mapping) or set(content) != wanted:
        found = sorted(content) if isinstance(content, Mapping) else type(content).__name__
        raise ValueError(f"wanted {', '.join(sorted(wanted))} in {file}; found {found}.")
    plan = Plan(**content)
    if plan.protocol not in PROTOCOLS:
        raise ValueError(f"wanted a protocol of {', '.join(PROTOCOLS)} in {file}; found {plan.protocol}.")
    if len(plan.sources) < 2 or ALL in plan.sources:  # noqa: PLR2004 - a matrix
        raise ValueError(
            f"wanted two or more sources in {file}, under other names than {ALL}; found {', '.join(plan.sources)}."
        )
    return plan


def run_plan(plan: Plan, folder: Path, *, bootstrap_samples: int) -> Grid:
    """Make the data, train what is not yet trained, and measure every model on every test.

    Raises:
        OSError: there is no such source, or no such model.
        ValueError: a setting does not fit, or the folder was made by another plan.
    """
    for source in plan.sources.values():
        find_source(source)
    _refuse_other_plan(plan, folder)
    places = dict(_make_data(plan, folder / "data"))
    trained = {name: _train(plan, folder, *key) for name, key in _runs(plan)}
    arguments = CrossevalArguments(
        output_dir=folder / "grid",
        models=[f"{name}={place}" for name, place in trained.items()],
        datasets=[f"{name}={places[name]}" for name in plan.sources],
        split="test",
        protocols=["native"],  # the pictures are prepared already
        bootstrap_samples=bootstrap_samples,
    )
    return run_grid(arguments)


def summarize(plan: Plan, grid: Grid) -> dict[str, Any]:
    """Put the cells of a matrix together: mean and deviation over seeds, and each cell with its intervals.

    Returns:
        `cells`: one for each model, training set and test, with `n`, every measure's mean, deviation and runs.
    """
    by_place = {(cell.model, cell.dataset): cell for cell in grid.cells if cell.split == "test"}
    cells = []
    for model, trained_on, tested_on in product(plan.models, plan.trained_on, plan.sources):
        found = [by_place[_name(model, trained_on, seed), tested_on] for seed in plan.models[model]["seeds"]]
        measures = {name: _spread(found, name) for name in MEASURES}
        n = {"n_real": found[0].report.n_real, "n_fake": found[0].report.n_fake}
        cells.append({"model": model, "trained_on": trained_on, "tested_on": tested_on, **n, **measures})
    return {"plan": to_plain(plan), **environment(), "cells": cells}


def to_figure(matrix: Mapping[str, Any]) -> Any:  # noqa: ANN401 - a matplotlib Figure
    """Draw a matrix: a row a measure, a column a model."""
    plan = Plan(**matrix["plan"])
    names = {"balanced_accuracy": "balanced accuracy", "roc_auc": "ROC AUC"}
    rows = [
        [_panel(matrix, plan, model, measure, f"{model}: {words}") for model in plan.models]
        for measure, words in names.items()
    ]
    return transfer_matrix(rows)


def _panel(matrix: Mapping[str, Any], plan: Plan, model: str, measure: str, title: str) -> MatrixPanel:
    found = {(one["trained_on"], one["tested_on"]): one[measure] for one in matrix["cells"] if one["model"] == model}
    values = [[found[row, column]["mean"] for column in plan.sources] for row in plan.trained_on]
    spreads = [[found[row, column]["sd"] for column in plan.sources] for row in plan.trained_on]
    return MatrixPanel(title, list(plan.trained_on), list(plan.sources), values, spreads)


def _runs(plan: Plan) -> Iterator[tuple[str, tuple[str, str, int]]]:
    for model, row in plan.models.items():
        for trained_on, seed in product(plan.trained_on, row["seeds"]):
            yield _name(model, trained_on, seed), (model, trained_on, seed)


def _name(model: str, trained_on: str, seed: int) -> str:
    return f"{model}-{trained_on}-{seed}"


def _refuse_other_plan(plan: Plan, folder: Path) -> None:
    file = folder / "plan.yaml"
    text = yaml.safe_dump(to_plain(plan))
    if file.exists() and file.read_text(encoding="utf-8") != text:
        raise ValueError(f"wanted the plan that {folder} was made by; found another. Name another folder.")
    folder.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")


def _make_data(plan: Plan, folder: Path) -> Iterator[tuple[str, Path]]:
    missing = [name for name in plan.trained_on if not (folder / name).exists()]
    sizes = {"train_size": plan.rows, "test_size": plan.test_size, "protocol": plan.protocol, "seed": SEED}
    parts: dict[str, DatasetDict] = {
        name: matched_splits(load_images(source), **sizes)  # type: ignore[arg-type]
        for name, source in plan.sources.items()
        if missing
    }
    for name, sources in plan.trained_on.items():
        if name in missing:
            part = folder / f"{name}.part"
            mix([parts[source] for source in sources], rows=plan.rows).save_to_disk(part)
            part.rename(folder / name)
        yield name, folder / name


def _train(plan: Plan, folder: Path, model: str, trained_on: str, seed: int) -> Path:
    place = folder / "models" / _name(model, trained_on, seed)
    if (place / METRICS).exists():
        return place
    row = plan.models[model]
    base = yaml.safe_load(Path(row["base"]).read_text(encoding="utf-8"))
    own = {"data": str(folder / "data" / trained_on), "seed": seed, "output_dir": str(place), "disable_tqdm": True}
    recipe = folder / "recipe.yaml"
    recipe.write_text(yaml.safe_dump({**base, **row["settings"], **own}), encoding="utf-8")
    data, chosen, run = parse(DataArguments, ModelArguments, RunArguments, argv=["--config", str(recipe)])
    train(data, chosen, run)
    print(f"trained {place.name}", file=sys.stderr)
    return place


def _spread(found: Sequence[Cell], name: str) -> dict[str, Any]:
    estimates = [getattr(cell.report, name) for cell in found]
    values = [one.value or 0 for one in estimates]
    deviation = stdev(values) if len(values) > 1 else None
    return {"mean": mean(values), "sd": deviation, "runs": [to_plain(one) for one in estimates]}


def main(argv: Sequence[str] | None = None) -> int:
    """Train what is missing, measure, write; give the exit status."""
    disable_progress_bar()  # type: ignore[no-untyped-call]  # of weight files
    (arguments,) = parse(TransferArguments, argv=argv, description=__doc__)
    try:
        plan = read_plan(arguments.plan)
        grid = run_plan(plan, arguments.output_dir, bootstrap_samples=arguments.bootstrap_samples)
    except KeyboardInterrupt:
        print(f"\ninterrupted; the same command goes on from {arguments.output_dir}", file=sys.stderr)
        return 130
    except (OSError, ValueError) as error:
        print(f"transfer: {error}", file=sys.stderr)
        return 1
    matrix = summarize(plan, grid)
    write_json(arguments.output_file, matrix)
    if arguments.figure_file:
        save_figure(to_figure(matrix), arguments.figure_file)
    return 0


if __name__ == "__main__":
    sys.exit(main())
