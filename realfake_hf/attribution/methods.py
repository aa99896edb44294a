"""Names and options of the attribution methods, and their result. Cheap to import."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from realfake_hf.labels import LabelName, Verdict

Target = Literal["predicted", "FAKE", "REAL"]

METHODS: Final[Mapping[str, Mapping[str, Any]]] = {  # the options of each method with their defaults
    "rollout": {"head_fusion": "mean", "discard_ratio": 0.0},
    "last_attention": {"head_fusion": "mean"},
    "gradient_rollout": {},
    "relevance": {},
    "legrad": {},
    "libragrad": {},
    "grad_cam": {"layer": None},
    "integrated_gradients": {"steps": 32, "grid": (8, 8)},
}
ATTENTION_METHODS: Final = frozenset(
    {"rollout", "last_attention", "gradient_rollout", "relevance", "legrad", "libragrad"}
)
# the others ignore the target
CLASS_METHODS: Final = frozenset({"gradient_rollout", "relevance", "legrad", "libragrad", "grad_cam"})
_PROPER_NAMES: Final = {"grad_cam": "Grad-CAM", "legrad": "LeGrad", "libragrad": "LibraGrad"}


@dataclass(frozen=True, eq=False)
class Explanation:
    """Where a detector looked in one image.

    Attributes:
        verdict: the model's verdict in the explained forward pass.
        map: (grid_h, grid_w) float32, scaled to a minimum of 0 and a maximum of 1, so that maps are comparable in
            shape, not in strength; NaN where the model saw nothing.
        is_empty: whether the raw map was constant, up to rounding; `map` is all 0 then.
        method: name in `METHODS`.
        target: the label whose evidence is shown; None if the method ignores labels.
        options: all options of the method, including defaults.
        layer: the layer that was read, for methods that read one.
    """

    verdict: Verdict
    map: NDArray[np.float32]
    is_empty: bool
    method: str
    target: LabelName | None
    options: dict[str, Any]
    layer: str | None

    @property
    def bright(self) -> str:
        """What the bright cells of an overlay mean, in words."""
        if self.target:
            return f"bright = evidence for {'AI-generated' if self.target == 'FAKE' else 'real'}"
        if self.method in ATTENTION_METHODS:
            return "bright = more attention, whatever the label"
        return "bright = more influence on the score, for or against"

    def to_rows(self) -> list[list[float | None]]:
        """Return the rows of the map as plain JSON: values with four decimals, None for NaN."""
        rounded = np.round(self.map.astype(np.float64), 4)
        return [[None if np.isnan(value) else value for value in row] for row in rounded.tolist()]

    def overlay(self, image: NDArray[np.uint8], *, strength: float = 0.6) -> NDArray[np.uint8]:
        """Blend the map with its image; see `realfake_hf.attribution.overlay.overlay`."""
        from realfake_hf.attribution.overlay import overlay  # imports matplotlib

        return overlay(image, self.map, strength=strength)


def method_name(method: str) -> str:
    """Return the name of a method for text and figures.

    >>> method_name("grad_cam"), method_name("last_attention")
    ('Grad-CAM', 'last attention')
    """
    return _PROPER_NAMES.get(method, method.replace("_", " "))
