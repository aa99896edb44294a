"""Maps of a classifier of several views: computed for each view, and stitched over the whole image."""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers import PreTrainedModel
from transformers.modeling_outputs import ImageClassifierOutput

from realfake_hf.attribution.explain import check, explained, raw_maps
from realfake_hf.attribution.maps import Maps, direction, log_odds
from realfake_hf.attribution.methods import CLASS_METHODS, Explanation, Target
from realfake_hf.attribution.stitching import combine, stitch, stitched_grid, tile
from realfake_hf.labels import LabelName
from realfake_hf.models.multiview import MultiViewConfig, MultiViewForImageClassification
from realfake_hf.models.views import MultiViewImageProcessor

_BATCH: Final = 8  # views whose attention and gradients are in memory at once


class OneView(PreTrainedModel):  # type: ignore[no-untyped-call]
    """The tower of a `MultiViewForImageClassification` and one of its heads, as a classifier of single views.

    Args:
        model: shares its weights.
        head: "whole" or "window".

    Attributes:
        view_head: maps features to the score.
        feature_layers: numbers of the layers from which the features come, 1 for the first.
        known_as: class of the model, which messages name.
    """

    config_class = MultiViewConfig
    _supports_sdpa = True
    _supports_attention_backend = True

    def __init__(self, model: MultiViewForImageClassification, head: str) -> None:
        super().__init__(model.config)
        self.tower, self.view_head = model.tower, model.get_submodule(head)
        self.feature_layers = sorted(set(model.config.feature_layers))
        self.known_as = type(model).__name__
        self.training = model.training
        self._features = model.features

    def forward(self, pixel_values: Tensor) -> ImageClassifierOutput:
        """Compute the logits (batch, 2) of views (batch, 3, size, size)."""
        score = self.view_head(self._features(pixel_values)).squeeze(-1)
        return ImageClassifierOutput(logits=torch.stack([torch.zeros_like(score), score], dim=1))


class ViewExplainer:
    """Explain a classifier of several views by maps of whole images.

    For an explanation, windows tile the image: they are more than those that make the verdict. A map for a label is
    multiplied by the probability of the label in its view alone, because a gradient is as large in a view that
    contradicts the label. The maps of both kinds of views are brought to one scale before; each cell is the mean of
    the whole's map and of the mean of the windows' maps.
    """

    def __init__(self, model: MultiViewForImageClassification, processor: MultiViewImageProcessor) -> None:
        self.model, self.processor = model, processor
        self.whole, self.window = OneView(model, "whole"), OneView(model, "window")

    def explain(
        self, image: Image.Image, *, method: str, target: Target, options: Mapping[str, Any] | None
    ) -> Explanation:
        """Explain the prediction for an RGB image; see `realfake_hf.attribution.explain.explain`."""
        check(self.model, method, target, options or {})
        odds = self._log_odds(image)
        label: LabelName = "FAKE" if direction(odds, target).item() > 0 else "REAL"
        size, positions = image.size, tile(*image.size, self.processor.size["height"])
        positions = positions if self.processor.n_windows else []
        boxes, views = self.processor.boxes(*size, positions), self.processor.views(image, positions)
        settings: dict[str, Any] = {"method": method, "options": options}
        whole = _maps(self.whole, self._values(views[:1]), target=label, **settings)
        grid = stitched_grid(size, boxes, (whole.values.shape[1], whole.values.shape[2]))
        parts = [stitch(whole.values, boxes[:1], size=size, grid=grid)]
        if positions:
            windows = _maps(self.window, self._values(views[1:]), target=label, **settings)
            parts.append(stitch(windows.values, boxes[1:], size=size, grid=grid))
        maps = Maps(combine(parts)[None], odds, whole.layer)
        [explanation] = explained(maps, target=label, **settings)
        return explanation

    @torch.no_grad()
    def _log_odds(self, image: Image.Image) -> Tensor:
        """Return the log-odds of FAKE by the views that make the verdict, (1,)."""
        return log_odds(self.model, self._values(self.processor.views(image))[None])

    def _values(self, views: np.ndarray) -> Tensor:
        values = torch.from_numpy(self.processor.normalize_views(views))
        return values.to(self.model.device, self.model.dtype)


def _maps(
    model: OneView, pixel_values: Tensor, *, method: str, target: LabelName, options: Mapping[str, Any] | None
) -> Maps:
    """Compute the maps of views of one kind in batches, with a root mean square of 1 over all of them.

    Those for a label are then weighted by its probability.
    """
    batches = torch.split(pixel_values, _BATCH)
    parts = [raw_maps(model, batch, method=method, target=target, options=options) for batch in batches]
    values, odds = torch.cat([part.values for part in parts]), torch.cat([part.log_odds for part in parts])
    values = values / values.square().mean().sqrt().clamp_min(torch.finfo(values.dtype).tiny)
    if method in CLASS_METHODS:
        values = values * (odds * direction(odds, target)).sigmoid()[:, None, None]
    return Maps(values, odds, parts[0].layer)
