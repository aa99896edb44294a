"""What happens to pictures on their way: named changes with steps of strength, for measuring what a model withstands.

`data.augment` draws such changes for training; here each step is fixed. The steps suit pictures of 32 pixels.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import numpy as np
from PIL import Image, ImageOps

from realfake_hf.data import augment

GREY_LEVELS: Final = 255


@dataclass(frozen=True)
class Corruption:
    """A kind of change.

    Attributes:
        steps: strengths, the weakest first.
        unit: what a strength means.
        apply: takes an RGB picture, a strength and the seed of any noise, and gives a new picture of the same size.
    """

    steps: tuple[float, ...]
    unit: str
    apply: Callable[[Image.Image, float, int], Image.Image]


def jpeg(picture: Image.Image, quality: float, seed: int = 0) -> Image.Image:  # noqa: ARG001 - as all changes
    """Save as JPEG with colours at half the resolution, and open again."""
    return Image.fromarray(augment.jpeg(np.asarray(picture), quality=int(quality)))


def blur(picture: Image.Image, sigma: float, seed: int = 0) -> Image.Image:  # noqa: ARG001
    """Blur with a Gaussian of so many pixels."""
    return Image.fromarray(augment.blur(np.asarray(picture), sigma=sigma))


def noise(picture: Image.Image, sigma: float, seed: int = 0) -> Image.Image:
    """Add Gaussian noise of so many of 255 grey levels."""
    return Image.fromarray(augment.noise(np.asarray(picture), sigma=sigma, seed=seed))


def rescale(picture: Image.Image, share: float, seed: int = 0) -> Image.Image:  # noqa: ARG001
    """Shrink to a share of the sides, and enlarge again."""
    return Image.fromarray(augment.rescale(np.asarray(picture), factor=share))


def crop(picture: Image.Image, share: float, seed: int = 0) -> Image.Image:  # noqa: ARG001
    """Cut a share of the sides out of the middle, and enlarge it to the old size."""
    sides = tuple(max(1, round(side * share)) for side in picture.size)
    left, top = ((old - new) // 2 for old, new in zip(picture.size, sides, strict=True))
    middle = picture.crop((left, top, left + sides[0], top + sides[1]))
    return middle.resize(picture.size, Image.Resampling.BILINEAR)


def mirror(picture: Image.Image, strength: float = 1, seed: int = 0) -> Image.Image:  # noqa: ARG001
    """Swap left and right."""
    return ImageOps.mirror(picture)


def upside_down(picture: Image.Image, strength: float = 1, seed: int = 0) -> Image.Image:  # noqa: ARG001
    """Swap top and bottom."""
    return ImageOps.flip(picture)


CORRUPTIONS: Final[Mapping[str, Corruption]] = MappingProxyType(
    {
        "jpeg": Corruption((90, 75, 60, 40, 25, 10), "quality", jpeg),
        "blur": Corruption((0.3, 0.5, 0.8, 1.0, 1.5), "sigma, pixels", blur),
        "noise": Corruption((2, 4, 8, 16, 32), "sigma, of 255", noise),
        "rescale": Corruption((24 / 32, 16 / 32, 12 / 32), "of the sides", rescale),
        "crop": Corruption((28 / 32, 24 / 32), "of the sides", crop),
        "mirror": Corruption((1,), "", mirror),
        "upside down": Corruption((1,), "", upside_down),
    }
)


def seed_of_image(sha256: str, seed: int) -> int:
    """Give a picture a seed of its own, whatever the order in which pictures come.

    Args:
        sha256: of the picture, in hexadecimal.
        seed: of the whole measurement, 0 or more.
    """
    return int(np.random.SeedSequence([seed, int(sha256[:16], 16)]).generate_state(1)[0])


Protocol = Callable[[Image.Image], Image.Image]

CIFAKE_SIDE: Final = 32  # pixels of every picture of CIFAKE
CIFAKE_QUALITY: Final = 75  # of every file of CIFAKE, with colours at half the resolution


def native(picture: Image.Image) -> Image.Image:
    """Leave an RGB picture to the model's processor."""
    return picture


def matched(picture: Image.Image) -> Image.Image:
    """Bring an RGB picture to the resolution and codec of CIFAKE: 32 x 32 pixels, then JPEG of quality 75 with 4:2:0.

    What still tells two data sets apart is content and generator. With which filter CIFAKE was made small is not
    documented (Bird & Lotfi, 2024); bicubic is taken here. A picture of 32 x 32 pixels keeps its pixels until it is
    compressed, so that one of CIFAKE itself is compressed a second time.
    """
    small = picture.resize((CIFAKE_SIDE, CIFAKE_SIDE), Image.Resampling.BICUBIC)
    return Image.fromarray(augment.jpeg(np.asarray(small), quality=CIFAKE_QUALITY))


def center_square(picture: Image.Image) -> Image.Image:
    """Cut the largest square out of the middle of an RGB picture, so that no processor squeezes its sides.

    Where the rim cannot be halved, the larger part is cut off on the right or below.
    """
    side = min(picture.size)
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    return picture.crop((left, top, left + side, top + side))


PROTOCOLS: Final[Mapping[str, Protocol]] = MappingProxyType(
    {"native": native, "matched": matched, "crop": center_square}
)
