"""The whole study: score the split, draw the sample, make the maps, measure each part, keep it all."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
from datasets import Dataset, DatasetDict
from numpy.typing import NDArray
from tqdm.auto import tqdm

from realfake_hf.data.loading import load_images
from realfake_hf.environment import data_fingerprint, environment
from realfake_hf.explain_study.agreement import GRID, measure_agreement
from realfake_hf.explain_study.arguments import StudyArguments
from realfake_hf.explain_study.faithfulness import measure_faithfulness
from realfake_hf.explain_study.maps import MapSet, make_maps
from realfake_hf.explain_study.occlusion import map_shares, measure_causal
from realfake_hf.explain_study.pointing_game import measure_planted
from realfake_hf.explain_study.sample import Sample, draw_sample
from realfake_hf.explain_study.sanity import measure_sanity
from realfake_hf.explain_study.shown import Shown, choose_shown
from realfake_hf.explain_study.store import Store
from realfake_hf.explain_study.subjects import Subject, load_subject, training_of
from realfake_hf.labels import FAKE

DIGITS: Final = 5  # of the numbers in the results
_NOT_ASKED: Final = ("output_dir", "parts", "gallery", "results_file", "page_file", "figure_file")

Plain = dict[str, Any]  # JSON


@dataclass(frozen=True, eq=False)
class Study:
    """What a study found, and what its pictures and maps look like.

    Attributes:
        results: plain numbers and words, as in the results file.
        shown: the pictures of the gallery.
    """

    results: Plain
    shown: tuple[Shown, ...]


def run_study(arguments: StudyArguments) -> Study:
    """Do what is not yet done of a study, and give all of it.

    Raises:
        OSError: there is no such model or data set.
        ValueError: a model does not say real and fake; the data set has no such split; the folder is in use.
    """
    subjects = [load_subject(name, place) for name, place in arguments.models.items()]
    twins = [load_subject(name, place) for name, place in arguments.twin_places.items()]
    rows = _split(load_images(arguments.data), arguments.split)
    store = Store(arguments.output_dir, _asked(arguments, [*subjects, *twins], rows))
    p_fake = {one.name: store.array(f"verdicts-{one.name}", partial(_score, one, rows)) for one in subjects}
    sample = draw_sample(rows, p_fake, n=arguments.n, seed=arguments.seed)
    work = _Work(arguments, store, subjects, twins, rows, p_fake, sample)
    done = {name: store.part(name, getattr(work, name)) for name in arguments.parts}
    return Study(_rounded({**work.facts(), "seconds": store.seconds, **done}), work.shown())


@dataclass(frozen=True, eq=False)
class _Work:
    """The parts of a study, a method each, named as in `PARTS`."""

    arguments: StudyArguments
    store: Store
    subjects: Sequence[Subject]
    twins: Sequence[Subject]
    rows: Dataset
    p_fake: Mapping[str, NDArray[np.float32]]
    sample: Sample

    def agreement(self) -> Plain:
        blank = [subject.unlearned(seed=self.arguments.seed) for subject in self.subjects]
        random, twins = self._maps(blank, "random weights"), self._maps(self.twins, "another seed")
        return measure_agreement(self._maps(self.subjects), random, twins, self.sample, **self._draws).to_dict()

    def faithfulness(self) -> Plain:
        n = self.arguments.faithfulness_n
        return measure_faithfulness(self.subjects, self._even(n), n=n, **self._draws).to_dict()

    def sanity(self) -> Plain:
        n = self.arguments.sanity_n
        return measure_sanity(self.subjects, self._even(n), n=n, **self._draws).to_dict()

    def planted(self) -> Plain:
        return measure_planted(self.subjects, self.sample, n=self.arguments.planted_n, **self._draws).to_dict()

    def causal(self) -> Plain:
        large = self._even(self.arguments.causal_n)
        maps = {one.name: one.heat for one in self._maps(self.subjects)}
        height, width = self.sample.pictures.shape[1:3]
        shares = map_shares(maps, self.sample.resampling(**self._draws), shape=(height, width))
        return {**measure_causal(self.subjects, large, **self._draws).to_dict(), "map_shares": shares}

    def facts(self) -> Plain:
        """What was asked, of which models, on which pictures, with which code and machine."""
        settings = {name: str(one) if isinstance(one, Path) else one for name, one in asdict(self.arguments).items()}
        sample = self.sample.to_dict()
        data = {"source": self.arguments.data, "split": self.arguments.split, "sample": sample}
        models = {one.name: self._about(one) for one in self.subjects}
        return {"settings": settings, **environment(), "data": data, "models": models, "grid": list(GRID)}

    def shown(self) -> tuple[Shown, ...]:
        """The gallery."""
        ids = self.rows["id"][:]
        p_fake = {name: dict(zip(ids, scores.tolist(), strict=True)) for name, scores in self.p_fake.items()}
        return choose_shown(self.sample, p_fake, self._maps(self.subjects), n=self.arguments.gallery)

    def _even(self, n: int) -> Sample:
        """Draw pictures evenly by label and content alone: a stratum of few has no interval."""
        return draw_sample(self.rows, self.p_fake, n=n, seed=self.arguments.seed, by_verdict=False)

    @property
    def _draws(self) -> dict[str, int]:
        return {"samples": self.arguments.bootstrap_samples, "seed": self.arguments.seed}

    def _maps(self, subjects: Sequence[Subject], kind: str = "") -> list[MapSet]:
        pictures, note = self.sample.pictures, f", {kind}" if kind else ""
        return [
            self.store.maps(
                "-".join(["maps", one.name, method, *kind.split()]),
                partial(make_maps, one, method, pictures, note=note),
            )
            for one in subjects
            for method in one.methods
        ]

    def _about(self, subject: Subject) -> Plain:
        is_fake = np.asarray(self.rows["label"][:]) == FAKE
        return {
            "place": subject.place,
            "methods": list(subject.methods),
            "accuracy": float(((self.p_fake[subject.name] > 0.5) == is_fake).mean()),  # noqa: PLR2004 - one half
            "training": training_of(subject.place),
            "twin": next((_twin(one) for one in self.twins if one.name == subject.name), None),
        }


def _twin(subject: Subject) -> Plain:
    return {"place": subject.place, "training": training_of(subject.place)}


def _score(subject: Subject, rows: Dataset) -> NDArray[np.float32]:
    pictures = tqdm(rows["image"], desc=f"{subject.name} judges", unit="image", disable=None)
    return subject.detector.probabilities(pictures)


def _split(splits: DatasetDict, name: str) -> Dataset:
    if name not in splits:
        raise ValueError(f"wanted --split of {', '.join(splits)}; found {name!r}.")
    return splits[name]


def _asked(arguments: StudyArguments, models: Sequence[Subject], rows: Dataset) -> Plain:
    settings = {name: value for name, value in asdict(arguments).items() if name not in _NOT_ASKED}
    [pictures] = data_fingerprint(DatasetDict({arguments.split: rows})).values()
    return {**settings, "pictures": pictures["sha256"], "weights": [one.detector.digest() for one in models]}


def _rounded(content: Any) -> Any:  # noqa: ANN401 - plain JSON
    """Round all numbers with a fraction."""
    match content:
        case dict():
            return {name: _rounded(value) for name, value in content.items()}
        case list():
            return [_rounded(value) for value in content]
        case float():
            return round(content, DIGITS)
    return content
