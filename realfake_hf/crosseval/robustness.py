"""What a model withstands: its pictures compressed, blurred, made noisy, shrunk, cropped and turned, step by step."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from realfake_hf.crosseval.datasets import TestSet
from realfake_hf.crosseval.models import Entrant
from realfake_hf.crosseval.scoring import score_all
from realfake_hf.crosseval.store import CellStore
from realfake_hf.data.corruptions import CORRUPTIONS, seed_of_image
from realfake_hf.estimate import Estimate, to_plain
from realfake_hf.metrics.report import make_report

MEASURED: Final = ("accuracy_real", "accuracy_fake", "balanced_accuracy", "roc_auc")


@dataclass(frozen=True)
class Step:
    """A model on pictures that one change was made to, at one strength.

    Attributes:
        kind: one of `CORRUPTIONS`, or "none".
        strength: in the unit of the kind.
        accuracy_real: share of the REAL pictures called REAL, at the model's own threshold.
        accuracy_fake: share of the FAKE pictures called FAKE.
        balanced_accuracy: the mean of both.
        roc_auc: whatever the threshold.
    """

    kind: str
    strength: float
    accuracy_real: Estimate
    accuracy_fake: Estimate
    balanced_accuracy: Estimate
    roc_auc: Estimate

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read back what `dataclasses.asdict` made of it."""
        return cls(**{**data, **{name: Estimate(**data[name]) for name in MEASURED}})


@dataclass(frozen=True)
class Robustness:
    """A model on a data set, its pictures as they are and changed.

    Attributes:
        model: what it is called.
        dataset: the data set.
        split: its split.
        n_real: REAL pictures behind each step.
        n_fake: FAKE ones.
        clean: the pictures as they are.
        steps: kind by kind, the weakest strength first.
    """

    model: str
    dataset: str
    split: str
    n_real: int
    n_fake: int
    clean: Step
    steps: tuple[Step, ...]

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read back what `dataclasses.asdict` made of it."""
        steps = tuple(Step.from_dict(step) for step in data["steps"])
        return cls(**{**data, "clean": Step.from_dict(data["clean"]), "steps": steps})

    def of_kind(self, kind: str) -> list[Step]:
        """The steps of one kind, the weakest first."""
        return [step for step in self.steps if step.kind == kind]


def measure_robustness(
    entrants: Sequence[Entrant], one: TestSet, store: CellStore, *, samples: int, seed: int
) -> tuple[Robustness, ...]:
    """Measure all models on the pictures of a data set, as they are and after every step of every change.

    Args:
        entrants: the models.
        one: the pictures, already drawn.
        store: where finished steps are kept.
        samples: bootstrap replicates behind each interval.
        seed: of noise and bootstrap.
    """
    asked = [("none", 0.0), *((kind, step) for kind, found in CORRUPTIONS.items() for step in found.steps)]
    rows = {entrant.name: [] for entrant in entrants}  # type: dict[str, list[Step]]
    for kind, strength in asked:
        scores = _scores(entrants, one, store, kind=kind, strength=strength, seed=seed)
        for entrant in entrants:
            rows[entrant.name].append(
                _measure(
                    entrant, one, scores[entrant.name], store, kind=kind, strength=strength, settings=(samples, seed)
                )
            )
    sizes = int((~one.is_fake).sum()), int(one.is_fake.sum())
    return tuple(
        Robustness(entrant.name, one.name, one.split, *sizes, clean, tuple(steps))
        for entrant in entrants
        for clean, *steps in [rows[entrant.name]]
    )


def _scores(
    entrants: Sequence[Entrant], one: TestSet, store: CellStore, *, kind: str, strength: float, seed: int
) -> dict[str, NDArray[np.floating]]:
    names = {entrant.name: f"{one.name}-{one.split}-{kind}-{strength:g}-{entrant.name}" for entrant in entrants}
    asked = {entrant.name: _asked(entrant, one, kind, strength, seed) for entrant in entrants}
    kept = {name: store.scores(file, asked[name]) for name, file in names.items()}
    missing = [entrant for entrant in entrants if kept[entrant.name] is None]
    change = None if kind == "none" else partial(_changed, kind=kind, strength=strength, seed=seed)
    title = f"{one.name} {kind}" + (f" {strength:g}" if change else "")
    made = score_all(missing, one, "native", change=change, title=title) if missing else {}
    for name, p_fake in made.items():
        store.keep_scores(names[name], asked[name], p_fake)
    return {**made, **{name: p_fake for name, p_fake in kept.items() if p_fake is not None}}


def _changed(picture: Image.Image, sha256: str, *, kind: str, strength: float, seed: int) -> Image.Image:
    return CORRUPTIONS[kind].apply(picture, strength, seed_of_image(sha256, seed))


def _measure(
    entrant: Entrant,
    one: TestSet,
    p_fake: NDArray[np.floating],
    store: CellStore,
    *,
    kind: str,
    strength: float,
    settings: tuple[int, int],
) -> Step:
    samples, seed = settings

    def make() -> dict[str, Any]:
        report = make_report(
            one.is_fake, p_fake, threshold=entrant.point.threshold, bootstrap_samples=samples, seed=seed
        )
        return to_plain(Step(kind, strength, **{name: getattr(report, name) for name in MEASURED}))

    asked = {**_asked(entrant, one, kind, strength, seed), "threshold": entrant.point.threshold, "samples": samples}
    return Step.from_dict(store.cell(f"{one.name}-{one.split}-{kind}-{strength:g}-{entrant.name}", asked, make))


def _asked(entrant: Entrant, one: TestSet, kind: str, strength: float, seed: int) -> dict[str, Any]:
    return {"weights": entrant.digest, "pictures": one.sha256, "kind": kind, "strength": strength, "seed": seed}


def robustness_table(found: Sequence[Robustness]) -> str:
    """Render what models withstand on one data set: a row a step, ROC AUC and balanced accuracy of each model."""
    first = found[0]
    names = [f"{one.model}: {what}" for one in found for what in ("ROC AUC", "balanced accuracy")]
    head = [f"| change | strength | {' | '.join(names)} |", f"|---|--:|{'--:|' * len(names)}"]
    rows = [_row(steps) for steps in zip(*([one.clean, *one.steps] for one in found), strict=True)]
    note = (
        f"{first.dataset} {first.split}, {first.n_real:,} REAL and {first.n_fake:,} FAKE pictures at each step, each "
        "model at its own threshold. Strengths: "
        f"{'; '.join(f'{kind}: {one.unit}' for kind, one in CORRUPTIONS.items() if one.unit)}."
    )
    return "\n".join([note, "", *head, *rows])


def _row(steps: Sequence[Step]) -> str:
    cells = [str(one) for step in steps for one in (step.roc_auc, step.balanced_accuracy)]
    kind = CORRUPTIONS.get(steps[0].kind)
    strength = f"{steps[0].strength:g}" if kind and kind.unit else ""
    return f"| {steps[0].kind} | {strength} | {' | '.join(cells)} |"
