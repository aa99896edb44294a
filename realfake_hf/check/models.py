"""Find the model that judges: in the package, in the checkout, in a folder, or on the Hub."""

import logging
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from PIL import Image

from realfake_hf.labels import Verdict
from realfake_hf.metrics.operating_point import OperatingPoint
from realfake_hf.network import offline_if_unreachable
from realfake_hf.onnx_detector import GRAPH, OnnxDetector
from realfake_hf.places import default_model

if TYPE_CHECKING:
    from realfake_hf.data.framing import Framing

logger = logging.getLogger(__name__)

_HUB_ID: Final = re.compile(r"[\w.-]+/[\w.-]+")
_FILES: Final = ["*.json", "*.safetensors", GRAPH]  # no code


class Judge(Protocol):
    """What judges images: `Detector` or `OnnxDetector`."""

    point: OperatingPoint

    def predict(self, images: Iterable[Image.Image]) -> list[Verdict]:
        """Return one verdict for each RGB image."""


@dataclass(frozen=True)
class LoadedModel:
    """A model, its place, and how it fits images into its input; None for several views."""

    place: str
    judge: Judge
    framing: "Framing | None" = None


def load_model(place: str | None = None, *, revision: str = "main") -> LoadedModel:
    """Load a model from a folder or the Hub, from where it is downloaded once; None means the default model.

    A model with a graph needs neither PyTorch nor transformers.

    Raises:
        OSError: there is no such model.
        ValueError: a file of it is damaged, or PyTorch is not installed.
    """
    name = os.fspath(place or default_model())
    folder = Path(name).expanduser()
    if not folder.is_dir() and _HUB_ID.fullmatch(name):
        folder = _download(name, revision)
    if (folder / GRAPH).is_file():
        return LoadedModel(str(folder), OnnxDetector(folder))
    if find_spec("torch") is None:
        raise ValueError(
            f"expected PyTorch for the model {name}; found none. Install realfake-hf[train], or leave --model out."
        )
    from realfake_hf.data.framing import measure_framing
    from realfake_hf.detector import Detector

    detector = Detector.from_pretrained(folder, bf16=True)
    return LoadedModel(str(folder), detector, measure_framing(detector.processor))


def _download(name: str, revision: str) -> Path:
    """Download a model unless it was before, with a bar, and return its folder; log the commit to pin."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        with offline_if_unreachable():
            folder = Path(snapshot_download(name, revision=revision, allow_patterns=_FILES))
    except (OSError, ValueError, HfHubHTTPError) as error:
        reason = str(error).strip().splitlines()[0]
        raise OSError(
            f"expected a model {name!r} on the Hub, or a folder of that name; found none ({reason})."
        ) from error
    if revision != folder.name:
        logger.info("%s at commit %s; to keep to it, add --revision %s", name, folder.name, folder.name)
    return folder
