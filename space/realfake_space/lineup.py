"""The models of the page: loaded when first asked for, one question at a time each."""

import threading
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Final

from PIL import Image

from realfake_hf.detector import Detector
from realfake_hf.explain.attention_methods import lack_of_class_token
from realfake_hf.explain.methods import ATTENTION_METHODS, METHODS, Explanation, usual_method
from realfake_hf.labels import Verdict

MODELS: Final = Path(__file__).resolve().parents[1] / "models"
METHOD_WORDS: Final[Mapping[str, str]] = {
    "rollout": "attention rollout",
    "last_attention": "last attention",
    "gradient_rollout": "gradient rollout",
    "relevance": "relevance",
    "grad_cam": "Grad-CAM",
    "integrated_gradients": "integrated gradients",
}  # by their names in METHODS
BATCH: Final = 32  # pictures that go through a model at once


class Contestant:
    """One model of the page.

    Args:
        name: what the page calls it.
        place: its folder or Hub id.
        trust_remote_code: whether code that comes with it may run; the operator says so.
    """

    def __init__(self, name: str, place: str, *, trust_remote_code: bool = False) -> None:
        self.name = name
        self.place = place
        self._trust = trust_remote_code
        self._lock = threading.RLock()

    @property
    def detector(self) -> Detector:
        """The model, loaded on the first call.

        Raises:
            OSError: there is no such model, or its weights are not safetensors.
            ValueError: its labels do not say real and fake.
        """
        with self._lock:
            return self._loaded

    @cached_property
    def _loaded(self) -> Detector:
        return Detector.from_pretrained(
            self.place, batch_size=BATCH, trust_remote_code=self._trust, only_safetensors=True
        )

    @cached_property
    def digest(self) -> str:
        """Names its weights."""
        return self.detector.digest()

    @property
    def methods(self) -> tuple[str, ...]:
        """The methods of explanation that fit the model, its usual one first."""
        model = self.detector.model
        fitting = [name for name in METHODS if name not in ATTENTION_METHODS or not lack_of_class_token(model)]
        usual = usual_method(model)
        return (usual, *(name for name in fitting if name != usual))

    @property
    def side(self) -> tuple[int, int]:
        """(width, height) in pixels of what the model sees."""
        size = self.detector.processor.to_dict()["size"]
        return (size["width"], size["height"]) if "width" in size else (size["shortest_edge"],) * 2

    def judge(self, pictures: Sequence[Image.Image]) -> list[Verdict]:
        """Judge pictures, one verdict each."""
        with self._lock:
            return self.detector.predict(pictures)

    def explain(self, picture: Image.Image, method: str) -> Explanation:
        """Show where the model looked.

        Raises:
            ValueError: the method is none, or does not fit the model.
        """
        with self._lock:
            return self.detector.explain(picture, method=method)[0]


def line_up(places: Sequence[str], *, trust_remote_code: bool = False) -> dict[str, Contestant]:
    """Name the models of the page, without loading them: a folder by its last part, a Hub id by itself.

    Args:
        places: folders or Hub ids; none for all folders of `models/`.
        trust_remote_code: whether code that comes with them may run.

    Raises:
        ValueError: two have one name.
    """
    found = list(places) or [str(folder) for folder in sorted(MODELS.iterdir()) if folder.is_dir()]
    names = [Path(place).resolve().name if Path(place).is_dir() else place for place in found]
    if len(set(names)) < len(names):
        raise ValueError(f"wanted models of different names; found {', '.join(names)}. Rename a folder.")
    return {
        name: Contestant(name, place, trust_remote_code=trust_remote_code)
        for name, place in zip(names, found, strict=True)
    }
