"""Judge images with ONNX Runtime: a model of several views, without PyTorch and transformers.

`model.onnx` holds the graph without the weights, which are those of the safetensors files beside it.
`realfake_hf.hub.onnx` writes it, with the settings of the views in `model.onnx.json`.
"""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from realfake_hf.labels import NotFiniteError, Verdict
from realfake_hf.metrics.operating_point import load_operating_point
from realfake_hf.metrics.out_of_distribution import load_familiarity
from realfake_hf.store import check_not_pointer, read_object

GRAPH: Final = "model.onnx"
SETTINGS: Final = "model.onnx.json"  # of the views, and the names of the weights in the graph
PREFIX: Final = "model."  # of the names of the weights in the graph

Position = tuple[float, float]  # of a window, from (0, 0), the upper left, to (1, 1)


class OnnxDetector:
    """A detector of several views in ONNX Runtime; verdicts are those of `Detector` up to rounding in float32.

    Args:
        folder: of a model with the files `model.onnx` and `model.onnx.json`.

    Attributes:
        point: temperature, threshold, abstention band and limits.
        familiarity: distribution of the embeddings of the training images; None if unknown.

    Raises:
        OSError: a file is missing.
        ValueError: the graph is damaged, or not one of several views.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        import onnxruntime

        file, self._settings = Path(folder) / GRAPH, read_object(Path(folder) / SETTINGS)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # errors are raised as well
        try:
            used = set(self._settings["weights"])
            weights = {
                f"{PREFIX}{name}": onnxruntime.OrtValue.ortvalue_from_numpy(value)
                for name, value in _read_weights(file.parent)
                if name in used
            }
            options.add_external_initializers([*weights], [*weights.values()])
            self._session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # the classes of ONNX Runtime have no common base
            raise ValueError(
                f"expected the graph of a model of several views in {file}; found something else "
                f"({type(error).__name__}). Write it again with python -m realfake_hf.hub.onnx."
            ) from error
        self.point = load_operating_point(folder)
        self.familiarity = load_familiarity(folder)

    def predict(self, images: Iterable[Image.Image]) -> list[Verdict]:
        """Return one verdict for each RGB image, in order.

        Raises:
            NotFiniteError: the scores of an image are NaN or infinite.
        """
        return [self._judge(image) for image in images]

    def _judge(self, image: Image.Image) -> Verdict:
        view_scores, embedding = self._session.run(None, {"pixel_values": self._pixel_values(image)})
        scores = view_scores.astype(np.float64) / (self.point.temperature or 1.0)
        if not np.isfinite(scores).all():
            raise NotFiniteError("an image", 0)
        log_odds = (scores[0] + scores[1:].mean()) / 2
        p_fake = float(1 / (1 + np.exp(-log_odds if self._settings["fake"] else log_odds)))
        is_far = None if self.familiarity is None else bool(self.familiarity.is_far(embedding[None])[0])
        quality, limits = None, self.point.limits
        if limits and limits.need_quality:
            from realfake_hf.metrics.image_quality import measure_quality

            quality = measure_quality(image)
        return self.point.judge(p_fake, quality=quality, spread=float(scores.std()), is_far=is_far)

    def _pixel_values(self, image: Image.Image) -> NDArray[np.float32]:
        """Return the normalised views of an image: (views, 3, size, size)."""
        views = cut_views(image, size=self._settings["size"], positions=self._settings["positions"])
        mean, std = (np.asarray(self._settings[name], np.float32) for name in ("image_mean", "image_std"))
        pixel_values = (views.astype(np.float32) / 255 - mean) / std
        return np.moveaxis(pixel_values.astype(np.float32, copy=False), -1, 1)


def _read_weights(folder: Path) -> Iterator[tuple[str, NDArray[Any]]]:
    """Read the weights of a model by name, so that no path in its graph is followed."""
    from safetensors.numpy import load_file

    for file in sorted(folder.glob("model*.safetensors")):
        check_not_pointer(file)
        yield from load_file(file).items()


def cut_views(image: Image.Image, *, size: int, positions: Iterable[Position]) -> NDArray[np.uint8]:
    """Cut the centred square of an RGB image and windows of `size` pixels: (1 + windows, size, size, 3) uint8.

    `MultiViewImageProcessor.views` does the same, in a file that imports transformers.
    """
    shorter = min(image.size)
    boxes = [(shorter, (0.5, 0.5)), *((min(size, shorter), position) for position in positions)]
    views = []
    for side, position in boxes:
        left, top = (round((length - side) * share) for length, share in zip(image.size, position, strict=True))
        box = (left, top, left + side, top + side)
        is_native = side == size
        view = image.crop(box) if is_native else image.resize((size, size), Image.Resampling.BICUBIC, box=box)
        views.append(np.asarray(view))
    return np.stack(views)
