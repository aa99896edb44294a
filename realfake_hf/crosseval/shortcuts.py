"""Shortcuts: how well file facts alone separate real from fake, and near-duplicates of training images.

A small cross-validated model sees facts of each file, such as its format and size, but no pixel. If it separates real
from fake, a detector can too, without learning anything about the images.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.model_selection import PredefinedSplit, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder
from threadpoolctl import threadpool_limits

from realfake_hf.crosseval.datasets import EvalDataset
from realfake_hf.crosseval.near_duplicates import TrainingImages
from realfake_hf.data.duplicates import NearDuplicates
from realfake_hf.estimate import Estimate, from_plain, to_plain
from realfake_hf.metrics.intervals import bootstrap_estimate
from realfake_hf.sampling import Flags
from realfake_hf.store import Store
from realfake_hf.tables import markdown_table

FOLDS: Final = 5
SAMPLES: Final = 1000  # bootstrap replicates
ALARM: Final = 0.6  # balanced accuracy of the file facts above which a data set deserves a warning
FILES: Final = 1000  # maximum number of audited files per data set of a grid
SAME_ENCODING: Final = (
    "All files have the same format, mode, size and quantization tables; their sizes in bytes depend on the detail of "
    "the images."
)

_CHANCE: Final = 0.5
_MAX_CATEGORIES: Final = 30  # columns of a categorical fact; rarer values share the last one
_DECISION: Final = 0.5 + 1e-6  # ties are called real, whatever the rounding

Column = NDArray[Any]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FactScore:
    """The balanced accuracy, out of fold, of a model that sees one fact or all facts.

    `values` is the number of distinct values; a fact with one value carries no information.
    """

    fact: str
    values: int
    balanced_accuracy: Estimate


@dataclass(frozen=True)
class ShortcutAudit:
    """How well file facts separate real from fake in cross-validation, all together and each alone, best first.

    `groups` is the number of distinct files.
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
        """The best single fact."""
        return self.single[0]

    @property
    def same_encoding(self) -> bool:
        """Whether all files have the same format, mode, size and tables, and differ only in their number of bytes."""
        return all(score.values == 1 for score in self.single if score.fact not in {"bytes", "bytes_per_pixel"})

    @property
    def warns(self) -> bool:
        """Whether the data set deserves a warning.

        For all facts together, the value is compared with `ALARM`, not the lower end of its interval: missing a
        shortcut in a small data set costs more than a false alarm. The best of many single facts is high by chance
        alone, so its whole interval must exceed `ALARM`.
        """
        together, worst = self.together.balanced_accuracy, self.worst.balanced_accuracy
        return bool((together.value or 0) > ALARM or (worst.low or 0) > ALARM)

    @property
    def warning(self) -> str | None:
        """Warning for every report on the data set; None if not needed."""
        if not self.warns:
            return None
        text = _describe(self.together.balanced_accuracy, self.n, self.worst.fact, self.worst.balanced_accuracy)
        return f"WARNING: {text}"

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
class Shortcut:
    """The shortcuts of a data set of a grid."""

    data: str
    n: int = 0  # number of audited files
    # balanced accuracy of all facts in one model; None if the files could not be audited
    together: Estimate | None = None
    worst: str | None = None  # name of the best single fact
    worst_alone: Estimate | None = None  # balanced accuracy of this fact
    warning: str | None = None
    same_encoding: bool = False
    refused: str | None = None  # reason why the files could not be audited
    duplicates: NearDuplicates | None = None  # near-duplicates of training images; None without training images

    @property
    def text(self) -> str:
        """Summary of a successful audit."""
        note = f" {SAME_ENCODING}" if self.same_encoding else ""
        return f"{self.data}: {_describe(self.together, self.n, self.worst, self.worst_alone)}{note}"


def _describe(together: Estimate | None, n: int, worst: str | None, worst_alone: Estimate | None) -> str:
    note = " The interval includes chance." if together and (together.low or 0) <= _CHANCE else ""
    return (
        f"file facts alone tell real from fake with a balanced accuracy of {together} on {n:,} files (chance is "
        f"{_CHANCE}); the best single fact is {worst} with {worst_alone}. A detector may rely on the files instead of "
        f"the images.{note}"
    )


def find_shortcuts(
    datasets: Sequence[EvalDataset], store: Store, *, seed: int, training: TrainingImages | None = None
) -> tuple[Shortcut, ...]:
    """Audit the files of each data set, log warnings, and count near-duplicates of training images, if given."""
    shortcuts = [_load_or_audit(dataset, store, seed) for dataset in datasets]
    if training is None:
        return tuple(shortcuts)
    return tuple(
        replace(shortcut, duplicates=training.compare(dataset))
        for shortcut, dataset in zip(shortcuts, datasets, strict=True)
    )


def _load_or_audit(dataset: EvalDataset, store: Store, seed: int) -> Shortcut:
    settings = {"source": dataset.source, "seed": seed}
    if dataset.is_streamed:
        settings["pictures"] = dataset.sha256
    audited = store.json(f"{dataset.name}-files", settings, lambda: to_plain(_audit(dataset, seed)))
    shortcut = from_plain(Shortcut, audited)
    if shortcut.warning:
        logger.warning("WARNING: %s", shortcut.text)
    return shortcut


def _audit(dataset: EvalDataset, seed: int) -> Shortcut:
    try:
        files = dataset.file_properties(FILES, seed=seed)
        audit = audit_shortcuts(files.columns, is_fake=files.is_fake, groups=files.digest, seed=seed)
    except ValueError as error:
        return Shortcut(dataset.name, refused=str(error))
    return Shortcut(
        data=dataset.name,
        n=audit.n,
        together=audit.together.balanced_accuracy,
        worst=audit.worst.fact,
        worst_alone=audit.worst.balanced_accuracy,
        warning=audit.warning,
        same_encoding=audit.same_encoding,
    )


def audit_shortcuts(
    facts: Mapping[str, Column], *, is_fake: Flags, groups: NDArray[np.str_] | None = None, seed: int = 0
) -> ShortcutAudit:
    """Separate real from fake by file facts, with gradient boosting of small trees and one-hot columns for strings.

    Folds are stratified by label, and equal files share a fold. Both labels have the same weight in training, so the
    share of fakes carries no information. Intervals resample the out-of-fold predictions of each label; they do not
    include the variance of the models themselves. Facts are (n,) each; strings are categorical, everything else is
    numeric, with NaN for missing values. Groups, (n,), are codes, equal for equal files; by default, all files differ.
    """
    group = np.arange(len(is_fake)) if groups is None else np.unique(groups, return_inverse=True)[1]
    fold = _folds(is_fake, group, np.random.default_rng(seed))

    def score(name: str, columns: Mapping[str, Column]) -> FactScore:
        called_fake = _predict_out_of_fold(columns, is_fake=is_fake, fold=fold, seed=seed)
        values = len(np.unique(_table(columns), axis=0))
        return FactScore(name, values, _balanced_accuracy(called_fake == is_fake, is_fake, seed=seed))

    single = [score(name, {name: column}) for name, column in facts.items()]
    return ShortcutAudit(
        n_real=int((~is_fake).sum()),
        n_fake=int(is_fake.sum()),
        groups=len(np.unique(group)),
        folds=FOLDS,
        together=score("all facts together", facts),
        single=tuple(sorted(single, key=lambda fact: -(fact.balanced_accuracy.value or 0))),
    )


def _folds(is_fake: Flags, group: NDArray[np.intp], generator: np.random.Generator) -> NDArray[np.intp]:
    """Assign shuffled groups to folds, label by label, in turn: (n,) fold numbers."""
    groups = int(group.max(initial=-1)) + 1
    has_fake = np.bincount(group, is_fake, groups) > 0
    n_real, n_fake = int((~has_fake).sum()), int(has_fake.sum())
    if min(n_real, n_fake) < FOLDS:
        raise ValueError(
            f"expected at least {FOLDS} different files of each label, one per fold; found {n_real:,} real and "
            f"{n_fake:,} fake. Use more images."
        )
    order = generator.permutation(groups)
    order = order[np.argsort(has_fake[order], kind="stable")]
    fold_of = np.empty(groups, dtype=np.intp)
    fold_of[order] = np.arange(groups) % FOLDS
    return fold_of[group]


def _predict_out_of_fold(facts: Mapping[str, Column], *, is_fake: Flags, fold: NDArray[np.intp], seed: int) -> Flags:
    """Predict whether each image is fake, (n,), by a model fitted on the other folds."""
    table = _table(facts)
    if (table == table[0]).all():  # no information
        return np.zeros(len(is_fake), dtype=np.bool_)
    categorical = [position for position, column in enumerate(facts.values()) if column.dtype.kind == "U"]
    one_hot = OneHotEncoder(max_categories=_MAX_CATEGORIES, handle_unknown="infrequent_if_exist", sparse_output=False)
    trees = HistGradientBoostingClassifier(
        max_iter=50, max_leaf_nodes=8, min_samples_leaf=5, early_stopping=False, class_weight="balanced",
        random_state=seed,
    )  # fmt: skip
    columns = ColumnTransformer([("categorical", one_hot, categorical)], remainder="passthrough")
    model, folds = make_pipeline(columns, trees), PredefinedSplit(fold)
    with threadpool_limits(1):  # with so few rows, threads wait for each other, for minutes on a busy machine
        p_fake = cross_val_predict(model, table, is_fake, cv=folds, method="predict_proba")[:, 1]
    return np.asarray(p_fake > _DECISION)


def _table(facts: Mapping[str, Column]) -> NDArray[np.float64]:
    return np.column_stack([_to_numbers(column) for column in facts.values()])


def _to_numbers(column: Column) -> NDArray[np.float64]:
    """Encode strings by their alphabetical position, and missing numbers as one less than the minimum."""
    if column.dtype.kind == "U":
        return np.unique(column, return_inverse=True)[1].astype(np.float64)
    numbers = column.astype(np.float64)
    known = numbers[~np.isnan(numbers)]
    return np.where(np.isnan(numbers), known.min(initial=0.0) - 1, numbers)


def _balanced_accuracy(is_right: Flags, is_fake: Flags, *, seed: int) -> Estimate:
    """Average the accuracies of both labels; the number of correct predictions in a replicate is binomial."""
    generator = np.random.default_rng(seed)
    by_label = [is_right[~is_fake], is_right[is_fake]]
    value = float(np.mean([right.mean() for right in by_label]))
    replicates = [generator.binomial(len(right), right.mean(), size=SAMPLES) / len(right) for right in by_label]
    return bootstrap_estimate(value, np.mean(replicates, axis=0), n=len(is_right))
