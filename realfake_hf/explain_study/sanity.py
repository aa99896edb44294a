"""Do maps change when the model loses what it has learnt? Cascading weight randomisation for each model and method."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from tqdm.auto import tqdm

from realfake_hf.attribution.methods import CLASS_METHODS
from realfake_hf.detector import Detector
from realfake_hf.estimate import Estimate, to_plain
from realfake_hf.explain_study.agreement import GRID
from realfake_hf.explain_study.grid import maps_on_grid
from realfake_hf.explain_study.map_agreement import spearman
from realfake_hf.explain_study.randomization import cascade, stages
from realfake_hf.explain_study.sample import Sample
from realfake_hf.explain_study.subjects import Subject
from realfake_hf.labels import LabelName
from realfake_hf.metrics.intervals import Resampling

TARGET: Final[LabelName] = "FAKE"  # explained throughout, as the verdict changes with the weights

Maps = NDArray[np.float64]


@dataclass(frozen=True)
class Descent:
    """How alike a model's maps stay while it is randomised.

    Attributes:
        stages: how far the randomisation has come, from the head downward.
        methods: by name, the mean rank correlation with the trained model's map of the same picture after each stage.
            A picture has none where either map is empty.
    """

    stages: tuple[str, ...]
    methods: Mapping[str, Sequence[Estimate]]


@dataclass(frozen=True)
class SanityStudy:
    """Cascading weight randomisation of each model.

    Attributes:
        n: pictures.
        class_methods: those that explain a label; the other ones ignore it.
        models: by name.
    """

    n: int
    class_methods: tuple[str, ...]
    models: Mapping[str, Descent]

    def to_dict(self) -> dict[str, Any]:
        """Give plain numbers and dictionaries."""
        return {
            "n": self.n,
            "grid": list(GRID),
            "target": TARGET,
            "class_methods": list(self.class_methods),
            "models": {
                name: {
                    "stages": list(found.stages),
                    "methods": {method: [to_plain(mean) for mean in means] for method, means in found.methods.items()},
                }
                for name, found in self.models.items()
            },
        }


def measure_sanity(
    subjects: Sequence[Subject],
    sample: Sample,
    *,
    n: int,
    samples: int = 1000,
    seed: int = 0,
    most_stages: int = 6,
) -> SanityStudy:
    """Compare the maps of each trained model with those after each stage of its randomisation.

    Args:
        subjects: the models.
        sample: where the pictures come from.
        n: of them, at most.
        samples: bootstrap replicates.
        seed: of the random weights and the bootstrap.
        most_stages: of the randomisation; neighbouring blocks are joined.

    Raises:
        ValueError: fewer than two stages are allowed.
    """
    drawn = sample.take(n)
    resampling = drawn.resampling(samples=samples, seed=seed)
    return SanityStudy(
        n=len(drawn),
        class_methods=tuple(sorted(CLASS_METHODS)),
        models={
            subject.name: _descent(subject, drawn.pictures, resampling, seed=seed, most=most_stages)
            for subject in subjects
        },
    )


def _descent(
    subject: Subject,
    pictures: NDArray[np.uint8],
    resampling: Resampling,
    *,
    seed: int,
    most: int,
) -> Descent:
    order = stages(subject.detector.model, most=most)
    trained = _all_maps(subject, pictures)
    methods: dict[str, list[Estimate]] = {method: [] for method in subject.methods}
    steps = cascade(subject.detector.model, seed=seed, most=most)
    for _, model in tqdm(steps, total=len(order), desc=f"{subject.name}: randomised", unit="stage", disable=None):
        random = _all_maps(_with_model(subject, model), pictures)
        for method, means in methods.items():
            means.append(resampling.mean(spearman(trained[method], random[method])))
    return Descent(stages=tuple(stage.name for stage in order), methods=methods)


def _all_maps(subject: Subject, pictures: NDArray[np.uint8]) -> dict[str, Maps]:
    return {method: maps_on_grid(subject, pictures, method, target=TARGET) for method in subject.methods}


def _with_model(subject: Subject, model: Any) -> Subject:  # noqa: ANN401 - as `Detector`
    before = subject.detector
    return replace(subject, detector=Detector(model, before.processor, batch_size=before.batch_size))
