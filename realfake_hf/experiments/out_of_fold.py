"""Compare recipes of heads on a frozen tower, judging each image by heads that never saw an image of its group.

`python -m realfake_hf.experiments.out_of_fold --plan recipes/wild/plan.yaml --output_dir runs/wild-folds --output_file
results/wild.json`

The recipe is chosen within the other folds: for the images of a fold, by heads that were trained without this fold and
a second one, on the second. To resume, repeat the command; stored features and finished fits are kept.
"""

import logging
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from realfake_hf.cli import command, parse
from realfake_hf.estimate import Estimate
from realfake_hf.experiments.trainings import PlanArguments, read_plan
from realfake_hf.store import Store, write_results
from realfake_hf.tables import markdown_table

if TYPE_CHECKING:
    from datasets import Dataset

    from realfake_hf.training.arguments import DataArguments, ModelArguments

    Recipe = tuple[DataArguments, ModelArguments]

logger = logging.getLogger(__name__)

NESTED: Final = "chosen within"
SAMPLES: Final = 1000  # of each bootstrap
MIN_IMAGES: Final = 10  # of a generator or content that has a row of its own
SHOWN: Final = ("roc_auc", "balanced_accuracy", "accuracy_real")
Held = tuple[int, ...]  # positions of the folds that are held out
Scores = Mapping[Held, NDArray[np.float64]]  # (variants, n) p_fake, NaN outside of the folds that are held out


@dataclass(frozen=True)
class Plan:
    """Recipes of `train.py --model multiview` on one data set, its folds, and the variants in which it is judged.

    Recipes are chosen by the first variant; all of them are those of `training.features`.
    """

    recipes: Sequence[str]
    folds: Sequence[str | int]
    variants: Sequence[str]


@dataclass(frozen=True, eq=False)
class FoldedImages:
    """The images of a source, and the fold of each.

    Attributes:
        images: the images of all folds.
        fold: (n,) position of the fold in the plan.
        is_fake: (n,) labels.
    """

    images: "Dataset"
    fold: NDArray[np.intp]
    is_fake: NDArray[np.bool_]


def run_plan(plan: Plan, folder: Path) -> dict[str, Any]:
    """Score all images out of fold with each recipe; report all recipes, and the one that is chosen for each fold.

    Raises:
        OSError: the data or a tower do not exist.
        ValueError: the recipes differ in their data, or the folder contains fits with other settings.
    """
    from realfake_hf.environment import environment

    recipes = {Path(file).stem: _read_recipe(file) for file in plan.recipes}
    data = load_folds(plan, [recipe[0] for recipe in recipes.values()])
    numbers = range(len(plan.folds))
    held_out: list[Held] = [*combinations(numbers, 1), *combinations(numbers, 2)]
    scores: dict[str, Scores] = {}
    for name, recipe in recipes.items():
        store = Store(folder / name)
        scores[name] = {held: _out_of_fold(recipe, held, plan, data, store) for held in held_out}
    chosen = [choose(scores, data, fold) for fold in numbers]
    by_fold = {name: [name] * len(plan.folds) for name in recipes} | {NESTED: chosen}
    p_fake = {
        name: np.nanmax([scores[each][fold,] for fold, each in enumerate(names)], axis=0)  # NaN outside of the fold
        for name, names in by_fold.items()
    }
    return {
        **environment(),
        "n": len(data.fold),
        "n_fake": int(data.is_fake.sum()),
        "n_groups": len(set(data.images["group"][:])),
        "chosen": dict(zip(map(str, plan.folds), chosen, strict=True)),
        "recipes": {name: _reports(plan, data, values) for name, values in p_fake.items()},
    }


def load_folds(plan: Plan, settings: Sequence["DataArguments"]) -> FoldedImages:
    """Load the data set of the recipes.

    Raises:
        ValueError: the recipes differ in their data set, or an image lies in none of the folds of the plan.
    """
    from datasets import concatenate_datasets

    from realfake_hf.data.folds import Fold
    from realfake_hf.data.loading import load_images
    from realfake_hf.labels import FAKE

    sources = {(each.data, each.labels, each.fold_column, each.balance) for each in settings}
    if len(sources) > 1 or settings[0].fold_column is None:
        raise ValueError(
            f"expected recipes with the same data, labels, fold_column and balance; found {sorted(map(str, sources))}."
        )
    first = settings[0]
    splits = [
        load_images(first.data, labels=first.labels, fold=Fold(str(first.fold_column), str(fold)))
        for fold in plan.folds
    ]
    images = concatenate_datasets([splits[0]["train"], splits[0]["validation"]])
    position = {each: number for number, split in enumerate(splits) for each in split["validation"]["id"][:]}
    fold = np.array([position.get(each, -1) for each in images["id"][:]])
    if (fold < 0).any():
        raise ValueError(f"expected all images in the folds {list(plan.folds)}; found {(fold < 0).sum():,} in others.")
    return FoldedImages(images, fold, np.asarray(images["label"][:]) == FAKE)


def choose(scores: Mapping[str, Scores], data: FoldedImages, fold: int) -> str:
    """Choose the recipe for a fold by its mean AUC on the other folds, of heads that saw neither of the two."""
    from sklearn.metrics import roc_auc_score

    means = {}
    for name, each in scores.items():
        aucs = []
        for held in each:
            if len(held) > 1 and fold in held:
                rows = data.fold == sum(held) - fold
                aucs.append(roc_auc_score(data.is_fake[rows], each[held][0, rows]))
        means[name] = float(np.mean(aucs))
    logger.info("fold %d: %s", fold, ", ".join(f"{name} {value:.4f}" for name, value in means.items()))
    return max(means, key=means.__getitem__)


def _read_recipe(file: str) -> "Recipe":
    from realfake_hf.training.arguments import MULTIVIEW, DataArguments, ModelArguments
    from realfake_hf.training.run_arguments import RunArguments

    data, model, _ = parse(DataArguments, ModelArguments, RunArguments, argv=["--config", file])
    if model.model != MULTIVIEW:
        raise ValueError(f"expected recipes with model {MULTIVIEW}; found {model.model} in {file}.")
    return data, model


def _out_of_fold(recipe: "Recipe", held: Held, plan: Plan, data: FoldedImages, store: Store) -> NDArray[np.float64]:
    """Fit heads without some folds, and score these: (variants, n), NaN for other images."""
    settings = {**asdict(recipe[1]), "balance": recipe[0].balance, "variants": list(plan.variants)}
    settings["images"] = data.images["sha256"][:]
    name = f"without {' and '.join(str(plan.folds[fold]) for fold in held)}"
    return store.arrays(name, settings, lambda: {"p_fake": _fit_and_score(recipe, held, plan, data)})["p_fake"]


def _fit_and_score(recipe: "Recipe", held: Held, plan: Plan, data: FoldedImages) -> NDArray[np.float64]:
    import torch
    from datasets import DatasetDict

    from realfake_hf.data.sampling import balanced_weights
    from realfake_hf.data.splits import known_groups
    from realfake_hf.training.data import build_model
    from realfake_hf.training.features import cached_features, feature_sets, fit_heads

    arguments, model = recipe
    network, processor = build_model(model)
    is_held = np.isin(data.fold, held)
    train = data.images.select(np.flatnonzero(~is_held))
    sets = feature_sets(DatasetDict(train=train), network, processor, delivered_copies=model.delivered_copies, seed=0)  # type: ignore[arg-type]
    weights = balanced_weights(arguments.balanced, data.is_fake[~is_held], known_groups(train))
    fit_heads(network, sets["train"], inverse_penalty=model.head_c, weights=weights)  # type: ignore[arg-type]
    p_fake = np.full((len(plan.variants), len(data.fold)), np.nan)
    judged = data.images.select(np.flatnonzero(is_held))
    for row, variant in enumerate(plan.variants):
        features = cached_features(judged, network, processor, variant=variant)[:]  # type: ignore[arg-type]
        with torch.inference_mode():
            p_fake[row, is_held] = network.score(torch.from_numpy(features).float()).sigmoid().numpy()  # type: ignore[operator]
    return p_fake


def _reports(plan: Plan, data: FoldedImages, p_fake: NDArray[np.float64]) -> dict[str, Any]:
    """Report each variant: over all images, by fold, by generator and by content."""
    columns = {"generators": data.images["generator"][:], "contents": data.images["content"][:]}
    columns["folds"] = [str(plan.folds[fold]) for fold in data.fold]
    every = np.ones(len(data.fold), dtype=np.bool_)
    return {
        variant: {"all": _report(data, values, every)}
        | {name: _by_value(data, values, column) for name, column in columns.items()}
        for variant, values in zip(plan.variants, p_fake, strict=True)
    }


def _report(data: FoldedImages, p_fake: NDArray[np.float64], rows: NDArray[np.bool_]) -> dict[str, Any]:
    from realfake_hf.metrics.report import make_report

    groups = data.images.select(np.flatnonzero(rows))["group"][:]
    return make_report(data.is_fake[rows], p_fake[rows], groups=groups, bootstrap_samples=SAMPLES).to_dict()


def _by_value(
    data: FoldedImages, p_fake: NDArray[np.float64], column: Sequence[str | None]
) -> dict[str, dict[str, Any]]:
    """Report the images of each value that at least `MIN_IMAGES` have, most images first.

    If they have one label, as those of a generator do, all images of the other label are added for comparison.
    """
    values = np.array([value or "" for value in column])
    names, counts = np.unique(values[values != ""], return_counts=True)
    reports = {}
    for name in names[np.argsort(-counts, kind="stable")][: int((counts >= MIN_IMAGES).sum())]:
        rows = values == name
        for side in (data.is_fake, ~data.is_fake):
            rows = rows if (rows & side).any() else rows | side
        reports[str(name)] = _report(data, p_fake, rows)
    return reports


def to_markdown(results: Mapping[str, Any]) -> str:
    """Render one row for each recipe and variant."""
    rows = []
    for name, variants in results["recipes"].items():
        for variant, report in variants.items():
            folds = [part["roc_auc"]["value"] for part in report["folds"].values()]
            estimates = [Estimate.from_dict(report["all"][key]) for key in SHOWN]
            rows.append([name, variant, *map(str, estimates), f"{min(folds):.3f} to {max(folds):.3f}"])
    header = ["recipe", "images", "AUC", "balanced accuracy", "accuracy on real", "AUC of folds"]
    note = (
        f"{results['n']:,} images of {results['n_groups']:,} groups, {results['n_fake']:,} of them AI-generated, each "
        "judged by heads that saw no image of its group; 95% intervals over groups. "
        f"“{NESTED}”: for each fold, the recipe that was best within the others."
    )
    return f"{markdown_table(header, rows)}\n\n{note}"


@command(PlanArguments, name="out_of_fold", description=__doc__, resumable="output_dir")
def main(arguments: PlanArguments) -> None:
    """Run or resume a plan, and print its table."""
    results = run_plan(read_plan(Plan, arguments.plan), arguments.output_dir)
    print(write_results(arguments.output_file, results, to_markdown(results)))


if __name__ == "__main__":
    sys.exit(main())
