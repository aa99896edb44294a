"""What a study works on: a balanced sample of images, models, and their maps by every method on one common grid."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray
from PIL import Image
from tqdm.auto import tqdm

from realfake_hf.attribution.methods import CLASS_METHODS, METHODS, Explanation, Target
from realfake_hf.data.decoding import to_rgb
from realfake_hf.detector import Detector, NamedDetector, load_detector
from realfake_hf.labels import FAKE, LabelName
from realfake_hf.metrics.intervals import Resampling
from realfake_hf.run_folder import METRICS, RECORD, read_run
from realfake_hf.sampling import take_evenly

GRID: Final = (8, 8)  # the patches of a ViT at 32 px with patches of 4; finer maps are averaged
METHOD_OPTIONS: Final[Mapping[str, Mapping[str, Any]]] = {"integrated_gradients": {"steps": 16}}  # others: defaults
CHUNK: Final = 128  # images between two updates of the progress bar

Images = NDArray[np.uint8]
Maps = NDArray[np.floating]
Values = NDArray[np.float64]
Plain = dict[str, Any]  # JSON


@dataclass(frozen=True, eq=False)
class Sample:
    """Images that every model scores and explains."""

    images: Images  # (n, height, width, 3) uint8 [0, 255]
    is_fake: NDArray[np.bool_]  # (n,) true labels
    content: tuple[str, ...]  # what each image shows; "unknown" if the source does not name it
    ids: tuple[str, ...]  # opaque id of each row
    # whether the prediction of each model is correct, FAKE above 0.5, (n,) by the model's name
    is_right: Mapping[str, NDArray[np.bool_]]
    # (n,) codes of the groups between which the draw is balanced: label, content, and correctness
    stratum: NDArray[np.intp]
    weight: NDArray[np.float64]  # (n,) number of images of the whole split that each image represents

    def __len__(self) -> int:
        return len(self.images)

    def resampling(self, *, samples: int, seed: int) -> Resampling:
        """Return the bootstrap of this sample."""
        return Resampling(self.weight, stratum=self.stratum, samples=samples, seed=seed)

    def to_dict(self) -> Plain:
        """Count the images by label, content and correctness, and the images of the split that they represent."""
        return {
            "n": len(self),
            "of": round(float(self.weight.sum())),
            "n_real": int((~self.is_fake).sum()),
            "n_fake": int(self.is_fake.sum()),
            "content": {name: int(mask.sum()) for name, mask in self.by_content.items()},
            "right": {name: int(right.sum()) for name, right in self.is_right.items()},
            "all_right": int(self.all_right.sum()),
            "strata": len(np.unique(self.stratum)),
        }

    def is_target_fake(self, target: str, *, model: str) -> NDArray[np.bool_]:
        """Return whether the label that a model's maps explain is FAKE, (n,), given one of `TARGETS`."""
        if target in ("FAKE", "REAL"):
            return np.full(len(self), target == "FAKE")
        return self.is_fake if target == "truth" else self.is_right[model] == self.is_fake

    @property
    def by_content(self) -> dict[str, NDArray[np.bool_]]:
        """The images of each content as masks, (n,), in alphabetical order."""
        names = np.array(self.content)
        return {name: names == name for name in sorted(set(self.content))}

    @property
    def all_right(self) -> NDArray[np.bool_]:
        """(n,) whether all models are correct."""
        return np.logical_and.reduce(list(self.is_right.values()))  # type: ignore[no-any-return]


def draw_sample(
    rows: Dataset, p_fake: Mapping[str, NDArray[np.floating]], *, n: int, seed: int, by_verdict: bool = True
) -> Sample:
    """Draw n images of a split, balanced between its strata: label, content, and which models are correct.

    The scores of every image, (rows,), are given by the model's name. All images of a smaller split are taken. With
    `by_verdict` false, correctness is ignored, and errors are as rare as in the split.
    """
    is_fake = np.asarray(rows["label"][:]) == FAKE
    verdicts = [((scores > 0.5) == is_fake).tolist() for scores in p_fake.values()] if by_verdict else []  # noqa: PLR2004
    groups = list(zip(is_fake.tolist(), rows["content"][:], *verdicts, strict=True))
    codes = {group: code for code, group in enumerate(dict.fromkeys(groups))}
    stratum = np.array([codes[group] for group in groups], dtype=np.intp)
    order = np.random.default_rng(seed).permutation(len(rows))
    chosen = np.sort(order[take_evenly(stratum[order].tolist(), n)])
    drawn = stratum[chosen]
    return sample_rows(
        rows, p_fake, chosen, stratum=drawn, weight=np.bincount(stratum)[drawn] / np.bincount(drawn)[drawn]
    )


def sample_rows(
    rows: Dataset,
    p_fake: Mapping[str, NDArray[np.floating]],
    chosen: NDArray[np.intp],
    *,
    stratum: NDArray[np.intp],
    weight: Values,
) -> Sample:
    """Return the chosen rows, (n,), of a split as a sample with the given strata and weights, (n,)."""
    drawn = rows.select(chosen)
    is_fake = np.asarray(drawn["label"][:]) == FAKE
    return Sample(
        images=_stack_images(drawn),
        is_fake=is_fake,
        content=tuple(name or "unknown" for name in drawn["content"][:]),
        ids=tuple(drawn["id"][:]),
        is_right={name: (scores[chosen] > 0.5) == is_fake for name, scores in p_fake.items()},  # noqa: PLR2004
        stratum=stratum,
        weight=weight,
    )


def _stack_images(rows: Dataset) -> Images:
    images = [np.asarray(to_rgb(image)) for image in rows["image"]]
    shapes = sorted({image.shape[:2] for image in images})
    if len(shapes) > 1:
        found = ", ".join(f"{width} x {height}" for height, width in shapes[:3])
        raise ValueError(
            f"expected images of one size, so that their maps are comparable; found {found}. Resize them first."
        )
    return np.stack(images)


@dataclass(frozen=True, kw_only=True)
class StudyModel(NamedDetector):
    """A model under study, with the names of the methods that fit it."""

    methods: tuple[str, ...]

    def explain(self, images: Images, method: str, *, target: Target = "predicted") -> list[Explanation]:
        """Explain images, (n, height, width, 3) uint8, by one method with the options of the study."""
        options = METHOD_OPTIONS.get(method, {})
        return self.detector.explain(list(images), method=method, target=target, options=options, batch_size=64)

    def probabilities(self, images: Images) -> NDArray[np.float32]:
        """Return `p_fake` of images, (n, height, width, 3) uint8: (n,)."""
        return self.detector.probabilities(list(images))

    def with_weights_of(self, model: Any) -> "StudyModel":  # noqa: ANN401 - as `Detector`
        """Return this study model with the weights of another model of the same configuration."""
        return replace(self, detector=Detector(model, self.detector.processor, batch_size=self.detector.batch_size))


def load_model(name: str, place: str) -> StudyModel:
    """Load a model, on the accelerator if there is one; see `load_detector`."""
    detector = load_detector(name, place)
    methods = tuple(method for method in METHODS if method in detector.methods())
    return StudyModel(name=name, place=place, detector=detector, methods=methods)


def training_summary(place: str) -> Plain | None:
    """Return seed, epochs, number of training images and test accuracy of a run folder; None for other places."""
    folder = Path(place).expanduser()
    if not all((folder / name).is_file() for name in (RECORD, METRICS)):
        return None
    run = read_run(folder)
    return {
        "seed": run.seed,
        "epochs": run.record["arguments"]["num_train_epochs"],
        "n": run.record["data"]["train"]["n"],
        "accuracy": run.outcome.test.accuracy.value,
    }


@dataclass(frozen=True, eq=False)
class MapSet:
    """The maps of one model by one method, one for each image."""

    model: str
    method: str
    layer: str | None  # layer that was read, for methods that read one
    heat: NDArray[np.float32]  # (n, grid_h, grid_w) float32 in [0, 1], on the method's own grid

    @property
    def name(self) -> str:
        """Model and method."""
        return f"{self.model} {self.method}"

    def to_dict(self) -> Plain:
        """Return the method with its options and layer, the grid, and the number of empty maps."""
        return {
            "model": self.model,
            "method": self.method,
            "options": {**METHODS[self.method], **METHOD_OPTIONS.get(self.method, {})},
            "layer": self.layer,
            "native_grid": self.heat.shape[1:],
            "empty": int(is_empty(self.heat).sum()),
        }


def compute_maps(
    model: StudyModel, method: str, images: Images, *, target: LabelName, note: str = ""
) -> dict[str, NDArray[Any]]:
    """Explain images, (n, height, width, 3) uint8, with a progress bar; `note` follows the model's name there.

    Returns:
        `heat` and `layer` of a `MapSet`, as arrays; the layer is empty for methods that read none.
    """
    explanations: list[Explanation] = []
    starts = range(0, len(images), CHUNK)
    title = f"{model.name}{note}: {method}" + (f", {target}" if method in CLASS_METHODS else "")
    for start in tqdm(starts, desc=title, unit=f"{CHUNK} images", disable=None):
        explanations += model.explain(images[start : start + CHUNK], method, target=target)
    return {"heat": _stack(explanations), "layer": np.array(explanations[0].layer or "")}


def maps_on_grid(model: StudyModel, images: Images, method: str, *, target: Target = "predicted") -> Values:
    """Explain images, (n, height, width, 3) uint8, and return maps, (n, *GRID) in [0, 1]; empty maps are all NaN."""
    maps = to_grid(_stack(model.explain(images, method, target=target)))
    return np.where(is_empty(maps)[:, None, None], np.nan, maps)


def to_grid(maps: Maps) -> Values:
    """Resample maps, (n, height, width), to `GRID`: finer cells are averaged, coarser cells repeated."""
    if maps.shape[1:] == GRID:
        return maps.astype(np.float64)
    height, width = GRID
    resized = [Image.fromarray(heat.astype(np.float32)).resize((width, height), Image.Resampling.BOX) for heat in maps]
    return np.stack([np.asarray(heat, dtype=np.float64) for heat in resized])


def is_empty(maps: Maps) -> NDArray[np.bool_]:
    """Return for each map, (n,), whether it is constant and thus highlights nothing."""
    flat = maps.reshape(len(maps), -1)
    return np.asarray(flat.max(axis=1) == flat.min(axis=1))


def mass_inside(maps: Maps, inside: NDArray[Any], whole: NDArray[Any] | float = 1.0) -> Values:
    """Compute the share of each map's sum in a region: (n,) in [0, 1]; NaN for empty or NaN maps.

    The weights of the cells in the region and in the whole map have the shape of one map or of all.
    """
    heat = maps.astype(np.float64)
    with np.errstate(invalid="ignore"):  # 0 / 0 for an empty map
        shares = (heat * inside).sum(axis=(1, 2)) / (heat * whole).sum(axis=(1, 2))
    return np.where(is_empty(maps), np.nan, shares)


def pixels_of_cells(mask: NDArray[np.bool_], grid: tuple[int, ...]) -> Values:
    """Count the selected pixels of an image, (height, width), that each cell of a map covers: of the grid's shape.

    A cell covers the pixels over which it is drawn, with sharp edges: pixel row i shows cell row i * grid_h // height.
    """
    rows, columns = (np.arange(side) * cells // side for side, cells in zip(mask.shape, grid, strict=True))
    counts = np.zeros(grid)
    np.add.at(counts, np.ix_(rows, columns), mask)
    return counts


def _stack(explanations: Sequence[Explanation]) -> NDArray[np.float32]:
    return np.stack([explanation.map for explanation in explanations])
