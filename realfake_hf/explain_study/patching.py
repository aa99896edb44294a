"""Do maps highlight the cells that decide? Activation patching between images of the two labels.

Each image has a twin: an image of the other label with the same content. A cell of a layer is replaced by the twin's
cell, and the rest of the model computes on; the effect of the cell is the change of the log-odds towards the twin's
label. Hidden pixels, as in deletion, give a model what it never saw; cells of a twin are those of a real input.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm.auto import tqdm

from realfake_hf.attribution.explain import scale
from realfake_hf.attribution.patching import patch_cells, patching_layer
from realfake_hf.estimate import to_plain
from realfake_hf.explain_study.agreement import SPLIT_MEASURES, agreement, centre_gaussian, draw_partners
from realfake_hf.explain_study.maps import GRID, Maps, Plain, Sample, StudyModel, Values, maps_on_grid, to_grid
from realfake_hf.explain_study.names import CENTRE_PRIOR
from realfake_hf.metrics.intervals import Resampling
from realfake_hf.metrics.significance import correct_differences

TOP: Final = 0.2  # share of the cells whose share of the effect is reported


def measure_patching(models: Sequence[StudyModel], sample: Sample, *, samples: int = 1000, seed: int = 0) -> Plain:
    """Patch every cell of images with their twins, and compare the maps of each method with the effects.

    The maps explain the predicted label. An image that the model misclassifies, or without a twin, has no effects and
    counts as undefined. The seed is that of the twins, of the other images and of the bootstrap. The result is plain
    JSON: the settings, and for each of the `models` the `layer`, its grid, the number `n` of images with a twin, the
    means of effects (log-odds, see `_summarize`), and for each method and `CENTRE_PRIOR` its agreement with them, see
    `_compare`. The p-values of all differences are corrected together.
    """
    resampling, partner = sample.resampling(samples=samples, seed=seed), draw_partners(sample, seed=seed)
    results = {}
    for model in models:
        layer, effects = _patch(model, sample, draw_twins(sample, model=model.name, seed=seed))
        maps = {name: np.nan_to_num(maps_on_grid(model, sample.images, name)) for name in model.methods}
        maps[CENTRE_PRIOR] = np.broadcast_to(centre_gaussian(), (len(sample), *GRID))
        results[model.name] = {
            "layer": layer,
            "native_grid": effects["cells"].shape[1:],
            **_summarize(effects, resampling),
            "maps": _compare(maps, effects["cells"], partner, resampling),
        }
    measured = to_plain({"n": len(sample), "top": TOP, "measures": SPLIT_MEASURES, "models": results})
    rows = [
        row
        for tested in measured["models"].values()
        for by_name in tested["maps"].values()
        for row in by_name.values()
    ]
    correct_differences([row[name] for row in rows for name in ("less_other", "less_centre") if name in row])
    return measured


def draw_twins(sample: Sample, *, model: str, seed: int) -> NDArray[np.intp]:
    """Draw an image of the other label and the same content for each image, both classified correctly: (n,) positions.

    It is -1 for an image that the model misclassifies, and for one without any such image.
    """
    generator = np.random.default_rng(seed)
    twin = np.full(len(sample), -1, dtype=np.intp)
    for of_content in sample.by_content.values():
        fake, real = (
            np.flatnonzero(of_content & sample.is_right[model] & (sample.is_fake == label)) for label in (True, False)
        )
        for members, others in ((fake, real), (real, fake)):
            if len(others):
                twin[members] = generator.choice(others, size=len(members))
    return twin


def top_share(effects: Maps, *, share: float = TOP) -> Values:
    """Compute the share of the positive effects in the most effective cells, `share` of the cells: (n,) in [0, 1].

    Effects are (n, grid_h, grid_w). The result is NaN for an image without positive effects.
    """
    ordered = np.sort(np.maximum(effects.reshape(len(effects), -1), 0), axis=1)[:, ::-1]
    count = max(1, round(share * ordered.shape[1]))
    with np.errstate(invalid="ignore"):  # 0 / 0
        return np.asarray(ordered[:, :count].sum(axis=1) / ordered.sum(axis=1))


def _patch(model: StudyModel, sample: Sample, twin: NDArray[np.intp]) -> tuple[str, dict[str, Values]]:
    """Return the layer, and `Effects` by field, towards the label of the twin; NaN for images without a twin."""
    rows = np.flatnonzero(twin >= 0)
    if not rows.size:
        raise ValueError(
            f"expected images of both labels and the same content that {model.name} classifies correctly; found none. "
            "Draw a larger sample with --patching_n."
        )
    network, values = model.detector.single_view(sample.images)
    layer = patching_layer(network, values)
    found = [
        patch_cells(network, values[row : row + 1], values[twin[row : row + 1]], layer)
        for row in tqdm(rows.tolist(), desc=f"{model.name}: patching", unit="image", disable=None)
    ]
    effects = {}
    for name in ("cells", "special", "total"):
        changes = torch.cat([getattr(each, name) for each in found]).double().cpu().numpy()
        effects[name] = np.full((len(sample), *changes.shape[1:]), np.nan)
        effects[name][rows] = changes
        effects[name][sample.is_fake] *= -1  # towards REAL
    return layer, effects


def _summarize(effects: Mapping[str, Values], resampling: Resampling) -> Plain:
    """Return means of the effects of everything (`total`), of all `cells` one at a time, summed, and of `special`."""
    cells = effects["cells"]
    return {
        "n": int((~np.isnan(effects["total"])).sum()),
        "total": resampling.mean(effects["total"]),
        "cells": resampling.mean(cells.sum(axis=(1, 2))),
        "special": resampling.mean(effects["special"]),
        "top_share": resampling.mean(top_share(cells)),
    }


def _compare(maps: Mapping[str, Maps], effects: Values, partner: NDArray[np.intp], resampling: Resampling) -> Plain:
    """Compare maps with the effects of the `same` image and of an `other` one of its label and content.

    Differences are paired: to the other image, and to the centre prior on the same image.
    """
    on_grid = to_grid(scale(torch.from_numpy(np.nan_to_num(effects)))[0].numpy())
    other = np.where(partner[:, None, None] < 0, 0, on_grid[partner])
    found = {name: (agreement(heat, on_grid), agreement(heat, other)) for name, heat in maps.items()}
    centre, _ = found[CENTRE_PRIOR]

    def rows(name: str, measure: str) -> Plain:
        same, shuffled = (each[measure] for each in found[name])
        row = {"same": resampling.mean(same), "other": resampling.mean(shuffled)}
        row["less_other"] = resampling.change(same - shuffled)
        return row if name == CENTRE_PRIOR else {**row, "less_centre": resampling.change(same - centre[measure])}

    return {name: {measure: rows(name, measure) for measure in SPLIT_MEASURES} for name in found}
