"""The floor under every detector: logistic regression on colours and spectra, which knows nothing of what is shown."""

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

SIDE: Final = 32  # pixels to which each picture is brought
RADII: Final = SIDE // 2 + 1  # of the spectrum; higher frequencies, in the corners, count into the last


class TrivialBaseline:
    """Logistic regression on `trivial_features`.

    Args:
        pictures: (n, 32, 32, 3) uint8, of training pictures.
        is_fake: (n,) the truth, both labels.
    """

    def __init__(self, pictures: NDArray[np.uint8], is_fake: NDArray[np.bool_]) -> None:
        self._model: Any = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
        with threadpool_limits(1):  # a sum that cores share depends in its last digit on how many there are
            self._model.fit(trivial_features(pictures), is_fake)

    def probabilities(self, pictures: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Give `p_fake` of (n, 32, 32, 3) uint8 pictures: (n,) in [0, 1]."""
        return self._model.predict_proba(trivial_features(pictures))[:, 1]  # type: ignore[no-any-return]

    def digest(self) -> str:
        """Name what was learned: SHA-256 of the weights."""
        learned = self._model[-1]
        return hashlib.sha256(learned.coef_.tobytes() + learned.intercept_.tobytes()).hexdigest()


def small_pictures(pictures: Sequence[Image.Image]) -> NDArray[np.uint8]:
    """Bring RGB pictures to (n, 32, 32, 3) uint8, bicubic; one that has the size already is left as it is."""
    return np.stack([np.asarray(picture.resize((SIDE, SIDE), Image.Resampling.BICUBIC)) for picture in pictures])


def trivial_features(pictures: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Describe pictures by colour and spectrum.

    Args:
        pictures: (n, 32, 32, 3) uint8 [0, 255].

    Returns:
        (n, 74): mean and standard deviation of each channel; then, for each channel and for grey, the mean logarithm
        of the power at each of 17 radii of the spectrum.
    """
    values = pictures.astype(np.float64) / 255
    planes = np.concatenate([values, values.mean(axis=-1, keepdims=True)], axis=-1).transpose(0, 3, 1, 2)
    power = np.log(np.abs(np.fft.fft2(planes)) ** 2 + 1e-8).reshape(len(pictures), 4, -1)
    frequency = np.fft.fftfreq(SIDE, 1 / SIDE)
    radius = np.minimum(np.hypot(*np.meshgrid(frequency, frequency)).round().astype(int).ravel(), RADII - 1)
    ring = np.eye(RADII)[radius] / np.bincount(radius)  # (pixels, radii), columns summing to 1
    return np.concatenate(
        [values.mean(axis=(1, 2)), values.std(axis=(1, 2)), (power @ ring).reshape(len(pictures), -1)], axis=1
    )
