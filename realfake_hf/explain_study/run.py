"""The whole study: score the split, draw the sample, compute the maps, measure each part."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Final

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray
from tqdm.auto import tqdm

from realfake_hf.attribution.methods import CLASS_METHODS
from realfake_hf.data.loading import load_split
from realfake_hf.environment import environment, split_fingerprint
from realfake_hf.estimate import to_plain
from realfake_hf.explain_study.agreement import correct_agreement, measure_agreement
from realfake_hf.explain_study.arguments import StudyArguments
from realfake_hf.explain_study.entity import check_masks, draw_entities, measure_entity, read_masks
from realfake_hf.explain_study.faithfulness import measure_faithfulness
from realfake_hf.explain_study.fidelity import Hardened, load_hardened
from realfake_hf.explain_study.grid_game import measure_grids
from realfake_hf.explain_study.maps import (
    GRID,
    Images,
    MapSet,
    Plain,
    Sample,
    StudyModel,
    compute_maps,
    draw_sample,
    load_model,
    training_summary,
)
from realfake_hf.explain_study.occlusion import Mask, map_shares, measure_occlusion
from realfake_hf.explain_study.patching import measure_patching
from realfake_hf.explain_study.pointing_game import measure_planted
from realfake_hf.explain_study.sanity import measure_sanity
from realfake_hf.explain_study.sinks import measure_sinks
from realfake_hf.labels import FAKE, LabelName
from realfake_hf.models.pretrained import random_weights
from realfake_hf.sampling import take_evenly
from realfake_hf.store import Store, begin_or_resume, sha256_of, without_local_paths

DIGITS: Final = 5  # decimals of the numbers in the results
SETTINGS: Final = "study.json"
_NOT_RECORDED: Final = ("output_dir", "parts", "gallery", "results_file", "page_file", "figure_file")


@dataclass(frozen=True, eq=False)
class ExplainedImage:
    """An image with the scores and maps of all models, for the gallery.

    The image is (height, width, 3) uint8 [0, 255]; `p_fake` are the scores by model; the maps, (grid_h, grid_w) in
    [0, 1], are by model and method.
    """

    image: Images
    is_fake: bool
    content: str
    p_fake: dict[str, float]
    maps: dict[tuple[str, str], NDArray[np.float32]]

    @property
    def wrong(self) -> tuple[str, ...]:
        """The names of the models that misclassify the image."""
        return tuple(name for name, p in self.p_fake.items() if (p > 0.5) != self.is_fake)  # noqa: PLR2004


def run_study(arguments: StudyArguments) -> tuple[Plain, list[ExplainedImage]]:
    """Run or resume a study; return the content of its results file, and the images of its gallery."""
    hardened = [load_hardened(name, place) for name, place in arguments.hardened_places.items()]
    models = [load_model(name, place) for name, place in arguments.models.items()]
    twins = [load_model(name, place) for name, place in arguments.twin_places.items()]
    split, rows = load_split(arguments.data, arguments.split, labels=arguments.labels)
    arguments = replace(arguments, split=split)
    settings = {name: value for name, value in asdict(arguments).items() if name not in _NOT_RECORDED}
    masks = read_masks(arguments.entity_masks) if arguments.entity_masks else {}
    check_masks(masks, rows["id"][:])
    settings["entity_masks"] = arguments.entity_masks and sha256_of(arguments.entity_masks)
    settings["pictures"] = split_fingerprint(rows)["sha256"]
    loaded = (*models, *twins, *(copy.model for copy in hardened))
    settings["weights"] = [model.detector.digest() for model in loaded]
    settings["temperature"] = [model.detector.point.temperature for model in loaded]
    begin_or_resume(arguments.output_dir / SETTINGS, settings, what="study")
    store = Store(arguments.output_dir)
    p_fake = {model.name: _scores(store, model, rows) for model in models}
    sample = draw_sample(rows, p_fake, n=arguments.n, seed=arguments.seed)
    study = _Study(arguments, store, models, twins, rows, p_fake, sample, masks, hardened)
    measurements = study.measurements()
    parts = {name: store.json(name, {}, measurements[name]) for name in arguments.measured_parts}
    results = json.dumps({**study.facts(), "seconds": store.seconds, **parts})
    return json.loads(results, parse_float=lambda digits: round(float(digits), DIGITS)), study.gallery()


@dataclass(frozen=True, eq=False)
class _Study:
    """A running study; its store holds every finished part, score and map."""

    arguments: StudyArguments
    store: Store
    models: Sequence[StudyModel]
    twins: Sequence[StudyModel]
    rows: Dataset
    p_fake: Mapping[str, NDArray[np.float32]]
    sample: Sample
    masks: Mapping[str, Mask] = field(default_factory=dict)  # of entities, by the ids of their images
    hardened: Sequence[Hardened] = ()

    def measurements(self) -> Mapping[str, Callable[[], Plain]]:
        """Return a function for each of `PARTS` that measures it."""
        arguments, bootstrap = self.arguments, self._bootstrap
        return {
            "agreement": self._agreement,
            "faithfulness": lambda: measure_faithfulness(
                self.models, self._draw(arguments.faithfulness_n), hardened=self.hardened, **bootstrap
            ),
            "sanity": lambda: measure_sanity(self.models, self._draw(arguments.sanity_n), **bootstrap),
            "planted": lambda: measure_planted(self.models, self.sample, n=arguments.planted_n, **bootstrap),
            "grids": lambda: measure_grids(self.models, self.sample, n=arguments.planted_n, **bootstrap),
            "causal": self._occlusion,
            "entity": self._entity,
            "patching": lambda: measure_patching(self.models, self._draw(arguments.patching_n), **bootstrap),
            "sinks": lambda: measure_sinks(self.models, self._draw(arguments.sinks_n), **bootstrap),
        }

    def facts(self) -> Plain:
        """Return the settings, code, machine, data and models."""
        facts = {
            "settings": to_plain(self.arguments),
            **environment(),
            "data": {"source": self.arguments.data, "split": self.arguments.split, "sample": self.sample.to_dict()},
            "models": {model.name: self._describe(model) for model in self.models},
            "grid": list(GRID),
        }
        return dict(without_local_paths(facts))

    def gallery(self) -> list[ExplainedImage]:
        """Choose images of each label, with and without an error of any model."""
        groups = list(zip(self.sample.is_fake.tolist(), self.sample.all_right.tolist(), strict=True))
        row_of = {name: row for row, name in enumerate(self.rows["id"][:])}
        map_sets = self._maps(self.models, "predicted")
        return [
            ExplainedImage(
                image=self.sample.images[row],
                is_fake=bool(self.sample.is_fake[row]),
                content=self.sample.content[row],
                p_fake={name: float(scores[row_of[self.sample.ids[row]]]) for name, scores in self.p_fake.items()},
                maps={(maps.model, maps.method): maps.heat[row] for maps in map_sets},
            )
            for row in take_evenly(groups, self.arguments.gallery)
        ]

    def _agreement(self) -> Plain:
        untrained = [
            model.with_weights_of(random_weights(model.detector.model, seed=self.arguments.seed))
            for model in self.models
        ]
        by_target = {
            target: measure_agreement(
                self._maps(self.models, target),
                self._maps(untrained, target, "random weights"),
                self._maps(self.twins, target, "another seed"),
                self.sample,
                **self._bootstrap,
            )
            for target in self.arguments.targets
        }
        correct_agreement(by_target)
        return {"by_target": by_target}

    def _occlusion(self) -> Plain:
        maps = {maps.name: maps.heat for maps in self._maps(self.models, "predicted")}
        height, width = self.sample.images.shape[1:3]
        shares = map_shares(maps, self.sample.resampling(**self._bootstrap), shape=(height, width))
        sample = self._draw(self.arguments.causal_n)
        return {**measure_occlusion(self.models, sample, **self._bootstrap), "map_shares": shares}

    def _entity(self) -> Plain:
        sample, masks = draw_entities(self.rows, self.p_fake, self.masks)
        maps = replace(self, sample=sample)._maps(self.models, "predicted", "entity")
        return measure_entity(self.models, maps, sample, masks, **self._bootstrap)

    def _draw(self, n: int) -> Sample:
        """Draw images balanced by label and content alone, because a stratum of few images has no interval."""
        return draw_sample(self.rows, self.p_fake, n=n, seed=self.arguments.seed, by_verdict=False)

    @property
    def _bootstrap(self) -> dict[str, int]:
        return {"samples": self.arguments.bootstrap_samples, "seed": self.arguments.seed}

    def _maps(self, models: Sequence[StudyModel], target: str, kind: str = "") -> list[MapSet]:
        """Explain a label of each image by every method of each model; a twin explains that of the model itself."""
        return [self._map_set(model, method, target, kind) for model in models for method in model.methods]

    def _map_set(self, model: StudyModel, method: str, target: str, kind: str) -> MapSet:
        is_fake = self.sample.is_target_fake(target, model=model.name)
        if method not in CLASS_METHODS or is_fake.all():
            return self._map_cell(model, method, "FAKE", kind)
        real = self._map_cell(model, method, "REAL", kind)
        if not is_fake.any():
            return real
        fake = self._map_cell(model, method, "FAKE", kind)
        return replace(real, heat=np.where(is_fake[:, None, None], fake.heat, real.heat))

    def _map_cell(self, model: StudyModel, method: str, label: LabelName, kind: str) -> MapSet:
        note = f", {kind}" if kind else ""
        make = partial(compute_maps, model, method, self.sample.images, target=label, note=note)
        label_words = [label] if method in CLASS_METHODS else []
        cell = self.store.arrays("-".join(["maps", model.name, method, *label_words, *kind.split()]), {}, make)
        return MapSet(model.name, method, str(cell["layer"]) or None, cell["heat"])

    def _describe(self, model: StudyModel) -> Plain:
        is_fake = np.asarray(self.rows["label"][:]) == FAKE
        twin = next((twin for twin in self.twins if twin.name == model.name), None)
        return {
            "place": model.place,
            "methods": list(model.methods),
            "accuracy": float(((self.p_fake[model.name] > 0.5) == is_fake).mean()),  # noqa: PLR2004 - one half
            "training": training_summary(model.place),
            "twin": twin and {"place": twin.place, "training": training_summary(twin.place)},
        }


def _scores(store: Store, model: StudyModel, rows: Dataset) -> NDArray[np.float32]:
    def score() -> dict[str, NDArray[np.float32]]:
        images = tqdm(rows["image"], desc=f"{model.name}: scores", unit="image", disable=None)
        return {"values": model.detector.probabilities(images)}

    return store.arrays(f"verdicts-{model.name}", {}, score)["values"]
