"""Who is measured: trained models at their operating points, and the trivial baseline."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from transformers import AutoConfig, AutoImageProcessor

from realfake_hf.crosseval.arguments import TRIVIAL
from realfake_hf.crosseval.baseline import TrivialBaseline, small_pictures
from realfake_hf.crosseval.datasets import TestSet
from realfake_hf.data.decoding import to_rgb
from realfake_hf.data.duplicates import absent_from
from realfake_hf.detector import Detector, load_detector
from realfake_hf.labels import fake_index
from realfake_hf.metrics.operating_point import OperatingPoint, load_operating_point
from realfake_hf.metrics.out_of_distribution import FAMILIARITY
from realfake_hf.run_folder import RECORD

_OF_WEIGHTS: Final = (".safetensors", ".bin")


@dataclass(frozen=True, kw_only=True)
class Entrant:
    """Something that gives pictures a probability.

    Attributes:
        name: what it is called.
        place: its folder or Hub id; for the baseline, the data that it learned from.
        point: the threshold that it goes out with.
        digest: names its weights.
        trained_on: the source that it learnt from, as its passport names it; None where it carries none.
        detector: the model, where it is one.
        score: takes RGB pictures and gives (n,) `p_fake` in [0, 1].
    """

    name: str
    place: str
    point: OperatingPoint
    digest: str
    trained_on: str | None = None
    detector: Detector | None = None
    score: Callable[[Sequence[Image.Image]], NDArray[np.floating]]


def check_models(places: Mapping[str, str]) -> None:
    """Make sure, without their weights, that all models can be loaded, say real and fake, and carry readable points.

    Raises:
        OSError: there is no such model, or a part of it is missing.
        ValueError: a model's labels are others than real and fake, or its operating point cannot be read.
    """
    for name, place in places.items():
        try:
            fake_index(_labels(name, place))
        except ValueError as error:
            raise ValueError(f"cannot measure {name}: {error}") from error
        _refuse_incomplete(name, place)
        load_operating_point(place)


def _labels(name: str, place: str) -> dict[int, str]:
    try:
        return AutoConfig.from_pretrained(Path(place).expanduser()).id2label  # type: ignore[no-any-return]
    except OSError as error:
        reason = str(error).strip().splitlines()[0]
        raise OSError(
            f"wanted a folder of train.py or a Hub id as {name}; found none at {place!r} ({reason})."
        ) from error


def _refuse_incomplete(name: str, place: str) -> None:
    folder = Path(place).expanduser()
    if folder.is_dir() and not any(
        file.suffix in _OF_WEIGHTS and file.name != FAMILIARITY for file in folder.iterdir()
    ):
        raise OSError(f"wanted weights beside the config.json of {name}; found none in {place}. Copy the whole model.")
    try:
        AutoImageProcessor.from_pretrained(folder, backend="pil")  # type: ignore[no-untyped-call]
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise OSError(
            f"wanted a preprocessor_config.json beside the config.json of {name}; found none at {place!r} ({reason}). "
            "Add the one that the model was trained with."
        ) from error


def load_model(name: str, place: str, *, bf16: bool = False) -> Entrant:
    """Load a model that `check_models` has seen, on the accelerator where there is one.

    Args:
        name: what it is called.
        place: its folder or Hub id.
        bf16: whether it computes in bfloat16, as other weights with other scores.
    """
    detector = load_detector(name, place)
    if bf16:
        detector.model.to(torch.bfloat16)
    return Entrant(
        name=name,
        place=place,
        point=detector.point,
        digest=detector.digest(),
        trained_on=_trained_on(Path(place).expanduser()),
        detector=detector,
        score=detector.probabilities,
    )


def _trained_on(folder: Path) -> str | None:
    file = folder / RECORD
    return json.loads(file.read_text(encoding="utf-8"))["arguments"]["data"] if file.is_file() else None


def fit_trivial(training: TestSet, test_sets: Sequence[TestSet]) -> Entrant:
    """Fit the trivial baseline on training pictures, none of which is measured.

    Raises:
        ValueError: all of them are measured.
    """
    own, source = list(chain.from_iterable(training.digests())), training.source
    kept = np.flatnonzero(absent_from(own, chain.from_iterable(one.digests() for one in test_sets)))
    is_fake = training.is_fake[kept]
    if len(set(is_fake.tolist())) < 2:  # noqa: PLR2004 - both labels
        raise ValueError(
            f"wanted real and fake training pictures in {source} beside those that are measured; found "
            f"{int((~is_fake).sum())} and {int(is_fake.sum())}. Name other --baseline_data."
        )
    baseline = TrivialBaseline(small_pictures([to_rgb(one) for one in training.rows.select(kept)["image"]]), is_fake)
    point = OperatingPoint(0.5, "one half: a baseline has no validation split")

    def score(pictures: Sequence[Image.Image]) -> NDArray[np.floating]:
        return baseline.probabilities(small_pictures(pictures))

    place = f"{len(kept):,} training pictures of {source}"
    return Entrant(name=TRIVIAL, place=place, point=point, digest=baseline.digest(), trained_on=source, score=score)
