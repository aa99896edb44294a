"""The one door to a trained model: load it, and ask it about pictures."""

import hashlib
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path
from typing import Any, Final, Self, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from transformers import AutoImageProcessor, AutoModelForImageClassification, BaseImageProcessor

from realfake_hf.attribution.explain import explain
from realfake_hf.attribution.methods import Explanation, Target
from realfake_hf.data.decoding import UnreadableImageError, decode_image, to_rgb
from realfake_hf.data.pixels import Normalize, resize_images, resize_target
from realfake_hf.labels import Verdict, fake_index
from realfake_hf.metrics.operating_point import DEFAULT, OperatingPoint, load_operating_point
from realfake_hf.metrics.out_of_distribution import Familiarity, load_familiarity
from realfake_hf.models.cpu import has_fast_bfloat16, in_bfloat16, logits_of, pack
from realfake_hf.models.heads import caught_embeddings
from realfake_hf.parallel import map_in_threads

Picture = str | os.PathLike[str] | bytes | Image.Image | NDArray[np.uint8]
Answer = TypeVar("Answer")
Item = TypeVar("Item")

_ONE_PICTURE: Final = (str, os.PathLike, bytes, Image.Image, np.ndarray)  # `Picture`, as isinstance wants it


class Detector:
    """A trained classifier together with its image processor. Threads may share one.

    Args:
        model: any two-class image classifier whose labels say real and fake.
        processor: the image processor saved with it.
        batch_size: pictures that go through the model at once.
        point: the threshold and band by which pictures are judged; by default one half and no band.
        familiarity: where the training pictures lie in what the model sees, for `Verdict.is_far`; by default unknown.
        bf16: judge with `judge_model`, a copy that multiplies in bfloat16, where the processor has it: faster for a
            ViT, most with AMX; `p_fake` moved by less than three hundredths. Explanations are of `model` itself.

    Raises:
        ValueError: the model's labels do not say which of its outputs means fake.

    >>> detector = Detector.from_pretrained("user/name")  # doctest: +SKIP
    >>> [verdict] = detector.predict("photo.jpg")  # doctest: +SKIP
    """

    def __init__(
        self,
        model: Any,  # noqa: ANN401 - any of transformers' classes
        processor: BaseImageProcessor,
        *,
        batch_size: int = 32,
        point: OperatingPoint = DEFAULT,
        familiarity: Familiarity | None = None,
        bf16: bool = False,
    ) -> None:
        self.model = model.eval()
        self.judge_model = in_bfloat16(self.model) if bf16 and has_fast_bfloat16() else self.model
        self.processor = processor
        self.batch_size = batch_size
        self.point = point
        self.familiarity = familiarity
        self._normalize = Normalize(processor)
        self.fake = fake_index(model.config.id2label)
        self._lock = SharedLock()  # explaining changes the model for a while

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
        """Load a detector from a folder or the Hub, with the operating point and familiarity that lie there, if any.

        Args:
            name: a folder that `train.py` left, or a Hub id.
            device: where the model runs.
            batch_size: pictures that go through the model at once.
            revision: the branch, tag or commit on the Hub.
            trust_remote_code: run code that came with the model; not needed for the models of this project.
            attn_implementation: how attention is computed. "eager" saves `explain` from switching it for each batch;
                None leaves the choice to transformers.
            only_safetensors: refuse weights of formats that can hold code.
            bf16: judge in bfloat16 where the processor has it, as the class says.

        Raises:
            OSError: there is no model of that name, or none in a format that is allowed.
            ValueError: its labels do not say which of its outputs means fake, or what lies beside it cannot be read.
        """
        point = load_operating_point(name, revision=revision)
        familiarity = load_familiarity(name, revision=revision)
        settings = {"revision": revision, "trust_remote_code": trust_remote_code}
        model = AutoModelForImageClassification.from_pretrained(
            os.fspath(name),
            attn_implementation=attn_implementation,
            use_safetensors=True if only_safetensors else None,
            **settings,
        )
        processor = AutoImageProcessor.from_pretrained(  # type: ignore[no-untyped-call]
            os.fspath(name), backend="pil", **settings
        )  # as in training, whatever else is installed
        pack(model)
        return cls(model.to(device), processor, batch_size=batch_size, point=point, familiarity=familiarity, bf16=bf16)

    def predict(self, images: Picture | Iterable[Picture]) -> list[Verdict]:
        """Judge pictures by the model's operating point, one verdict each, in order.

        Args:
            images: one picture or many: paths, the bytes of files, Pillow pictures, arrays (height, width, 3) or
                (height, width) of uint8 [0, 255], or a data set's image column.

        Raises:
            UnreadableImageError: a picture cannot be read; the message names it by path or position.
            TypeError: something is no picture at all.
        """
        return list(self.stream(images))

    def stream(self, images: Picture | Iterable[Picture]) -> Iterator[Verdict]:
        """Judge pictures as they come, a batch on each core, however many there are. Takes what `predict` takes.

        A verdict is given when as many batches as there are cores have been read beyond its own.
        """
        yield from chain.from_iterable(self._ask(images, self._judge))

    def _ask(
        self, images: Picture | Iterable[Picture], question: Callable[[list[Image.Image]], Answer]
    ) -> Iterator[Answer]:
        """Ask about the pictures batch by batch, in order."""
        return map_in_threads(
            lambda batch: question(list(_read_all(batch))), _batches(_numbered(images), self.batch_size)
        )

    def _judge(self, pictures: list[Image.Image]) -> list[Verdict]:
        if self.familiarity is None:
            return [self.point.judge(p) for p in self._score(pictures).tolist()]
        p_fake, embeddings = self._with_embeddings(pictures)
        far = self.familiarity.is_far(embeddings).tolist()
        return [replace(self.point.judge(p), is_far=is_far) for p, is_far in zip(p_fake.tolist(), far, strict=True)]

    def probabilities(self, images: Picture | Iterable[Picture]) -> NDArray[np.float32]:
        """Give `p_fake` of each picture: (n,) float32 in [0, 1]. Takes what `predict` takes."""
        scores = list(self._ask(images, self._score))
        return np.concatenate(scores) if scores else np.empty(0, dtype=np.float32)

    def embeddings(self, images: Picture | Iterable[Picture]) -> NDArray[np.float32]:
        """Give what the model's last layer decides by: (n, width) float32. Takes what `predict` takes.

        Raises:
            ValueError: the model has no linear head.
        """
        rows = list(self._ask(images, lambda batch: self._with_embeddings(batch)[1]))
        return np.concatenate(rows) if rows else np.empty((0, 0), dtype=np.float32)

    def explain(
        self,
        images: Picture | Iterable[Picture],
        *,
        method: str,
        target: Target = "predicted",
        options: Mapping[str, Any] | None = None,
        batch_size: int | None = None,
    ) -> list[Explanation]:
        """Show where the model looked, one explanation a picture, in order.

        Methods on attention see it computed eagerly; the model is as before afterwards.

        Args:
            images: what `predict` takes.
            method: a name in `realfake_hf.attribution.methods.METHODS`, such as "relevance" or "grad_cam".
            target: the label to explain, or "predicted" for the likelier one, whichever side of the threshold it is.
            options: of the method; what is not given has its default.
            batch_size: pictures that go through the model at once; None means the detector's.

        Raises:
            UnreadableImageError: a picture cannot be read; the message names it by path or position.
            TypeError: something is no picture at all.
            ValueError: an unknown method, target or option, or a method that does not fit the model.
        """
        found: list[Explanation] = []
        for batch in _batches(_read_all(_numbered(images)), batch_size or self.batch_size):
            pixels = self._pixels(batch)
            with self._lock.alone():
                found += explain(self.model, pixels, method=method, target=target, options=options)
        return [replace(one, verdict=self.point.judge(one.verdict.p_fake)) for one in found]

    def view(self, picture: Image.Image) -> NDArray[np.uint8]:
        """Give what a map of an RGB picture lies over, as (height, width, 3) uint8.

        It is the picture itself where the processor only resizes; where it also crops or pads, what it makes of it.
        """
        if resize_target(self.processor) is not None:
            return np.asarray(picture)
        return resize_images([picture], self.processor)[0]  # type: ignore[no-any-return]

    def digest(self) -> str:
        """Name the weights: the SHA-256 of all of them, in hexadecimal."""
        digest = hashlib.sha256()
        for name, values in self.model.state_dict().items():
            plain = values.detach().cpu().contiguous().flatten().view(torch.uint8)
            digest.update(name.encode() + plain.numpy().tobytes())
        return digest.hexdigest()

    def _with_embeddings(self, pictures: list[Image.Image]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        with caught_embeddings(self.judge_model) as caught:
            p_fake = self._score(pictures)
        return p_fake, torch.cat(caught)[: len(pictures)].float().cpu().numpy()

    @torch.inference_mode()
    def _score(self, pictures: list[Image.Image]) -> NDArray[np.float32]:
        pixels = self._pixels(pictures)
        with self._lock.together():
            logits = logits_of(self.judge_model, pixels)
        return logits.float().softmax(dim=-1)[:, self.fake].cpu().numpy()

    def _pixels(self, pictures: list[Image.Image]) -> Tensor:
        pixels = torch.from_numpy(resize_images(pictures, self.processor)).to(self.model.device)
        return self._normalize(pixels).to(self.model.dtype)


class SharedLock:
    """Held by any number of threads together, or by one alone, who waits until all others are done.

    Whoever waits to be alone goes before those who come later, so that nobody waits for ever.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._together = 0
        self._waiting = 0
        self._is_alone = False

    @contextmanager
    def together(self) -> Iterator[None]:
        """Hold it beside others."""
        with self._changed:
            self._changed.wait_for(lambda: not self._is_alone and not self._waiting)
            self._together += 1
        try:
            yield
        finally:
            with self._changed:
                self._together -= 1
                self._changed.notify_all()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Hold it without others."""
        with self._changed:
            self._waiting += 1
            self._changed.wait_for(lambda: not self._is_alone and not self._together)
            self._waiting -= 1
            self._is_alone = True
        try:
            yield
        finally:
            with self._changed:
                self._is_alone = False
                self._changed.notify_all()


def load_detector(name: str, place: str) -> Detector:
    """Load a model that a command names, on the accelerator where there is one.

    Args:
        name: what the command calls it, for the message.
        place: a folder of train.py or a Hub id.

    Raises:
        OSError: there is no such model.
        ValueError: its labels do not say real and fake.
    """
    device = torch.accelerator.current_accelerator(check_available=True) or "cpu"
    try:
        return Detector.from_pretrained(Path(place).expanduser(), device=device)
    except OSError as error:
        reason = str(error).strip().splitlines()[0]
        raise OSError(
            f"wanted a folder of train.py or a Hub id as {name}; found none at {place!r} ({reason})."
        ) from error


def _numbered(images: Picture | Iterable[Picture]) -> Iterator[tuple[int, Picture]]:
    return enumerate([images] if isinstance(images, _ONE_PICTURE) else images)


def _read_all(numbered: Iterable[tuple[int, Picture]]) -> Iterator[Image.Image]:
    return (_read(picture, position) for position, picture in numbered)


def _read(picture: Picture, position: int) -> Image.Image:
    if isinstance(picture, np.ndarray):
        return _from_array(picture, position)
    if isinstance(picture, Image.Image):
        return _readable(lambda: to_rgb(picture), name=f"picture {position}")
    if isinstance(picture, bytes):
        return _readable(lambda: decode_image(picture), name=f"picture {position}")
    if isinstance(picture, (str, os.PathLike)):
        return _readable(lambda: decode_image(Path(picture).read_bytes()), name=os.fspath(picture))
    raise TypeError(
        f"wanted a path, bytes, a Pillow picture or an array as picture {position}; found {type(picture).__name__}"
    )


def _readable(read: Callable[[], Image.Image], *, name: str) -> Image.Image:
    try:
        return read()
    except (UnreadableImageError, OSError) as error:
        raise UnreadableImageError(f"cannot read {name}: {error}") from error


def _from_array(picture: NDArray[np.uint8], position: int) -> Image.Image:
    shaped = picture.ndim == 2 or (picture.ndim == 3 and picture.shape[2] == 3)  # noqa: PLR2004
    if picture.dtype != np.uint8 or not shaped or not picture.size:
        raise UnreadableImageError(
            f"wanted an array (height, width, 3) or (height, width) of uint8 as picture {position}; found "
            f"{picture.shape} of {picture.dtype}. Scale values to [0, 255] and cast them; give a stack as a list."
        )
    return Image.fromarray(picture).convert("RGB")


def _batches(items: Iterator[Item], size: int) -> Iterator[list[Item]]:
    while batch := list(islice(items, size)):
        yield batch
