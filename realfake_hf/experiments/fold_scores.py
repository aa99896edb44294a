"""Score images by heads on a frozen tower that never saw an image of their fold."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, reduce
from operator import add
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from realfake_hf.labels import FAKE
from realfake_hf.store import Store

if TYPE_CHECKING:
    from datasets import Dataset

    from realfake_hf.metrics.out_of_distribution import Familiarity
    from realfake_hf.models.multiview import MultiViewForImageClassification
    from realfake_hf.models.views import MultiViewImageProcessor
    from realfake_hf.training.arguments import DataArguments, ModelArguments
    from realfake_hf.training.discriminant import Moments
    from realfake_hf.training.features import FeatureDataset, Features

    Recipe = tuple[DataArguments, ModelArguments]

COMPONENTS: Final = 128  # of the embedding, for the familiarity

Part = tuple[float, str] | None
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


class RecipeFits:
    """The heads of a recipe, fitted without some of the folds; those that were fitted before are read from a store.

    A part, such as `(0.5, "groups")`, limits the training images as `FoldedImages.is_among` says.
    """

    def __init__(self, recipe: "Recipe", data: FoldedImages, store: Store) -> None:
        from realfake_hf.training.data import build_model

        self.recipe, self.data, self.store = recipe, data, store
        model: Any = build_model(recipe[1])
        self.network: MultiViewForImageClassification = model[0]
        self.processor: MultiViewImageProcessor = model[1]
        self._moments: dict[Part, list[list[Moments]]] = {}  # of each fold, for the last part only: they are large

    def load(self, held: Held = (), part: Part = None) -> None:
        """Set the heads of the network to those that are fitted without some folds."""
        import torch

        from realfake_hf.training.features import FIT_VERSION

        name = f"without {' and '.join(map(str, held))}" if held else "all images"
        name += f", {part[0]:.3f} of the {part[1]}" if part else ""
        rows = self._rows(part) & ~np.isin(self.data.fold, held)
        images = self.data.images["sha256"][np.flatnonzero(rows)]
        settings = {
            **asdict(self.recipe[1]), "balance": self.recipe[0].balance, "images": images, "fit_version": FIT_VERSION
        }  # fmt: skip
        heads = self.store.arrays(name, settings, lambda: self._fit(held, part))
        self.network.load_state_dict({key: torch.from_numpy(value) for key, value in heads.items()}, strict=False)

    def score(self, held: Held, *, variants: Sequence[str], sampled: int, part: Part = None) -> FoldScores:
        """Score the images of some folds, in all variants, by heads that are fitted without these folds."""
        import torch

        self.load(held, part)
        p_fake = np.full((len(variants), len(self.data.fold)), np.nan)
        spread = p_fake.copy()
        for row, judged in enumerate(self.judged(held, len(variants), sampled)):
            features = torch.from_numpy(self.features(judged, variants[row])[:]).float()
            with torch.inference_mode():
                p_fake[row, judged] = self.network.score(features).sigmoid().numpy()
                spread[row, judged] = self.network.view_scores(features).std(1, correction=0).numpy()
        return FoldScores(p_fake, spread)

    def is_far(self, held: Held, *, variants: Sequence[str], sampled: int) -> Array:
        """Return 1 for images of some folds that are far from those of the others, 0 for the rest; see `score`."""
        self.load(held)
        familiarity, far = self.familiarity(held), np.full((len(variants), len(self.data.fold)), np.nan)
        for row, judged in enumerate(self.judged(held, len(variants), sampled)):
            far[row, judged] = familiarity.is_far(self.embeddings(judged, variants[row]))
        return far

    def familiarity(self, held: Held = ()) -> "Familiarity":
        """Fit the familiarity on all folds but those held out and the first other, on which its limit is chosen."""
        from realfake_hf.environment import split_fingerprint
        from realfake_hf.metrics.out_of_distribution import fit_familiarity

        known = np.flatnonzero(~np.isin(self.data.fold, held))
        first = self.data.fold[known] == self.data.fold[known].min()
        embeddings = self.embeddings(known)
        digest = split_fingerprint(self.data.images.select(known[first]))["sha256"]
        return fit_familiarity(
            embeddings[~first], self.data.is_fake[known[~first]], embeddings[first], sha256=digest,
            components=min(COMPONENTS, *embeddings[~first].shape),
        )  # fmt: skip

    def embeddings(self, rows: NDArray[np.intp], variant: str = "plain") -> NDArray[np.float32]:
        """Return the inputs of the last layer of the windows' head, averaged over the windows: (n, width)."""
        import torch

        head: Any = self.network.window
        features = self.features(rows, variant)
        with torch.inference_mode():
            parts = [
                head[:-1](torch.from_numpy(features[part][:, 1:]).float()).mean(1).numpy()
                for part in np.array_split(np.arange(len(rows)), max(1, len(rows) // 256))
            ]
        return np.concatenate(parts)

    def features(self, rows: NDArray[np.intp], variant: str = "plain") -> "Features":
        """Return the features of some images."""
        from realfake_hf.training.features import cached_features

        return cached_features(self.data.images.select(rows), self.network, self.processor, variant=variant)

    def training_set(self, rows: NDArray[np.bool_]) -> "tuple[FeatureDataset, NDArray[np.float64]]":
        """Return the features of some images as training data, and the balanced weight of each image."""
        from datasets import DatasetDict

        from realfake_hf.sampling import balanced_weights
        from realfake_hf.training.features import feature_sets

        part = self.data.select(rows)
        copies = self.recipe[1].copies
        sets = feature_sets(DatasetDict(train=part.images), self.network, self.processor, copies=copies, seed=0)
        return sets["train"], balanced_weights(self.recipe[0].balanced, part.is_fake, part.groups.tolist())

    def judged(self, held: Held, n_variants: int, sampled: int) -> list[NDArray[np.intp]]:
        """Return which images of some folds are judged in each variant: all in the first, a sample in the others."""
        is_held = np.isin(self.data.fold, held)
        sample = np.flatnonzero(is_held & self.data.is_sampled(sampled))
        return [np.flatnonzero(is_held), *[sample] * (n_variants - 1)]

    def _rows(self, part: Part) -> NDArray[np.bool_]:
        return self.data.is_among(part[0], of=part[1]) if part else np.ones(len(self.data.fold), dtype=np.bool_)

    def _fit(self, held: Held, part: Part) -> dict[str, NDArray[np.float32]]:
        """Fit the heads, and return their parameters."""
        from realfake_hf.training.features import fit_heads

        settings, moments = self.recipe[1], None
        rows = self._rows(part) & ~np.isin(self.data.fold, held)
        sets, weights = self.training_set(rows)
        if settings.head_shrinkage is not None:
            kept = [each for fold, each in enumerate(self._fold_moments(part)) if fold not in held]
            moments = [reduce(add, kind) for kind in zip(*kept, strict=True)]
        fit_heads(
            self.network, sets, inverse_penalty=settings.head_c, shrinkage=settings.head_shrinkage, weights=weights,
            moments=moments,
        )  # fmt: skip
        values = self.network.state_dict().items()
        return {name: value.numpy() for name, value in values if not name.startswith("tower.")}

    def _fold_moments(self, part: Part) -> "list[list[Moments]]":
        """Return the moments of each fold, within a part."""
        from realfake_hf.training.features import collect_moments, mean_features

        if part not in self._moments:
            self._moments.clear()
            rows = self._rows(part)
            data, weights = self.training_set(rows)
            offsets, fold = mean_features(data), self.data.fold[rows]
            self._moments[part] = [
                collect_moments(data.select(np.flatnonzero(fold == each)), weights[fold == each], offsets=offsets)
                for each in range(fold.max() + 1)
            ]
        return self._moments[part]
