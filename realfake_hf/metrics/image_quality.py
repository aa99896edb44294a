"""How much of a picture is left for a detector: its size, the strength of its compression, and its detail.

All is measured on decoded pixels, so that a screenshot of a JPEG file counts as the JPEG file.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.fft import dctn, rfft2

UNCOMPRESSED: Final = 100.0  # JPEG quality if no trace of quantisation is found

_CROP: Final = 512  # pixels of the side of the part that is measured
_BLOCK: Final = 8  # side of a JPEG block
_MAX_STEP: Final = 121  # of the quantisation steps that are looked for
_HALF_BINS: Final = 512  # coefficients are counted in bins of one half, up to 256
_LEAST_FIT: Final = 0.5  # 1 if all coefficients are multiples of a step, near 0 without quantisation
_NEAR: Final = 0.75  # of the largest step that fits
_LEAST_N: Final = 24  # coefficients of a frequency from which a step is estimated
_LEAST_STEPS: Final = 3  # frequencies with a step, or there is no trace of quantisation
_WHITE: Final = 0.95  # share of the whitened spectrum
_TABLE: Final = np.array(  # luminance quantisation of quality 50 (ITU-T T.81, table K.1), of the lower frequencies
    [[16, 11, 10, 16, 24], [12, 12, 14, 19, 26], [14, 13, 16, 24, 40], [14, 17, 22, 29, 51], [18, 22, 37, 56, 68]]
)

Luma = NDArray[np.float32]


@dataclass(frozen=True)
class ImageQuality:
    """The quality of an image."""

    short_side: int  # of the image in pixels
    jpeg: float  # estimated quality of the last JPEG compression, 1 to 100; 100 if there is no trace of one
    # how much larger steps between neighbouring pixels are at the borders of 8 x 8 blocks than within them, relative
    # to these; about 0 without compression
    blockiness: float
    # share of the resolution that the image uses, in [0, 1]: about 1 for a sharp image, and 0.5 for one that was
    # enlarged twofold
    detail: float


def measure_quality(image: Image.Image) -> ImageQuality:
    """Measure the quality of an RGB image in its centre, at most 512 x 512 pixels."""
    luma = _central_luma(image)
    offset, blockiness = _find_grid(luma)
    jpeg = min(_jpeg_quality(luma[top:, left:]) for top, left in {offset, (0, 0)})
    return ImageQuality(min(image.size), jpeg, blockiness, _detail(luma))


def _central_luma(image: Image.Image) -> Luma:
    """Crop the luma, (height, width), so that the upper left corner is one of a block of the image."""
    (width, height), half = image.size, _CROP // 2
    left, top = (max(0, length // 2 - half) // _BLOCK * _BLOCK for length in (width, height))
    part = image.crop((left, top, min(left + _CROP, width), min(top + _CROP, height)))
    return np.asarray(part.convert("L"), dtype=np.float32)


def _find_grid(luma: Luma) -> tuple[tuple[int, int], float]:
    """Return the first row and column of the 8 x 8 grid, and the blockiness.

    Steps are compared with their two neighbours (Wang, Bovik & Evans, 2000, ICIP, "Blind measurement of blocking
    artifacts in images"; Wang, Sheikh & Bovik, 2002, ICIP, "No-reference perceptual quality assessment of JPEG
    compressed images"), at each of the eight offsets.
    """
    offsets, excess, inside = [], 0.0, 0.0
    for axis in (0, 1):
        steps = np.abs(np.diff(luma, axis=axis)).mean(axis=1 - axis) if luma.shape[axis] > 2 * _BLOCK else np.zeros(0)
        peaks = np.zeros(len(steps))
        peaks[1:-1] = steps[1:-1] - (steps[:-2] + steps[2:]) / 2
        means = np.array([peaks[phase::_BLOCK].mean() if len(steps) else 0.0 for phase in range(_BLOCK)])
        best = int(means.argmax())
        offsets.append((best + 1) % _BLOCK)
        excess += means[best] - np.partition(means, -2)[-2]
        inside += steps.mean() if len(steps) else 0.0
    return (offsets[0], offsets[1]), float(excess / inside) if inside else 0.0


def _jpeg_quality(luma: Luma) -> float:
    """Estimate the quality from the steps of which the DCT coefficients are multiples (Fan & de Queiroz, 2003).

    "Identification of bitmap compression history: JPEG detection and quantizer estimation", IEEE Transactions on
    Image Processing 12(2):230-235. The fit of a step q is the mean of cos(2 pi c / q) over the coefficients c that are
    not rounded to zero, and the largest step that fits counts.
    """
    rows, columns = (length // _BLOCK for length in luma.shape)
    blocks = luma[: rows * _BLOCK, : columns * _BLOCK].reshape(rows, _BLOCK, columns, _BLOCK)
    side = len(_TABLE)
    values = np.abs(dctn(blocks - 128, axes=(1, 3), norm="ortho")[:, :side, :, :side])
    bins = np.minimum((2 * values + 0.5).astype(np.intp), _HALF_BINS - 1).transpose(1, 3, 0, 2).reshape(side**2, -1)
    places = bins + _HALF_BINS * np.arange(side**2)[:, None]
    counts = np.bincount(places.ravel(), minlength=side**2 * _HALF_BINS).reshape(side**2, -1)[1:]  # without the mean
    step, value = np.arange(1, _MAX_STEP + 1)[:, None], np.arange(_HALF_BINS) / 2
    counted = value > step / 2  # (steps, bins)
    waves = counted * np.cos(2 * np.pi * value / step)
    n, fit = (np.einsum("fb,sb->fs", counts, each) for each in (counted, waves))  # (frequencies, steps)
    fit /= np.maximum(n, 1)
    fits = (fit > _LEAST_FIT) & (n >= _LEAST_N)
    found = fits.any(axis=1)
    if found.sum() < _LEAST_STEPS:
        return UNCOMPRESSED
    largest = _MAX_STEP - fits[found, ::-1].argmax(axis=1)
    near = fits[found] & (_NEAR * largest[:, None] <= step.T)  # neighbours of a step fit as well
    steps = 1 + np.where(near, fit[found], 0).argmax(axis=1)
    scale = float(np.median(100 * steps / _TABLE.ravel()[1:][found]))
    return min(UNCOMPRESSED, max(1.0, 100 - scale / 2 if scale < 100 else 5000 / scale))  # noqa: PLR2004 - as the IJG


def _detail(luma: Luma) -> float:
    """Return the share of the resolution below which 95% of the spectrum lies, multiplied by the squared frequency.

    The power of natural images falls with the squared frequency (Field, 1987, JOSA A 4:2379-2394); interpolation
    leaves nothing above the resolution of the smaller image.
    """
    if min(luma.shape) < 2 * _BLOCK:
        return 0.0
    window = np.outer(*(np.hanning(length) for length in luma.shape))
    power = np.abs(rfft2((luma - luma.mean()) * window.astype(np.float32))) ** 2
    down, across = np.fft.fftfreq(luma.shape[0])[:, None], np.fft.rfftfreq(luma.shape[1])[None]
    frequency = 2 * np.maximum(np.abs(down), across)  # of the Nyquist frequency
    rings = (frequency * 64).astype(np.intp).clip(max=63)
    power -= (window**2).sum() / 12  # of the rounding to integers
    energy = np.bincount(rings.ravel(), (power * (down**2 + across**2)).ravel(), minlength=64).clip(min=0).cumsum()
    return float(np.searchsorted(energy, _WHITE * energy[-1]) + 1) / 64 if energy[-1] else 0.0
