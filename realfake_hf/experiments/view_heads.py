"""Heads with other layers, poolings and losses than those of the model, on stored features of a frozen tower."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cache, cached_property, partial, reduce
from math import ceil
from operator import add
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import t
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, normalize
from tqdm.auto import trange

from realfake_hf.environment import environment
from realfake_hf.experiments.fold_scores import Array, Held, RecipeFits, load_folds
from realfake_hf.experiments.out_of_fold import read_recipe
from realfake_hf.metrics.significance import holm
from realfake_hf.store import Store
from realfake_hf.training.discriminant import Moments, Standardized
from realfake_hf.training.features import (
    COMPONENTS,
    WHOLE,
    WINDOWS,
    FeatureDataset,
    Features,
    collect_moments,
    mean_features,
)

logger = logging.getLogger(__name__)

MIN_FOLDS: Final = 3  # two to judge, and one to train on
KINDS: Final = ("whole", "windows")  # of views
_BATCH: Final = 256  # images whose features are read at once
_TEMPERATURE: Final = 0.1  # of the contrastive term

Space = Mapping[str, Tensor]  # statistics of one kind of views: mean and std (width,), axes (width, components)
FoldMoments = list[dict[str, Moments]]  # by fold and kind


@dataclass(frozen=True)
class HeadSettings:
    """What distinguishes a head.

    Attributes:
        hidden_units: units of the hidden layer; 0 means a linear head.
        dropout: of the inputs of the first layer.
        shared: whether the whole image and its windows have the same head.
        pooling: score of the windows: their `mean`, their `max`, or a mean with weights that each window is given
            by the head (`attention`).
        consistency: weight of the squared difference between the scores of an image and of a changed copy of it.
        contrastive: weight of a supervised contrastive term on the hidden layer for the whole image.
        weighted_blocks: whether the inputs are the standardised tokens of all layers, averaged with learnt weights
            (RINE; Koutlis & Papadopoulos, 2024), instead of principal components of the features.
        seeds: heads whose scores are averaged.

    Raises:
        ValueError: the pooling is unknown, or there is a contrastive term without a hidden layer.
    """

    hidden_units: int = 64
    dropout: float = 0.5
    shared: bool = False
    pooling: str = "mean"
    consistency: float = 0.0
    contrastive: float = 0.0
    weighted_blocks: bool = False
    seeds: int = 1

    def __post_init__(self) -> None:
        if self.pooling not in ("mean", "max", "attention"):
            raise ValueError(f"expected the pooling mean, max or attention; found {self.pooling}.")
        if self.contrastive and not self.hidden_units:
            raise ValueError("expected hidden_units for the contrastive term; found none.")


@dataclass(frozen=True)
class Plan:
    """Heads to compare with the first one.

    Attributes:
        recipe: file of a recipe with data, folds, balance, tower, windows, copies and `head_shrinkage`.
        folds: values of the fold column.
        variants: in which images are judged, as in `training.features`.
        sampled: images of each fold that are judged in the variants after the first.
        epochs: of the training; as often as there are images, images are drawn in an epoch.
        batch_size: images in a batch.
        learning_rate: the highest of the cycle.
        weight_decay: of AdamW.
        heads: settings by name, see `HeadSettings`; those that are left out have their defaults.
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


def read_inputs(variants: Sequence[Features], spaces: Sequence[Space], *, token: int | None = None) -> Tensor:
    """Read the inputs of heads: (variants, n, views, components), or (variants, n, views, blocks, token).

    Args:
        variants: features of the same images.
        spaces: statistics of the whole images and of the windows.
        token: width of a token, for standardised tokens; None means components of the features along the axes.
    """

    def convert(features: NDArray[np.float16]) -> Tensor:
        values, parts = torch.from_numpy(features).float(), []
        for views, space in zip((WHOLE, WINDOWS), spaces, strict=True):
            part = (values[:, views] - space["mean"]) / space["std"]
            parts.append(part.reshape(*part.shape[:2], -1, token) if token else part @ space["axes"])
        return torch.cat(parts, dim=1)

    n = len(variants[0])
    batches = np.array_split(np.arange(n), ceil(n / _BATCH))
    return torch.stack([torch.cat([convert(variant[rows]) for rows in batches]) for variant in variants])


class ViewHeads(nn.Module):
    """One head for the whole image and one for its windows, or the same for both.

    The inputs of a view have a shape: components, or blocks and the width of a token, of which the mean is weighted.
    """

    def __init__(self, settings: HeadSettings, shape: Sequence[int]) -> None:
        super().__init__()
        self.pooling = settings.pooling
        self.kinds = nn.ModuleList(_Head(settings, shape) for _ in range(1 if settings.shared else 2))

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Judge images (batch, views, *shape).

        Returns:
            scores (batch,), scores of the views (batch, views), hidden activations of the whole image (batch, units).
        """
        whole, hidden = self.kinds[0](inputs[:, WHOLE])
        windows, _ = self.kinds[-1](inputs[:, WINDOWS])
        pooled = pool_windows(windows[..., 0], self.pooling, windows[..., -1])
        scores = torch.cat([whole[..., 0], windows[..., 0]], dim=1)
        return (whole[:, 0, 0] + pooled) / 2, scores, hidden[:, 0]


class _Head(nn.Module):
    def __init__(self, settings: HeadSettings, shape: Sequence[int]) -> None:
        super().__init__()
        width, units = shape[-1], settings.hidden_units
        self.blocks = nn.Parameter(torch.zeros(*shape)) if len(shape) > 1 else None
        layers = [nn.Linear(width, units), nn.GELU()] if units else []
        self.hidden = nn.Sequential(nn.Dropout(settings.dropout), *layers)
        self.last = nn.Linear(units or width, 2 if settings.pooling == "attention" else 1)

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        if self.blocks is not None:
            inputs = torch.einsum("...bt,bt->...t", inputs, self.blocks.softmax(0))
        hidden = self.hidden(inputs)
        return self.last(hidden), hidden


def pool_windows(scores: Tensor, pooling: str, attention: Tensor) -> Tensor:
    """Pool the scores of windows (n, windows) to (n,); the weights of `attention` are a softmax over the windows."""
    if pooling == "max":
        return scores.amax(1)
    return scores.mean(1) if pooling == "mean" else (attention.softmax(1) * scores).sum(1)


def supervised_contrastive(embeddings: Tensor, labels: Tensor) -> Tensor:
    """Return the supervised contrastive loss of embeddings (n, width) (Khosla et al., 2020, *NeurIPS*)."""
    unit = normalize(embeddings, dim=1)
    itself = torch.eye(len(unit), dtype=torch.bool)
    log_p = (unit @ unit.T / _TEMPERATURE).masked_fill(itself, -torch.inf).log_softmax(1)
    same = (labels[:, None] == labels) & ~itself
    return -(log_p.where(same, 0.0).sum(1) / same.sum(1).clamp_min(1)).mean()


def train_heads(
    settings: HeadSettings, plan: Plan, inputs: Tensor, images: FeatureDataset, weights: Array, *, seed: int
) -> ViewHeads:
    """Train new heads by AdamW with a one-cycle learning rate; batches depend on the images and the seed alone.

    Args:
        settings: of the heads.
        plan: has epochs, batch size, learning rate and weight decay.
        inputs: of the images in at least two variants, the first of which is the image itself.
        images: have labels, and shares of their variants.
        weights: (n,) probability of each image in a draw.
        seed: of the first weights, the dropout and the batches.
    """
    n, copies, generator = len(images), len(images.shares) - 1, np.random.default_rng(seed)
    steps = plan.epochs * ceil(n / plan.batch_size)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        heads = ViewHeads(settings, inputs.shape[3:])
        optimizer = torch.optim.AdamW(heads.parameters(), lr=plan.learning_rate, weight_decay=plan.weight_decay)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, plan.learning_rate, total_steps=steps)
        for _ in trange(steps, desc="training", leave=False, disable=None):
            rows = generator.choice(n, p=weights, size=plan.batch_size)
            drawn = generator.choice(len(images.shares), p=images.shares, size=plan.batch_size)
            copy = generator.integers(copies, size=plan.batch_size) + 1
            targets = images.labels[torch.from_numpy(rows)].float()
            scores, views, hidden = heads(inputs[drawn, rows])
            of_views = binary_cross_entropy_with_logits(views, targets[:, None].expand_as(views))
            loss = (binary_cross_entropy_with_logits(scores, targets) + of_views) / 2
            if settings.consistency:  # of an image with a copy, and of a copy with the image
                others, _, _ = heads(inputs[np.where(drawn > 0, 0, copy), rows])
                loss = loss + settings.consistency * (scores - others).square().mean()
            if settings.contrastive:
                loss = loss + settings.contrastive * supervised_contrastive(hidden, targets)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
    return heads.eval()


@torch.inference_mode()
def judge(heads: Sequence[ViewHeads], inputs: Tensor) -> Array:
    """Return the mean score of several heads for all images, (n,), from their inputs in one variant."""
    parts = inputs.tensor_split(ceil(len(inputs) / _BATCH))
    return torch.cat([torch.stack([each(part)[0] for each in heads]).mean(0) for part in parts]).double().numpy()


def fold_moments(fits: RecipeFits) -> FoldMoments:
    """Collect the moments of both kinds of views in each fold, which all can be added.

    Each fold weighs the same, and no sum depends on a label of another fold.
    """
    sets = [fits.training_set(fits.data.fold == fold) for fold in range(fits.data.fold.max() + 1)]
    offsets = np.stack([mean_features(sets[0][0]).mean(0)] * len(KINDS))
    return [dict(zip(KINDS, collect_moments(*each, offsets=offsets), strict=True)) for each in sets]


class Pair:
    """Two folds that are held out: heads are trained on the images of the others, and judged on theirs.

    Args:
        plan: the plan.
        fits: the data, the tower, and the store of finished heads.
        moments: returns the `fold_moments`.
        held: the folds.
    """

    def __init__(self, plan: Plan, fits: RecipeFits, moments: Callable[[], FoldMoments], held: Held) -> None:
        self.plan, self.fits, self.moments, self.held = plan, fits, moments, held
        self.is_held = np.isin(fits.data.fold, held)
        self.judged = fits.judged(held, len(plan.variants), plan.sampled)
        self.ending = f"without {' and '.join(map(str, held))}"
        digests, (data, model) = fits.data.images["sha256"], fits.recipe
        known = digests[np.flatnonzero(~self.is_held)]
        self.settings_of_spaces = {**asdict(model), "balance": data.balance, "images": known}
        names = ("variants", "sampled", "epochs", "batch_size", "learning_rate", "weight_decay")
        in_plan = {name: getattr(plan, name) for name in names}
        self.settings = {**self.settings_of_spaces, **in_plan, "judged": digests[self.judged[0]]}
        self._inputs: dict[tuple[bool, bool], tuple[Tensor, list[Tensor]]] = {}

    def aucs(self, name: str, settings: HeadSettings) -> Array:
        """Return the AUC of a head in each variant and on each of the folds: (variants, folds)."""
        fold, is_fake = self.fits.data.fold, self.fits.data.is_fake
        own = {**self.settings, "head": asdict(settings)}
        cell = self.fits.store.arrays(f"{name} {self.ending}", own, lambda: {"scores": self._scores(settings)})
        aucs = []
        for scores, rows in zip(cell["scores"], self.judged, strict=True):
            folds = [rows[fold[rows] == each] for each in self.held]
            aucs.append([roc_auc_score(is_fake[inside], scores[inside]) for inside in folds])
        return np.array(aucs)

    def _scores(self, settings: HeadSettings) -> Array:
        """Train a head, and return the scores of the images that are judged: (variants, n), NaN for others."""
        heads = [self.train(settings, seed) for seed in range(settings.seeds)]
        scores = np.full((len(self.judged), len(self.is_held)), np.nan)
        for each, rows, inputs in zip(scores, self.judged, self.inputs(settings)[1], strict=True):
            each[rows] = judge(heads, inputs)
        return scores

    def train(self, settings: HeadSettings, seed: int) -> ViewHeads:
        """Train a head on the other folds."""
        return train_heads(settings, self.plan, self.inputs(settings)[0], *self.training_set, seed=seed)

    @cached_property
    def training_set(self) -> tuple[FeatureDataset, Array]:
        """The images that are not held out, and their weights."""
        return self.fits.training_set(~self.is_held)

    def inputs(self, settings: HeadSettings) -> tuple[Tensor, list[Tensor]]:
        """Return what a head is trained on, and what it is judged on by variant."""
        key = settings.shared, settings.weighted_blocks
        if key not in self._inputs:
            spaces = [self._space("both" if settings.shared else kind) for kind in KINDS]
            config: Any = self.fits.network.config
            token = config.tower_config.hidden_size if settings.weighted_blocks else None
            judged = [self.fits.features(*each) for each in zip(self.judged, self.plan.variants, strict=True)]
            trained = read_inputs(self.training_set[0].variants, spaces, token=token)
            self._inputs[key] = trained, [read_inputs([each], spaces, token=token)[0] for each in judged]
        return self._inputs[key]

    def _space(self, kind: str) -> Space:
        """Fit the statistics of whole images, windows or both on the other folds."""

        def fit() -> dict[str, Any]:
            kept = [each for fold, each in enumerate(self.moments()) if fold not in self.held]
            kinds = KINDS if kind == "both" else (kind,)
            statistics = Standardized.of(reduce(add, [reduce(add, [each[name] for each in kept]) for name in kinds]))
            axes = statistics.axes(float(self.fits.recipe[1].head_shrinkage or 0), COMPONENTS)
            return {"mean": statistics.mean.numpy(), "std": statistics.std.numpy(), "axes": axes.numpy()}

        arrays = self.fits.store.arrays(f"axes of {kind} {self.ending}", self.settings_of_spaces, fit)
        return {name: torch.from_numpy(value) for name, value in arrays.items()}


def run_plan(plan: Plan, folder: Path) -> dict[str, Any]:
    """Train and judge all heads, and compare each with the first.

    Raises:
        OSError: the data or the tower do not exist.
        ValueError: the settings of a head or the recipe are not suitable, or the folder contains heads with other
            settings.
    """
    facts, heads, recipe = environment(), _read_heads(plan.heads), read_recipe(plan.recipe)
    copies, n_folds = sum(recipe[1].copies.values()), len(plan.folds)
    if not (recipe[1].n_windows and copies and recipe[1].head_shrinkage) or n_folds < MIN_FOLDS:
        raise ValueError(
            f"expected windows, copies and head_shrinkage in {plan.recipe}, and at least {MIN_FOLDS} folds; found "
            f"{recipe[1].n_windows}, {copies}, {recipe[1].head_shrinkage} and {n_folds}."
        )
    data = load_folds(plan.folds, [recipe[0]])
    fits = RecipeFits(recipe, data, Store(folder))
    aucs: dict[str, list[Array]] = {name: [] for name in heads}
    moments = cache(partial(fold_moments, fits))
    for first in range(n_folds):
        pair = Pair(plan, fits, moments, (first, (first + 1) % n_folds))
        for name, settings in heads.items():
            aucs[name].append(pair.aucs(name, settings))
            logger.info("folds %s, %s: %.4f", pair.held, name, aucs[name][-1].mean())
    results = compare(plan.variants, {name: np.stack(each) for name, each in aucs.items()})
    return {
        **facts, "n": len(data.fold), "n_groups": len(set(data.groups)), "folds": n_folds,
        "heads": {name: {"settings": asdict(heads[name]), **result} for name, result in results.items()},
    }  # fmt: skip


def _read_heads(heads: Mapping[str, Mapping[str, Any]]) -> dict[str, HeadSettings]:
    known = {field.name for field in fields(HeadSettings)}
    for name, settings in heads.items():
        if unknown := set(settings) - known:
            raise ValueError(
                f"expected settings among {', '.join(sorted(known))} for the head {name}; found "
                f"{', '.join(sorted(unknown))}."
            )
    return {name: HeadSettings(**settings) for name, settings in heads.items()}


def compare(variants: Sequence[str], aucs: Mapping[str, Array]) -> dict[str, dict[str, Any]]:
    """Compare heads with the first, by paired t-tests over folds; p-values are corrected for their number (Holm).

    The two results of a fold are averaged beforehand. The folds are few, and the results of a pair share their
    training images: the tests have little power, and large differences only are certain.

    Args:
        variants: names.
        aucs: by head: (pairs, variants, 2), of the pair's own fold and of the next one.
    """
    by_fold = {name: (each.mean(1)[:, 0] + np.roll(each.mean(1)[:, 1], 1)) / 2 for name, each in aucs.items()}
    base, *others = by_fold
    n, gaps = len(by_fold[base]), [by_fold[name] - by_fold[base] for name in others]
    rows = [{"mean": float(gap.mean()), "sd": float(gap.std(ddof=1))} for gap in gaps]
    p_values = holm([2 * t.sf(abs(row["mean"]) / max(row["sd"], 1e-9) * n**0.5, n - 1) for row in rows])
    differences = {name: {**row, "p": p} for name, row, p in zip(others, rows, p_values, strict=True)}
    return {
        name: {
            "roc_auc": dict(zip(variants, each.mean((0, 2)).tolist(), strict=True)),
            "mean": float(each.mean()),
            "difference": differences.get(name),
        }
        for name, each in aucs.items()
    }
