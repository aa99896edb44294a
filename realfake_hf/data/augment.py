"""Change training pictures at random, so that what happens to each follows from seed, epoch and row alone."""

import io
import math
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Degradation = Literal["jpeg", "blur", "noise", "rescale"]

DEGRADATIONS: Final[tuple[Degradation, ...]] = ("jpeg", "blur", "noise", "rescale")
JPEG_QUALITIES: Final = range(30, 101)  # CNNDetection (Wang et al., 2020)
NOISE_SIGMAS: Final = (2.0, 16.0)  # grey levels of 255
RESCALE_FACTORS: Final = (0.5, 1.0)  # the upper end is never drawn: it would change nothing

_WEAKEST_BLUR: Final = 0.3  # pixels; at 0.25 the weight of a neighbour is 0.0003, and rounding to 8 bits undoes it
_STRONGEST_BLUR: Final = 3.0  # CNNDetection, on crops of 224 pixels
_STRONGEST_BLUR_PER_PIXEL: Final = 1.5 / 32

_Pixels = NDArray[np.uint8]
_Hashes = NDArray[np.uint64]


class _Draw(IntEnum):
    """What is drawn for a picture. The numbers are part of what a seed means: new draws go to the end."""

    FLIP = 0
    CROP_TOP = 1
    CROP_LEFT = 2
    ROBUST = 3
    KIND = 4
    STRENGTH = 5
    NOISE = 6


@dataclass(frozen=True)
class Augmentation:
    """Random changes to training pictures; as it stands, none.

    A picture is first mirrored, then cropped, and degraded last: a degraded picture that a detector meets comes whole,
    with the blocks of its JPEG file counted from its corner. The draws of one kind stay what they are when another
    kind is switched on or off.

    Args:
        flip: mirror left to right with probability one half.
        crop_padding: pixels of reflected border, of which a random window of the old size is cut; 0 for no crop.
        robust_share: which share of the pictures, in [0, 1], is degraded in each epoch, drawn picture by picture.
            Each gets one of `DEGRADATIONS`, all equally likely, with a strength from the whole of its range.
        seed: any integer; another seed draws everything anew.

    Raises:
        ValueError: the padding is negative, or the share is outside [0, 1].
    """

    flip: bool = False
    crop_padding: int = 0
    robust_share: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.crop_padding < 0:
            raise ValueError(
                f"wanted a crop padding of 0 or more pixels; found {self.crop_padding}. Use 0 for no random crops."
            )
        if not 0 <= self.robust_share <= 1:
            raise ValueError(
                f"wanted a share of degraded pictures in [0, 1]; found {self.robust_share}. Use 0.3 for 30 %."
            )

    def __call__(self, pixels: _Pixels, rows: NDArray[np.int64], *, epoch: int) -> _Pixels:
        """Draw the changes of some pictures in one epoch, and make them.

        Args:
            pixels: (batch, height, width, 3) uint8 [0, 255]; left as they are.
            rows: (batch,) where each picture stands in the whole set, from 0.
            epoch: from 0; each draws anew.

        Returns:
            A new array of the same shape. A picture's part of it depends on the picture, its row, the epoch and the
            seed alone: not on the batch, its order, or the process.

        Raises:
            ValueError: the pictures are too small for the padding.
        """
        keys = _hashed(_hashed(_hashed(np.zeros(1, np.uint64), self.seed), epoch), rows.astype(np.uint64))
        augmented = np.array(pixels)
        if self.flip:
            _mirror(augmented, _uniform(keys, _Draw.FLIP) < 0.5)  # noqa: PLR2004
        if self.crop_padding:
            augmented = _cropped(augmented, keys, padding=self.crop_padding)
        if self.robust_share:
            _degrade(augmented, keys, share=self.robust_share)
        return augmented


def jpeg(picture: _Pixels, *, quality: int) -> _Pixels:
    """Send a picture through Pillow's JPEG encoder, colours at half the resolution (4:2:0), and decode it.

    Args:
        picture: (height, width, 3) uint8 [0, 255].
        quality: 1 to 100, as libjpeg counts it.
    """
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="JPEG", quality=quality, subsampling="4:2:0")
    return np.asarray(Image.open(buffer, formats=("JPEG",)))


def blur(picture: _Pixels, *, sigma: float) -> _Pixels:
    """Blur a picture with a Gaussian, mirrored at the edges.

    Pillow's `GaussianBlur` is a chain of box blurs, far from a Gaussian below a sigma of 0.5; this is the real one.

    Args:
        picture: (height, width, 3) uint8 [0, 255].
        sigma: pixels, above 0; up to a quarter of the shorter side, where one mirror image at each edge is enough.
    """
    blurred = picture.astype(np.float32)
    for _ in range(2):  # along the first axis, which then becomes the second
        blurred = np.tensordot(_gaussian(len(blurred), sigma), blurred, axes=1).transpose(1, 0, 2)
    return _rounded(blurred)


def noise(picture: _Pixels, *, sigma: float, seed: int) -> _Pixels:
    """Add Gaussian noise, independent for every pixel and colour.

    Args:
        picture: (height, width, 3) uint8 [0, 255].
        sigma: grey levels.
        seed: of the noise, 0 or more.
    """
    grain = np.random.default_rng(seed).standard_normal(picture.shape, dtype=np.float32)
    return _rounded(picture + np.float32(sigma) * grain)


def rescale(picture: _Pixels, *, factor: float) -> _Pixels:
    """Shrink a picture and bring it back to its size, bilinear both ways.

    Args:
        picture: (height, width, 3) uint8 [0, 255].
        factor: in (0, 1]; the sides are rounded down, to 1 pixel at least.
    """
    height, width, _ = picture.shape
    small = (max(1, math.floor(width * factor)), max(1, math.floor(height * factor)))
    shrunk = Image.fromarray(picture).resize(small, Image.Resampling.BILINEAR)
    return np.asarray(shrunk.resize((width, height), Image.Resampling.BILINEAR))


def blur_sigmas(height: int, width: int) -> tuple[float, float]:
    """Give the weakest and strongest blur, in pixels, that `Augmentation` draws for pictures of a size.

    CNNDetection (Wang et al., 2020) blurs crops of 224 pixels with a sigma of up to 3. On 32 pixels a sigma of 1.5 is
    plenty: it leaves 6 % of the amplitude at half the highest frequency, where the traces of a generator lie, while 3
    leaves nothing there and smears a fifth of the picture into each point, so that the label becomes a guess. The
    limit grows with the shorter side, from 1.5 at 32 pixels to 3 at 64 and above.

    >>> blur_sigmas(32, 32), blur_sigmas(48, 640), blur_sigmas(224, 224)
    ((0.3, 1.5), (0.3, 2.25), (0.3, 3.0))
    """
    strongest = min(height, width) * _STRONGEST_BLUR_PER_PIXEL
    return _WEAKEST_BLUR, min(max(strongest, _WEAKEST_BLUR), _STRONGEST_BLUR)


def _hashed(state: _Hashes, word: int | _Hashes) -> _Hashes:
    """Mix a word into 64-bit states as SplitMix64 does (Steele, Lea & Flood, 2014): a generator without a memory."""
    added = np.uint64(word % 2**64) if isinstance(word, int) else word
    mixed = state + added + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def _uniform(keys: _Hashes, draw: _Draw) -> NDArray[np.float64]:
    """One number in [0, 1) for each key: the upper 53 bits, all that a float64 holds."""
    return (_hashed(keys, int(draw)) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _mirror(pixels: _Pixels, chosen: NDArray[np.bool_]) -> None:
    backwards = np.arange(pixels.shape[2])[::-1]
    pixels[chosen] = pixels[chosen].take(backwards, axis=2)  # twice as fast as a slice with a step of -1


def _cropped(pixels: _Pixels, keys: _Hashes, *, padding: int) -> _Pixels:
    batch, height, width, _ = pixels.shape
    if padding >= min(height, width):
        raise ValueError(
            f"wanted pictures larger than the crop padding of {padding} pixels, for a border to be reflected; found "
            f"{width}x{height} pixels. Lower crop_padding."
        )
    padded = np.pad(pixels, ((0, 0), (padding, padding), (padding, padding), (0, 0)), mode="reflect")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (height, width), axis=(1, 2))
    positions = 2 * padding + 1
    top, left = (_uniform(keys, draw) * positions for draw in (_Draw.CROP_TOP, _Draw.CROP_LEFT))
    chosen = windows[np.arange(batch), top.astype(int), left.astype(int)]  # (batch, 3, height, width)
    return np.ascontiguousarray(chosen.transpose(0, 2, 3, 1))


def _degrade(pixels: _Pixels, keys: _Hashes, *, share: float) -> None:
    chosen = np.flatnonzero(_uniform(keys, _Draw.ROBUST) < share)
    kinds = (_uniform(keys[chosen], _Draw.KIND) * len(DEGRADATIONS)).astype(int).tolist()
    strengths = _uniform(keys[chosen], _Draw.STRENGTH).tolist()
    seeds = _hashed(keys[chosen], int(_Draw.NOISE)).tolist()
    for position, kind, strength, seed in zip(chosen.tolist(), kinds, strengths, seeds, strict=True):
        pixels[position] = _degraded(pixels[position], DEGRADATIONS[kind], strength=strength, seed=seed)


def _degraded(picture: _Pixels, kind: Degradation, *, strength: float, seed: int) -> _Pixels:
    """Degrade one picture, as strongly as a number in [0, 1) says of the kind's range."""
    if kind == "jpeg":
        return jpeg(picture, quality=JPEG_QUALITIES[int(strength * len(JPEG_QUALITIES))])
    if kind == "blur":
        return blur(picture, sigma=_between(blur_sigmas(*picture.shape[:2]), strength))
    if kind == "noise":
        return noise(picture, sigma=_between(NOISE_SIGMAS, strength), seed=seed)
    return rescale(picture, factor=_between(RESCALE_FACTORS, strength))


def _between(ends: tuple[float, float], share: float) -> float:
    low, high = ends
    return low + (high - low) * share


def _gaussian(size: int, sigma: float) -> NDArray[np.float32]:
    """The blur of one axis: (size, size), rows summing to 1, with one mirror image beyond each edge."""
    bell = np.exp(-0.5 * (np.arange(2 * size, dtype=np.float32) / np.float32(sigma)) ** 2)
    here, there = np.arange(size)[:, None], np.arange(size)
    weights: NDArray[np.float32] = bell[abs(here - there)] + bell[here + there + 1] + bell[2 * size - 1 - here - there]
    weights /= weights.sum(axis=1, keepdims=True)
    return weights


def _rounded(values: NDArray[np.float32]) -> _Pixels:
    return np.rint(values).clip(0, 255).astype(np.uint8)
