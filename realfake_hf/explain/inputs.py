"""The pictures that are to be explained: found and named first, read one after the other later."""

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


@dataclass(frozen=True, eq=False)
class Exhibit:
    """A picture that waits to be explained.

    Attributes:
        kind: whether its name is a path, or the opaque id of a data set's row.
        name: that path or id.
        truth: its label, where it is known.
        read: gives the upright RGB picture, or raises `UnreadableImageError`.
    """

    kind: Literal["path", "id"]
    name: str
    truth: LabelName | None
    read: Callable[[], Image.Image]

    @property
    def stem(self) -> str:
        """Its name, without folders and suffix."""
        return Path(self.name).stem if self.kind == "path" else self.name


def exhibits_of_files(words: Sequence[str]) -> list[Exhibit]:
    """Find pictures by files, folders and globs, each file once, in the order of the words.

    Args:
        words: of a folder, the files named as pictures below it, at any depth; of a glob, every file that it matches
            and that is not hidden.

    Raises:
        FileNotFoundError: a word stands for no file.
    """
    return [Exhibit("path", str(path), None, partial(_read_path, path)) for path in find_image_files(words)]


def exhibits_of_rows(rows: Dataset) -> list[Exhibit]:
    """Take every row of a data set in the schema of `load_images`."""
    pairs = zip(rows["id"][:], rows["label"][:], strict=True)
    return [
        Exhibit("id", name, LABEL_NAMES[label], partial(_read_row, rows, row))
        for row, (name, label) in enumerate(pairs)
    ]


def _read_path(path: Path) -> Image.Image:
    try:
        return decode_image(read_file(path))
    except OSError as error:
        raise UnreadableImageError(error.strerror or str(error)) from error


def _read_row(rows: Dataset, row: int) -> Image.Image:
    return to_rgb(rows[row]["image"])
