"""Predict and explain images in the process of the models, apart from the threads of the page.

All arguments and results pickle. Heavy imports happen in the functions, so that the page itself needs none of them.
"""

import gc
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from typing import TYPE_CHECKING, Any, Final

from PIL import Image

from realfake_hf.attribution.methods import method_name
from realfake_hf.data.framing import Framing, measure_framing
from realfake_hf.data.metadata import FileMetadata
from realfake_hf.labels import Verdict
from realfake_hf.metrics.operating_point import OperatingPoint
from realfake_space.reader import exit_with_the_page
from realfake_space.uploads import VIEW_SIDE, Geometry, RejectedError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from realfake_hf.detector import Detector

BATCH: Final = 32  # images of a forward pass


@dataclass(frozen=True)
class Source:
    """Where to load a model from, and how."""

    place: str  # its folder or Hub id
    trust_remote_code: bool = False  # whether code that comes with the model may run
    revision: str = "main"  # commit, tag or branch of a Hub id
    float32: bool = False  # predict in float32 also where bfloat16 is faster


@dataclass(frozen=True)
class ModelFacts:
    """What the page needs to know about a model."""

    point: OperatingPoint  # its threshold and unsure band
    methods: tuple[str, ...]  # the explanation methods that it supports, its default first
    framing: Framing | None  # how images fit into its input; None for several views
    # how Pillow resizes an image for it; None if its processor does more, or if its operating point has limits, which
    # apply to the whole image
    geometry: Geometry | None
    digest: str  # digest of its weights
    precision: str  # precision of its predictions, float32 or bfloat16


@dataclass(frozen=True)
class Prediction:
    """The result for one upload."""

    verdict: Verdict  # verdict of the model
    size: tuple[int, int]  # (width, height) of the upright image in pixels
    metadata: FileMetadata  # metadata of the file


def begin() -> None:
    """Initialize the process: it ignores interrupts, which the page handles, and ends with the page."""
    import torch

    import realfake_hf.detector  # noqa: F401
    from realfake_hf.parallel import available_cores

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(max(1, available_cores() - 1))  # one core is the page's
    gc.freeze()  # modules stay, and need not be searched for garbage
    threading.Thread(target=exit_with_the_page, daemon=True).start()


@cache
def _detector(source: Source) -> "Detector":
    from realfake_hf.detector import Detector

    return Detector.from_pretrained(
        source.place, batch_size=BATCH, trust_remote_code=source.trust_remote_code, only_safetensors=True,
        revision=source.revision, bf16=not source.float32,
    )  # fmt: skip


def facts_of(source: Source) -> ModelFacts:
    """Load a model, if necessary, and return what the page needs to know about it.

    Raises:
        OSError: there is no such model, or its weights are not safetensors.
        ValueError: its labels are not real and fake.
    """
    from realfake_hf.data.pixels import pillow_geometry
    from realfake_hf.models.cpu import is_bfloat16

    detector = _detector(source)
    return ModelFacts(
        point=detector.point,
        methods=detector.methods(),
        framing=measure_framing(detector.processor),
        geometry=None if detector.point.limits else pillow_geometry(detector.processor),
        digest=detector.digest(),
        precision="bfloat16" if is_bfloat16(detector.inference_model) else "float32",
    )


def predict(source: Source, images: "Sequence[NDArray[np.uint8]]") -> list[Verdict]:
    """Predict RGB images (height, width, 3), in order.

    Raises:
        RejectedError: the logits of an image are NaN or infinite, or the processor cannot take it.
    """
    with _rejections():
        return _detector(source).predict(images)


def explain(
    source: Source, image: "NDArray[np.uint8]", view: "NDArray[np.uint8] | None", method: str | None, strength: float
) -> tuple[bytes, dict[str, Any]]:
    """Return a map over an image as the bytes of a PNG, and its description.

    Args:
        source: of the model.
        image: (height, width, 3), perhaps already in the geometry of the model.
        view: what is shown under the map; None means the image.
        method: of the map; None means the default method.
        strength: opacity of the map.

    Raises:
        RejectedError: see `predict`.
        ValueError: the model does not support the method.
    """
    detector = _detector(source)
    with _rejections():
        [explanation] = detector.explain(image, method=method or detector.methods()[0])
    shown = Image.fromarray(image if view is None else view)
    shown.thumbnail((VIEW_SIDE, VIEW_SIDE))
    about = {
        "method": explanation.method,
        "explains": explanation.target,
        "p_fake": round(explanation.verdict.p_fake, 6),
        "is_empty": explanation.is_empty,
        "grid": explanation.to_rows(),
        "note": f"{method_name(explanation.method)}: describes the model, proves nothing about the image",
    }
    return _png(explanation.overlay(detector.view(shown), strength=strength)), about


@contextmanager
def _rejections() -> Iterator[None]:
    from realfake_hf.data.decoding import UnreadableImageError
    from realfake_hf.labels import NotFiniteError

    try:
        yield
    except NotFiniteError as error:
        raise RejectedError("No verdict: the model returned NaN or infinity for this image.") from error
    except UnreadableImageError as error:  # too elongated for the processor
        raise RejectedError(f"No verdict: {error.__cause__ or error}.") from error


def _png(pixels: "NDArray[np.uint8]") -> bytes:
    """Encode fast rather than small: someone is waiting, and the file is viewed once."""
    stream = BytesIO()
    Image.fromarray(pixels).save(stream, "PNG", compress_level=1)
    return stream.getvalue()
