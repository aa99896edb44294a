"""Compare heads on the stored features of a frozen tower, to choose among them within the training images.

`python -m realfake_hf.experiments.heads --plan recipes/wild/heads.yaml --output_dir runs/wild-heads --output_file
results/wild_heads.json`

For each two neighbouring folds, heads are trained on the other folds, and judged on these two. All heads see the same
batches. To resume, repeat the command; finished heads are kept.
"""

import logging
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property, reduce
from operator import add
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from realfake_hf.cli import command
from realfake_hf.experiments.fold_scores import Array, Held, RecipeFits, load_folds
from realfake_hf.experiments.out_of_fold import read_recipe
from realfake_hf.experiments.trainings import PlanArguments, read_plan
from realfake_hf.store import Store, write_results
from realfake_hf.tables import markdown_table

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from realfake_hf.experiments.view_heads import HeadSettings, Inputs, Space, ViewHeads
    from realfake_hf.training.discriminant import Moments
    from realfake_hf.training.features import FeatureDataset

logger = logging.getLogger(__name__)

COMPONENTS: Final = 1536  # of the features, as in `training.features`
MIN_FOLDS: Final = 3  # two to judge, and one to train on
KINDS: Final = ("whole", "windows")


@dataclass(frozen=True)
class Plan:
    """Heads to compare with the first one.

    Attributes:
        recipe: file of a recipe with data, folds, balance, tower, windows, copies and `head_shrinkage`.
        folds: values of the fold column.
        variants: in which images are judged, as in `training.features`.
        sampled: images of each fold that are judged in the variants after the first.
        epochs: see `view_heads.train_heads`, also for the next three.
        batch_size: images in a batch.
        learning_rate: the highest of the cycle.
        weight_decay: of AdamW.
        heads: settings by name, see `view_heads.HeadSettings`; those that are left out have their defaults.
    """

    recipe: str
    folds: Sequence[str | int]
    variants: Sequence[str]
    sampled: int
    epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    heads: Mapping[str, Mapping[str, Any]]


def run_plan(plan: Plan, folder: Path) -> dict[str, Any]:
    """Train and judge all heads, and compare each with the first.

    Raises:
        OSError: the data or the tower do not exist.
        ValueError: the settings of a head or the recipe are not suitable, or the folder contains heads with other
            settings.
    """
    from realfake_hf.environment import environment

    facts, heads, recipe = environment(), _read_heads(plan.heads), read_recipe(plan.recipe)
    copies, n_folds = sum(recipe[1].copies.values()), len(plan.folds)
    if not (recipe[1].n_windows and copies and recipe[1].head_shrinkage) or n_folds < MIN_FOLDS:
        raise ValueError(
            f"expected windows, copies and head_shrinkage in {plan.recipe}, and at least {MIN_FOLDS} folds; found "
            f"{recipe[1].n_windows}, {copies}, {recipe[1].head_shrinkage} and {n_folds}."
        )
    data = load_folds(plan.folds, [recipe[0]])
    comparison = Comparison(plan, RecipeFits(recipe, data, Store(folder)))
    aucs: dict[str, list[Array]] = {name: [] for name in heads}
    for first in range(n_folds):
        pair = Pair(comparison, (first, (first + 1) % n_folds))
        for name, settings in heads.items():
            aucs[name].append(pair.aucs(name, settings))
            logger.info("folds %s, %s: %.4f", pair.held, name, aucs[name][-1].mean())
    results = compare(plan.variants, {name: np.stack(each) for name, each in aucs.items()})
    counts = {"n": len(data.fold), "n_groups": len(set(data.groups))}
    return {
        **facts, **counts, "folds": n_folds,
        "heads": {name: {"settings": asdict(heads[name]), **result} for name, result in results.items()},
    }  # fmt: skip


def _read_heads(heads: Mapping[str, Mapping[str, Any]]) -> "dict[str, HeadSettings]":
    from realfake_hf.experiments.view_heads import HeadSettings

    known = {field.name for field in fields(HeadSettings)}
    for name, settings in heads.items():
        if unknown := set(settings) - known:
            raise ValueError(
                f"expected settings among {', '.join(sorted(known))} for the head {name}; found "
                f"{', '.join(sorted(unknown))}."
            )
    return {name: HeadSettings(**settings) for name, settings in heads.items()}


class Comparison:
    """What all pairs of folds share."""

    def __init__(self, plan: Plan, fits: RecipeFits) -> None:
        self.plan, self.fits, self.data = plan, fits, fits.data
        self.token: int = fits.network.config.tower_config.hidden_size  # type: ignore[union-attr]
        names = ("epochs", "batch_size", "learning_rate", "weight_decay")
        self.optimization: dict[str, Any] = {name: getattr(plan, name) for name in names}

    @cached_property
    def moments(self) -> "list[list[Moments]]":
        """Moments of the whole images and of the windows of each fold, which all can be added.

        Each fold weighs the same, and no sum depends on a label of another fold.
        """
        from realfake_hf.training.features import collect_moments, mean_features

        sets = [self.fits.training_set(self.data.fold == fold) for fold in range(len(self.plan.folds))]
        offset = mean_features(sets[0][0]).mean(0)
        return [collect_moments(images, weights, offsets=np.stack([offset] * 2)) for images, weights in sets]


class Pair:
    """The images that heads are trained and judged on if some folds are held out."""

    def __init__(self, comparison: Comparison, held: Held) -> None:
        self.comparison, self.held, self.data = comparison, held, comparison.data
        self.is_held = np.isin(self.data.fold, held)
        self.ending = f"without {' and '.join(map(str, held))}"
        self._inputs: dict[tuple[bool, bool], tuple[Inputs, list[Inputs]]] = {}

    def aucs(self, name: str, settings: "HeadSettings") -> Array:
        """Return the AUC of a head in each variant and on each of the folds: (variants, folds)."""
        from sklearn.metrics import roc_auc_score

        plan, data = self.comparison.plan, self.data
        judged = {"judged": self._images(self.is_held), "variants": plan.variants, "sampled": plan.sampled}
        key = {**self._settings, **self.comparison.optimization, **judged, "head": asdict(settings)}
        scores = self.comparison.fits.store.arrays(
            f"{name} {self.ending}", key, lambda: {"scores": self._run(settings)}
        )["scores"]
        rows = [[each[data.fold[each] == fold] for fold in self.held] for each in self.judged]
        return np.array(
            [
                [roc_auc_score(data.is_fake[inside], values[inside]) for inside in folds]
                for values, folds in zip(scores, rows, strict=True)
            ]
        )

    def _run(self, settings: "HeadSettings") -> Array:
        """Train a head, and return the scores of the images that are judged: (variants, n), NaN for others."""
        from realfake_hf.experiments.view_heads import judge

        heads = [self.train(settings, seed) for seed in range(settings.seeds)]
        values = np.full((len(self.judged), len(self.is_held)), np.nan)
        for each, rows, inputs in zip(values, self.judged, self.inputs(settings)[1], strict=True):
            each[rows] = judge(heads, inputs)
        return values

    def train(self, settings: "HeadSettings", seed: int) -> "ViewHeads":
        """Train a head on the other folds."""
        from realfake_hf.experiments.view_heads import train_heads

        images, weights = self.training_set
        return train_heads(
            settings, self.inputs(settings)[0], images.labels, weights=weights, shares=images.shares,
            token=self.comparison.token, seed=seed, **self.comparison.optimization,
        )  # fmt: skip

    @cached_property
    def training_set(self) -> "tuple[FeatureDataset, Array]":
        """The images that are not held out, and their weights."""
        return self.comparison.fits.training_set(~self.is_held)

    @cached_property
    def judged(self) -> "list[NDArray[np.intp]]":
        """The images that are judged, by variant."""
        plan = self.comparison.plan
        return self.comparison.fits.judged(self.held, len(plan.variants), plan.sampled)

    def inputs(self, settings: "HeadSettings") -> "tuple[Inputs, list[Inputs]]":
        """Return what a head is trained on, and what it is judged on by variant."""
        from realfake_hf.experiments.view_heads import Inputs

        key = settings.shared, settings.weighted_blocks
        if key not in self._inputs:
            spaces = [self._space("both" if settings.shared else kind) for kind in KINDS]
            project, plan = not settings.weighted_blocks, self.comparison.plan
            judged = [
                self.comparison.fits.features(rows, variant)
                for rows, variant in zip(self.judged, plan.variants, strict=True)
            ]
            self._inputs[key] = (
                Inputs(self.training_set[0].variants, spaces, project=project),
                [Inputs([features], spaces, project=project) for features in judged],
            )
        return self._inputs[key]

    def _space(self, kind: str) -> "Space":
        """Fit the statistics of whole images, windows or both on the other folds."""
        import torch

        from realfake_hf.experiments.view_heads import Space
        from realfake_hf.training.discriminant import Standardized

        fits = self.comparison.fits

        def fit() -> dict[str, Any]:
            kept = [each for fold, each in enumerate(self.comparison.moments) if fold not in self.held]
            kinds = [reduce(add, each) for name, each in zip(KINDS, zip(*kept, strict=True), strict=True)
                     if kind in (name, "both")]  # fmt: skip
            statistics = Standardized.of(reduce(add, kinds))
            axes = statistics.axes(float(fits.recipe[1].head_shrinkage or 0), COMPONENTS)
            return {"mean": statistics.mean.numpy(), "std": statistics.std.numpy(), "axes": axes.numpy()}

        arrays = fits.store.arrays(f"axes of {kind} {self.ending}", self._settings, fit)
        return Space(**{name: torch.from_numpy(value) for name, value in arrays.items()})

    @cached_property
    def _settings(self) -> dict[str, Any]:
        data, model = self.comparison.fits.recipe
        return {**asdict(model), "balance": data.balance, "images": self._images(~self.is_held)}

    def _images(self, rows: "NDArray[np.bool_]") -> list[str]:
        return self.data.images["sha256"][np.flatnonzero(rows)]  # type: ignore[no-any-return]


def compare(variants: Sequence[str], aucs: Mapping[str, Array]) -> dict[str, dict[str, Any]]:
    """Compare heads with the first, by paired t-tests over folds; p-values are corrected for their number (Holm).

    The two results of a fold are averaged beforehand. The folds are few, and the results of a pair share their
    training images: the tests have little power, and large differences only are certain.

    Args:
        variants: names.
        aucs: by head: (pairs, variants, 2), of the pair's own fold and of the next one.
    """
    from scipy.stats import t

    from realfake_hf.metrics.significance import holm

    by_fold = {name: (each.mean(1)[:, 0] + np.roll(each.mean(1)[:, 1], 1)) / 2 for name, each in aucs.items()}
    base, *others = by_fold
    n = len(by_fold[base])
    gaps = {name: by_fold[name] - by_fold[base] for name in others}
    mean_sd = {name: (float(gap.mean()), float(gap.std(ddof=1))) for name, gap in gaps.items()}
    tails = [2 * t.sf(abs(mean) / max(sd, 1e-9) * n**0.5, n - 1) for mean, sd in mean_sd.values()]
    p_values = dict(zip(others, holm(tails), strict=True))
    results = {}
    for name, each in aucs.items():
        means = dict(zip(variants, each.mean((0, 2)).tolist(), strict=True))
        results[name] = {"roc_auc": means, "mean": float(each.mean()), "difference": None}
        if name != base:
            mean, sd = mean_sd[name]
            results[name]["difference"] = {"mean": mean, "sd": sd, "p": p_values[name]}
    return results


def to_markdown(results: Mapping[str, Any]) -> str:
    """Render one row for each head."""
    rows = []
    for name, result in results["heads"].items():
        gap = result["difference"]
        cells = [f"{gap['mean']:+.4f} ± {gap['sd']:.4f}", f"{gap['p']:.2f}"] if gap else ["", ""]
        rows.append([name, *(f"{value:.4f}" for value in (*result["roc_auc"].values(), result["mean"])), *cells])
    base, *_ = results["heads"]
    variants = results["heads"][base]["roc_auc"]
    note = (
        f"Mean AUC over pairs of neighbouring folds of {results['n']:,} images of {results['n_groups']:,} groups; the "
        "heads are trained on the other folds. These are choices within the training images, not the performance on "
        f"new ones. Difference to “{base}” with its standard deviation over {results['folds']} folds, and the p-value "
        "of a paired t-test over the folds, corrected for the number of heads (Holm). So few folds have little power."
    )
    header = ["head", *variants, "mean", f"less {base}", "p"]
    return f"{markdown_table(header, rows)}\n\n{note}"


@command(PlanArguments, name="heads", description=__doc__, resumable="output_dir")
def main(arguments: PlanArguments) -> None:
    """Run or resume a plan, and print its table."""
    results = run_plan(read_plan(Plan, arguments.plan), arguments.output_dir)
    print(write_results(arguments.output_file, results, to_markdown(results)))


if __name__ == "__main__":
    sys.exit(main())
