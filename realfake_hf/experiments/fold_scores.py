"""Score images by heads on a frozen tower that never saw an image of their fold."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from realfake_hf.labels import FAKE
from realfake_hf.store import Store

if TYPE_CHECKING:
    from datasets import Dataset

    from realfake_hf.models.multiview import MultiViewForImageClassification
    from realfake_hf.models.views import MultiViewImageProcessor
    from realfake_hf.training.arguments import DataArguments, ModelArguments

    Recipe = tuple[DataArguments, ModelArguments]
    Fitted = tuple[MultiViewForImageClassification, MultiViewImageProcessor]

Held = tuple[int, ...]  # positions of the folds that are held out
Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class FoldScores:
    """Scores of images by heads that did not see their folds, NaN for other folds and images that are not judged.

    Attributes:
        p_fake: (variants, n) probabilities.
        spread: (variants, n) standard deviation of the log-odds of the views.
    """

    p_fake: Array
    spread: Array


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

    @cached_property
    def groups(self) -> NDArray[np.str_]:
        """The group of each image, (n,)."""
        return np.array(self.images["group"][:])

    def select(self, rows: NDArray[np.bool_]) -> "FoldedImages":
        """Return some of the images."""
        return FoldedImages(self.images.select(np.flatnonzero(rows)), self.fold[rows], self.is_fake[rows])

    def is_sampled(self, n: int) -> NDArray[np.bool_]:
        """Whether each image is among the first n of its fold by SHA-256, (images,)."""
        order = np.argsort(self.images["sha256"][:], kind="stable")
        rank = np.empty(len(order), dtype=np.intp)
        for fold in np.unique(self.fold):
            inside = order[self.fold[order] == fold]
            rank[inside] = np.arange(len(inside))
        return rank < n

    def is_among(self, share: float, *, of: str) -> NDArray[np.bool_]:
        """Whether each image is in a share of the `groups` of its fold, or of the `images` of its group, (images,).

        The groups are drawn; of its images, each group keeps the first by SHA-256, at least one.
        """
        if of == "groups":
            drawn = [
                name
                for fold in np.unique(self.fold)
                for name in _share(
                    np.random.default_rng(0).permutation(np.unique(self.groups[self.fold == fold])), share
                )
            ]
            return np.isin(self.groups, drawn)
        order = np.argsort(self.images["sha256"][:], kind="stable")
        kept = [_share(order[self.groups[order] == name], share) for name in np.unique(self.groups)]
        return np.isin(np.arange(len(order)), np.concatenate(kept))


def _share(values: NDArray[Any], share: float) -> NDArray[Any]:
    return values[: max(1, round(share * len(values)))]


def load_folds(folds: Sequence[str | int], settings: Sequence["DataArguments"]) -> FoldedImages:
    """Load the data set of the recipes.

    Raises:
        ValueError: the recipes differ in their data set, or an image lies in none of the folds.
    """
    from realfake_hf.data.loading import find_source, load_images
    from realfake_hf.data.splits import Fold, held_out_ids

    sources = {(each.data, each.labels, each.fold_column, each.balance) for each in settings}
    if len(sources) > 1 or settings[0].fold_column is None:
        raise ValueError(
            f"expected recipes with the same data, labels, fold_column and balance; found {sorted(map(str, sources))}."
        )
    first, column = settings[0], str(settings[0].fold_column)
    source = find_source(first.data, labels=first.labels)
    records = source.records(column)
    held = [held_out_ids(records, Fold(column, str(fold)), name=source.name) for fold in folds]
    images = load_images(first.data, labels=first.labels)["train"]
    position = {each: number for number, ids in enumerate(held) for each in ids}
    fold = np.array([position.get(each, -1) for each in images["id"][:]])
    if (fold < 0).any():
        raise ValueError(f"expected all images in the folds {list(folds)}; found {(fold < 0).sum():,} in others.")
    return FoldedImages(images, fold, np.asarray(images["label"][:]) == FAKE)


def join(scores: Sequence[FoldScores]) -> FoldScores:
    """Join the scores of the folds."""
    return FoldScores(
        *(np.fmax.reduce([getattr(each, name) for each in scores]) for name in ("p_fake", "spread"))
    )  # a number wins over NaN


def score_out_of_fold(
    recipe: "Recipe",
    held: Held,
    data: FoldedImages,
    *,
    variants: Sequence[str],
    sampled: int,
    store: Store,
    part: tuple[float, str] | None = None,
) -> FoldScores:
    """Fit heads without some folds, and score these in all variants.

    With `part`, such as `(0.5, "groups")`, they are fitted on a part of the other folds, see `is_among`.
    """
    import torch

    from realfake_hf.training.features import cached_features

    name, is_held = f"without {' and '.join(str(fold) for fold in held)}", np.isin(data.fold, held)
    trains = ~is_held
    if part:
        name, trains = f"{name}, {part[0]:.3f} of the {part[1]}", trains & data.is_among(part[0], of=part[1])
    network, processor = fitted_model(recipe, data, trains, name=name, store=store)
    p_fake = np.full((len(variants), len(data.fold)), np.nan)
    spread = p_fake.copy()
    for row, variant in enumerate(variants):
        judged = np.flatnonzero(is_held & data.is_sampled(sampled) if row else is_held)
        stored = cached_features(data.images.select(judged), network, processor, variant=variant)
        features = torch.from_numpy(stored[:]).float()
        with torch.inference_mode():
            p_fake[row, judged] = network.score(features).sigmoid().numpy()
            spread[row, judged] = network.view_scores(features).std(1, correction=0).numpy()
    return FoldScores(p_fake, spread)


def fitted_model(
    recipe: "Recipe", data: FoldedImages, rows: NDArray[np.bool_], *, name: str, store: Store
) -> "Fitted":
    """Build the model of a recipe with heads that are fitted on some of the images, or were before."""
    import torch

    from realfake_hf.training.data import build_model

    fitted: Any = build_model(recipe[1])
    train = data.images.select(np.flatnonzero(rows))
    settings = {**asdict(recipe[1]), "balance": recipe[0].balance, "images": train["sha256"][:]}
    heads = store.arrays(name, settings, lambda: _fit(recipe, train, *fitted))
    fitted[0].load_state_dict({key: torch.from_numpy(value) for key, value in heads.items()}, strict=False)
    return fitted  # type: ignore[no-any-return]


def _fit(recipe: "Recipe", train: "Dataset", *model: Any) -> dict[str, NDArray[np.float32]]:  # noqa: ANN401
    """Fit the heads of a model, and return their parameters."""
    from datasets import DatasetDict

    from realfake_hf.data.splits import known_groups
    from realfake_hf.sampling import balanced_weights
    from realfake_hf.training.features import feature_sets, fit_heads

    arguments, settings = recipe
    sets = feature_sets(DatasetDict(train=train), *model, copies=settings.copies, seed=0)
    weights = balanced_weights(arguments.balanced, np.asarray(train["label"][:]) == FAKE, known_groups(train))
    fit_heads(
        model[0], sets["train"], inverse_penalty=settings.head_c, shrinkage=settings.head_shrinkage, weights=weights
    )
    values = model[0].state_dict().items()
    return {name: value.numpy() for name, value in values if not name.startswith("tower.")}
