"""What is done in the models' own process: uploads are opened and judged there, away from the threads of the page.

All that goes in and comes out is plain enough to be pickled.
"""

import gc
import os
import signal
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from multiprocessing import parent_process
from multiprocessing.connection import wait
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from transformers.utils.logging import disable_progress_bar

from realfake_hf.attribution.explain import default_method, fitting_methods
from realfake_hf.attribution.methods import method_name
from realfake_hf.data.metadata import FileMetadata
from realfake_hf.data.pixels import resize_image
from realfake_hf.detector import Detector
from realfake_hf.labels import Verdict
from realfake_hf.metrics.operating_point import OperatingPoint
from realfake_hf.models.cpu import is_bfloat16
from realfake_hf.parallel import available_cores
from realfake_space.pictures import RefusedError, open_upload

BATCH: Final = 32  # pictures that go through a model at once
SHOWN_SIDE: Final = 768  # pixels of the longer side of a picture under its map


@dataclass(frozen=True)
class Source:
    """Where a model comes from.

    Attributes:
        place: its folder or Hub id.
        trust_remote_code: whether code that comes with it may run; the operator says so.
        revision: the commit, tag or branch of a Hub id.
        float32: judge in float32 also where the processor multiplies in bfloat16 faster.
    """

    place: str
    trust_remote_code: bool = False
    revision: str = "main"
    float32: bool = False


@dataclass(frozen=True)
class ModelFacts:
    """What the page needs to know of a model.

    Attributes:
        point: its threshold and unsure band.
        methods: of explanation that fit it, its usual one first.
        side: (width, height) in pixels of what it sees.
        digest: names its weights.
        precision: of its verdicts, float32 or bfloat16.
    """

    point: OperatingPoint
    methods: tuple[str, ...]
    side: tuple[int, int]
    digest: str
    precision: str


@dataclass(frozen=True)
class Judged:
    """What came of one upload.

    Attributes:
        verdict: of the model.
        size: (width, height) in pixels of the upright picture.
        claims: what its file says of itself.
    """

    verdict: Verdict
    size: tuple[int, int]
    claims: FileMetadata


def begin() -> None:
    """Prepare the models' process: it leaves interrupts to the page, and goes when the page is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(max(1, available_cores() - 1))  # one is the page's
    gc.freeze()  # what is imported stays, and need not be looked through for garbage
    disable_progress_bar()  # type: ignore[no-untyped-call]  # of weight files
    threading.Thread(target=_leave_with_the_page, daemon=True).start()


def _leave_with_the_page() -> None:
    page = parent_process()
    if page is not None:
        wait([page.sentinel])
        os._exit(0)


@cache
def _detector(source: Source) -> Detector:
    return Detector.from_pretrained(
        source.place, batch_size=BATCH, trust_remote_code=source.trust_remote_code, only_safetensors=True,
        revision=source.revision, bf16=not source.float32,
    )  # fmt: skip


def facts_of(source: Source) -> ModelFacts:
    """Load a model where it is not loaded yet, and say what the page needs to know of it.

    Raises:
        OSError: there is no such model, or its weights are not safetensors.
        ValueError: its labels do not say real and fake.
    """
    detector = _detector(source)
    default = default_method(detector.model)
    size = detector.processor.to_dict()["size"]
    return ModelFacts(
        point=detector.point,
        methods=(default, *(method for method in fitting_methods(detector.model) if method != default)),
        side=(size["width"], size["height"]) if "width" in size else (size["shortest_edge"],) * 2,
        digest=detector.digest(),
        precision="bfloat16" if is_bfloat16(detector.judge_model) else "float32",
    )


def judge(source: Source, paths: Sequence[str | None]) -> list[Judged | str | None]:
    """Judge uploads in order; a sentence for a file that gets no verdict, None where there is no file."""
    detector = _detector(source)
    opened = [_open(path, detector) for path in paths]
    verdicts = iter(detector.predict([one.fitted for one in opened if isinstance(one, _Opened)]))
    return [Judged(next(verdicts), one.size, one.claims) if isinstance(one, _Opened) else one for one in opened]


def explain(source: Source, path: str, method: str | None, strength: float) -> tuple[bytes, dict[str, Any]]:
    """Lay a map over an upload, as the bytes of a PNG, and say what it is; the usual method where none is named.

    Raises:
        RefusedError: the file gets no verdict.
        ValueError: the method does not fit the model.
    """
    detector = _detector(source)
    picture, _ = open_upload(path)
    [found] = detector.explain(picture, method=method or default_method(detector.model))
    picture.thumbnail((SHOWN_SIDE, SHOWN_SIDE))
    shown = found.overlay(detector.view(picture), strength=strength)
    about = {
        "method": found.method,
        "explains": found.target,
        "p_fake": round(found.verdict.p_fake, 6),
        "is_empty": found.is_empty,
        "grid": [[round(float(value), 4) for value in row] for row in found.map],
        "note": f"{method_name(found.method)}; a claim about the model, no proof about the picture",
    }
    return _png(shown), about


def _png(pixels: NDArray[np.uint8]) -> bytes:
    """Encode quickly: a person waits, and the file is looked at once."""
    stream = BytesIO()
    Image.fromarray(pixels).save(stream, "PNG", compress_level=1)
    return stream.getvalue()


@dataclass(frozen=True)
class _Opened:
    """An upload, as little of it as is needed: the whole picture of each of a batch would fill the memory."""

    fitted: Image.Image
    size: tuple[int, int]
    claims: FileMetadata


def _open(path: str | None, detector: Detector) -> _Opened | str | None:
    try:
        if path is None:
            return None
        picture, claims = open_upload(path)
        return _Opened(resize_image(picture, detector.processor), picture.size, claims)
    except RefusedError as error:
        return str(error)
