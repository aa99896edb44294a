"""Compare recipes of heads on a frozen tower, judging each image by heads that never saw an image of its group.

`python -m realfake_hf.experiments.out_of_fold --plan recipes/wild/plan.yaml --output_dir runs/wild-folds --output_file
results/wild.json --model_dir space/models/wild`

The recipe is chosen within the other folds: for the images of a fold, by heads that were trained without this fold and
a second one, on the second. The model that is kept is trained by the best recipe on all images; its operating point is
chosen on the scores that this recipe gave out of fold. To resume, repeat the command; stored features and finished
fits are kept.
"""

import logging
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, product
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from realfake_hf.cli import command, parse, setting
from realfake_hf.estimate import Estimate, to_plain
from realfake_hf.experiments.fold_scores import (
    Array,
    FoldedImages,
    FoldScores,
    Held,
    RecipeFits,
    join,
    load_folds,
)
from realfake_hf.experiments.trainings import PlanArguments, read_plan
from realfake_hf.store import Store, write_json, write_results
from realfake_hf.tables import markdown_table

if TYPE_CHECKING:
    from realfake_hf.metrics.operating_point import OperatingPoint
    from realfake_hf.training.arguments import DataArguments, ModelArguments

    Recipe = tuple[DataArguments, ModelArguments]

logger = logging.getLogger(__name__)

NESTED: Final = "chosen within"
SAMPLES: Final = 1000  # of each bootstrap
MIN_IMAGES: Final = 10  # of a generator or content that has a row of its own
WORST: Final = 20  # groups in the table of errors
SHOWN: Final = ("roc_auc", "balanced_accuracy", "accuracy_real")
REPORTED: Final = ("n", "n_real", "n_fake", *SHOWN, "accuracy_fake", "ece", "brier")
SHARD: Final = "45MB"  # of the weights that are kept, at most
SCORES: Final = "scores.npz"  # sha256 and fold (n,), p_fake (variants, n) of the recipes chosen within, and names
Scores = Mapping[Held, FoldScores]


@dataclass
class OutOfFoldArguments(PlanArguments):
    """The plan, the output files, and the model to keep."""

    model_dir: Path | None = setting(
        None, "Folder of the model that is trained on all images; by default no model is kept."
    )


@dataclass(frozen=True)
class Plan:
    """Recipes of `train.py --model multiview` on one data set, its folds, and the variants in which it is judged.

    Attributes:
        recipes: files of the recipes.
        folds: values of the fold column.
        variants: as in `training.features`; recipes are chosen by the mean of all.
        shares: of the groups, and of the images of each group, that a learning curve trains on besides all.
        sampled: images of each fold that are judged in the other variants, the first by SHA-256.
        band_variants: those on which the operating point is chosen; it keeps the promise in each.
        limits: the limits of the operating point, see `metrics.operating_point.Limits`.
        error: promised share of wrong verdicts among the sure ones, in the worst groups.
        false_alarms: promised share of the real images that are surely called FAKE, in the worst groups.
    """

    recipes: Sequence[str]
    folds: Sequence[str | int]
    variants: Sequence[str]
    shares: Sequence[float]
    sampled: int
    band_variants: Sequence[str]
    limits: Mapping[str, Any]
    error: float
    false_alarms: float


def run_plan(plan: Plan, folder: Path, *, model_dir: Path | None = None) -> dict[str, Any]:
    """Score all images out of fold with each recipe; report all recipes, and the one that is chosen for each fold.

    Args:
        plan: what to compare.
        folder: of finished fits.
        model_dir: folder of the model that is trained on all images; None means none.

    Raises:
        OSError: the data or a tower do not exist.
        ValueError: the recipes differ in their data, the folder contains fits with other settings, or no band keeps
            the promise.
    """
    from realfake_hf.environment import environment
    from realfake_hf.metrics.calibration import reliability

    facts = environment()  # before the folder of the model changes, which git may track
    recipes = {Path(file).stem: read_recipe(file) for file in plan.recipes}
    data = load_folds(plan.folds, [recipe[0] for recipe in recipes.values()])
    scores = _score_all(plan, recipes, data, folder)
    chosen = [choose(scores, data, fold) for fold in range(len(plan.folds))]
    by_fold = {name: [name] * len(plan.folds) for name in recipes} | {NESTED: chosen}
    joined = {name: join([scores[each][fold,] for fold, each in enumerate(names)]) for name, names in by_fold.items()}
    best, final = choose(scores, data), {name: calibrated(plan, data, each) for name, each in joined.items()}
    stored = {"sha256": data.images["sha256"][:], "fold": data.fold, "folds": [str(fold) for fold in plan.folds]}
    np.savez(folder / SCORES, variants=plan.variants, p_fake=final[NESTED], **stored)
    fits = {name: RecipeFits(recipes[name], data, Store(folder / name)) for name in {best, *chosen}}
    far = _find_far(plan, fits, {name: by_fold[name] for name in (best, NESTED)})
    point = choose_point(plan, data, joined[best], far[best])
    kept = {
        "recipe": best,
        "weights": keep(fits[best], point, model_dir) if model_dir else None,
        "operating_point": to_plain(calibrated_point(point)),
        "bins": [to_plain(row) for row in reliability(data.is_fake, final[best][0])],
    }
    return {
        **facts,
        "n": len(data.fold),
        "n_fake": int(data.is_fake.sum()),
        "n_groups": len(set(data.groups)),
        "chosen": dict(zip(map(str, plan.folds), chosen, strict=True)),
        "kept": kept,
        "bands": {
            str(fold): band_outcomes(plan, data, joined[NESTED], far[NESTED], number)
            for number, fold in enumerate(plan.folds)
        },
        "pairs": compare_recipes(plan, data, final),
        "recipes": {name: _reports(plan, data, values, is_detailed=name == NESTED) for name, values in final.items()},
        "curve": _learning_curve(plan, fits[best]),
        "right": right_by_group(data, final[NESTED][0]),
    }


def compare_recipes(plan: Plan, data: FoldedImages, scores: Mapping[str, Array]) -> dict[str, dict[str, Any]]:
    """Compare the recipes that are chosen within with each recipe, on the same draws of groups, by variant.

    The p-values are corrected for the number of recipes and variants (Holm, 1979).
    """
    from realfake_hf.metrics.significance import compare_auc, correct_together

    order, pairs = (NESTED, *(name for name in scores if name != NESTED)), {}
    for number, variant in enumerate(plan.variants):
        rows = np.isfinite(scores[NESTED][number])
        judged = data.select(rows)
        values = {name: scores[name][number, rows] for name in order}
        pairs[variant] = compare_auc(judged.is_fake, values, judged.groups.tolist(), samples=SAMPLES)
    correct_together([pair["p_values"] for pair in pairs.values()])
    return pairs


def _find_far(plan: Plan, fits: Mapping[str, RecipeFits], by_fold: Mapping[str, Sequence[str]]) -> dict[str, Array]:
    """Return which images are far from those of the other folds, by the recipe of each fold: (variants, n) of 0 or 1.

    None are if that is no limit.
    """
    settings: Any = {"variants": plan.variants, "sampled": plan.sampled}
    if not plan.limits.get("far"):
        n = len(next(iter(fits.values())).data.fold)
        return dict.fromkeys(by_fold, np.zeros((len(plan.variants), n)))
    pairs = {(recipe, fold) for recipes in by_fold.values() for fold, recipe in enumerate(recipes)}
    found = {(recipe, fold): fits[recipe].is_far((fold,), **settings) for recipe, fold in pairs}
    return {
        name: np.fmax.reduce([found[recipe, fold] for fold, recipe in enumerate(recipes)])
        for name, recipes in by_fold.items()
    }


def _learning_curve(plan: Plan, fits: RecipeFits) -> list[dict[str, Any]]:
    """Estimate the AUC of heads that are fitted on a part of the groups, or on a part of the images of each group."""
    rows, data = [], fits.data
    for of, share in product(("groups", "images"), (*plan.shares, 1.0)):
        trained = data.select(data.is_among(share, of=of))
        part = None if share == 1 else (share, of)
        settings: Any = {"variants": plan.variants, "sampled": plan.sampled, "part": part}
        scores = join([fits.score((fold,), **settings) for fold in range(len(plan.folds))])
        for variant, p_fake in zip(plan.variants, calibrated(plan, data, scores), strict=True):
            auc = _report(data.select(np.isfinite(p_fake)), p_fake[np.isfinite(p_fake)])["roc_auc"]
            n = {"n": len(trained.fold), "n_groups": len(set(trained.groups))}
            rows.append({"of": of, "share": share, **n, "variant": variant, "roc_auc": auc})
    return rows


def _score_all(plan: Plan, recipes: "Mapping[str, Recipe]", data: FoldedImages, folder: Path) -> dict[str, Scores]:
    """Score the images of each fold, and of each pair of folds, by heads of each recipe that did not see them."""
    numbers = range(len(plan.folds))
    held_out: list[Held] = [*combinations(numbers, 1), *combinations(numbers, 2)]
    scores: dict[str, Scores] = {}
    for name, recipe in recipes.items():
        fits = RecipeFits(recipe, data, Store(folder / name))
        fits.load()  # on all images, for the model that may be kept
        scores[name] = {held: fits.score(held, variants=plan.variants, sampled=plan.sampled) for held in held_out}
    return scores


def choose(scores: Mapping[str, Scores], data: FoldedImages, fold: int | None = None) -> str:
    """Choose the recipe for a fold by its mean AUC on the other folds, in all variants, of heads that saw neither.

    Without a fold, choose the one for new images, by the mean AUC of all folds and variants.
    """
    from sklearn.metrics import roc_auc_score

    means = {}
    for name, each in scores.items():
        aucs = []
        for held in each:
            if len(held) == 1 if fold is None else len(held) > 1 and fold in held:
                inside = data.fold == sum(held) - (fold or 0)
                for p_fake in each[held].p_fake:
                    rows = inside & np.isfinite(p_fake)
                    aucs.append(roc_auc_score(data.is_fake[rows], p_fake[rows]))
        means[name] = float(np.mean(aucs))
    logger.info("fold %s: %s", fold, ", ".join(f"{name} {value:.4f}" for name, value in means.items()))
    return max(means, key=means.__getitem__)


def choose_point(
    plan: Plan, data: FoldedImages, scores: FoldScores, far: Array, *, without: int | None = None
) -> "OperatingPoint":
    """Choose the operating point on the scores out of fold of images that are not far, of all folds or without one."""
    from realfake_hf.metrics.group_band import choose_for_groups
    from realfake_hf.metrics.operating_point import Limits

    variants = [plan.variants.index(name) for name in plan.band_variants]
    p_fake, spread = scores.p_fake[variants], scores.spread[variants]
    is_used = np.isfinite(p_fake) & (far[variants] == 0) & (data.fold != (-1 if without is None else without))
    kinds, rows = known = np.nonzero(is_used)
    return choose_for_groups(
        data.is_fake[rows],
        p_fake[known],
        data.groups[rows],
        data.fold[rows],
        variants=kinds,
        spread=spread[known],
        limits=Limits(**plan.limits),
        error=plan.error,
        false_alarms=plan.false_alarms,
    )


def calibrated(plan: Plan, data: FoldedImages, scores: FoldScores) -> Array:
    """Return probabilities, (variants, n), with a threshold of one half that was fitted on the other folds."""
    from scipy.special import expit

    from realfake_hf.metrics.calibration import log_odds
    from realfake_hf.metrics.group_band import fit_threshold

    p_fake, fitted_on = np.empty_like(scores.p_fake), plan.variants.index(plan.band_variants[0])
    for fold in range(len(plan.folds)):
        inside = data.fold == fold
        threshold, temperature = fit_threshold(
            data.is_fake[~inside], scores.p_fake[fitted_on, ~inside], data.groups[~inside]
        )
        odds = (log_odds(scores.p_fake[:, inside]) - log_odds(np.array(threshold))) / temperature
        p_fake[:, inside] = expit(odds)
    return p_fake


def band_outcomes(plan: Plan, data: FoldedImages, scores: FoldScores, far: Array, fold: int) -> dict[str, Any]:
    """Choose the operating point on the other folds, and measure the verdicts on this one, by variant."""
    from realfake_hf.metrics.group_band import outcome

    point, outcomes = choose_point(plan, data, scores, far, without=fold), {}
    for variant, p_fake, spread, is_far in zip(plan.variants, scores.p_fake, scores.spread, far, strict=True):
        rows = np.isfinite(p_fake) & (data.fold == fold)
        found = outcome(
            point, data.is_fake[rows], p_fake[rows], data.groups[rows], spread=spread[rows], is_far=is_far[rows] == 1
        )
        outcomes[variant] = to_plain(found)
    return outcomes


def calibrated_point(point: "OperatingPoint") -> "OperatingPoint":
    """Return the operating point of a model whose log-odds are shifted and scaled by threshold and temperature."""
    from scipy.special import expit

    from realfake_hf.metrics.calibration import log_odds

    band: Any = point.band
    ends = log_odds(np.array([band.low, band.high])) - log_odds(np.array(point.threshold))
    low, high = expit(ends / (point.temperature or 1)).tolist()
    return replace(point, threshold=0.5, temperature=1.0, band=replace(band, low=low, high=high), calibrated=True)


def keep(fits: RecipeFits, point: "OperatingPoint", folder: Path) -> str:
    """Train a recipe on all images, and write model, image processor, operating point and familiarity to a folder.

    The heads are shifted and scaled by threshold and temperature, so that the probabilities are calibrated.
    Return the digest of the weights.
    """
    from realfake_hf.detector import Detector
    from realfake_hf.metrics.calibration import log_odds
    from realfake_hf.metrics.operating_point import OPERATING_POINT

    fits.load()
    network, familiarity = fits.network, fits.familiarity()
    for each in (network.whole, network.window):
        last: Any = each[-1]
        last.bias.data.sub_(float(log_odds(np.array(point.threshold))))
        for parameter in last.parameters():
            parameter.data.div_(point.temperature)
    folder.mkdir(parents=True, exist_ok=True)
    network.save_pretrained(folder, max_shard_size=SHARD)
    fits.processor.save_pretrained(folder)
    write_json(folder / OPERATING_POINT, to_plain(calibrated_point(point)))
    familiarity.save(folder)
    return Detector.from_pretrained(folder).digest()


def read_recipe(file: str) -> "Recipe":
    """Read the settings of data and model; another model than multiview is a `ValueError`."""
    from realfake_hf.training.arguments import MULTIVIEW, DataArguments, ModelArguments
    from realfake_hf.training.run_arguments import RunArguments

    data, model, _ = parse(DataArguments, ModelArguments, RunArguments, argv=["--config", file])
    if model.model != MULTIVIEW:
        raise ValueError(f"expected recipes with model {MULTIVIEW}; found {model.model} in {file}.")
    return data, model


def right_by_group(data: FoldedImages, p_fake: Array) -> dict[str, list[int]]:
    """Count the images of each group, those that are fake, and those whose label at one half is right."""
    names, group = np.unique(data.groups, return_inverse=True)
    flags = (np.ones_like(data.is_fake), data.is_fake, (p_fake > 0.5) == data.is_fake)  # noqa: PLR2004
    counts = np.stack([np.bincount(group, each) for each in flags], axis=1).astype(int)
    return dict(zip(names.tolist(), counts.tolist(), strict=True))


def _reports(plan: Plan, data: FoldedImages, p_fake: Array, *, is_detailed: bool) -> dict[str, Any]:
    """Report each variant: over all images and by fold; in detail, also by generator and by content."""
    reports = {}
    for variant, scores in zip(plan.variants, p_fake, strict=True):
        judged, values = data.select(np.isfinite(scores)), scores[np.isfinite(scores)]
        columns = {"folds": [str(plan.folds[fold]) for fold in judged.fold]}
        if is_detailed:
            columns |= {"generators": judged.images["generator"][:], "contents": judged.images["content"][:]}
        reports[variant] = {"all": _report(judged, values)}
        reports[variant] |= {name: _by_value(judged, values, column) for name, column in columns.items()}
    return reports


def _report(data: FoldedImages, p_fake: Array) -> dict[str, Any]:
    from realfake_hf.metrics.report import make_report

    report = make_report(data.is_fake, p_fake, groups=data.groups.tolist(), bootstrap_samples=SAMPLES).to_dict()
    return {name: report[name] for name in REPORTED}


def _by_value(data: FoldedImages, p_fake: Array, column: Sequence[str | None]) -> dict[str, dict[str, Any]]:
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
        reports[str(name)] = _report(data.select(rows), p_fake[rows])
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
    tables = [_pairs_table(results), _bands_table(results), _curve_table(results), _groups_table(results)]
    return "\n\n".join([markdown_table(header, rows), note, *tables])


def _pairs_table(results: Mapping[str, Any]) -> str:
    rows = [
        [f"less {name}", variant, pair["n"], Estimate.from_dict(pair["roc_auc"][f"{NESTED} less {name}"]), f"{p:.2g}"]
        for variant, pair in results["pairs"].items()
        for name, p in pair["p_values"].items()
    ]
    note = (
        f"Difference in AUC, “{NESTED}” less each recipe, on the same images and draws of groups; p is corrected for "
        f"{len(rows)} comparisons (Holm). Heads that `make heads` tried are corrected among themselves."
    )
    return f"{markdown_table(['difference', 'images', 'n', 'AUC', 'corrected p'], rows)}\n\n{note}"


def _bands_table(results: Mapping[str, Any]) -> str:
    rows = [
        [fold, variant, *(_of(outcome[key]) for key in ("decided", "wrong", "false_alarms"))]
        for fold, outcomes in results["bands"].items()
        for variant, outcome in outcomes.items()
    ]
    header = ["fold", "images", "decided", "wrong among the decided", "real images called AI-generated"]
    note = "Threshold and band of each fold are chosen on the other folds."
    return f"{markdown_table(header, rows)}\n\n{note}"


def _of(share: Mapping[str, Any]) -> str:
    return f"{Estimate.from_dict(share)} of {share['n']:,}"


def _curve_table(results: Mapping[str, Any]) -> str:
    rows = [
        [f"{row['share']:.1%} of the {row['of']}", f"{row['n']:,}", row["n_groups"], row["variant"],
         Estimate.from_dict(row["roc_auc"])]
        for row in results["curve"]
    ]  # fmt: skip
    header = ["trained on", "n", "groups", "images", "AUC"]
    return f"{markdown_table(header, rows)}\n\nThe recipe {results['kept']['recipe']}, with less than all other folds."


def _groups_table(results: Mapping[str, Any]) -> str:
    """Render the groups with the smallest share of right labels."""
    large = {name: counts for name, counts in results["right"].items() if counts[0] >= MIN_IMAGES}
    worst = sorted(large, key=lambda name: large[name][2] / large[name][0])[:WORST]
    rows = [[name, n, n_fake, f"{right / n:.0%}"] for name in worst for n, n_fake, right in [large[name]]]
    n = f"{len(large)} groups have at least {MIN_IMAGES} images; these have the most errors at one half."
    return f"{markdown_table(['group', 'n', 'AI-generated', 'right'], rows)}\n\n{n}"


@command(OutOfFoldArguments, name="out_of_fold", description=__doc__, resumable="output_dir")
def main(arguments: OutOfFoldArguments) -> None:
    """Run or resume a plan, and print its table."""
    results = run_plan(read_plan(Plan, arguments.plan), arguments.output_dir, model_dir=arguments.model_dir)
    print(write_results(arguments.output_file, results, to_markdown(results)))


if __name__ == "__main__":
    sys.exit(main())
