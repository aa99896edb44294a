"""Models of a study and their maps by every method that fits, on the same images and one common grid."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm.auto import tqdm

from realfake_hf.attribution.methods import METHODS, Explanation, Target
from realfake_hf.detector import Detector, NamedDetector, load_detector
from realfake_hf.run_folder import METRICS, RECORD, read_run

GRID: Final = (8, 8)  # the patches of a ViT at 32 px with patches of 4; finer maps are averaged
METHOD_OPTIONS: Final[Mapping[str, Mapping[str, Any]]] = {"integrated_gradients": {"steps": 16}}  # others: defaults
CHUNK: Final = 128  # images between two updates of the progress bar

Maps = NDArray[np.floating]
Values = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class StudyModel(NamedDetector):
    """A model under study, with the names of the methods that fit it."""

    methods: tuple[str, ...]

    def explain(self, images: NDArray[np.uint8], method: str, *, target: Target = "predicted") -> list[Explanation]:
        """Explain images, (n, height, width, 3) uint8, by one method with the options of the study."""
        options = METHOD_OPTIONS.get(method, {})
        return self.detector.explain(list(images), method=method, target=target, options=options, batch_size=64)

    def probabilities(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
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


def training_summary(place: str) -> dict[str, Any] | None:
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
    """The maps of one model by one method, one for each image.

    Attributes:
        layer: layer that was read, for methods that read one.
        heat: (n, grid_h, grid_w) float32 in [0, 1], on the method's own grid.
    """

    model: str
    method: str
    layer: str | None
    heat: NDArray[np.float32]

    @property
    def name(self) -> str:
        """Model and method."""
        return f"{self.model} {self.method}"

    def to_dict(self) -> dict[str, Any]:
        """Return the method with its options and layer, the grid, and the number of empty maps."""
        return {
            "model": self.model,
            "method": self.method,
            "options": {**METHODS[self.method], **METHOD_OPTIONS.get(self.method, {})},
            "layer": self.layer,
            "native_grid": self.heat.shape[1:],
            "empty": int(is_empty(self.heat).sum()),
        }


def compute_maps(model: StudyModel, method: str, images: NDArray[np.uint8], *, note: str = "") -> MapSet:
    """Explain images, (n, height, width, 3) uint8, with a progress bar; `note` follows the model's name there."""
    explanations: list[Explanation] = []
    starts = range(0, len(images), CHUNK)
    for start in tqdm(starts, desc=f"{model.name}{note}: {method}", unit=f"{CHUNK} images", disable=None):
        explanations += model.explain(images[start : start + CHUNK], method)
    return MapSet(model.name, method, explanations[0].layer, _stack(explanations))


def maps_on_grid(
    model: StudyModel, images: NDArray[np.uint8], method: str, *, target: Target = "predicted"
) -> NDArray[np.float64]:
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


def _stack(explanations: Sequence[Explanation]) -> NDArray[np.float32]:
    return np.stack([explanation.map for explanation in explanations])
