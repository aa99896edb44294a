"""Robustness to corruptions: every model on images with each kind of corruption at increasing strength."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from PIL import Image

from realfake_hf.crosseval.datasets import EvalDataset
from realfake_hf.crosseval.models import Model
from realfake_hf.crosseval.scoring import Scores, cell_name, cell_settings, load_or_score
from realfake_hf.data.corruptions import CORRUPTIONS, seed_of_image
from realfake_hf.estimate import Estimate, from_plain, to_plain
from realfake_hf.metrics.report import make_report
from realfake_hf.store import Store
from realfake_hf.tables import Table

MEASURED: Final = ("accuracy_real", "accuracy_fake", "balanced_accuracy", "roc_auc")
NONE: Final = "none"  # kind of the unchanged images


@dataclass(frozen=True)
class Step:
    """The scores of a model, at its own threshold, on images with one corruption at one strength.

    `kind` is a key of `CORRUPTIONS`, or `NONE`; the strength is in the unit of the kind.
    """

    kind: str
    strength: float
    accuracy_real: Estimate
    accuracy_fake: Estimate
    balanced_accuracy: Estimate
    roc_auc: Estimate

    @property
    def name(self) -> str:
        """Kind and strength."""
        return f"{self.kind} {self.strength:g}" if self.kind != NONE and CORRUPTIONS[self.kind].unit else self.kind


@dataclass(frozen=True)
class Robustness:
    """A model on the unchanged and the corrupted images of a data set.

    Each step has `n_real` and `n_fake` images; steps are grouped by kind, in order of increasing strength.
    """

    model: str
    dataset: str
    split: str
    n_real: int
    n_fake: int
    clean: Step
    steps: tuple[Step, ...]

    def of_kind(self, kind: str) -> list[Step]:
        """Return the steps of one kind."""
        return [step for step in self.steps if step.kind == kind]


def measure_robustness(
    models: Sequence[Model], dataset: EvalDataset, store: Store, *, samples: int, seed: int
) -> tuple[Robustness, ...]:
    """Measure all models on the images of a data set, unchanged and with each corruption at each strength.

    Finished steps are read from the store. The seed is that of noise and bootstrap; `samples` is the number of
    bootstrap replicates.
    """
    conditions = [(NONE, 0.0), *((kind, strength) for kind, item in CORRUPTIONS.items() for strength in item.steps)]
    steps: dict[str, list[Step]] = {model.name: [] for model in models}
    for kind, strength in conditions:
        settings = {"kind": kind, "strength": strength, "seed": seed}
        change = None if kind == NONE else partial(_corrupt, kind=kind, strength=strength, seed=seed)
        condition = f"{kind}-{strength:g}"
        scores = load_or_score(models, dataset, store, condition=condition, settings=settings, change=change)
        for model in models:
            steps[model.name].append(_measure(model, dataset, scores, store, settings=settings, samples=samples))
    n_real, n_fake = int((~dataset.is_fake).sum()), int(dataset.is_fake.sum())
    return tuple(
        Robustness(name, dataset.name, dataset.split, n_real, n_fake, clean, tuple(corrupted))
        for name, (clean, *corrupted) in steps.items()
    )


def _corrupt(image: Image.Image, sha256: str, *, kind: str, strength: float, seed: int) -> Image.Image:
    return CORRUPTIONS[kind].apply(image, strength, seed_of_image(sha256, seed))


def _measure(
    model: Model, dataset: EvalDataset, scores: Scores, store: Store, *, settings: Mapping[str, Any], samples: int
) -> Step:
    kind, strength, threshold = settings["kind"], settings["strength"], model.point.threshold

    def measure() -> dict[str, Any]:
        report = make_report(
            dataset.is_fake, scores[model.name], threshold=threshold, bootstrap_samples=samples, seed=settings["seed"]
        )
        return to_plain(Step(kind, strength, **{name: getattr(report, name) for name in MEASURED}))

    recorded = {**cell_settings(dataset, model), **settings, "threshold": threshold, "samples": samples}
    return from_plain(Step, store.json(cell_name(dataset, f"{kind}-{strength:g}", model), recorded, measure))


def robustness_table(measured: Sequence[Robustness], *, strongest: bool = False) -> Table:
    """Return ROC AUC and balanced accuracy at each step on one data set, two columns per model.

    With `strongest`, the table contains only the unchanged images and the strongest step of each corruption.
    """
    first = measured[0]
    lines = zip(*([robustness.clean, *robustness.steps] for robustness in measured), strict=True)
    rows = [
        [steps[0].name, *(value for step in steps for value in (step.roc_auc, step.balanced_accuracy))]
        for steps in lines
        if not strongest or steps[0].kind == NONE or steps[0].strength == CORRUPTIONS[steps[0].kind].steps[-1]
    ]
    units = "; ".join(f"{kind}: {item.unit}" for kind, item in CORRUPTIONS.items() if item.unit)
    caption = (
        f"{first.dataset} {first.split}: {first.n_real:,} REAL and {first.n_fake:,} FAKE leak-free images at each "
        f"step, each model at its own threshold, from one training run each. Strengths: {units}."
    )
    names = [f"{robustness.model}: {name}" for robustness in measured for name in ("ROC AUC", "balanced accuracy")]
    return Table(caption, ["corruption", *names], rows, folded=not strongest)
