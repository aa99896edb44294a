"""Shortcuts: how well the files alone tell real from fake, and which images two data sets share.

A small cross-validated model sees facts of each file, such as its format and size, but no pixel. If it tells real from
fake, so can a detector, without learning anything about the images.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import combinations
from typing import Any, Final, Self

import numpy as np
from datasets import DatasetDict, concatenate_datasets
from numpy.typing import NDArray
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder
from threadpoolctl import threadpool_limits

from realfake_hf.crosseval.datasets import EvalDataset
from realfake_hf.data.duplicates import THRESHOLD, ImageHashes, NearDuplicates, find_near_duplicates, hash_images
from realfake_hf.data.loading import find_source, load_images
from realfake_hf.data.metadata import FileProperties, read_file_properties
from realfake_hf.data.sampling import Flags
from realfake_hf.estimate import Estimate, from_plain, to_plain
from realfake_hf.metrics.intervals import bootstrap_estimate
from realfake_hf.store import Store
from realfake_hf.tables import markdown_table

ALARM: Final = 0.6  # balanced accuracy of the file facts above which a data set deserves a warning
FILES: Final = 1000  # files of each data set that a grid audits at most

_CHANCE: Final = 0.5
_TOGETHER: Final = "all facts together"
_BYTE_FACTS: Final = ("bytes", "bytes_per_pixel")
_MAX_CATEGORIES: Final = 30  # columns of a categorical fact; rarer values share the last one
_DECISION: Final = 0.5 + 1e-6  # ties are called real, whatever the rounding
SAME_ENCODING: Final = (
    "All files have the same format, mode, size and quantization tables; their sizes in bytes depend on the detail of "
    "the images."
)

Column = NDArray[Any]


@dataclass(frozen=True)
class FactScore:
    """How well one fact, or all of them together, tells real from fake.

    Attributes:
        fact: its name.
        values: number of distinct values; a fact with one value carries no information.
        balanced_accuracy: out of fold.
    """

    fact: str
    values: int
    balanced_accuracy: Estimate


@dataclass(frozen=True)
class ShortcutAudit:
    """How well file facts tell real from fake.

    Attributes:
        n_real: number of real images.
        n_fake: number of fake images.
        groups: number of distinct files.
        folds: of the cross-validation.
        together: of all facts in one model.
        single: of each fact in its own model, best first.
    """

    n_real: int
    n_fake: int
    groups: int
    folds: int
    together: FactScore
    single: tuple[FactScore, ...]

    @property
    def n(self) -> int:
        """Number of images."""
        return self.n_real + self.n_fake

    @property
    def worst(self) -> FactScore:
        """The single fact that says most about the label."""
        return self.single[0]

    @property
    def warns(self) -> bool:
        """Whether the data set deserves a warning.

        For all facts together, the value counts and not the lower end of its interval: missing a shortcut in a small
        data set costs more than a false alarm. The worst single fact is the best of many, and therefore high by chance
        alone; its whole interval must exceed `ALARM`.
        """
        together, worst = self.together.balanced_accuracy, self.worst.balanced_accuracy
        return bool((together.value or 0) > ALARM or (worst.low or 0) > ALARM)

    @property
    def warning(self) -> str | None:
        """One or two sentences for every report on the data set; None if no warning is needed."""
        if not self.warns:
            return None
        worst, together = self.worst, self.together.balanced_accuracy
        return f"WARNING: {_describe(together, self.n, worst.fact, worst.balanced_accuracy)}"

    def to_dict(self) -> dict[str, Any]:
        """Return the audit as plain JSON."""
        return {"n": self.n, **to_plain(self), "worst": self.worst.fact, "alarm": ALARM, "warns": self.warns}

    def to_markdown(self) -> str:
        """Render the warning, if any, and a table of all facts."""
        header = [f"fact alone, n = {self.n:,} ({self.n_fake:,} fake)", "values", "balanced accuracy"]
        rows = [[score.fact, f"{score.values:,}", score.balanced_accuracy] for score in (self.together, *self.single)]
        table = markdown_table(header, rows)
        return f"**{self.warning}**\n\n{table}" if self.warning else table


@dataclass(frozen=True)
class SourceAudit:
    """The shortcuts of a source.

    Attributes:
        name: of the source.
        as_stored: whether the facts are those of the rows of a data set, which may differ from the original files.
        unreadable: files without a readable header, which are left out.
        shortcuts: how well the facts tell real from fake.
        near_duplicates: one entry per pair of sources or splits that were compared.
    """

    name: str
    as_stored: bool
    unreadable: int
    shortcuts: ShortcutAudit
    near_duplicates: tuple[NearDuplicates, ...] = ()

    @property
    def same_encoding(self) -> bool:
        """Whether all files have the same format, mode, size and tables, and differ only in their number of bytes."""
        return all(score.values == 1 for score in self.shortcuts.single if score.fact not in _BYTE_FACTS)

    def to_dict(self) -> dict[str, Any]:
        """Return the audit as plain JSON."""
        return {
            "data": self.name,
            "as_stored": self.as_stored,
            "unreadable": self.unreadable,
            "same_encoding": self.same_encoding,
            "shortcuts": self.shortcuts.to_dict(),
            "near_duplicates": [to_plain(pair) for pair in self.near_duplicates],
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read back what `to_dict` returned."""
        return from_plain(cls, {**data, "name": data["data"]})

    def to_markdown(self) -> str:
        """Render the warning and all tables."""
        facts = (
            "file facts as stored in the data set; the original files may differ" if self.as_stored else "file facts"
        )
        omitted = f" ({self.unreadable:,} unreadable files omitted)" if self.unreadable else ""
        notes = [SAME_ENCODING] if self.same_encoding else []
        tables = [self.shortcuts.to_markdown(), *(pair.to_markdown() for pair in self.near_duplicates)]
        return "\n\n".join([f"{self.name}: {facts}{omitted}", *notes, *tables])


@dataclass(frozen=True)
class Shortcut:
    """The shortcuts of a data set, as a grid reports them.

    Attributes:
        data: name of the data set.
        n: number of audited files.
        together: balanced accuracy of all facts in one model; None if the files could not be audited.
        worst: the single fact that says most about the label.
        worst_alone: its balanced accuracy.
        warning: of the audit, if any.
        same_encoding: see `SourceAudit`.
        refused: why the files could not be audited, if so.
        duplicates: near-duplicates of training images; None if no training data were named.
    """

    data: str
    n: int = 0
    together: Estimate | None = None
    worst: str | None = None
    worst_alone: Estimate | None = None
    warning: str | None = None
    same_encoding: bool = False
    refused: str | None = None
    duplicates: NearDuplicates | None = None

    @property
    def text(self) -> str:
        """One or two sentences on the audit."""
        if self.together is None or self.worst is None or self.worst_alone is None:
            return f"{self.data}: the files could not be audited ({self.refused})"
        note = f" {SAME_ENCODING}" if self.same_encoding else ""
        return f"{self.data}: {_describe(self.together, self.n, self.worst, self.worst_alone)}{note}"


def _describe(together: Estimate, n: int, worst: str, worst_alone: Estimate) -> str:
    note = " The interval includes chance." if (together.low or 0) <= _CHANCE else ""
    return (
        f"file facts alone tell real from fake with a balanced accuracy of {together} on {n:,} files (chance is "
        f"{_CHANCE}); the best single fact is {worst} with {worst_alone}. A detector may rely on the files instead of "
        f"the images.{note}"
    )


def audit_source(source: str | os.PathLike[str], *, limit: int | None = None, seed: int = 0) -> SourceAudit:
    """Audit the files of a source, without decoding images.

    Args:
        source: as `load_images` takes it.
        limit: maximum number of files, half of them fake; None for all.
        seed: of sample, folds, models and bootstrap.

    Raises:
        FileNotFoundError: the source does not exist.
        ValueError: the source cannot be read, or has too few files of a label.
    """
    return _audit(read_file_properties(source, limit=limit, seed=seed), seed=seed)


def _audit(facts: FileProperties, *, seed: int) -> SourceAudit:
    shortcuts = audit_shortcuts(facts.columns, is_fake=facts.is_fake, groups=facts.digest, seed=seed)
    return SourceAudit(facts.name, facts.as_stored, facts.unreadable, shortcuts)


def find_shortcut(dataset: EvalDataset, *, seed: int) -> Shortcut:
    """Audit the files of a data set for a grid, or say why that is impossible."""
    try:
        audit = _audit(dataset.file_properties(FILES, seed=seed), seed=seed)
    except ValueError as error:
        return Shortcut(dataset.name, refused=str(error))
    shortcuts = audit.shortcuts
    return Shortcut(
        data=dataset.name,
        n=shortcuts.n,
        together=shortcuts.together.balanced_accuracy,
        worst=shortcuts.worst.fact,
        worst_alone=shortcuts.worst.balanced_accuracy,
        warning=shortcuts.warning,
        same_encoding=audit.same_encoding,
    )


def with_duplicates(
    shortcuts: Sequence[Shortcut], datasets: Sequence[EvalDataset], training: EvalDataset, store: Store
) -> tuple[Shortcut, ...]:
    """Add to each data set how many of its images have a near-duplicate among the training images.

    Args:
        shortcuts: of each data set, in order.
        datasets: the data sets.
        training: hashed once, and only if a data set is not compared yet.
        store: of finished comparisons.
    """
    hash_training = cache(partial(hash_images, training.rows, name=f"{training.source} {training.split}"))
    return tuple(
        replace(shortcut, duplicates=_compare(dataset, training, hash_training, store))
        for shortcut, dataset in zip(shortcuts, datasets, strict=True)
    )


def _compare(
    dataset: EvalDataset, training: EvalDataset, hash_training: Callable[[], ImageHashes], store: Store
) -> NearDuplicates:
    def compare() -> dict[str, Any]:
        own = hash_images(dataset.rows, name=f"{dataset.name} {dataset.split}")
        return to_plain(find_near_duplicates(hash_training(), own))

    settings = {"pictures": dataset.sha256, "training": training.sha256, "threshold": THRESHOLD}
    return from_plain(NearDuplicates, store.json(f"{dataset.name}-duplicates", settings, compare))


def near_duplicates_of_splits(images: DatasetDict, *, threshold: int) -> tuple[NearDuplicates, ...]:
    """Compare every two splits of a data set."""
    hashed = [hash_images(rows, name=split) for split, rows in images.items()]
    return tuple(find_near_duplicates(first, second, threshold=threshold) for first, second in combinations(hashed, 2))


def near_duplicates_of_sources(
    source: str | os.PathLike[str], others: Sequence[str], *, threshold: int
) -> tuple[NearDuplicates, ...]:
    """Compare all images of a source with all images of each other source."""
    own, *rest = (
        hash_images(concatenate_datasets(list(load_images(name).values())), name=find_source(name).name)
        for name in (source, *others)
    )
    return tuple(find_near_duplicates(own, other, threshold=threshold) for other in rest)


def audit_shortcuts(
    facts: Mapping[str, Column],
    *,
    is_fake: Flags,
    groups: NDArray[np.str_] | None = None,
    folds: int = 5,
    samples: int = 1000,
    seed: int = 0,
) -> ShortcutAudit:
    """Tell real from fake by file facts, with gradient boosting of small trees and one-hot columns for strings.

    Folds are stratified by label, and equal files share a fold. Both labels have the same weight in training, so that
    the share of fakes carries no information. The interval is that of a bootstrap of the out-of-fold predictions
    over the images of each label; it does not include the variance of the models themselves.

    Args:
        facts: (n,) each; strings are categorical, everything else is numeric, with NaN for missing values.
        is_fake: (n,) true labels.
        groups: (n,) equal for equal files; None if all files differ.
        folds: of the cross-validation.
        samples: bootstrap replicates.
        seed: of folds, models and bootstrap.

    Raises:
        ValueError: a label has fewer distinct files than there are folds.
    """
    group = np.arange(len(is_fake)) if groups is None else np.unique(groups, return_inverse=True)[1]
    fold = _folds(is_fake, group, folds, np.random.default_rng(seed))

    def score(name: str, columns: Mapping[str, Column]) -> FactScore:
        called_fake = _predict_out_of_fold(columns, is_fake=is_fake, fold=fold, seed=seed)
        values = len(np.unique(_table(columns), axis=0))
        return FactScore(name, values, _balanced_accuracy(called_fake == is_fake, is_fake, samples=samples, seed=seed))

    single = [score(name, {name: column}) for name, column in facts.items()]
    return ShortcutAudit(
        n_real=int((~is_fake).sum()),
        n_fake=int(is_fake.sum()),
        groups=len(np.unique(group)),
        folds=folds,
        together=score(_TOGETHER, facts),
        single=tuple(sorted(single, key=lambda fact: -(fact.balanced_accuracy.value or 0))),
    )


def _folds(is_fake: Flags, group: NDArray[np.intp], folds: int, generator: np.random.Generator) -> NDArray[np.intp]:
    """Assign shuffled groups to folds, label by label, in turn: (n,) fold numbers."""
    groups = int(group.max(initial=-1)) + 1
    has_fake = np.bincount(group, is_fake, groups) > 0
    n_real, n_fake = int((~has_fake).sum()), int(has_fake.sum())
    if min(n_real, n_fake) < folds:
        raise ValueError(
            f"expected at least {folds} different files of each label, one per fold; found {n_real:,} real and "
            f"{n_fake:,} fake. Use more images or fewer folds."
        )
    order = generator.permutation(groups)
    order = order[np.argsort(has_fake[order], kind="stable")]
    fold_of = np.empty(groups, dtype=np.intp)
    fold_of[order] = np.arange(groups) % folds
    return fold_of[group]


def _predict_out_of_fold(facts: Mapping[str, Column], *, is_fake: Flags, fold: NDArray[np.intp], seed: int) -> Flags:
    """Predict whether each image is fake, (n,), by a model fitted on the other folds."""
    categorical = [position for position, column in enumerate(facts.values()) if column.dtype.kind == "U"]
    table = _table(facts)
    called_fake = np.zeros(len(is_fake), dtype=np.bool_)
    if (table == table[0]).all():  # no information
        return called_fake
    for number in np.unique(fold):
        own = fold == number
        with threadpool_limits(1):  # with so few rows, threads wait for each other, on a busy machine for minutes
            model = _model(categorical, seed).fit(table[~own], is_fake[~own])
            called_fake[own] = model.predict_proba(table[own])[:, 1] > _DECISION
    return called_fake


def _table(facts: Mapping[str, Column]) -> NDArray[np.float64]:
    return np.column_stack([_to_numbers(column) for column in facts.values()])


def _to_numbers(column: Column) -> NDArray[np.float64]:
    """Encode strings by their alphabetical position, and missing numbers as one less than the minimum."""
    if column.dtype.kind == "U":
        return np.unique(column, return_inverse=True)[1].astype(np.float64)
    numbers = column.astype(np.float64)
    known = numbers[~np.isnan(numbers)]
    return np.where(np.isnan(numbers), known.min(initial=0.0) - 1, numbers)


def _model(categorical: Sequence[int], seed: int) -> Pipeline:
    one_hot = OneHotEncoder(max_categories=_MAX_CATEGORIES, handle_unknown="infrequent_if_exist", sparse_output=False)
    trees = HistGradientBoostingClassifier(
        max_iter=50, max_leaf_nodes=8, min_samples_leaf=5, early_stopping=False, class_weight="balanced",
        random_state=seed,
    )  # fmt: skip
    columns = ColumnTransformer([("categorical", one_hot, list(categorical))], remainder="passthrough")
    return make_pipeline(columns, trees)


def _balanced_accuracy(is_right: Flags, is_fake: Flags, *, samples: int, seed: int) -> Estimate:
    """Average the accuracies of both labels; the number of right verdicts in a replicate is binomial."""
    generator = np.random.default_rng(seed)
    by_label = [is_right[~is_fake], is_right[is_fake]]
    value = float(np.mean([right.mean() for right in by_label]))
    replicates = [generator.binomial(len(right), right.mean(), size=samples) / len(right) for right in by_label]
    return bootstrap_estimate(value, np.mean(replicates, axis=0), n=len(is_right))
