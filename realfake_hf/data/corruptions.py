"""Fixed image corruptions for measuring robustness, and the protocols applied to images before evaluation.

`data.augment` draws random corruptions for training; here each strength is fixed and suits images of 32 pixels.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from realfake_hf.data import augment

Protocol = Callable[[Image.Image], Image.Image]


@dataclass(frozen=True)
class Corruption:
    """A kind of corruption: its strengths, the weakest first, and their unit.

    `apply` takes an RGB image, a strength and a noise seed, and returns a new image of the same size.
    """

    steps: tuple[float, ...]
    unit: str
    apply: Callable[[Image.Image, float, int], Image.Image]


def crop(image: Image.Image, share: float) -> Image.Image:
    """Crop the centre to a share of the side lengths, and upscale it to the original size."""
    width, height = (max(1, round(side * share)) for side in image.size)
    return _center(image, width, height).resize(image.size, Image.Resampling.BILINEAR)


def _center(image: Image.Image, width: int, height: int) -> Image.Image:
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))


def _on_pixels(function: Callable[..., NDArray[np.uint8]], image: Image.Image, **options: float) -> Image.Image:
    return Image.fromarray(function(np.asarray(image), **options))


CORRUPTIONS: Final[Mapping[str, Corruption]] = {
    "jpeg": Corruption(
        (90, 75, 60, 40, 25, 10), "quality", lambda image, s, _: _on_pixels(augment.jpeg, image, quality=int(s))
    ),
    "blur": Corruption(
        (0.3, 0.5, 0.8, 1.0, 1.5), "sigma, pixels", lambda image, s, _: _on_pixels(augment.blur, image, sigma=s)
    ),
    "noise": Corruption(
        (2, 4, 8, 16, 32), "sigma, of 255", lambda image, s, seed: _on_pixels(augment.noise, image, sigma=s, seed=seed)
    ),
    "rescale": Corruption(
        (24 / 32, 16 / 32, 12 / 32), "of the sides", lambda image, s, _: _on_pixels(augment.rescale, image, factor=s)
    ),
    "crop": Corruption((28 / 32, 24 / 32), "of the sides", lambda image, s, _: crop(image, s)),
    "mirror": Corruption((1,), "", lambda image, *_: ImageOps.mirror(image)),
    "upside down": Corruption((1,), "", lambda image, *_: ImageOps.flip(image)),
}


def seed_of_image(sha256: str, seed: int) -> int:
    """Derive the noise seed of an image from its hexadecimal SHA-256 and the seed of the measurement."""
    return int(np.random.SeedSequence([seed, int(sha256[:16], 16)]).generate_state(1)[0])


def native(image: Image.Image) -> Image.Image:
    """Return the image unchanged."""
    return image


def matched(image: Image.Image) -> Image.Image:
    """Match the resolution and codec of CIFAKE: 32 x 32 pixels, then JPEG of quality 75 with 4:2:0 chroma subsampling.

    CIFAKE's filter is not documented (Bird & Lotfi, 2024); this uses bicubic. CIFAKE itself is compressed once more.
    """
    return _on_pixels(augment.jpeg, image.resize((32, 32), Image.Resampling.BICUBIC), quality=75)


def center_square(image: Image.Image) -> Image.Image:
    """Crop the largest centred square, so that processors do not change the aspect ratio."""
    return _center(image, min(image.size), min(image.size))


PROTOCOLS: Final[Mapping[str, Protocol]] = {"native": native, "matched": matched, "crop": center_square}
