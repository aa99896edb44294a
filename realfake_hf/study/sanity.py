"""Do maps change when the model loses what it has learnt? Cascading weight randomisation for each model and method."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm.auto import tqdm

from realfake_hf.detector import Detector
from realfake_hf.explain.agreement import spearman
from realfake_hf.explain.maps import Target
from realfake_hf.explain.methods import CLASS_METHODS
from realfake_hf.explain.randomization import cascade, stages
from realfake_hf.measure.resampling import Mean, Resampling
from realfake_hf.study.grid import GRID, maps_on_grid
from realfake_hf.study.sample import Sample
from realfake_hf.study.subjects import Subject

Maps = NDArray[np.float64]


@dataclass(frozen=True)
class Descent:
    """How alike a method's maps stay while a model is randomised.

    Attributes:
        knows_class: whether the method explains a label; the others cannot see the classifier.
        similarity: by the name of the stage that the randomisation has come to, from the head downward: the mean rank
            correlation with the trained model's map of the same picture. It has no value where either map is empty.
    """

    knows_class: bool
    similarity: Mapping[str, Mean]


@dataclass(frozen=True)
class SanityStudy:
    """Cascading weight randomisation of each model.

    Attributes:
        n: pictures.
        grid: on which maps are compared, as height and width.
        target: the label that is explained throughout, whatever the verdict becomes.
        seed: of the random weights and the bootstrap.
        found: by the model's name, then by the method's.
    """

    n: int
    grid: tuple[int, int]
    target: Target
    seed: int
    found: Mapping[str, Mapping[str, Descent]]

    def to_dict(self) -> dict[str, Any]:
        """Give plain values."""
        return asdict(self)


def measure_sanity(
    subjects: Sequence[Subject],
    sample: Sample,
    *,
    n: int,
    samples: int = 1000,
    seed: int = 0,
    target: Target = "FAKE",
    most_stages: int = 6,
    grid: tuple[int, int] = GRID,
) -> SanityStudy:
    """Compare the maps of each trained model with those after each stage of its randomisation.

    Args:
        subjects: the models.
        sample: where the pictures come from.
        n: of them, at most.
        samples: bootstrap replicates.
        seed: of the random weights and the bootstrap.
        target: the label to explain.
        most_stages: of the randomisation; neighbouring blocks are joined.
        grid: on which maps are compared, as height and width.

    Raises:
        ValueError: fewer than two stages are allowed.
    """
    drawn = sample.take(n)
    resampling = drawn.resampling(samples=samples, seed=seed)
    return SanityStudy(
        n=len(drawn),
        grid=grid,
        target=target,
        seed=seed,
        found={
            subject.name: _descents(
                subject, drawn.pictures, resampling, seed=seed, target=target, most=most_stages, grid=grid
            )
            for subject in subjects
        },
    )


def _descents(
    subject: Subject,
    pictures: NDArray[np.uint8],
    resampling: Resampling,
    *,
    seed: int,
    target: Target,
    most: int,
    grid: tuple[int, int],
) -> dict[str, Descent]:
    similarity: dict[str, dict[str, Mean]] = {method: {} for method in subject.methods}
    order = stages(subject.detector.model, most=most)
    trained = _all_maps(subject, pictures, target=target, grid=grid)
    steps = cascade(subject.detector.model, seed=seed, most=most)
    for stage, model in tqdm(steps, total=len(order), desc=f"{subject.name}: randomised", unit="stage", disable=None):
        random = _all_maps(_with_model(subject, model), pictures, target=target, grid=grid)
        for method, maps in random.items():
            similarity[method][stage.name] = resampling.mean(spearman(trained[method], maps))
    return {method: Descent(method in CLASS_METHODS, similarity[method]) for method in subject.methods}


def _all_maps(
    subject: Subject, pictures: NDArray[np.uint8], *, target: Target, grid: tuple[int, int]
) -> dict[str, Maps]:
    return {method: maps_on_grid(subject, pictures, method, target=target, grid=grid) for method in subject.methods}


def _with_model(subject: Subject, model: Any) -> Subject:  # noqa: ANN401 - as `Detector`
    before = subject.detector
    return replace(subject, detector=Detector(model, before.processor, batch_size=before.batch_size))
