"""The models of the page: loaded when first asked for, one question at a time each."""

import json
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any, Final, TypeVar

from realfake_hf.detector import Detector
from realfake_hf.explain.attention_methods import lack_of_class_token
from realfake_hf.explain.methods import ATTENTION_METHODS, METHODS, usual_method

Result = TypeVar("Result")

MODELS: Final = Path(__file__).resolve().parents[1] / "models"
PINNED: Final = MODELS.with_name("pinned.json")
BATCH: Final = 32  # pictures that go through a model at once


class Contestant:
    """One model of the page.

    Args:
        name: what the page calls it.
        place: its folder or Hub id.
        trust_remote_code: whether code that comes with it may run; the operator says so.
        revision: the commit, tag or branch of a Hub id.
    """

    def __init__(self, name: str, place: str, *, trust_remote_code: bool = False, revision: str = "main") -> None:
        self.name = name
        self.place = place
        self._revision = revision
        self._trust = trust_remote_code
        self._lock = threading.Lock()  # of the weights, until they are loaded
        self._worker = ThreadPoolExecutor(1, thread_name_prefix=name)

    def work(self, call: Callable[..., Result], *arguments: Any) -> Result:  # noqa: ANN401 - those of the call
        """Do something with the model in its own thread, one call after the other.

        A thread that decodes pictures and runs models keeps some of their memory, so that few should.
        """
        return self._worker.submit(call, *arguments).result()

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
            self.place, batch_size=BATCH, trust_remote_code=self._trust, only_safetensors=True, revision=self._revision
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

    @cached_property
    def side(self) -> tuple[int, int]:
        """(width, height) in pixels of what the model sees."""
        size = self.detector.processor.to_dict()["size"]
        return (size["width"], size["height"]) if "width" in size else (size["shortest_edge"],) * 2


def line_up(places: Sequence[str], *, trust_remote_code: bool = False) -> dict[str, Contestant]:
    """Name the models of the page, without loading them: a folder by its last part, a Hub id by itself.

    Args:
        places: folders or Hub ids; none for those that `pinned.json` names with their revisions, and where there is no
            such file for all folders of `models/`.
        trust_remote_code: whether code that comes with them may run.

    Raises:
        ValueError: two have one name.
    """
    pinned = json.loads(PINNED.read_text(encoding="utf-8")) if PINNED.is_file() and not places else {}
    found = list(places) or list(pinned) or [str(folder) for folder in sorted(MODELS.iterdir()) if folder.is_dir()]
    names = [Path(place).resolve().name if Path(place).is_dir() else place for place in found]
    if len(set(names)) < len(names):
        raise ValueError(f"wanted models of different names; found {', '.join(names)}. Rename a folder.")
    return {
        name: Contestant(name, place, trust_remote_code=trust_remote_code, revision=pinned.get(place, "main"))
        for name, place in zip(names, found, strict=True)
    }
