"""Change images as the web does before they reach a reader: re-encode, rescale, capture, crop.

Unlike `data.augment`, which works on pixels of the model's size, these work on an image at its own size, before a
processor cuts it. Nothing depends on the label.
"""

import io
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

import numpy as np
from PIL import Image, ImageFilter, ImageOps

QUALITIES: Final = (30, 95)  # of JPEG and WebP
SIDES: Final = (320, 1280)  # longer side in pixels, log-uniform
MAX_STEPS: Final = 3

_MAX_GROWTH: Final = 1.5  # of the sides
_SCREEN_SCALES: Final = (0.5, 1.25)
_MIN_SHARE: Final = 0.6  # of the sides that a crop keeps
_FILTERS: Final = (Image.Resampling.BILINEAR, Image.Resampling.BICUBIC, Image.Resampling.LANCZOS)
_SCREEN_FILTERS: Final = (Image.Resampling.NEAREST, Image.Resampling.BILINEAR)

Change = Callable[[Image.Image, np.random.Generator], Image.Image]


def deliver(image: Image.Image, generator: np.random.Generator) -> Image.Image:
    """Apply a chain of one to three random changes to an RGB image, and mirror half of the images.

    The number of changes and their kinds are uniform; a kind may occur twice, as files are compressed again and again.
    """
    image, kinds = _mirror_half(image, generator), list(CHANGES)
    for number in generator.integers(len(kinds), size=generator.integers(1, MAX_STEPS + 1)):
        image = CHANGES[kinds[number]](image, generator)
    return image


def compress(image: Image.Image, generator: np.random.Generator) -> Image.Image:
    """Rescale and compress an RGB image, as almost every page and messenger does, and mirror half of the images.

    Before, one image in three is changed in one more way, see `CHANGES`.
    """
    image = _mirror_half(image, generator)
    if generator.random() < 1 / 3:
        kinds = list(CHANGES)
        image = CHANGES[kinds[generator.integers(len(kinds))]](image, generator)
    image = _rescale(image, generator)
    return CHANGES["webp" if generator.random() < 1 / 4 else "jpeg"](image, generator)


def encode(image: Image.Image, *, file_format: str, quality: int) -> Image.Image:
    """Compress an RGB image with the JPEG or WEBP encoder of Pillow, and decode it."""
    buffer = io.BytesIO()
    options = {"subsampling": "4:2:0"} if file_format == "JPEG" else {"method": 2}
    image.save(buffer, format=file_format, quality=quality, **options)
    return Image.open(buffer, formats=(file_format,)).convert("RGB")


def limit_side(image: Image.Image, side: int) -> Image.Image:
    """Downscale an image, Lanczos, so that its longer side has at most `side` pixels."""
    return _rescaled(image, min(1, side / max(image.size)), Image.Resampling.LANCZOS)


def web(image: Image.Image) -> Image.Image:
    """Return an image as a page shows it: at most 768 pixels, JPEG of quality 60."""
    return encode(limit_side(image, 768), file_format="JPEG", quality=60)


def hard(image: Image.Image) -> Image.Image:
    """Return an image as a messenger passes it on: at most 512 pixels, JPEG of quality 40."""
    return encode(limit_side(image, 512), file_format="JPEG", quality=40)


def _mirror_half(image: Image.Image, generator: np.random.Generator) -> Image.Image:
    return ImageOps.mirror(image) if generator.random() < 0.5 else image  # noqa: PLR2004


def _compress(file_format: str) -> Change:
    def change(image: Image.Image, generator: np.random.Generator) -> Image.Image:
        low, high = QUALITIES
        return encode(image, file_format=file_format, quality=int(generator.integers(low, high + 1)))

    return change


def _rescale(image: Image.Image, generator: np.random.Generator) -> Image.Image:
    side = np.exp(generator.uniform(*np.log(SIDES)))
    return _rescaled(image, min(side / max(image.size), _MAX_GROWTH), _FILTERS[generator.integers(len(_FILTERS))])


def _capture(image: Image.Image, generator: np.random.Generator) -> Image.Image:
    """Rescale an image as a screen does, which a screenshot stores without loss."""
    image = limit_side(image, SIDES[1])
    resampling = _SCREEN_FILTERS[generator.integers(len(_SCREEN_FILTERS))]
    return _rescaled(image, generator.uniform(*_SCREEN_SCALES), resampling)


def _blur(image: Image.Image, generator: np.random.Generator) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(generator.uniform(0.3, 1.5)))


def _sharpen(image: Image.Image, generator: np.random.Generator) -> Image.Image:
    radius, percent = generator.uniform(0.5, 2), int(generator.integers(50, 201))
    return image.filter(ImageFilter.UnsharpMask(radius, percent, threshold=2))


def _crop(image: Image.Image, generator: np.random.Generator) -> Image.Image:
    width, height = (max(1, round(side * generator.uniform(_MIN_SHARE, 1))) for side in image.size)
    left, top = (
        int(generator.integers(side - kept + 1)) for side, kept in zip(image.size, (width, height), strict=True)
    )
    return image.crop((left, top, left + width, top + height))


def _rescaled(image: Image.Image, factor: float, resampling: Image.Resampling) -> Image.Image:
    width, height = (max(1, round(side * factor)) for side in image.size)
    return image.resize((width, height), resampling)


CHANGES: Final[Mapping[str, Change]] = MappingProxyType(
    {
        "jpeg": _compress("JPEG"), "webp": _compress("WEBP"), "rescale": _rescale, "screenshot": _capture,
        "blur": _blur, "sharpen": _sharpen, "crop": _crop,
    }
)  # fmt: skip
