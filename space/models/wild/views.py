"""An image processor that cuts several views of an image: the whole, and windows of its own pixels.

This file imports numpy, Pillow and transformers only. A copy is saved with the weights, so that the processor loads
with `trust_remote_code=True` where realfake_hf is not installed.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image
from transformers import BaseImageProcessor, BatchFeature

Box = tuple[float, float, float, float]  # left, top, right, bottom, in pixels of the image

# Positions of the windows between the edges of the image, (0, 0) to (1, 1); at most so many windows
_POSITIONS = ((0.5, 0.5), (0.15, 0.3), (0.85, 0.7), (0.85, 0.15), (0.15, 0.85))


class MultiViewImageProcessor(BaseImageProcessor):
    """Cut the centred square of an image, resized, and square windows of its own pixels.

    No image is enlarged to more than one view: of an image that is smaller than a window, the windows are squares of
    the shorter side, enlarged; of a panorama, the whole is the centred square.

    Args:
        size: height and width of a view in pixels, one number or a mapping as in transformers.
        n_windows: number of windows, 0 to 5.
        image_mean: subtracted from each channel, of values in [0, 1].
        image_std: divides each channel then.

    Raises:
        ValueError: the size or the number of windows is out of range.
    """

    model_input_names = ["pixel_values"]  # noqa: RUF012 - as in transformers

    def __init__(
        self,
        *,
        size: int | Mapping[str, int] = 224,
        n_windows: int = 3,
        image_mean: tuple[float, ...] = (0.48145466, 0.4578275, 0.40821073),
        image_std: tuple[float, ...] = (0.26862954, 0.26130258, 0.27577711),
        **settings: Any,  # noqa: ANN401
    ) -> None:
        settings.pop("backend", None)
        super().__init__(**settings)
        side = size if isinstance(size, int) else size["height"]
        if not 0 <= n_windows <= len(_POSITIONS) or side < 1:
            raise ValueError(
                f"expected views of at least 1 pixel and 0 to {len(_POSITIONS)} windows; found size {side} and "
                f"{n_windows} windows"
            )
        self.size, self.n_windows = {"height": side, "width": side}, n_windows
        self.image_mean, self.image_std = list(image_mean), list(image_std)

    def preprocess(self, images: Any, *, return_tensors: str | None = None, **_: Any) -> BatchFeature:  # noqa: ANN401
        """Cut and normalise the views of one or several images.

        Args:
            images: Pillow images, or arrays (height, width, 3) of uint8.
            return_tensors: "pt" or "np".

        Returns:
            `pixel_values` (batch, views, 3, size, size); the first view is the whole.
        """
        several = images if isinstance(images, (list, tuple)) else [images]
        views = np.stack([self.views(_as_image(image)) for image in several])
        return BatchFeature({"pixel_values": self.normalize_views(views)}, tensor_type=return_tensors)

    def normalize_views(self, views: np.ndarray) -> np.ndarray:
        """Rescale and normalise views (..., height, width, 3) of uint8 to (..., 3, height, width) of float32."""
        std, mean = (np.asarray(values, np.float32) for values in (self.image_std, self.image_mean))
        return np.moveaxis((views.astype(np.float32) / 255 - mean) / std, -1, -3)

    def to_dict(self) -> dict[str, Any]:
        """Return the settings without the class, which the model's config names.

        If the settings named code, transformers 5.24 would look for a video processor in it, and ask to run it.
        """
        settings: dict[str, Any] = super().to_dict()
        return {name: value for name, value in settings.items() if name not in ("image_processor_type", "auto_map")}

    def views(self, image: Image.Image, positions: Sequence[tuple[float, float]] | None = None) -> np.ndarray:
        """Cut the views of an RGB image: (views, size, size, 3) uint8 [0, 255]; see `boxes`."""
        side = self.size["height"]
        return np.stack([cut_view(image, box, side) for box in self.boxes(*image.size, positions)])

    def boxes(self, width: int, height: int, positions: Sequence[tuple[float, float]] | None = None) -> list[Box]:
        """Return where the views of an image lie in it, the whole first.

        Args:
            width: of the image in pixels.
            height: of the image in pixels.
            positions: of the windows, see `window_box`; None means the same in every image.
        """
        places = _POSITIONS[: self.n_windows] if positions is None else positions
        return [whole_box(width, height), *(window_box(width, height, self.size["height"], place) for place in places)]


def whole_box(width: int, height: int) -> Box:
    """Return the centred square of an image."""
    return window_box(width, height, min(width, height), (0.5, 0.5))


def window_box(width: int, height: int, size: int, position: tuple[float, float]) -> Box:
    """Return a square of at most `size` pixels; positions range from (0, 0), the upper left, to (1, 1)."""
    side = min(size, width, height)
    left, top = (round((length - side) * share) for length, share in zip((width, height), position, strict=True))
    return left, top, left + side, top + side


def cut_view(image: Image.Image, box: Box, size: int) -> np.ndarray:
    """Cut a box out of an RGB image and resize it, bicubic, to (size, size, 3) uint8."""
    if box[2] - box[0] == size == box[3] - box[1]:
        return np.asarray(image.crop(box))
    return np.asarray(image.resize((size, size), Image.Resampling.BICUBIC, box=box))


def _as_image(image: Any) -> Image.Image:  # noqa: ANN401
    return (image if isinstance(image, Image.Image) else Image.fromarray(np.asarray(image))).convert("RGB")
