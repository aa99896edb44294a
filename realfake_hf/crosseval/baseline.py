"""A trivial baseline: logistic regression on colours and power spectra of small images, blind to their content."""

import hashlib
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

SIDE: Final = 32  # pixels of the resized images
RADII: Final = SIDE // 2 + 1  # radii of the spectrum; the last radius includes the higher frequencies in the corners


class TrivialBaseline:
    """Logistic regression on `trivial_features` of (n, 32, 32, 3) uint8 training images of both labels."""

    def __init__(self, images: NDArray[np.uint8], is_fake: NDArray[np.bool_]) -> None:
        self._model: Any = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
        with threadpool_limits(1):  # the last digits of sums depend on the number of threads
            self._model.fit(trivial_features(images), is_fake)

    def probabilities(self, images: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Return `p_fake` of (n, 32, 32, 3) uint8 images: (n,) in [0, 1]."""
        return self._model.predict_proba(trivial_features(images))[:, 1]  # type: ignore[no-any-return]

    def digest(self) -> str:
        """Return the SHA-256 of the weights."""
        regression = self._model[-1]
        return hashlib.sha256(regression.coef_.tobytes() + regression.intercept_.tobytes()).hexdigest()


def shrink(images: Sequence[Image.Image]) -> NDArray[np.uint8]:
    """Resize RGB images to (n, 32, 32, 3) uint8, bicubic; images of that size keep their pixels."""
    return np.stack([np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BICUBIC)) for image in images])


def trivial_features(images: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Compute colour and spectrum features of images (n, 32, 32, 3), uint8 [0, 255].

    Returns:
        (n, 74): mean and standard deviation of each channel; then, for each channel and their mean, the mean log power
        at each of 17 radii of the spectrum.
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
