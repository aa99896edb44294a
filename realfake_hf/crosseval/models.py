"""The models of a grid: trained detectors at their operating points, and a trivial baseline.

The baseline is a logistic regression on colours and power spectra of small images, blind to their content.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from realfake_hf.crosseval.arguments import TRIVIAL
from realfake_hf.crosseval.datasets import EvalDataset
from realfake_hf.data.decoding import to_rgb
from realfake_hf.data.duplicates import absent_from
from realfake_hf.detector import Detector, load_detector
from realfake_hf.metrics.operating_point import OperatingPoint, load_operating_point
from realfake_hf.metrics.out_of_distribution import FAMILIARITY
from realfake_hf.models.checkpoint import fake_output, load_config, load_processor
from realfake_hf.run_folder import read_record

SIDE: Final = 32  # pixels of the resized images
RADII: Final = SIDE // 2 + 1  # radii of the spectrum; the last radius includes the higher frequencies in the corners


@dataclass(frozen=True, kw_only=True)
class Model:
    """A named model that scores images."""

    name: str
    place: str  # folder or Hub id; for the baseline, a description of its training data
    point: OperatingPoint
    digest: str  # hash of the weights
    trained_on: str | None = None  # source of the training data, as recorded in `run.json`; None if unknown
    detector: Detector | None = None  # detector with these weights; None for the baseline
    # function from n RGB images to (n,) `p_fake` in [0, 1], calibrated by the temperature of the operating point
    score: Callable[[Sequence[Image.Image]], NDArray[np.floating]]


def check_models(places: Mapping[str, str]) -> None:
    """Check configuration, processor and operating point of each model by its folder or Hub id, without weights."""
    for name, place in places.items():
        folder = Path(place).expanduser()
        try:
            config = load_config(place)
            fake_output(config)
            weights = {*folder.glob("*.safetensors"), *folder.glob("*.bin")} - {folder / FAMILIARITY}
            if folder.is_dir() and not weights:
                raise OSError(f"expected weights beside the config.json in {place}; found none. Copy all files.")
            load_processor(place, config)
            load_operating_point(place)
        except (OSError, ValueError) as error:
            kind = OSError if isinstance(error, OSError) else ValueError
            raise kind(f"cannot evaluate {name}: {error}") from error


def load_model(name: str, place: str, *, bf16: bool = False) -> Model:
    """Load a model that passed `check_models` onto the accelerator, if there is one.

    `bf16` converts the weights to bfloat16, which changes digest and scores.
    """
    detector = load_detector(name, place)
    if bf16:
        detector.model.to(torch.bfloat16)
    record = read_record(Path(place).expanduser())
    return Model(
        name=name,
        place=place,
        point=detector.point,
        digest=detector.digest(),
        trained_on=record["arguments"].get("data") if record else None,
        detector=detector,
        score=detector.probabilities,
    )


def fit_baseline(training: EvalDataset, datasets: Sequence[EvalDataset]) -> Model:
    """Fit the trivial baseline on the training images that occur in no evaluated data set."""
    digests, source = chain.from_iterable(training.digests()), training.source
    evaluated = chain.from_iterable(dataset.digests() for dataset in datasets)
    rows = np.flatnonzero(absent_from(list(digests), evaluated))
    is_fake = training.is_fake[rows]
    if is_fake.all() or not is_fake.any():
        raise ValueError(
            f"expected real and fake training images in {source} that are not evaluated; found "
            f"{(~is_fake).sum()} and {is_fake.sum()}. Choose other --baseline_data."
        )
    baseline = fit_trivial(shrink([to_rgb(image) for image in training.rows.select(rows)["image"]]), is_fake)
    regression = baseline[-1]
    return Model(
        name=TRIVIAL,
        place=f"{len(rows):,} training images of {source}",
        point=OperatingPoint(0.5, "one half: a baseline has no validation split"),
        digest=hashlib.sha256(regression.coef_.tobytes() + regression.intercept_.tobytes()).hexdigest(),
        trained_on=source,
        score=lambda images: baseline.predict_proba(trivial_features(shrink(images)))[:, 1],
    )


def fit_trivial(images: NDArray[np.uint8], is_fake: NDArray[np.bool_]) -> Pipeline:
    """Fit a logistic regression on `trivial_features` of (n, 32, 32, 3) uint8 images of both labels."""
    with threadpool_limits(1):  # the last digits of sums depend on the number of threads
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
        return model.fit(trivial_features(images), is_fake)


def shrink(images: Sequence[Image.Image]) -> NDArray[np.uint8]:
    """Resize RGB images to (n, 32, 32, 3) uint8, bicubic; images of that size keep their pixels."""
    return np.stack([np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BICUBIC)) for image in images])


def trivial_features(images: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Compute colour and spectrum features of images (n, 32, 32, 3), uint8 [0, 255]: (n, 74).

    They are mean and standard deviation of each channel; then, for each channel and their mean, the mean log power at
    each of 17 radii of the spectrum.
    """
    values = images.astype(np.float64) / 255
    planes = np.concatenate([values, values.mean(axis=-1, keepdims=True)], axis=-1).transpose(0, 3, 1, 2)
    power = np.log(np.abs(np.fft.fft2(planes)) ** 2 + 1e-8).reshape(len(images), 4, -1)
    frequency = np.fft.fftfreq(SIDE, 1 / SIDE)
    radius = np.minimum(np.hypot(*np.meshgrid(frequency, frequency)).round().astype(int).ravel(), RADII - 1)
    ring = np.eye(RADII)[radius] / np.bincount(radius)  # (pixels, radii), columns summing to 1
    return np.concatenate(
        [values.mean(axis=(1, 2)), values.std(axis=(1, 2)), (power @ ring).reshape(len(images), -1)], axis=1
    )
