"""Can facts that say nothing of what a picture shows tell real from fake? A small model tries, cross-validated."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder
from threadpoolctl import threadpool_limits

from realfake_hf.data.sampling import Flags
from realfake_hf.estimate import Estimate, to_plain
from realfake_hf.metrics.intervals import bootstrap_estimate

ALARM: Final = 0.6  # balanced accuracy above which facts alone say too much

_TOGETHER: Final = "all facts together"
_MOST_WORDS: Final = 30  # of a fact of words that have a column of their own; the rarer ones share one
_DRAW: Final = 0.5 + 1e-6  # a tie is called real, and rounding makes no verdict
_LABELS: Final = 2

Column = NDArray[Any]


@dataclass(frozen=True)
class FactScore:
    """How well one fact, or all of them, tells real from fake.

    Attributes:
        fact: its name.
        values: how many different ones occur; a fact with one value can say nothing.
        balanced_accuracy: out of fold, with a 95 % interval.
    """

    fact: str
    values: int
    balanced_accuracy: Estimate

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read back what `to_plain` made of it."""
        return cls(data["fact"], data["values"], Estimate.from_dict(data["balanced_accuracy"]))


@dataclass(frozen=True)
class ShortcutAudit:
    """What facts alone say of the label.

    Attributes:
        n_real: real pictures.
        n_fake: fake pictures.
        groups: different files among them.
        folds: of the cross-validation.
        together: of all facts in one model.
        single: of each fact in a model of its own, the best first.
    """

    n_real: int
    n_fake: int
    groups: int
    folds: int
    together: FactScore
    single: tuple[FactScore, ...]

    @property
    def n(self) -> int:
        """All pictures."""
        return self.n_real + self.n_fake

    @property
    def worst(self) -> FactScore:
        """The single fact that says most of the label."""
        return self.single[0]

    @property
    def warns(self) -> bool:
        """Whether the data set deserves a warning.

        It does where the balanced accuracy of all facts together exceeds `ALARM`: the value counts, not the lower end
        of its interval, because a shortcut that goes unnoticed in a small set costs more than a false alarm. The worst
        single fact is the best of many and so high by chance alone; it must exceed `ALARM` with the whole of its
        interval.
        """
        together, worst = self.together.balanced_accuracy, self.worst.balanced_accuracy
        return bool((together.value or 0) > ALARM or (worst.low or 0) > ALARM)

    @property
    def warning(self) -> str | None:
        """A sentence or two for every report on the data set, or None where none is due."""
        if not self.warns:
            return None
        worst = self.worst
        text = (
            f"WARNING: file facts alone tell real from fake with a balanced accuracy of "
            f"{self.together.balanced_accuracy} on {self.n:,} pictures (chance is 0.5); the worst single fact is "
            f"{worst.fact} with {worst.balanced_accuracy}. A detector's figures on this data set may rest on the "
            "files and not on the pictures."
        )
        doubtful = (self.together.balanced_accuracy.low or 0) <= 1 / _LABELS
        return f"{text} With so few pictures the interval does not exclude chance." if doubtful else text

    def to_dict(self) -> dict[str, Any]:
        """The audit as plain numbers and dictionaries."""
        scores = {"together": to_plain(self.together), "single": [to_plain(score) for score in self.single]}
        return {"n": self.n, **to_plain(self), **scores, "worst": self.worst.fact, "alarm": ALARM, "warns": self.warns}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read back what `to_dict` wrote."""
        counts = {name: data[name] for name in ("n_real", "n_fake", "groups", "folds")}
        single = tuple(FactScore.from_dict(score) for score in data["single"])
        return cls(**counts, together=FactScore.from_dict(data["together"]), single=single)

    def to_markdown(self) -> str:
        """Render the audit as a table, the warning above it where one is due."""
        head = f"| fact alone, n = {self.n:,} ({self.n_fake:,} fake) | values | balanced accuracy |"
        rows = [_row(f"**{_TOGETHER}**", self.together), *(_row(score.fact, score) for score in self.single)]
        table = "\n".join([head, "|---|--:|--:|", *rows])
        return f"**{self.warning}**\n\n{table}" if self.warning else table


def audit_shortcuts(
    facts: Mapping[str, Column],
    *,
    is_fake: Flags,
    groups: NDArray[np.str_] | None = None,
    folds: int = 5,
    samples: int = 1000,
    seed: int = 0,
) -> ShortcutAudit:
    """Try to tell real from fake by facts: gradient boosting of small trees, words as one-hot columns.

    The folds are stratified by label, and equal files fall into one fold. Both labels weigh the same in training,
    so that the share of fakes in a set is no fact. The interval is that of a bootstrap of the out-of-fold verdicts
    over the pictures of each label; it does not hold how much the models themselves vary.

    Args:
        facts: (n,) each; strings are words, all else is numbers, NaN where there is none.
        is_fake: (n,) the truth.
        groups: (n,) equal where two files are; None means that all differ.
        folds: of the cross-validation.
        samples: bootstrap replicates.
        seed: of folds, models and replicates.

    Raises:
        ValueError: a label has fewer different files than there are folds.
    """
    group = np.arange(len(is_fake)) if groups is None else np.unique(groups, return_inverse=True)[1]
    fold = _folds(is_fake, group, folds, np.random.default_rng(seed))

    def score(name: str, columns: Mapping[str, Column]) -> FactScore:
        called_fake = _verdicts(columns, is_fake=is_fake, fold=fold, seed=seed)
        value = _balanced_accuracy(called_fake == is_fake, is_fake, samples=samples, seed=seed)
        return FactScore(name, _different(list(columns.values())), value)

    single = [score(name, {name: column}) for name, column in facts.items()]
    return ShortcutAudit(
        n_real=int((~is_fake).sum()),
        n_fake=int(is_fake.sum()),
        groups=len(np.unique(group)),
        folds=folds,
        together=score(_TOGETHER, facts),
        single=tuple(sorted(single, key=lambda one: -(one.balanced_accuracy.value or 0))),
    )


def _folds(is_fake: Flags, group: NDArray[np.intp], folds: int, generator: np.random.Generator) -> NDArray[np.intp]:
    """Deal groups out to folds, (n,): shuffled, label by label, one to each fold in turn."""
    groups = int(group.max(initial=-1)) + 1
    has_fake = np.bincount(group, is_fake, groups) > 0
    counts = {"real": int((~has_fake).sum()), "fake": int(has_fake.sum())}
    if min(counts.values()) < folds:
        raise ValueError(
            f"wanted at least {folds} different files of each label, one for each fold; found {counts['real']:,} real "
            f"and {counts['fake']:,} fake. Give more pictures or fewer folds."
        )
    order = generator.permutation(groups)
    order = order[np.argsort(has_fake[order], kind="stable")]
    fold_of = np.empty(groups, dtype=np.intp)
    fold_of[order] = np.arange(groups) % folds
    return fold_of[group]


def _verdicts(facts: Mapping[str, Column], *, is_fake: Flags, fold: NDArray[np.intp], seed: int) -> Flags:
    """Call each picture real or fake, (n,), by a model that was fitted on the other folds."""
    words = [place for place, column in enumerate(facts.values()) if column.dtype.kind == "U"]
    table = _table(list(facts.values()))
    called_fake = np.zeros(len(is_fake), dtype=np.bool_)
    if (table == table[0]).all():  # nothing to go by
        return called_fake
    for own in np.unique(fold):
        with threadpool_limits(1):  # cores that share so few rows wait for each other, on a busy machine for minutes
            model = _model(words, seed).fit(table[fold != own], is_fake[fold != own])
            called_fake[fold == own] = model.predict_proba(table[fold == own])[:, 1] > _DRAW
    return called_fake


def _table(columns: Sequence[Column]) -> NDArray[np.float64]:
    """Put facts side by side as numbers, (n, facts)."""
    return np.column_stack([_numbers(column) for column in columns])


def _numbers(column: Column) -> NDArray[np.float64]:
    """Give words their places in the alphabet, and what has no number one below all others."""
    if column.dtype.kind == "U":
        return np.unique(column, return_inverse=True)[1].astype(np.float64)
    numbers = column.astype(np.float64)
    known = numbers[~np.isnan(numbers)]
    return np.where(np.isnan(numbers), known.min(initial=0.0) - 1, numbers)


def _model(words: Sequence[int], seed: int) -> Pipeline:
    one_hot = OneHotEncoder(max_categories=_MOST_WORDS, handle_unknown="infrequent_if_exist", sparse_output=False)
    trees = HistGradientBoostingClassifier(
        max_iter=50, max_leaf_nodes=8, min_samples_leaf=5, early_stopping=False, class_weight="balanced",
        random_state=seed,
    )  # fmt: skip
    return make_pipeline(ColumnTransformer([("words", one_hot, list(words))], remainder="passthrough"), trees)


def _balanced_accuracy(is_right: Flags, is_fake: Flags, *, samples: int, seed: int) -> Estimate:
    """Average the accuracies of both labels.

    A replicate that draws k verdicts with replacement holds a binomial number of right ones, so none need be drawn.
    """
    generator = np.random.default_rng(seed)
    right = [is_right[~is_fake], is_right[is_fake]]
    value = float(np.mean([verdicts.mean() for verdicts in right]))
    replicates = [generator.binomial(len(one), one.mean(), size=samples) / len(one) for one in right]
    return bootstrap_estimate(value, np.mean(replicates, axis=0), n=len(is_right))


def _different(columns: Sequence[Column]) -> int:
    return len(np.unique(_table(columns), axis=0))


def _row(name: str, score: FactScore) -> str:
    return f"| {name} | {score.values:,} | {score.balanced_accuracy} |"
