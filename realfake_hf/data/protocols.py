"""What is done to a picture before a model's own processor sees it, so that one cause at a time can be held equal."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

import numpy as np
from PIL import Image

from realfake_hf.data.augment import jpeg

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
    return Image.fromarray(jpeg(np.asarray(small), quality=CIFAKE_QUALITY))


def crop(picture: Image.Image) -> Image.Image:
    """Cut the largest square out of the middle of an RGB picture, so that no processor squeezes its sides.

    Where the rim cannot be halved, the larger part is cut off on the right or below.
    """
    side = min(picture.size)
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    return picture.crop((left, top, left + side, top + side))


PROTOCOLS: Final[Mapping[str, Protocol]] = MappingProxyType({"native": native, "matched": matched, "crop": crop})
