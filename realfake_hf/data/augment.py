"""Random augmentation of training images, determined by seed, epoch and row alone.

Images are (height, width, 3) uint8 [0, 255]; corruptions return a new image of the same shape.
"""

import io
import math
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

CorruptionKind = Literal["jpeg", "blur", "noise", "rescale"]

CORRUPTION_KINDS: Final[tuple[CorruptionKind, ...]] = ("jpeg", "blur", "noise", "rescale")
JPEG_QUALITIES: Final = range(30, 101)  # CNNDetection (Wang et al., 2020)
NOISE_SIGMAS: Final = (2.0, 16.0)  # grey levels of 255
RESCALE_FACTORS: Final = (0.5, 1.0)  # the upper end, which changes nothing, is excluded
HIDDEN_GRID: Final = (8, 8)  # of cells, each hidden or not: that of the explanation study

_MIN_BLUR: Final = 0.3  # pixels; at 0.25 a neighbour has weight 0.0003, which rounding to 8 bits removes

# Index of each random number of an image; the values define the meaning of a seed and must not change.
_FLIP, _CROP_TOP, _CROP_LEFT, _ROBUST, _KIND, _STRENGTH, _NOISE, _HIDDEN, _CELLS = range(9)

_Pixels = NDArray[np.uint8]
_Hashes = NDArray[np.uint64]


@dataclass(frozen=True)
class Augmentation:
    """Random augmentation of training images; by default, none.

    Images are flipped, then cropped, then corrupted, so that JPEG blocks are aligned to the corner, as in the images
    that a detector receives; cells are hidden last. Each augmentation draws the same random numbers whether or not
    others are enabled.

    Args:
        flip: flip left to right with probability 0.5.
        crop_padding: pixels of reflection padding, from which a window of the original size is cropped at random; 0
            disables cropping.
        robust_share: probability in [0, 1] that an image is corrupted in an epoch. The corruption is drawn uniformly
            from `CORRUPTION_KINDS`, and its strength uniformly from its range.
        hidden_share: largest share in [0, 1] of the cells of `HIDDEN_GRID` that are replaced by the mean colour of the
            image. Their number in an epoch is drawn uniformly from 0 to this share, rounded down to whole cells.
        seed: any integer.
    """

    flip: bool = False
    crop_padding: int = 0
    robust_share: float = 0.0
    hidden_share: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.crop_padding < 0:
            raise ValueError(
                f"expected crop_padding of 0 or more pixels; found {self.crop_padding}. Use 0 to disable random crops."
            )
        if not 0 <= self.robust_share <= 1:
            raise ValueError(
                f"expected robust_share in [0, 1]; found {self.robust_share}. Use 0.3 to corrupt 30% of the images."
            )
        if not 0 <= self.hidden_share <= 1:
            raise ValueError(
                f"expected hidden_share in [0, 1]; found {self.hidden_share}. Use 0.5 to hide up to half of the cells."
            )

    def __call__(self, pixels: _Pixels, rows: NDArray[np.int64], *, epoch: int) -> _Pixels:
        """Augment a batch (batch, height, width, 3), given the row of each image in the data set (batch,).

        Each new image depends on the original, its row, the epoch and the seed alone. A `ValueError` is raised if the
        images are too small for the padding.
        """
        keys = _hashed(_hashed(_hashed(np.zeros(1, np.uint64), self.seed), epoch), rows.astype(np.uint64))
        augmented = np.array(pixels)
        if self.flip:
            chosen = _uniform(keys, _FLIP) < 0.5  # noqa: PLR2004
            backwards = np.arange(pixels.shape[2])[::-1]
            augmented[chosen] = augmented[chosen].take(backwards, axis=2)  # twice as fast as a step of -1
        if self.crop_padding:
            augmented = _cropped(augmented, keys, padding=self.crop_padding)
        if self.robust_share:
            _corrupt(augmented, keys, share=self.robust_share)
        if self.hidden_share:
            augmented = _with_hidden_cells(augmented, keys, share=self.hidden_share)
        return augmented


def jpeg(image: _Pixels, *, quality: int) -> _Pixels:
    """Compress an image with Pillow's JPEG encoder, of quality 1 to 100, with 4:2:0 chroma subsampling; decode it."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="JPEG", quality=quality, subsampling="4:2:0")
    return np.asarray(Image.open(buffer, formats=("JPEG",)))


def blur(image: _Pixels, *, sigma: float) -> _Pixels:
    """Apply a Gaussian blur with symmetric padding.

    Pillow's `GaussianBlur` is a sequence of box blurs, which is far from a Gaussian for sigma below 0.5. Sigma, in
    pixels, is at most a quarter of the shorter side, so that one reflection at each edge suffices.
    """
    blurred = image.astype(np.float32)
    for _ in range(2):  # blur the first axis and swap the axes
        blurred = np.tensordot(_gaussian(len(blurred), sigma), blurred, axes=1).transpose(1, 0, 2)
    return _rounded(blurred)


def noise(image: _Pixels, *, sigma: float, seed: int) -> _Pixels:
    """Add Gaussian noise of `sigma` grey levels, independent for each pixel and channel."""
    samples = np.random.default_rng(seed).standard_normal(image.shape, dtype=np.float32)
    return _rounded(image + np.float32(sigma) * samples)


def rescale(image: _Pixels, *, factor: float) -> _Pixels:
    """Downscale an image by a factor in (0, 1], rounding its sides down, and upscale it again, both bilinear."""
    height, width, _ = image.shape
    small = (max(1, math.floor(width * factor)), max(1, math.floor(height * factor)))
    bilinear = Image.Resampling.BILINEAR
    return np.asarray(Image.fromarray(image).resize(small, bilinear).resize((width, height), bilinear))


def blur_sigmas(height: int, width: int) -> tuple[float, float]:
    """Return the smallest and largest sigma, in pixels, that `Augmentation` draws for images of a size.

    CNNDetection (Wang et al., 2020) blurs crops of 224 pixels with sigma up to 3. At 32 pixels the limit is 1.5, which
    leaves 6% of the amplitude at half the Nyquist frequency, where generators leave traces; a sigma of 3 leaves none.
    The limit grows with the shorter side, up to 3 at 64 pixels and above.

    >>> blur_sigmas(32, 32), blur_sigmas(48, 640), blur_sigmas(224, 224)
    ((0.3, 1.5), (0.3, 2.25), (0.3, 3.0))
    """
    limit = min(height, width) * 1.5 / 32
    return _MIN_BLUR, min(max(limit, _MIN_BLUR), 3.0)


def _hashed(state: _Hashes, word: int | _Hashes) -> _Hashes:
    """Mix a word into 64-bit states as SplitMix64 does (Steele, Lea & Flood, 2014): a stateless generator."""
    added = np.uint64(word % 2**64) if isinstance(word, int) else word
    mixed = state + added + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def _uniform(keys: _Hashes, draw: int) -> NDArray[np.float64]:
    """Return a number in [0, 1) for each key, from its upper 53 bits, the precision of float64."""
    return (_hashed(keys, draw) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _cropped(pixels: _Pixels, keys: _Hashes, *, padding: int) -> _Pixels:
    batch, height, width, _ = pixels.shape
    if padding >= min(height, width):
        raise ValueError(
            f"expected images larger than the crop_padding of {padding} pixels; found {width}x{height} pixels. "
            "Decrease crop_padding."
        )
    padded = np.pad(pixels, ((0, 0), (padding, padding), (padding, padding), (0, 0)), mode="reflect")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (height, width), axis=(1, 2))
    positions = 2 * padding + 1
    top, left = (_uniform(keys, draw) * positions for draw in (_CROP_TOP, _CROP_LEFT))
    chosen = windows[np.arange(batch), top.astype(int), left.astype(int)]  # (batch, 3, height, width)
    return np.ascontiguousarray(chosen.transpose(0, 2, 3, 1))


def _corrupt(pixels: _Pixels, keys: _Hashes, *, share: float) -> None:
    chosen = np.flatnonzero(_uniform(keys, _ROBUST) < share)
    kinds = (_uniform(keys[chosen], _KIND) * len(CORRUPTION_KINDS)).astype(int).tolist()
    strengths = _uniform(keys[chosen], _STRENGTH).tolist()
    seeds = _hashed(keys[chosen], _NOISE).tolist()
    for position, kind, strength, seed in zip(chosen.tolist(), kinds, strengths, seeds, strict=True):
        pixels[position] = _corrupted(pixels[position], CORRUPTION_KINDS[kind], strength=strength, seed=seed)


def _corrupted(image: _Pixels, kind: CorruptionKind, *, strength: float, seed: int) -> _Pixels:
    """Corrupt one image; `strength`, in [0, 1), is its position in the range of the kind."""
    if kind == "jpeg":
        return jpeg(image, quality=JPEG_QUALITIES[int(strength * len(JPEG_QUALITIES))])
    low, high = {"blur": blur_sigmas(*image.shape[:2]), "noise": NOISE_SIGMAS, "rescale": RESCALE_FACTORS}[kind]
    value = low + (high - low) * strength
    if kind == "blur":
        return blur(image, sigma=value)
    return noise(image, sigma=value, seed=seed) if kind == "noise" else rescale(image, factor=value)


def _with_hidden_cells(pixels: _Pixels, keys: _Hashes, *, share: float) -> _Pixels:
    rows, columns = HIDDEN_GRID
    cells = rows * columns
    counts = (_uniform(keys, _HIDDEN) * (math.floor(share * cells) + 1)).astype(int)
    order = _hashed(_hashed(keys, _CELLS)[:, None], np.arange(cells, dtype=np.uint64)).argsort(axis=1)
    gone = (order.argsort(axis=1) < counts[:, None]).reshape(-1, rows, columns)
    _, height, width, _ = pixels.shape
    down, right = np.arange(height) * rows // height, np.arange(width) * columns // width
    means = _rounded(pixels.mean(axis=(1, 2), keepdims=True, dtype=np.float32))
    return np.where(gone[:, down[:, None], right, None], means, pixels)


def _gaussian(size: int, sigma: float) -> NDArray[np.float32]:
    """Return the blur matrix of one axis, (size, size), with one reflection beyond each edge; rows sum to 1."""
    kernel = np.exp(-0.5 * (np.arange(2 * size, dtype=np.float32) / np.float32(sigma)) ** 2)
    row, column = np.arange(size)[:, None], np.arange(size)
    weights: NDArray[np.float32] = (
        kernel[abs(row - column)] + kernel[row + column + 1] + kernel[2 * size - 1 - row - column]
    )
    weights /= weights.sum(axis=1, keepdims=True)
    return weights


def _rounded(values: NDArray[np.float32]) -> _Pixels:
    return np.rint(values).clip(0, 255).astype(np.uint8)
