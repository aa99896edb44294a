"""Features of a frozen tower: computed once for each image, memory-mapped, and fetched in batches to train heads."""

import copy
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
import torch
from datasets import Dataset, DatasetDict, config
from filelock import FileLock
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from realfake_hf.data.decoding import decode_image
from realfake_hf.data.delivery import compress, deliver, hard, web
from realfake_hf.data.pixels import BatchDataset
from realfake_hf.models.cpu import has_fast_bfloat16
from realfake_hf.models.multiview import MultiViewForImageClassification
from realfake_hf.models.views import MultiViewImageProcessor
from realfake_hf.parallel import map_in_processes
from realfake_hf.training.discriminant import Moments, Standardized, set_discriminant

PLAIN: Final = "plain"
FIXED: Final = {PLAIN: lambda image: image, "web": web, "hard": hard}  # variants without random numbers
RANDOM: Final = {"delivered": deliver, "compressed": compress}  # with them, as `delivered-0`
WHOLE: Final = slice(0, 1)  # the views of each head
WINDOWS: Final = slice(1, None)
COMPONENTS: Final = 1536  # of the features, on which a hidden layer is fitted
_VERSION: Final = 1  # increase it when the features of unchanged images, processor and tower change
FIT_VERSION: Final = 2  # increase it when other heads are fitted to the same features
_VIEWS: Final = 8  # in a forward pass
_LINE: Final = 65  # characters of a SHA-256 and the end of its line
_DIGITS: Final = 15  # of a SHA-256 that seed the changes of an image


@dataclass(frozen=True, eq=False)
class Features:
    """Features of the views of n images, which are read as rows are asked for.

    Attributes:
        stored: (stored images, views, width) float16, memory-mapped.
        rows: (n,) positions in `stored`.
    """

    stored: NDArray[np.float16]
    rows: NDArray[np.intp]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, indices: Any) -> NDArray[np.float16]:  # noqa: ANN401 - as of an array
        """Return the features of images, (..., views, width)."""
        return self.stored[self.rows[indices]]  # type: ignore[no-any-return]


class FeatureDataset(BatchDataset):
    """Features and labels.

    Args:
        variants: the features of the same images in several variants; in each epoch, one is drawn for each image, the
            first as often as all others together.
        labels: (n,) 0 for REAL and 1 for FAKE.
        seed: seed of the draw.
    """

    def __init__(self, variants: Sequence[Features], labels: Sequence[int], *, seed: int = 0) -> None:
        super().__init__(labels)
        self.variants, self.seed = variants, seed
        copies = len(variants) - 1
        self.shares = np.array([0.5] + [0.5 / copies] * copies if copies else [1.0])
        self.set_epoch(0)

    def select(self, rows: NDArray[np.intp]) -> "FeatureDataset":
        """Return some of the images."""
        variants = [Features(variant.stored, variant.rows[rows]) for variant in self.variants]
        return FeatureDataset(variants, self.labels[torch.from_numpy(rows)].tolist(), seed=self.seed)

    def set_epoch(self, epoch: int) -> None:
        """Draw the variants of an epoch; a callback of the `Trainer` calls this."""
        super().set_epoch(epoch)
        generator = np.random.default_rng([self.seed, epoch])
        self._drawn = generator.choice(len(self.variants), p=self.shares, size=len(self))

    def __getitems__(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """Fetch `features` (batch, views, width) float32 and `labels` (batch,)."""
        rows = np.asarray(indices)
        features = np.stack([self.variants[self._drawn[row]][row] for row in rows])
        return {"features": torch.from_numpy(features).float(), "labels": self.labels[torch.from_numpy(rows)]}


def feature_sets(
    images: DatasetDict,
    model: MultiViewForImageClassification,
    processor: MultiViewImageProcessor,
    *,
    copies: Mapping[str, int],
    seed: int,
) -> dict[str, FeatureDataset]:
    """Return the features of each split.

    Args:
        images: the splits.
        model: the model with the tower.
        processor: cuts the views.
        copies: number of variants of each training image, besides the image itself, by the kind of change.
        seed: seed of the draw of a variant in each epoch.
    """
    sets = {}
    for split, rows in images.items():
        changed = [f"{kind}-{n}" for kind, count in copies.items() for n in range(count)]
        names = [PLAIN, *changed] if split == "train" else [PLAIN]
        variants = [cached_features(rows, model, processor, variant=name) for name in names]
        sets[split] = FeatureDataset(variants, rows["label"][:], seed=seed)
    return sets


def fit_heads(
    model: MultiViewForImageClassification,
    data: FeatureDataset,
    *,
    inverse_penalty: float,
    shrinkage: float | None = None,
    weights: NDArray[np.float64] | None = None,
    moments: Sequence[Moments] | None = None,
    seed: int = 0,
    max_iter: int = 100,
) -> None:
    """Fit each head to the labels of its views, in all variants at once; the first weighs as much as all others.

    By default, the inputs are standardised, and heads are fitted by penalised logistic regression, with L-BFGS: the
    loss is the weighted mean cross-entropy of the views plus the sum of squared weights / (2 C n), for n views, as in
    scikit-learn. With a shrinkage, a linear head is Fisher's discriminant of the weighted views, and a hidden layer is
    fitted as before, but on the `Standardized.axes` of the inputs. Heads start from new weights, whatever the model
    contains. Afterwards, the scores of the views have the same standard deviation in both heads, so that neither
    dominates their mean.

    Args:
        model: the model; its heads and the statistics of their inputs are changed.
        data: the features and labels.
        inverse_penalty: C, above 0.
        shrinkage: share of a multiple of the identity in the covariance within the labels, in (0, 1]; None means
            none of the two.
        weights: (n,) weight of each image; None means the same for all.
        moments: of the data, as from `collect_moments`, for a shrinkage; None means that they are collected.
        seed: seed of the weights that a hidden layer starts from.
        max_iter: iterations of L-BFGS at most.
    """
    each = np.ones(len(data)) if weights is None else weights * len(data)
    kinds: list[tuple[Any, slice]] = [(model.whole, WHOLE), (model.window, WINDOWS)]
    statistics: list[Standardized | None] = [None] * len(kinds)
    if shrinkage is not None:
        moments = moments or collect_moments(data, each, offsets=mean_features(data))
        statistics = [Standardized.of(kind) for kind in moments]
    if shrinkage is not None and not model.config.hidden_units:
        for (head, _), features in zip(kinds, statistics, strict=False):
            set_discriminant(head, cast("Standardized", features), shrinkage=shrinkage)
        return
    importance = torch.from_numpy(np.outer(data.shares * len(data.variants), each)).float().flatten()[:, None]
    spreads = []
    for (head, views), features in zip(kinds[: data.variants[0].stored.shape[1]], statistics, strict=False):
        axes = features.axes(shrinkage, COMPONENTS) if features and shrinkage else None
        inputs = _standardized_inputs(head[0], data, views, features, axes)
        layers = _new_layers(head, inputs.shape[-1], seed=seed)
        targets = data.labels.float().repeat(len(data.variants))[:, None]
        penalty = 1 / (inverse_penalty * inputs.shape[0] * inputs.shape[1])
        _minimise(layers, inputs, targets, importance, penalty=penalty, max_iter=max_iter)
        _take_over(head, layers, axes)
        with torch.no_grad():
            spreads.append(layers(inputs).std().clamp_min(1e-6))
    for (head, _), spread in zip(kinds, spreads, strict=False):
        for parameter in head[-1].parameters():
            parameter.data.mul_(torch.stack(spreads).log().mean().exp() / spread)


def mean_features(data: FeatureDataset) -> NDArray[np.float32]:
    """Return the mean features of the whole images and of their windows, (2, width), in a sample."""
    sample = data.variants[0][:: max(1, len(data) // 256)].astype(np.float32)
    return np.stack([sample[:, WHOLE].mean((0, 1)), sample[:, WINDOWS if sample.shape[1] > 1 else WHOLE].mean((0, 1))])


def collect_moments(
    data: FeatureDataset, weights: NDArray[np.float64], *, offsets: NDArray[np.float32]
) -> list[Moments]:
    """Collect the moments of the whole images and, if there are any, of their windows; the weights are (n,)."""
    shares, is_fake = np.outer(data.shares, weights), data.labels.numpy() > 0
    kinds = (WHOLE, WINDOWS)[: data.variants[0].stored.shape[1]]
    return [
        Moments.collect(data.variants, is_fake, shares, views=views, offset=offset)
        for views, offset in zip(kinds, offsets, strict=False)
    ]


@torch.no_grad()
def _standardized_inputs(
    standardize: Any,  # noqa: ANN401 - a `Standardize`, imported with a model's code
    data: FeatureDataset,
    views: slice,
    features: Standardized | None,
    axes: Tensor | None,
) -> Tensor:
    """Set mean and deviation to those of the features, and return the inputs of all variants, along the axes if given.

    They are (variants * n, views, width or components).
    """
    if features is None:
        flat = np.concatenate([variant[:][:, views] for variant in data.variants])
        standardize.fit(torch.from_numpy(flat).float().flatten(0, 1))
    else:
        standardize.mean.copy_(features.mean)
        standardize.std.copy_(features.std)
    parts = []
    for variant in data.variants:
        for rows in np.array_split(np.arange(len(variant)), max(1, len(variant) // 256)):
            values = standardize(torch.from_numpy(variant[rows][:, views]).float())
            parts.append(values if axes is None else values @ axes)
    return torch.cat(parts)


def _new_layers(head: torch.nn.Sequential, width: int, *, seed: int) -> torch.nn.Sequential:
    """Return new layers like those of a head after the first, for inputs of that width."""
    layers: Any = copy.deepcopy(head[1:])
    layers[0] = torch.nn.Linear(width, layers[0].out_features)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for layer in layers:
            if isinstance(layer, torch.nn.Linear):
                layer.reset_parameters()
    return layers  # type: ignore[no-any-return]


@torch.no_grad()
def _take_over(head: torch.nn.Sequential, layers: torch.nn.Sequential, axes: Tensor | None) -> None:
    """Set the layers of a head to those that were fitted, along axes of the inputs if there are any."""
    values: list[Tensor] = list(layers.parameters())
    if axes is not None:
        values[0] = values[0] @ axes.T
    for own, value in zip(head[1:].parameters(), values, strict=True):
        own.copy_(value)


def _minimise(
    head: torch.nn.Module, values: Tensor, targets: Tensor, importance: Tensor, *, penalty: float, max_iter: int
) -> None:
    optimizer = torch.optim.LBFGS(head.parameters(), max_iter=max_iter, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        scores = head(values).squeeze(-1)  # (n, views)
        losses = binary_cross_entropy_with_logits(scores, targets.expand_as(scores), reduction="none")
        squares = [parameter.square().sum() for parameter in head.parameters() if parameter.ndim > 1]
        loss = (importance * losses).mean() + penalty / 2 * torch.stack(squares).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]


def cached_features(
    images: Dataset,
    model: MultiViewForImageClassification,
    processor: MultiViewImageProcessor,
    *,
    variant: str = PLAIN,
    cache_dir: Path | None = None,
) -> Features:
    """Return the features of all views; compute and store those of images that the cache does not contain.

    An interrupted computation is resumed by the next call. Processes may call this concurrently: one computes.

    Args:
        images: a data set of the schema.
        model: the model with the tower.
        processor: cuts the views.
        variant: `plain`, `web` or `hard`, see `data.delivery`; or `delivered-` or `compressed-` and a number, for
            changes and positions of the windows that are random, decided by this number and the SHA-256 of the image.
        cache_dir: folder of the features; by default, a folder of the `datasets` cache.
    """
    folder = cache_dir or Path(config.HF_DATASETS_CACHE) / "realfake-features"
    folder.mkdir(parents=True, exist_ok=True)
    stem = folder / f"{_fingerprint(model, processor)}-{variant}"
    values, index = stem.with_suffix(".float16"), stem.with_suffix(".txt")
    shape = (1 + processor.n_windows, model.feature_width)
    with FileLock(f"{index}.lock"):
        known = _known(index)
        missing = {digest: row for row, digest in enumerate(images["sha256"][:]) if digest not in known}
        if missing:
            for file, size in ((values, 2 * int(np.prod(shape))), (index, _LINE)):
                with file.open("ab") as stream:
                    stream.truncate(len(known) * size)  # without what an interrupted call did not finish
            _append(images.select(missing.values()), model, processor, variant=variant, files=(values, index))
            known = _known(index)
    stored = np.memmap(values, mode="r", dtype=np.float16, shape=(len(known), *shape))
    return Features(stored, np.array([known[digest] for digest in images["sha256"][:]], dtype=np.intp))


def _known(index: Path) -> dict[str, int]:
    """Return the position of each stored image by its SHA-256; a line that was not finished is left out."""
    lines = index.read_text().splitlines(keepends=True) if index.exists() else []
    return {line.rstrip(): row for row, line in enumerate(lines) if len(line) == _LINE}


def _append(
    images: Dataset,
    model: MultiViewForImageClassification,
    processor: MultiViewImageProcessor,
    *,
    variant: str,
    files: tuple[Path, Path],
) -> None:
    encoded, digests = images.select_columns(["image", "sha256"]), images["sha256"][:]
    tower, cut = _tower(model), partial(_cut, encoded, processor, variant)
    values, index = files
    for positions, views in map_in_processes(cut, range(len(images)), description=f"features, {variant}"):
        features = _features(tower, processor, views)
        with values.open("ab") as stream:
            stream.write(features.tobytes())
        with index.open("a") as stream:
            stream.writelines(f"{digests[row]}\n" for row in positions)


def _cut(encoded: Dataset, processor: MultiViewImageProcessor, variant: str, rows: Sequence[int]) -> NDArray[np.uint8]:
    """Cut the views of images: (n, views, size, size, 3) uint8."""
    table = encoded.with_format("arrow")[list(rows)]
    files, digests = table["image"].combine_chunks().field("bytes").to_pylist(), table["sha256"].to_pylist()
    views = []
    for data, digest in zip(files, digests, strict=True):
        image, positions = decode_image(data), None
        if variant in FIXED:
            image = FIXED[variant](image)
        else:
            generator = np.random.default_rng([int(variant.rpartition("-")[2]), int(digest[:_DIGITS], 16)])
            image = RANDOM[variant.partition("-")[0]](image, generator)
            positions = generator.random((processor.n_windows, 2)).tolist()
        views.append(processor.views(image, positions))
    return np.stack(views)


def _tower(model: MultiViewForImageClassification) -> MultiViewForImageClassification:
    """Return a copy of the model on the accelerator, if any, whose tower computes in bfloat16 where that is fast."""
    device = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    duplicate: Any = copy.deepcopy(model)
    duplicate.to(device)
    if device.type != "cpu" or has_fast_bfloat16():
        duplicate.tower.to(torch.bfloat16)
    return duplicate.eval()  # type: ignore[no-any-return]


@torch.inference_mode()
def _features(
    tower: MultiViewForImageClassification, processor: MultiViewImageProcessor, views: NDArray[np.uint8]
) -> NDArray[np.float16]:
    flat = views.reshape(-1, *views.shape[2:])
    chunks = [processor.normalize_views(flat[start : start + _VIEWS]) for start in range(0, len(flat), _VIEWS)]
    device = next(tower.parameters()).device
    features = [tower.features(torch.from_numpy(chunk).to(device)).half().cpu().numpy() for chunk in chunks]
    return np.concatenate(features).reshape(*views.shape[:2], -1)


def _fingerprint(model: MultiViewForImageClassification, processor: MultiViewImageProcessor) -> str:
    words = [str(_VERSION), processor.to_json_string(), str(list(model.config.feature_layers))]
    digest = hashlib.sha256("\n".join(words).encode())
    for name, value in model.tower.state_dict().items():
        digest.update(name.encode() + value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:24]
