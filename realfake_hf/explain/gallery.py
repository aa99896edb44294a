"""Explain many pictures, batch after batch: a figure of each, contact sheets, and one file of all the maps."""

import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray
from PIL import Image
from tqdm.auto import tqdm

from realfake_hf.attribution.explain import default_method
from realfake_hf.attribution.methods import Explanation, Target, default_options
from realfake_hf.data.decoding import UnreadableImageError
from realfake_hf.data.loading import load_images
from realfake_hf.data.sampling import take_evenly
from realfake_hf.detector import Detector, load_detector
from realfake_hf.environment import environment
from realfake_hf.explain.arguments import ExplainArguments
from realfake_hf.explain.inputs import Exhibit, exhibits_of_files, exhibits_of_rows
from realfake_hf.explain.rows import Row, rows_file, to_row, unique_name
from realfake_hf.explain.sheets import Sheets, draw_explanations
from realfake_hf.figures import save_figure
from realfake_hf.labels import FAKE
from realfake_hf.run_folder import RECORD
from realfake_hf.tables import markdown_table

logger = logging.getLogger(__name__)

IMAGES: Final = "images"
SHEETS: Final = "sheets"
ROWS: Final = "explanations.json"
POOL: Final = 10  # rows judged for each one drawn, so that wrong verdicts of good models are found without judging all
_NAMED_AT_MOST = 10  # unreadable pictures in a message


@dataclass(frozen=True, kw_only=True)
class Explainer:
    """A model, and how it is asked."""

    name: str
    place: str
    detector: Detector
    method: str
    options: Mapping[str, Any]
    target: Target

    def explain(self, pictures: Sequence[Image.Image]) -> list[Explanation]:
        """Explain a batch of pictures."""
        return self.detector.explain(
            pictures, method=self.method, target=self.target, options=self.options, batch_size=len(pictures)
        )

    def to_dict(self) -> dict[str, Any]:
        """What is asked of the model, and the passport of its training, where there is one."""
        passport = Path(self.place).expanduser() / RECORD
        return {
            "model": self.place,
            "method": self.method,
            "options": {**default_options(self.method), **self.options},
            "target": self.target,
            "passport": json.loads(passport.read_text()) if passport.is_file() else None,
        }


@dataclass(frozen=True, kw_only=True)
class Gallery:
    """What explaining many pictures left.

    Attributes:
        folder: where it lies.
        n: pictures that were explained.
        models: for each, its name, its method, and how many pictures were right, wrong, or of unknown truth.
        unreadable: the name of each picture that cannot be read, and why.
        interrupted: it was stopped before the last picture.
    """

    folder: Path
    n: int
    models: Sequence[Mapping[str, Any]]
    unreadable: Mapping[str, str]
    interrupted: bool

    def to_markdown(self) -> str:
        """Render a table with a row for each model; kinds of which there are no pictures are left out."""
        names = [name for name in self.models[0] if any(row[name] for row in self.models) or name == "empty maps"]
        return markdown_table(names, [[row[name] for name in names] for row in self.models], align="llr")

    def name_unreadable(self) -> str:
        """Count and name the pictures that cannot be read, the first ten of them."""
        named = [f"  {name}: {reason}" for name, reason in islice(self.unreadable.items(), _NAMED_AT_MOST)]
        rest = len(self.unreadable) - len(named)
        more = [f"  and {rest:,} more, named in {ROWS}"] if rest else []
        pictures = "picture" if len(self.unreadable) == 1 else "pictures"
        return "\n".join([f"{len(self.unreadable):,} {pictures} cannot be read:", *named, *more])


def make_gallery(arguments: ExplainArguments) -> Gallery:
    """Explain pictures, and write a figure of each, contact sheets where the truth is known, and `explanations.json`.

    Each model first explains a blank picture, so that what does not fit is refused before anything is read or written.
    An interruption ends the work early; what is done is whole and stays.

    Raises:
        OSError: there is no such model, picture or data set.
        ValueError: the folder is in use; a method or option does not fit a model; the data set has no such split.
    """
    _refuse_used(arguments.output_dir)
    explainers = load_explainers(arguments)
    exhibits, data = find_exhibits(arguments, explainers)
    plain = {name: str(value) if isinstance(value, Path) else value for name, value in asdict(arguments).items()}
    models = {explainer.name: explainer.to_dict() for explainer in explainers}
    run = {"arguments": plain, **environment(), "models": models, "data": data, "asked": len(exhibits)}
    return _explain_all(exhibits, explainers, arguments, run)


def load_explainers(arguments: ExplainArguments) -> list[Explainer]:
    """Load the models, on the accelerator where there is one, and let each explain a blank picture.

    Raises:
        OSError: there is no such model.
        ValueError: its labels do not say real and fake, or the method or an option does not fit it.
    """
    explainers = [_load(arguments, name, place) for name, place in arguments.models.items()]
    fitting = {option for explainer in explainers for option in default_options(explainer.method)}
    if lost := sorted(arguments.typed_options.keys() - fitting):
        methods = ", ".join(dict.fromkeys(explainer.method for explainer in explainers))
        raise ValueError(f"wanted --options of {methods}; found {', '.join(lost)}. Leave it out, or change --method.")
    for explainer in explainers:
        explainer.explain([Image.new("RGB", (32, 32))])
    return explainers


def find_exhibits(
    arguments: ExplainArguments, explainers: Sequence[Explainer]
) -> tuple[list[Exhibit], dict[str, Any] | None]:
    """Find the pictures of `--images` and of `--data`, and say what was drawn of the latter.

    Raises:
        OSError: there is no such picture or data set.
        ValueError: the data set has no such split.
    """
    exhibits = exhibits_of_files(arguments.images)
    if arguments.data is None:
        return exhibits, None
    splits = load_images(arguments.data)
    if arguments.split not in splits:
        raise ValueError(f"wanted --split of {', '.join(splits)}; found {arguments.split!r}.")
    rows = splits[arguments.split]
    drawn = _drawn(rows, explainers, n=arguments.limit, seed=arguments.seed)
    facts = {"source": arguments.data, "split": arguments.split, "n": len(drawn), "of": len(rows)}
    return exhibits + exhibits_of_rows(drawn), facts


def _load(arguments: ExplainArguments, name: str, place: str) -> Explainer:
    detector = load_detector(name, place)
    method = arguments.methods.get(name) or default_method(detector.model)
    options = {key: value for key, value in arguments.typed_options.items() if key in default_options(method)}
    if name in arguments.layers:
        options["layer"] = arguments.layers[name]
    return Explainer(
        name=name, place=place, detector=detector, method=method, options=options, target=arguments.target
    )


def _drawn(rows: Dataset, explainers: Sequence[Explainer], *, n: int, seed: int) -> Dataset:
    """Draw n rows, as even as can be in labels and in verdicts that all models have right or one has wrong; 0: all."""
    if n == 0 or n >= len(rows):
        return rows
    pool = np.random.default_rng(seed).permutation(len(rows))[: POOL * n]
    judged = rows.select(pool)
    is_fake = np.asarray(judged["label"][:]) == FAKE
    right = np.ones(len(pool), dtype=np.bool_)
    for explainer in explainers:
        pictures = tqdm(judged["image"], desc=f"{explainer.name} judges", unit="image", disable=None)
        right &= (explainer.detector.probabilities(pictures) > 0.5) == is_fake  # noqa: PLR2004
    chosen = take_evenly(list(zip(is_fake.tolist(), right.tolist(), strict=True)), n)
    return rows.select(np.sort(pool[chosen]))


def _explain_all(
    exhibits: Sequence[Exhibit], explainers: Sequence[Explainer], arguments: ExplainArguments, run: Mapping[str, Any]
) -> Gallery:
    unreadable: dict[str, str] = {}
    ending: dict[str, Any] = {"unreadable": unreadable, "interrupted": True}
    work = _Work(arguments.output_dir, explainers, strength=arguments.strength)
    with rows_file(arguments.output_dir / ROWS, run=run, ending=ending) as add_row:
        readable = _read_each(tqdm(exhibits, desc="explaining", unit="image", disable=None), unreadable)
        try:
            while batch := list(islice(readable, arguments.batch_size)):
                work.do(batch, add_row)
            ending["interrupted"] = False
        except KeyboardInterrupt:
            logger.info("interrupted: drawing the sheets of what is done")
        work.sheets.write(arguments.output_dir / SHEETS, [explainer.name for explainer in explainers])
    models = [{"model": one.name, "method": one.method, **work.sheets.to_row(one.name)} for one in explainers]
    return Gallery(
        folder=arguments.output_dir, n=work.n, models=models, unreadable=unreadable, interrupted=ending["interrupted"]
    )


class _Work:
    """Explains batches, draws each picture, and remembers what the sheets need."""

    def __init__(self, folder: Path, explainers: Sequence[Explainer], *, strength: float) -> None:
        self.sheets, self.n = Sheets(strength=strength), 0
        self._folder, self._explainers, self._strength = folder, explainers, strength
        self._names: set[str] = set()

    def do(self, batch: Sequence[tuple[Exhibit, Image.Image]], add_row: Callable[[Row], None]) -> None:
        pictures = [picture for _, picture in batch]
        by_model = [explainer.explain(pictures) for explainer in self._explainers]
        for (exhibit, picture), explanations in zip(batch, zip(*by_model, strict=True), strict=True):
            views = [explainer.detector.view(picture) for explainer in self._explainers]
            names = [explainer.name for explainer in self._explainers]
            explained = dict(zip(names, zip(explanations, views, strict=True), strict=True))
            self._put(exhibit, np.asarray(picture), explained, add_row)

    def _put(
        self,
        exhibit: Exhibit,
        picture: NDArray[np.uint8],
        explained: Mapping[str, tuple[Explanation, NDArray[np.uint8]]],
        add_row: Callable[[Row], None],
    ) -> None:
        truth, strength = exhibit.truth, self._strength
        file = f"{IMAGES}/{unique_name(exhibit.stem, self._names)}.png"
        figure = draw_explanations(picture, explained, title=exhibit.name, truth=truth, strength=strength)
        save_figure(figure, self._folder / file)
        for name, (explanation, view) in explained.items():
            add_row(to_row(exhibit, name, explanation, file=file))
            self.sheets.add(name, explanation, view, truth=truth)
        self.n += 1


def _read_each(exhibits: Iterable[Exhibit], unreadable: dict[str, str]) -> Iterator[tuple[Exhibit, Image.Image]]:
    for exhibit in exhibits:
        try:
            picture = exhibit.read()
        except UnreadableImageError as error:
            unreadable[exhibit.name] = str(error)
            continue
        yield exhibit, picture


def _refuse_used(folder: Path) -> None:
    if folder.is_dir() and not any(folder.iterdir()):
        return
    if folder.exists():
        found = f"files in {folder}" if folder.is_dir() else f"a file at {folder}"
        raise ValueError(f"wanted an empty output folder; found {found}. Name another with --output_dir.")
