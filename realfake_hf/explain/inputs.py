"""Images to explain: all are listed first, and each is decoded when it is needed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from datasets import Dataset
from PIL import Image

from realfake_hf.data.decoding import UnreadableImageError, decode_image, to_rgb
from realfake_hf.data.files import read_file
from realfake_hf.data.folders import find_image_files
from realfake_hf.labels import LABEL_NAMES, LabelName
from realfake_hf.store import file_names


@dataclass(frozen=True, eq=False)
class InputImage:
    """An image that is not yet decoded.

    Attributes:
        kind: whether its name is a path, or the opaque id of a row of a data set.
        name: the path, as `file_names` shortens it, or the id.
        truth: true label, if known.
        read: function that returns the upright RGB image, or raises `UnreadableImageError`.
    """

    kind: Literal["path", "id"]
    name: str
    truth: LabelName | None
    read: Callable[[], Image.Image]

    @property
    def stem(self) -> str:
        """The name without folders and suffix."""
        return Path(self.name).stem if self.kind == "path" else self.name


def images_of_files(words: Sequence[str]) -> list[InputImage]:
    """List images by files, folders and globs, each file once, in the order of the words.

    A folder stands for the image files below it, at any depth; a glob for all matching files that are not hidden.

    Raises:
        FileNotFoundError: a word matches no file.
    """
    files = find_image_files(words)
    names = file_names(files)
    return [InputImage("path", name, None, partial(_read_file, file)) for name, file in zip(names, files, strict=True)]


def images_of_rows(rows: Dataset) -> list[InputImage]:
    """List every row of a data set in the schema of `load_images`."""
    pairs = zip(rows["id"][:], rows["label"][:], strict=True)
    return [
        InputImage("id", name, LABEL_NAMES[label], partial(_read_row, rows, row))
        for row, (name, label) in enumerate(pairs)
    ]


def _read_file(path: Path) -> Image.Image:
    try:
        return decode_image(read_file(path))
    except OSError as error:
        raise UnreadableImageError(error.strerror or str(error)) from error


def _read_row(rows: Dataset, row: int) -> Image.Image:
    return to_rgb(rows[row]["image"])
