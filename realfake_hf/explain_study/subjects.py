"""The models of a study, and which methods explain each of them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from realfake_hf.attribution.explain import fitting_methods
from realfake_hf.attribution.methods import Explanation, Target
from realfake_hf.detector import Detector, load_detector
from realfake_hf.models.pretrained import random_weights
from realfake_hf.run_folder import METRICS, PASSPORT

METHOD_OPTIONS: Final[Mapping[str, Mapping[str, Any]]] = {"integrated_gradients": {"steps": 16}}  # others: defaults


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A model under study.

    Attributes:
        name: what it is called.
        place: its folder or Hub id.
        detector: it.
        methods: the names in `METHODS` that fit it.
    """

    name: str
    place: str
    detector: Detector
    methods: tuple[str, ...]

    def explain(
        self, pictures: NDArray[np.uint8], method: str, *, target: Target = "predicted", batch_size: int = 64
    ) -> list[Explanation]:
        """Explain pictures, (n, height, width, 3) uint8, by one method with the study's options."""
        options = METHOD_OPTIONS.get(method, {})
        return self.detector.explain(
            as_pictures(pictures), method=method, target=target, options=options, batch_size=batch_size
        )

    def probabilities(self, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Give `p_fake` of pictures, (n, height, width, 3) uint8: (n,)."""
        return self.detector.probabilities(as_pictures(pictures))

    def unlearned(self, *, seed: int) -> "Subject":
        """Give the same model with random weights, under the same name."""
        detector = Detector(random_weights(self.detector.model, seed=seed), self.detector.processor)
        return replace(self, detector=detector)


def load_subject(name: str, place: str) -> Subject:
    """Load a model, on the accelerator where there is one.

    Raises:
        OSError: there is no such model.
        ValueError: its labels do not say real and fake.
    """
    detector = load_detector(name, place)
    return Subject(name=name, place=place, detector=detector, methods=fitting_methods(detector.model))


def training_of(place: str) -> dict[str, Any] | None:
    """Say how a model of train.py was trained: seed, epochs, pictures, accuracy on its test; None for other places."""
    folder = Path(place).expanduser()
    if not all((folder / name).is_file() for name in (PASSPORT, METRICS)):
        return None
    passport, measured = (json.loads((folder / name).read_text()) for name in (PASSPORT, METRICS))
    asked = passport["arguments"]
    accuracy = measured["test"]["accuracy"]["value"]
    n = passport["data"]["train"]["n"]
    return {"seed": asked["seed"], "epochs": asked["num_train_epochs"], "n": n, "accuracy": accuracy}


def heats(explanations: Sequence[Explanation]) -> NDArray[np.float32]:
    """Stack the maps of explanations of one method: (n, grid_h, grid_w) in [0, 1]."""
    return np.stack([explanation.map for explanation in explanations])


def as_pictures(pictures: NDArray[np.uint8]) -> list[Image.Image]:
    """Make Pillow pictures of (n, height, width, 3) uint8."""
    return [Image.fromarray(picture) for picture in pictures]
