"""Transfer matrix: train models on each source and on all of them together, test each model on each source.

`python -m realfake_hf.experiments.transfer --plan recipes/transfer/matrix.yaml --output_dir runs/transfer
--output_file results/transfer.json --figure_file results/figures/transfer.png`

To resume an interrupted run, repeat the command; data, finished trainings and scores are kept.
"""

import logging
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from realfake_hf.cli import command, setting
from realfake_hf.estimate import to_plain
from realfake_hf.experiments.trainings import PlanArguments, format_spread, read_plan, spread, write_recipe
from realfake_hf.labels import LabelArguments
from realfake_hf.store import begin_or_resume, write_results
from realfake_hf.tables import markdown_table

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict
    from PIL import Image

    from realfake_hf.crosseval.grid import Grid

logger = logging.getLogger(__name__)

ALL: Final = "both"  # name of the training set that joins all sources
MEASURES: Final = ("balanced_accuracy", "roc_auc", "accuracy_real", "accuracy_fake", "ece")
SHOWN: Final = {"balanced_accuracy": "balanced accuracy", "roc_auc": "ROC AUC", "accuracy_real": "on real"}
SEED: Final = 0  # random seed of the splits


@dataclass
class TransferArguments(PlanArguments, LabelArguments):
    """The plan, the figure, and the bootstrap."""

    figure_file: Path | None = setting(None, "PNG file of the matrix.")
    bootstrap_samples: int = setting(1000, "Replicates of each bootstrap interval.")


@dataclass(frozen=True)
class Plan:
    """The sources and the models of a transfer matrix."""

    sources: dict[str, str]  # name -> source for `load_images`
    protocol: str  # a name in `PROTOCOLS`, applied to every image
    rows: int  # size of every training set
    test_size: int  # maximum size of every test set
    models: dict[str, dict[str, Any]]  # name -> `base` (a recipe), `seeds`, and `settings` that differ from the recipe

    @property
    def training_sets(self) -> dict[str, list[str]]:
        """Training sets: name -> names of its sources."""
        return {**{name: [name] for name in self.sources}, ALL: list(self.sources)}


def read_transfer(file: Path) -> Plan:
    """Read the YAML file of a transfer matrix."""
    from realfake_hf.data.corruptions import PROTOCOLS

    plan = read_plan(Plan, file)
    if plan.protocol not in PROTOCOLS:
        raise ValueError(f"expected a protocol of {', '.join(PROTOCOLS)} in {file}; found {plan.protocol}.")
    if len(plan.sources) < 2 or ALL in plan.sources:  # noqa: PLR2004
        raise ValueError(
            f"expected two or more sources with names other than {ALL} in {file}; found {', '.join(plan.sources)}."
        )
    return plan


def run_plan(plan: Plan, folder: Path, *, labels: str | None = None, bootstrap_samples: int) -> "Grid":
    """Prepare the data, train missing models, and evaluate every model on every test set."""
    from realfake_hf.crosseval.arguments import CrossevalArguments
    from realfake_hf.crosseval.grid import run_grid
    from realfake_hf.data.loading import find_source

    for source in plan.sources.values():
        find_source(source, labels=labels)
    settings = {**to_plain(plan), **({"labels": labels} if labels else {})}
    begin_or_resume(folder / "plan.json", settings, what="transfer matrix")
    _prepare_data(plan, folder / "data", labels)
    models = [
        _train(plan, folder, model, training_set, seed)
        for model, row in plan.models.items()
        for training_set, seed in product(plan.training_sets, row["seeds"])
    ]
    arguments = CrossevalArguments(
        output_dir=folder / "grid",
        models=[f"{model.name}={model}" for model in models],
        datasets=[f"{name}={folder / 'data' / name}" for name in plan.sources],
        split="test",
        protocols=["native"],  # the stored images already follow the plan's protocol
        bootstrap_samples=bootstrap_samples,
    )
    return run_grid(arguments)


def _prepare_data(plan: Plan, folder: Path, labels: str | None) -> None:
    """Save the training sets that are missing, with their validation and test splits."""
    from realfake_hf.data.loading import load_images

    missing = [name for name in plan.training_sets if not (folder / name).exists()]
    if not missing:
        return
    sizes = {"train_size": plan.rows, "test_size": plan.test_size}
    parts = {
        name: matched_splits(load_images(source, labels=labels), **sizes, protocol=plan.protocol)
        for name, source in plan.sources.items()
    }
    for name in missing:
        part = folder / f"{name}.part"
        mix([parts[source] for source in plan.training_sets[name]], rows=plan.rows).save_to_disk(part)
        part.rename(folder / name)


def matched_splits(images: "DatasetDict", *, train_size: int, test_size: int, protocol: str) -> "DatasetDict":
    """Split a source into train, validation and test, limit their sizes, and apply a protocol to every image.

    Test images that also occur in another split are dropped. Splits are balanced by label and content. The sizes are
    maxima; the validation split has at most a tenth of that of the training split. The output of the protocol, a name
    in `PROTOCOLS`, is stored losslessly, as PNG.
    """
    from datasets import DatasetDict

    from realfake_hf.data.duplicates import leak_free_mask
    from realfake_hf.data.splits import add_missing_splits, stratified_split

    splits = add_missing_splits(images, validation_share=0.1, test_share=0.2, seed=SEED)
    splits["test"] = splits["test"].select(leak_free_mask(splits).nonzero()[0])
    for name, size in (("train", train_size), ("test", test_size), ("validation", train_size // 10)):
        if size < len(splits[name]):
            splits[name] = stratified_split(
                splits[name], share=size / len(splits[name]), seed=SEED, whole_groups=False
            )[1]
    return DatasetDict({name: _apply_protocol(rows, protocol) for name, rows in splits.items()})


def mix(parts: "Sequence[DatasetDict]", *, rows: int) -> "DatasetDict":
    """Concatenate splits from `matched_splits`, with equally many training images of each source, `rows` in all.

    Images of small sources are repeated.
    """
    from datasets import DatasetDict, concatenate_datasets

    share = -(-rows // len(parts))
    train = [part["train"].select([n % len(part["train"]) for n in range(share)]) for part in parts]
    others = {name: concatenate_datasets([part[name] for part in parts]) for name in ("validation", "test")}
    return DatasetDict({"train": concatenate_datasets(train).select(range(rows)), **others})


def _apply_protocol(rows: "Dataset", protocol: str) -> "Dataset":
    from realfake_hf.data.corruptions import PROTOCOLS
    from realfake_hf.data.decoding import to_rgb

    def apply(row: "Mapping[str, Image.Image]") -> "dict[str, Image.Image]":
        return {"image": PROTOCOLS[protocol](to_rgb(row["image"])).copy()}  # a copy has no format and becomes a PNG

    rows = rows.select_columns(["image", "label", "content", "generator", "source"])
    return rows.map(apply, features=rows.features, desc=protocol)


def _train(plan: Plan, folder: Path, model: str, training_set: str, seed: int) -> Path:
    """Train a model unless it is finished, and return its folder."""
    from realfake_hf.run_folder import METRICS
    from realfake_hf.training.run import train

    place = folder / "models" / _name(model, training_set, seed)
    if (place / METRICS).exists():
        return place
    row = plan.models[model]
    changes = {**row["settings"], "data": str(folder / "data" / training_set), "seed": seed, "output_dir": str(place)}
    train(*write_recipe(folder / "recipe.yaml", base=row["base"], changes=changes))
    logger.info("trained %s", place.name)
    return place


def _name(model: str, training_set: str, seed: int) -> str:
    return f"{model}-{training_set}-{seed}"


def summarize(plan: Plan, grid: "Grid") -> dict[str, Any]:
    """Return the plan, the environment, and `cells`: one per model, training set and test set, in the plan's order."""
    from realfake_hf.environment import environment

    reports = {(cell.model, cell.dataset): cell.report for cell in grid.cells if cell.split == "test"}
    cells = []
    for model, trained_on, tested_on in product(plan.models, plan.training_sets, plan.sources):
        seeds = [reports[_name(model, trained_on, seed), tested_on] for seed in plan.models[model]["seeds"]]
        n = {"n_real": seeds[0].n_real, "n_fake": seeds[0].n_fake}
        measures = {}
        for name in MEASURES:
            estimates = [getattr(report, name) for report in seeds]
            runs = [estimate.to_dict() for estimate in estimates]
            measures[name] = {**spread([estimate.value or 0 for estimate in estimates]), "runs": runs}
        cells.append({"model": model, "trained_on": trained_on, "tested_on": tested_on, **n, **measures})
    return {"plan": to_plain(plan), **environment(), "cells": cells}


def to_markdown(results: Mapping[str, Any]) -> str:
    """Render one row per model, training set and test set."""
    plan = results["plan"]
    rows = []
    for cell in results["cells"]:
        names, n = [cell[key] for key in ("model", "trained_on", "tested_on")], cell["n_real"] + cell["n_fake"]
        rows.append([*names, f"{n:,}", *(format_spread(cell[name], ".3f") for name in SHOWN)])
    seeds = "; ".join(f"{name}: {len(model['seeds'])} seeds" for name, model in plan["models"].items())
    sources = "; ".join(f"{name}: {source}" for name, source in plan["sources"].items())
    note = (
        f"Sources: {sources}. Mean ± standard deviation over seeds ({seeds}), each model at the threshold chosen on "
        f"its own validation split. Every training set has {plan['rows']:,} rows; smaller sources are repeated. All "
        f"images follow the protocol `{plan['protocol']}`."
    )
    table = markdown_table(["model", "trained on", "tested on", "n", *SHOWN.values()], rows, align="lllr")
    return f"{table}\n\n{note}"


@command(TransferArguments, name="transfer", description=__doc__, resumable="output_dir")
def main(arguments: TransferArguments) -> None:
    """Train and evaluate the models, and print the table."""
    plan = read_transfer(arguments.plan)
    samples = arguments.bootstrap_samples
    grid = run_plan(plan, arguments.output_dir, labels=arguments.labels, bootstrap_samples=samples)
    results = summarize(plan, grid)
    print(write_results(arguments.output_file, results, to_markdown(results)))
    if arguments.figure_file:
        from realfake_hf.experiments.figures import transfer_matrices
        from realfake_hf.figures.style import save_figure

        save_figure(transfer_matrices(results), arguments.figure_file)


if __name__ == "__main__":
    sys.exit(main())
