"""Load a trained detector and apply it to images."""

import hashlib
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, islice
from typing import Any, Final, Self, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from transformers import BaseImageProcessor, PreTrainedModel

from realfake_hf.attribution.explain import default_method, explain, fitting_methods
from realfake_hf.attribution.methods import Explanation, Target
from realfake_hf.data.decoding import UnreadableImageError, decode_image, to_rgb
from realfake_hf.data.files import read_file
from realfake_hf.data.pixels import (
    Normalize,
    check_elongation,
    is_reproducible,
    output_shapes,
    resize_images,
    resize_target,
)
from realfake_hf.labels import NotFiniteError, Verdict
from realfake_hf.metrics.image_quality import measure_quality
from realfake_hf.metrics.operating_point import DEFAULT, OperatingPoint, load_operating_point
from realfake_hf.metrics.out_of_distribution import Familiarity, load_familiarity
from realfake_hf.models.checkpoint import (
    fake_output,
    first_sentence,
    load_classifier,
    load_config,
    load_processor,
    locate,
)
from realfake_hf.models.cpu import has_fast_bfloat16, in_bfloat16, logits_of, pack
from realfake_hf.models.heads import collect_embeddings, collect_view_scores
from realfake_hf.models.multiview import MultiViewForImageClassification
from realfake_hf.models.view_maps import ViewExplainer
from realfake_hf.models.views import MultiViewImageProcessor
from realfake_hf.parallel import map_in_threads

ImageInput = str | os.PathLike[str] | bytes | Image.Image | NDArray[np.uint8]
Result = TypeVar("Result")
Batch = list[tuple[int, ImageInput]]  # positions and images

_INPUT_TYPES: Final = (str, os.PathLike, bytes, Image.Image, np.ndarray)  # `ImageInput` for isinstance


class Detector:
    """A trained classifier with its image processor; threads may share one.

    Images are decoded to RGB, resized and normalised as by the processor, and passed through the model. The logits are
    divided by the temperature of the operating point, if it has one. Their softmax gives the calibrated `p_fake`, from
    which the operating point derives a verdict. The `pipeline` of transformers does not divide by the temperature.

    Args:
        model: any image classifier with one label for real and one for fake.
        processor: the image processor saved with it.
        batch_size: images per forward pass, if the processor returns images of one size.
        point: temperature, threshold, abstention band and limits; by default a threshold of 0.5 and no others.
        familiarity: distribution of the embeddings of the training images, for `Verdict.is_far`; None if unknown.
        bf16: predict with a copy of the model in bfloat16, on CPUs that support it. It is faster for a ViT, especially
            with AMX, and changes `p_fake` of the ViT by less than 0.03. Maps are those of `model`.

    Attributes:
        inference_model: the model that predicts: `model`, or its copy in bfloat16.
        fake: index of the FAKE logit.

    Raises:
        ValueError: the labels of the model do not mean real and fake, or its logits need no softmax.

    >>> detector = Detector.from_pretrained("user/name")  # doctest: +SKIP
    >>> [verdict] = detector.predict("photo.jpg")  # doctest: +SKIP
    """

    def __init__(
        self,
        model: Any,  # noqa: ANN401 - any class of transformers
        processor: BaseImageProcessor,
        *,
        batch_size: int = 32,
        point: OperatingPoint = DEFAULT,
        familiarity: Familiarity | None = None,
        bf16: bool = False,
    ) -> None:
        self.model = model.eval()
        self.inference_model = in_bfloat16(self.model) if bf16 and has_fast_bfloat16() else self.model
        self.processor = processor
        self.batch_size = batch_size
        self.point = point
        self.familiarity = familiarity
        self.fake = fake_output(model.config)
        self._normalize = Normalize(processor) if is_reproducible(processor) else None
        self._has_one_size = len(output_shapes(processor)) == 1
        self._lock = SharedLock()  # explaining changes the model temporarily
        self._by_view: ViewExplainer | None = None
        if isinstance(model, MultiViewForImageClassification) and isinstance(processor, MultiViewImageProcessor):
            self._by_view = ViewExplainer(model, processor)

    @classmethod
    def from_pretrained(
        cls,
        name: str | os.PathLike[str],
        *,
        device: str | torch.device = "cpu",
        batch_size: int = 32,
        revision: str = "main",
        trust_remote_code: bool = False,
        attn_implementation: str | None = None,
        only_safetensors: bool = False,
        bf16: bool = False,
    ) -> Self:
        """Load a detector from a folder or the Hub, with its operating point and familiarity if they exist.

        Args:
            name: a folder of `train.py`, or a Hub id.
            device: device of the model.
            batch_size: images per forward pass.
            revision: branch, tag or commit on the Hub.
            trust_remote_code: run code that comes with the model; models of this project do not need it.
            attn_implementation: `sdpa` or `eager`; None leaves the choice to transformers.
            only_safetensors: reject weights in formats that can contain code.
            bf16: predict in bfloat16 if the CPU supports it, see `Detector`.

        Raises:
            OSError: the model does not exist in an accepted format.
            ValueError: a file is invalid, weights are missing or not finite, the labels of the model do not mean real
                and fake, or a test image gets no verdict.
        """
        place = locate(name)
        options: dict[str, Any] = {"revision": revision, "trust_remote_code": trust_remote_code}
        config = load_config(place, **options)
        fake_output(config)
        processor = load_processor(place, config, **options)
        point = load_operating_point(place, revision=revision)
        familiarity = load_familiarity(place, revision=revision)
        options |= {"attn_implementation": attn_implementation, "only_safetensors": only_safetensors}
        model: Any = load_classifier(place, config=config, **options)
        model.to(device)
        pack(model)
        try:
            detector = cls(model, processor, batch_size=batch_size, point=point, familiarity=familiarity, bf16=bf16)
            detector.predict(np.random.default_rng(0).integers(256, size=(64, 96, 3), dtype=np.uint8))
        except Exception as error:  # any setting of the processor may fail anywhere
            raise ValueError(
                f"expected a model and an image processor that fit together in {place}; found that a test image fails "
                f"({first_sentence(error)})."
            ) from error
        return detector

    def predict(self, images: ImageInput | Iterable[ImageInput]) -> list[Verdict]:
        """Return one verdict per image, in order.

        Args:
            images: one or several paths, bytes of image files, Pillow images, or arrays (height, width, 3) or
                (height, width) of uint8 [0, 255]; or the image column of a data set.

        Raises:
            UnreadableImageError: an image cannot be read; the message contains its path or position.
            TypeError: an input is not an image.
            NotFiniteError: the logits of an image are NaN or infinite.
        """
        return list(self.stream(images))

    def stream(self, images: ImageInput | Iterable[ImageInput]) -> Iterator[Verdict]:
        """Yield verdicts in order, for inputs of any length; see `predict`. Each core reads ahead by one batch."""
        yield from chain.from_iterable(self._map_batches(images, self._verdicts))

    def probabilities(self, images: ImageInput | Iterable[ImageInput]) -> NDArray[np.float32]:
        """Return the calibrated `p_fake` of each image: (n,) float32 in [0, 1]; see `predict`."""
        return np.concatenate([np.empty(0, dtype=np.float32), *self._map_batches(images, self._p_fake)])

    def embeddings(self, images: ImageInput | Iterable[ImageInput]) -> NDArray[np.float32]:
        """Return the inputs of the classification head: (n, width) float32; see `predict`.

        Raises:
            ValueError: the model has no linear head.
        """
        batches = list(self._map_batches(images, lambda batch: self._p_fake_and_embeddings(batch)[1]))
        return np.concatenate(batches) if batches else np.empty((0, 0), dtype=np.float32)

    def explain(
        self,
        images: ImageInput | Iterable[ImageInput],
        *,
        method: str,
        target: Target = "predicted",
        options: Mapping[str, Any] | None = None,
        batch_size: int | None = None,
    ) -> list[Explanation]:
        """Explain the predictions, one explanation per image, in order.

        Args:
            images: see `predict`.
            method: a name in `realfake_hf.attribution.methods.METHODS`, such as "relevance" or "grad_cam".
            target: the label to explain, or "predicted" for the label with the higher probability, regardless of the
                threshold.
            options: options of the method that differ from their defaults.
            batch_size: images per forward pass; None means the batch size of the detector.

        Raises:
            UnreadableImageError: an image cannot be read; the message contains its path or position.
            TypeError: an input is not an image.
            ValueError: the method, target or option is unknown, or the model does not support the method.
        """
        settings: Any = {"method": method, "target": target, "options": options}

        def explain_batch(opened: list[Image.Image]) -> list[Explanation]:
            verdicts = self._verdicts(opened)
            with self._lock.exclusive():
                if self._by_view:
                    found = [self._by_view.explain(image, **settings) for image in opened]
                else:
                    found = explain(self.model, self._pixel_values(opened), **settings)
            return [replace(each, verdict=verdict) for each, verdict in zip(found, verdicts, strict=True)]

        batches = self._batches(images, batch_size)
        return list(chain.from_iterable(self._apply(explain_batch, batch) for batch in batches))

    def methods(self) -> tuple[str, ...]:
        """Return the methods of explanation that the model supports, the default one first.

        Integrated gradients, which passes each of many views dozens of times, is not among them for several views.
        """
        model = self._by_view.whole if self._by_view else self.model
        default, slow = default_method(model), "integrated_gradients" if self._by_view else None
        return default, *(method for method in fitting_methods(model) if method not in (default, slow))

    def view(self, image: Image.Image) -> NDArray[np.uint8]:
        """Return the part of an RGB image that a map covers, as (height, width, 3) uint8.

        It is the whole image if the processor only resizes or cuts several views, else the output of the processor.
        """
        if self._by_view or resize_target(self.processor) is not None:
            return np.asarray(image)
        return resize_images([image], self.processor)[0]  # type: ignore[no-any-return]

    def single_view(self, images: Iterable[ImageInput]) -> tuple[PreTrainedModel, Tensor]:
        """Return a model of one view, and the pixel values (n, 3, height, width) of images of one size for it.

        For a model of several views it is the view of the whole image.
        """
        values = self._pixel_values([_read(image, place, self.processor) for place, image in enumerate(images)])
        return (self._by_view.whole, values[:, 0]) if self._by_view else (self.model, values)

    def digest(self) -> str:
        """Return the SHA-256 of all weights as hexadecimal digits."""
        digest = hashlib.sha256()
        for name, values in self.model.state_dict().items():
            data = values.detach().cpu().contiguous().flatten().view(torch.uint8)
            digest.update(name.encode() + data.numpy().tobytes())
        return digest.hexdigest()

    def _map_batches(
        self, images: ImageInput | Iterable[ImageInput], function: Callable[[list[Image.Image]], Result]
    ) -> Iterator[Result]:
        return map_in_threads(partial(self._apply, function), self._batches(images))

    def _apply(self, function: Callable[[list[Image.Image]], Result], batch: Batch) -> Result:
        """Apply a function to the RGB images of a batch; errors name the image."""
        try:
            return function([_read(image, position, self.processor) for position, image in batch])
        except NotFiniteError as error:
            position, image = batch[error.row]
            raise NotFiniteError(_name(image, position), error.row) from error

    def _batches(self, images: ImageInput | Iterable[ImageInput], size: int | None = None) -> Iterator[Batch]:
        return _batches(images, (size or self.batch_size) if self._has_one_size else 1)

    def _verdicts(self, images: list[Image.Image]) -> list[Verdict]:
        n = len(images)
        is_far: list[bool | None] = [None] * n
        with collect_view_scores(self.inference_model) as views:
            if self.familiarity is None:
                scores = self._p_fake(images)
            else:
                scores, embeddings = self._p_fake_and_embeddings(images)
                is_far = self.familiarity.is_far(embeddings).tolist()
        spread = torch.cat(views)[:n].float().std(1, correction=0) / self._temperature if views else torch.zeros(n)
        limits = self.point.limits
        qualities = [measure_quality(image) if limits and limits.need_quality else None for image in images]
        rows = zip(scores.tolist(), qualities, spread.tolist(), is_far, strict=True)
        return [self.point.judge(p, quality=quality, spread=own, is_far=far) for p, quality, own, far in rows]

    def _p_fake_and_embeddings(self, images: list[Image.Image]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        with collect_embeddings(self.inference_model) as embeddings:
            p_fake = self._p_fake(images)
        return p_fake, torch.cat(embeddings)[: len(images)].float().cpu().numpy()

    @torch.inference_mode()
    def _p_fake(self, images: list[Image.Image]) -> NDArray[np.float32]:
        pixel_values = self._pixel_values(images)
        with self._lock.shared():
            logits = logits_of(self.inference_model, pixel_values).float()  # (batch, 2)
        for row in (~logits.isfinite().all(dim=-1)).nonzero().flatten().tolist():
            raise NotFiniteError(f"image {row} of a batch", row)
        return (logits / self._temperature).softmax(dim=-1)[:, self.fake].cpu().numpy()

    @property
    def _temperature(self) -> float:
        return self.point.temperature or 1.0

    def _pixel_values(self, images: list[Image.Image]) -> Tensor:
        """Preprocess RGB images: (batch, 3, height, width), on the device."""
        if self._normalize is None:
            values: Tensor = self.processor(images, return_tensors="pt")["pixel_values"].to(self.model.device)
        else:
            pixels = torch.from_numpy(resize_images(images, self.processor))  # (batch, height, width, 3) uint8
            values = self._normalize(pixels.to(self.model.device))
        return values.to(self.model.dtype)


class SharedLock:
    """A lock held by any number of threads in shared mode, or by one thread in exclusive mode.

    A thread that waits for exclusive mode, or holds it, keeps the entrance, so it does not starve.
    """

    def __init__(self) -> None:
        self._entrance = threading.Lock()
        self._changed = threading.Condition()
        self._n_shared = 0

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Hold the lock in shared mode."""
        with self._entrance, self._changed:
            self._n_shared += 1
        try:
            yield
        finally:
            with self._changed:
                self._n_shared -= 1
                self._changed.notify_all()

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Hold the lock in exclusive mode."""
        with self._entrance:
            with self._changed:
                self._changed.wait_for(lambda: not self._n_shared)
            yield


@dataclass(frozen=True, kw_only=True)
class NamedDetector:
    """A detector and its name on the command line."""

    name: str
    place: str  # folder or Hub id from which it was loaded
    detector: Detector


def load_detector(name: str, place: str) -> Detector:
    """Load a detector for a command, on the accelerator if there is one.

    Args:
        name: name or flag of the model, for messages.
        place: a folder of train.py, or a Hub id.

    Raises:
        OSError: the model does not exist.
        ValueError: the labels of the model do not mean real and fake.
    """
    device = torch.accelerator.current_accelerator(check_available=True) or "cpu"
    try:
        return Detector.from_pretrained(place, device=device)
    except (OSError, ValueError) as error:
        kind = OSError if isinstance(error, OSError) else ValueError
        raise kind(f"{name}: {error}") from error


def _batches(images: ImageInput | Iterable[ImageInput], size: int) -> Iterator[Batch]:
    """Divide one or several images into batches of numbered images."""
    numbered = enumerate([images] if isinstance(images, _INPUT_TYPES) else images)
    while batch := list(islice(numbered, size)):
        yield batch


def _read(image: ImageInput, position: int, processor: BaseImageProcessor) -> Image.Image:
    """Decode any input to an RGB image that the processor can take; errors name the image."""
    try:
        rgb = _to_rgb(image, position)
        check_elongation(rgb, processor)
    except (UnreadableImageError, OSError) as error:
        raise UnreadableImageError(f"cannot read {_name(image, position)}: {error}") from error
    return rgb


def _to_rgb(image: ImageInput, position: int) -> Image.Image:
    if isinstance(image, np.ndarray):
        return _from_array(image)
    if isinstance(image, Image.Image):
        return to_rgb(image)
    if isinstance(image, bytes):
        return decode_image(image)
    if isinstance(image, (str, os.PathLike)):
        return decode_image(read_file(image))
    raise TypeError(
        f"expected a path, bytes, a Pillow image or an array as image {position}; found {type(image).__name__}."
    )


def _name(image: ImageInput, position: int) -> str:
    return os.fspath(image) if isinstance(image, (str, os.PathLike)) else f"image {position}"


def _from_array(image: NDArray[np.uint8]) -> Image.Image:
    has_shape = image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 3)  # noqa: PLR2004
    if image.dtype != np.uint8 or not has_shape or not image.size:
        raise UnreadableImageError(
            f"expected an array (height, width, 3) or (height, width) of uint8; found {image.shape} of {image.dtype}. "
            "Scale values to [0, 255] and cast them; pass several images as a list."
        )
    return Image.fromarray(image).convert("RGB")
