"""Explain many images batch by batch: a figure of each, contact sheets of right and wrong ones, a file of all maps."""

import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain, count, islice, repeat
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from datasets import Dataset
from PIL import Image
from tqdm.auto import tqdm

from realfake_hf.attribution.methods import METHODS, Explanation, Target
from realfake_hf.data.decoding import UnreadableImageError, decode_image, to_rgb
from realfake_hf.data.files import read_file
from realfake_hf.data.folders import find_image_files
from realfake_hf.data.framing import Framing, measure_framing
from realfake_hf.data.loading import load_split
from realfake_hf.detector import NamedDetector, load_detector
from realfake_hf.environment import environment
from realfake_hf.estimate import to_plain
from realfake_hf.explain.arguments import ExplainArguments
from realfake_hf.explain.drawing import Explained, Sheets, draw_explanations
from realfake_hf.figures.style import save_figure
from realfake_hf.labels import FAKE, LABEL_NAMES, LabelName
from realfake_hf.run_folder import RECORD
from realfake_hf.sampling import take_evenly
from realfake_hf.store import file_names, read_object, without_local_paths
from realfake_hf.tables import markdown_table
from realfake_hf.wording import band_words, warnings_of

logger = logging.getLogger(__name__)

IMAGES: Final = "images"
SHEETS: Final = "sheets"
ROWS: Final = "explanations.json"
POOL: Final = 10  # rows scored per drawn row, so that errors of accurate models are found without scoring all rows
_LISTED: Final = 10  # unreadable images in a message
_REJECTED: Final = '<>:"/\\|?*'  # characters of a file name that Windows rejects
_NAME_BYTES: Final = 200  # of a file name; file systems allow 255

Row = Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class InputImage:
    """An image that is not yet decoded.

    Its name is a path, as `file_names` shortens it, or the opaque id of a row of a data set; `truth` is its true
    label, if known; `read` returns the upright RGB image, or raises `UnreadableImageError`.
    """

    kind: Literal["path", "id"]
    name: str
    truth: LabelName | None
    read: Callable[[], Image.Image]

    @property
    def stem(self) -> str:
        """The name without folders and suffix."""
        return Path(self.name).stem if self.kind == "path" else self.name


@dataclass(frozen=True, kw_only=True)
class Explainer(NamedDetector):
    """A model with the method, its options, and the label to explain."""

    method: str
    options: Mapping[str, Any]
    target: Target
    framing: Framing | None  # how images fit into the input of the model; None for several views

    def explain(self, images: Sequence[Image.Image]) -> list[Explained]:
        """Explain a batch of images."""
        explanations = self.detector.explain(
            images, method=self.method, target=self.target, options=self.options, batch_size=len(images)
        )
        return [self._describe(image, found) for image, found in zip(images, explanations, strict=True)]

    def _describe(self, image: Image.Image, explanation: Explanation) -> Explained:
        warnings = warnings_of(explanation.verdict, framing=self.framing, size=image.size)
        return Explained(explanation, self.detector.view(image), band_words(self.detector.point.band), warnings)

    def to_dict(self) -> dict[str, Any]:
        """Return the settings, and the record of the model's training if there is one."""
        record = Path(self.place).expanduser() / RECORD
        return {
            "model": self.place,
            "method": self.method,
            "options": {**METHODS[self.method], **self.options},
            "target": self.target,
            "passport": read_object(record) if record.is_file() else None,
        }


@dataclass(frozen=True, kw_only=True)
class Gallery:
    """The outcome of explaining many images."""

    folder: Path
    n: int
    # one row per model: its name, its method, and the number of images by label and prediction
    models: Sequence[Mapping[str, Any]]
    unreadable: Mapping[str, str]  # reason for each image that cannot be read, by name
    interrupted: bool  # whether the work stopped before the last image

    def to_markdown(self) -> str:
        """Render a table with one row per model; columns in which every count is 0 are omitted."""
        names = [name for name in self.models[0] if any(row[name] for row in self.models) or name == "empty maps"]
        return markdown_table(names, [[row[name] for name in names] for row in self.models], align="llr")

    def name_unreadable(self) -> str:
        """Count the unreadable images and name the first ten."""
        lines = [f"  {name}: {reason}" for name, reason in islice(self.unreadable.items(), _LISTED)]
        if more := len(self.unreadable) - len(lines):
            lines.append(f"  and {more:,} more, listed in {ROWS}")
        images = "image" if len(self.unreadable) == 1 else "images"
        return "\n".join([f"{len(self.unreadable):,} {images} cannot be read:", *lines])


def make_gallery(arguments: ExplainArguments) -> Gallery:
    """Explain images; write a figure of each, contact sheets, and `explanations.json`.

    Each model first explains a blank image: invalid settings fail before anything is read or written. After an
    interruption, the output of all finished images is complete.

    Raises:
        OSError: a model, image or data set does not exist.
        ValueError: the output folder is not empty; the labels of a model are not real and fake; a method or option
            does not fit a model; the data set has no such split.
    """
    _check_empty(arguments.output_dir)
    explainers = _load_all(arguments)
    images, data = _find_images(arguments, explainers)
    models = {explainer.name: explainer.to_dict() for explainer in explainers}
    run = {"arguments": to_plain(arguments), **environment(), "models": models, "data": data, "asked": len(images)}
    return _explain_all(images, explainers, arguments, without_local_paths(run))


@contextmanager
def rows_file(file: Path, *, run: Row, ending: Row) -> Iterator[Callable[[Row], None]]:
    """Write the JSON object `{"run": run, "explanations": [rows], **ending}`; yield a function that adds a row.

    Each row is written at once, on a line of its own; `ending` is read when the block ends. The file is complete
    after the block, even after an exception; before, it has the suffix `.part`.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f"{file.name}.part")
    separators = chain(["\n"], repeat(",\n"))
    with part.open("w", encoding="utf-8") as text:
        text.write(f'{{"run": {json.dumps(run, indent=2)},\n"explanations": [')
        try:
            yield lambda row: print(next(separators), json.dumps(row), sep="", end="", file=text)
        finally:
            text.write(f"\n],\n{json.dumps(ending, indent=2).removeprefix('{').lstrip()}\n")
            text.flush()
            part.replace(file)


def unique_name(stem: str, taken: set[str]) -> str:
    """Make a file name that differs from `taken`, ignoring case, and add it there.

    Characters that some file system rejects become `-`, as do unprintable ones.

    >>> taken = set()
    >>> [unique_name(stem, taken) for stem in ("frog (7)", "Frog (7)", "a/b?", "..", "")]
    ['frog (7)', 'Frog (7)-2', 'a-b', 'picture', 'picture-2']
    """
    kept = "".join(letter if letter.isprintable() and letter not in _REJECTED else "-" for letter in stem)
    plain = kept.encode()[:_NAME_BYTES].decode(errors="ignore").strip(" .-") or "picture"
    names = chain([plain], (f"{plain}-{number}" for number in count(2)))
    name = next(name for name in names if name.lower() not in taken)
    taken.add(name.lower())
    return name


def _load_all(arguments: ExplainArguments) -> list[Explainer]:
    """Load the models, on the accelerator if there is one, and let each explain a blank image."""
    explainers = [_load(arguments, name, place) for name, place in arguments.models.items()]
    fitting = {option for explainer in explainers for option in METHODS[explainer.method]}
    if unknown := sorted(arguments.typed_options.keys() - fitting):
        methods = ", ".join(dict.fromkeys(explainer.method for explainer in explainers))
        raise ValueError(
            f"expected --options of {methods}; found {', '.join(unknown)}. Remove them, or change --method."
        )
    for explainer in explainers:
        explainer.explain([Image.new("RGB", (32, 32))])
    return explainers


def _load(arguments: ExplainArguments, name: str, place: str) -> Explainer:
    detector = load_detector(name, place)
    method = arguments.methods.get(name) or detector.methods()[0]
    options = {key: value for key, value in arguments.typed_options.items() if key in METHODS[method]}
    if name in arguments.layers:
        options["layer"] = arguments.layers[name]
    return Explainer(
        name=name, place=place, detector=detector, method=method, options=options, target=arguments.target,
        framing=measure_framing(detector.processor),
    )  # fmt: skip


def _find_images(
    arguments: ExplainArguments, explainers: Sequence[Explainer]
) -> tuple[list[InputImage], dict[str, Any] | None]:
    """List the images of `--images`, each file once, and of `--data`, and describe the draw from the data set."""
    files = find_image_files(arguments.images)
    images = [
        InputImage("path", name, None, partial(_read_file, file))
        for name, file in zip(file_names(files), files, strict=True)
    ]
    if arguments.data is None:
        return images, None
    split, rows = load_split(arguments.data, arguments.split, labels=arguments.labels)
    drawn = _draw(rows, explainers, n=arguments.limit, seed=arguments.seed)
    images += [
        InputImage("id", name, LABEL_NAMES[label], partial(_read_row, drawn, row))
        for row, (name, label) in enumerate(zip(drawn["id"][:], drawn["label"][:], strict=True))
    ]
    return images, {"source": arguments.data, "split": split, "n": len(drawn), "of": len(rows)}


def _read_file(path: Path) -> Image.Image:
    try:
        return decode_image(read_file(path))
    except OSError as error:
        raise UnreadableImageError(error.strerror or str(error)) from error


def _read_row(rows: Dataset, row: int) -> Image.Image:
    return to_rgb(rows[row]["image"])


def _draw(rows: Dataset, explainers: Sequence[Explainer], *, n: int, seed: int) -> Dataset:
    """Draw n rows, balanced between labels and between images with and without an error of any model; 0: all."""
    if n == 0 or n >= len(rows):
        return rows
    positions = np.random.default_rng(seed).permutation(len(rows))[: POOL * n]
    pool = rows.select(positions)
    is_fake = np.asarray(pool["label"][:]) == FAKE
    right = np.ones(len(pool), dtype=np.bool_)
    for explainer in explainers:
        images = tqdm(pool["image"], desc=f"{explainer.name}: scores", unit="image", disable=None)
        right &= (explainer.detector.probabilities(images) > 0.5) == is_fake  # noqa: PLR2004
    chosen = take_evenly(list(zip(is_fake.tolist(), right.tolist(), strict=True)), n)
    return rows.select(np.sort(positions[chosen]))


def _explain_all(
    images: Sequence[InputImage], explainers: Sequence[Explainer], arguments: ExplainArguments, run: Row
) -> Gallery:
    folder, strength = arguments.output_dir, arguments.strength
    unreadable: dict[str, str] = {}
    ending: dict[str, Any] = {"unreadable": unreadable, "interrupted": True}
    sheets, names, n = Sheets(strength=strength), set[str](), 0
    with rows_file(folder / ROWS, run=run, ending=ending) as add_row:
        readable = _read_each(tqdm(images, desc="explaining", unit="image", disable=None), unreadable)
        try:
            for image, pixels, explained in _explain_each(readable, explainers, batch_size=arguments.batch_size):
                file = f"{IMAGES}/{unique_name(image.stem, names)}.png"
                figure = draw_explanations(image.name, pixels, explained, truth=image.truth, strength=strength)
                save_figure(figure, folder / file)
                for name, one in explained.items():
                    add_row(_to_row(image, name, one, file=file))
                    sheets.add(name, one, title=image.name, truth=image.truth)
                n += 1
            ending["interrupted"] = False
        except KeyboardInterrupt:
            logger.info("interrupted: drawing the contact sheets of the finished images")
        sheets.write(folder / SHEETS, [explainer.name for explainer in explainers])
    rows = [{"model": model.name, "method": model.method, **sheets.to_row(model.name)} for model in explainers]
    return Gallery(folder=folder, n=n, models=rows, unreadable=unreadable, interrupted=ending["interrupted"])


def _explain_each(
    readable: Iterator[tuple[InputImage, Image.Image]], explainers: Sequence[Explainer], *, batch_size: int
) -> Iterator[tuple[InputImage, Image.Image, dict[str, Explained]]]:
    """Explain images in batches; yield each with its pixels and its explanations by model."""
    while batch := list(islice(readable, batch_size)):
        explained = [(model, model.explain([pixels for _, pixels in batch])) for model in explainers]
        for row, (image, pixels) in enumerate(batch):
            yield image, pixels, {model.name: found[row] for model, found in explained}


def _read_each(images: Iterable[InputImage], unreadable: dict[str, str]) -> Iterator[tuple[InputImage, Image.Image]]:
    for image in images:
        try:
            yield image, image.read()
        except UnreadableImageError as error:
            unreadable[image.name] = without_local_paths(str(error))


def _to_row(image: InputImage, model: str, explained: Explained, *, file: str) -> dict[str, Any]:
    """Return an explanation as plain JSON, the values of its map with four decimals."""
    explanation = explained.explanation
    return {
        image.kind: image.name,
        "model": model,
        "verdict": explanation.verdict.label,
        "p_fake": explanation.verdict.p_fake,
        "is_sure": explanation.verdict.is_sure,
        "is_far": explanation.verdict.is_far,
        "reason": explanation.verdict.reason,
        "warnings": list(explained.warnings),
        "truth": image.truth,
        "method": explanation.method,
        "options": explanation.options,
        "layer": explanation.layer,
        "target": explanation.target,
        "is_empty": explanation.is_empty,
        "map": explanation.to_rows(),
        "file": file,
    }


def _check_empty(folder: Path) -> None:
    if folder.is_dir() and not any(folder.iterdir()):
        return
    if folder.exists():
        found = f"files in {folder}" if folder.is_dir() else f"a file at {folder}"
        raise ValueError(f"expected an empty output folder; found {found}. Choose another --output_dir.")
